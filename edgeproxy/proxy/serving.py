"""From what is known to what a reader is sent: fields, conditions, ranges, bodies."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import structs

from edgeproxy.cache.errors import BodyMissing
from edgeproxy.cache.reading import StoredBody
from edgeproxy.proxy.pace import TLS_PIECE
from edgeproxy.proxy.rendering import OWN_FIELDS, stored_head, visible_fields, withheld_names
from edgeproxy.semantics.conditional import CONDITIONAL, not_modified, not_modified_fields
from edgeproxy.semantics.partial import satisfied_ranges, stated_parts
from edgeproxy.semantics.ranges import (
    Unsatisfiable,
    multipart_fields,
    multipart_ranges,
    partial_fields,
    requested_ranges,
    too_many_ranges,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from edgeproxy.cache.bodies import ReadBody
    from edgeproxy.cache.memory import Entry
    from edgeproxy.cache.store import SharedTier
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.proxy.collapsing import Flight, Shared
    from edgeproxy.proxy.exchange import Exchange
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.tally import Tally
    from edgeproxy.semantics.cache_status import CacheStatus
    from edgeproxy.semantics.fields import Fields
    from edgeproxy.semantics.ranges import ByteRange

# Fields that describe the content, which an error about the range does not have.
_CONTENT_FIELDS = frozenset(
    {b"content-type", b"content-encoding", b"content-language", b"etag", b"last-modified"}
)


@dataclass(frozen=True, slots=True)
class Representation:
    """A response that can answer many requests: whole, in part, or as "not modified"."""

    status: int
    reason: bytes
    fields: Fields
    """As the reader may see them, with the Age of this answer."""
    length: int | None
    """The body's, in bytes; None while it is still coming and has not said."""
    received: float
    open: Callable[[], Awaitable[ReadBody]]
    """Gives `read(start, stop)`: the body's bytes from `start` up to `stop` (its end)."""


class Serving:
    """Sends what is stored, or on its way in, to readers."""

    def __init__(
        self,
        tier: SharedTier,
        lookup: Lookup,
        clock: Callable[[], float],
        memory_object: int,
        tally: Tally,
    ) -> None:
        self._tier = tier
        self._lookup = lookup
        self._clock = clock
        self._memory_object = memory_object
        self._tally = tally

    async def send_stored(
        self, exchange: Exchange, request: EdgeRequest, found: Found, status: CacheStatus
    ) -> None:
        """Answer with a stored response.

        Raises `BodyMissing`, before anything was sent, if its body is gone.
        """
        stored, now = found.stored, self._clock()
        self._tier.touch(stored.id, now)
        age = int(found.freshness.age(now))
        pieces = exchange.incoming.secure and stored.body.length > TLS_PIECE
        if found.entry is not None and not pieces and _plain(request):
            exchange.send_ready(
                stored.status,
                self.rendered(found.entry, request.policy),
                age,
                found.entry.body,
                status,
            )
            return
        visible = visible_fields(found.fields, request.policy).without(OWN_FIELDS)

        async def opened() -> ReadBody:
            return await self._open(found, request.policy)

        representation = Representation(
            stored.status,
            stored.reason,
            visible.plus((b"Age", b"%d" % age)),
            stored.body.length,
            stored.response_time,
            opened,
        )
        if stored.incomplete:
            await self._send_part(exchange, request, found, representation, status)
        else:
            await _send(exchange, request, representation, status, self._tally)

    async def _send_part(
        self,
        exchange: Exchange,
        request: EdgeRequest,
        found: Found,
        stored: Representation,
        status: CacheStatus,
    ) -> None:
        """Answer a GET for ranges out of an incomplete response that has them (RFC 9111 3.3)."""
        parts = stated_parts(found.fields)
        ranges = None if parts is None else satisfied_ranges(request.fields, found.fields, parts)
        if parts is None or ranges is None or request.method != b"GET":
            raise BodyMissing("what is stored does not have what is asked for")
        if not_modified(request.fields, stored.status, stored.fields, stored.received):
            await _send_unchanged(exchange, stored.fields, status)
            return

        async def opened() -> ReadBody:
            read = await self._tier.open(found.stored)

            def read_at(start: int, stop: int | None) -> AsyncIterator[bytes]:
                # A range is within one part, and so in one piece in the body too.
                assert stop is not None
                begin = parts.offset(start)
                return read(begin, begin + stop - start)

            return read_at

        whole = replace(stored, length=parts.length, open=opened)
        await _send_ranges(exchange, request, whole, ranges, parts.length, status)

    def rendered(self, entry: Entry, policy: SitePolicy) -> bytes:
        """What all whole answers from `entry` begin with, rendered for the first of them."""
        if entry.head is not None:
            return entry.head
        head = stored_head(entry.stored, policy)
        self._lookup.keep_head(entry, head)
        return head

    async def _open(self, found: Found, policy: SitePolicy) -> ReadBody:
        if found.entry is not None:
            return _from_memory(found.entry.body)
        if found.stored.body.length > self._memory_object:
            return await self._tier.open(found.stored)
        body = await self._tier.read(found.stored)
        self._lookup.remember_by(policy, found, body)
        return _from_memory(body)

    async def send_flight(
        self,
        exchange: Exchange,
        request: EdgeRequest,
        flight: Flight,
        shared: Shared,
        status: CacheStatus,
        *,
        own: bool,
    ) -> None:
        """Answer with a response whose body is still coming in; `own`: the request caused it."""
        stored = shared.response
        found = shared.judged or self._lookup.judge(stored, request.policy, stored.position)
        fields = shared.own_fields if own and shared.own_fields is not None else found.fields
        withheld = withheld_names(request.policy)
        age = int(found.freshness.age(self._clock()))
        if age > 0 or b"age" in found.fields:
            # RFC 9111 5.1: what caches nearer to the origin have aged it, or the wait here.
            fields = fields.changed(OWN_FIELDS, (b"Age", b"%d" % age))
        if (body := flight.whole) is not None and _plain(request) and not stored.incomplete:
            exchange.send_whole(stored.status, fields, body, status, stored.reason, but=withheld)
            return
        fields = fields.without(withheld)

        async def opened() -> ReadBody:
            return flight.read

        await _send(
            exchange,
            request,
            Representation(
                stored.status,
                stored.reason,
                fields,
                shared.content_length,
                stored.response_time,
                opened,
            ),
            status,
            self._tally,
        )


