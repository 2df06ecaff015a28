"""A reader's connection for as long as it has nothing but fresh hits.

What aiohttp needs for a connection, a parser and a task among it, costs more than the answer to a
hit. It is made when the first request comes that the fast path leaves.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from edgeproxy.proxy.lingering import LINGER, reset
from edgeproxy.proxy.protocol import FRESH_GRACE, EdgeProtocol

if TYPE_CHECKING:
    from edgeproxy.proxy.fast import FastPath, Peers
    from edgeproxy.proxy.server import EdgeServer


class LightProtocol(asyncio.Protocol):
    """Answers by the fast path, and gives the connection over to an `EdgeProtocol` at the first
    request that is for the full one."""

    __slots__ = (
        "_answered", "_deadline", "_ended", "_fast", "_loop", "_paused", "_peers", "_server",
        "_transport", "_unsent", "limits",
    )  # fmt: skip

    _transport: asyncio.Transport
    _peers: Peers

    def __init__(self, server: EdgeServer, loop: asyncio.AbstractEventLoop, fast: FastPath) -> None:
        self.limits = server.limits
        self._server = server
        self._loop = loop
        self._fast = fast
        self._answered = self._ended = self._paused = False
        self._unsent = 0
        self._deadline = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._peers = self._fast.peers_of(self._transport)
        patience = FRESH_GRACE if self._server.draining else self.limits.header_timeout
        self._deadline = self._loop.time() + patience
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._server.closed(self)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if not (self._paused or self._server.draining):
            rest = self._fast.answer(self._transport, self._peers, data)
            if rest is None:
                self._end()
                return
            if len(rest) < len(data):
                self._answered = True
                self._deadline = self._loop.time() + self.limits.keepalive_timeout
            data = rest
        if data and not self._transport.is_closing():
            self._give_over(data)

    def _end(self) -> None:
        """End the edge's own direction, drop what still comes in, and wait for the client to close:
        a reset could take the last answer from it (RFC 9112 9.6)."""
        self._ended = True
        self._deadline = self._loop.time() + LINGER
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _give_over(self, data: bytes) -> None:
        transport, now = self._transport, self._loop.time()
        full = EdgeProtocol(self._server, self._loop)
        transport.set_protocol(full)
        full.connection_made(transport)
        self._server.closed(self)
        full.continue_after(answered=self._answered, head_within=max(0.0, self._deadline - now))
        if self._paused:
            full.pause_writing()
        full.data_received(data)

    def check(self, now: float) -> None:
        """Called now and then: end a connection that idles, or whose client has stopped reading,
        for longer than it may."""
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent = unsent
            limits = self.limits
            self._deadline = now + (
                limits.body_idle_timeout if unsent else limits.keepalive_timeout
            )
        elif now >= self._deadline:
            if unsent:
                self.abort()
            else:
                self._transport.close()

    def begin_drain(self) -> None:
        """Close the connection, once what was answered is sent; a new one may ask once first."""
        if self._answered:
            self._transport.close()
        else:
            self._deadline = min(self._deadline, self._loop.time() + FRESH_GRACE)

    def abort(self) -> None:
        """Break the connection off."""
        reset(self._transport)
