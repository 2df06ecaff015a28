"""The one clock of a node: wall time that nobody can set back."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgeproxy.cache.prepare import Moment

_clock = time.clock_gettime


def _elapsed() -> float:
    # CLOCK_BOOTTIME goes on while the machine is suspended, which CLOCK_MONOTONIC doesn't: what was
    # fresh before a night's sleep must not be fresh after it.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time read once, and counted on from there by the clock that only goes forward.

    The supervisor starts it, and every worker gets the same one, so that all agree, and a step of
    the system's clock ages or rejuvenates nothing.
    """

    wall: float
    """Seconds since the epoch when the clock was started."""
    elapsed: float
    """What the forward-only clock said at that moment, seconds."""

    @classmethod
    def start(cls) -> Clock:
        return cls(wall=time.time(), elapsed=_elapsed())

    def now(self) -> float:
        """Seconds since the epoch."""
        # As `_elapsed` has it, without a call: a request asks some ten times.
        return self.wall + (_clock(time.CLOCK_BOOTTIME) - self.elapsed)

    def moment(self) -> Moment:
        """Now, by both clocks."""
        elapsed = _elapsed()
        return Moment(self.wall + (elapsed - self.elapsed), elapsed)
