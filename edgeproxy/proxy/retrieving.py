"""What one flight does: ask the origin, hand out what it answers, and store that.

The order of things is what makes a purge exact: the journal's position is noted before a request
leaves (`hold`), the response bears it, and the store asks the journal once more inside the very
transaction that makes the response visible.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from edgeproxy.cache.disk import warn
from edgeproxy.cache.errors import StoreError
from edgeproxy.proxy.collapsing import Shared, Stored, Unshared
from edgeproxy.proxy.decide import unconditional
from edgeproxy.proxy.errors import OriginBodyCut, OriginProtocolError, OriginTimedOut, Unkept
from edgeproxy.proxy.incomplete import as_incomplete, pour
from edgeproxy.proxy.keeping import REFRESH_FAILED
from edgeproxy.proxy.validating import conditions, worth_asking_about

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.collapsing import Flight
    from edgeproxy.proxy.incomplete import Completion, Incomplete
    from edgeproxy.proxy.keeping import Keeping
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.proxy.memo import UncacheableKeys
    from edgeproxy.proxy.pool import OriginAnswer, OriginPool
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.upstream import OriginResponse
    from edgeproxy.semantics.fields import Fields

log = logging.getLogger(__name__)


class _Errand(msgspec.Struct, frozen=True):
    """What a flight is sent for."""

    flight: Flight
    request: EdgeRequest
    pool: OriginPool
    position: int
    """The journal's, before any request left."""
    nothing: bool
    """Nothing at all is stored under the key, and this flight alone may bring something."""


