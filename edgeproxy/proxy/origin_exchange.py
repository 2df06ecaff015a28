"""One request on one connection, up to the head of its final response."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from aiohttp import ClientError
from aiohttp.http_exceptions import HttpProcessingError

from edgeproxy.proxy.errors import OriginDisconnected, OriginProtocolError
from edgeproxy.proxy.origin_body import Upload
from edgeproxy.proxy.origins.failures import IDEMPOTENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp import StreamReader

    from edgeproxy.config.site import Timeouts
    from edgeproxy.proxy.origin_connections import Lease
    from edgeproxy.proxy.origin_head import ResponseHead
    from edgeproxy.semantics.fields import Fields

    OnInterim: TypeAlias = Callable[[int, bytes, Fields], Awaitable[None]]

REFUSALS: Final = 300
"""From this status on, the origin doesn't want the rest of the request's body."""
_TOO_IDLE: Final = 408
_PROCESSING: Final = 102
_MAX_EXTENSIONS: Final = 10
"""How often an origin may say that it is still at it (RFC 2518 10.1), and be waited for anew."""


class ClosedUnanswered(OriginDisconnected):
    """A connection that was kept from earlier ended, or failed, before it brought a response."""


class OriginRequest(msgspec.Struct, frozen=True):
    """A request, ready to go out."""

    method: bytes
    head: bytes
    body: AsyncIterator[bytes] | None
    length: int | None
    expects: bool
    """The body waits for 100 (Continue)."""
    upgrade: bool
    """101 is welcome."""
    on_interim: OnInterim | None

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent once more, as far as this side can know (RFC 9110 9.2.2)."""
        return self.body is None and self.method in IDEMPOTENT


class Answered(msgspec.Struct, frozen=True):
    """What has come: the head, the stream of the body, and what is still being sent."""

    head: ResponseHead
    payload: StreamReader | bytes
    """The stream of the body, or all of it."""
    upload: Upload | None


async def ask(lease: Lease, request: OriginRequest, timeouts: Timeouts) -> Answered:
    """Send the request and wait for the head. The lease stays the caller's, also when it fails."""
    protocol = lease.protocol
    transport = protocol.transport
    if transport is None or transport.is_closing():
        raise _disconnected(lease)
    protocol.begin(head_only=request.method == b"HEAD", plain=request.body is None)
    transport.write(request.head)
    if request.body is None:
        return Answered(*await _final(lease, request, None, timeouts.first_byte), None)
    upload = Upload(
        protocol,
        request.body,
        request.length,
        expects=request.expects,
        stall=timeouts.between_bytes,
        on_end=lease.body_over,
    )
    try:
        head, payload = await _final(lease, request, upload, timeouts.first_byte)
        if head.status >= REFUSALS:
            await upload.stop()
        else:
            upload.go_on()
    except BaseException as error:
        await upload.stop()
        if upload.failure is not None and isinstance(error, Exception):
            raise upload.failure from None
        raise
    return Answered(head, payload, upload)


async def _final(
    lease: Lease, request: OriginRequest, upload: Upload | None, first_byte: float
) -> tuple[ResponseHead, StreamReader | bytes]:
    protocol = lease.protocol
    clock = asyncio.get_running_loop().time
    continue_due = request.expects
    extensions = 0
    left, due = first_byte, None

    def start_waiting() -> None:
        # The origin's time runs from the request's last byte on. It is not used up while interim
        # responses are handed on, nor won back by them: else it could be silent for ever.
        nonlocal due
        if upload is None or upload.done:
            due = clock() + left
            protocol.expect_head_within(left, first_byte)

    if upload is not None:
        upload.when_done(start_waiting)
    try:
        while True:
            start_waiting()
            try:
                head, payload = await protocol.message()
            except HttpProcessingError as error:
                raise OriginProtocolError("the origin's response is not HTTP") from error
            except OriginProtocolError:
                if lease.reused and not protocol.answered and request.repeatable:
                    # What the origin had too much of in its last response: that was no answer.
                    raise ClosedUnanswered("the connection brought what nobody asked for") from None
                raise
            except (ClientError, OSError) as error:
                raise _disconnected(lease) from error
            if head.status == _TOO_IDLE and lease.reused and request.repeatable:
                # RFC 9110 15.5.9: said of a connection that nothing was sent over for too long.
                raise ClosedUnanswered("the origin gave the connection up")
            if head.status >= 200:
                return head, payload
            if due is not None:
                left = max(due - clock(), 0.0)
            if head.status == _PROCESSING and extensions < _MAX_EXTENSIONS:
                extensions += 1
                left = first_byte
            if head.status == 101:
                if request.upgrade and protocol.upgraded:
                    return head, payload
                raise OriginProtocolError("the origin switched protocols unasked")
            if head.status == 100 and continue_due and upload is not None:
                # Reading the body is what lets the client have its 100.
                continue_due = False
                upload.go_on()
            elif request.on_interim is not None:
                await request.on_interim(head.status, head.reason, head.fields)
    finally:
        if upload is not None:
            upload.when_done(None)


def _disconnected(lease: Lease) -> OriginDisconnected:
    text = "the origin closed the connection before it answered"
    if lease.reused and not lease.protocol.answered:
        return ClosedUnanswered(text)
    return OriginDisconnected(text)
