"""The journal's head in memory that all workers of a node share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_BYTES = 64
_WORD = 8


class SharedHead:
    """The position of the newest record that took effect: one 64-bit word in native byte order.

    `buffer` is 64 bytes, aligned to 8, shared by all workers and zeroed before the first. Items
    of a cast memoryview are read and written by one aligned machine instruction, so a reader sees
    the position before or after, and nothing between.
    """

    def __init__(self, buffer: memoryview) -> None:
        self._words = buffer[:_WORD].cast("Q")
        # Bound once: every hit asks.
        read = self._words.__getitem__
        self.get: Callable[[], int] = lambda: read(0)

    def publish(self, position: int) -> None:
        """Make `position` the head, unless it has gone further.

        For the holder of the journal's lock alone, which makes compare and write one step.
        """
        if position > self._words[0]:
            self._words[0] = position
