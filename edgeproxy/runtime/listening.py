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
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeproxy.proxy.arrivals import Arrivals
    from edgeproxy.proxy.server import EdgeServer

log = logging.getLogger(__name__)

_AT_ONCE: Final = 16
"""Connections that are taken before others of the event loop have their turn."""
_HITS_FOR_ONE: Final = 20
_HITS_FOR_HANDSHAKE: Final = 80
"""Of other connections, while there are any at each look, for each new connection, and for each
that begins with TLS: it takes as much of the processor as a fourth of them or so."""
_LEAST_OFTEN: Final = 0.002
"""Seconds for each of those that are taken whatever hits there are."""
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


@dataclass(frozen=True, slots=True)
class Turn:
    """What one look at a listening socket, of many, came to."""

    at: float = 0.0
    """When a connection was taken the last time, in seconds."""
    hits: int = 0
    """On connections that had been taken before, until now."""
    saved: int = 0
    """Those of them that no connection was taken for yet."""

    def next(self, now: float, hits: int, price: int) -> tuple[int, Turn]:
        """How many connections may be taken at the next look, at `price` hits each."""
        if hits == self.hits:
            # An event loop that has nothing but connections to see to goes on with them.
            return _AT_ONCE, Turn(now, hits)
        saved = self.saved + hits - self.hits
        room = max(saved // price, int((now - self.at) / _LEAST_OFTEN))
        if not room:
            return 0, Turn(self.at, hits, saved)
        return min(room, _AT_ONCE), Turn(now, hits, saved % price)


@dataclass(slots=True)
class _Door:
    sock: socket.socket
    family: int
    kind: int
    tls: Mapping[str, Any]
    """What the event loop is told of its TLS, if any."""
    turn: Turn = field(default_factory=Turn)

    @property
    def price(self) -> int:
        return _HITS_FOR_HANDSHAKE if self.tls else _HITS_FOR_ONE


class Listening:
    """A worker's listening sockets, each with what the event loop is told of its TLS, if any."""

    def __init__(
        self,
        server: EdgeServer,
        arrivals: Arrivals,
        sockets: Sequence[tuple[socket.socket, Mapping[str, Any]]],
    ) -> None:
        self._server, self._arrivals = server, arrivals
        self._doors = [_Door(sock, int(sock.family), int(sock.type), tls) for sock, tls in sockets]
        self._pausing: asyncio.Task[None] | None = None
        self._told_at = -_CALM_SECONDS

    def start(self) -> None:
        """Take connections from now on."""
        loop = asyncio.get_running_loop()
        for door in self._doors:
            door.sock.setblocking(False)
            loop.add_reader(door.sock, self._accept, door)

    def close(self) -> None:
        """Take no more, for good. Once is enough, and more does no harm."""
        if self._pausing is not None:
            self._pausing.cancel()
        self._stop()
        self._doors.clear()

    def _stop(self) -> None:
        loop = asyncio.get_running_loop()
        for door in self._doors:
            loop.remove_reader(door.sock)

    def _accept(self, door: _Door) -> None:
        capacity = self._server.crowd.capacity
        now = time.monotonic()
        room, door.turn = door.turn.next(now, self._arrivals.later_hits, door.price)
        for _ in range(room):
            try:
                # What `accept` does besides costs as much as half an answer.
                number, peer = door.sock._accept()  # type: ignore[attr-defined]
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
            elif self._arrivals.open_connections + 1 >= capacity.connections:
                self._pause("connections-full")
            sock = socket.SocketType(door.family, door.kind, 0, number)
            self._arrivals.take(sock, peer, door.tls)
            if self._pausing is not None:
                return

    def _short_of(self) -> str | None:
        """What there is not enough of for one more connection."""
        capacity = self._server.crowd.capacity
        if self._arrivals.open_connections >= capacity.connections:
            return "connections-full"
        try:
            number = os.dup(self._doors[0].sock.fileno())
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
