"""Where a request's head and body begin and end, before the parser reads them (RFC 9112 2-7).

The parser is fed one message at a time, so that what it takes for the end of a message can be held
against what is found here: two views of one message are what request smuggling lives on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from aiohttp import hdrs

from edgeproxy.proxy.refused import Refused
from edgeproxy.semantics.fields import decimal

if TYPE_CHECKING:
    from aiohttp.http import RawRequestMessage

HEAD_END: Final = b"\r\n\r\n"

# RFC 9112 3: method SP request-target SP HTTP-version. The target may be any visible byte here:
# what it means is read later, what of it the parser can't take is kept from it.
_REQUEST_LINE: Final = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e\x80-\xff]+) HTTP/([0-9])\.([0-9])\r\n"
)
_METHOD_START: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
# RFC 9112 2.2: what may stand before a request line.
_EMPTY_LINES: Final = re.compile(rb"\A(?:\r\n)+")
# An empty line after a line that ends in LF alone: no head of HTTP (RFC 9112 2.2), though some
# parsers take it for one.
_BARE_LF_END: Final = re.compile(rb"\n\r?\n")

# What the parser knows, and passes on as it is. Any other method (RFC 9110 9.1 has no closed list)
# goes through it under the name of one with the same framing.
_PARSED_METHODS: Final = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"}
)
_STAND_IN_METHOD: Final = b"POST"
_STAND_IN_TARGET: Final = b"/"

# CONNECT asks for a tunnel, and TRACE would send credentials back: neither is for an edge
# (RFC 9110 9.3.6, 9.3.8).
_REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})

# RFC 9112 7.1: chunk-size [ chunk-ext ] CRLF. The parser takes extensions that have no name, or an
# "=" with nothing behind it; blanks it doesn't take.
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_CHUNK_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:[ \t]*+;[ \t]*+%b(?:[ \t]*+=[ \t]*+(?:%b|%b))?+)*+\r\n"
    % (_TOKEN, _TOKEN, _QUOTED)
)
_MAX_CHUNK_LINE: Final = 4096
# RFC 9112 7.1.1: nobody reads extensions, so of all that a body's lines have beyond a plain size,
# there may be no more than its data makes up for, and so much.
_MAX_EXTENSIONS: Final = 16384
_PLAIN_LINE: Final = 16
_MAX_TRAILERS: Final = 16384
# The longest body that is ever taken: a number that no other's float or integer would round or cut.
_LONGEST_BODY: Final = 2**53


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A whole request head, in a form that the parser takes."""

    parsable: bytes
    method: str | None
    """The method, where `parsable` bears a stand-in."""
    target: str | None
    """The request target, where `parsable` bears a stand-in."""


def read_head(head: bytes, max_fields: int) -> RequestHead:
    """Check a head's request line. Raises `Refused` with 400, 405, 431 or 505."""
    match = _REQUEST_LINE.match(head)
    if match is None:
        raise Refused(400, "bad-request-line")
    method, target, major, minor = match.groups()
    if major != b"1" or minor not in (b"0", b"1"):
        raise Refused(505, "version-not-supported")
    if method in _REFUSED_METHODS:
        raise Refused(405, "method-not-allowed")
    # The request line and the empty one at the end are no fields.
    if head.count(b"\r\n") - 2 > max_fields:
        raise Refused(431, "too-many-fields")
    if method in _PARSED_METHODS and target.isascii():
        return RequestHead(head, None, None)
    known = method in _PARSED_METHODS
    parsable = b"%b %b%b" % (
        method if known else _STAND_IN_METHOD,
        target if target.isascii() else _STAND_IN_TARGET,
        head[match.end(2) :],
    )
    return RequestHead(
        parsable,
        None if known else method.decode(),
        None if target.isascii() else target.decode("utf-8", "surrogateescape"),
    )


def without_empty_lines(data: bytes) -> bytes:
    """What follows the empty lines before a request line (RFC 9112 2.2)."""
    return _EMPTY_LINES.sub(b"", data, count=1)


def check_beginning(beginning: bytes) -> None:
    """Raise `Refused` where an unfinished head can no longer become one."""
    if _METHOD_START.match(beginning) is None:
        raise Refused(400, "bad-request-line")
    if b"\n" in beginning:
        match = _REQUEST_LINE.match(beginning)
        if match is None:
            raise Refused(400, "bad-request-line")
        if match[3] != b"1" or match[4] not in (b"0", b"1"):
            raise Refused(505, "version-not-supported")
        if _BARE_LF_END.search(beginning) is not None:
            raise Refused(400, "bad-request")


