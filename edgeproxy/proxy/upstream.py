"""The client to one origin: sends a request as it is told to, and streams the answer back.

aiohttp gives the connections (pool, names, TLS) and the parser. The request's head is written here,
so that target and fields go out byte for byte, and nothing is added, repeated or followed: but for
an idempotent request without a body that met a connection which was just being closed, which is
sent again. The others are not sent over connections that may be.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import SocketTimeoutError
from aiohttp.http_exceptions import HttpProcessingError

from edgeproxy.proxy.errors import (
    OriginBodyCut,
    OriginDisconnected,
    OriginFailed,
    OriginProtocolError,
    OriginTimedOut,
)
from edgeproxy.proxy.origin_connections import Connections
from edgeproxy.proxy.origin_exchange import ClosedUnanswered, OriginRequest, ask
from edgeproxy.proxy.origin_head import request_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgeproxy.config.site import Origin, Pool, Timeouts
    from edgeproxy.proxy.origin_connections import Lease
    from edgeproxy.proxy.origin_exchange import Answered, OnInterim
    from edgeproxy.semantics.fields import Fields


class OriginResponse:
    """A response whose head has come. Read it to its end, or `release` or `abort` it."""

    def __init__(
        self,
        lease: Lease,
        answered: Answered,
        timeouts: Timeouts,
        deadline: float | None,
        *,
        lasting: bool,
    ) -> None:
        """`deadline`: when the whole must be over, by the loop's clock; `lasting`: whether the
        connection may be used again after it."""
        head = answered.head
        self.status = head.status
        self.reason = head.reason
        self.version = head.version
        self.fields = head.fields
        """As they came, those for the connection among them."""
        self.framed = head.framed
        """False: only the connection's close ends the body, so a cut one can't be told."""
        self.content_length = head.content_length
        """The declared length in bytes, None if there is none."""
        self._lease = lease
        self._upload = answered.upload
        self._aborted = False
        self._alarm: asyncio.TimerHandle | None = None
        payload = answered.payload
        # All that is left to read of a body that came whole; such a response needs no connection.
        self._rest: bytes | None = None
        if isinstance(payload, bytes):
            self._rest = payload
            lease.end(keep=lasting)
            return
        self._payload = payload
        # RFC 9112 6.3: a 204 has no body, and one that frames a body may well be followed by it.
        self._lasting = lasting and (self.status != 204 or not _frames_a_body(self.fields))
        self._timeouts = timeouts
        if self.status == 101:
            return
        self._payload.on_eof(self._is_over)
        if self._upload is not None and not self._upload.done:
            # As long as the request is on its way, the origin may well be silent.
            self._upload.when_done(self._expect_bytes)
        elif self.at_eof():
            self.release()
            return
        else:
            self._expect_bytes()
        if deadline is not None:
            self._alarm = asyncio.get_running_loop().call_at(deadline, self._too_late)

    def _is_over(self) -> None:
        # An origin that is done before it has the whole request may take the rest of that for the
        # next one. What it answers to it must not become the answer to somebody else.
        if self._upload is not None and not self._upload.complete:
            self._lasting = False

    def _expect_bytes(self) -> None:
        if self._lease.active:
            self._lease.protocol.expect_bytes_within(self._timeouts.between_bytes)

    def _too_late(self) -> None:
        if self._lease.active and self._timeouts.total is not None:
            self._lease.protocol.fail(OriginTimedOut("total", self._timeouts.total))

    def at_eof(self) -> bool:
        """Whether there is no byte to come, and none left to read."""
        if self._rest is not None:
            return not self._rest
        return not self._aborted and self._payload.at_eof()

    def take_whole(self) -> bytes | None:
        """All of the body, where it has come already and nothing of it is read; else None."""
        rest = self._rest
        if rest is not None:
            self._rest = b""
        return rest

    async def read_chunk(self) -> bytes:
        """What has come of the body, at least a byte; b"" at its end.

        Raises an `OriginFailed` for a body that is cut, late, or not HTTP, and what the request's
        body raised if that is still on its way.
        """
        if (rest := self.take_whole()) is not None:
            return rest
        if self._aborted:
            raise OriginBodyCut("the response was broken off")
        try:
            chunk = await self._payload.readany()
            if not chunk and self._upload is not None:
                await self._upload.finished()
        except asyncio.CancelledError:
            self.abort()
            raise
        except Exception as error:
            failure = self._failure(error)
            self.abort()
            if failure is error:
                raise
            raise failure from error
        if self._payload.at_eof() and (self._upload is None or self._upload.done):
            self.release()
        return chunk

    def _failure(self, error: Exception) -> Exception:
        if self._upload is not None and self._upload.failure is not None:
            return self._upload.failure
        match error:
            case OriginFailed():
                return error
            case SocketTimeoutError():
                return OriginTimedOut("between-bytes", self._timeouts.between_bytes)
            case HttpProcessingError():
                return OriginProtocolError("the origin's response has a body that is not HTTP")
        return OriginBodyCut("the origin's response ended before its body did")

    def release(self) -> None:
        """Give the connection back, or end it where something is left unread or unsent."""
        if not self._lease.active:
            return
        whole = self._upload is None or self._upload.complete
        self._end(keep=self._lasting and self.at_eof() and whole and self.status != 101)

    def abort(self) -> None:
        """End the connection at once."""
        if self._lease.active:
            self._aborted = True
            self._lease.protocol.fail(OriginBodyCut("the response was broken off"))
            self._end(keep=False)

    def upgrade(self) -> tuple[asyncio.Transport, bytes]:
        """After a 101: the transport, reading paused, and the bytes that came behind the response.

        Both are the caller's from now on. Raises `OriginDisconnected` if it is gone meanwhile.
        """
        taken = self._lease.protocol.take_transport() if self._lease.active else None
        self._end(keep=False)
        if taken is None:
            raise OriginDisconnected("the origin closed the connection after switching protocols")
        return taken

    def _end(self, *, keep: bool) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._upload is not None:
            self._upload.cancel()
        self._lease.end(keep=keep)


def _frames_a_body(fields: Fields) -> bool:
    return b"transfer-encoding" in fields or fields.get(b"content-length") not in (None, b"0")


class OriginClient:
    """Sends requests to one origin. Make it inside a running loop."""

    def __init__(self, origin: Origin, timeouts: Timeouts, pool: Pool) -> None:
        self._connections = Connections(origin, timeouts, pool)
        self._timeouts = timeouts
        self._reuse_for_bodies = pool.reuse_after_body

    async def send(
        self,
        method: bytes,
        target: bytes,
        fields: Fields,
        body: AsyncIterator[bytes] | None = None,
        length: int | None = None,
        *,
        on_interim: OnInterim | None = None,
        upgrade: bool = False,
        deadline: float | None = None,
    ) -> OriginResponse:
        """Send a request, and give its response as soon as the head has come.

        The fields go out as they are, but for those that frame the body: it has `length` bytes, or
        as many as come where that is None. `on_interim` is awaited for each 1xx response, but for
        the 100 that `expect` asks for: whoever sends the body is told by its being read. `upgrade`:
        a 101 is welcome. `deadline`: when the whole must be over by the loop's clock, where that is
        not `timeouts.total` from now on.

        A final response may come while the body is still on its way. If it refuses (300 and above),
        no more is sent; if not, both go on side by side.

        Raises an `OriginFailed`, or `BadRequest` for what can't be sent; and as they are, whatever
        `body` and `on_interim` raise.
        """
        framing = None
        if length is not None:
            framing = (b"Content-Length", b"%d" % (0 if body is None else length))
        elif body is not None:
            framing = (b"Transfer-Encoding", b"chunked")
        request = OriginRequest(
            method=method,
            head=request_head(method, target, fields, framing),
            body=body,
            length=length,
            expects=body is not None and fields.get(b"expect") is not None,
            upgrade=upgrade,
            on_interim=on_interim,
        )
        total = self._timeouts.total
        if total is None:
            return await self._send(request, None)
        if deadline is None:
            deadline = asyncio.get_running_loop().time() + total
        try:
            async with asyncio.timeout_at(deadline) as whole:
                return await self._send(request, deadline)
        except TimeoutError as error:
            if not whole.expired():
                raise
            raise OriginTimedOut("total", total) from error

    async def _send(self, request: OriginRequest, deadline: float | None) -> OriginResponse:
        try:
            return await self._exchange(request, deadline, new=False)
        except ClosedUnanswered:
            if not request.repeatable:
                raise
        # The others that were kept are as old, and likely as dead.
        self._connections.drop_idle()
        return await self._exchange(request, deadline, new=True)

    async def _exchange(
        self, request: OriginRequest, deadline: float | None, *, new: bool
    ) -> OriginResponse:
        """`new`: not over a connection that was kept."""
        upload = request.body is not None
        lease = self._connections.lease_kept() if request.repeatable and not new else None
        if lease is None:
            kept = not new and (request.repeatable or (upload and self._reuse_for_bodies))
            lease = await self._connections.lease(upload=upload, kept=kept)
        try:
            answered = await ask(lease, request, self._timeouts)
        except BaseException:
            lease.end(keep=False)
            raise
        # An origin that was asked for another protocol and answers otherwise may still go over to
        # it, or think that the edge has.
        lasting = not request.upgrade
        return OriginResponse(lease, answered, self._timeouts, deadline, lasting=lasting)

    @property
    def load(self) -> int:
        """Requests that are under way, or wait for a connection."""
        return self._connections.load

    def retire(self) -> None:
        """Keep no connections from now on: no more requests are to come."""
        self._connections.retire()

    async def close(self) -> None:
        """Close all connections, those in use too."""
        await self._connections.close()
