"""Incomplete responses in the store: found for ranges, combined, and completed (RFC 9111 3.3, 3.4).

Each is a row of its own beside the whole responses of its key, one for each variant. It is never
kept in memory, nor looked at where a whole response matches.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import msgspec

from edgeproxy.cache.disk import warn
from edgeproxy.cache.errors import StoreError
from edgeproxy.cache.stored import variant_id
from edgeproxy.invalidation.rules import Standing
from edgeproxy.proxy.errors import OriginProtocolError, Unkept
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.partial import (
    Parts,
    combine,
    combined_fields,
    completing_fields,
    cut_out,
    extending_fields,
    passed_positions,
    received_part,
    same_representation,
    satisfied_ranges,
    stated_parts,
    strong_validator,
    without_message_fields,
)
from edgeproxy.semantics.ranges import ByteRange
from edgeproxy.semantics.vary import matches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from edgeproxy.cache.bodies import ReadBody
    from edgeproxy.cache.spool import Spool
    from edgeproxy.cache.store import SharedTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.collapsing import Flight
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.upstream import OriginResponse
    from edgeproxy.semantics.partial import Piece

log = logging.getLogger(__name__)

# A combination is written as a new body. Up to so many bytes that is done for any part; beyond, for
# parts of a share of it, so that all copying together stays in proportion to what is there.
_SMALL: Final = 2 * 1024 * 1024
_SHARE: Final = 8


@dataclass(frozen=True, slots=True)
class Selected:
    """An incomplete response that matches a request, valid by the journal."""

    found: Found
    parts: Parts
    ranges: tuple[ByteRange, ...] | None
    """What the request asks for, if it is partial and all of it is there."""


@dataclass(frozen=True, slots=True)
class Completion:
    """An incomplete response whose rest, or the rest of a range, is being asked for."""

    selected: Selected
    read: ReadBody
    fields: tuple[tuple[bytes, bytes], ...]
    """What is added to the request."""
    wanted: ByteRange | None
    """The range that is to be whole then; None: all of the representation."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What there is together with content that is coming in."""

    response: StoredResponse
    length: int
    pieces: tuple[Piece, ...]


