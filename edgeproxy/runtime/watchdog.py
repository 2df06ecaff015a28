"""Which workers hang: they run, but their event loops have stopped turning."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgeproxy.runtime.shared import HEARTBEAT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeproxy.runtime.process import WorkerProcess
    from edgeproxy.runtime.shared import WorkerSlot


class Watchdog:
    """Looks at the workers' heartbeats.

    What counts is its own looks, not the time: workers have not hung where they were halted with
    their supervisor, as by a terminal or with the whole machine.
    """

    def __init__(
        self, slots: Sequence[WorkerSlot], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slots = slots
        self._clock = clock
        self.due = clock()
        """When it is to look again, by its clock."""
        # By process id: the last heartbeat, and how many looks have found that one again.
        self._seen: dict[int, tuple[int, int]] = {}

    def hung(self, ready: Sequence[WorkerProcess], timeout: float) -> list[WorkerProcess]:
        """Those of the workers whose event loops have not turned for `timeout` seconds."""
        now = self._clock()
        if now < self.due:
            return []
        self.due = now + HEARTBEAT_SECONDS
        before, self._seen = self._seen, {}
        for process in ready:
            beat = self._slots[process.number].heartbeat
            last, again = before.get(process.pid, (None, 0))
            self._seen[process.pid] = beat, again + 1 if beat == last else 0
        most = timeout / HEARTBEAT_SECONDS
        return [process for process in ready if self._seen[process.pid][1] >= most]
