"""What to do with a request, given what is stored for it: a pure function of frozen values.

The handler is a `match` over the answer; the answer's `fwd` and `detail` are what Cache-Status,
the access log and the explanation of an entry print.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from edgeproxy.semantics.conditional import CONDITIONAL
from edgeproxy.semantics.partial import passed_range

if TYPE_CHECKING:
    from edgeproxy.semantics.cache_control import Directives
    from edgeproxy.semantics.cache_status import Forwarded
    from edgeproxy.semantics.fields import Fields
    from edgeproxy.semantics.freshness import Freshness

LOOKED_UP = frozenset({b"GET", b"HEAD"})
# RFC 9110 9.2.1. An unsafe method that succeeds invalidates what is stored (RFC 9111 4.4).
SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})

_OWN_WISHES = CONDITIONAL | {b"range"}

# RFC 9111 4.3.2: a cache must not answer these preconditions itself; only an origin can.
_ORIGIN_PRECONDITIONS = (b"if-match", b"if-unmodified-since")


class Hit(msgspec.Struct, frozen=True):
    """Answer from the stored response, which is fresh."""

    ttl: int


class Stale(msgspec.Struct, frozen=True):
    """Answer from the stored response at once, and refresh it behind (RFC 5861 3)."""

    ttl: int
    refresh: bool
    detail: str


class Revalidate(msgspec.Struct, frozen=True):
    """Ask the origin whether the stored response is still good; `on_error`: it may serve if not."""

    fwd: Forwarded
    on_error: bool
    detail: str | None = None


class Fetch(msgspec.Struct, frozen=True):
    """Nothing stored can answer: fetch, together with whoever else asks for it."""

    fwd: Forwarded
    part: bytes | None = None
    """The Range to ask for; None: the whole."""


class Pass(msgspec.Struct, frozen=True):
    """Send this one request to the origin for itself alone; nothing is looked up."""

    fwd: Forwarded
    detail: str | None = None


class Refuse(msgspec.Struct, frozen=True):
    """Answer with an error of the edge's own."""

    status: int
    detail: str


Decision: TypeAlias = Hit | Stale | Revalidate | Fetch | Pass | Refuse


class Validity(Enum):
    """What the invalidations since its fetch began say of a stored response."""

    VALID = "valid"
    INVALIDATED = "invalidated"


class Candidate(msgspec.Struct, frozen=True):
    """What a decision needs to know of the stored response that matches the request."""

    freshness: Freshness
    validity: Validity
    backing_off: bool = False
    """A refresh failed a moment ago: don't ask the origin again yet."""


def classify(
    method: bytes, fields: Fields, has_body: bool, *, only_if_cached: bool = False
) -> Pass | Refuse | None:
    """Whether a request can be answered from the cache at all; None if it can.

    `only_if_cached`: the request must go no further than here (RFC 9111 5.2.1.7).
    """
    if method not in LOOKED_UP:
        return Pass("method")
    if has_body:
        # RFC 9110 9.3.1: content in a GET has no defined meaning, so it may not be left unkeyed.
        passing = Pass("request", "body")
    elif any(name in fields for name in _ORIGIN_PRECONDITIONS):
        passing = Pass("request", "precondition")
    else:
        return None
    return Refuse(504, "only-if-cached") if only_if_cached else passing


def decide(
    directives: Directives,
    candidate: Candidate | None,
    *,
    honour: bool,
    other_variants: bool,
    uncacheable: str | None,
    now: float,
) -> Decision:
    """How to answer a GET or HEAD that `classify` let through.

    `directives` are the request's, and `honour` whether the site obeys those that would cost the
    origin work (only-if-cached is always obeyed); `other_variants`: something is stored under the
    key, for other values of the fields that Vary names; `uncacheable`: why the key's last answer
    could not be stored.
    """
    if honour and directives.no_store and not directives.only_if_cached:
        return Pass("request", "no-store")
    if candidate is None:
        # RFC 9111 5.2.1.7: the one request directive that costs the origin nothing to obey.
        if directives.only_if_cached:
            return Refuse(504, "only-if-cached")
        if uncacheable is not None:
            return Pass("bypass", f"uncacheable; {uncacheable}")
        return Fetch("vary-miss" if other_variants else "uri-miss")
    decision = _decide_stored(directives, honour, candidate, now)
    if directives.only_if_cached and isinstance(decision, Revalidate):
        return Refuse(504, "only-if-cached")
    return decision


