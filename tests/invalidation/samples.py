"""Stored responses, selectors and records for the tests here."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from edgeproxy.cache.stored import UNWRITTEN, StoredResponse
from edgeproxy.invalidation.head import HEAD_BYTES, SharedHead
from edgeproxy.invalidation.journal import Record
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.semantics.key import target_id
from edgeproxy.semantics.url_hash import url_hash

if TYPE_CHECKING:
    from collections.abc import Sequence


def response(name: str = "a", **changes: Any) -> StoredResponse:
    """The response for `/name` of https://shop.test, production, stored at position 0."""
    target = changes.pop("target", f"/{name}".encode())
    site = changes.get("site", "shop")
    made: dict[str, Any] = {
        "primary": blake2b(name.encode(), digest_size=16).digest(),
        "variant": bytes(8),
        "target_id": target_id(site, target),
        "site": site,
        "environment": "production",
        "scheme": "https",
        "host": "shop.test",
        "target": target,
        "buster": b"",
        "status": 200,
        "reason": b"OK",
        "fields": ((b"Content-Type", b"text/plain"),),
        "selecting": (),
        "tags": (),
        "request_time": 1000.0,
        "response_time": 1000.5,
        "position": 0,
        "invalidated": 0,
        "body": UNWRITTEN,
    }
    return StoredResponse(**{**made, **changes})


def record(
    *selectors: Selector, mode: Mode = Mode.INVALIDATE, position: int = 0, **changes: Any
) -> Record:
    """A record of somebody's purge; by default of everything."""
    made: dict[str, Any] = {
        "id": "0123456789abcdef0123456789abcdef",
        "time": 1000.0,
        "mode": mode,
        "selectors": selectors or (Selector.by_everything("shop"),),
        "actor": "editor",
        "source": "192.0.2.1",
        "position": position,
    }
    return Record(**{**made, **changes})


def new_head() -> SharedHead:
    """A head that this process has for itself."""
    return SharedHead(memoryview(bytearray(HEAD_BYTES)))


# Few values, so that they meet.
_SITES = st.sampled_from(["shop", "blog"])
_ENVIRONMENTS = st.sampled_from(["production", "preview"])
_TAGS = st.sampled_from(["home", "Home", "p-1", "p-2"])
_HOSTS = st.sampled_from(["shop.test", "www.shop.test:8443"])
_TARGETS = st.sampled_from(
    [
        *(b"/", b"/p", b"/p?", b"/w:10/https://img.test/i.jpg"),
        *(b"/_next/image?url=https%3A%2F%2Fimg.test%2Fi.jpg", b"/_next/image?url=%2Fi.jpg"),
    ]
)


_KEYS: list[dict[str, Any]] = [
    {},
    *({"tag": tag} for tag in ("home", "Home", "p-1")),
    *({"tag": tag, "any_case": True} for tag in ("home", "p-2")),
    *({"target": target} for target in (b"/", b"/p", b"/p?")),
    *({"source": source} for source in ("https://img.test/i.jpg", "/i.jpg")),
    {"source_host": "img.test"},
    {"hash": url_hash("shop.test", b"/p")},
    *({"prefix": prefix} for prefix in (b"/", b"/p", b"/_next/image")),
]
_CONDITIONS: list[dict[str, Any]] = [
    *({"host": host} for host in ("shop.test", "www.shop.test:8443")),
    *({"pattern": pattern} for pattern in ("^/p", "i.jpg$", "[?]")),
    {"pattern": "^https://shop.test/", "pattern_on": "url"},
    *({"content_type": wanted} for wanted in ("text/plain", "image/*")),
    *({"status": status} for status in (200, 404)),
    {"tag": "p-1"},
    {"hash": url_hash("shop.test", b"/_next/image?url=%2Fi.jpg")},
    {"prefix": b"/_next"},
]


