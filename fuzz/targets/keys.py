"""Targets, hosts, keys and `cb:` segments: a target, then Host lines, then a URL to purge."""

from edgeproxy.semantics.cache_buster import split_cache_buster
from edgeproxy.semantics.errors import BadRequest
from edgeproxy.semantics.key import (
    KeyPolicy,
    cache_key,
    canonical_host,
    purge_prefix,
    purge_target,
    split_url,
    without_buster,
)
from edgeproxy.semantics.source_image import canonical_source, source_host, source_images
from edgeproxy.semantics.target import read_target

POLICIES = (
    KeyPolicy(),
    KeyPolicy(frozenset({"a", "u*"}), ignore_tracking=True, sort_query=True),
)


def check(data: bytes) -> None:
    target, host, *rest = [*data.split(b"\n"), b""][: data.count(b"\n") + 2]
    for method in (b"GET", b"OPTIONS", b"CONNECT"):
        try:
            read = read_target(method, target, (host,) if host else (), host_required=bool(host))
        except BadRequest:
            continue
        _check_key(read.authority or "a.example", read.path_and_query)
    for url in rest:
        _check_purge(url.decode("utf-8", "surrogateescape"))


def _check_key(host: str, target: bytes) -> None:
    buster, bare = split_cache_buster(target)
    assert target == (b"/cb:" + buster if buster else b"") + bare
    for scheme in ("http", "https"):
        assert canonical_host(scheme, canonical_host(scheme, host)) == canonical_host(scheme, host)
        for name in source_images(scheme, host, bare):
            assert canonical_source(name) == name
            source_host(name)
    for policy in POLICIES:
        key = cache_key("site", "http", host, target, policy)
        assert key.buster == buster
        assert policy.canonical_target(key.target) == key.target
        plain = cache_key("site", "http", host, bare, policy)
        if not plain.buster:
            assert without_buster(key) == plain
            assert plain.target_id == key.target_id
        if key.target.isascii() and key.target.startswith(b"/") and not plain.buster:
            # Whoever purges the URL that is shown purges this.
            assert purge_target(key.url, policy) == (key.host, key.target)


def _check_purge(url: str) -> None:
    for policy in POLICIES:
        try:
            host, target = purge_target(url, policy)
        except ValueError:
            continue
        assert target.isascii()
        assert target.startswith(b"/")
        assert host is None or canonical_host("http", host) == host or host.endswith(":80")
    try:
        _, begins = purge_prefix(url)
        assert begins.startswith(b"/")
    except ValueError:
        pass
    try:
        scheme, _, target = split_url(url)
        assert scheme in ("http", "https")
        assert target.isascii()
    except ValueError:
        pass
    if max(url, default="") < "\udc80":
        assert canonical_source(canonical_source(url)) == canonical_source(url)
