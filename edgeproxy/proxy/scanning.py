"""The heads of the requests that the fast path answers, read in one go.

Only heads without anything unusual are read here; whatever else comes is the parser's. What a hit
needs is read by compiled code, _scan.c, where that could be built; it does what is done here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from edgeproxy.semantics.fields import OWS, Fields
from edgeproxy.semantics.forwarding import end_to_end

if TYPE_CHECKING:
    from typing import TypeAlias

    Conditions: TypeAlias = tuple[bytes | None, bytes | None]
    """What If-None-Match and If-Modified-Since say."""
    Scanned: TypeAlias = tuple[int, bytes, bool, Conditions | None]
    """Where the head ends; its key: all that says which response is asked for, which is the request
    line, Host, and X-Forwarded-Proto (empty if there is none), one to a line; whether the client
    wants no further answer (RFC 9112 9.6); its conditions, None if there are none."""

_MOST_FIELDS: Final = 128
"""A head that has more is for the full path."""
_LONGEST_REMEMBERED: Final = 2048

# Fields that frame a message, belong to the connection, or ask for more than the stored response:
# requests that bear one are for the full path, and so are those with any "proxy-..." field.
_NOT_HERE: Final = frozenset(
    {
        *(b"content-length", b"transfer-encoding", b"te", b"trailer", b"expect", b"upgrade"),
        *(b"keep-alive", b"http2-settings", b"max-forwards"),
        *(b"range", b"if-range", b"if-match", b"if-unmodified-since"),
        *(b"cache-control", b"pragma"),
    }
)

# RFC 9112 3 and 5: a request line in origin-form of which nothing needs a second look, and lines
# of a tchar name, a colon, and visible ASCII, blanks and tabs.
_NAME: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE: Final = rb"[\t\x20-\x7e]*+"
_HEAD: Final = re.compile(
    rb"((?:GET|HEAD) /[\x21\x22\x24-\x7e]*+ HTTP/1\.1)\r\n((?:%b:%b\r\n)*+)\r\n" % (_NAME, _VALUE)
)
_LINE: Final = re.compile(rb"(%b):(%b)\r\n" % (_NAME, _VALUE))


def scan_slowly(data: bytes, start: int, max_bytes: int, max_fields: int, /) -> Scanned | None:
    """The request head that begins at `start`; None where it is not for the fast path, or not all
    there. No more than `max_bytes` of it are looked at."""
    head = _HEAD.match(data, start, start + max_bytes)
    if head is None:
        return None
    lines = _LINE.findall(head[2])
    fields = {name.lower(): value for name, value in lines}
    if len(lines) > min(max_fields, _MOST_FIELDS) or len(fields) != len(lines):
        # Which of two counts, or whether both do, is for the full path to say.
        return None
    if not _NOT_HERE.isdisjoint(fields) or any(name.startswith(b"proxy-") for name in fields):
        return None
    host, connection = fields.get(b"host"), fields.get(b"connection", b"keep-alive")
    option = connection.strip(OWS).lower()
    if host is None or option not in (b"keep-alive", b"close"):
        return None
    proto = fields.get(b"x-forwarded-proto", b"")
    key = b"\n".join((head[1], host.strip(OWS), proto.strip(OWS)))
    asked = fields.get(b"if-none-match"), fields.get(b"if-modified-since")
    conditions = None if asked == (None, None) else (_stripped(asked[0]), _stripped(asked[1]))
    return head.end(), key, option == b"close", conditions


def values_slowly(data: bytes, start: int, names: tuple[bytes, ...], /) -> tuple[bytes | None, ...]:
    """What the fields of these names (lower-case) say, None for one that is not there, in the head
    at `start`, which `scan` took.

    Raises ValueError if there is none that it would take.
    """
    head = _HEAD.match(data, start)
    if head is None:
        raise ValueError("no head that can be read here")
    fields = {name.lower(): value for name, value in _LINE.findall(head[2])}
    return tuple([_stripped(fields.get(name)) for name in names])


def all_fields(head: bytes, key: bytes) -> Fields:
    """The fields of a head that `scan` took and gave this key, as the full path has them: without
    those for the connection alone (RFC 9110 7.6.1)."""
    lines = head[key.index(b"\n") + 2 :]
    if len(lines) <= _LONGEST_REMEMBERED:
        return _all_fields(lines)
    return _all_fields.__wrapped__(lines)


# A browser sends the same lines with every request of a page, most of them with those of a day.
@lru_cache(maxsize=512)
def _all_fields(lines: bytes) -> Fields:
    pairs = [(name, value.strip(OWS)) for name, value in _LINE.findall(lines)]
    return end_to_end(Fields(pairs))


def _stripped(value: bytes | None) -> bytes | None:
    return None if value is None else value.strip(OWS)


try:
    from edgeproxy.proxy._scan import scan as scan
    from edgeproxy.proxy._scan import values as values
except ImportError:
    scan, values = scan_slowly, values_slowly

COMPILED: Final = scan is not scan_slowly
"""Whether the compiled code is there."""
