"""Why a stored response is served, or isn't: what a plain request for it would meet, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, assert_never

import msgspec

from edgeproxy.invalidation.rules import Standing
from edgeproxy.proxy.decide import (
    Candidate,
    Fetch,
    Hit,
    Pass,
    Refuse,
    Revalidate,
    Stale,
    Validity,
    decide,
)
from edgeproxy.proxy.lookup import freshness_of
from edgeproxy.semantics.cache_control import parse_cache_control
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.tags import is_group
from edgeproxy.semantics.url_hash import url_hash

if TYPE_CHECKING:
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.invalidation.rules import Verdict
    from edgeproxy.semantics.freshness import Freshness

_NO_DIRECTIVES = parse_cache_control(())
_GRACE = "within its grace"

Served: TypeAlias = Literal["hit", "stale", "revalidate", "no"]


class FreshnessReport(msgspec.Struct, frozen=True):
    """RFC 9111 4.2, in seconds."""

    source: str
    lifetime: float
    age: float
    ttl: float
    stale_while_revalidate: float
    stale_if_error: float


class BodyReport(msgspec.Struct, frozen=True):
    """Where the body is, and how long it is in bytes."""

    where: str
    length: int


class Explanation(msgspec.Struct, frozen=True):
    """All about one stored response."""

    id: str
    url: str
    hash: str
    """Of the URL: what Optimole's `invalidate/asset` takes."""
    environment: str
    cache_buster: str | None
    variant: dict[str, str | None]
    """The request fields that it is for; null: absent."""
    served: Served
    """What a plain GET for it would meet."""
    why: str
    status: int
    fields: list[tuple[str, str]]
    tags: tuple[str, ...]
    freshness: FreshnessReport
    position: int
    """The journal's head before its fetch left."""
    invalidated_at: int | None
    """The journal position that marked it stale."""
    received: float
    """Seconds since the epoch."""
    body: BodyReport


def explain(
    stored: StoredResponse, policy: SitePolicy, verdict: Verdict, *, backing_off: bool, now: float
) -> Explanation:
    """What would become of a request that `stored` matches, at `now`."""
    fields = Fields(stored.fields)
    freshness = freshness_of(stored, fields, policy)
    invalidated = verdict.position if verdict.standing is Standing.INVALIDATED else 0
    invalidated = max(invalidated, stored.invalidated)
    if verdict.standing is Standing.DELETED:
        served: Served = "no"
        why = f"deleted by the invalidation at position {verdict.position}"
    elif stored.incomplete:
        served = "no"
        there = ", ".join(_text(line) for line in fields.get_all(b"content-range"))
        why = f"incomplete ({there}): it answers ranges within that, and the rest is asked for"
    else:
        validity = Validity.INVALIDATED if invalidated else Validity.VALID
        candidate = Candidate(freshness, validity, backing_off)
        served, why = _served(candidate, invalidated, now)
    return Explanation(
        id=stored.id.hex(),
        url=stored.url,
        hash=url_hash(stored.host, stored.target),
        environment=stored.environment,
        cache_buster=stored.buster.decode() or None,
        variant={
            _text(name): None if value is None else _text(value) for name, value in stored.selecting
        },
        served=served,
        why=why,
        status=stored.status,
        fields=[(_text(name), _text(value)) for name, value in stored.fields],
        tags=tuple(tag for tag in stored.tags if not is_group(tag)),
        freshness=FreshnessReport(
            source=freshness.source,
            lifetime=freshness.lifetime,
            age=round(freshness.age(now), 3),
            ttl=round(freshness.ttl(now), 3),
            stale_while_revalidate=freshness.stale_while_revalidate,
            stale_if_error=freshness.stale_if_error,
        ),
        position=stored.position,
        invalidated_at=invalidated or None,
        received=stored.response_time,
        body=BodyReport(where=stored.body.kind, length=stored.body.length),
    )


def _served(candidate: Candidate, invalidated: int, now: float) -> tuple[Served, str]:
    """What a plain GET would meet."""
    decision = decide(
        _NO_DIRECTIVES,
        candidate,
        honour=False,
        other_variants=False,
        uncacheable=None,
        now=now,
    )
    match decision:
        case Hit():
            served: Served = "hit"
        case Stale():
            served = "stale"
        case Revalidate():
            served = "revalidate"
        case Fetch() | Pass() | Refuse():
            raise AssertionError(f"a stored response led to {decision}")
        case _:
            assert_never(decision)
    return served, used(decision, candidate.freshness, invalidated, now)


def used(
    decision: Hit | Stale | Revalidate, freshness: Freshness, invalidated: int, now: float
) -> str:
    """Why a stored response is used as it is; `invalidated` at that position, 0 if it is not."""
    stale = _stale_since(freshness, invalidated, now)
    match decision:
        case Hit(ttl):
            return f"fresh for {ttl} s more"
        case Stale(_, refresh, detail):
            refreshed = (
                "refreshed behind it" if refresh else "not yet again: the last refresh failed"
            )
            within = "as the request's max-stale allows" if detail == "max-stale" else _GRACE
            return f"{stale}, {within}: served, and {refreshed}"
        case Revalidate(fwd, on_error, detail):
            if freshness.must_validate:
                reason = "no-cache: the origin is asked before every use"
            elif detail is not None and detail != "invalidated":
                state = "fresh" if fwd == "request" else stale
                reason = f"{state}, but the request says {detail}: the origin is asked first"
            else:
                reason = f"{stale}, beyond what may be served meanwhile: the origin is asked first"
            return reason + ("; served if that fails" if on_error else "")
        case _:
            assert_never(decision)


def _stale_since(freshness: Freshness, invalidated: int, now: float) -> str:
    if invalidated:
        return f"invalidated at position {invalidated}"
    return f"stale for {-freshness.ttl(now):.0f} s"


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
