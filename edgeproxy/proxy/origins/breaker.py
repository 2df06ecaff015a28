"""A circuit breaker: closed, open, half-open (Nygard, Release It!), on a clock that is given.

Closed, all requests pass. Failures in a row, or a share of failures, open it; for a pause none
passes. Then it is half-open: one request is the trial. If that succeeds, it is closed again, if it
fails, it is open for twice the pause.

Open says "rather not". Where there is no better origin, `refuses` tells those that would cost the
reader a wait from those that fail at once: asking the latter harms nobody, and if refusals or error
statuses alone could take a site's last origin away, whoever finds a URL that fails could do so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from edgeproxy.config.failover import Breaker as Settings

State: TypeAlias = Literal["closed", "open", "half-open"]


class Breaker:
    """One origin's circuit. Times are in seconds, of any clock that doesn't go back."""

    __slots__ = (
        "_asked",
        "_failed",
        "_open_until",
        "_pause",
        "_settings",
        "_streak",
        "_trials",
        "_waits",
        "_window_ends",
        "_yields_at",
        "closed",
    )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.closed = True
        self._open_until = 0.0
        """Where it is not closed."""
        self._pause = settings.pause
        self._trials = 0
        self._yields_at = 0.0
        """When the newest trial makes way for another one, although it has not ended."""
        self._streak = 0
        self._waits = 0
        self._window_ends = 0.0
        self._asked = 0
        self._failed = 0

    def state(self, now: float) -> State:
        if self.closed:
            return "closed"
        return "open" if now < self._open_until else "half-open"

    def admits(self, now: float) -> bool:
        """Whether a request may pass: closed, or half-open with no trial under way."""
        if self.closed:
            return True
        return now >= self._open_until and (self._trials == 0 or now >= self._yields_at)

    def overdue(self, now: float) -> bool:
        """Whether it is open for so long that a trial can't wait for a better request."""
        return not self.closed and now >= self._open_until + self._settings.max_pause

    @property
    def refuses(self) -> bool:
        """While it is open: whether a request would likely have to wait for its failure."""
        return self._waits >= self._settings.failures

    # -- one request

    def begin(self, now: float, *, uploading: bool) -> bool:
        """A request goes to the origin. Hand what this returns to what says how it ended.

        `uploading`: it has a body. How long that takes is its client's choice, and nobody's slow
        upload must keep an origin from being tried for longer than a pause may be.
        """
        if self.closed:
            return False
        self._trials += 1
        self._yields_at = now + self._settings.max_pause if uploading else math.inf
        return True

    def _ended(self) -> None:
        """A trial has come to its end. Those that are left had made way for it."""
        self._trials -= 1
        self._yields_at = 0.0

    def succeeded(self, trial: bool, now: float) -> bool:
        """It was answered; True if that closed the circuit."""
        self._streak = self._waits = 0
        if now < self._window_ends:
            self._asked += 1
        else:
            self._count(now, 0)
        if not trial:
            return False
        self._ended()
        if self.closed:
            return False
        self.closed = True
        self._pause = self._settings.pause
        self._window_ends = now
        return True

    def failed(self, trial: bool, now: float, *, slow: bool) -> bool:
        """It failed, `slow` if that took the reader's time; True if that opened the circuit."""
        self._streak += 1
        self._waits = self._waits + 1 if slow else 0
        self._count(now, 1)
        if trial:
            self._ended()
        if self.closed:
            if not self._too_many():
                return False
            self.closed = False
            self._open_until = now + self._pause
            return True
        if trial and now >= self._open_until:
            self._pause = min(2 * self._pause, self._settings.max_pause)
            self._open_until = now + self._pause
        return False

    def abandoned(self, trial: bool) -> None:
        """It came to no end that says anything of the origin."""
        if trial:
            self._ended()

    def _count(self, now: float, failures: int) -> None:
        if now >= self._window_ends:
            self._window_ends = now + self._settings.window
            self._asked = self._failed = 0
        self._asked += 1
        self._failed += failures

    def _too_many(self) -> bool:
        settings = self._settings
        if self._streak >= settings.failures:
            return True
        share = settings.failure_share * self._asked
        return self._asked >= settings.min_requests and self._failed >= share
