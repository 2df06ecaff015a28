"""What would become of a request if it came now, and why: the whole way but its last step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, assert_never

import msgspec

from edgeproxy.invalidation.rules import Standing
from edgeproxy.proxy.busters import honour_buster
from edgeproxy.proxy.decide import Fetch, Hit, Pass, Refuse, Revalidate, Stale, classify
from edgeproxy.proxy.explain import Explanation, explain, used
from edgeproxy.semantics.cache_status import CacheStatus
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.key import split_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.decide import Decision
    from edgeproxy.proxy.handler import Handler
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.proxy.memo import RefreshBackoff
    from edgeproxy.proxy.request import EdgeRequest

_MAX_OTHERS = 100

Result: TypeAlias = Literal["hit", "stale", "revalidate", "miss", "pass", "refuse"]

_FETCHED = {
    "uri-miss": "nothing is stored for it: the origin is asked",
    "vary-miss": "what is stored is for requests with other fields: the origin is asked",
    "partial": "a part of it is stored, and not what is asked for: the origin is asked",
    "stale": "a part of it is stored, and stale: the origin is asked",
    "request": "a part of it is stored, and the request wants it validated: the origin is asked",
}
_PASSED = {
    "body": "a GET with a body is not answered from the cache",
    "precondition": "only the origin can tell whether its precondition holds",
    "no-store": "the request says no-store",
    "upgrade": "it asks for another protocol",
}


class Foretold(msgspec.Struct, frozen=True):
    """What would become of a request."""

    method: str
    url: str
    """As the cache key has it."""
    site: str
    environment: str
    result: Result
    why: str
    cache_status: str
    """What Cache-Status would say, but for what only the origin's answer tells."""
    key: str
    """The cache key, in hexadecimal digits."""
    cache_buster: str | None
    vary: list[str]
    """The request fields that select among what is stored under the key."""
    entry: Explanation | None
    """What answers it, or is asked about."""
    others: list[Explanation]
    """What else is stored under the key."""


class Foreteller:
    """Foretells what the handler of this worker would do."""

    def __init__(
        self,
        handler: Handler,
        lookup: Lookup,
        view: JournalView,
        backoff: RefreshBackoff,
        clock: Callable[[], float],
    ) -> None:
        self._handler = handler
        self._lookup = lookup
        self._view = view
        self._backoff = backoff
        self._clock = clock

    def foretell(self, method: str, url: str, fields: Iterable[tuple[bytes, bytes]]) -> Foretold:
        """What would become of a request with these fields, but for Host, which is the URL's.

        Raises ValueError for what is no URL, `BadRequest`, and `Misdirected` where no site serves
        the host.
        """
        scheme, authority, target = split_url(url)
        sent = Fields([(b"Host", authority.encode()), *fields])
        request = self._handler.intake.request(
            method.encode(),
            target,
            sent,
            version="1.1",
            secure=scheme == "https",
            peer="unknown",
            has_body=False,
        )
        return self._foretold(request)

    def _foretold(self, request: EdgeRequest) -> Foretold:
        now = self._clock()
        self._view.catch_up()
        found: Found | None = None
        vary: tuple[bytes, ...] = ()
        decision: Decision | None = classify(
            request.method,
            request.fields,
            request.has_body,
            only_if_cached=request.directives.only_if_cached,
        )
        if request.upgrade:
            decision = Pass("bypass", "upgrade")
        if decision is None:
            if request.key.buster:
                request = honour_buster(request, self._view)
            decided = self._handler.deciding.decide(request, now)
            decision, found, vary = decided.decision, decided.found, decided.vary
        invalidated = 0 if found is None else self._invalidated(found.stored)
        result, why, status = _told(decision, request, found, invalidated, now)
        key = request.key
        used_id = None if found is None else found.stored.id
        stored = self._lookup.all_stored(key.primary)
        return Foretold(
            method=request.method.decode(),
            url=key.url,
            site=key.site,
            environment=request.environment,
            result=result,
            why=why,
            cache_status=status.render().decode(),
            key=key.primary.hex(),
            cache_buster=key.buster.decode() or None,
            vary=sorted(name.decode("latin-1") for name in vary),
            entry=None if found is None else self._explain(found.stored, request, now),
            others=[
                self._explain(each, request, now)
                for each in stored[:_MAX_OTHERS]
                if each.id != used_id
            ],
        )

    def _invalidated(self, stored: StoredResponse) -> int:
        verdict = self._view.verdict(stored, stored.position)
        marked = verdict.position if verdict.standing is Standing.INVALIDATED else 0
        return max(stored.invalidated, marked)

    def _explain(self, stored: StoredResponse, request: EdgeRequest, now: float) -> Explanation:
        verdict = self._view.verdict(stored, stored.position)
        backing_off = self._backoff.active(stored.id, now)
        return explain(stored, request.policy, verdict, backing_off=backing_off, now=now)


def _told(
    decision: Decision, request: EdgeRequest, found: Found | None, invalidated: int, now: float
) -> tuple[Result, str, CacheStatus]:
    match decision:
        case Hit(ttl):
            return "hit", _used(decision, found, invalidated, now), CacheStatus(hit=True, ttl=ttl)
        case Stale(ttl, _, detail):
            status = CacheStatus(hit=True, ttl=ttl, detail=detail)
            return "stale", _used(decision, found, invalidated, now), status
        case Revalidate(fwd, _, detail):
            status = CacheStatus(fwd=fwd, detail=detail)
            return "revalidate", _used(decision, found, invalidated, now), status
        case Fetch(fwd):
            return "miss", _FETCHED[fwd], CacheStatus(fwd=fwd)
        case Pass(fwd, detail):
            return "pass", _passed(request, fwd, detail), CacheStatus(fwd=fwd, detail=detail)
        case Refuse(status_code, detail):
            why = f"{detail}, and nothing stored may answer: {status_code}"
            return "refuse", why, CacheStatus(detail=detail)
        case _:
            assert_never(decision)


def _used(
    decision: Hit | Stale | Revalidate, found: Found | None, invalidated: int, now: float
) -> str:
    assert found is not None
    return used(decision, found.freshness, invalidated, now)


def _passed(request: EdgeRequest, fwd: str, detail: str | None) -> str:
    if fwd == "method":
        return f"{request.method.decode()} is not answered from the cache"
    if detail in _PASSED:
        return _PASSED[detail]
    return f"the last answer was not stored: {(detail or fwd).removeprefix('uncacheable; ')}"
