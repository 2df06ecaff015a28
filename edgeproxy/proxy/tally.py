"""How often something was not stored, and a client refused, for each reason, on the whole node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

REASONS: Final = (
    *("key-too-long", "tag-limit", "too-large", "error-status", "content-type", "unframed"),
    *("set-cookie", "authorization", "vary-star"),
)
"""Limits, and what a site's policy or HTTP keeps from being shared; each is a `detail` too."""

REFUSALS: Final = (
    *("connections-full", "files-low", "too-many-connections", "idle-closed"),
    *("overloaded", "origin-queue-full", "out-of-files", "too-many-waiters", "too-many-rules"),
    *("head-timeout", "head-too-large", "target-too-long", "too-many-fields"),
    *("request-body-timeout", "body-too-large", "reader-too-slow", "reader-stalled"),
    *("bad-request", "unknown-host", "method-not-allowed", "version-not-supported"),
    *("admin-connections-full", "too-many-ranges"),
)
"""What clients were kept from; most are what `detail` says."""

DROPPED: Final = ("uncacheable",)
"""What a worker had to forget of what it remembers, to have room for something newer."""

WORDS: Final = 48
"""64-bit words that a worker's counts take, with room for more reasons."""

_INDEX: Final = {reason: number for number, reason in enumerate((*REASONS, *REFUSALS, *DROPPED))}


class Tally:
    """The counts of all workers, of which one is written: this worker's own."""

    def __init__(self, areas: Sequence[memoryview], worker: int) -> None:
        """`areas`: of each worker, `WORDS` words that outlive it; `worker`: whose process it is."""
        self._areas = areas
        self._own = areas[worker]

    def note(self, reason: str, more: int = 1) -> None:
        """Count one more, or some, if it is a reason that is counted."""
        number = _INDEX.get(reason)
        if number is not None:
            self._own[number] += more

    def note_refused(self, detail: str) -> None:
        """Count a message that was no request one could answer."""
        self.note(detail if detail in _INDEX else "bad-request")

    def counts(self) -> dict[str, int]:
        """How often something was not stored since the node was started, for each reason."""
        return {reason: self._count(reason) for reason in REASONS}

    def refusals(self) -> dict[str, int]:
        """How often each refusal was."""
        return {reason: self._count(reason) for reason in REFUSALS}

    def dropped(self) -> dict[str, int]:
        """How much of each kind was forgotten."""
        return {kind: self._count(kind) for kind in DROPPED}

    def _count(self, reason: str) -> int:
        at = _INDEX[reason]
        return sum(area[at] for area in self._areas)
