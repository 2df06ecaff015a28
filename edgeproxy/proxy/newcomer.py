"""New connections, until an event loop needs to know of them.

A transport is several objects and as many system calls. Who makes a connection for each request has
its answer, and is gone, for less than that.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from edgeproxy.proxy.framing import HEAD_END
from edgeproxy.proxy.lingering import RESET_ON_CLOSE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from edgeproxy.proxy.arrivals import Arrivals
    from edgeproxy.proxy.deciding import Unanswered
    from edgeproxy.proxy.fast import FastPath

_READ_BYTES: Final = 16 * 1024
_NOW: Final = socket.MSG_DONTWAIT


class Newcomer:
    """A socket that was just accepted, and to the fast path the transport that it needs.

    What is written goes out at once, as far as the kernel takes it; the rest is `unsent`.
    """

    __slots__ = (
        "_arrivals", "_peer", "answered", "deadline", "ended", "known", "rest", "sock", "unsent",
    )  # fmt: skip

    def __init__(
        self, arrivals: Arrivals, sock: socket.SocketType, peer: Any, deadline: float
    ) -> None:
        """`peer` is the client's address as `accept` gave it; its first request is due at
        `deadline`, by the event loop's clock."""
        self.sock = sock
        self.deadline = deadline
        self._arrivals = arrivals
        self._peer = peer
        self.answered = False
        """It has had an answer."""
        self.ended = False
        """There is nothing more for it: its last answer was given."""
        self.rest = b""
        """What it has sent besides what was answered."""
        self.known: Unanswered | None = None
        """The request at the beginning of that, where the fast path has read it."""
        self.unsent = b""

    def greet(self, fast: FastPath) -> bool | None:
        """Answer what has come. True: that was all, and the connection is closed; None: nothing has
        come yet; False: it goes on."""
        try:
            data = self.sock.recv(_READ_BYTES, _NOW)
            if data:
                # It is no more than its few methods that the fast path calls.
                transport = cast("asyncio.Transport", self)
                rest = fast.answer(transport, fast.peers_of(transport), data)
                if rest is not None:
                    self.rest, self.known = rest, fast.unanswered
                    self.answered = len(rest) < len(data)
                    return False
                if self.unsent or not ends_here(data):
                    self.ended = self.answered = True
                    return False
        except BlockingIOError:
            return None
        except OSError:
            # The client is gone.
            pass
        self.sock.close()
        return True

    def turn_away(self, answer: bytes) -> None:
        """Answer so whatever it may want, and close the connection."""
        with suppress(OSError):
            # What is left unread would have the answer be lost.
            self.sock.recv(_READ_BYTES, _NOW)
        with suppress(OSError):
            self.sock.send(answer, _NOW)
        self.sock.close()

    def forsake(self) -> None:
        """Close the connection without a word."""
        self.sock.close()

    # -- the transport

    def write(self, data: bytes) -> None:
        """Send it, or keep what can't be. Raises OSError."""
        if not self.unsent:
            try:
                sent = self.sock.send(data, _NOW)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self.unsent += data

    def writelines(self, parts: Sequence[bytes]) -> None:
        """As `write`, for several."""
        sent = 0
        if not self.unsent:
            try:
                sent = self.sock.sendmsg(parts, (), _NOW)
            except BlockingIOError:
                sent = 0
        if sent < sum(map(len, parts)):
            self.unsent += b"".join(parts)[sent:]

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._peer if name == "peername" else default

    # -- the connection, while nothing has come

    def check(self, now: float) -> None:
        """End it if its first request is late."""
        if now >= self.deadline:
            self._close()

    def close_idle(self) -> bool:
        """It waits to be answered, and is not closed to make room for others."""
        return False

    def begin_drain(self) -> None:
        """It may ask once first."""
        self.deadline = min(self.deadline, self._arrivals.fresh_until())

    def abort(self) -> None:
        """Break it off."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._close()

    def _close(self) -> None:
        self._arrivals.gone(self)
        self.sock.close()


class Waiting:
    """Newcomers from whom nothing has come yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop, come: Callable[[Newcomer], None]) -> None:
        """`come` is told of each from whom something has."""
        self._loop = loop
        self._come = come
        self._newcomers: dict[int, Newcomer] = {}
        self._poll = select.epoll()
        loop.add_reader(self._poll.fileno(), self._look)

    def add(self, newcomer: Newcomer) -> None:
        """Wait for its request."""
        number = newcomer.sock.fileno()
        self._newcomers[number] = newcomer
        self._poll.register(number, select.EPOLLIN | select.EPOLLONESHOT)

    def remove(self, newcomer: Newcomer) -> None:
        """It is about to be closed."""
        self._newcomers.pop(newcomer.sock.fileno(), None)

    def forget(self, newcomer: Newcomer) -> None:
        """Something else waits for what comes from it, now that something has."""
        self._poll.unregister(newcomer.sock)

    def close(self) -> None:
        """Wait for nobody any more."""
        self._loop.remove_reader(self._poll.fileno())
        self._poll.close()

    def _look(self) -> None:
        for number, _ in self._poll.poll(0):
            self._come(self._newcomers.pop(number))


def ends_here(data: bytes) -> bool:
    """Whether `data` is one head without a body and nothing behind it, so that nothing can be on
    its way whose arrival at a closed connection would destroy the answer (RFC 9112 9.6)."""
    return data.find(HEAD_END) == len(data) - len(HEAD_END)
