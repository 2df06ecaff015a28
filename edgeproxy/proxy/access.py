"""What the access log is told of a request once it has been answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from edgeproxy.proxy.refused import Refused


class AccessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One answered request. Whatever came from the client is as it came: the log escapes it."""

    client: str
    """The client's address, beyond trusted proxies."""
    method: bytes
    target: bytes
    """The request target as received."""
    version: str
    """The HTTP version of the request, for instance `1.1`."""
    status: int
    bytes_sent: int
    """Bytes of the body that were written to the client."""
    result: str
    """How it was answered: `hit`, `stale`, `revalidated`, `miss`, `pass`, ..."""
    cache_status: bytes
    """This edge's Cache-Status member (RFC 9211); empty when there was none."""
    site: str
    """The name of the site; empty when the host is nobody's."""
    host: str
    referer: bytes
    user_agent: bytes
    started: float
    """When the request head was complete: seconds since the epoch."""
    duration: float
    """Seconds from there to the last byte of the answer."""
    first_byte: float | None
    """Seconds from there to the first byte of the answer; None when none was sent."""
    origin_seconds: float | None
    """Seconds from the request to the origin until its response head; None if it wasn't asked."""


AccessSink: TypeAlias = Callable[[AccessRecord], None]


def refused_record(client: str, start_line: bytes, refused: Refused, now: float) -> AccessRecord:
    """What the log is told of what was no request, and was answered so."""
    method, _, rest = start_line.partition(b" ")
    target, _, version = rest.rpartition(b" ")
    return AccessRecord(
        client=client,
        method=method,
        target=target or rest,
        version=version.decode("ascii", "replace").removeprefix("HTTP/"),
        status=refused.status,
        bytes_sent=0,
        result="refused",
        cache_status=refused.cache_status,
        site="",
        host="",
        referer=b"",
        user_agent=b"",
        started=now,
        duration=0.0,
        first_byte=0.0,
        origin_seconds=None,
    )
