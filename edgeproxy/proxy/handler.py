"""The way of a request, from top to bottom: read it, look up, decide, and do what was decided."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgeproxy.cache.errors import BodyMissing
from edgeproxy.proxy.busters import honour_buster
from edgeproxy.proxy.collapsing import Shared, Stored, Unshared
from edgeproxy.proxy.decide import (
    Fetch,
    Hit,
    Pass,
    Refuse,
    Revalidate,
    Stale,
    classify,
)
from edgeproxy.proxy.deciding import Deciding
from edgeproxy.proxy.errors import (
    EdgeError,
    NotValidated,
    OriginFailed,
    PeerLost,
)
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.intake import Intake, Misdirected
from edgeproxy.proxy.keeping import ERROR_STATUS
from edgeproxy.proxy.passing import Passing
from edgeproxy.proxy.peers import RemoteFailure
from edgeproxy.proxy.purging import PURGING, answer_purge
from edgeproxy.semantics.cache_status import CacheStatus
from edgeproxy.semantics.errors import BadRequest
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.ranges import if_range_holds

if TYPE_CHECKING:
    from edgeproxy.proxy.access import AccessSink
    from edgeproxy.proxy.collapsing import Flight
    from edgeproxy.proxy.deciding import Unanswered
    from edgeproxy.proxy.handler_parts import HandlerParts
    from edgeproxy.proxy.incoming import Incoming
    from edgeproxy.proxy.lookup import Found
    from edgeproxy.proxy.pool import Pools
    from edgeproxy.proxy.purging import Purger
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.wire import Reply

log = logging.getLogger(__name__)

# A response can be evicted, purged or replaced between a look and its use; each costs one round.
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class _Again:
    """Not answered: look again, knowing what the response in the air varies by."""

    vary: tuple[bytes, ...]
    whole: bool = False
    """The request's If-Range does not hold, so its Range is to be ignored (RFC 9110 13.1.5)."""