class Incomplete:
    """The incomplete responses of the shared tier."""

    def __init__(self, tier: SharedTier, lookup: Lookup, view: JournalView) -> None:
        self._tier = tier
        self._lookup = lookup
        self._view = view
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    def select(self, request: EdgeRequest) -> Selected | None:
        """The newest incomplete response for a GET, whatever that asks for; None: there is none."""
        head = self._view.catch_up()
        best: tuple[StoredResponse, Parts] | None = None
        for stored, parts in self._valid(request.key.primary):
            if (best is None or stored.response_time > best[0].response_time) and matches(
                stored.selecting, request.fields, Fields(stored.fields)
            ):
                best = stored, parts
        if best is None:
            return None
        found = self._lookup.judge(best[0], request.policy, head)
        return Selected(found, best[1], satisfied_ranges(request.fields, found.fields, best[1]))

    def _valid(self, primary: bytes) -> Iterator[tuple[StoredResponse, Parts]]:
        # To be used up at once: a row and its verdict have to be of the same moment.
        for stored in self._tier.lookup(primary):
            if not stored.incomplete or stored.invalidated or not self._tier.reachable(stored):
                continue
            parts = stated_parts(Fields(stored.fields))
            verdict = self._view.verdict(stored, stored.position)
            if verdict.standing is Standing.VALID and parts is not None:
                yield stored, parts

    # -- completing

    async def completion(self, request: EdgeRequest) -> Completion | None:
        """How to ask for the rest of what is stored for a request; None if the whole is needed."""
        selected = self.select(request)
        if selected is None or (selected.parts.length or 0) > self._tier.max_object_bytes:
            return None
        asked = completing_fields(selected.found.fields, selected.parts)
        return await self._opened(selected, asked, None)

    async def extension(self, selected: Selected, part: bytes) -> Completion | None:
        """How to ask for what is missing of a range; None if all of that is to be asked for."""
        wanted = passed_positions(part, selected.parts.length)
        if wanted is None:
            return None
        asked = extending_fields(selected.found.fields, selected.parts, wanted)
        return await self._opened(selected, asked, wanted)

    async def _opened(
        self, selected: Selected, asked: tuple[tuple[bytes, bytes], ...], wanted: ByteRange | None
    ) -> Completion | None:
        if not asked:
            return None
        try:
            return Completion(selected, await self._tier.open(selected.found.stored), asked, wanted)
        except StoreError:
            return None

    def complete(self, completion: Completion, response: StoredResponse) -> Completed | None:
        """What a 206 makes whole together with what is stored; None if it doesn't.

        `response` is the 206 as it would be stored for itself. What is stored was valid when the
        completion was made, which is after `response.position`, and its selectors don't change: so
        that position is the older one of the two.
        """
        stored, wanted = completion.selected.found.stored, completion.wanted
        both = self._combined(stored, completion.selected.parts, response)
        if both is None:
            return None
        response, parts, pieces = both
        if wanted is None:
            return Completed(_whole(response), parts.size, pieces) if parts.whole else None
        chosen = cut_out(parts, pieces, wanted)
        if chosen is None:
            return None
        return Completed(_with_parts(response, Parts((wanted,), parts.length)), wanted.size, chosen)

    def _combined(
        self, stored: StoredResponse, parts: Parts, response: StoredResponse
    ) -> tuple[StoredResponse, Parts, tuple[Piece, ...]] | None:
        """A response combined with a stored one; its times and position are those of the former."""
        fields, new = Fields(response.fields), stated_parts(Fields(response.fields))
        old = Fields(stored.fields)
        if (
            new is None
            or len(new.ranges) != 1
            or stored.selecting != response.selecting
            # A purge by a tag that only one of them has would say something of that one alone.
            or stored.tags != response.tags
            or not same_representation(old, fields)
        ):
            return None
        both = combine(parts, new)
        if both is None:
            return None
        together, pieces = both
        joined = combined_fields(old, fields).plus(*together.content_ranges)
        return msgspec.structs.replace(response, fields=joined.raw), together, pieces

    # -- storing

    async def keep(
        self, response: StoredResponse, spool: Spool, policy: SitePolicy, *, cut: bool
    ) -> bool:
        """Store a 206, combined with what is stored already; `cut`: its content broke off.

        What can't be stored, the readers have all the same. False: so much is stored by now that
        the whole had better be fetched than one more part put to it.
        """
        fields = Fields(response.fields)
        stated = stated_parts(fields)
        part = None if stated is None else received_part(stated, spool.size, cut=cut)
        if part is None or (cut and strong_validator(fields) is None):
            return True
        response = _with_parts(response, part)
        lock = self._locks.setdefault(response.id, asyncio.Lock())
        try:
            async with lock:
                return await self._put(response, part, spool, policy)
        except StoreError as error:
            warn(log, error, "a part of %s is not stored: %s", response.url, error)
        return True

    async def _put(
        self, response: StoredResponse, part: Parts, spool: Spool, policy: SitePolicy
    ) -> bool:
        if any(_outdoes(row, response) for row in self._tier.lookup(response.primary)):
            return True
        self._view.catch_up()
        there = [each for each in self._valid(response.primary) if each[0].id == response.id]
        both = self._combined(*there[0], response) if there else None
        if both is None:
            await self._write(response, part, spool, policy)
            return True
        combined, parts, pieces = both
        most = self._tier.max_object_bytes
        if parts.size > min(most, max(_SMALL, _SHARE * part.size)):
            return parts.length is None or parts.length > most
        stored, body = there[0][0], self._tier.spool()
        try:
            read = await self._tier.open(stored)
            for piece in pieces:
                source = _read_spool(spool, piece) if piece.new else read(piece.start, piece.stop)
                async for chunk in source:
                    await body.append(chunk)
            await self._write(combined, parts, body, policy)
        finally:
            await body.close()
        return True

    async def _write(
        self, response: StoredResponse, parts: Parts, body: Spool, policy: SitePolicy
    ) -> None:
        if parts.whole:
            response = _whole(response)
        stored = await self._tier.put(
            response,
            body,
            self._view.admit,
            # What is incomplete takes no whole response's place.
            max_variants=2 * policy.max_variants,
            max_busters=policy.max_busters,
        )
        if stored is not None and parts.whole:
            await self.superseded(stored)

    async def superseded(self, whole: StoredResponse) -> None:
        """Remove the incomplete response that a whole one makes useless."""
        row_id = whole.primary + _variant(whole)
        if any(row.id == row_id for row in self._tier.lookup(whole.primary)):
            await self._tier.delete([row_id])