@st.composite
def selectors(draw: st.DrawFn) -> Selector:
    """Of every kind, with and without conditions beside."""
    site = draw(_SITES)
    conditions = dict(draw(st.sampled_from(_KEYS)))
    for more in draw(st.lists(st.sampled_from(_CONDITIONS), max_size=2)):
        # One condition of each kind; and none of a URL's beginning where there is all of it.
        if not conditions.keys() & more.keys() and not {"target", "prefix"} <= {*conditions, *more}:
            conditions |= more
    if "target" in conditions:
        conditions["target_id"] = target_id(site, conditions["target"])
    return Selector(site, draw(st.none() | _ENVIRONMENTS), **conditions)


@st.composite
def responses(draw: st.DrawFn, most: int = 12) -> StoredResponse:
    site, target, host = draw(_SITES), draw(_TARGETS), draw(_HOSTS)
    environment, scheme = draw(_ENVIRONMENTS), draw(st.sampled_from(["http", "https"]))
    return response(
        # As a key is: of all that tells one URL from another.
        f"{site} {environment} {scheme} {host} {target!r}",
        variant=bytes(7) + bytes([draw(st.integers(0, 2))]),
        site=site,
        target=target,
        environment=environment,
        host=host,
        scheme=scheme,
        tags=tuple(sorted(draw(st.sets(_TAGS)))),
        status=draw(st.sampled_from([200, 404])),
        fields=((b"Content-Type", draw(st.sampled_from([b"Text/Plain; a=b", b"image/png"]))),),
        position=draw(st.integers(0, most)),
    )


@st.composite
def records(draw: st.DrawFn, most: int = 12) -> list[Record]:
    """A journal: records at positions 1, 2, 3 ..."""
    drafts = draw(
        st.lists(
            st.tuples(
                st.lists(selectors(), min_size=1, max_size=3),
                st.sampled_from([(mode, 0.0) for mode in Mode] + [(Mode.DELETE, 60.0)]),
            ),
            max_size=most,
        )
    )
    return [
        record(*chosen, mode=mode, deadline=deadline, position=position, time=1000.0 - position)
        for position, (chosen, (mode, deadline)) in enumerate(drafts, 1)
    ]


def picks(selector: Selector, stored: StoredResponse) -> bool:
    """What `Selector.matches` should say, spelt out."""
    target = stored.target.decode()
    url = f"{stored.scheme}://{stored.host}{target}"
    tags = [tag.lower() if selector.any_case else tag for tag in stored.tags]
    media_type = "image/png" if stored.fields[0][1] == b"image/png" else "text/plain"
    if target == "/_next/image?url=%2Fi.jpg":
        sources = ["/i.jpg", f"{stored.scheme}://{stored.host}/i.jpg"]
    elif "img.test" in target:
        sources = ["https://img.test/i.jpg"]
    else:
        sources = []
    source_hosts = [source.split("/")[2] for source in sources if source.startswith("http")]
    return all(
        [
            selector.hash in ("", url_hash(stored.host, stored.target)),
            selector.site == stored.site,
            selector.environment in (None, stored.environment),
            not selector.tag or selector.tag in tags,
            not selector.target_id or selector.target == stored.target,
            selector.host in (None, stored.host),
            target.startswith(selector.prefix.decode()),
            not selector.pattern
            or re.search(selector.pattern, target if selector.pattern_on == "path" else url),
            not selector.source or selector.source in sources,
            not selector.source_host or selector.source_host in source_hosts,
            selector.content_type in ("", media_type)
            or (selector.content_type == "image/*" and media_type == "image/png"),
            selector.status in (0, stored.status),
        ]
    )


def walk(
    journal: Sequence[Record], stored: StoredResponse, since: int, until: int
) -> tuple[str, int, float]:
    """A verdict by reading every record: the standing, the latest position that gave it, and when
    what is invalidated will be deleted."""
    deleted = invalidated = 0
    deadlines = []
    for each in journal:
        if since < each.position <= until and any(picks(one, stored) for one in each.selectors):
            if each.mode is Mode.DELETE and not each.deadline:
                deleted = each.position
                continue
            invalidated = each.position
            if each.deadline:
                deadlines.append(each.time + each.deadline)
    if deleted:
        return "deleted", deleted, 0.0
    if invalidated:
        return "invalidated", invalidated, min(deadlines, default=0.0)
    return "valid", 0, 0.0
