"""What this edge adds to an answer, and heads that are rendered once for many answers."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from edgeproxy.cache.rows import Ready
from edgeproxy.proxy.decide import Candidate, Hit, Validity, decide
from edgeproxy.proxy.wire import FRAMING, REASONS, UnsafeField, render_head
from edgeproxy.semantics.cache_control import request_directives
from edgeproxy.semantics.cache_status import CacheStatus, vercel_cache
from edgeproxy.semantics.conditional import not_modified_fields
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.tags import hidden_fields

if TYPE_CHECKING:
    from edgeproxy.cache.memory import Entry
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.semantics.freshness import Freshness

OWN_FIELDS: Final = frozenset({b"age", b"content-length"})
"""Made anew for each answer: the time in the cache, and the message's framing."""
VERCEL: Final = frozenset({b"x-vercel-cache"})
_NONE: Final[frozenset[bytes]] = frozenset()


_NO_DIRECTIVES: Final = request_directives(Fields())


def visible_fields(fields: Fields, policy: SitePolicy) -> Fields:
    """The fields as readers may see them: without the origin's tags, unless debugging is on."""
    return fields.without(withheld_names(policy))


def ready(stored: StoredResponse, policy: SitePolicy, freshness: Freshness) -> Ready | None:
    """What is kept with a response in the store, so that its hits need no more than that.

    None where it is no hit, as long as it is fresh, for each request that it matches and that has
    no directives.
    """
    decision = decide(
        _NO_DIRECTIVES,
        Candidate(freshness, Validity.VALID),
        honour=True,
        other_variants=False,
        uncacheable=None,
        now=stored.response_time,
    )
    if stored.incomplete or not isinstance(decision, Hit):
        return None
    try:
        return Ready(policy.answering, freshness, stored_head(stored, policy))
    except UnsafeField:
        return None


def stored_head(stored: StoredResponse, policy: SitePolicy) -> bytes:
    """What all whole answers from a stored response begin with. Raises `UnsafeField`."""
    hidden = hidden_fields(policy.tags)
    left_out = _left_out(hidden, debug=policy.debug_tags, vercel=policy.vercel_cache)
    return render_head(stored.status, stored.reason, Fields(stored.fields), but=left_out)


def unchanged_head(entry: Entry, policy: SitePolicy) -> bytes:
    """What all 304s begin with that stand for an entry. Raises `UnsafeField`."""
    fields = not_modified_fields(visible_fields(entry.fields, policy))
    left_out = _left_out(FRAMING, debug=False, vercel=policy.vercel_cache)
    return render_head(304, REASONS[304], fields, but=left_out)


@lru_cache(maxsize=64)
def _left_out(hidden: frozenset[bytes], *, debug: bool, vercel: bool) -> frozenset[bytes]:
    left_out = OWN_FIELDS if debug else OWN_FIELDS | hidden
    return left_out | VERCEL if vercel else left_out


def answer_head(
    head: bytes, age: int, status: int, length: int, cache_status: bytes, vercel: bytes | None
) -> bytes:
    """`head`, which `stored_head` or `unchanged_head` gave, with what belongs to one answer, of
    `length` bytes; the connection's fields and the empty line are still to come."""
    lines = [head, b"Age: %d\r\n" % age, told_lines(cache_status, vercel)]
    if status not in (204, 304):  # RFC 9110 8.6
        lines.append(b"Content-Length: %d\r\n" % length)
    return b"".join(lines)


def told(cache_status: CacheStatus, policy: SitePolicy | None) -> tuple[bytes, bytes | None]:
    """The values of Cache-Status and x-vercel-cache, as far as the site wants them; its readers
    are told what a request that is no site's came to."""
    return (
        cache_status.render() if policy is None or policy.cache_status else b"",
        vercel_cache(cache_status) if policy is not None and policy.vercel_cache else None,
    )


def told_of_hit(ttl: int, policy: SitePolicy) -> tuple[bytes, bytes | None]:
    """The same for a plain hit that stays fresh for so many seconds."""
    return _told_of_hit(ttl, policy.cache_status, policy.vercel_cache)


# What is stored with the same lifetime at much the same time is told alike.
@lru_cache(maxsize=4096)
def _told_of_hit(ttl: int, shown: bool, vercel: bool) -> tuple[bytes, bytes | None]:
    status = CacheStatus(hit=True, ttl=ttl)
    return status.render() if shown else b"", vercel_cache(status) if vercel else None


def told_lines(cache_status: bytes, vercel: bytes | None) -> bytes:
    """The field lines with those values. This cache's member of Cache-Status stands behind those of
    the caches nearer to the origin (RFC 9211 2)."""
    lines = b"Cache-Status: %b\r\n" % cache_status if cache_status else b""
    return lines + b"x-vercel-cache: %b\r\n" % vercel if vercel else lines


def withheld_names(policy: SitePolicy) -> frozenset[bytes]:
    """The fields that readers don't get: the origin's tags, unless debugging is on."""
    return _NONE if policy.debug_tags else hidden_fields(policy.tags)