class Handler:
    """Answers readers' requests."""

    def __init__(self, parts: HandlerParts, intake: Intake, pools: Pools) -> None:
        self._parts = parts
        self.intake = intake
        self.pools = pools
        self.deciding = Deciding(parts.lookup, parts.incomplete, parts.uncacheable, parts.backoff)
        """How a request is answered right now."""
        self._passing = Passing(parts.passed, pools)
        self.purger: Purger | None = None
        self.access_log: AccessSink | None = parts.access_log
        """None where nobody reads it."""

    async def handle(self, incoming: Incoming) -> Reply:
        """Answer one request; whatever goes wrong is an answer too, or an end that shows."""
        parts = self._parts
        exchange = Exchange(incoming, parts.clock)
        try:
            known = incoming.known
            stored = known is not None and isinstance(known.decided.decision, (Hit, Stale))
            async with parts.admission.at_once if stored else parts.admission:
                exchange.check_client()
                request = self.intake.read(incoming) if known is None else known.request
                exchange.request = request
                await self._answer(exchange, request, known)
        except BadRequest as error:
            parts.tally.note("bad-request")
            exchange.close_after()
            await exchange.refuse(400, error.reason, CacheStatus(detail="bad-request"))
        except Misdirected as error:
            parts.tally.note("unknown-host")
            await exchange.refuse(421, str(error), CacheStatus(detail="unknown-host"))
        except EdgeError as error:
            parts.tally.note(error.detail)
            await exchange.fail(error)
        except ConnectionError:
            exchange.abandon()
        except asyncio.CancelledError:
            exchange.abandon()
            raise
        except Exception:
            log.exception("answering %s failed", incoming.target)
            await exchange.crash()
        finally:
            if self.access_log is not None:
                self.access_log(exchange.record())
        return exchange.reply

    async def _answer(
        self, exchange: Exchange, request: EdgeRequest, known: Unanswered | None
    ) -> None:
        if known is None and await self._answer_unlooked(exchange, request):
            return
        parts = self._parts
        if request.key.buster:
            request = honour_buster(request, parts.view)
        asked_at = parts.view.catch_up()
        learnt_vary: tuple[bytes, ...] = ()
        for _ in range(_ROUNDS):
            if known is not None and known.position == asked_at and known.request is request:
                decided, known = known.decided, None
            else:
                decided = self.deciding.decide(request, parts.clock())
            found, decision = decided.found, decided.decision
            vary = decided.vary or learnt_vary
            match decision:
                case Hit(ttl):
                    assert found is not None
                    status = CacheStatus(hit=True, ttl=ttl)
                    if await self._serve(exchange, request, found, status, "hit"):
                        return
                case Stale(ttl, refresh, detail):
                    assert found is not None
                    status = CacheStatus(hit=True, ttl=ttl, detail=detail)
                    if refresh:
                        pool = self.pools.of(request.policy)
                        parts.refreshing.begin(request, pool, found, vary)
                    if await self._serve(exchange, request, found, status, "stale"):
                        return
                case Revalidate() | Fetch():
                    exchange.fwd = decision.fwd
                    if request.method == b"HEAD":
                        if await self._ask_head(exchange, request, found, decision):
                            return
                        continue
                    stale = found if isinstance(decision, Revalidate) else None
                    again = await self._fetch(exchange, request, stale, decision, vary, asked_at)
                    if again is None:
                        return
                    learnt_vary = again.vary
                    if again.whole:
                        unranged = request.fields.without({b"range", b"if-range"})
                        request = replace(request, fields=unranged)
                case Pass():
                    await self._passing.send(exchange, request, decision)
                    return
                case Refuse(status_code, detail):
                    status = CacheStatus(detail=detail)
                    await exchange.refuse(status_code, detail, status)
                    return
        await self._passing.send(exchange, request, Pass("miss", "contended"))

    async def _answer_unlooked(self, exchange: Exchange, request: EdgeRequest) -> bool:
        """Answer what can't be answered from what is stored; whether it was such a request."""
        if request.method in PURGING:
            await answer_purge(exchange, request, self.purger)
            return True
        if request.upgrade:
            await self._passing.send(exchange, request, Pass("bypass", "upgrade"), upgrade=True)
            return True
        passing = classify(
            request.method,
            request.fields,
            request.has_body,
            only_if_cached=request.directives.only_if_cached,
        )
        match passing:
            case Pass():
                await self._passing.send(exchange, request, passing)
            case Refuse(status_code, detail):
                await exchange.refuse(status_code, detail, CacheStatus(detail=detail))
            case None:
                return False
        return True

    # -- what was decided

    async def _serve(
        self,
        exchange: Exchange,
        request: EdgeRequest,
        found: Found,
        status: CacheStatus,
        result: str,
    ) -> bool:
        """Answer from a stored response; False if its body turned out to be gone."""
        exchange.result = result
        try:
            await self._parts.serving.send_stored(exchange, request, found, status)
        except BodyMissing:
            if exchange.head_sent:
                # The log has been told; the reader can only be told by a broken end.
                exchange.abandon()
                return True
            self._parts.lookup.discard(found.stored.id)
            return False
        return True

    async def _fetch(
        self,
        exchange: Exchange,
        request: EdgeRequest,
        found: Found | None,
        decision: Revalidate | Fetch,
        vary: tuple[bytes, ...],
        asked_at: int,
    ) -> _Again | None:
        """Answer with what a fetch brings, this request's own or one that is in the air."""
        parts = self._parts
        pool = self.pools.of(request.policy)
        spare = found if isinstance(decision, Revalidate) and decision.on_error else None
        part = decision.part if isinstance(decision, Fetch) else None
        flight, first = parts.fetching.join(request, pool, found, vary, part)
        early = not flight.left
        with flight.waiting():
            try:
                if first:
                    outcome = await flight.outcome(exchange.interim)
                else:
                    # The flight of another request is worth so much waiting, and no more.
                    async with asyncio.timeout(request.policy.collapse_timeout):
                        outcome = await flight.outcome(exchange.interim)
            except TimeoutError:
                await self._passing.send(exchange, request, Pass(decision.fwd, "collapse-timeout"))
                return None
            except PeerLost as error:
                # That says nothing of the origin: others will bring it, or this one asks itself.
                if not exchange.retried:
                    exchange.retried = True
                    return _Again(vary)
                await self._passing.send(exchange, request, Pass(decision.fwd, error.detail))
                return None
            except (OriginFailed, RemoteFailure) as error:
                if spare is not None:
                    return await self._serve_on_error(exchange, request, spare, None, error.detail)
                another_s = not first or isinstance(error, RemoteFailure)
                if another_s and not exchange.retried:
                    # That failure was another request's; this one is owed a try of its own.
                    exchange.retried = True
                    return _Again(vary)
                if found is not None and found.freshness.no_stale and error.disconnected:
                    raise NotValidated(error) from error
                raise
            match outcome:
                case Unshared(answer, status, detail):
                    own = answer if first else None
                    if flight.part is not None and b"if-range" in request.fields:
                        # The origin was asked without it, and has to say what it comes to.
                        own = own if status not in (206, 416) else None
                    if spare is not None and status in ERROR_STATUS:
                        return await self._serve_on_error(exchange, request, spare, status, None)
                    if own is not None:
                        await self._passing.relay(exchange, request, own, decision.fwd, detail)
                    else:
                        await self._passing.send(
                            exchange, request, Pass(decision.fwd, "uncacheable")
                        )
                    return None
                case Stored() | Shared():
                    own_fetch = first and not flight.followed
                    response = outcome.response
                    if not own_fetch and not parts.sharing.answers(
                        request, flight, response, asked_at, early=early and not flight.followed
                    ):
                        return _Again(tuple(name for name, _ in response.selecting))
                    if response.incomplete and not if_range_holds(
                        request.fields, Fields(response.fields)
                    ):
                        return _Again(vary, whole=True)
                    limit = flight.detail if own_fetch else None
                    status_ = CacheStatus(
                        fwd=decision.fwd,
                        stored=True,
                        collapsed=not own_fetch,
                        detail=decision.detail if isinstance(decision, Revalidate) else limit,
                    )
                    return await self._hand_out(exchange, request, flight, outcome, status_, vary)

    async def _hand_out(
        self,
        exchange: Exchange,
        request: EdgeRequest,
        flight: Flight,
        outcome: Shared | Stored,
        status: CacheStatus,
        vary: tuple[bytes, ...],
    ) -> _Again | None:
        response = outcome.response
        if isinstance(outcome, Shared):
            exchange.result = "miss"
            exchange.origin_took(response.response_time - response.request_time)
            status = replace(status, fwd_status=outcome.fwd_status or response.status)
            await self._parts.serving.send_flight(
                exchange, request, flight, outcome, status, own=not status.collapsed
            )
            return None
        if outcome.fwd_status is not None:
            exchange.origin_took(response.response_time - response.request_time)
        result = "revalidated" if status.fwd in ("stale", "request") else "miss"
        found = self._parts.lookup.judge(response, request.policy, response.position)
        status = replace(status, fwd_status=outcome.fwd_status)
        served = await self._serve(exchange, request, found, status, result)
        return None if served else _Again(vary)

    async def _serve_on_error(
        self,
        exchange: Exchange,
        request: EdgeRequest,
        spare: Found,
        fwd_status: int | None,
        failure: str | None,
    ) -> _Again | None:
        """RFC 5861 4: the stale response instead of the origin's failure."""
        now = self._parts.clock()
        self._parts.backoff.failed(spare.stored.id, now)
        detail = "stale-if-error" if failure is None else f"stale-if-error; {failure}"
        status = CacheStatus(
            fwd="stale",
            fwd_status=fwd_status,
            ttl=math.floor(spare.freshness.ttl(now)),
            detail=detail,
        )
        served = await self._serve(exchange, request, spare, status, "stale")
        return None if served else _Again(())

    # -- for this request alone

    async def _ask_head(
        self,
        exchange: Exchange,
        request: EdgeRequest,
        found: Found | None,
        decision: Revalidate | Fetch,
    ) -> bool:
        """Ask the origin for the head alone, which is all that the reader wants (RFC 9111 4.3.5).

        False if the stale response that was to stand in for the origin's failure is gone.
        """
        spare = found if isinstance(decision, Revalidate) and decision.on_error else None
        detail = decision.detail if isinstance(decision, Revalidate) else None
        why = Pass(decision.fwd, detail)
        if spare is None:
            try:
                await self._passing.send(exchange, request, why)
            except OriginFailed as error:
                if found is not None and found.freshness.no_stale and error.disconnected:
                    raise NotValidated(error) from error
                raise
            return True
        position = self._parts.view.catch_up()
        try:
            answer = await self.pools.of(request.policy).send(
                request, request.fields, None, None, exchange.interim
            )
        except OriginFailed as error:
            return await self._serve_on_error(exchange, request, spare, None, error.detail) is None
        if answer.status in ERROR_STATUS:
            answer.response.release()
            return await self._serve_on_error(exchange, request, spare, answer.status, None) is None
        await self._passing.hand_on(exchange, request, answer, why, position)
        return True
