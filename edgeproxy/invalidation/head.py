"""The journal's head in memory that all workers of a node share."""

from __future__ import annotations

HEAD_BYTES = 64
_WORD = 8


class SharedHead:
    """The position of the newest record that took effect: one 64-bit word in native byte order.

    `buffer` is 64 bytes, aligned to 8, shared by all workers and zeroed before the first. Items
    of a cast memoryview are read and written by one aligned machine instruction, so a reader sees
    the position before or after, and nothing between.
    """

    def __init__(self, buffer: memoryview) -> None:
        self.word = buffer[:_WORD].cast("Q")
        """The position as `word[0]`, to be read without a call."""

    def get(self) -> int:
        """The head."""
        return self.word[0]

    def publish(self, position: int) -> None:
        """Make `position` the head, unless it has gone further.

        For the holder of the journal's lock alone, which makes compare and write one step.
        """
        if position > self.word[0]:
            self.word[0] = position
