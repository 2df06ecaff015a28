"""Fetching for the cache: one flight a key on the node, what it brings stored and handed out.

The order of things is what makes a purge exact: the journal's position is noted before a request
leaves (`hold`), the response bears it, and the store asks the journal once more inside the very
transaction that makes the response visible.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.cache.errors import StoreError
from edgeproxy.cache.stored import UNWRITTEN, StoredResponse, variant_id
from edgeproxy.invalidation.rules import Standing
from edgeproxy.invalidation.selectors import Expected
from edgeproxy.proxy.collapsing import Flight, Shared, Stored, Unshared
from edgeproxy.proxy.decide import Validity, may_serve_on_error, unconditional
from edgeproxy.proxy.errors import EdgeError, InternalFailure, PeerLost, Unkept
from edgeproxy.proxy.peers import follow
from edgeproxy.semantics.conditional import freshen, validation_fields
from edgeproxy.semantics.errors import TagLimitExceeded
from edgeproxy.semantics.storing import may_store, storable_fields
from edgeproxy.semantics.tags import response_tags
from edgeproxy.semantics.vary import selecting, vary_names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from edgeproxy.cache.store import SharedTier
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.claims import Claims
    from edgeproxy.proxy.in_flight import InFlight
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.proxy.memo import RefreshBackoff, UncacheableKeys
    from edgeproxy.proxy.pool import OriginAnswer, OriginPool
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.upstream import OriginResponse
    from edgeproxy.semantics.fields import Fields

log = logging.getLogger(__name__)

# RFC 5861 4: an error is a 500, 502, 503 or 504.
ERROR_STATUS = frozenset({500, 502, 503, 504})
# A refresh that is told "too many requests" has learnt nothing about the response.
REFRESH_FAILED = ERROR_STATUS | {429}
_CLOSE_SECONDS = 1.0
_ATTEMPTS = 4
"""How often to look for who has a fetch in the air before making one unclaimed."""


@dataclass(frozen=True, slots=True)
class FetchParts:
    """What fetching works on."""

    tier: SharedTier
    lookup: Lookup
    view: JournalView
    claims: Claims
    peers: Path
    uncacheable: UncacheableKeys
    backoff: RefreshBackoff
    clock: Callable[[], float]
    in_flight: InFlight


class Fetching:
    """The flights of one worker."""

    def __init__(self, parts: FetchParts) -> None:
        self._parts = parts
        self._flights: dict[bytes, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def find_flight(self, key: bytes) -> Flight | None:
        """The flight in the air for a flight key that a request of now may join."""
        flight = self._flights.get(key)
        if flight is None or not flight.joinable:
            return None
        if self._parts.view.may_concern(flight.expected, flight.position):
            # It left before an invalidation that may pick what it brings; tags are not known yet.
            flight.joinable = False
            return None
        return flight

    async def close(self) -> None:
        """Give up what is in the air."""
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            # Not for ever: a reader that takes nothing keeps its flight from ending.
            await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)

    def join(
        self,
        request: EdgeRequest,
        pool: OriginPool,
        found: Found | None,
        vary: tuple[bytes, ...],
    ) -> tuple[Flight, bool]:
        """The flight that answers this request, and whether this request caused it.

        A request with credentials flies alone: what comes back may be its own (RFC 9111 3.5).
        """
        key = flight_key(request.key.primary, vary, request.fields)
        alone = b"authorization" in request.fields
        flight = None if alone else self.find_flight(key)
        if flight is not None and flight.readers < request.policy.max_waiters:
            return flight, False
        tier, target = self._parts.tier, request.key
        expected = Expected(target.site, request.environment, target.host, target.target_id)
        position = self._parts.view.catch_up()
        flight = Flight(tier.spool(), tier.max_object_bytes, expected, position)
        if not alone:
            self._flights[key] = flight
        task = asyncio.create_task(self._fly(flight, key, alone, request, pool, found))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flight, True

    def refreshing(self, request: EdgeRequest, vary: tuple[bytes, ...]) -> bool:
        """Whether this worker has the refresh of what the request found in the air already."""
        return flight_key(request.key.primary, vary, request.fields) in self._flights

    async def refresh(
        self, request: EdgeRequest, pool: OriginPool, found: Found, vary: tuple[bytes, ...]
    ) -> None:
        """Refresh a stale response behind the reader who got it."""
        parts = self._parts
        flight, first = self.join(request, pool, found, vary)
        if not first:
            return
        with flight.waiting():
            try:
                outcome = await flight.outcome()
                await flight.ended()
            except EdgeError as error:
                pause = parts.backoff.failed(found.stored.id, parts.clock())
                log.warning(
                    "refresh of %s failed: %s; the stale copy stays, next try in %d s",
                    request.key.url, error.detail, pause,
                )  # fmt: skip
                return
        if not isinstance(outcome, Unshared):
            return
        if outcome.status in REFRESH_FAILED:
            parts.backoff.failed(found.stored.id, parts.clock())
            return
        # The origin has a new answer that may not be kept: the old one is not its answer any more.
        await self._forget(found.stored)

    # -- one flight

    async def _fly(
        self,
        flight: Flight,
        key: bytes,
        alone: bool,
        request: EdgeRequest,
        pool: OriginPool,
        found: Found | None,
    ) -> None:
        try:
            if alone:
                await self._fetch(flight, request, pool, found)
            else:
                await self._lead_or_follow(flight, key, request, pool, found)
        except EdgeError as error:
            flight.fail(error)
        except asyncio.CancelledError:
            flight.fail(InternalFailure("shutting-down"))
            raise
        except Exception:
            log.exception("fetching %s failed", request.key.url)
            flight.fail(InternalFailure("internal-error"))
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]
            await flight.disused()
            flight.abandon()

    async def _lead_or_follow(
        self,
        flight: Flight,
        key: bytes,
        request: EdgeRequest,
        pool: OriginPool,
        found: Found | None,
    ) -> None:
        parts = self._parts
        for _ in range(_ATTEMPTS):
            if parts.claims.acquire(key):
                try:
                    # Another worker may have finished between our look and our claim.
                    if not self._announce_if_usable(flight, request, found):
                        await self._fetch(flight, request, pool, found)
                    return
                finally:
                    parts.claims.release(key)
            pid = parts.claims.holder(key)
            if pid is None:
                continue
            try:
                followed = await follow(parts.peers, pid, key)
            except PeerLost:
                continue
            if followed is not None:
                flight.followed = True
                flight.announce(followed.outcome)
                if followed.body is not None and isinstance(followed.outcome, Shared):
                    await self._relay(flight, request, followed.outcome, followed.body)
                return
            if self._announce_if_usable(flight, request, found):
                return
            await asyncio.sleep(0.001)
        await self._fetch(flight, request, pool, found)

    def _announce_if_usable(
        self, flight: Flight, request: EdgeRequest, known: Found | None
    ) -> bool:
        now = self._parts.clock()
        looked = self._parts.lookup.find(request.key.primary, request.fields, request.policy, now)
        found = looked.found
        if (
            found is None
            or found.validity is not Validity.VALID
            or not found.freshness.is_fresh(now)
            or found.freshness.must_validate
            or (known is not None and found.stored.response_time <= known.stored.response_time)
        ):
            return False
        flight.followed = True
        flight.announce(Stored(found.stored, None))
        return True

    async def _relay(
        self, flight: Flight, request: EdgeRequest, outcome: Shared, body: AsyncIterator[bytes]
    ) -> None:
        async for chunk in body:
            if not await flight.append(chunk):
                raise Unkept
        if self._parts.tier.per_worker and not flight.outgrown:
            await self._keep(flight, request.policy, outcome.response)
        flight.land()

    async def _fetch(
        self, flight: Flight, request: EdgeRequest, pool: OriginPool, found: Found | None
    ) -> None:
        parts = self._parts
        with parts.view.hold() as hold, self._in_flight(request.key.target_id):
            answer = await self._ask(flight, request, pool, found)
            if answer.status == 304 and found is not None:
                answer.response.release()
                updated = await self._freshen(request, found, answer, hold.position)
                if updated is not None:
                    flight.announce(Stored(updated, 304))
                    return
                # What it validated is gone meanwhile, or was deleted: ask for the whole.
                answer = await self._ask(flight, request, pool, None)
            await self._receive(flight, request, answer, hold.position, found)

    async def _ask(
        self, flight: Flight, request: EdgeRequest, pool: OriginPool, found: Found | None
    ) -> OriginAnswer:
        fields = unconditional(request.fields)
        if found is not None:  # RFC 9111 4.3.1
            fields = fields.plus(*validation_fields([found.fields]))

        flight.left = True

        async def on_interim(status: int, reason: bytes, interim: Fields) -> None:
            flight.interim(status, reason, interim)

        return await pool.send(replace(request, method=b"GET"), fields, None, None, on_interim)

    async def _receive(
        self,
        flight: Flight,
        request: EdgeRequest,
        answer: OriginAnswer,
        position: int,
        found: Found | None,
    ) -> None:
        refusal, response = self._storable(request, answer, position, found)
        if response is None:
            if answer.status not in REFRESH_FAILED:
                # An error says nothing about the page, which may well be cacheable.
                parts = self._parts
                until = parts.clock() + request.policy.uncacheable_ttl
                parts.uncacheable.note(request.key.primary, until, refusal)
            flight.announce(Unshared(answer, answer.status, refusal))
            return
        origin = answer.response
        flight.announce(Shared(response, origin.content_length, answer.fields))
        self._parts.uncacheable.forget(request.key.primary)
        try:
            await _pour(origin, flight)
        except BaseException:
            origin.abort()
            raise
        origin.release()
        if not flight.outgrown:
            await self._keep(flight, request.policy, response)
            if found is not None and found.stored.id != response.id:
                await self._forget(found.stored)
        flight.land()

    def _storable(
        self, request: EdgeRequest, answer: OriginAnswer, position: int, found: Found | None
    ) -> tuple[str, StoredResponse | None]:
        """The response as it would be stored, or why it may not be."""
        policy, key = request.policy, request.key
        if (
            found is not None
            and answer.status in REFRESH_FAILED
            and may_serve_on_error(found.freshness, answer.response_time)
        ):
            # However long it calls itself fresh, an error does not replace what stands in for it.
            return "stale-if-error", None
        refusal = may_store(
            b"GET", request.fields, answer.status, answer.fields, policy.storage, policy.freshness
        )
        if refusal is not None:
            return refusal, None
        if not answer.response.framed and not policy.store_unframed:
            return "unframed", None
        length = answer.response.content_length
        if length is not None and length > self._parts.tier.max_object_bytes:
            return "too-large", None
        names = vary_names(answer.fields)
        if names is None:
            return "vary-star", None
        try:
            tags = response_tags(answer.fields, policy.tags)
        except TagLimitExceeded as error:
            log.warning("%s is not stored: %s", key.url, error)
            return "tag-limit", None
        chosen = selecting(names, request.fields)
        return "", StoredResponse(
            primary=key.primary,
            variant=variant_id(chosen),
            target_id=key.target_id,
            site=key.site,
            environment=request.environment,
            scheme=key.scheme,
            host=key.host,
            target=key.target,
            buster=key.buster,
            status=answer.status,
            reason=answer.response.reason,
            fields=storable_fields(answer.fields, policy.storage.targets).raw,
            selecting=chosen,
            tags=tags,
            request_time=answer.request_time,
            response_time=answer.response_time,
            position=position,
            invalidated=0,
            body=UNWRITTEN,
        )

    async def _keep(self, flight: Flight, policy: SitePolicy, response: StoredResponse) -> None:
        """Store a whole body; where the store can't, the readers have it all the same."""
        parts = self._parts
        spool = flight.spool
        body = await spool.read(0, spool.size) if spool.size <= spool.memory_limit else None
        try:
            stored = await parts.tier.put(
                response,
                spool,
                parts.view.admit,
                max_variants=policy.max_variants,
                max_busters=policy.max_busters,
            )
        except StoreError as error:
            log.warning("%s is not stored: %s", response.url, error)
            return
        if stored is not None:
            parts.backoff.succeeded(stored.id)
            if body is not None:
                judged = parts.lookup.judge(stored, policy, stored.position)
                parts.lookup.remember(judged, body)

    async def _freshen(
        self, request: EdgeRequest, found: Found, answer: OriginAnswer, position: int
    ) -> StoredResponse | None:
        """RFC 9111 4.3.4: the stored response with the 304's fields, times and position."""
        parts = self._parts
        fields = freshen(found.fields, answer.fields)
        try:
            tags = response_tags(fields, request.policy.tags)
        except TagLimitExceeded as error:
            log.warning("%s is not kept: %s", request.key.url, error)
            await self._forget(found.stored)
            return None
        fresh = msgspec.structs.replace(
            found.stored,
            fields=storable_fields(fields, request.policy.storage.targets).raw,
            tags=tags,
            request_time=answer.request_time,
            response_time=answer.response_time,
            position=position,
            invalidated=0,
        )
        try:
            updated = await parts.tier.update(found.stored, fresh, parts.view.admit)
        except StoreError as error:
            log.warning("%s is not updated: %s", request.key.url, error)
            return None
        if updated is not None:
            parts.backoff.succeeded(updated.id)
            if found.entry is not None:
                judged = parts.lookup.judge(updated, request.policy, updated.position)
                parts.lookup.remember(judged, found.entry.body)
        return updated

    async def _forget(self, stored: StoredResponse) -> None:
        self._parts.lookup.discard(stored.id)
        await self._parts.tier.delete([stored.id])

    @contextmanager
    def _in_flight(self, target_id: bytes) -> Iterator[None]:
        self._parts.in_flight.began(target_id)
        try:
            yield
        finally:
            self._parts.in_flight.ended(target_id)

    def may_serve(self, response: StoredResponse, asked_at: int) -> bool:
        """Whether a flight's response may answer a request that arrived at position `asked_at`.

        An invalidation that was answered before the request came in must be seen by it, though the
        fetch had left before; one that came while the request waited may be.
        """
        view = self._parts.view
        if response.position < view.floor:
            return False
        # Rules after `asked_at` don't count: an older one must not hide behind a newer.
        verdict = view.verdict(response, response.position, asked_at)
        return verdict.standing is Standing.VALID


async def _pour(origin: OriginResponse, flight: Flight) -> None:
    """All of the origin's body into the flight; the last of it stays back until that lands."""
    whole = False
    while not whole and (chunk := await origin.read_chunk()):
        whole = origin.at_eof()
        if not await flight.append(chunk, hold_back=whole):
            raise Unkept


def flight_key(primary: bytes, vary: tuple[bytes, ...], fields: Fields) -> bytes:
    """What flights are told apart by: the cache key, and the fields it is known to vary by."""
    if not vary:
        return primary
    chosen = msgspec.msgpack.encode(selecting(vary, fields))
    return blake2b(primary + chosen, digest_size=16).digest()
