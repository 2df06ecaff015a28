"""The cache key: what is one resource, and above all what is not."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeproxy.semantics.key import (
    TRACKING_PARAMETERS,
    CacheKey,
    KeyPolicy,
    cache_key,
    canonical_host,
    purge_target,
    target_id,
)
from tests.semantics.build import checked

EXACT = KeyPolicy()


def key(
    target: bytes = b"/a",
    *,
    site: str = "shop",
    scheme: str = "https",
    host: str = "shop.example",
    policy: KeyPolicy = EXACT,
) -> CacheKey:
    return cache_key(site, scheme, host, target, policy)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(key(host="SHOP.example"), key(), id="9110-4.2.3-host-in-any-case"),
        pytest.param(key(host="shop.example:443"), key(), id="9110-4.2.3-default-port"),
        pytest.param(
            key(host="shop.example:80", scheme="http"), key(scheme="http"), id="4.2.3-http"
        ),
        pytest.param(key(host="shop.example:"), key(), id="3986-6.2.3-empty-port"),
        pytest.param(key(b""), key(b"/"), id="9110-4.2.3-empty-path"),
        pytest.param(key(b"?a"), key(b"/?a"), id="9110-4.2.3-empty-path-and-query"),
    ],
)
def test_one_resource(one: CacheKey, other: CacheKey) -> None:
    assert one == other


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(key(b"/b"), id="path"),
        pytest.param(key(b"/A"), id="case-of-the-path"),
        pytest.param(key(b"/%61"), id="percent-encoding"),
        pytest.param(key(b"//a"), id="slashes"),
        pytest.param(key(b"/./a"), id="dots"),
        pytest.param(key(b"/a/"), id="slash-at-the-end"),
        pytest.param(key(b"/a?"), id="empty-query"),
        pytest.param(key(b"/a?b"), id="query"),
        pytest.param(key(b"/cb:T/a"), id="cache-buster"),
        pytest.param(key(host="www.shop.example"), id="host"),
        pytest.param(key(host="shop.example:80"), id="the-other-schemes-port"),
        pytest.param(key(scheme="http"), id="scheme"),
        pytest.param(key(site="other"), id="site"),
    ],
)
def test_not_one_resource(other: CacheKey) -> None:
    assert other.primary != key().primary


# What some server, framework or cache takes for the same as something else.
PIECES = (
    *(b"/", b"//", b"\\", b"%2f", b"%2F", b"%252f", b"%5c", b".", b"..", b"%2e", b"%2E%2e", b"a"),
    *(b"A", b"%61", b"%41", b";", b";x", b"%3b", b"?", b"%3f", b"&", b"=", b"%23", b"%00", b"%0a"),
    *(b"+", b"%20", b"~", b"%7E", b",", b"!", b".css", b"\xc3\xa9", b"%C3%A9", b"%c3%a9", b"cb:x/"),
)
targets = st.lists(st.sampled_from(PIECES), max_size=6).map(lambda pieces: b"/" + b"".join(pieces))


@checked
@given(targets, targets)
@example(b"/a/", b"/a")
@example(b"/a?", b"/a")
@example(b"/a%2fb", b"/a/b")
@example(b"/cb:x//a", b"/cb:x/a")
def test_only_equal_targets_share_a_key(one: bytes, other: bytes) -> None:
    assert (key(one).primary == key(other).primary) is (one == other)


@checked
@given(targets)
def test_what_the_key_says_is_what_was_asked_for(target: bytes) -> None:
    found = key(target)
    segment = b"/cb:%b" % found.buster if found.buster else b""
    assert segment + found.target == target
    # A purge of the URL as it was asked for finds it, be it with a fragment.
    assert purge_target(found.url + "#top", EXACT) == (found.host, _percent_encoded(found.target))


def _percent_encoded(target: bytes) -> bytes:
    return b"".join(b"%c" % byte if byte < 0x80 else b"%%%02X" % byte for byte in target)


@pytest.mark.parametrize(
    "host", ["shop.example.", "shop.example..", "shop.example:81", "SHOP.EXAMPLE."]
)
def test_no_other_host_shares_a_key(host: str) -> None:
    assert key(host=host).primary != key().primary


def test_the_parts_cannot_be_shifted_into_each_other() -> None:
    assert key(site="ab", scheme="c").primary != key(site="a", scheme="bc").primary
    assert key(b"/cb:a/b").primary != key(b"/cb:ab/").primary


def test_a_target_id_is_for_all_hosts_schemes_and_busters_of_a_site() -> None:
    same = {
        each.target_id
        for each in (key(), key(host="b.example"), key(scheme="http"), key(b"/cb:T/a"))
    }
    assert same == {target_id("shop", b"/a")}
    assert key(site="other").target_id not in same
    assert key(b"/b").target_id not in same


def test_ids_have_16_bytes_and_are_told_apart() -> None:
    found = key()
    assert len(found.primary) == len(found.target_id) == 16
    assert found.primary != found.target_id


def test_ids_stay_what_they_are() -> None:
    # Stores are read again by later versions: a change here needs a new version of the store.
    assert key().primary.hex() == PRIMARY
    assert key().target_id.hex() == TARGET_ID


PRIMARY = "6c536db31a70417451b622c461b3360a"
TARGET_ID = "67a7c115f3c0b263afb38f6584a3281d"


@pytest.mark.parametrize("host", ["", "a b", "a/b", "a:99999", "[::1", "ex\u00e4mple.com"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(ValueError, match="not a valid host"):
        key(host=host)


@pytest.mark.parametrize(
    ("target", "host", "url"),
    [
        (b"/a?b", "shop.example", "https://shop.example/a?b"),
        (b"/cb:T/a", "shop.example:8443", "https://shop.example:8443/cb:T/a"),
        (b"/\xc3\xa9\xff%20", "shop.example", "https://shop.example/%C3%A9%FF%20"),
    ],
)
def test_url(target: bytes, host: str, url: str) -> None:
    assert key(target, host=host).url == url


@pytest.mark.parametrize(
    ("policy", "target", "canonical"),
    [
        (EXACT, b"/a?b=2&a=1&utm_source=x", b"/a?b=2&a=1&utm_source=x"),
        (KeyPolicy(sort_query=True), b"/a?b=2&a=1", b"/a?a=1&b=2"),
        (KeyPolicy(sort_query=True), b"/a?b=2&a=1&b=1&a", b"/a?a=1&a&b=2&b=1"),
        (KeyPolicy(sort_query=True), b"/a?b&&a", b"/a?&a&b"),
        (KeyPolicy(sort_query=True), b"/a?", b"/a?"),
        (KeyPolicy(ignore_query=frozenset({"sid"})), b"/a?sid=1&b=2", b"/a?b=2"),
        (KeyPolicy(ignore_query=frozenset({"sid"})), b"/a?sid&x=sid", b"/a?x=sid"),
        (KeyPolicy(ignore_query=frozenset({"sid"})), b"/a?sid=1", b"/a"),
        (KeyPolicy(ignore_query=frozenset({"sid"})), b"/a?", b"/a?"),
        (KeyPolicy(ignore_query=frozenset({"sid"})), b"/a?sids=1&SID=2", b"/a?sids=1&SID=2"),
        (KeyPolicy(ignore_query=frozenset({"sid"})), b"/a?s%69d=1", b"/a?s%69d=1"),
        (KeyPolicy(ignore_query=frozenset({"sid"})), b"/a?sid=1;b=2", b"/a?sid=1;b=2"),
        (KeyPolicy(ignore_query=frozenset({"u_*"})), b"/a?u_a=1&u=2&u_=3&xu_=4", b"/a?u=2&xu_=4"),
        (KeyPolicy(ignore_query=frozenset({"*"})), b"/a?b=1&c", b"/a"),
        (KeyPolicy(ignore_tracking=True), b"/a?utm_source=x&gclid=y&id=5", b"/a?id=5"),
        (KeyPolicy(ignore_tracking=True), b"/a?fbclid=1?2", b"/a"),
    ],
)
def test_what_a_site_leaves_out(policy: KeyPolicy, target: bytes, canonical: bytes) -> None:
    assert policy.canonical_target(target) == canonical
    assert key(target, policy=policy) == key(canonical, policy=policy)


def test_a_star_only_ends_a_name() -> None:
    with pytest.raises(ValueError, match=r"a\*b"):
        KeyPolicy(ignore_query=frozenset({"a*b"}))


def test_policies_are_values() -> None:
    assert replace(EXACT, sort_query=True) == KeyPolicy(sort_query=True)
    assert hash(EXACT) == hash(KeyPolicy())


@pytest.mark.parametrize("name", ["utm_*", "gclid", "fbclid", "msclkid", "mc_eid", "_ga"])
def test_the_usual_tracking_parameters_are_known(name: str) -> None:
    assert name in TRACKING_PARAMETERS


@pytest.mark.parametrize(
    ("text", "host", "target"),
    [
        ("/a?b", None, b"/a?b"),
        ("//a", None, b"//a"),
        ("/a#b", None, b"/a"),
        ("/cb:T/a", None, b"/a"),
        ("/a?u=http://b/#c", None, b"/a?u=http://b/"),
        ("https://Shop.example/a?b#c", "shop.example", b"/a?b"),
        ("https://shop.example:443/", "shop.example", b"/"),
        ("http://shop.example:443", "shop.example:443", b"/"),
        ("HTTP://shop.example?a", "shop.example", b"/?a"),
        ("https://shop.example/cb:T/a", "shop.example", b"/a"),
        ("https://[::1]:8080/a", "[::1]:8080", b"/a"),
        ("/caf\u00e9", None, b"/caf%C3%A9"),
        ("/caf%C3%A9", None, b"/caf%C3%A9"),
        ("/caf%c3%a9", None, b"/caf%c3%a9"),
        ("/a|b\"c'", None, b"/a|b\"c'"),
    ],
)
def test_purge_targets(text: str, host: str | None, target: bytes) -> None:
    assert purge_target(text, EXACT) == (host, target)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither"),
        ("a", "neither"),
        ("shop.example/a", "neither"),
        ("ftp://shop.example/a", "neither"),
        ("*", "neither"),
        ("/a b", "percent-encoded"),
        ("/a\n", "percent-encoded"),
        ("https://u@shop.example/", "user information"),
        ("https:///a", "not a valid host"),
        ("https://\u212a.example/a", "not a valid host"),
    ],
)
def test_what_cannot_be_purged_is_said_why(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        purge_target(text, EXACT)


policies = st.builds(
    KeyPolicy,
    ignore_query=st.frozensets(st.sampled_from(["a", "b", "a*", "*"])),
    ignore_tracking=st.booleans(),
    sort_query=st.booleans(),
)
targets = st.text("ab&=?/%7~cb:é", max_size=16).map(lambda text: f"/{text}".encode())


@checked
@given(policies, targets)
def test_canonical_is_canonical_again(policy: KeyPolicy, target: bytes) -> None:
    once = policy.canonical_target(target)
    assert policy.canonical_target(once) == once


@checked
@given(targets, targets)
def test_without_a_policy_different_bytes_are_different_keys(one: bytes, other: bytes) -> None:
    assert (key(one).primary == key(other).primary) is (one == other)


@checked
@given(policies, targets.filter(bytes.isascii))
def test_a_purge_by_url_selects_what_is_stored_under_it(policy: KeyPolicy, target: bytes) -> None:
    stored = key(target, policy=policy)
    for text in (target.decode(), f"https://SHOP.example:443{target.decode()}"):
        host, purged = purge_target(text, policy)
        assert host in (None, stored.host)
        assert target_id("shop", purged) == stored.target_id


@checked
@given(st.text(max_size=12), st.sampled_from(["http", "https"]))
def test_canonical_hosts_are_canonical_again_or_none(authority: str, scheme: str) -> None:
    try:
        once = canonical_host(scheme, authority)
    except ValueError:
        return
    assert canonical_host(scheme, once) == once
