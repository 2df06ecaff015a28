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
from weakref import WeakSet

import msgspec

from edgeproxy.cache.disk import warn
from edgeproxy.cache.errors import StoreError
from edgeproxy.invalidation.rules import Standing
from edgeproxy.invalidation.selectors import Expected
from edgeproxy.proxy.collapsing import Flight, Shared, Stored, Unshared
from edgeproxy.proxy.decide import Validity, unconditional
from edgeproxy.proxy.errors import (
    EdgeError,
    InternalFailure,
    OriginBodyCut,
    OriginTimedOut,
    PeerLost,
    Unkept,
)
from edgeproxy.proxy.incomplete import as_incomplete, pour
from edgeproxy.proxy.keeping import ABOUT_THE_REQUEST, REFRESH_FAILED
from edgeproxy.proxy.lookup import newness
from edgeproxy.proxy.peers import follow
from edgeproxy.proxy.validating import conditions, worth_asking_about
from edgeproxy.semantics.partial import first_position
from edgeproxy.semantics.vary import selecting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from edgeproxy.cache.store import SharedTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.claims import Claims
    from edgeproxy.proxy.in_flight import InFlight
    from edgeproxy.proxy.incomplete import Incomplete
    from edgeproxy.proxy.keeping import Keeping
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.proxy.memo import RefreshBackoff, UncacheableKeys
    from edgeproxy.proxy.pool import OriginAnswer, OriginPool
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.upstream import OriginResponse
    from edgeproxy.semantics.fields import Fields

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 1.0
_MAX_FILLS = 16
"""Fetches of the whole at once, a worker, for which no reader waits."""
_ATTEMPTS = 4
"""How often to look for who has a fetch in the air before making one unclaimed."""


@dataclass(frozen=True, slots=True)
class FetchParts:
    """What fetching works on."""

    tier: SharedTier
    lookup: Lookup
    incomplete: Incomplete
    view: JournalView
    claims: Claims
    peers: Path
    uncacheable: UncacheableKeys
    backoff: RefreshBackoff
    clock: Callable[[], float]
    in_flight: InFlight
    keeping: Keeping


