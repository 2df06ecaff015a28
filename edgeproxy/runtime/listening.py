"""Taking readers' connections, as long as there is room for one more.

What an event loop does when a process has no file descriptor left is to take a connection and close
it at once (libuv). So connections are left to wait at the socket before it comes to that, and are
taken in again once others have gone.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeproxy.proxy.server import EdgeServer

log = logging.getLogger(__name__)

_AT_ONCE: Final = 16
"""Connections that are taken before others of the event loop have their turn."""
_BESIDE_HITS: Final = 4
"""The same where there are hits of other connections, each of which takes a fourth of what a hit of
a new one does."""
_MANY_HITS: Final = 24
"""Of others, since connections were taken the last time."""
_WANTS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What accept(2) fails with for want of something that others have."""
_LOOK_SECONDS: Final = 0.05
_CALM_SECONDS: Final = 10.0
"""After so long with room the next time that there is none is worth a line of the log."""

_WHY: Final = {
    "connections-full": "as many are open as limits.max_connections allows",
    "files-low": "the files that this process may have open (RLIMIT_NOFILE) are nearly used up",
}


def raise_file_limit() -> None:
    """Let this process, and those that it forks, have as many files open as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def file_limit() -> int:
    """How many files this process may have open."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if most != resource.RLIM_INFINITY else 1 << 20


class Listening:
    """A worker's listening sockets, each with what the event loop is told of its TLS, if any."""

    def __init__(
        self,
        server: EdgeServer,
        sockets: Sequence[tuple[socket.socket, Mapping[str, Any]]],
    ) -> None:
        self._server = server
        self._sockets = sockets
        self._pausing: asyncio.Task[None] | None = None
        self._told_at = -_CALM_SECONDS
        # At the last time that connections were taken, and how many those were.
        self._hits = self._taken = 0

    def start(self) -> None:
        """Take connections from now on."""
        loop = asyncio.get_running_loop()
        for sock, tls in self._sockets:
            sock.setblocking(False)
            loop.add_reader(sock, self._accept, sock, int(sock.family), int(sock.type), tls)

    def close(self) -> None:
        """Take no more."""
        if self._pausing is not None:
            self._pausing.cancel()
        self._stop()

    def _stop(self) -> None:
        loop = asyncio.get_running_loop()
        for sock, _ in self._sockets:
            loop.remove_reader(sock)

    def _accept(
        self, listening: socket.socket, family: int, kind: int, tls: Mapping[str, Any]
    ) -> None:
        capacity = self._server.crowd.capacity
        hits, self._hits = self._hits, self._server.hits
        others = self._hits - hits - self._taken
        self._taken = 0
        for _ in range(_AT_ONCE if others < _MANY_HITS else _BESIDE_HITS):
            try:
                # What `accept` does besides costs as much as half an answer.
                number, peer = listening._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _WANTS:
                    # Whoever it was is gone again.
                    continue
                self._pause("files-low")
                return
            # Whatever is opened gets the lowest descriptor that is free: all below are in use.
            if number >= capacity.files:
                self._pause("files-low")
            elif self._server.open_connections + 1 >= capacity.connections:
                self._pause("connections-full")
            self._taken += 1
            self._server.take(socket.SocketType(family, kind, 0, number), peer, tls)
            if self._pausing is not None:
                return

    def _short_of(self) -> str | None:
        """What there is not enough of for one more connection."""
        capacity = self._server.crowd.capacity
        if self._server.open_connections >= capacity.connections:
            return "connections-full"
        try:
            number = os.dup(self._sockets[0][0].fileno())
        except OSError:
            return "files-low"
        os.close(number)
        return "files-low" if number >= capacity.files else None

    def _pause(self, why: str) -> None:
        if self._pausing is not None:
            return
        self._stop()
        self._pausing = asyncio.get_running_loop().create_task(self._wait_for_room(why))

    async def _wait_for_room(self, why: str) -> None:
        loop = asyncio.get_running_loop()
        self._server.count(why)
        if loop.time() - self._told_at >= _CALM_SECONDS:
            log.warning("new connections wait until others end: %s", _WHY[why])
        while True:
            self._server.make_room()
            self._told_at = loop.time()
            await asyncio.sleep(_LOOK_SECONDS)
            if self._short_of() is None:
                break
        self._pausing = None
        self.start()
