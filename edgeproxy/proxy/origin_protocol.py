"""A connection to an origin: aiohttp's parser and flow control, and what a proxy needs besides.

A response that comes in one piece needs neither of them; the parser is made for the first that does
not.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from aiohttp import TCPConnector, _http_parser
from aiohttp.client_proto import ResponseHandler

from edgeproxy.proxy.errors import OriginBodyCut, OriginProtocolError, OriginTimedOut
from edgeproxy.proxy.origin_head import ResponseHead, response_head
from edgeproxy.proxy.origin_names import NAMES
from edgeproxy.proxy.origin_whole import only_head, whole_response

if TYPE_CHECKING:
    import asyncio

    from aiohttp import StreamReader
    from aiohttp.abc import AbstractResolver
    from aiohttp.http_parser import RawResponseMessage

READ_BUFFER: Final = 65_536
"""Bytes of a body that wait here before reading pauses, give or take a factor of two."""
_MAX_HEAD: Final = 262_144
"""Most bytes before the end of the final response's head, interim responses included."""
# Sizes of chunks, their extensions and trailers are no more than the body makes up for, and as much
# as a head may be: `1\r\n` and `\r\n` for each byte.
_OVERHEAD: Final = 16
_MAX_FIELD: Final = 65_536
_MAX_FIELDS: Final = 500
_NEVER: Final = -1

# aiohttp reads responses leniently (bare LF, folded lines, blanks behind a chunk's size) unless it
# believes that it is being debugged. There is no other way to ask for strictness.
_http_parser.DEBUG = True  # type: ignore[attr-defined]


