"""Whose turn it is to write to an index: one thread of one process of the node at a time.

LMDB has a lock of its own, but nobody can ask for that without waiting for it.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Turn:
    """A lock on a folder, which the kernel takes back from a process that dies."""

    def __init__(self, folder: Path) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # The kernel's lock tells processes apart, and not threads.
        self._thread = threading.Lock()

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Have the turn, as soon as it comes."""
        with self._thread:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def take(self) -> bool:
        """Take the turn, if it is nobody else's."""
        if not self._thread.acquire(blocking=False):
            return False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._thread.release()
            return False
        return True

    def give_back(self) -> None:
        """Give back what `take` took."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._thread.release()

    def close(self) -> None:
        os.close(self._fd)
