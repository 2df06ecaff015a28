"""Which targets are being fetched on the node, or may be in a worker's memory: shared filters.

An unsafe request invalidates what is kept for its target, and what a fetch in the air is about to
store (RFC 9111 4.4). Most targets of such requests have neither, and need no journal record. The
filters say so for certain; that there is something they may say wrongly, which costs a record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_FULL = 0xFFFF


class InFlight:
    """The fetches of this worker, and a look at everybody's.

    `filters` are the workers' counters, of equal number, a power of two; each worker writes its own
    alone. A counter that is full stays so until its worker is replaced.
    """

    def __init__(self, filters: Sequence[memoryview], worker: int) -> None:
        self._filters = tuple(filters)
        self._own = filters[worker]
        self._mask = len(self._own) - 1

    def began(self, target_id: bytes) -> None:
        """A fetch of the target is about to leave."""
        at = self._index(target_id)
        if self._own[at] < _FULL:
            self._own[at] += 1

    def ended(self, target_id: bytes) -> None:
        """It is stored, or never will be."""
        at = self._index(target_id)
        if self._own[at] < _FULL:
            self._own[at] -= 1

    def may_be(self, target_id: bytes) -> bool:
        """Whether a fetch of the target may be in the air; False is certain."""
        at = self._index(target_id)
        return any(counters[at] for counters in self._filters)

    def _index(self, target_id: bytes) -> int:
        return int.from_bytes(target_id[:4], "big") & self._mask


class RememberedTargets:
    """The targets of which a worker of this run has had a response in its memory.

    One byte a slot, set by any worker and never cleared: a byte is written whole, so no lock is
    needed. The store may have dropped a row long before the memory of some worker does.
    """

    def __init__(self, slots: memoryview) -> None:
        """`slots`: shared by all workers, a power of two in number, zeroed at the start."""
        self._slots = slots
        self._mask = len(slots) - 1

    def add(self, target_id: bytes) -> None:
        self._slots[int.from_bytes(target_id[:4], "big") & self._mask] = 1

    def may_have(self, target_id: bytes) -> bool:
        """Whether one may be in some worker's memory; False is certain."""
        return self._slots[int.from_bytes(target_id[:4], "big") & self._mask] == 1
