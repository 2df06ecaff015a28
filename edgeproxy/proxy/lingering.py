"""How a reader's connection ends: the last answer arrives, or nobody takes it for a whole one.

Closing with bytes unread makes the kernel send a reset, which may destroy an answer on its way (RFC
9112 9.6). A body that could not be sent whole must not end like one that was.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from edgeproxy.proxy.pace import Pace

LINGER: Final = 2.0
"""Seconds that a client has to close its end once the edge has closed its own."""

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""With this as SO_LINGER, close() sends a reset instead of an orderly end: on, after 0 seconds."""


def reset(transport: asyncio.Transport) -> None:
    """Break a connection off with a reset, which nobody takes for the end of a body."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    transport.abort()


def untaken(transport: asyncio.Transport) -> int:
    """How many bytes that were written the client has not confirmed: those that the transport has,
    and those that the system has. The transport's alone don't tell a slow client from one that has
    stopped: the system takes more when a third of its buffer is free, which may be megabytes."""
    sock = transport.get_extra_info("socket")
    number = -1 if sock is None else sock.fileno()
    return transport.get_write_buffer_size() + (unconfirmed(number) if number >= 0 else 0)


def unconfirmed(descriptor: int) -> int:
    """How many bytes the system has for a socket that the other end has not confirmed."""
    answer: bytes = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    return int(struct.unpack("i", answer)[0])


class Lingering:
    """Waits for the client to close a connection whose other direction has ended.

    It is given `LINGER` seconds, and more while it still takes what was sent, at that pace.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        pace: Pace,
        stalled: Callable[[], None],
    ) -> None:
        """`stalled` is called when the client is too slow, and breaks the connection off."""
        self._transport = transport
        self._loop = loop
        self._pace = pace
        self._stalled = stalled
        self._unsent = untaken(transport)
        self._handle = loop.call_later(LINGER, self._look)

    def cancel(self) -> None:
        """The connection is gone."""
        self._handle.cancel()

    def _look(self) -> None:
        left = untaken(self._transport)
        self._pace.note(LINGER, max(0, self._unsent - left))
        if not left and not self._unsent:
            self._transport.abort()
            return
        if not self._pace.left:
            self._stalled()
            return
        self._unsent = left
        self._handle = self._loop.call_later(LINGER, self._look)
