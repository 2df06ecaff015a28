"""Who gets in when more is asked for than can be served: a line in front of the full path.

So many requests may be under way at once (`limits.max_requests`); the next ones wait, and what
finds no place for `PATIENCE` seconds is refused: not at once, so that clients who ask again make
the less work. Fresh hits of the fast path don't come here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from edgeproxy.proxy.errors import EdgeError

PATIENCE: Final = 2.0
"""Seconds in line after which a request is refused."""
MAX_LINE: Final = 4096
"""Requests that wait in line; one more is refused at once."""


class Overloaded(EdgeError):
    """More requests than the edge can serve beside its hits."""

    status = 503
    detail = "overloaded"

    def __init__(self) -> None:
        super().__init__("more is asked for than can be served right now")


class Admission:
    """The line in front of the full path, of one worker. `async with` it to be inside.

    Raises `Overloaded` on entering.
    """

    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self._inside = 0
        self._line: deque[asyncio.Future[None]] = deque()

    def configure(self, max_requests: int) -> None:
        """Go by that limit from now on."""
        self._max_requests = max_requests
        self._let_in()

    @property
    def inside(self) -> int:
        """How many requests are under way."""
        return self._inside

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return len(self._line)

    async def __aenter__(self) -> None:
        if not self._line and self._has_room():
            self._inside += 1
            return
        if len(self._line) >= MAX_LINE:
            raise Overloaded
        turn = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            async with asyncio.timeout(PATIENCE):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                # It was let in, and is gone at the same moment.
                self._leave()
            else:
                self._line.remove(turn)
            if isinstance(error, TimeoutError):
                raise Overloaded from None
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _has_room(self) -> bool:
        return self._inside < self._max_requests

    def _leave(self) -> None:
        self._inside -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._line and self._has_room():
            turn = self._line.popleft()
            if not turn.done():
                self._inside += 1
                turn.set_result(None)