def _plain(request: EdgeRequest) -> bool:
    """Whether the whole response answers it, whatever the response is."""
    return (
        request.method == b"GET"
        and b"range" not in request.fields
        and not any(name in request.fields for name in CONDITIONAL)
    )


async def _send(
    exchange: Exchange,
    request: EdgeRequest,
    whole: Representation,
    status: CacheStatus,
    tally: Tally,
) -> None:
    """Answer a GET or HEAD out of a representation, as its conditions and ranges ask."""
    fields, length = whole.fields, whole.length
    if not_modified(request.fields, whole.status, fields, whole.received):
        await _send_unchanged(exchange, fields, status)
        return
    head_only = request.method == b"HEAD"
    # RFC 9110 14.2: Range is defined for GET alone.
    if length is not None and not head_only and b"range" in request.fields:
        ranges = requested_ranges(request.fields, whole.status, fields, length)
        if isinstance(ranges, Unsatisfiable):
            await _send_unsatisfied(exchange, fields, ranges, status)
            return
        if ranges:
            await _send_ranges(exchange, request, whole, ranges, length, status)
            return
        if too_many_ranges(request.fields):
            tally.note("too-many-ranges")
            status = structs.replace(status, detail=status.detail or "too-many-ranges")
    read = None if head_only else await whole.open()
    await exchange.start(
        whole.status, fields, length, status, reason=whole.reason, head_only=head_only
    )
    if read is not None:
        await _send_body(exchange, read, 0, length)
    await exchange.finish()


async def _send_body(exchange: Exchange, read: ReadBody, start: int, stop: int | None) -> None:
    if isinstance(read, StoredBody) and stop is not None:
        start = await exchange.send_file(read, start, stop)
        if start == stop:
            return
    async for chunk in read(start, stop):
        await exchange.write(chunk)


async def _send_unchanged(exchange: Exchange, fields: Fields, status: CacheStatus) -> None:
    await exchange.start(304, not_modified_fields(fields), None, status, head_only=True)
    await exchange.finish()


async def _send_unsatisfied(
    exchange: Exchange, fields: Fields, ranges: Unsatisfiable, status: CacheStatus
) -> None:
    text = b"416 Range Not Satisfiable\n"
    fields = fields.without(_CONTENT_FIELDS).plus(
        (b"Content-Type", b"text/plain"), (b"Content-Range", ranges.content_range)
    )
    await exchange.start(416, fields, len(text), status)
    await exchange.write(text)
    await exchange.finish()


async def _send_ranges(
    exchange: Exchange,
    request: EdgeRequest,
    whole: Representation,
    ranges: tuple[ByteRange, ...],
    length: int | None,
    status: CacheStatus,
) -> None:
    read = await whole.open()
    if len(ranges) == 1:
        (only,) = ranges
        fields = partial_fields(request.fields, whole.fields, only, length)
        await exchange.start(206, fields, only.size, status)
        await _send_body(exchange, read, only.first, only.last + 1)
    else:
        boundary = secrets.token_hex(16).encode()
        multipart = multipart_ranges(whole.fields, ranges, length, boundary)
        fields = multipart_fields(request.fields, whole.fields, multipart)
        await exchange.start(206, fields, multipart.content_length, status)
        for head, part in multipart.parts:
            await exchange.write(head)
            await _send_body(exchange, read, part.first, part.last + 1)
        await exchange.write(multipart.tail)
    await exchange.finish()


def _from_memory(body: bytes) -> ReadBody:
    async def read(start: int, stop: int | None) -> AsyncIterator[bytes]:
        yield body if start == 0 and (stop is None or stop >= len(body)) else body[start:stop]

    return read
