"""Fetching for the cache: one flight a key on the node, for all who ask at once."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING
from weakref import WeakSet

import msgspec

from edgeproxy.invalidation.selectors import Expected
from edgeproxy.proxy.collapsing import Flight, Shared, Stored
from edgeproxy.proxy.decide import Validity
from edgeproxy.proxy.errors import EdgeError, InternalFailure, PeerLost, Unkept
from edgeproxy.proxy.lookup import newness
from edgeproxy.proxy.peers import follow
from edgeproxy.semantics.partial import first_position
from edgeproxy.semantics.vary import selecting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from edgeproxy.cache.store import SharedTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.claims import Claims
    from edgeproxy.proxy.in_flight import InFlight
    from edgeproxy.proxy.incomplete import Incomplete
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.proxy.pool import OriginPool
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.retrieving import Retrieving
    from edgeproxy.proxy.tally import Tally
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
    tally: Tally
    claims: Claims
    peers: Path
    clock: Callable[[], float]
    in_flight: InFlight
    retrieving: Retrieving


class Fetching:
    """The flights of one worker."""

    def __init__(self, parts: FetchParts) -> None:
        self._parts = parts
        self._flights: dict[bytes, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fills: WeakSet[Flight] = WeakSet()

    def find_flight(self, key: bytes) -> Flight | None:
        """The flight in the air for a flight key that a request of now may join."""
        flight = self._flights.get(key)
        if flight is None or not flight.joinable:
            return None
        if flight.trickles or self._parts.view.may_concern(flight.expected, flight.position):
            # It may never end, or left before an invalidation that may pick what it brings: tags
            # are not known yet.
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
        crowded = None if flight is None else "too-many-waiters"
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
        if crowded is not None:
            flight.detail = crowded
            self._parts.tally.note(crowded)
        if not alone:
            self._flights[key] = flight
        task = asyncio.create_task(self._fly(flight, key, alone, request, pool, found))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flight, True

    def in_the_air(self, key: bytes) -> bool:
        """Whether this worker has a flight for a flight key."""
        return key in self._flights

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
                    usable, nothing = self._announce_if_usable(flight, request, found)
                    if not usable:
                        await self._fetch(flight, request, pool, found, nothing=nothing)
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
            if self._announce_if_usable(flight, request, found)[0]:
                return
            await asyncio.sleep(0.001)
        await self._fetch(flight, request, pool, found)

    def _announce_if_usable(
        self, flight: Flight, request: EdgeRequest, known: Found | None
    ) -> tuple[bool, bool]:
        """Whether what is stored by now answers, and whether nothing at all is."""
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
            return False, looked.nothing
        flight.followed = True
        flight.announce(Stored(found.stored, None))
        return True, False

    async def _relay(
        self, flight: Flight, request: EdgeRequest, outcome: Shared, body: AsyncIterator[bytes]
    ) -> None:
        to_keep, done = self._parts.tier.per_worker, 0
        async for chunk in body:
            done += len(chunk)
            if not await flight.append(chunk, hold_back=to_keep and done == outcome.content_length):
                raise Unkept
        if to_keep and not flight.outgrown:
            await self._parts.retrieving.keep(flight, request.policy, outcome.response)
        flight.land()

    async def _fetch(
        self,
        flight: Flight,
        request: EdgeRequest,
        pool: OriginPool,
        found: Found | None,
        *,
        nothing: bool = False,
    ) -> None:
        retrieve = self._parts.retrieving.retrieve
        part = await retrieve(flight, request, pool, found, nothing=nothing)
        if part is not None:
            self._fill(request, pool, part)

    def _fill(self, request: EdgeRequest, pool: OriginPool, part: StoredResponse) -> None:
        """Fetch the whole of what is asked for in parts, with nobody waiting for it."""
        if len(self._fills) < _MAX_FILLS and b"authorization" not in request.fields:
            flight, _ = self.join(request, pool, None, tuple(name for name, _ in part.selecting))
            self._fills.add(flight)

    @contextmanager
    def _in_flight(self, target_id: bytes) -> Iterator[None]:
        self._parts.in_flight.began(target_id)
        try:
            yield
        finally:
            self._parts.in_flight.ended(target_id)


def flight_key(
    primary: bytes, vary: tuple[bytes, ...], fields: Fields, part: bytes | None = None
) -> bytes:
    """What flights are told apart by: the cache key, the fields it is known to vary by, and the
    range that is asked for."""
    if not vary and part is None:
        return primary
    chosen = msgspec.msgpack.encode((selecting(vary, fields), part))
    return blake2b(primary + chosen, digest_size=16).digest()
