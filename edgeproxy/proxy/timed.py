"""The time that one reader's connection has: for a request's head, to take answers, and to idle."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from aiohttp.web_protocol import RequestHandler

from edgeproxy.proxy.lingering import reset, untaken
from edgeproxy.proxy.pace import SHORTEST_WAIT, Pace, Unsent
from edgeproxy.proxy.refused import Refused

if TYPE_CHECKING:
    from edgeproxy.proxy.server import EdgeServer

_READ_BUFFER: Final = 64 * 1024


class TimedProtocol(RequestHandler):
    """aiohttp's connection handler, with time-outs of the edge's own in the place of its."""

    __slots__ = ("_busy", "_head_deadline", "_server", "_unsent", "limits")

    def __init__(self, server: EdgeServer, loop: asyncio.AbstractEventLoop) -> None:
        limits = server.limits
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=limits.keepalive_timeout,
            access_log=None,  # type: ignore[arg-type]  # the edge has its own
            max_line_size=limits.head_bytes,
            max_field_size=limits.head_bytes,
            max_headers=limits.max_fields,
            lingering_time=0,
            read_bufsize=_READ_BUFFER,
            auto_decompress=False,
        )
        self.limits = limits
        self._server = server
        # A request is being answered.
        self._busy = False
        self._head_deadline: float | None = None
        # What a slow client has yet to take of fast answers.
        self._unsent: Unsent | None = None

    @abstractmethod
    def _refuse(self, refused: Refused) -> None:
        """Answer what is no request that a handler could answer, and end the connection."""

    @abstractmethod
    def _end(self, *, idle: bool = False) -> None:
        """Close the connection so that the client can read the last answer; `idle`: it has."""

    # -- for the client to take an answer

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written.

        Raises ConnectionError when it is gone, or takes nothing or too little for too long.
        """
        pace = self._pace()
        while self._paused:
            transport = self.transport
            if transport is None:
                raise ConnectionResetError("the client is gone")
            unsent, seconds = untaken(transport), pace.left
            try:
                async with asyncio.timeout(seconds):
                    await self._drain_helper()
            except ConnectionError as error:
                # It is the result of the future that a frame of its own traceback has: all that
                # was being sent would be kept until the garbage is collected.
                error.__traceback__ = None
                raise ConnectionResetError("the client is gone") from None
            except TimeoutError:
                self._drain_waiter = None
                pace.note(seconds, unsent - untaken(transport))
                if pace.left < SHORTEST_WAIT:
                    self.stalled()
                    raise ConnectionResetError("the client has stopped reading") from None

    def abort(self) -> None:
        """Break the connection off with a reset, which nobody takes for the end of a body."""
        if self.transport is not None:
            reset(self.transport)

    def stalled(self) -> None:
        """Break the connection off because the client takes nothing, or too little."""
        self._server.count("reader-stalled")
        self.abort()

    def _pace(self) -> Pace:
        return Pace(self.limits.body_idle_timeout, self.limits.min_body_rate)

    def _patience(self, now: float) -> float:
        """Seconds that the client still has before it must have taken more of fast answers."""
        assert self.transport is not None
        unsent = untaken(self.transport)
        if self._unsent is None:
            self._unsent = Unsent(self._pace(), now, unsent)
        return self._unsent.patience(now, unsent)

    def _unsent_bytes(self) -> int:
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    # -- for a head, and to idle

    def _await_first(self, seconds: float) -> None:
        """Give the client so long for the next request's head."""
        self._next_keepalive_close_time = self._loop.time() + seconds
        self._arm(self._next_keepalive_close_time)

    def _expect_head_end(self) -> None:
        if self._head_deadline is None:
            # A connection's first head has been due since it was made.
            self._head_deadline = (
                self._loop.time() + self.limits.header_timeout
                if self._request_count
                else self._next_keepalive_close_time
            )
            self._arm(self._head_deadline)

    def _may_idle(self) -> None:
        """Count the time that the connection may idle from now on."""
        self._next_keepalive_close_time = self._loop.time() + self.limits.keepalive_timeout

    def _arm(self, when: float) -> None:
        self._disarm()
        self._keepalive_handle = self._loop.call_at(when, self._process_keepalive)

    def _disarm(self) -> None:
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
            self._keepalive_handle = None

    def _process_keepalive(self) -> None:
        self._keepalive_handle = None
        if self._force_close or self._busy:
            # It is set again when the answer is sent.
            return
        deadline = self._head_deadline
        if deadline is None:
            deadline = self._next_keepalive_close_time
        now = self._loop.time()
        if now < deadline:
            self._arm(deadline)
        elif self._unsent_bytes():
            # The answer to a fast hit, on its way to a client that takes it slowly.
            if (patience := self._patience(now)) < SHORTEST_WAIT:
                self.stalled()
            else:
                self._arm(now + patience)
        elif self._head_deadline is not None:
            self._refuse(Refused(408, "head-timeout"))
        else:
            self._end(idle=True)