def decide_in_part(
    decision: Decision, directives: Directives, fields: Fields, *, incomplete: bool
) -> Decision:
    """The same for a GET that no whole response matches (RFC 9111 3.3, 3.4).

    `decision` was made with an incomplete response for a candidate if that has all of the ranges
    which are asked for; `incomplete`: there is one, be that so or not.
    """
    match decision:
        case Stale() if directives.only_if_cached:
            return Refuse(504, "only-if-cached")
        case Stale():
            # To refresh a part would be to fetch it: that is as well done at once.
            return Fetch("stale", passed_range(fields))
        case Revalidate(fwd):
            return Fetch(fwd, passed_range(fields))
        case Fetch(fwd):
            return Fetch("partial" if incomplete else fwd, passed_range(fields))
    return decision


def _decide_stored(
    directives: Directives, honour: bool, candidate: Candidate, now: float
) -> Decision:
    freshness = candidate.freshness
    ttl = freshness.ttl(now)
    invalidated = candidate.validity is Validity.INVALIDATED
    staleness = max(0.0, -ttl)
    on_error = may_serve_on_error(freshness, now)
    if honour and directives.stale_if_error is not None and not freshness.no_stale:
        # RFC 5861 4: in a request it is for that request alone.
        on_error = on_error or staleness <= directives.stale_if_error
    if freshness.must_validate:
        return Revalidate("stale", on_error, "no-cache")
    fresh = ttl > 0 and not invalidated
    asked = _asked_to_validate(directives, freshness, fresh, now) if honour else None
    if asked is not None:
        # RFC 9211 2.2: "request" is why a response that is fresh was not used.
        return Revalidate("request" if fresh else "stale", on_error, asked)
    if fresh:
        return Hit(int(ttl))
    if invalidated and ttl > 0 and not freshness.must_revalidate:
        # By its age it is fresh, and HTTP lets it be used; that it is not told so is the purge's.
        return Stale(math.floor(ttl), refresh=not candidate.backing_off, detail="invalidated")
    reason = "invalidated" if invalidated else "stale-while-revalidate"
    if (
        honour
        and not invalidated
        and not freshness.no_stale
        and directives.max_stale is not None
        and staleness <= directives.max_stale
    ):
        return Stale(math.floor(ttl), refresh=not candidate.backing_off, detail="max-stale")
    if freshness.stale_while_revalidate > 0 and staleness <= freshness.stale_while_revalidate:
        return Stale(math.floor(ttl), refresh=not candidate.backing_off, detail=reason)
    if candidate.backing_off and on_error:
        # The origin has just been seen to fail: RFC 5861 4 applies without asking it once more.
        return Stale(math.floor(ttl), refresh=False, detail="stale-if-error")
    return Revalidate("stale", on_error, "invalidated" if invalidated else None)


def _asked_to_validate(
    directives: Directives, freshness: Freshness, fresh: bool, now: float
) -> str | None:
    """The request's directive that rules the stored response out as it is (RFC 9111 5.2.1)."""
    if directives.no_cache:
        return "no-cache"
    # RFC 8246 2: "max-age=0", a reload, is no reason to ask for what will not have changed.
    settled = fresh and freshness.immutable
    if directives.max_age is not None and not settled:
        # RFC 9111 5.2.1.1: without max-stale next to it, a stale response is not wanted at all.
        unwanted = freshness.ttl(now) <= 0 and directives.max_stale is None
        if unwanted or freshness.age(now) > directives.max_age:
            return "max-age"
    if directives.min_fresh is not None and freshness.ttl(now) < directives.min_fresh:
        return "min-fresh"
    return None


def may_serve_on_error(freshness: Freshness, now: float) -> bool:
    """Whether the stored response may stand in for a failing origin (RFC 5861 4, 9111 4.2.4)."""
    staleness = max(0.0, -freshness.ttl(now))
    return freshness.stale_if_error > 0 and staleness <= freshness.stale_if_error


def unconditional(fields: Fields) -> Fields:
    """The request's fields without its own conditions and range.

    A shared fetch is for everybody: each reader's conditions are evaluated against what it brings
    (RFC 9111 4.3.2), and its range is cut out of it.
    """
    return fields.without(_OWN_WISHES)
