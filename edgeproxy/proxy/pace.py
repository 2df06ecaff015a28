"""How slow a client may be with a body: it may pause, and what it moves buys it time."""

from __future__ import annotations

from typing import Final

SHORTEST_WAIT: Final = 0.05
"""Seconds of patience with a slow client that are as good as none."""
TLS_PIECE: Final = 64 * 1024
"""Most bytes of a body that are encrypted at once: what is encrypted is kept, with as much room to
grow, until the client has taken it."""


class Pace:
    """The patience with a client that sends or takes a body.

    It begins with `pause` seconds, and never has more. Waiting uses them up; each byte that moves
    gives back 1/`rate` of a second, or, where `rate` is 0, all. So a byte now and then does not
    hold a connection for ever.
    """

    __slots__ = ("_pause", "_rate", "left")

    def __init__(self, pause: float, rate: int) -> None:
        self._pause = pause
        self._rate = rate
        self.left = pause
        """Seconds to wait for more; nothing is left at 0."""

    def note(self, waited: float, moved: int) -> None:
        """Account for so many seconds of waiting, in which so many bytes moved."""
        if moved and not self._rate:
            self.left = self._pause
            return
        earned = moved / self._rate if self._rate else 0.0
        self.left = min(self._pause, max(0.0, self.left - waited + earned))


class Unsent:
    """What a client has yet to take of what was written to it, as it is seen now and then.

    More may have been written meanwhile: what is known to have moved is how much less it is.
    """

    __slots__ = ("_bytes", "_pace", "_seen")

    def __init__(self, pace: Pace, now: float, unsent: int) -> None:
        self._pace = pace
        self._seen = now
        self._bytes = unsent

    def patience(self, now: float, unsent: int) -> float:
        """Seconds to wait for the client, now that so many bytes are left."""
        self._pace.note(now - self._seen, max(0, self._bytes - unsent))
        self._seen, self._bytes = now, unsent
        return self._pace.left