@dataclass(frozen=True, slots=True)
class Retrieving:
    """How flights get what they bring."""

    lookup: Lookup
    incomplete: Incomplete
    view: JournalView
    uncacheable: UncacheableKeys
    clock: Callable[[], float]
    keeping: Keeping

    async def retrieve(
        self,
        flight: Flight,
        request: EdgeRequest,
        pool: OriginPool,
        found: Found | None,
        *,
        nothing: bool = False,
    ) -> StoredResponse | None:
        """Ask the origin, about `found` where that may be validated, and announce the outcome.

        `nothing`: nothing at all was stored under the key when the flight was claimed.
        What is returned is a part that was not put to the others: so much of the whole is stored
        that this had better be fetched. Raises an `EdgeError`.
        """
        with self.view.hold() as hold:
            errand = _Errand(flight, request, pool, hold.position, nothing)
            if flight.part is not None:
                return await self._retrieve_part(errand, flight.part)
            if found is not None and (request.anew or self.lookup.deleted(found)):
                # Not even to be validated: it may have been deleted for being wrong.
                found = None
            if found is None and not (nothing or request.not_before or request.anew):
                completion = await self.incomplete.completion(request)
                if completion is not None:
                    done, _ = await self._complete(errand, completion)
                    if done:
                        return None
            return await self._retrieve_whole(errand, found)

    async def _retrieve_whole(self, errand: _Errand, found: Found | None) -> StoredResponse | None:
        request = errand.request
        none = errand.nothing or request.anew
        stored = () if none else self.lookup.all_stored(request.key.primary)
        others = worth_asking_about(stored, request.fields, found)
        answer = await self._ask(errand, conditions(found, others))
        if answer.status == 304 and (found is not None or others):
            if await self._validated(errand, answer, found, others):
                return None
            # What it validated is gone meanwhile, was deleted, or is nothing that is stored here:
            # ask for the whole.
            answer = await self._ask(errand, ())
        return await self._receive(errand, answer, found)

    async def _retrieve_part(self, errand: _Errand, part: bytes) -> StoredResponse | None:
        """RFC 9111 3.3: ask for a range, or for what is missing of it, or if it is still good."""
        asked = ((b"Range", part),)
        selected = self.incomplete.select(errand.request)
        if selected is not None and selected.ranges:
            found = selected.found
            if validators := conditions(found, ()):
                answer = await self._ask(errand, (*asked, *validators))
                if answer.status != 304:
                    return await self._receive(errand, answer, None)
                if await self._validated(errand, answer, found, ()):
                    return None
        elif selected is not None:
            extension = await self.incomplete.extension(selected, part)
            if extension is not None:
                done, spare = await self._complete(errand, extension)
                if done:
                    return spare
        return await self._receive(errand, await self._ask(errand, asked), None)

    async def _complete(
        self, errand: _Errand, completion: Completion
    ) -> tuple[bool, StoredResponse | None]:
        """Put what is missing to what is stored; False: all of it is to be asked for."""
        flight, policy = errand.flight, errand.request.policy
        answer = await self._ask(errand, completion.fields)
        if answer.status not in (206, 412, 416):
            return True, await self._receive(errand, answer, None)
        _, rest = self.keeping.storable(errand.request, answer, errand.position, None, part=True)
        completed = None if rest is None else self.incomplete.complete(completion, rest)
        if completed is None:
            answer.response.abort()
            return False, None
        response, length = completed.response, completed.length
        flight.announce(Shared(response, length, None, answer.status))
        try:
            await pour(completion, completed, answer.response, flight)
        except BaseException as error:
            answer.response.abort()
            await self._keep_cut(flight, policy, response, length, error)
            raise
        answer.response.release()
        kept = flight.outgrown or await self.keep(flight, policy, response)
        flight.land()
        return True, None if kept else response

    async def _ask(self, errand: _Errand, added: tuple[tuple[bytes, bytes], ...]) -> OriginAnswer:
        flight, request = errand.flight, errand.request
        fields = unconditional(request.fields).plus(*added)
        flight.left = True

        async def on_interim(status: int, reason: bytes, interim: Fields) -> None:
            flight.interim(status, reason, interim)

        asked = request if request.method == b"GET" else replace(request, method=b"GET")
        return await errand.pool.send(asked, fields, None, None, on_interim)

    async def _validated(
        self,
        errand: _Errand,
        answer: OriginAnswer,
        found: Found | None,
        others: Sequence[StoredResponse],
    ) -> bool:
        """Take a 304: whether what it speaks of is stored, and now the outcome."""
        answer.response.release()
        valid = await self.keeping.validated(errand.request, found, others, answer, errand.position)
        if valid is None:
            return False
        errand.flight.announce(Stored(valid, 304))
        return True

    async def _receive(
        self, errand: _Errand, answer: OriginAnswer, found: Found | None
    ) -> StoredResponse | None:
        """Take a full answer: share it as it comes, and store it, if it may be."""
        flight, request = errand.flight, errand.request
        if answer.status == 304:
            # It was asked nothing that this could answer (RFC 9110 15.4.5). A reader would take it
            # for its own copy being good.
            answer.response.abort()
            raise OriginProtocolError("the origin's response is a 304 to an unconditional request")
        part = flight.part is not None
        refusal, response = self.keeping.storable(
            request, answer, errand.position, found, part=part
        )
        if response is None:
            about_range = part and answer.status in (206, 416)
            if self._note(request, answer, refusal, about_range=about_range):
                refusal += "; uncacheable-limit"
            flight.announce(Unshared(answer, answer.status, refusal))
            return None
        origin = answer.response
        judged = self.lookup.judge(response, request.policy, response.position)
        shared = Shared(response, origin.content_length, answer.fields, judged=judged)
        self.uncacheable.forget(request.key.primary)
        flight.detail = flight.detail or self.keeping.crowds_out(request.policy, response)
        body = origin.take_whole()
        whole = origin.at_eof() if body is None else flight.take_whole(body)
        if not whole:
            flight.announce(shared)
        try:
            if not whole:
                await _pour(origin, flight, body)
        except BaseException as error:
            origin.abort()
            length = origin.content_length
            await self._keep_cut(flight, request.policy, response, length, error)
            raise
        origin.release()
        kept = True
        if not flight.outgrown:
            alone = errand.nothing
            kept = await self.keep(flight, request.policy, response, judged, alone=alone)
            if found is not None and found.stored.id != response.id:
                await self.keeping.forget(found.stored)
        if whole:
            # Whoever has its head has all of it, so this waits until it is stored.
            flight.announce(shared)
        flight.land()
        return None if kept else response

    def _note(
        self, request: EdgeRequest, answer: OriginAnswer, refusal: str, *, about_range: bool
    ) -> bool:
        """Remember that a key's answer could not be stored; whether that makes another forgotten.

        An error says nothing about the page, which may well be cacheable; nor does what credentials
        brought, for those who have none.
        """
        if about_range or answer.status in REFRESH_FAILED or refusal == "authorization":
            return False
        until = self.clock() + request.policy.uncacheable_ttl
        return self.uncacheable.note(request.key.primary, until, refusal)

    # -- storing

    async def keep(
        self,
        flight: Flight,
        policy: SitePolicy,
        response: StoredResponse,
        judged: Found | None = None,
        *,
        alone: bool = False,
    ) -> bool:
        """Store a body; where the store can't, the readers have it all the same.

        `alone`: nothing else is stored under its key, as far as is known. False for a part that was
        not put to the others (see `Incomplete.keep`).
        """
        if response.incomplete:
            return await self.incomplete.keep(response, flight.spool, policy, cut=False)
        try:
            await self.keeping.put(flight.spool, policy, response, judged, alone=alone)
        except StoreError as error:
            warn(log, error, "%s is not stored: %s", response.url, error)
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
                await self.incomplete.keep(part, flight.spool, policy, cut=True)


async def _pour(origin: OriginResponse, flight: Flight, chunk: bytes | None) -> None:
    """All of the origin's body into the flight; the last of it stays back until that lands.

    `chunk`: what has been read of it already.
    """
    whole = False
    while not whole and (chunk := chunk or await origin.read_chunk()):
        whole = origin.at_eof()
        if not await flight.append(chunk, hold_back=whole):
            raise Unkept
        chunk = None