def as_incomplete(response: StoredResponse, length: int | None, size: int) -> StoredResponse | None:
    """The first `size` bytes of a 200 of that length as an incomplete response; of a 206, itself.

    None where there is nothing to store.
    """
    if response.incomplete:
        return response
    if response.status != 200 or not size:
        return None
    part = Parts((ByteRange(0, size - 1),), length)
    return _with_parts(msgspec.structs.replace(response, status=206, reason=b""), part)


def as_part(response: StoredResponse) -> StoredResponse | None:
    """A 206 as it is stored; None where what its content is can't be told."""
    stated = stated_parts(Fields(response.fields))
    if stated is None or len(stated.ranges) != 1:
        return None
    return _with_parts(response, stated)


def _with_parts(response: StoredResponse, parts: Parts) -> StoredResponse:
    fields = without_message_fields(Fields(response.fields))
    return msgspec.structs.replace(
        response, variant=_variant(response), fields=fields.plus(*parts.content_ranges).raw
    )


def _whole(response: StoredResponse) -> StoredResponse:
    """RFC 9110 15.3.7.3: parts that are all of it together are a complete 200."""
    return msgspec.structs.replace(
        response,
        status=200,
        reason=b"OK",
        variant=variant_id(response.selecting),
        fields=Fields(response.fields).without({b"content-range"}).raw,
    )


def _variant(response: StoredResponse) -> bytes:
    # No field's name is empty, so no whole response has this variant.
    return variant_id((*response.selecting, (b"", b"partial")))


def _outdoes(row: StoredResponse, part: StoredResponse) -> bool:
    """Whether a whole response has come that is newer than the part."""
    return (
        not row.incomplete
        and row.selecting == part.selecting
        and row.position >= part.position
        and row.response_time >= part.request_time
    )


async def pour(
    completion: Completion, completed: Completed, origin: OriginResponse, flight: Flight
) -> None:
    """All of a completed content into the flight, the last of it held back until that lands.

    Raises `OriginProtocolError` where the origin's part is not as long as it said.
    """
    done = 0
    for piece in completed.pieces:
        size = piece.stop - piece.start
        source = (
            _from_origin(origin, size) if piece.new else (completion.read(piece.start, piece.stop))
        )
        async for chunk in source:
            done += len(chunk)
            if not await flight.append(chunk, hold_back=done == completed.length):
                raise Unkept


async def _from_origin(origin: OriginResponse, size: int) -> AsyncIterator[bytes]:
    while chunk := await origin.read_chunk():
        size -= len(chunk)
        if size < 0:
            break
        yield chunk
    if size:
        raise OriginProtocolError("the origin's content is not the range that it says")


async def _read_spool(spool: Spool, piece: Piece) -> AsyncIterator[bytes]:
    at = piece.start
    while at < piece.stop:
        chunk = await spool.read(at, min(256 * 1024, piece.stop - at))
        at += len(chunk)
        yield chunk
