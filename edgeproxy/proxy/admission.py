"""Who gets in when there is more to do than can be done: requests by the full path wait in line.

A request that isn't a fresh hit costs twenty to forty times as much as one that is. So many may be
under way at once (`limits.max_requests`); and as long as the event loop has no idle moment while
readers ask for hits, only so many begin as take a small part of its time. What finds no place for
`PATIENCE` seconds is refused: not at once, so that clients who ask again make the less work.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeproxy.proxy.errors import EdgeError

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE: Final = 2.0
"""Seconds in line after which a request is refused."""
MAX_LINE: Final = 4096
"""Requests that wait in line; one more is refused at once."""

_PERIOD: Final = 0.05
"""Seconds between two looks at how busy the event loop is."""
_SATURATED: Final = 0.95
"""Share of the time from which on the loop has none to spare."""
_HITS_EACH: Final = 400
"""Hits that come before each request of the full path while the loop is saturated."""
_HITS_EACH_CONNECTION: Final = 40
_LEAST_CONNECTIONS: Final = 10
"""The same for connections, and how many may come at least in a period."""
_REMEMBERED: Final = 2.0
"""Seconds for which there are said to be hits after the last one: where they starve, they come in
rare bursts."""
_ROUND: Final = 16
"""Requests that begin in one round of the event loop. It takes one new connection in each, which
would wait for ever if a round were as long as a thousand requests take."""
_LESS: Final = 0.6
_MORE: Final = 1.5


class Overloaded(EdgeError):
    """More requests than the edge can serve beside its hits."""

    status = 503
    detail = "overloaded"

    def __init__(self) -> None:
        super().__init__("more is asked for than can be served right now")


class Admission:
    """The line in front of the full path, of one worker. `async with` it to be inside.

    Raises `Overloaded` on entering. Make it inside a running loop.
    """

    def __init__(self, max_requests: int, hits: Callable[[], int], busy: Callable[[], float]):
        """`hits` counts those of the fast path, and `busy` the seconds in which the loop's thread
        has run or wanted to."""
        self._loop = asyncio.get_running_loop()
        self._max_requests = max_requests
        self._inside = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self._hits, self._busy = hits, busy
        self._allowance = math.inf
        self._begun = self._this_round = 0
        self._looking: asyncio.TimerHandle | None = None
        self._last = (0.0, 0.0, 0)
        self._hit_at = -math.inf
        self._connections = 0
        self._connections_allowed = math.inf

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

    def connected(self) -> bool:
        """A new connection was made; False if there should be no more in this period."""
        self._start_looking()
        self._connections += 1
        return self._connections < self._connections_allowed

    async def __aenter__(self) -> None:
        self._start_looking()
        if not self._line and self._has_room():
            self._enter()
            return
        if len(self._line) >= MAX_LINE:
            raise Overloaded
        turn = self._loop.create_future()
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
        return (
            self._inside < self._max_requests
            and self._begun < self._allowance
            and self._this_round < _ROUND
        )

    def _enter(self) -> None:
        self._inside += 1
        self._begun += 1
        if not self._this_round:
            self._loop.call_soon(self._next_round)
        self._this_round += 1

    def _next_round(self) -> None:
        self._this_round = 0
        self._let_in()

    def _leave(self) -> None:
        self._inside -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._line and self._has_room():
            turn = self._line.popleft()
            if not turn.done():
                self._enter()
                turn.set_result(None)

    # -- how much beside the hits

    def _now(self) -> tuple[float, float, int]:
        return self._loop.time(), self._busy(), self._hits()

    def _start_looking(self) -> None:
        if self._looking is None:
            self._last = self._now()
            self._looking = self._loop.call_later(_PERIOD, self._look)

    def _look(self) -> None:
        before, self._last = self._last, self._now()
        seconds, busy, hits = (b - a for a, b in zip(before, self._last, strict=True))
        if hits:
            self._hit_at = self._last[0]
        begun, connections = self._begun, self._connections
        self._begun = self._connections = 0
        if busy >= _SATURATED * seconds and self._last[0] - self._hit_at < _REMEMBERED:
            least = max(1, int(hits) // _HITS_EACH)
            self._allowance = max(least, int(min(self._allowance, begun) * _LESS))
            least = max(_LEAST_CONNECTIONS, int(hits) // _HITS_EACH_CONNECTION)
            self._connections_allowed = least
        else:
            self._allowance = self._allowance * _MORE + 4
            if self._allowance >= MAX_LINE:
                self._allowance = math.inf
            self._connections_allowed = math.inf
        self._let_in()
        done = not (begun or connections or self._line or self._inside)
        if done and self._allowance == math.inf:
            self._looking = None
        else:
            self._looking = self._loop.call_later(_PERIOD, self._look)

    def close(self) -> None:
        """Look at the load no more."""
        if self._looking is not None:
            self._looking.cancel()


def thread_meter() -> Callable[[], float]:
    """The seconds in which the calling thread has run, or waited for a processor, so far.

    Without the waiting a machine that is busy otherwise would make the edge look idle.
    """
    path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    try:
        # Kept open: it is read when there may be no descriptor left.
        file = path.open("rb", buffering=0)
    except OSError:
        return time.thread_time

    def seconds() -> float:
        file.seek(0)
        running, waiting, _ = file.read().split()
        return (int(running) + int(waiting)) / 1e9

    return seconds
