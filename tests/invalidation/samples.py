"""Stored responses, selectors and records for the tests here."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from edgeproxy.cache.stored import UNWRITTEN, StoredResponse
from edgeproxy.invalidation.head import HEAD_BYTES, SharedHead
from edgeproxy.invalidation.journal import Record
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.semantics.key import target_id

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
_TARGETS = st.sampled_from([b"/", b"/p", b"/p?"])


@st.composite
def selectors(draw: st.DrawFn) -> Selector:
    site = draw(_SITES)
    environment = draw(st.none() | _ENVIRONMENTS)
    kind = draw(st.sampled_from(["tag", "url", "everything"]))
    if kind == "tag":
        return Selector.by_tag(site, draw(_TAGS), environment)
    if kind == "url":
        return Selector.by_url(site, draw(st.none() | _HOSTS), draw(_TARGETS), environment)
    return Selector.by_everything(site, environment)


@st.composite
def responses(draw: st.DrawFn, most: int = 12) -> StoredResponse:
    site, target = draw(_SITES), draw(_TARGETS)
    return response(
        draw(st.text("abc", min_size=1, max_size=3)),
        site=site,
        target=target,
        environment=draw(_ENVIRONMENTS),
        host=draw(_HOSTS),
        scheme=draw(st.sampled_from(["http", "https"])),
        tags=tuple(sorted(draw(st.sets(_TAGS)))),
        position=draw(st.integers(0, most)),
    )


@st.composite
def records(draw: st.DrawFn, most: int = 12) -> list[Record]:
    """A journal: records at positions 1, 2, 3 ..."""
    drafts = draw(
        st.lists(
            st.tuples(st.lists(selectors(), min_size=1, max_size=3), st.sampled_from(Mode)),
            max_size=most,
        )
    )
    return [
        record(*chosen, mode=mode, position=position)
        for position, (chosen, mode) in enumerate(drafts, 1)
    ]


def picks(selector: Selector, stored: StoredResponse) -> bool:
    """What `Selector.matches` should say, spelt out."""
    if selector.site != stored.site:
        return False
    if selector.environment is not None and selector.environment != stored.environment:
        return False
    if selector.kind == "tag":
        return selector.tag in stored.tags
    if selector.kind == "url":
        on_host = selector.host is None or selector.host == stored.host
        return on_host and selector.target == stored.target
    return True


def walk(
    journal: Sequence[Record], stored: StoredResponse, since: int, until: int
) -> tuple[str, int]:
    """A verdict by reading every record: the standing, and the latest position that gave it."""
    found = {Mode.DELETE: 0, Mode.INVALIDATE: 0}
    for each in journal:
        if since < each.position <= until and any(picks(one, stored) for one in each.selectors):
            found[each.mode] = each.position
    if found[Mode.DELETE]:
        return "deleted", found[Mode.DELETE]
    if found[Mode.INVALIDATE]:
        return "invalidated", found[Mode.INVALIDATE]
    return "valid", 0
