"""Who gets in when more is asked for than can be served: a line in front of the full path.

A fresh hit of the fast path costs a worker a tenth or less of what any other request does, and does
not come here. The others may take all of the processor that hits leave; while hits would use all of
it themselves, they get a share (`limits.miss_share`). So, while there are hits, in each round of
the event loop the next request in line gets in where the round has had none, or where the share has
something left (`Balance`). No more than `limits.max_requests` are inside at once.

What finds no place for `PATIENCE` seconds is refused, and that is paced in the same way: clients
who ask again at once would take the processor by being refused.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from edgeproxy.proxy.errors import EdgeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.config.server import Limits

PATIENCE: Final = 2.0
"""Seconds in line after which a request is refused."""
LEAST_OFTEN: Final = 0.1
"""Seconds after which one request gets in, whatever hits there are."""
MOST_SAVED: Final = 0.005
MOST_OWED: Final = 0.05
"""Seconds of the share that can be saved up, or taken in advance."""

_CALM: Final = 0.25
"""Seconds without a hit after which nobody has to wait for hits."""
_PIECE: Final = 0.001
"""Seconds of the share that another one gets in for; what that will cost is not known before."""
_MOST_AT_ONCE: Final = 4
"""So many get in at once where there are neither hits nor new connections."""
_BETWEEN: Final = 0.002
"""Seconds after which one gets in, whatever new connections there are."""
_ENOUGH_HITS: Final = 8
"""So many in a round tell what one costs."""
_MIXED_FOR: Final = 4
"""Rounds that a request which begins or ends has a part in."""
_FOLLOWS: Final = 0.05
_DOUBTED: Final = 0.0001
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

    def after(self, spent: float, hits: int, share: float, *, alone: bool) -> Balance:
        """When the event loop has used `spent` seconds of the processor, for so many hits among
        other things; `alone`: no other request has begun or ended meanwhile."""
        if not hits:
            # Nobody has waited for what was spent.
            return self
        cost = self.hit_cost
        if alone and hits >= _ENOUGH_HITS:
            cost += (spent / hits - cost) * _FOLLOWS
        elif not alone:
            cost *= 1 - _DOUBTED
        by_hits = min(spent, hits * cost)
        saved = self.saved + share * spent - (spent - by_hits)
        return Balance(cost, min(MOST_SAVED, max(-MOST_OWED, saved)))


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
        connections: Callable[[], int],
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        """`hits` tells how many there have been, `connections` how many were taken in, and `spent`
        how many seconds of the processor the event loop has used."""
        self._limits = limits
        self._count_hits, self._count_connections = hits, connections
        self.inside = 0
        """How many requests are under way."""
        self._line: deque[_Waiting] = deque()
        self._late: deque[asyncio.Future[None]] = deque()
        # `_look` is called in the next round.
        self._looking = False
        self._timer: asyncio.TimerHandle | None = None
        self._balance = Balance()
        self._meter = spent
        self._spent, self._hits = 0.0, 0
        self._hit_at = -math.inf
        """When the last hit was noticed."""
        # Rounds in which something is still done for a request that has begun or ended.
        self._mixed = 0
        self._let_in_at = 0.0
        self._connections = 0
        # Rounds since the last one that had a hit, or a new connection.
        self._quiet = 0
        self.at_once = _AtOnce(self)

    def configure(self, limits: Limits) -> None:
        """Go by these limits from now on."""
        self._limits = limits
        self._look_soon()

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return len(self._line) + len(self._late)

    async def __aenter__(self) -> None:
        if not self._looking and self.has_room():
            now = asyncio.get_running_loop().time()
            if self._is_calm(now):
                self.enter()
                return
            # The first one in this round; `_look` ends it.
            self._settle()
            if self._balance.saved > 0:
                self.enter()
                self._look_soon()
                return
        await self.wait()

    def enter(self) -> None:
        """Be inside, whoever waits."""
        self._mixed = _MIXED_FOR
        self.inside += 1

    async def wait(self) -> None:
        """Wait in line, and be inside."""
        if self.waiting >= self._limits.max_waiting:
            raise Overloaded(waited=False)
        self._mixed = _MIXED_FOR
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._line.append(_Waiting(loop.time() + PATIENCE, turn))
        self._look_soon()
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
        self.inside -= 1
        if self._line:
            self._look_soon()

    def _is_calm(self, now: float) -> bool:
        """Whether there has been no hit for a while."""
        if self._count_hits() != self._hits:
            if now >= self._hit_at + _CALM:
                # What was spent until now was not spent beside hits.
                self._spent, self._hits = self._meter(), self._count_hits()
            self._hit_at = now
        return now >= self._hit_at + _CALM

    def has_room(self) -> bool:
        """Whether one more may be inside."""
        return self.inside < self._limits.max_requests

    # -- in each round of the event loop, as long as somebody waits

    def _look_soon(self) -> None:
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        now, line = loop.time(), self._line
        calm = self._is_calm(now)
        hits = 0 if calm else self._settle()
        while line and (line[0].turn.done() or line[0].until <= now):
            self._late.append(line.popleft().turn)
        for _ in range(self.waiting if calm else self._room_beside(hits, now)):
            self._let_one_in(now)
            self._refuse_one()
        if self._late or (line and self.has_room()):
            self._look_soon()
        elif line:
            self._timer = loop.call_at(line[0].until, self._look)

    def _room_beside(self, hits: int, now: float) -> int:
        """How many get in, after a round with so many hits."""
        saved, waited = self._balance.saved, now - self._let_in_at
        made, self._connections = self._connections, self._count_connections()
        if hits or made != self._connections:
            self._quiet = 0
        if hits:
            # A round with very many of them has room for more than one.
            return 1 + int(saved / _PIECE) if saved > 0 else int(waited >= LEAST_OFTEN)
        if made != self._connections:
            # There may be more behind it, which may want hits: a round takes no more than a few.
            return int(waited >= _BETWEEN)
        # What is done in rows costs less; but the next hit may come at any moment.
        self._quiet += 1
        return min(_MOST_AT_ONCE, 1 + self._quiet // 4)

    def _settle(self) -> int:
        """Strike the balance; gives the hits since the last time."""
        spent, hits = self._meter(), self._count_hits()
        new = hits - self._hits
        self._balance = self._balance.after(
            spent - self._spent, new, self._limits.miss_share, alone=not self._mixed
        )
        self._spent, self._hits = spent, hits
        self._mixed = max(0, self._mixed - 1)
        return new

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
