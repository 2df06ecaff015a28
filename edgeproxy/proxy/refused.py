"""What the server answers by itself, before any handler: messages that are no proper request."""

from __future__ import annotations

from http import HTTPStatus

from edgeproxy.proxy.wire import render_head
from edgeproxy.semantics.cache_status import CacheStatus
from edgeproxy.semantics.dates import format_http_date

# RFC 9110 10.2.1, 15.5.6: a 405 says what is allowed; these are the methods that HTTP defines.
ALLOW = b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"

RETRY_AFTER = 1
"""Seconds after which to ask again where there was no room (RFC 9110 10.2.3)."""


class Refused(Exception):
    """A message that no handler is asked about: it is answered, and the connection ends.

    `detail` is a token out of a fixed set, for Cache-Status.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status} {detail}")
        self.status = HTTPStatus(status)
        self.detail = detail

    @property
    def cache_status(self) -> bytes:
        """The edge's member of Cache-Status (RFC 9211)."""
        return CacheStatus(detail=self.detail).render()

    def render(self, now: float, *, head_only: bool) -> bytes:
        """The whole answer; `now` in seconds since the epoch."""
        status, phrase = self.status, self.status.phrase
        text = f"{status.value} {phrase}: {self.detail}\n".encode()
        fields = [
            (b"Date", format_http_date(now)),
            (b"Content-Type", b"text/plain; charset=utf-8"),
            (b"Content-Length", b"%d" % len(text)),
            (b"Cache-Control", b"no-store"),
            (b"Cache-Status", self.cache_status),
            (b"Connection", b"close"),
        ]
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            fields.append((b"Retry-After", b"%d" % RETRY_AFTER))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            fields.append((b"Allow", ALLOW))
        head = render_head(status, phrase.encode(), fields) + b"\r\n"
        return head if head_only else head + text
