"""Answers as they go over the wire: the given fields byte for byte, and framing of the edge's own.

Nothing is added that was not asked for but what a message on this connection needs to end where it
should (RFC 9112 6, 9).
"""

from __future__ import annotations

from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from edgeproxy.proxy.pace import TLS_PIECE
from edgeproxy.proxy.sending_files import send_file

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from edgeproxy.cache.reading import StoredBody
    from edgeproxy.proxy.incoming import Incoming

# What belongs to one connection's message, and is made anew for the next (RFC 9110 7.6.1).
FRAMING: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
    }
)
_SWITCHING_FRAMING: Final = FRAMING - {b"upgrade"}

CLOSE: Final = b"Connection: close\r\n"
_KEEP: Final = b"Connection: keep-alive\r\n"
REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
# Up to here copying a body behind its head costs less than sending it apart.
JOIN_UP_TO: Final = 32 * 1024


class UnsafeField(ValueError):
    """A field bears CR, LF or NUL, which would end it early (RFC 9110 5.5). Nothing was sent."""


class Reply:
    """What a handler hands back to the server when it has written its answer itself."""

    __slots__ = ("keep_alive",)

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive


_KEPT: Final = Reply(keep_alive=True)
CLOSING: Final = Reply(keep_alive=False)


class _Body(Enum):
    """How the end of the body is told (RFC 9112 6.3)."""

    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()


def render_head(
    status: int,
    reason: bytes,
    fields: Iterable[tuple[bytes, bytes]],
    *,
    but: AbstractSet[bytes] = frozenset(),
) -> bytes:
    """A status line and field lines, without the empty line that ends a head.

    `but`: lower-case names of fields that are left out. Raises `UnsafeField`.
    """
    lines = [b"HTTP/1.1 %d %b" % (status, reason)]
    if but:
        lines += [b": ".join(pair) for pair in fields if pair[0].lower() not in but]
    else:
        lines += [b": ".join(pair) for pair in fields]
    lines.append(b"")
    head = b"\r\n".join(lines)
    ends = len(lines) - 1
    if head.count(b"\r") != ends or head.count(b"\n") != ends or b"\0" in head:
        raise UnsafeField("a field with CR, LF or NUL was not sent")
    return head


