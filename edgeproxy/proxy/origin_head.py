"""Heads of messages to and from an origin: what is sent, byte for byte, and what is believed."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import msgspec

from edgeproxy.proxy.errors import OriginProtocolError
from edgeproxy.semantics.errors import BadRequest
from edgeproxy.semantics.fields import Fields, decimal, is_token

if TYPE_CHECKING:
    from aiohttp.http_parser import RawResponseMessage

_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding"))
# RFC 9110 5.5: CTL characters but HTAB have no place in a field value.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def request_head(
    method: bytes, target: bytes, fields: Fields, framing: tuple[bytes, bytes] | None
) -> bytes:
    """A request's head (RFC 9112 3), as given but for the field that frames its body.

    Raises `BadRequest` for what would not be read as it was meant: a space in the target, a line
    end in a field.
    """
    lines, count = (_remembered if fields.repeatable else _lines)(fields)
    if framing is not None:
        lines += b"%b: %b\r\n" % framing
        count += 1
    head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, lines)
    ends = count + 2
    if (
        head.count(b"\n") != ends
        or head.count(b"\r") != ends
        or b"\0" in head
        or b" " in target
        or not is_token(method)
    ):
        raise BadRequest("unsendable")
    return head


def _lines(fields: Fields) -> tuple[bytes, int]:
    """The lines of a request's fields, and how many they are."""
    pairs = fields.without(_FRAMING).raw
    return b"".join([b"%b: %b\r\n" % pair for pair in pairs]), len(pairs)


_remembered = lru_cache(maxsize=1024)(_lines)


class ResponseHead(msgspec.Struct, frozen=True):
    """The head of a response as it came."""

    status: int
    reason: bytes
    version: str
    fields: Fields
    framed: bool
    """The body's end is marked: by a length, by chunks, or because there can't be a body."""
    content_length: int | None
    """As declared, for HEAD and 304 too; None where there is no such field, or it means nothing."""


def response_head(message: RawResponseMessage, *, head_only: bool) -> ResponseHead:
    """Read what the parser found; `head_only` for the answer to HEAD.

    Raises `OriginProtocolError` for what the parser lets pass and nobody should hand on: control
    characters, another version of HTTP, a transfer coding that nobody here can undo.
    """
    status = message.code
    fields = Fields(message.raw_headers)
    reason = message.reason.encode("utf-8", "surrogateescape")
    if message.version.major != 1:
        raise OriginProtocolError("the origin's response is of another version of HTTP")
    if status < 100:
        raise OriginProtocolError(f"the origin's response has the status {status}")
    if _CONTROL.search(reason) or _CONTROL.search(b"".join([value for _, value in fields])):
        raise OriginProtocolError("the origin's response has control characters in its head")
    if not all(is_token(name) for name, _ in fields):
        raise OriginProtocolError("the origin's response has a field whose name is none")
    bodiless = status < 200 or status in (204, 304)
    chunked = _is_chunked(fields, message)
    length = fields.get(b"content-length")
    return ResponseHead(
        status=status,
        reason=reason,
        version=f"1.{message.version.minor}",
        fields=fields,
        framed=bodiless or head_only or chunked or length is not None,
        content_length=_content_length(length, status),
    )


def _is_chunked(fields: Fields, message: RawResponseMessage) -> bool:
    coding = fields.joined(b"transfer-encoding")
    if coding is None:
        return False
    # RFC 9112 6.1: not in HTTP/1.0, and any other coding would reach the reader without its name.
    if coding.strip().lower() != b"chunked" or message.version.minor == 0:
        raise OriginProtocolError(
            "the origin's response has a transfer coding that nobody asked for"
        )
    return True


def _content_length(value: bytes | None, status: int) -> int | None:
    if value is None or status < 200 or status == 204:
        return None
    return decimal(value)
