"""How many requests may be repeated, so that a failing origin doesn't double the others' work."""

from __future__ import annotations


class RetryBudget:
    """A token bucket that requests fill and repetitions empty. It starts full.

    It fills with requests, not with time: the share holds at every rate.
    """

    __slots__ = ("_burst", "_share", "_tokens")

    def __init__(self, share: float, burst: int) -> None:
        """`share`: repetitions for each request; `burst`: how many of them may be saved up."""
        self._share = share
        # A share with nothing to save it up in would round down to none.
        self._burst = max(float(burst), 1.0) if share else float(burst)
        self._tokens = float(burst)

    def earn(self) -> None:
        """A request has come."""
        if self._tokens < self._burst:
            self._tokens = min(self._burst, self._tokens + self._share)

    def spend(self) -> bool:
        """Whether one may be repeated now; if so, that is counted."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
