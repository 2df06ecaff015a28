"""A scripted origin: its answers are written in the test, its requests are kept as they came.

What it answers is a table from request target to a *reply*, which is one of

- an `Answer`: a well-formed response;
- a script: an iterable of steps, or an async one, done in order. `bytes` are sent as they are, an
  `asyncio.Event` is waited for, a number is a pause in seconds, `CLOSE` ends the connection with a
  FIN and `RESET` with an RST;
- a function of the `OriginRequest`, sync or async, that returns one of these.
"""

import asyncio
import inspect
import re
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self, TypeAlias

from .http import FieldsLike, encode_fields
from .wire import (
    HEAD_LIMIT,
    BodyReader,
    Head,
    MalformedMessage,
    MessageCut,
    read_head,
    request_framing,
)

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])")


class _End:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


CLOSE: Final = _End("CLOSE")
RESET: Final = _End("RESET")


class _Ended(Exception):
    """The script has ended the connection."""


@dataclass(frozen=True)
class Answer:
    """A well-formed response.

    `framing` is "length" (Content-Length), "chunked" (each of `chunks`, or the body, is a chunk) or
    "close" (HTTP/1.0 style, ended by the connection's end). With `hold`, it waits for that event
    before it sends anything; with `hold_body`, between head and body.
    """

    status: int = 200
    fields: FieldsLike = ()
    body: bytes = b""
    framing: str = "length"
    chunks: tuple[bytes, ...] = ()
    trailers: FieldsLike = ()
    hold: asyncio.Event | None = None
    hold_body: asyncio.Event | None = None

    def script(self, method: str) -> Iterable["Step"]:
        """The steps that send it to a request of that method."""
        pairs = encode_fields(self.fields)
        bodiless = self.status < 200 or self.status in (204, 304)
        chunks = self.chunks or ((self.body,) if self.body else ())
        if not bodiless:
            if self.framing == "length":
                pairs.append((b"Content-Length", b"%d" % sum(map(len, chunks))))
            elif self.framing == "chunked":
                pairs.append((b"Transfer-Encoding", b"chunked"))
            else:
                pairs.append((b"Connection", b"close"))
        lines = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
        if self.hold is not None:
            yield self.hold
        reason = HTTPStatus(self.status).phrase.encode()
        yield b"HTTP/1.1 %d %b\r\n%b\r\n" % (self.status, reason, lines)
        if self.hold_body is not None:
            yield self.hold_body
        if bodiless or method == "HEAD":
            return
        for chunk in chunks:
            yield b"%x\r\n%b\r\n" % (len(chunk), chunk) if self.framing == "chunked" else chunk
        if self.framing == "chunked":
            trailers = b"".join(b"%b: %b\r\n" % pair for pair in encode_fields(self.trailers))
            yield b"0\r\n" + trailers + b"\r\n"
        elif self.framing == "close":
            yield CLOSE


class OriginRequest:
    """A request as it came. `body` is what has been read of it: all, unless the route streams."""

    def __init__(self, head: Head, connection: int, reader: asyncio.StreamReader) -> None:
        match = _REQUEST_LINE.fullmatch(head.start)
        if match is None:
            raise MalformedMessage(f"bad request line {head.start!r}")
        self.method = match[1].decode()
        self.target = match[2].decode("latin-1")
        self.version = f"1.{match[3].decode()}"
        self.head = head
        self.connection = connection
        """Which of the origin's connections it came over, from 0."""
        self.body = b""
        self.content = BodyReader(reader, request_framing(head))
        """For streaming routes: `await content.read_piece()` until it gives b""."""
        self.reader = reader
        """The connection itself, for what comes after a 101."""

    def field(self, name: str) -> str | None:
        """The field's combined value, None when absent."""
        return self.head.field(name)

    def lines(self, name: str) -> list[str]:
        """The values of all lines of that field."""
        return self.head.lines(name)

    def __repr__(self) -> str:
        return f"<{self.method} {self.target}>"


Step: TypeAlias = "bytes | asyncio.Event | float | _End"
Plain: TypeAlias = "Answer | Iterable[Step] | AsyncIterable[Step]"
Reply: TypeAlias = "Plain | Callable[[OriginRequest], Plain | Awaitable[Plain]]"

NOT_FOUND = Answer(404, {"Cache-Control": "no-store"}, b"no such page at the scripted origin\n")


