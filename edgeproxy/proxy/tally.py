"""How often something was not stored, for each reason, on the whole node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

REASONS: Final = (
    *("key-too-long", "tag-limit", "too-large", "error-status", "content-type", "unframed"),
    *("set-cookie", "authorization", "vary-star"),
)
"""Limits, and what a site's policy or HTTP keeps from being shared; each is a `detail` too."""

WORDS: Final = 16
"""64-bit words that a worker's counts take, with room for more reasons."""

_INDEX: Final = {reason: number for number, reason in enumerate(REASONS)}


class Tally:
    """The counts of all workers, of which one is written: this worker's own."""

    def __init__(self, areas: Sequence[memoryview], worker: int) -> None:
        """`areas`: of each worker, `WORDS` words that outlive it; `worker`: whose process it is."""
        self._areas = areas
        self._own = areas[worker]

    def note(self, reason: str) -> None:
        """Count one more, if it is a reason that is counted."""
        number = _INDEX.get(reason)
        if number is not None:
            self._own[number] += 1

    def counts(self) -> dict[str, int]:
        """How often each reason was noted since the node was started."""
        return {reason: sum(area[at] for area in self._areas) for reason, at in _INDEX.items()}
