"""A raw HTTP/1.1 client: sends the bytes it is given, and reads answers strictly."""

import asyncio
import contextlib
import json
import re
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from .wire import (
    HEAD_LIMIT,
    BodyReader,
    Head,
    MalformedMessage,
    MessageCut,
    Pair,
    read_head,
    response_framing,
)

FieldsLike = Iterable[tuple[str | bytes, str | bytes]] | dict[str, str]

_STATUS_LINE = re.compile(rb"HTTP/(1\.[01]) ([1-5][0-9]{2}) ([\t \x21-\x7e\x80-\xff]*)")
_CACHE_STATUS_PARAMETER = re.compile(r';\s*([a-z-]+)(?:=("(?:[^"\\]|\\.)*"|[^;\s]+))?')


def encode_fields(fields: FieldsLike) -> list[Pair]:
    """Field pairs as bytes; text is Latin-1."""
    pairs = fields.items() if isinstance(fields, dict) else fields
    return [(_bytes(name), _bytes(value)) for name, value in pairs]


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


@dataclass(frozen=True)
class Response:
    """A whole response."""

    version: str
    status: int
    reason: str
    head: Head
    body: bytes
    interims: tuple[Head, ...]
    trailers: tuple[Pair, ...]

    def field(self, name: str) -> str | None:
        """The field's combined value, None when absent."""
        return self.head.field(name)

    def lines(self, name: str) -> list[str]:
        """The values of all lines of that field."""
        return self.head.lines(name)

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def cache_status(self) -> dict[str, str | bool]:
        """The parameters of the last member of Cache-Status (RFC 9211), the nearest cache's.

        Bare parameters are True, strings without their quotes, all else as written.
        """
        value = self.field("cache-status")
        assert value is not None, f"no Cache-Status in {self.head.raw!r}"
        member = re.split(r',\s*(?=(?:[^"]*"[^"]*")*[^"]*$)', value)[-1]
        parameters: dict[str, str | bool] = {}
        for match in _CACHE_STATUS_PARAMETER.finditer(member):
            parameters[match[1]] = True if match[2] is None else match[2].strip('"')
        return parameters


class StreamedResponse:
    """A response whose head is there and whose body is still coming."""

    def __init__(
        self,
        version: str,
        status: int,
        reason: str,
        head: Head,
        interims: tuple[Head, ...],
        body: BodyReader,
    ) -> None:
        self.version = version
        self.status = status
        self.reason = reason
        self.head = head
        self.interims = interims
        self._body = body

    def field(self, name: str) -> str | None:
        """The field's combined value, None when absent."""
        return self.head.field(name)

    async def read(self, at_most: int | None = None) -> bytes:
        """The rest of the body, or what has come by the time that many bytes are there."""
        return await self._body.read(at_most)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes; for bodies too large to hold."""
        while piece := await self._body.read_piece():
            yield piece

    async def whole(self) -> Response:
        """Read to the end. Raises `MessageCut` if the body was cut."""
        body = await self.read()
        return Response(
            self.version,
            self.status,
            self.reason,
            self.head,
            body,
            self.interims,
            self._body.trailers,
        )


class Connection:
    """One connection to a server, kept alive until it is closed."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.authority = authority
        self._asked: deque[str] = deque()

    @classmethod
    async def open(
        cls, url: str, *, tls: ssl.SSLContext | None = None, server_name: str | None = None
    ) -> Self:
        """Connect to the URL's host and port; `tls` is needed for https."""
        parts = urlsplit(url)
        assert parts.hostname is not None, url
        assert (parts.scheme == "https") == (tls is not None), "https takes a context, http none"
        reader, writer = await asyncio.open_connection(
            parts.hostname,
            parts.port or (443 if tls else 80),
            ssl=tls,
            server_hostname=(server_name or parts.hostname) if tls else None,
            limit=HEAD_LIMIT,
        )
        return cls(reader, writer, server_name or parts.netloc)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close, whatever the peer has done."""
        self.writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Break the connection off with a reset: an end alone may be of one direction."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        """Send these bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def request(
        self, method: str, target: str, fields: FieldsLike = (), body: bytes | None = None
    ) -> None:
        """Send a request; Host and Content-Length are added unless `fields` has them."""
        pairs = encode_fields(fields)
        names = {name.lower() for name, _ in pairs}
        if b"host" not in names:
            pairs.insert(0, (b"Host", self.authority.encode()))
        if body is not None and not names & {b"content-length", b"transfer-encoding"}:
            pairs.append((b"Content-Length", b"%d" % len(body)))
        head = b"".join(b"%b: %b\r\n" % pair for pair in pairs)
        self._asked.append(method)
        await self.send(
            b"%b %b HTTP/1.1\r\n%b\r\n" % (_bytes(method), _bytes(target), head) + (body or b"")
        )

    async def start_response(self, method: str | None = None) -> StreamedResponse:
        """Read up to the end of the final response's head.

        `method` is that of the request answered; by default the oldest `request` not yet answered,
        or GET where the request was sent as raw bytes.
        """
        asked = self._asked.popleft() if self._asked else "GET"
        interims: list[Head] = []
        while True:
            head = await read_head(self.reader)
            if head is None:
                raise MessageCut("before the response")
            match = _STATUS_LINE.fullmatch(head.start)
            if match is None:
                raise MalformedMessage(f"bad status line {head.start!r}")
            status = int(match[2])
            framing = response_framing(head, status, method or asked)
            if status >= 200 or status == 101:
                return StreamedResponse(
                    match[1].decode(),
                    status,
                    match[3].decode("latin-1"),
                    head,
                    tuple(interims),
                    BodyReader(self.reader, framing),
                )
            interims.append(head)

    async def response(self, method: str | None = None) -> Response:
        """Read a whole response. Raises `MessageCut` if its body was cut."""
        return await (await self.start_response(method)).whole()

    async def exchange(
        self, method: str, target: str, fields: FieldsLike = (), body: bytes | None = None
    ) -> Response:
        """A request and its response."""
        await self.request(method, target, fields, body)
        return await self.response()

    async def ended(self) -> Literal["closed", "reset"]:
        """Wait until the peer ends the connection; more bytes from it are an error."""
        try:
            data = await self.reader.read(PEEK)
        except ConnectionResetError:
            return "reset"
        if data:
            raise MalformedMessage(f"bytes instead of the end: {data!r}")
        return "closed"


PEEK = 4096


async def fetch(
    url: str,
    *,
    method: str = "GET",
    fields: FieldsLike = (),
    body: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> Response:
    """One request on a connection of its own. The target is the URL's, byte for byte."""
    authority = urlsplit(url).netloc
    target = url.partition("://")[2].removeprefix(authority)
    async with await Connection.open(url, tls=tls) as connection:
        return await connection.exchange(method, target or "/", fields, body)
