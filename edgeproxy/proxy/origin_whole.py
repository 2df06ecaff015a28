"""Responses that come in one piece, head and body: read here, without the parser and its streams.

Most responses of most origins are such. What is taken is the plain form alone, read as strictly as
RFC 9112 writes it; everything else is left to the parser, which tells what it is or why it is none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from edgeproxy.proxy.origin_head import ResponseHead
from edgeproxy.semantics.fields import OWS, Fields, is_token

if TYPE_CHECKING:
    from typing import TypeAlias

    Scanned: TypeAlias = tuple[int, int, bytes, tuple[tuple[bytes, bytes], ...]]
    """Where the head ends, the status, the reason phrase, and the fields."""

# RFC 9112 4: status-line = HTTP-version SP status-code SP [ reason-phrase ]
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2}) ([^\r\n]*)")
# RFC 9110 5.5: CTL characters but HTAB have no place in a head, other than its lines' ends.
_CONTROLS: Final = bytes({*range(0x20), 0x7F} - {0x09})
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_KEEP_ALIVE: Final = b"keep-alive"
_MAX_HEAD: Final = 8190
_MAX_FIELDS: Final = 100


def whole_response(data: bytes, *, head_only: bool) -> tuple[ResponseHead, bytes] | None:
    """The response that `data` is from its first byte to its last, and its body.

    `head_only`: it answers HEAD. None where it is not all there, is more than one response, ends
    its connection, or is anything but the plainest HTTP/1.1.
    """
    read = scan_response(data, _MAX_HEAD, _MAX_FIELDS)
    if read is None:
        return None
    end, status, reason, pairs = read
    fields = Fields(pairs)
    if b"transfer-encoding" in fields or b"upgrade" in fields:
        return None
    connection = fields.get_all(b"connection")
    if connection and (len(connection) > 1 or connection[0].lower() != _KEEP_ALIVE):
        return None
    lengths = fields.get_all(b"content-length")
    if len(lengths) > 1 or (lengths and _LENGTH.fullmatch(lengths[0]) is None):
        return None
    length = int(lengths[0]) if lengths else None
    bodiless = head_only or status == 304
    if status == 204 or (length is None and not bodiless):
        return None
    if len(data) - end != (0 if bodiless else length):
        return None
    told = ResponseHead(
        status=status,
        reason=reason,
        version="1.1",
        fields=fields,
        framed=True,
        content_length=length,
    )
    return told, data[end:]


def only_head(data: bytes, *, head_only: bool) -> bytes:
    """What begins a response, without what is behind its head where that can be no body of it.

    `head_only`: it answers HEAD. Some origins send a body with that, or with a 304: RFC 9112 6.3
    ends such a response at its head. What follows is none, so the connection has to end as well.
    """
    status = data[9:12]
    if not (head_only and status[:1] != b"1") and status != b"304":
        return data
    end = data.find(b"\r\n\r\n")
    return data if end < 0 else data[: end + 4]


def scan_response_slowly(data: bytes, max_bytes: int, max_fields: int, /) -> Scanned | None:
    """The head of a response at the start of `data`; None where it is not there, has more than so
    many bytes or fields, or is not plain HTTP/1.1."""
    end = data.find(b"\r\n\r\n", 0, max_bytes)
    if end < 0:
        return None
    head = data[:end]
    first, *lines = head.split(b"\r\n")
    status_line = _STATUS_LINE.fullmatch(first)
    if (
        status_line is None
        or len(lines) > max_fields
        or len(head.translate(None, _CONTROLS)) != len(head) - 2 * len(lines)
    ):
        return None
    parted = [line.partition(b":") for line in lines]
    if any(not colon or not is_token(name) for name, colon, _ in parted):
        return None
    pairs = tuple([(name, value.strip(OWS)) for name, _, value in parted])
    return end + 4, int(status_line[1]), status_line[2], pairs


try:
    from edgeproxy.proxy._scan import scan_response
except ImportError:
    scan_response = scan_response_slowly
