"""A supervisor's notes: who is at which post, and what all of them wait for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.runtime.process import WorkerProcess

# A worker that lives no longer than this died of something that will likely kill the next, too.
_SHORT_LIFE_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0
_NO_ROOM_SECONDS = 1.0


@dataclass(slots=True)
class Post:
    """A worker's number, whoever holds it now."""

    process: WorkerProcess | None = None
    short_lives: int = 0
    due: float | None = 0.0
    """When the next one is to be started, on the monotonic clock; None while one runs."""

    def note_end(self, process: WorkerProcess) -> None:
        """A worker that held it has ended by itself."""
        short = not process.ready or time.monotonic() - process.started < _SHORT_LIFE_SECONDS
        self.short_lives = self.short_lives + 1 if short else 0

    def put_off(self) -> None:
        """None could be started: have that tried again soon, as connections wait for it."""
        self.due = time.monotonic() + _NO_ROOM_SECONDS

    def wait(self) -> float:
        """Have the next one come, at once unless the last ones died young: in how many seconds."""
        pause = 0.0
        if self.short_lives > 1:
            longer = _FIRST_PAUSE_SECONDS * 2.0 ** min(self.short_lives - 2, 16)
            pause = min(longer, _LONGEST_PAUSE_SECONDS)
        self.due = time.monotonic() + pause
        return pause


@dataclass(slots=True)
class Reload:
    """A configuration on its way to the workers."""

    generation: int = 0
    waiting: set[int] = field(default_factory=set)
    """The numbers of the workers that have not answered yet."""
    refused: bool = False
    """One of them keeps what it had."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """The workers are ending, so that the state directory can be seen to."""

    reason: str
    distrust: bool
    """Whether that is a reason not to rely on what is stored."""
    kill_at: float
    """When those that have not ended are killed, on the monotonic clock."""