class ScriptedOrigin:
    """The server. Use it as an async context manager, or through the `origin` fixture."""

    def __init__(self, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[OriginRequest] = []
        self.counts: Counter[str] = Counter()
        """How many requests came for each target, of any method."""
        self.connections = 0
        """How many connections were ever accepted."""
        self.open_connections = 0
        self.complaints: list[str] = []
        """What was wrong with the requests, or with this test's own handlers."""
        self.port = port
        self._tls = tls
        self._routes: dict[str, tuple[Reply, bool]] = {}
        self._default: tuple[Reply, bool] = (NOT_FOUND, False)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Condition()

    @property
    def url(self) -> str:
        """Its base URL, without a slash at the end."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def authority(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    def route(self, target: str, reply: Reply, *, stream: bool = False) -> None:
        """Answer that target so from now on.

        With `stream`, the reply begins before the request's body is read, and reads it itself.
        """
        self._routes[target] = (reply, stream)

    def otherwise(self, reply: Reply, *, stream: bool = False) -> None:
        """Answer all targets so that have no route; 404 by default."""
        self._default = (reply, stream)

    def requests_for(self, target: str) -> list[OriginRequest]:
        """The requests that came for that target."""
        return [request for request in self.requests if request.target == target]

    async def seen(self, target: str, count: int = 1) -> OriginRequest:
        """Wait until that many requests for that target have come; the newest of them."""
        async with self._news:
            await self._news.wait_for(lambda: self.counts[target] >= count)
        return self.requests_for(target)[count - 1]

    async def quiet(self) -> None:
        """Wait until no connection is open."""
        async with self._news:
            await self._news.wait_for(lambda: self.open_connections == 0)

    async def complained(self, about: str) -> None:
        """Wait for a complaint that says `about`."""
        async with self._news:
            await self._news.wait_for(lambda: any(about in each for each in self.complaints))

    async def start(self) -> None:
        """Listen; again on the same port after `stop_listening`."""
        self._server = await asyncio.start_server(
            self._accept,
            "127.0.0.1",
            self.port,
            ssl=self._tls,
            limit=HEAD_LIMIT,
            reuse_port=bool(self.port),
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop_listening(self) -> None:
        """Refuse new connections, and reset those that are open: the origin is down."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop_listening()
        assert not self.complaints, self.complaints

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number, self.connections = self.connections, self.connections + 1
        self.open_connections += 1
        try:
            await self._converse(number, reader, writer)
        except (_Ended, ConnectionError):
            pass
        except asyncio.CancelledError:
            _reset(writer)
        except MessageCut as cut:
            # Whoever sent it may have been killed, which is nothing to complain of.
            if not cut.reset:
                self.complaints.append(f"connection {number}: {cut}")
        except MalformedMessage as error:
            self.complaints.append(f"connection {number}: {error}")
        except Exception as error:
            self.complaints.append(f"connection {number}: {error!r}")
        finally:
            writer.close()
            self._tasks.discard(task)
            self.open_connections -= 1
            async with self._news:
                self._news.notify_all()

    async def _converse(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while (head := await read_head(reader)) is not None:
            request = OriginRequest(head, number, reader)
            reply, stream = self._routes.get(request.target, self._default)
            if not stream:
                if request.field("expect") == "100-continue":
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.body = await request.content.read()
            self.requests.append(request)
            self.counts[request.target] += 1
            async with self._news:
                self._news.notify_all()
            await _play(await _resolve(reply, request), request, writer)
            if not request.content.done:
                return

    def __repr__(self) -> str:
        return f"<ScriptedOrigin {self.url}>"


async def _resolve(reply: Reply, request: OriginRequest) -> Plain:
    if not callable(reply):
        return reply
    plain = reply(request)
    return await plain if inspect.isawaitable(plain) else plain


async def _play(plain: Plain, request: OriginRequest, writer: asyncio.StreamWriter) -> None:
    if isinstance(plain, Answer):
        plain = plain.script(request.method)
    if isinstance(plain, AsyncIterable):
        async for step in plain:
            await _take(step, writer)
    else:
        for step in plain:
            await _take(step, writer)


async def _take(step: Step, writer: asyncio.StreamWriter) -> None:
    if isinstance(step, bytes):
        writer.write(step)
        await writer.drain()
    elif isinstance(step, asyncio.Event):
        await step.wait()
    elif isinstance(step, _End):
        if step is RESET:
            _reset(writer)
        raise _Ended
    else:
        await asyncio.sleep(step)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End with an RST: zero linger makes the kernel send one at close."""
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
