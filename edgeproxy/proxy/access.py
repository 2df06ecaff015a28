"""What the access log is told of a request once it has been answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec


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
