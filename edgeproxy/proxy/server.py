"""The public port's server: a protocol factory, and the count of what is under way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, TypeAlias, cast

from aiohttp import web
from aiohttp.http import HttpRequestParser

from edgeproxy.proxy.crowd import Capacity, Crowd
from edgeproxy.proxy.incoming import Incoming
from edgeproxy.proxy.intake import address_of
from edgeproxy.proxy.protocol import FRESH_GRACE, EdgeProtocol
from edgeproxy.proxy.refused import Refused
from edgeproxy.proxy.wire import CLOSING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.web_protocol import RequestHandler

    from edgeproxy.config.server import Limits
    from edgeproxy.proxy.deciding import Unanswered
    from edgeproxy.proxy.fast import FastPath
    from edgeproxy.proxy.light import LightProtocol
    from edgeproxy.proxy.newcomer import Newcomer
    from edgeproxy.proxy.tally import Tally
    from edgeproxy.proxy.wire import Reply

    _Connection: TypeAlias = EdgeProtocol | LightProtocol | Newcomer

if HttpRequestParser.__module__ != "aiohttp._http_parser":
    raise ImportError(
        "aiohttp runs without its C parser, and the pure-Python one is more lenient than a proxy "
        "may be: install an aiohttp with extensions, and leave AIOHTTP_NO_EXTENSIONS unset"
    )

log = logging.getLogger(__name__)

_UNLIMITED = Capacity(connections=1 << 31, per_client=0, local_too=False, files=1 << 31)
_LOGGED_LINE = 8192
"""Bytes of the start line of a refused request that the log is told."""
_ROOM_SHARE = 16
"""Of the connections, the part that is closed at once where it idles and others wait."""


class EdgeServer(web.Server):
    """The protocol factory for `loop.create_server`, made within the running loop.

    The handler writes its answer itself, with a `ResponseWriter`, and returns that one's `reply`.
    `limits` may be replaced: new connections have the new ones.
    """

    def __init__(
        self,
        handler: Callable[[Incoming], Awaitable[Reply]],
        limits: Limits,
        *,
        clock: Callable[[], float] = time.time,
        on_refused: Callable[[str, bytes, Refused], None] | None = None,
        capacity: Capacity = _UNLIMITED,
        tally: Tally | None = None,
    ) -> None:
        """`on_refused` is told the client's address and the start line of what the server answers
        by itself; `tally` counts whom it refuses."""
        super().__init__(self._answer_parsed)
        self.limits = limits
        self.clock = clock
        self._on_refused = on_refused
        self.draining = False
        self._handler = handler
        self.fast: FastPath | None = None
        """Answers fresh hits, where there is one; set before the first connection."""
        self.crowd = Crowd(capacity)
        self._tally = tally
        # With the client's address, in the order in which they came.
        self._open: dict[_Connection, str] = {}
        self._light: set[LightProtocol | Newcomer] = set()
        self._checking: asyncio.TimerHandle | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def __call__(self) -> EdgeProtocol:
        return EdgeProtocol(self, self._loop)

    @property
    def patience(self) -> float:
        """How many seconds a new connection has for its first request's head."""
        return FRESH_GRACE if self.draining else self.limits.header_timeout

    def turned_away(self, transport: asyncio.Transport | Newcomer) -> bytes:
        """What a client is told that has too many connections; it is counted, and logged."""
        refused = Refused(503, "too-many-connections")
        self.note_refused(transport, b"", refused)
        return refused.render(self.clock(), head_only=False)

    @property
    def open_connections(self) -> int:
        """How many connections there are."""
        return len(self._open)

    @property
    def in_flight(self) -> int:
        """How many requests are being answered, those of clients that have left among them."""
        return len(self._answering)

    def begin_drain(self) -> None:
        """Close idle connections; the others end with the answers that are under way."""
        self.draining = True
        for protocol in tuple(self._open):
            protocol.begin_drain()

    async def drained(self) -> None:
        """Wait until there is neither a connection nor a request left."""
        await self._quiet.wait()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Give what is under way `timeout` seconds to end (None: not one); break off the rest."""
        self.begin_drain()
        if timeout is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.drained(), timeout)
        for task in tuple(self._answering):
            task.cancel()
        for protocol in tuple(self._open):
            protocol.abort()
        await self.drained()

    def count(self, reason: str, more: int = 1) -> None:
        """Count that a client was refused something."""
        if self._tally is not None:
            self._tally.note(reason, more)

    def note_refused(
        self, transport: asyncio.Transport | Newcomer, sent: bytes, refused: Refused
    ) -> None:
        """Note that what a client `sent` was no request, and was answered so."""
        if self._tally is not None:
            self._tally.note_refused(refused.detail)
        if self._on_refused is not None:
            peer = transport.get_extra_info("peername")
            client = str(peer[0]) if isinstance(peer, tuple) else "unknown"
            line = sent[:_LOGGED_LINE].lstrip(b"\r\n").partition(b"\r\n")[0]
            self._on_refused(client, line, refused)

    def make_room(self) -> None:
        """Close connections that idle, the oldest first: others wait to be taken in."""
        most, closed = max(1, len(self._open) // _ROOM_SHARE), 0
        for protocol in tuple(self._open):
            if protocol.close_idle():
                closed += 1
                if closed >= most:
                    break
        self.count("idle-closed", closed)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.enter(cast("EdgeProtocol", handler), transport)

    def enter(self, protocol: _Connection, transport: asyncio.Transport | Newcomer) -> bool:
        """Count a connection from now on; whether its client may have one more."""
        address = address_of(transport.get_extra_info("peername"))
        self._open[protocol] = address
        self._quiet.clear()
        return self.crowd.enter(address)

    def leave(self, protocol: _Connection) -> None:
        """Count it no more."""
        address = self._open.pop(protocol, None)
        if address is not None:
            self.crowd.leave(address)
        self._check_quiet()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.leave(cast("EdgeProtocol", handler))

    def opened(
        self, light: LightProtocol | Newcomer, transport: asyncio.Transport | Newcomer
    ) -> bool:
        """A connection that starts without a handler of aiohttp's; whether its client may have
        one more."""
        self._light.add(light)
        if self._checking is None:
            self._check_light()
        return light in self._open or self.enter(light, transport)

    def closed(self, light: LightProtocol | Newcomer) -> None:
        """It is gone, or has a handler now."""
        self._light.discard(light)
        self.leave(light)

    def _check_light(self) -> None:
        now = self._loop.time()
        for light in tuple(self._light):
            light.check(now)
        self._checking = None
        if self._light:
            limits = self.limits
            shortest = min(limits.header_timeout, limits.keepalive_timeout, FRESH_GRACE)
            self._checking = self._loop.call_later(shortest / 4, self._check_light)

    def _check_quiet(self) -> None:
        if not self._open and not self._answering:
            self._quiet.set()

    async def _answer_parsed(self, request: web.BaseRequest) -> web.StreamResponse:
        # In a connection's task, which answers one request after the other.
        self._answering.add(request.task)
        try:
            return cast("web.StreamResponse", await self._answer(Incoming.parsed(request)))
        finally:
            self._over(request.task)

    def answer(self, protocol: EdgeProtocol, known: Unanswered) -> None:
        """Answer a request that the fast path has read, in a task of its own."""
        incoming = Incoming.read(protocol, known)
        task = self._loop.create_task(self._answer_known(incoming))
        self._answering.add(task)
        # Not the task itself: it may be cancelled before it begins.
        task.add_done_callback(self._over)

    async def _answer_known(self, incoming: Incoming) -> None:
        reply = await self._answer(incoming)
        await incoming.protocol.conclude(keep_alive=reply.keep_alive)

    async def _answer(self, incoming: Incoming) -> Reply:
        try:
            return await self._handler(incoming)
        except Exception as error:
            if not isinstance(error, ConnectionError):
                log.exception("a request was not answered")
            incoming.protocol.abort()
            return CLOSING
        finally:
            incoming.protocol.answered()

    def _over(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._check_quiet()
