"""Two small, bounded memories of a worker: what is uncacheable, and what failed to refresh."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


class UncacheableKeys:
    """Keys whose last answer could not be stored: their requests are not made to wait in line.

    Bounded: the key that was noted longest ago goes first.
    """

    def __init__(self, capacity: int, on_drop: Callable[[], None]) -> None:
        """`on_drop` is called for each key that goes before its time."""
        self._capacity = capacity
        self._on_drop = on_drop
        self._until: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def note(self, primary: bytes, until: float, reason: str) -> bool:
        """Remember `primary` as uncacheable until that time (seconds); whether another key had to
        go for it."""
        self._until[primary] = (until, reason)
        self._until.move_to_end(primary)
        if len(self._until) <= self._capacity:
            return False
        self._until.popitem(last=False)
        self._on_drop()
        return True

    def forget(self, primary: bytes) -> None:
        self._until.pop(primary, None)

    def reason(self, primary: bytes, now: float) -> str | None:
        """Why the key's last answer could not be stored; None if it is not known to be so."""
        noted = self._until.get(primary)
        if noted is None:
            return None
        until, reason = noted
        if until > now:
            return reason
        del self._until[primary]
        return None


class RefreshBackoff:
    """Stored responses whose refresh failed, and when it may be tried again.

    The pause doubles from 1 to 60 seconds. Bounded: the oldest failure goes first.
    """

    def __init__(self, capacity: int = 65536) -> None:
        self._capacity = capacity
        self._failed: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def failed(self, variant: bytes, now: float) -> float:
        """Note a failure; the pause in seconds before the next try."""
        _, pause = self._failed.get(variant, (0.0, 0.0))
        pause = min(_LONGEST_PAUSE, pause * 2) if pause else _FIRST_PAUSE
        self._failed[variant] = (now + pause, pause)
        self._failed.move_to_end(variant)
        while len(self._failed) > self._capacity:
            self._failed.popitem(last=False)
        return pause

    def succeeded(self, variant: bytes) -> None:
        self._failed.pop(variant, None)

    def active(self, variant: bytes, now: float) -> bool:
        return self._failed.get(variant, (0.0, 0.0))[0] > now
