"""Cache-Status (RFC 9211): what a cache did with a request, and why; and the same in one word."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal

import msgspec

Forwarded = Literal[
    "bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"
]
"""Why a request went forward, from the most specific reason to the least (RFC 9211 2.2)."""

# RFC 9651 3.3.4: sf-token = ( ALPHA / "*" ) *( tchar / ":" / "/" )
_TOKEN: Final = re.compile(rb"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")
_NOT_IN_STRING: Final = re.compile(rb"[^\x20-\x7e]")
_INTEGER_MAX: Final = 999_999_999_999_999  # RFC 9651 3.3.1


class CacheStatus(msgspec.Struct, frozen=True):
    """One cache's member of Cache-Status. Raises ValueError if it both hit and went forward."""

    hit: bool = False
    fwd: Forwarded | None = None
    fwd_status: int | None = None
    """The status code that came back, where it is not the one that was sent on."""
    ttl: int | None = None
    """Remaining freshness in seconds, negative when stale."""
    stored: bool = False
    collapsed: bool = False
    """Whether the answer came from another request's fetch."""
    detail: str | None = None
    """The project's own word for what happened."""

    def __post_init__(self) -> None:
        if self.hit and self.fwd is not None:
            raise ValueError("hit and fwd are exclusive (RFC 9211 2.1)")

    def render(self, cache_name: bytes = b"edgeproxy") -> bytes:
        """The list member, as RFC 9651 4.1 serialises it, spaced as in RFC 9211's examples."""
        # What is forwarded is told in few words, again and again; of a hit, each second is another.
        return self._rendered(cache_name) if self.hit else _remembered(self, cache_name)

    def _rendered(self, cache_name: bytes) -> bytes:
        member = [_token_or_string(cache_name)]
        if self.hit:
            member.append(b"hit")
        if self.fwd is not None:
            member.append(b"fwd=" + self.fwd.encode())
            if self.fwd_status is not None:
                member.append(b"fwd-status=%d" % self.fwd_status)
        if self.ttl is not None:
            member.append(b"ttl=%d" % max(-_INTEGER_MAX, min(self.ttl, _INTEGER_MAX)))
        # RFC 9211 2.5, 2.6: only meaningful when the request went forward.
        if self.fwd is not None and self.stored:
            member.append(b"stored")
        if self.fwd is not None and self.collapsed:
            member.append(b"collapsed")
        if self.detail is not None:
            member.append(b"detail=" + _token_or_string(self.detail.encode()))
        return b"; ".join(member)


_remembered = lru_cache(maxsize=1024)(CacheStatus._rendered)


def vercel_cache(status: CacheStatus) -> bytes | None:
    """The same as the value of Vercel's `x-vercel-cache`; None where no cache had a part in it.

    https://vercel.com/docs/headers/response-headers#x-vercel-cache. Vercel's PRERENDER is for pages
    that were made at build time: there are none here.
    """
    if status.hit:
        return b"HIT" if status.detail is None else b"STALE"
    match status.fwd:
        case None:
            return None
        case "bypass" | "method":
            return b"BYPASS"
        case "stale" if (status.detail or "").startswith("stale-if-error"):
            return b"STALE"
        case "stale" | "request":
            return b"REVALIDATED"
        case _:
            return b"MISS"


def _token_or_string(text: bytes) -> bytes:
    if _TOKEN.fullmatch(text):
        return text
    # RFC 9651 3.3.3: a String has printable ASCII alone.
    text = _NOT_IN_STRING.sub(b"?", text)
    return b'"%b"' % text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