class OriginProtocol(ResponseHandler):
    """The protocol of one connection, over many exchanges."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.exchanges = 0
        """How many there were, the one under way included."""
        self.answered = False
        """Whether anything that could be a response has come since the exchange began."""
        self._head_bytes = _NEVER
        self._received = 0
        self._idle = True
        self._head_only = False
        self._plain = False
        self._whole = False
        # When the head has to be there, and what wakes this up to see whether it is.
        self._head_due: float | None = None
        self._head_seconds = 0.0
        self._head_timer: asyncio.TimerHandle | None = None

    def begin(self, *, head_only: bool, plain: bool) -> None:
        """Get ready for the response to one request; `head_only` where it can have no body.

        `plain`: the request has no body that might be on its way when the response comes.
        """
        self.exchanges += 1
        self.answered = False
        self._head_bytes = 0
        self._received = 0
        self._idle = False
        self._head_only = head_only
        self._plain = plain
        self._whole = False
        self._parser = None

    def _begin_parsing(self) -> None:
        self.set_response_params(
            skip_payload=self._head_only,
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            max_line_size=8190,
            max_field_size=_MAX_FIELD,
            max_headers=_MAX_FIELDS,
        )

    async def message(self) -> tuple[ResponseHead, StreamReader | bytes]:
        """The next response, interim or final, and its body: a stream, or all of it.

        Raises `OriginTimedOut` if it isn't there when `expect_head_within` said.
        """
        message: RawResponseMessage | ResponseHead
        message, payload = await self.read()
        self._head_due = None
        if isinstance(message, ResponseHead):
            return message, payload
        head = response_head(message, head_only=self._head_only)
        if head.status >= 200 or head.status == 101:
            self._head_bytes = _NEVER
        return head, payload

    def expect_head_within(self, seconds: float, patience: float) -> None:
        """Fail the exchange if no head, interim or final, comes for that long from now on.

        `patience`: what the origin had in all, to tell.
        """
        due = self._loop.time() + seconds
        self._head_due, self._head_seconds = due, patience
        timer = self._head_timer
        # One that is set for earlier looks again then: most exchanges need no timer of their own.
        if timer is None or timer.when() > due:
            if timer is not None:
                timer.cancel()
            self._head_timer = self._loop.call_at(due, self._look_for_head)

    def _look_for_head(self) -> None:
        self._head_timer = None
        if self._head_due is None or self._buffer:
            return
        if self._loop.time() < self._head_due:
            self._head_timer = self._loop.call_at(self._head_due, self._look_for_head)
        else:
            self.fail(OriginTimedOut("first-byte", self._head_seconds))

    def expect_bytes_within(self, seconds: float) -> None:
        """Fail the body if nothing comes for that long while somebody wants to read."""
        if self._payload is not None and not self._payload.is_eof():
            self.read_timeout = seconds
            self.start_timeout()

    def end(self) -> bool:
        """Note that the response was read to its end; whether the connection can serve another.

        It can't if there is more than that response: the next request's answer would be wrong.
        """
        self.read_timeout = None
        self._drop_timeout()
        self._head_due = None
        self._idle = True
        return self.is_connected() and not self.should_close and not self._in_a_message()

    def _in_a_message(self) -> bool:
        if self._whole:
            return False
        # The parser tells of a message that has begun only when it hears that nothing will follow.
        if self._parser is None:
            return True
        try:
            return self._parser.feed_eof() is not None
        except Exception:
            return True

    def take_transport(self) -> tuple[asyncio.Transport, bytes] | None:
        """Give the transport away after a 101, reading paused, with the bytes read beyond it."""
        transport, leftover = self.transport, self._tail
        if transport is None:
            return None
        self._drop_timeout()
        self._pause_transport_reading()
        self.transport = None
        self._tail = b""
        return transport, leftover

    async def drain(self) -> None:
        """Wait until the transport takes more; at once if the connection is gone."""
        if self.transport is not None:
            await self._drain_helper()

    def data_received(self, data: bytes) -> None:
        if self._idle:
            if data:
                # Nobody asked. Kept, it would be taken for the answer to the next request.
                self.force_close()
                self.abort()
            return
        if data and not self.answered:
            if not data.startswith(b"H"):
                # The parser passes over line ends before a status line (RFC 9112 2.2 has none).
                self.fail(OriginProtocolError("the origin's response is not HTTP"))
                return
            self.answered = True
            if len(head := only_head(data, head_only=self._head_only)) < len(data):
                self.force_close()
                data = head
            whole = whole_response(data, head_only=self._head_only) if self._plain else None
            if whole is not None:
                self._whole = True
                self._head_bytes = _NEVER
                self.feed_data(cast("tuple[RawResponseMessage, StreamReader]", whole), 0)
                return
            self._begin_parsing()
        super().data_received(data)
        self._received += len(data)
        payload = self._payload
        if payload is not None and not payload.is_eof():
            allowed = _MAX_HEAD + _OVERHEAD * payload.total_bytes
            if self._received - payload.total_bytes > allowed:
                self.fail(OriginProtocolError("the origin's response has more frame than body"))
                return
        if self._head_bytes != _NEVER:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD and not self._has_final():
                self.fail(OriginProtocolError("the origin's response has too long a head"))

    def _has_final(self) -> bool:
        return any(message.code >= 200 for (message, _), _ in self._buffer)

    def _take_last_words(self) -> None:
        """Read what an origin said before it went, where sending is what found that it is gone.

        One that refuses a body, and closes with that unread, resets the connection.
        """
        transport = self.transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            return
        try:
            data = os.read(transport.get_extra_info("socket").fileno(), READ_BUFFER)
        except OSError:
            return
        if data:
            self.data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None and not (self._idle or self.answered):
            self._take_last_words()
        payload = self._payload
        if exc is not None and payload is not None and not payload.is_eof():
            # Else a reset would pass for the end of a body that lasts until the close.
            payload.set_exception(exc)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        super().connection_lost(exc)

    def close(self) -> None:
        """Close the connection; whoever still reads is told."""
        self._cut()
        super().close()

    def abort(self) -> None:
        """Close the connection without sending what is left to send."""
        self._cut()
        super().abort()

    def _cut(self) -> None:
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(OriginBodyCut("the connection to the origin was closed"))

    def fail(self, error: BaseException) -> None:
        """End the exchange with an error, and the connection with it."""
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        # The head's reader and the body's are two, and either may be the one that waits.
        if self._exception is not None:
            return
        payload = self._payload
        if exc_cause is None:
            super().set_exception(exc)
        else:
            super().set_exception(exc, exc_cause)
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(exc)


class OriginConnector(TCPConnector):
    """aiohttp's connecting and TLS, for one origin. It keeps no connection."""

    def __init__(self, names: AbstractResolver = NAMES) -> None:
        super().__init__(limit=0, force_close=True, use_dns_cache=False, resolver=names)
        self._factory = cast("partial[ResponseHandler]", partial(OriginProtocol, loop=self._loop))