class ResponseWriter:
    """Writes the answer to one request.

    Whatever is sent raises ConnectionError when the client is gone, or has stopped reading for
    longer than it may.
    """

    __slots__ = (
        "_body", "_finished", "_head_only", "_http10", "_keep_alive", "_left", "_protocol",
        "bytes_sent", "head_sent",
    )  # fmt: skip

    def __init__(self, request: Incoming) -> None:
        self._protocol = request.protocol
        self._http10 = request.version == "1.0"
        self._head_only = request.head_only
        self._keep_alive = request.keep_alive
        self._body = _Body.NONE
        self._left = 0
        self._finished = False
        self.head_sent = False
        self.bytes_sent = 0
        """Bytes of the body that were sent."""

    @property
    def reply(self) -> Reply:
        """What the handler returns. An answer that was begun and not finished is broken off."""
        if self.head_sent and not self._finished:
            self.abort()
        kept = self._finished and self._keep_alive
        return _KEPT if kept else CLOSING

    def close_after(self) -> None:
        """End the connection after this answer."""
        self._keep_alive = False

    async def interim(
        self, status: int, reason: bytes, fields: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Send a 1xx response (RFC 9110 15.2), where this client can be sent one now.

        101 is no interim response.
        """
        if self._http10 or self.head_sent or status == 101:
            return
        transport = self._transport()
        if status == 100:
            # The client has what it waited for: the edge need not say so when it reads the body.
            self._protocol.continue_due = False
        transport.write(render_head(status, reason, fields, but=FRAMING) + b"\r\n")
        await self._protocol.drain()

    async def start(
        self,
        status: int,
        reason: bytes,
        fields: Iterable[tuple[bytes, bytes]],
        length: int | None,
        *,
        told: bytes = b"",
        head_only: bool = False,
    ) -> None:
        """Send the head. `length` is the body's, None if it is not known; framing fields in
        `fields` are left out. `told`: more lines, as they are. Raises `UnsafeField`.

        After a 101 the connection belongs to another protocol: see `take_over`.
        """
        transport = self._transport()
        transport.write(self._head(status, reason, fields, length, told, head_only=head_only))
        if self._protocol.writing_paused:
            await self._protocol.drain()

    def send_whole(
        self,
        status: int,
        reason: bytes,
        fields: Iterable[tuple[bytes, bytes]],
        body: bytes,
        *,
        told: bytes = b"",
        but: frozenset[bytes] = frozenset(),
    ) -> None:
        """Send a whole answer at once, as `start`, `write` and `finish` would, but for the fields
        of those lower-case names. Raises `UnsafeField`."""
        transport = self._transport()
        head = self._head(status, reason, fields, len(body), told, but, head_only=False)
        if self._body is _Body.NONE:
            body = b""
        if len(body) <= JOIN_UP_TO:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        self.bytes_sent = len(body)
        self._finished = True

    def _head(
        self,
        status: int,
        reason: bytes,
        fields: Iterable[tuple[bytes, bytes]],
        length: int | None,
        told: bytes,
        but: frozenset[bytes] = frozenset(),
        *,
        head_only: bool,
    ) -> bytes:
        dropped = _SWITCHING_FRAMING if status == 101 else FRAMING
        head = render_head(status, reason, fields, but=dropped | but if but else dropped)
        self._begun()
        head_only = head_only or self._head_only or status == 304
        framing = self._choose_framing(status, length, head_only=head_only)
        return b"%b%b%b%b\r\n" % (head, told, framing, self._connection(status))

    async def write(self, chunk: bytes) -> None:
        """Send a piece of the body; dropped where the answer has none."""
        if not chunk or self._body is _Body.NONE:
            return
        transport = self._transport()
        if len(chunk) > TLS_PIECE and transport.get_extra_info("sslcontext") is not None:
            for start in range(0, len(chunk), TLS_PIECE):
                await self.write(chunk[start : start + TLS_PIECE])
            return
        if self._body is _Body.LENGTH:
            if len(chunk) > self._left:
                self.abort()
                raise ValueError("a body is longer than was announced")
            self._left -= len(chunk)
        if self._body is _Body.CHUNKED:
            transport.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))
        else:
            transport.write(chunk)
        self.bytes_sent += len(chunk)
        if self._protocol.writing_paused:
            await self._protocol.drain()

    async def send_file(self, body: StoredBody, start: int, stop: int) -> int:
        """Send a stored body's bytes from `start` up to `stop` without reading them; gives where
        that had to end, as what follows can only be read and written."""
        if self._body is _Body.LENGTH and stop - start <= self._left:
            async for sent in send_file(self._protocol, body, start, stop):
                start += sent
                self._left -= sent
                self.bytes_sent += sent
        return start

    async def finish(self) -> None:
        """End the answer. A body shorter than announced breaks the connection off instead, and
        raises ConnectionAbortedError."""
        if self._body is _Body.CHUNKED and not self._finished:
            self._transport().write(b"0\r\n\r\n")
        elif self._body is _Body.LENGTH and self._left:
            self.abort()
            raise ConnectionAbortedError("a body is shorter than was announced")
        self._finished = True

    def send_ready(self, head: bytes, body: bytes) -> None:
        """Send a whole answer at once: `head` as `render_head` makes it, with its Content-Length,
        and the body, which a HEAD request is spared."""
        transport = self._transport()
        self._begun()
        head = b"%b%b\r\n" % (head, self._connection(200))
        if self._head_only:
            body = b""
        if len(body) <= JOIN_UP_TO:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        self.bytes_sent = len(body)
        self._finished = True

    def take_over(self) -> tuple[asyncio.Transport, bytes]:
        """The client's transport, for another protocol's bytes once the 101 is sent, and what the
        client has sent of them already. Reading is paused; whoever has the transport now closes it
        before the handler returns. Raises ConnectionError."""
        return self._protocol.take_over()

    def abort(self) -> None:
        """Break the connection off so that the client can tell: unsent bytes are dropped."""
        self._keep_alive = False
        self._protocol.abort()

    def _begun(self) -> None:
        if self.head_sent:
            raise RuntimeError("an answer was begun twice")
        self.head_sent = True
        self._protocol.continue_due = False
        if not self._protocol.may_continue:
            self._keep_alive = False

    def _transport(self) -> asyncio.Transport:
        transport = self._protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        return transport

    def _choose_framing(self, status: int, length: int | None, *, head_only: bool) -> bytes:
        if status < 200 or status == 204:
            # RFC 9110 8.6, RFC 9112 6.1: neither of the framing fields may be here.
            self._finished = status == 101
            return b""
        if head_only:
            return b"" if length is None else b"Content-Length: %d\r\n" % length
        if length is not None:
            self._body = _Body.LENGTH
            self._left = length
            return b"Content-Length: %d\r\n" % length
        if self._http10:
            self._body = _Body.UNTIL_CLOSE
            self._keep_alive = False
            return b""
        self._body = _Body.CHUNKED
        return b"Transfer-Encoding: chunked\r\n"

    def _connection(self, status: int) -> bytes:
        if status == 101:
            self._keep_alive = False
            return b"Connection: upgrade\r\n"
        if not self._keep_alive:
            return CLOSE
        return _KEEP if self._http10 else b""
