"""What a thread has had of the processor, and how long it had to wait for it."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import NamedTuple


class Times(NamedTuple):
    """Seconds, each counted from somewhere."""

    at: float
    """By the clock."""
    spent: float
    """Of the processor."""
    waited: float
    """In which the thread could have run, and others did."""


class ProcessorTime:
    """The times of the thread that makes it; `read` in that thread only."""

    def __init__(self) -> None:
        # proc(5); where the kernel does not say, a wait is taken for idle time.
        self._file: int | None = None
        with suppress(OSError):
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def read(self) -> Times:
        """The times as they are now."""
        waited = 0.0
        if self._file is not None:
            waited = int(os.pread(self._file, 96, 0).split()[1]) * 1e-9
        return Times(time.monotonic(), time.thread_time(), waited)
