"""The two forms of a line in the access log.

Nothing that a client sends can end a line, open a field or drive a terminal: what is not printable
ASCII is escaped, and so are the quotes and backslashes that delimit.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgeproxy.proxy.access import AccessRecord

# For text, and for bytes read as latin-1; the escapes are those of Apache's log.
_QUOTED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0x100))} | {
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}

_PLAIN = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')


def common(record: AccessRecord) -> bytes:
    """The Combined Log Format, then the cache's result and three times in seconds.

    The times: all of it, until the first byte to the client, until the origin's response head.
    """
    request = "-"
    if record.method:
        request = f"{_quote(record.method)} {_quote(record.target)} HTTP/{_quoted(record.version)}"
    line = (
        f"{_quoted(record.client) or '-'} - - [{_clf_time(int(record.started))}]"
        f' "{request}" {record.status} {record.bytes_sent}'
        f' "{_quote(record.referer) or "-"}" "{_quote(record.user_agent) or "-"}"'
        f" {record.result} {record.duration:.6f}"
        f" {_seconds(record.first_byte)} {_seconds(record.origin_seconds)}\n"
    )
    return line.encode("ascii", "backslashreplace")


def json_line(record: AccessRecord) -> bytes:
    """One object a line. Bytes that are not UTF-8 appear as `\\xNN` in the strings."""
    line = msgspec.json.encode(
        {
            "time": _rfc3339(record.started),
            "client": record.client,
            "method": _text(record.method),
            "target": _text(record.target),
            "version": record.version,
            "status": record.status,
            "bytes": record.bytes_sent,
            "result": record.result,
            "cache_status": _text(record.cache_status),
            "site": record.site,
            "host": record.host,
            "referer": _text(record.referer),
            "user_agent": _text(record.user_agent),
            "duration": round(record.duration, 6),
            "first_byte": _rounded(record.first_byte),
            "origin": _rounded(record.origin_seconds),
        }
    )
    if line.isascii() and b"\x7f" not in line:
        return line + b"\n"
    return _ascii_json(line.decode()) + b"\n"


FORMATS: Mapping[str, Callable[[AccessRecord], bytes]] = {"common": common, "json": json_line}


def _quote(value: bytes) -> str:
    text = value.decode("latin-1")
    # Most have nothing to escape, which is told in a tenth of the time.
    return text.translate(_QUOTED) if value.translate(None, _PLAIN) else text


# Few different clients and versions make for many lines.
@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    return text.translate(_QUOTED)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _ascii_json(line: str) -> bytes:
    """RFC 8259 section 7: everything outside ASCII, and DEL, as escapes of UTF-16 code units."""
    units = line.encode("utf-16-be")
    codes = (units[i] << 8 | units[i + 1] for i in range(0, len(units), 2))
    return b"".join(bytes((code,)) if code < 0x7F else b"\\u%04x" % code for code in codes)


@lru_cache(maxsize=16)
def _clf_time(second: int) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second))


@lru_cache(maxsize=16)
def _rfc3339_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _rfc3339(when: float) -> str:
    second = int(when)
    return f"{_rfc3339_second(second)}.{int((when - second) * 1000):03}Z"
