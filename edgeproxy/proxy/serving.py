"""From what is known to what a reader is sent: fields, conditions, ranges, bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.semantics.conditional import not_modified, not_modified_fields
from edgeproxy.semantics.ranges import (
    MultipartRanges,
    Unsatisfiable,
    content_range,
    requested_ranges,
    unsatisfied_range,
)
from edgeproxy.semantics.tags import without_tag_fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import TypeAlias

    from edgeproxy.cache.store import SharedTier
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.proxy.collapsing import Flight, Shared
    from edgeproxy.proxy.exchange import Exchange
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.semantics.cache_status import CacheStatus
    from edgeproxy.semantics.fields import Fields
    from edgeproxy.semantics.ranges import ByteRange

    ReadBody: TypeAlias = Callable[[int, int | None], AsyncIterator[bytes]]

# Made anew for each answer: the time in the cache, and the message's framing.
_OWN_FIELDS = frozenset({b"age", b"content-length"})


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
    read: ReadBody
    """`read(start, stop)`: the body's bytes from `start` up to `stop`."""


def visible_fields(fields: Fields, policy: SitePolicy) -> Fields:
    """The fields as readers may see them: without the origin's tags, unless debugging is on."""
    return fields if policy.debug_tags else without_tag_fields(fields, policy.tags)


class Serving:
    """Sends what is stored, or on its way in, to readers."""

    def __init__(
        self, tier: SharedTier, lookup: Lookup, clock: Callable[[], float], memory_object: int
    ) -> None:
        self._tier = tier
        self._lookup = lookup
        self._clock = clock
        self._memory_object = memory_object

    async def send_stored(self, exchange: Exchange, found: Found, status: CacheStatus) -> None:
        """Answer with a stored response. Raises BodyMissing, before anything was sent, if its
        body is gone; a body that is lost half-way breaks the connection off."""
        request = exchange.request
        assert request is not None
        stored = found.stored
        if found.entry is not None:
            read = _from_memory(found.entry.body)
        elif stored.body.length <= self._memory_object:
            body = await self._tier.read(stored)
            self._lookup.remember(found, body)
            read = _from_memory(body)
        else:
            read = await self._tier.open(stored)
        self._tier.touch(stored.id, self._clock())
        age = int(found.freshness.age(self._clock()))
        fields = visible_fields(found.fields, request.policy).without(_OWN_FIELDS).plus((b"Age", b"%d" % age))
        await _send(
            exchange,
            Representation(
                stored.status, stored.reason, fields, stored.body.length, stored.response_time, read
            ),
            status,
        )

    async def send_flight(
        self, exchange: Exchange, flight: Flight, shared: Shared, status: CacheStatus
    ) -> None:
        """Answer with a response whose body is still coming in."""
        request = exchange.request
        assert request is not None
        found = self._lookup.judge(shared.response, request.policy)
        fields = visible_fields(found.fields, request.policy).without(_OWN_FIELDS)
        age = int(found.freshness.age(self._clock()))
        if age > 0 or b"age" in found.fields:
            # RFC 9111 5.1: what the origin's own caches have aged, or this one's wait.
            fields = fields.plus((b"Age", b"%d" % age))
        stored = shared.response
        await _send(
            exchange,
            Representation(
                stored.status, stored.reason, fields, shared.content_length,
                stored.response_time, flight.read,
            ),
            status,
        )  # fmt: skip


async def _send(exchange: Exchange, representation: Representation, status: CacheStatus) -> None:
    """Answer a GET or HEAD out of a representation, as its conditions and ranges ask."""
    request = exchange.request
    assert request is not None
    code, fields, length = representation.status, representation.fields, representation.length
    if not_modified(request.fields, code, fields, representation.received):
        await exchange.start(304, not_modified_fields(fields), None, status, head_only=True)
        await exchange.finish()
        return
    # RFC 9110 14.2: Range is defined for GET alone.
    if length is not None and not exchange.head_only and b"range" in request.fields:
        ranges = requested_ranges(request.fields, code, fields, length)
        if isinstance(ranges, Unsatisfiable):
            await _send_unsatisfied(exchange, fields, length, status)
            return
        if ranges:
            await _send_ranges(exchange, representation, ranges, length, status)
            return
    await exchange.start(
        code, fields, length, status, reason=representation.reason, head_only=exchange.head_only
    )
    if not exchange.head_only:
        async for chunk in representation.read(0, length):
            await exchange.write(chunk)
    await exchange.finish()


async def _send_unsatisfied(
    exchange: Exchange, fields: Fields, length: int, status: CacheStatus
) -> None:
    text = b"416 Range Not Satisfiable\n"
    fields = fields.without({b"content-type", b"content-encoding", b"etag", b"last-modified"})
    fields = fields.plus(
        (b"Content-Type", b"text/plain"), (b"Content-Range", unsatisfied_range(length))
    )
    await exchange.start(416, fields, len(text), status)
    await exchange.write(text)
    await exchange.finish()


async def _send_ranges(
    exchange: Exchange,
    representation: Representation,
    ranges: tuple[ByteRange, ...],
    length: int,
    status: CacheStatus,
) -> None:
    fields, read = representation.fields, representation.read
    if len(ranges) == 1:
        (only,) = ranges
        fields = fields.plus((b"Content-Range", content_range(only, length)))
        await exchange.start(206, fields, only.size, status)
        async for chunk in read(only.first, only.last + 1):
            await exchange.write(chunk)
    else:
        parts = MultipartRanges.of(ranges, length, fields.get(b"content-type"))
        fields = fields.without({b"content-type"}).plus((b"Content-Type", parts.content_type))
        await exchange.start(206, fields, parts.content_length, status)
        for head, part in parts:
            await exchange.write(head)
            async for chunk in read(part.first, part.last + 1):
                await exchange.write(chunk)
        await exchange.write(parts.closing)
    await exchange.finish()


def _from_memory(body: bytes) -> ReadBody:
    async def read(start: int, stop: int | None) -> AsyncIterator[bytes]:
        yield body if start == 0 and (stop is None or stop >= len(body)) else body[start:stop]

    return read
