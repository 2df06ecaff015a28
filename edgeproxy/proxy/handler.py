"""The way of a request, from top to bottom: read it, look up, decide, and do what was decided."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeproxy.cache.errors import BodyMissing
from edgeproxy.proxy.collapsing import Shared, Stored, Unshared
from edgeproxy.proxy.decide import (
    SAFE,
    Candidate,
    Fetch,
    Hit,
    Pass,
    Refuse,
    Revalidate,
    Stale,
    classify,
    decide,
)
from edgeproxy.proxy.errors import EdgeError, OriginFailed
from edgeproxy.proxy.exchange import Exchange
from edgeproxy.proxy.fetching import ERROR_STATUS
from edgeproxy.proxy.intake import Intake, Misdirected
from edgeproxy.proxy.serving import visible_fields
from edgeproxy.proxy.unsafe import touched_targets
from edgeproxy.semantics.cache_status import CacheStatus
from edgeproxy.semantics.errors import BadRequest
from edgeproxy.semantics.vary import matches

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.service import InvalidationService
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.access import AccessSink
    from edgeproxy.proxy.collapsing import Flight
    from edgeproxy.proxy.fetching import Fetching
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.proxy.memo import RefreshBackoff, UncacheableKeys
    from edgeproxy.proxy.pool import OriginAnswer, Pools
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.serving import Serving
    from edgeproxy.semantics.cache_status import Forwarded

log = logging.getLogger(__name__)

# A response can be evicted, purged or replaced between a look and its use; each costs one round.
_ROUNDS = 5
_MAX_REFRESHES = 256
"""Refreshes in the background at once, a worker; a stale hit beyond that leaves it to the next."""


@dataclass(frozen=True, slots=True)
class _Again:
    """Not answered: look again, knowing what the response in the air varies by."""

    vary: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class HandlerParts:
    """What the handler works with; `intake` and `pools` change with the configuration."""

    clock: Callable[[], float]
    lookup: Lookup
    fetching: Fetching
    serving: Serving
    view: JournalView
    service: InvalidationService
    uncacheable: UncacheableKeys
    backoff: RefreshBackoff
    access_log: AccessSink


class Handler:
    """Answers readers' requests."""

    def __init__(self, parts: HandlerParts, intake: Intake, pools: Pools) -> None:
        self._parts = parts
        self.intake = intake
        self.pools = pools
        self._refreshes: set[asyncio.Task[None]] = set()

    async def handle(self, raw: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; whatever goes wrong is an answer too, or an end that shows."""
        parts = self._parts
        exchange = Exchange(raw, parts.clock)
        try:
            exchange.request = self.intake.read(raw, exchange.method, secure=exchange.secure)
            await self._answer(exchange, exchange.request)
        except BadRequest as error:
            exchange.close_after()
            await exchange.refuse(400, error.reason, CacheStatus(detail="bad-request"))
        except Misdirected as error:
            await exchange.refuse(421, str(error), CacheStatus(detail="unknown-host"))
        except EdgeError as error:
            await exchange.fail(error)
        except ConnectionError:
            exchange.abandon()
        except asyncio.CancelledError:
            exchange.abandon()
            raise
        except Exception:
            log.exception("answering %s failed", exchange.target)
            await exchange.crash()
        finally:
            parts.access_log(exchange.record())
        return exchange.reply

    async def close(self) -> None:
        """End the refreshes in the background."""
        for task in tuple(self._refreshes):
            task.cancel()
        await asyncio.gather(*self._refreshes, return_exceptions=True)

    async def _answer(self, exchange: Exchange, request: EdgeRequest) -> None:
        if request.upgrade:
            await self._pass(exchange, request, Pass("bypass", "upgrade"), upgrade=True)
            return
        passing = classify(request.method, request.fields, request.has_body)
        if passing is not None:
            await self._pass(exchange, request, passing)
            return
        parts = self._parts
        asked_at = parts.view.catch_up()
        learnt_vary: tuple[bytes, ...] = ()
        for _ in range(_ROUNDS):
            now = parts.clock()
            looked = parts.lookup.find(request.key.primary, request.fields, request.policy, now)
            found = looked.found
            decision = decide(
                request.directives,
                self._candidate(found, now),
                honour=request.honour_directives,
                other_variants=looked.other_variants,
                uncacheable=parts.uncacheable.reason(request.key.primary, now),
                now=now,
            )
            vary = looked.vary or learnt_vary
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
                        self._refresh(request, found, vary)
                    if await self._serve(exchange, request, found, status, "stale"):
                        return
                case Revalidate() | Fetch():
                    if request.method == b"HEAD" and isinstance(decision, Fetch):
                        await self._pass(exchange, request, Pass(decision.fwd))
                        return
                    stale = found if isinstance(decision, Revalidate) else None
                    again = await self._fetch(exchange, request, stale, decision, vary, asked_at)
                    if again is None:
                        return
                    learnt_vary = again.vary
                case Pass():
                    await self._pass(exchange, request, decision)
                    return
                case Refuse(status_code, detail):
                    status = CacheStatus(detail=detail)
                    await exchange.refuse(status_code, detail, status)
                    return
        await self._pass(exchange, request, Pass("miss", "contended"))

    def _candidate(self, found: Found | None, now: float) -> Candidate | None:
        if found is None:
            return None
        backing_off = self._parts.backoff.active(found.stored.id, now)
        return Candidate(found.freshness, found.validity, backing_off)

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
                raise
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
        flight, first = parts.fetching.join(request, pool, found, vary)
        early = not flight.left
        with flight.waiting():
            try:
                # The flight of another request is worth so much waiting, and no more.
                async with asyncio.timeout(None if first else request.policy.collapse_timeout):
                    outcome = await flight.outcome(exchange.interim)
            except TimeoutError:
                await self._pass(exchange, request, Pass(decision.fwd, "collapse-timeout"))
                return None
            except OriginFailed as error:
                if spare is not None:
                    return await self._serve_on_error(exchange, request, spare, None, error.detail)
                if not first and not exchange.retried:
                    # That failure was another request's; this one is owed a try of its own.
                    exchange.retried = True
                    return _Again(vary)
                raise
            match outcome:
                case Unshared(answer, status, detail):
                    own = answer if first else None
                    if spare is not None and status in ERROR_STATUS:
                        return await self._serve_on_error(exchange, request, spare, status, None)
                    if own is not None:
                        await self._relay(exchange, request, own, decision.fwd, detail)
                    else:
                        await self._pass(exchange, request, Pass(decision.fwd, "uncacheable"))
                    return None
                case Stored() | Shared():
                    own_fetch = first and not flight.followed
                    if not own_fetch:
                        again = self._unfit(
                            request,
                            flight,
                            outcome.response,
                            vary,
                            asked_at,
                            early and not flight.followed,
                        )
                        if again is not None:
                            return again
                    status_ = CacheStatus(
                        fwd=decision.fwd,
                        stored=True,
                        collapsed=not own_fetch,
                        detail=decision.detail if isinstance(decision, Revalidate) else None,
                    )
                    return await self._hand_out(exchange, request, flight, outcome, status_, vary)

    def _unfit(
        self,
        request: EdgeRequest,
        flight: Flight,
        response: StoredResponse,
        vary: tuple[bytes, ...],
        asked_at: int,
        early: bool,
    ) -> _Again | None:
        """Why another request's response can't answer this one: what to do then; None if it can."""
        if not matches(response.selecting, request.fields):
            return _Again(tuple(name for name, _ in response.selecting))
        if not self._parts.fetching.may_serve(response, asked_at):
            flight.joinable = False
            return _Again(vary)
        if not early and self._needs_validation(request, response):
            # RFC 9111 5.2.2.4: what the origin was asked before this request came is no validation
            # for it. The next fetch is, and all who wait for that share it.
            return _Again(vary)
        return None

    def _needs_validation(self, request: EdgeRequest, response: StoredResponse) -> bool:
        found = self._parts.lookup.judge(response, request.policy, response.position)
        decision = decide(
            request.directives,
            Candidate(found.freshness, found.validity),
            honour=request.honour_directives,
            other_variants=False,
            uncacheable=None,
            now=self._parts.clock(),
        )
        return not isinstance(decision, Hit | Stale)

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
            status = replace(status, fwd_status=response.status)
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
            fwd="stale", fwd_status=fwd_status, ttl=int(spare.freshness.ttl(now)), detail=detail
        )
        served = await self._serve(exchange, request, spare, status, "stale")
        return None if served else _Again(())

    def _refresh(self, request: EdgeRequest, found: Found, vary: tuple[bytes, ...]) -> None:
        fetching = self._parts.fetching
        if len(self._refreshes) >= _MAX_REFRESHES or fetching.refreshing(request, vary):
            return
        pool = self.pools.of(request.policy)
        task = asyncio.create_task(fetching.refresh(request, pool, found, vary))
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)

    # -- for this request alone

    async def _pass(
        self, exchange: Exchange, request: EdgeRequest, why: Pass, *, upgrade: bool = False
    ) -> None:
        """Send this request to the origin for itself alone, and its answer back."""
        pool = self.pools.of(request.policy)
        body = exchange.body() if request.has_body else None
        answer = await pool.send(
            request, request.fields, body, exchange.content_length, exchange.interim, upgrade
        )
        if answer.status == 101:
            exchange.result = "pass"
            idle = request.policy.timeouts.between_bytes
            await exchange.switch(answer, CacheStatus(fwd=why.fwd, fwd_status=101), idle)
            return
        if request.method not in SAFE and 200 <= answer.status < 400:
            # Before the reader hears that it worked: what it asks for next must not be old.
            await self._parts.service.invalidate_urls(
                request.policy.name, touched_targets(request, answer.fields)
            )
        await self._relay(exchange, request, answer, why.fwd, why.detail)

    async def _relay(
        self,
        exchange: Exchange,
        request: EdgeRequest,
        answer: OriginAnswer,
        fwd: Forwarded,
        detail: str | None,
    ) -> None:
        """Stream the origin's answer to its one reader, no faster than that reads."""
        exchange.result = "pass" if fwd in ("method", "bypass") else "miss"
        exchange.origin_took(answer.response_time - answer.request_time)
        response = answer.response
        status = CacheStatus(fwd=fwd, fwd_status=answer.status, detail=detail)
        try:
            await exchange.start(
                answer.status,
                visible_fields(answer.fields, request.policy),
                response.content_length,
                status,
                reason=response.reason,
                head_only=exchange.head_only,
            )
            while not exchange.head_only and (chunk := await response.read_chunk()):
                await exchange.write(chunk)
            await exchange.finish()
        finally:
            response.release()
