"""A reader's connection for as long as it has nothing but fresh hits.

What aiohttp needs for a connection, a parser and a task among it, costs more than the answer to a
hit. It is made when the first request comes that the fast path leaves.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from edgeproxy.proxy.lingering import LINGER, reset, untaken
from edgeproxy.proxy.newcomer import ends_here
from edgeproxy.proxy.pace import Pace, Unsent
from edgeproxy.proxy.protocol import FRESH_GRACE, EdgeProtocol

if TYPE_CHECKING:
    from edgeproxy.proxy.deciding import Unanswered
    from edgeproxy.proxy.fast import FastPath, Peers
    from edgeproxy.proxy.newcomer import Newcomer
    from edgeproxy.proxy.server import EdgeServer


class LightProtocol(asyncio.Protocol):
    """Answers by the fast path, and gives the connection over to an `EdgeProtocol` at the first
    request that is for the full one."""

    __slots__ = (
        "_answered", "_deadline", "_ended", "_fast", "_loop", "_newcomer", "_paused", "_peers",
        "_server", "_transport", "_unsent", "arriving", "limits",
    )  # fmt: skip

    _transport: asyncio.Transport
    _peers: Peers

    def __init__(
        self,
        server: EdgeServer,
        loop: asyncio.AbstractEventLoop,
        fast: FastPath,
        newcomer: Newcomer | None = None,
    ) -> None:
        """`newcomer`: what has become of the connection before there was a transport for it."""
        self.limits = server.limits
        self._server = server
        self._loop = loop
        self._fast = fast
        self._newcomer = newcomer
        self.arriving = True
        """There is no transport yet."""
        self._answered = self._ended = self._paused = False
        self._deadline = 0.0
        # With a client that has not taken all of what was sent.
        self._unsent: Unsent | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.arriving = False
        self._peers = self._fast.peers_of(self._transport)
        self._deadline = self._loop.time() + self._server.patience
        if not self._server.opened(self, self._transport):
            self._turn_away()
        elif self._newcomer is not None:
            self._go_on(self._newcomer)

    def _go_on(self, newcomer: Newcomer) -> None:
        self._newcomer = None
        self._answered = newcomer.answered
        if newcomer.unsent:
            self._transport.write(newcomer.unsent)
        if newcomer.ended:
            self._end()
            return
        if not newcomer.answered:
            self._deadline = min(self._deadline, newcomer.deadline)
        elif not self._server.draining:
            self._deadline = self._loop.time() + self.limits.keepalive_timeout
        if newcomer.rest:
            self._give_over(newcomer.rest, newcomer.known)

    def _turn_away(self) -> None:
        """Say that this client has too many connections. There is no waiting for it to close: it
        could have more of them meanwhile."""
        self._ended = True
        self._transport.write(self._server.turned_away(self._transport))
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._server.closed(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        known = None
        if not (self._paused or self._server.draining):
            rest = self._fast.answer(self._transport, self._peers, data)
            if rest is None:
                self._end(at_once=ends_here(data))
                return
            if len(rest) < len(data):
                self._answered = True
                self._deadline = self._loop.time() + self.limits.keepalive_timeout
            data = rest
            known = self._fast.unanswered
        if data and not self._transport.is_closing():
            self._give_over(data, known)

    def _end(self, *, at_once: bool = False) -> None:
        """End the edge's own direction, drop what still comes in, and wait for the client to close:
        a reset could take the last answer from it (RFC 9112 9.6). `at_once`: nothing comes in."""
        self._ended = True
        self._deadline = self._loop.time() + LINGER
        if not at_once and self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _give_over(self, data: bytes, known: Unanswered | None) -> None:
        transport, now = self._transport, self._loop.time()
        full = EdgeProtocol(self._server, self._loop)
        transport.set_protocol(full)
        full.connection_made(transport)
        self._server.closed(self)
        full.continue_after(answered=self._answered, head_within=max(0.0, self._deadline - now))
        if self._paused:
            full.pause_writing()
        if known is None:
            full.data_received(data)
        else:
            full.take_up(known, data)

    def check(self, now: float) -> None:
        """Called now and then: end a connection that idles, or whose client has stopped reading,
        for longer than it may."""
        if self._transport.get_write_buffer_size():
            unsent = untaken(self._transport)
            if self._unsent is None:
                pace = Pace(self.limits.body_idle_timeout, self.limits.min_body_rate)
                self._unsent = Unsent(pace, now, unsent)
            if not self._unsent.patience(now, unsent):
                self._server.count("reader-stalled")
                self.abort()
        elif self._unsent is not None:
            self._unsent = None
            idle = FRESH_GRACE if self._server.draining else self.limits.keepalive_timeout
            self._deadline = now + (LINGER if self._ended else idle)
        elif now >= self._deadline:
            self._transport.close()

    def close_idle(self) -> bool:
        """Close the connection if it has had an answer and waits for nothing; whether it did."""
        if (
            self.arriving
            or not self._answered
            or self._ended
            or self._transport.get_write_buffer_size()
        ):
            return False
        self._ended = True
        self._transport.close()
        return True

    def begin_drain(self) -> None:
        """It may ask once more: its client may be about to, and know of no end yet."""
        if not self.arriving:
            self._deadline = min(self._deadline, self._loop.time() + FRESH_GRACE)

    def abort(self) -> None:
        """Break the connection off."""
        if not self.arriving:
            reset(self._transport)
