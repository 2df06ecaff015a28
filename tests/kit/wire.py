"""HTTP/1.1 messages read strictly (RFC 9112): what a lenient parser lets pass must fail a test."""

import asyncio
import re
from dataclasses import dataclass
from typing import Literal

HEAD_LIMIT = 1 << 20
PIECE = 1 << 18

_FIELD_LINE = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[^\x00-\x08\x0a-\x1f\x7f])*?)[ \t]*"
)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[^\r\n]*)?\r\n")

Pair = tuple[bytes, bytes]


class MalformedMessage(Exception):
    """The peer's bytes are not an HTTP/1.1 message."""


class MessageCut(Exception):
    """The peer ended the connection in the middle of a message.

    `partial` is what had arrived of the body, `reset` tells a TCP reset from an early FIN.
    """

    def __init__(self, where: str, *, reset: bool = False) -> None:
        super().__init__(f"cut {where}" + (" by a reset" if reset else ""))
        self.reset = reset
        self.partial = b""


@dataclass(frozen=True)
class Head:
    """A start line and its field lines, as bytes, with easy access as text."""

    raw: bytes
    start: bytes
    pairs: tuple[Pair, ...]

    def lines(self, name: str) -> list[str]:
        """The values of all lines of that field, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.pairs if key.lower() == wanted]

    def field(self, name: str) -> str | None:
        """The field's combined value (RFC 9110, section 5.3), None when absent."""
        lines = self.lines(name)
        return ", ".join(lines) if lines else None


@dataclass(frozen=True)
class Framing:
    """How a body ends: it has none, a length, chunks, or it lasts until the connection closes."""

    kind: Literal["none", "length", "chunked", "close"]
    length: int = 0


def parse_head(raw: bytes) -> Head:
    """Read a message head, up to and with its empty line."""
    if not raw.endswith(b"\r\n\r\n"):
        raise MalformedMessage(f"head without an empty line: {raw[-40:]!r}")
    start, *lines = raw[:-4].split(b"\r\n")
    if b"\n" in start or b"\r" in start:
        raise MalformedMessage(f"bare CR or LF in {start!r}")
    pairs = []
    for line in lines:
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise MalformedMessage(f"bad field line {line!r}")
        pairs.append((match[1], match[2]))
    return Head(raw, start, tuple(pairs))


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next message's head, or None when the peer closed in good order between messages."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        cut = MessageCut(f"in the head: {error.partial!r}")
        raise cut from None
    except ConnectionResetError:
        raise MessageCut("before or in the head", reset=True) from None
    return parse_head(raw)


def _declared_framing(head: Head) -> Framing | None:
    codings = head.lines("transfer-encoding")
    lengths = head.lines("content-length")
    if codings and lengths:
        raise MalformedMessage("both Transfer-Encoding and Content-Length")
    if codings:
        if codings != ["chunked"]:
            raise MalformedMessage(f"Transfer-Encoding {codings}")
        return Framing("chunked")
    if lengths:
        if len(lengths) > 1 or not re.fullmatch("[0-9]+", lengths[0]):
            raise MalformedMessage(f"Content-Length {lengths}")
        return Framing("length", int(lengths[0]))
    return None


def request_framing(head: Head) -> Framing:
    """RFC 9112, section 6.3, for a request."""
    return _declared_framing(head) or Framing("none")


def response_framing(head: Head, status: int, method: str) -> Framing:
    """RFC 9112, section 6.3, for the response to a request of that method."""
    declared = _declared_framing(head)
    if status < 200 or status == 204:
        if declared is not None:
            raise MalformedMessage(f"a {status} with framing fields")  # RFC 9110, 8.6; 9112, 6.1
        return Framing("none")
    if method == "HEAD" or status == 304:
        return Framing("none")
    return declared or Framing("close")


class BodyReader:
    """One message's body, a piece at a time."""

    def __init__(self, reader: asyncio.StreamReader, framing: Framing) -> None:
        self._reader = reader
        self._framing = framing
        self._left = framing.length if framing.kind == "length" else 0
        self.trailers: tuple[Pair, ...] = ()
        self.done = framing.kind == "none" or (framing.kind == "length" and not framing.length)

    async def read_piece(self) -> bytes:
        """The next piece as it comes, b"" at the end of the body."""
        if self.done:
            return b""
        try:
            if self._framing.kind == "chunked":
                return await self._chunk_piece()
            limit = self._left if self._framing.kind == "length" else PIECE
            piece = await self._reader.read(min(limit, PIECE))
        except ConnectionResetError:
            raise MessageCut("in the body", reset=True) from None
        if self._framing.kind == "close":
            self.done = not piece
            return piece
        if not piece:
            raise MessageCut(f"in the body, {self._left} bytes early")
        self._left -= len(piece)
        self.done = not self._left
        return piece

    async def read(self, at_most: int | None = None) -> bytes:
        """The rest of the body, or as soon as that many bytes are there, what has come by then."""
        pieces: list[bytes] = []
        size = 0
        while at_most is None or size < at_most:
            try:
                piece = await self.read_piece()
            except MessageCut as cut:
                cut.partial = b"".join(pieces)
                raise
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    async def _line(self) -> bytes:
        try:
            return await self._reader.readuntil(b"\r\n")
        except asyncio.IncompleteReadError:
            raise MessageCut("between chunks") from None

    async def _chunk_piece(self) -> bytes:
        if not self._left:
            line = await self._line()
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise MalformedMessage(f"bad chunk line {line!r}")
            self._left = int(match[1], 16)
            if not self._left:
                await self._read_trailers()
                return b""
        piece = await self._reader.read(min(self._left, PIECE))
        if not piece:
            raise MessageCut(f"in a chunk, {self._left} bytes early")
        self._left -= len(piece)
        if not self._left and await self._line() != b"\r\n":
            raise MalformedMessage("a chunk longer than it said")
        return piece

    async def _read_trailers(self) -> None:
        lines = [b"trailers\r\n"]
        while (line := await self._line()) != b"\r\n":
            lines.append(line)
        self.trailers = parse_head(b"".join([*lines, b"\r\n"])).pairs
        self.done = True
