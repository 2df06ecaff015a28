"""One reader's connection: requests in, one at a time, within limits of size and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from aiohttp.streams import EMPTY_PAYLOAD

from edgeproxy.proxy.framing import HEAD_END, check_beginning, too_large, without_empty_lines
from edgeproxy.proxy.lingering import Lingering
from edgeproxy.proxy.pace import TLS_PIECE
from edgeproxy.proxy.parsing import parse_head
from edgeproxy.proxy.refused import Refused
from edgeproxy.proxy.timed import TimedProtocol

if TYPE_CHECKING:
    import asyncio

    from aiohttp import StreamReader, web

    from edgeproxy.proxy.deciding import Unanswered
    from edgeproxy.proxy.fast import FastPath, Peers
    from edgeproxy.proxy.parsing import ArrivingBody
    from edgeproxy.proxy.server import EdgeServer

FRESH_GRACE: Final = 1.0
"""Seconds that a connection that waits for a request has to send one when the edge drains."""


class EdgeProtocol(TimedProtocol):
    """aiohttp's connection handler, with the reading side made strict.

    The bytes of one request at a time go to the parser; the next one waits until the answer is
    sent. So a limit holds for each head, a malformed request does not take the one before it
    along, and what the parser takes for the end of a message is checked.
    """

    __slots__ = (
        "_body", "_broken", "_fast", "_given_away", "_lingering", "_no_more", "_payload", "_peers",
        "_pending", "continue_due", "room",
    )  # fmt: skip

    def __init__(self, server: EdgeServer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop)
        self.continue_due = False
        """The client waits for 100 Continue before it sends the body (RFC 9110 10.1.1)."""
        self.room: asyncio.Future[None] | None = None
        """Somebody waits until the socket takes more, or is gone."""
        # The rest of the request's body; None once it has all come in.
        self._body: ArrivingBody | None = None
        self._payload: StreamReader = EMPTY_PAYLOAD
        # The request's body is not what it says: nothing behind it can be read.
        self._broken = False
        # An unfinished head, or what came in behind a request that is being answered.
        self._pending = b""
        self._given_away = False
        # The client has ended its direction, and waits for the answers to what it has asked.
        self._no_more = False
        self._lingering: Lingering | None = None
        self._fast = server.fast
        self._peers: Peers | None = None

    # -- what the writer needs

    @property
    def may_continue(self) -> bool:
        """Whether another request can follow the one that is being answered.

        Not while its body is still coming: reading that to its end only to reuse the connection
        would let the client decide how long.
        """
        closing = self._close or self._force_close or self._broken or self._server.draining
        return self._body is None and not closing

    def send_continue(self) -> None:
        """Send 100 Continue."""
        self.continue_due = False
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def found_room(self) -> None:
        """Wake who waits for `room`."""
        if self.room is not None and not self.room.done():
            self.room.set_result(None)

    def take_over(self) -> tuple[asyncio.Transport, bytes]:
        """Give the transport away: what the client has sent already comes with it, and it is not
        read from until its new owner does. Raises ConnectionError."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._given_away = True
        self._pause_transport_reading()
        unread, self._pending = self._pending, b""
        return transport, unread

    def answered(self) -> None:
        """Called when a handler is done; its new owner has closed a transport given away."""
        if self._given_away:
            self.connection_lost(None)

    # -- draining

    def begin_drain(self) -> None:
        """Its next answer says that it will be closed. If it idles, its client may be about to ask,
        and know of no end yet: it is closed unless it does so soon."""
        if not (self._busy or self._force_close or self._pending):
            self._await_first(FRESH_GRACE)

    def close_idle(self) -> bool:
        """Close the connection if it has had an answer and waits for nothing; whether it did."""
        busy = self._busy or self._force_close or self._pending or self._given_away
        if busy or not self._request_count or self._unsent_bytes():
            return False
        self._end(idle=True)
        return True

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if transport.get_extra_info("sslcontext") is not None:
            # By itself it keeps half a megabyte for each client that does not read.
            cast("asyncio.Transport", transport).set_write_buffer_limits(TLS_PIECE)
        self._await_first(self._server.patience)

    def continue_after(self, *, answered: bool, head_within: float) -> None:
        """Go on with a connection that is not new: whether it had an answer, and how many seconds
        the client has left for the next request's head."""
        self._request_count = int(answered)
        self._await_first(head_within)

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self._payload.is_eof():
            self._payload.set_exception(ConnectionResetError("the client is gone"))
        if self._lingering is not None:
            self._lingering.cancel()
        self.found_room()
        super().connection_lost(exc)

    # A full body buffer holds the transport alone: the parser has always read all it was given.

    def pause_reading(self) -> None:
        self._reading_paused = True
        self._pause_transport_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: ARG002
        if self._reading_paused:
            self._reading_paused = False
            if not self._buffer_paused:
                self._resume_transport_reading()

    def _resume_reading_if_drained(self) -> None:
        # What is held back waits for the end of the answer, not for the start of it.
        return

    def data_received(self, data: bytes) -> None:
        if self._body is not None and not self._broken:
            data = self._feed_body(self._body, data)
        if self._force_close or self._close or self._broken or not data:
            return
        if not self._busy:
            if self._fast is not None and self._idles:
                data = self._answer_fast(self._fast, data)
                if (known := self._fast.unanswered) is not None:
                    self.take_up(known, data)
                    return
            if data:
                self._read_requests(data)
            return
        self._pending += data
        if len(self._pending) > self.limits.head_bytes and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client may have ended its direction alone: whatever it has asked is answered. Of TLS
        the event loop closes both directions, whatever is asked of it."""
        transport = self.transport
        self._no_more = self._busy and self._body is None
        return self._no_more and transport is not None and transport.can_write_eof()

    def take_up(self, known: Unanswered, data: bytes) -> None:
        """Answer a request that the fast path has read, at the beginning of `data`."""
        self._pending = data[known.size :]
        self._begin()
        self._server.answer(self, known)

    @property
    def _idles(self) -> bool:
        """Nothing is being read, answered, or waiting to be sent."""
        halfway = self._pending or self._body is not None or self._paused
        return not (halfway or self._server.draining or self._lingering is not None)

    def _answer_fast(self, fast: FastPath, data: bytes) -> bytes:
        transport = self.transport
        assert transport is not None
        if self._peers is None:
            self._peers = fast.peers_of(transport)
        rest = fast.answer(transport, self._peers, data)
        if rest is None:
            self._end()
            return b""
        if len(rest) < len(data):
            self._request_count += 1
            self._may_idle()
            self._unsent = None
        return rest

    # -- reading

    def _read_requests(self, data: bytes) -> None:
        data = self._pending + data
        if data.startswith(b"\r"):
            data = without_empty_lines(data)
        self._pending = data
        if data in (b"", b"\r"):
            return
        limit = self.limits.head_bytes
        end = data.find(HEAD_END)
        try:
            if (end if end >= 0 else len(data)) + len(HEAD_END) > limit:
                raise too_large(data, limit)
            if end < 0:
                check_beginning(data)
                self._expect_head_end()
                return
            end += len(HEAD_END)
            self._accept(data[:end])
        except Refused as refused:
            self._refuse(refused)
            return
        self._pending = b""
        if len(data) > end:
            self.data_received(data[end:])

    def _accept(self, raw: bytes) -> None:
        """Parse a whole head and wake the handler. Raises `Refused`."""
        assert self._parser is not None
        message, payload, self._body, expects = parse_head(self._parser, raw, self.limits)
        self._payload = payload
        self._begin()
        self.continue_due = expects and self._body is not None
        self._messages.append((message, payload))
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _begin(self) -> None:
        self._busy = True
        if self._keepalive_handle is not None and (not self._request_count or self._head_deadline):
            # It was set for the head, and may be later than the connection may idle.
            self._disarm()
        self._head_deadline = None
        self._request_count += 1

    def _feed_body(self, body: ArrivingBody, data: bytes) -> bytes:
        """Give the body what belongs to it; what is left comes behind it."""
        used = body.feed(data)
        # Not `_close`: aiohttp would not even answer this request, if the one before it has just
        # been answered.
        self._broken = body.broken
        if body.over:
            self._body = None
        return data[used:]

    # -- between an answer and the next request

    async def finish_response(
        self,
        request: web.BaseRequest,  # noqa: ARG002
        resp: web.StreamResponse,
        start_time: float | None,  # noqa: ARG002
    ) -> tuple[web.StreamResponse, bool]:
        """Go on to the next request, or end the connection; the answer has been written."""
        try:
            await self.drain()
        except ConnectionError:
            return resp, True
        if self._parser is not None:
            # A request that asked for an upgrade and got none is like any other.
            self._parser.set_upgraded(False)
        self._payload = EMPTY_PAYLOAD
        self._end_answer(keep_alive=bool(resp.keep_alive))
        return resp, False

    async def conclude(self, *, keep_alive: bool) -> None:
        """The same after the answer to a request that was taken up."""
        if self._paused:
            try:
                await self.drain()
            except ConnectionError:
                return
        if self._force_close:
            return
        self._may_idle()
        if self._keepalive_handle is None:
            self._arm(self._next_keepalive_close_time)
        self._end_answer(keep_alive=keep_alive)

    def _end_answer(self, *, keep_alive: bool) -> None:
        self._busy = False
        if not (keep_alive and self.may_continue):
            self._end()
            return
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        if self._pending:
            data, self._pending = self._pending, b""
            self.data_received(data)
        if self._no_more and not self._busy:
            self._end()

    # -- the end

    def _refuse(self, refused: Refused) -> None:
        if self.transport is None:
            return
        head_only = self._pending.startswith(b"HEAD ")
        self.transport.write(refused.render(self._server.clock(), head_only=head_only))
        self._server.note_refused(self.transport, self._pending, refused)
        self._end()

    def _end(self, *, idle: bool = False) -> None:
        # The edge's own direction; what still comes in is dropped, and the client has a little time
        # to close.
        self._force_close = True
        self._pending = b""
        self._body = None
        if self._waiter is not None:
            self._waiter.cancel()
        self._disarm()
        transport = self.transport
        if transport is None or transport.is_closing() or self._lingering is not None:
            return
        if (idle and not transport.get_write_buffer_size()) or not transport.can_write_eof():
            # TLS: close() sends its own last word, and waits for the client's.
            transport.close()
            return
        if self._no_more:
            transport.close()
        else:
            transport.write_eof()
        if self._reading_paused or self._buffer_paused:
            self._reading_paused = self._buffer_paused = False
            self._resume_transport_reading()
        self._lingering = Lingering(transport, self._loop, self._pace(), self.stalled)
