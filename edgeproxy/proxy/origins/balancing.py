"""Round robin and least connections, both by share: who comes back gets less for a while.

Round robin is start-time fair queueing (Goyal, Vin and Cheng, 1996): each origin has a time at
which its next turn is due, and a turn puts that off by the reverse of its share. Who was away is
owed one turn, and no more: the next one is counted from now, not from when that was due.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.config.failover import BalancingMethod

_LEAST_SHARE: Final = 0.1


class Balanced(Protocol):
    """One of those that get requests."""

    due: float
    """When its next turn is, in turns. Begins with 0, and is the balancer's."""

    @property
    def load(self) -> int:
        """Requests that are under way."""

    def share(self, now: float) -> float:
        """How much of a full share it gets, above 0 up to 1."""


B = TypeVar("B", bound=Balanced)
_due: Final = attrgetter("due")


class Balancer:
    """Whose turn it is."""

    def __init__(self, method: BalancingMethod) -> None:
        self._by_load = method == "least-connections"
        self._turn = 0.0

    def choose(self, candidates: Sequence[B], now: float) -> B:
        """Whose turn it is among these, at least one."""
        if not self._by_load:
            return min(candidates, key=_due)
        return min(candidates, key=lambda each: ((each.load + 1) / each.share(now), each.due))

    def charge(self, chosen: Balanced, now: float) -> None:
        """It takes its turn. Standing in for another one is none."""
        self._turn = max(chosen.due, self._turn)
        chosen.due = self._turn + 1 / chosen.share(now)


class SlowStart:
    """The share of one that comes back: a tenth at first, and all of it after `seconds`."""

    __slots__ = ("_back_at", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._back_at: float | None = None

    def begin(self, now: float) -> None:
        """It is back."""
        if self._seconds:
            self._back_at = now

    def share(self, now: float) -> float:
        if self._back_at is None:
            return 1.0
        share = (now - self._back_at) / self._seconds
        if share >= 1.0:
            self._back_at = None
            return 1.0
        return max(_LEAST_SHARE, share)
