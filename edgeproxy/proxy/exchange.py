"""One request and its answer while it is under way: what was sent, and what the log is to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.proxy.access import AccessRecord
from edgeproxy.proxy.body import content_length, request_body
from edgeproxy.proxy.errors import OriginProtocolError
from edgeproxy.proxy.refused import RETRY_AFTER
from edgeproxy.proxy.rendering import VERCEL, answer_head, told, told_lines, visible_fields
from edgeproxy.proxy.tunnel import splice, switched_as_asked
from edgeproxy.proxy.wire import REASONS, ResponseWriter
from edgeproxy.semantics.cache_status import CacheStatus
from edgeproxy.semantics.dates import format_http_date
from edgeproxy.semantics.fields import Fields

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from edgeproxy.cache.reading import StoredBody
    from edgeproxy.proxy.errors import EdgeError
    from edgeproxy.proxy.incoming import Incoming
    from edgeproxy.proxy.pool import OriginAnswer
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.wire import Reply
    from edgeproxy.semantics.cache_status import Forwarded

_NO_FIELDS = Fields()
_SOON = Fields([(b"Retry-After", b"%d" % RETRY_AFTER)])


class Exchange:
    """The answering side of one request: sends through the writer, and keeps the account."""

    def __init__(self, incoming: Incoming, clock: Callable[[], float]) -> None:
        self.incoming = incoming
        self.writer = ResponseWriter(incoming)
        self.request: EdgeRequest | None = None
        self.result = "error"
        self.retried = False
        self.fwd: Forwarded = "miss"
        """Why the request goes forward, as far as that is known (RFC 9211 2.2)."""
        self._clock = clock
        self._started = clock()
        self._first_byte: float | None = None
        self._origin_seconds: float | None = None
        self._status = 0
        self._tunnelled = 0
        self._cache_status = b""
        self._vercel_cache: bytes | None = None

    @property
    def content_length(self) -> int | None:
        """The length of the request's body in bytes, None where it is not known beforehand."""
        return content_length(self.incoming)

    def body(self) -> AsyncIterator[bytes]:
        """The request's body as it comes in."""
        return request_body(self.incoming)

    def check_client(self) -> None:
        """Raise ConnectionResetError if the client has not waited."""
        if self.incoming.protocol.transport is None:
            raise ConnectionResetError("the client is gone")

    @property
    def reply(self) -> Reply:
        return self.writer.reply

    @property
    def head_sent(self) -> bool:
        return self._first_byte is not None

    @property
    def head_only(self) -> bool:
        """The answer to HEAD has no body (RFC 9110 9.3.2)."""
        return self.incoming.head_only

    def origin_took(self, seconds: float) -> None:
        self._origin_seconds = seconds

    # -- sending

    async def interim(self, status: int, reason: bytes, fields: Fields) -> None:
        """Hand a 1xx response on (RFC 9110 15.2); HTTP/1.0 knows none."""
        await self.writer.interim(status, reason, self._visible(fields))

    def _visible(self, fields: Fields) -> Fields:
        return fields if self.request is None else visible_fields(fields, self.request.policy)

    async def start(
        self, status: int, fields: Fields, length: int | None, cache_status: CacheStatus,
        *, reason: bytes | None = None, head_only: bool = False,
    ) -> None:  # fmt: skip
        """Send the head. `length` is the body's in bytes, None if that is not known yet."""
        told = self._told(status, cache_status)
        if self._vercel_cache:
            fields = fields.without(VERCEL)
        if reason is None:
            reason = REASONS.get(status, b"")
        await self.writer.start(status, reason, fields, length, told=told, head_only=head_only)

    def send_whole(
        self, status: int, fields: Fields, body: bytes, cache_status: CacheStatus, reason: bytes,
        *, but: frozenset[bytes],
    ) -> None:  # fmt: skip
        """Send a whole answer at once. `but`: names of fields that are left out."""
        told = self._told(status, cache_status)
        if self._vercel_cache:
            but |= VERCEL
        self.writer.send_whole(status, reason, fields, body, told=told, but=but)

    def _told(self, status: int, cache_status: CacheStatus) -> bytes:
        """The lines that say what the edge did."""
        self._note(status, cache_status)
        return told_lines(self._cache_status, self._vercel_cache)

    async def write(self, chunk: bytes) -> None:
        await self.writer.write(chunk)

    async def send_file(self, body: StoredBody, start: int, stop: int) -> int:
        """Send a part of a stored body without reading it, as far as that goes; gives how far."""
        return await self.writer.send_file(body, start, stop)

    async def finish(self) -> None:
        await self.writer.finish()

    def send_ready(
        self, status: int, head: bytes, age: int, body: bytes, cache_status: CacheStatus
    ) -> None:
        """Send a whole answer whose head begins with what `stored_head` gave."""
        self._note(status, cache_status)
        head = answer_head(head, age, status, len(body), self._cache_status, self._vercel_cache)
        self.writer.send_ready(head, body)

    async def switch(
        self, answer: OriginAnswer, cache_status: CacheStatus, idle_seconds: float
    ) -> None:
        """Hand a 101 on, and copy bytes both ways until one side has had enough."""
        asked = b"" if self.request is None else self.request.upgrade
        if not switched_as_asked(asked, answer.response.fields):
            answer.response.abort()
            raise OriginProtocolError("the origin switched to a protocol that nobody asked for")
        origin, from_origin = answer.response.upgrade()
        try:
            # Upgrade is for this connection (RFC 9110 7.8), which is the other one's now.
            chosen = answer.response.fields.joined(b"upgrade") or b""
            fields = self._visible(answer.fields).plus((b"Upgrade", chosen))
            await self.start(101, fields, None, cache_status, reason=answer.response.reason)
            client, from_client = self.writer.take_over()
        except BaseException:
            origin.abort()
            raise
        _, self._tunnelled = await splice(client, origin, from_client, from_origin, idle_seconds)

    def _note(self, status: int, cache_status: CacheStatus) -> None:
        self._status = status
        policy = None if self.request is None else self.request.policy
        self._cache_status, self._vercel_cache = told(cache_status, policy)
        self._first_byte = self._clock()

    # -- ending otherwise than well

    async def refuse(
        self, status: int, text: str, cache_status: CacheStatus, more: Fields = _NO_FIELDS
    ) -> None:
        """Answer with an error of the edge's own, or break off if an answer has begun."""
        if self.head_sent:
            self.abandon()
            return
        phrase = REASONS.get(status, b"").decode()
        await self.tell(status, f"{status} {phrase}: {text}", cache_status, more)

    async def tell(
        self, status: int, text: str, cache_status: CacheStatus, more: Fields = _NO_FIELDS,
        *, reason: bytes | None = None,
    ) -> None:  # fmt: skip
        """Answer with a text of the edge's own."""
        body = f"{text}\n".encode()
        fields = Fields(
            (
                (b"Date", format_http_date(self._clock())),
                (b"Content-Type", b"text/plain; charset=utf-8"),
                (b"Cache-Control", b"no-store"),
                *more,
            )
        )
        try:
            await self.start(
                status, fields, len(body), cache_status, reason=reason, head_only=self.head_only
            )
            if not self.head_only:
                await self.write(body)
            await self.finish()
        except ConnectionError:
            self.abandon()

    async def fail(self, error: EdgeError) -> None:
        """Tell the reader that the origin failed; after the head, only a broken end can."""
        if error.ends_connection:
            self.close_after()
        status = CacheStatus(fwd=self.fwd, detail=error.detail)
        more = _SOON if error.status == 503 else _NO_FIELDS
        await self.refuse(error.status, str(error), status, more)

    async def crash(self) -> None:
        await self.refuse(500, "the edge failed", CacheStatus(detail="internal-error"))

    def close_after(self) -> None:
        """Take no further request from this connection."""
        self.writer.close_after()

    def abandon(self) -> None:
        """Break the connection off, so that nobody takes what was sent for the whole."""
        self.writer.abort()

    # -- the account

    def record(self) -> AccessRecord:
        """What the access log is told, once the answer is over."""
        incoming, request, now = self.incoming, self.request, self._clock()
        fields = incoming.fields if request is None else request.fields
        first = self._first_byte
        return AccessRecord(
            client=request.client if request is not None else incoming.remote or "",
            method=incoming.method,
            target=incoming.target,
            version=incoming.version,
            status=self._status,
            bytes_sent=self.writer.bytes_sent + self._tunnelled,
            result=self.result,
            cache_status=self._cache_status,
            site=request.policy.name if request is not None else "",
            host=request.authority if request is not None else "",
            referer=fields.get(b"referer") or b"",
            user_agent=fields.get(b"user-agent") or b"",
            started=self._started,
            duration=now - self._started,
            first_byte=None if first is None else first - self._started,
            origin_seconds=self._origin_seconds,
        )
