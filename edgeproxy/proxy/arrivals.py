"""Connections that were just accepted, until each has a protocol or is over.

Whoever makes one for each request has its answer without either: see `Newcomer`.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from edgeproxy.proxy.intake import address_of
from edgeproxy.proxy.light import LightProtocol
from edgeproxy.proxy.newcomer import Newcomer, Waiting
from edgeproxy.proxy.protocol import FRESH_GRACE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.proxy.fast import FastPath
    from edgeproxy.proxy.server import EdgeServer

_SETTLES_SECONDS = 0.01


class Arrivals:
    """Takes connections in for a server, whose fresh hits `fast` answers."""

    def __init__(self, server: EdgeServer, fast: FastPath) -> None:
        """Within the running loop."""
        self._server = server
        self._fast = fast
        self._loop = asyncio.get_running_loop()
        self._waiting = Waiting(self._loop, self._come)
        # Those of whom it is yet to be seen whether there is room for them.
        self._unsure: dict[Newcomer, asyncio.TimerHandle] = {}
        self._first_hits = 0
        # Those that have no transport yet.
        self._arriving: dict[LightProtocol, asyncio.Task[None]] = {}

    @property
    def open_connections(self) -> int:
        """How many connections there are."""
        return self._server.open_connections + len(self._unsure)

    @property
    def later_hits(self) -> int:
        """How many fresh hits of the fast path there have been that were not the first thing on a
        connection."""
        return self._fast.hits - self._first_hits

    def take(
        self, sock: socket.SocketType, peer: Any, tls: Mapping[str, Any] | None = None
    ) -> None:
        """Take a connection that was just accepted from `peer`; `tls`: what the event loop is told
        where it begins with a handshake."""
        newcomer = Newcomer(self, sock, peer, self._loop.time() + self._server.patience)
        client = address_of(peer)
        if self._server.crowd.has_room(client):
            self._welcome(newcomer, tls)
        else:
            # Another of its connections may have ended before, and the event loop is yet to tell.
            self._unsure[newcomer] = self._loop.call_later(
                _SETTLES_SECONDS, self._welcome_or_not, newcomer, client, tls
            )

    def _welcome_or_not(
        self, newcomer: Newcomer, client: str, tls: Mapping[str, Any] | None
    ) -> None:
        del self._unsure[newcomer]
        if self._server.crowd.has_room(client):
            self._welcome(newcomer, tls)
            return
        answer = self._server.turned_away(newcomer)
        if tls:
            # To tell it, the edge would have to go through a handshake with whoever has too many.
            newcomer.forsake()
        else:
            newcomer.turn_away(answer)

    def _welcome(self, newcomer: Newcomer, tls: Mapping[str, Any] | None) -> None:
        if tls:
            # It counts from now on, however long it takes over the handshake.
            self._arrive(newcomer, LightProtocol(self._server, self._loop, self._fast), tls)
            return
        greeted = None if self._server.draining else self._greet(newcomer)
        if greeted is None:
            self._waiting.add(newcomer)
            self._server.opened(newcomer, newcomer)
        elif not greeted:
            self._hand_over(newcomer)

    def _come(self, newcomer: Newcomer) -> None:
        """Something has come from one who was waited for."""
        self._server.closed(newcomer)
        if self._server.draining or not self._greet(newcomer):
            self._waiting.forget(newcomer)
            self._hand_over(newcomer)

    def _greet(self, newcomer: Newcomer) -> bool | None:
        before = self._fast.hits
        greeted = newcomer.greet(self._fast)
        self._first_hits += self._fast.hits - before
        return greeted

    def gone(self, newcomer: Newcomer) -> None:
        """One who is waited for is about to be closed."""
        self._waiting.remove(newcomer)
        self._server.closed(newcomer)

    def fresh_until(self) -> float:
        """Until when a connection without any request yet may send one when the edge drains."""
        return self._loop.time() + FRESH_GRACE

    def _hand_over(self, newcomer: Newcomer) -> None:
        # Its client may have had an answer already, and come with another connection.
        protocol = LightProtocol(self._server, self._loop, self._fast, newcomer)
        self._arrive(newcomer, protocol, {})

    def _arrive(self, newcomer: Newcomer, protocol: LightProtocol, tls: Mapping[str, Any]) -> None:
        self._server.enter(protocol, newcomer)
        sock = newcomer.sock
        full = socket.socket(sock.family, sock.type, sock.proto, sock.detach())
        full.setblocking(False)
        self._arriving[protocol] = self._loop.create_task(self._make_transport(full, protocol, tls))

    async def _make_transport(
        self, sock: socket.socket, protocol: LightProtocol, tls: Mapping[str, Any]
    ) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, sock, **tls)
        except OSError:
            sock.close()
        finally:
            del self._arriving[protocol]
            if protocol.arriving:
                sock.close()
                self._server.leave(protocol)

    def close(self) -> None:
        """Wait for nobody any more."""
        for newcomer, timer in self._unsure.items():
            timer.cancel()
            newcomer.forsake()
        self._unsure.clear()
        for task in self._arriving.values():
            task.cancel()
        self._waiting.close()