class Fetching:
    """The flights of one worker."""

    def __init__(self, parts: FetchParts) -> None:
        self._parts = parts
        self._keeping = parts.keeping
        self._flights: dict[bytes, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fills: WeakSet[Flight] = WeakSet()

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
        part: bytes | None = None,
    ) -> tuple[Flight, bool]:
        """The flight that answers this request, and whether this request caused it.

        A request with credentials flies alone: what comes back may be its own (RFC 9111 3.5).
        `part`: the Range to ask for, unless the whole is in the air and has come near it.
        """
        key = flight_key(request.key.primary, vary, request.fields)
        alone = b"authorization" in request.fields
        flight = None if alone else self.find_flight(key)
        if part is not None:
            first = first_position(part)
            if flight is None or first is None or not flight.nears(first):
                key = flight_key(request.key.primary, vary, request.fields, part)
                flight = None if alone else self.find_flight(key)
        if flight is not None and flight.readers < request.policy.max_waiters:
            return flight, False
        tier, target = self._parts.tier, request.key
        expected = Expected(
            target.site,
            request.environment,
            target.scheme,
            target.host,
            target.target,
            target.target_id,
        )
        position = self._parts.view.catch_up()
        flight = Flight(tier.spool(), tier.max_object_bytes, expected, position, part)
        if not alone:
            self._flights[key] = flight
        task = asyncio.create_task(self._fly(flight, key, alone, request, pool, found))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flight, True

    def in_the_air(self, key: bytes) -> bool:
        """Whether this worker has a flight for a flight key."""
        return key in self._flights

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
        if not isinstance(outcome, Unshared) or outcome.status in ABOUT_THE_REQUEST:
            # In the latter case the next reader's request may do better.
            return
        if outcome.status in REFRESH_FAILED:
            parts.backoff.failed(found.stored.id, parts.clock())
            return
        # The origin has a new answer that may not be kept: the old one is not its answer any more.
        await self._keeping.forget(found.stored)

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
            with self._in_flight(request.key.target_id):
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
                async with asyncio.timeout(request.policy.collapse_timeout):
                    followed = await follow(parts.peers, pid, key)
            except PeerLost:
                continue
            except TimeoutError:
                break
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
        looked = self._parts.lookup.find(
            request.key.primary, request.fields, request.policy, now, request.not_before
        )
        found = looked.found
        if found is None and flight.part is not None:
            incomplete = self._parts.incomplete.select(request)
            found = None if incomplete is None or not incomplete.ranges else incomplete.found
        if (
            found is None
            or found.validity is not Validity.VALID
            or not found.freshness.is_fresh(now)
            or found.freshness.must_validate
            or (known is not None and newness(found.stored) <= newness(known.stored))
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
        with parts.view.hold() as hold:
            if flight.part is not None:
                answer = await self._ask(flight, request, pool, ((b"Range", flight.part),))
                await self._receive(flight, request, pool, answer, hold.position, None)
                return
            if found is not None and parts.lookup.deleted(found):
                # Not even to be validated: it may have been deleted for being wrong.
                found = None
            anew = found is not None or request.not_before
            if not anew and await self._complete(flight, request, pool, hold.position):
                return
            stored = parts.lookup.all_stored(request.key.primary)
            others = worth_asking_about(stored, request.fields, found)
            answer = await self._ask(flight, request, pool, conditions(found, others))
            if answer.status == 304 and (found is not None or others):
                answer.response.release()
                valid = await self._keeping.validated(request, found, others, answer, hold.position)
                if valid is not None:
                    flight.announce(Stored(valid, 304))
                    return
                # What it validated is gone meanwhile, was deleted, or is nothing that is stored
                # here: ask for the whole.
                answer = await self._ask(flight, request, pool, ())
            await self._receive(flight, request, pool, answer, hold.position, found)

    async def _complete(
        self, flight: Flight, request: EdgeRequest, pool: OriginPool, position: int
    ) -> bool:
        """RFC 9111 3.3: fetch the rest of what is stored; False: the whole is to be asked for."""
        parts = self._parts
        completion = await parts.incomplete.completion(request, parts.clock())
        if completion is None:
            return False
        answer = await self._ask(flight, request, pool, completion.fields)
        if answer.status not in (206, 412, 416):
            await self._receive(flight, request, pool, answer, position, None)
            return True
        _, rest = self._keeping.storable(request, answer, position, None, part=True)
        completed = None
        if rest is not None:
            completed = parts.incomplete.complete(completion, rest)
        if completed is None:
            answer.response.abort()
            return False
        whole, length = completed.response, completed.length
        flight.announce(Shared(whole, length, None, answer.status))
        try:
            await pour(completion, completed, answer.response, flight)
        except BaseException as error:
            answer.response.abort()
            await self._keep_cut(flight, request.policy, whole, length, error)
            raise
        answer.response.release()
        if not flight.outgrown:
            await self._keep(flight, request.policy, whole)
        flight.land()
        return True

    async def _keep_cut(
        self,
        flight: Flight,
        policy: SitePolicy,
        response: StoredResponse,
        length: int | None,
        error: BaseException,
    ) -> None:
        """Store what came of a body that broke off, if it can be gone on with (RFC 9111 3.3)."""
        if isinstance(error, OriginBodyCut | OriginTimedOut) and not flight.outgrown:
            part = as_incomplete(response, length, flight.spool.size)
            if part is not None:
                await self._parts.incomplete.keep(part, flight.spool, policy, cut=True)

    async def _ask(
        self,
        flight: Flight,
        request: EdgeRequest,
        pool: OriginPool,
        added: tuple[tuple[bytes, bytes], ...],
    ) -> OriginAnswer:
        fields = unconditional(request.fields).plus(*added)
        flight.left = True

        async def on_interim(status: int, reason: bytes, interim: Fields) -> None:
            flight.interim(status, reason, interim)

        return await pool.send(replace(request, method=b"GET"), fields, None, None, on_interim)

    async def _receive(
        self,
        flight: Flight,
        request: EdgeRequest,
        pool: OriginPool,
        answer: OriginAnswer,
        position: int,
        found: Found | None,
    ) -> None:
        part = flight.part is not None
        refusal, response = self._keeping.storable(request, answer, position, found, part=part)
        if response is None:
            about_range = part and answer.status in (206, 416)
            if (
                not about_range
                and answer.status not in REFRESH_FAILED
                and refusal != "authorization"
            ):
                # An error says nothing about the page, which may well be cacheable; nor does what
                # credentials brought, for those who have none.
                parts = self._parts
                until = parts.clock() + request.policy.uncacheable_ttl
                parts.uncacheable.note(request.key.primary, until, refusal)
            flight.announce(Unshared(answer, answer.status, refusal))
            return
        origin = answer.response
        shared = Shared(response, origin.content_length, answer.fields)
        empty = origin.at_eof()
        if not empty:
            flight.announce(shared)
        self._parts.uncacheable.forget(request.key.primary)
        try:
            await _pour(origin, flight)
        except BaseException as error:
            origin.abort()
            length = origin.content_length
            await self._keep_cut(flight, request.policy, response, length, error)
            raise
        origin.release()
        if not flight.outgrown:
            if not await self._keep(flight, request.policy, response):
                self._fill(request, pool, response)
            if found is not None and found.stored.id != response.id:
                await self._keeping.forget(found.stored)
        if empty:
            # Whoever has its head has all of it, so this waits until it is stored.
            flight.announce(shared)
        flight.land()

    def reconsider(self, request: EdgeRequest, answer: OriginAnswer) -> None:
        """Look at an answer that was not fetched to be stored, since the key's last one could not
        be. If this one could, the next is: what one reader got says little about the others."""
        if (
            request.method == b"GET"
            and self._keeping.storable(request, answer, 0, None)[1] is not None
        ):
            self._parts.uncacheable.forget(request.key.primary)

    def _fill(self, request: EdgeRequest, pool: OriginPool, part: StoredResponse) -> None:
        """Fetch the whole of what is asked for in parts, with nobody waiting for it."""
        if len(self._fills) < _MAX_FILLS and b"authorization" not in request.fields:
            flight, _ = self.join(request, pool, None, tuple(name for name, _ in part.selecting))
            self._fills.add(flight)

    async def _keep(self, flight: Flight, policy: SitePolicy, response: StoredResponse) -> bool:
        """Store a body; where the store can't, the readers have it all the same.

        False for a part that was not put to the others (see `Incomplete.keep`).
        """
        if response.incomplete:
            return await self._parts.incomplete.keep(response, flight.spool, policy, cut=False)
        try:
            await self._keeping.put(flight.spool, policy, response)
        except StoreError as error:
            warn(log, error, "%s is not stored: %s", response.url, error)
        return True

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


def flight_key(
    primary: bytes, vary: tuple[bytes, ...], fields: Fields, part: bytes | None = None
) -> bytes:
    """What flights are told apart by: the cache key, the fields it is known to vary by, and the
    range that is asked for."""
    if not vary and part is None:
        return primary
    chosen = msgspec.msgpack.encode((selecting(vary, fields), part))
    return blake2b(primary + chosen, digest_size=16).digest()