def too_large(beginning: bytes, limit: int) -> Refused:
    """Why a head of more than `limit` bytes is refused: its target alone, or its fields."""
    if beginning.find(b"\r\n", 0, limit) < 0:
        return Refused(414, "target-too-long")
    return Refused(431, "head-too-large")


class BodyTooLarge(Refused):
    """A body is, or grows, longer than one may be."""

    def __init__(self) -> None:
        super().__init__(413, "body-too-large")


class LengthBody:
    """A body of a known length (RFC 9112 6.2)."""

    __slots__ = ("_left",)
    trailed: ClassVar[bool] = False

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def done(self) -> bool:
        return not self._left

    def take(self, data: bytes) -> int:
        """How many bytes of `data` belong to the body."""
        used = min(self._left, len(data))
        self._left -= used
        return used


class ChunkedBody:
    """Finds the end of a chunked body (RFC 9112 7.1); whether it is well-formed, the parser says.

    `take` raises `Refused` on lines and trailers that are longer than anybody needs, and
    `BodyTooLarge` as soon as a chunk is announced with which there are more than `most` bytes.
    """

    __slots__ = ("_extensions", "_left", "_line", "_room", "_trailers", "done", "trailed")

    def __init__(self, most: int = _LONGEST_BODY) -> None:
        self._left = 0
        self._room = most
        self._extensions = 0
        self._line = b""
        self._trailers: int | None = None
        self.done = False
        self.trailed = False
        """Fields have come behind the last chunk (RFC 9112 7.1.2)."""

    def take(self, data: bytes) -> int:
        """How many bytes of `data` belong to the body."""
        at = 0
        while at < len(data) and not self.done:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                continue
            stop = data.find(b"\n", at) + 1
            line = self._line + data[at : stop or len(data)]
            if len(line) > _MAX_CHUNK_LINE:
                raise Refused(400, "chunk-line-too-long")
            if not stop:
                self._line = line
                return len(data)
            self._line = b""
            self._read_line(line)
            at = stop
        return at

    def _read_line(self, line: bytes) -> None:
        if self._trailers is not None:
            self._trailers += len(line)
            if self._trailers > _MAX_TRAILERS:
                raise Refused(400, "trailers-too-large")
            self.done = line == b"\r\n"
            self.trailed = self.trailed or not self.done
            return
        match = _CHUNK_LINE.match(line)
        if match is None:
            raise Refused(400, "bad-chunk")
        size = int(match[1], 16)
        self._extensions = max(0, self._extensions + len(line) - _PLAIN_LINE - 2 * size)
        if self._extensions > _MAX_EXTENSIONS:
            raise Refused(400, "chunk-extensions-too-large")
        self._room -= size
        if self._room < 0:
            raise BodyTooLarge
        if size:
            self._left = size + 2  # and the CRLF behind it
        else:
            self._trailers = 0


def asks_to_close(message: RawRequestMessage) -> bool:
    """Whether `close` is among the connection options, whatever stands beside it (RFC 9112 9.3)."""
    lines = message.headers.getall(hdrs.CONNECTION, ())
    return any(
        option.strip(" \t").lower() == "close" for line in lines for option in line.split(",")
    )


def expects_continue(message: RawRequestMessage) -> bool:
    """Whether the client asks to be told to send the body (RFC 9110 10.1.1); HTTP/1.0 can't.

    Raises `Refused` where it expects anything else, or says so in any other way: two readers of
    that could wait for two things.
    """
    lines = message.headers.getall(hdrs.EXPECT, ())
    if not lines or message.version.minor == 0:
        return False
    if len(lines) > 1 or lines[0].strip(" \t").lower() != "100-continue":
        raise Refused(417, "expectation-unknown")
    return True


def body_framing(message: RawRequestMessage, max_bytes: int = 0) -> LengthBody | ChunkedBody | None:
    """How the body ends (RFC 9112 6.3); None where there is none. Raises `Refused`.

    `max_bytes`: the longest that is taken; 0: any that can be counted.
    """
    most = min(max_bytes or _LONGEST_BODY, _LONGEST_BODY)
    coding = message.headers.get(hdrs.TRANSFER_ENCODING)
    if coding is not None:
        if message.version.minor == 0:
            # RFC 9112 6.1: faulty framing, whatever the coding.
            raise Refused(400, "transfer-encoding-in-http10")
        if coding.strip(" \t").lower() != "chunked":
            raise Refused(501, "transfer-encoding-unknown")
        return ChunkedBody(most)
    length = decimal(message.headers.get(hdrs.CONTENT_LENGTH, "").encode("ascii"))
    if length > most:
        raise BodyTooLarge
    return LengthBody(length) if length else None
