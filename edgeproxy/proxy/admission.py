"""Who gets in when more is asked for than can be served: a line in front of the full path.

A fresh hit of the fast path costs a worker a tenth or less of what any other request does, and does
not come here. The others may take what hits leave of the processor, and a share of it whatever hits
want (`limits.miss_share`): while there are hits, what the event loop has done is looked at
(`Balance`) every millisecond that somebody waits, and the next in line get in as far as there is
something left. No more than `limits.max_requests` are inside at once.

What finds no place for `PATIENCE` seconds is refused, and that is paced in the same way: clients
who ask again at once would take the processor by being refused.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from edgeproxy.proxy.errors import EdgeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.config.server import Limits
    from edgeproxy.proxy.processor import Times

PATIENCE: Final = 2.0
"""Seconds in line after which a request is refused."""
LEAST_OFTEN: Final = 0.1
"""Seconds after which one request gets in, whatever hits there are."""
MOST_SAVED: Final = 0.005
MOST_OWED: Final = 0.05
"""Seconds of the processor that can be saved up, or taken in advance."""
AT_ONCE: Final = 16
"""So many get in before the event loop has looked for hits again."""

_TICK: Final = 0.001
"""Seconds between looks, as long as somebody waits."""
_CALM: Final = 0.25
"""Seconds without a hit after which nobody has to wait for hits."""
_PIECE: Final = 0.001
"""Seconds saved that another one gets in for; what that will cost is not known before."""
_OF_IDLE: Final = 4.0
"""Seconds of the processor that an idle second is good for. Idle time shows that hits leave some,
and there will be none where enough others get in: with one for each second, they would get no more
than half of what is left."""
_ALWAYS_IDLE: Final = 0.05
"""Part of the time that clients who want hits take to ask again, however many they are."""
_IDLE_WITHIN: Final = 0.1
"""Seconds over which idle time is averaged."""
_ENOUGH_HITS: Final = 8
"""So many at a look tell what one costs."""
_MIXED_FOR: Final = 2
"""Looks at which something may yet be done for a request that has begun or ended."""
_FOLLOWS: Final = 0.2
_DOUBTED: Final = 0.00002
"""How quickly the cost of a hit follows what is measured, and falls where nothing can be: as it is
measured only where nobody else gets in, it must not stay too high."""


class Overloaded(EdgeError):
    """More requests than the edge can serve beside its hits."""

    status = 503
    detail = "overloaded"

    def __init__(self, *, waited: bool) -> None:
        """`waited`: in line; if not, that was full."""
        super().__init__("more is asked for than can be served right now")
        # Who is refused at once would ask again at once. Of new connections, a round takes a few.
        self.ends_connection = not waited


@dataclass(frozen=True, slots=True)
class Balance:
    """What requests other than hits may still take of the processor, in seconds of it."""

    hit_cost: float = 5e-6
    """What a hit takes; rather too little, for it is found out only as long as hits go first."""
    saved: float = MOST_SAVED
    idle: float = 0.0
    """Part of the time of late in which there was nothing to do."""

    def after(self, spent: float, idle: float, hits: int, share: float, *, alone: bool) -> Balance:
        """When the event loop has spent so many seconds of the processor, for so many hits among
        other things, and has had nothing to do for `idle` seconds; `alone`: no other request has
        begun or ended meanwhile."""
        cost = self.hit_cost
        if not alone:
            cost *= 1 - _DOUBTED
        elif hits >= _ENOUGH_HITS:
            cost += (spent / hits - cost) * _FOLLOWS
        by_others = max(0.0, spent - hits * cost)
        time = spent + idle
        of_late = self.idle
        if time > 0:
            of_late += (idle / time - of_late) * min(1.0, time / _IDLE_WITHIN)
        share += _OF_IDLE * max(0.0, of_late - _ALWAYS_IDLE)
        saved = self.saved + share * time - by_others
        return Balance(cost, min(MOST_SAVED, max(-MOST_OWED, saved)), of_late)

    @property
    def room(self) -> int:
        """How many may get in."""
        return min(AT_ONCE, 1 + int(self.saved / _PIECE)) if self.saved > 0 else 0


class _Waiting(NamedTuple):
    until: float
    turn: asyncio.Future[None]


class Admission:
    """The line in front of the full path, of one worker. `async with` it to be inside.

    Raises `Overloaded` on entering. `at_once` is the same for requests that don't have to wait for
    hits, being something of the kind.
    """

    def __init__(
        self,
        limits: Limits,
        hits: Callable[[], int],
        times: Callable[[], Times],
    ) -> None:
        """`hits` tells how many there have been, and `times` those of the event loop's thread."""
        self._limits = limits
        self._count_hits, self._read_times = hits, times
        self.inside = 0
        """How many requests are under way."""
        self._line: deque[_Waiting] = deque()
        self._late: deque[asyncio.Future[None]] = deque()
        # When the line is looked at; none where nobody waits.
        self._next_look: asyncio.Handle | None = None
        self._balance = Balance()
        # When the balance was struck.
        self._times, self._hits = times(), 0
        self._hit_at = -math.inf
        """When the last hit was noticed."""
        # Looks at which something is still done for a request that has begun or ended.
        self._mixed = 0
        # How many did not have to wait in this tick.
        self._entered = 0
        self._let_in_at = 0.0
        self.at_once = _AtOnce(self)

    def configure(self, limits: Limits) -> None:
        """Go by these limits from now on."""
        self._limits = limits
        if self.waiting:
            self._look_in(0.0)

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return len(self._line) + len(self._late)

    async def __aenter__(self) -> None:
        if not self._line and self.has_room() and self._entered < self._room(self._read_times()):
            if not self._entered:
                # Timers wait for the event loop to look for hits, however long that takes.
                asyncio.get_running_loop().call_later(_TICK, self._begin_tick)
            self._entered += 1
            self.enter()
            return
        await self.wait()

    def _begin_tick(self) -> None:
        self._entered = 0

    def enter(self) -> None:
        """Be inside, whoever waits."""
        self._mixed = _MIXED_FOR
        self.inside += 1

    async def wait(self) -> None:
        """Wait in line, and be inside."""
        if self.waiting >= self._limits.max_waiting:
            raise Overloaded(waited=False)
        self._mixed = _MIXED_FOR
        turn = asyncio.get_running_loop().create_future()
        self._line.append(_Waiting(self._read_times().at + PATIENCE, turn))
        if self._next_look is None:
            self._look_in(_TICK)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # It was let in, and is gone at the same moment.
                self.leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """One is no longer inside."""
        self._mixed = _MIXED_FOR
        was_full = not self.has_room()
        self.inside -= 1
        if was_full and self._line:
            self._look_in(0.0)

    def has_room(self) -> bool:
        """Whether one more may be inside."""
        return self.inside < self._limits.max_requests

    # -- every now and then, as long as somebody waits

    def _look_in(self, seconds: float) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        loop = asyncio.get_running_loop()
        self._next_look = (
            loop.call_later(seconds, self._look) if seconds > 0 else loop.call_soon(self._look)
        )

    def _look(self) -> None:
        self._next_look = None
        times, line = self._read_times(), self._line
        now = times.at
        while line and (line[0].turn.done() or line[0].until <= now):
            self._late.append(line.popleft().turn)
        room = self._room(times)
        if not room and now >= self._let_in_at + LEAST_OFTEN:
            room = 1
        for _ in range(room):
            self._let_one_in(now)
            self._refuse_one()
        if self._late or (line and self.has_room()):
            self._look_in(0.0 if room == AT_ONCE else _TICK)
        elif line:
            self._look_in(max(line[0].until - now, _TICK))

    def _room(self, times: Times) -> int:
        """How many may get in now."""
        hits = self._count_hits()
        if hits != self._hits:
            if times.at >= self._hit_at + _CALM:
                # What was spent until now was not spent beside hits.
                self._times, self._hits = times, hits
            self._hit_at = times.at
        elif times.at >= self._hit_at + _CALM:
            return AT_ONCE
        self._settle(times, hits)
        return self._balance.room

    def _settle(self, times: Times, hits: int) -> None:
        before = self._times
        spent = times.spent - before.spent
        idle = max(0.0, times.at - before.at - spent - (times.waited - before.waited))
        self._balance = self._balance.after(
            spent,
            idle,
            hits - self._hits,
            self._limits.miss_share,
            alone=not self._mixed,
        )
        self._times, self._hits = times, hits
        self._mixed = max(0, self._mixed - 1)

    def _let_one_in(self, now: float) -> None:
        while self._line and self.has_room():
            turn = self._line.popleft().turn
            if not turn.done():
                self.enter()
                self._let_in_at = now
                turn.set_result(None)
                return

    def _refuse_one(self) -> None:
        while self._late:
            turn = self._late.popleft()
            if not turn.done():
                self._mixed = _MIXED_FOR
                turn.set_exception(Overloaded(waited=True))
                return


class _AtOnce:
    """`async with` it to be inside without waiting, unless there are too many."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def __aenter__(self) -> None:
        if self._admission.has_room():
            self._admission.enter()
        else:
            await self._admission.wait()

    async def __aexit__(self, *_: object) -> None:
        self._admission.leave()
