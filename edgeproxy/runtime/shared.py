"""The memory that the supervisor and its workers share: one block, mapped before the forks.

Layout, in native byte order and with every area on cache lines of its own:

| offset           | bytes | what                                                             |
| 0                | 64    | the journal's positions; `SharedHead` knows what is where        |
| 64 + slot * 8640 | 64    | one worker's words: who it is and how it fares                   |
| the same + 64    | 8192  | its fetches in flight: a counting filter, 4096 counters, 16 bits |
| the same + 8256  | 384   | what it did not store, whom it refused; the next worker goes on  |
| after the slots  | 2^20  | the targets that were in some worker's memory: a byte each       |
| after those      | 2^16  | what checks say of the origins: `Verdicts` knows what is where   |

A word is written by one process only (a worker's by that worker, or by the supervisor once the
worker is dead) and is read and written by one aligned machine instruction, because items of a cast
memoryview are copied whole. `struct` with an explicit byte order would go byte by byte.
"""

from __future__ import annotations

import mmap
import time

HEAD_BYTES = 64
STATE_BYTES = 64
FILTER_COUNTERS = 4096
REMEMBERED_SLOTS = 1 << 20
TALLY_BYTES = 384
_FILTER_END = STATE_BYTES + 2 * FILTER_COUNTERS
_SLOT_BYTES = _FILTER_END + TALLY_BYTES
VERDICTS_BYTES = 1 << 16

# Indices of a slot's 64-bit words.
_PID, _READY, _HEARTBEAT, _IN_FLIGHT, _CONNECTIONS = range(5)

# A worker beats every second; one that missed five has a blocked event loop, or is gone.
HEARTBEAT_SECONDS = 1.0
_LATE_NANOSECONDS = 5_000_000_000


class WorkerSlot:
    """One worker's words in the shared block."""

    __slots__ = ("_words", "filter", "tally")

    def __init__(self, area: memoryview) -> None:
        self._words = area[:STATE_BYTES].cast("Q")
        self.filter = area[STATE_BYTES:_FILTER_END].cast("H")
        """4096 counters of fetches in flight, for whoever defines what is counted."""
        self.tally = area[_FILTER_END:].cast("Q")
        """48 counts that outlive the worker, for whoever defines what is counted."""

    @property
    def pid(self) -> int:
        """The worker's process id; 0 while there is none."""
        return self._words[_PID]

    @property
    def heartbeat(self) -> int:
        """The worker's last heartbeat, on the monotonic clock in nanoseconds."""
        return self._words[_HEARTBEAT]

    @property
    def in_flight(self) -> int:
        """Requests that the worker is answering, as of its last heartbeat."""
        return self._words[_IN_FLIGHT]

    @property
    def connections(self) -> int:
        """Readers' connections that the worker holds, as of its last heartbeat."""
        return self._words[_CONNECTIONS]

    def set_ready(self, pid: int) -> None:
        """The worker accepts connections from now on."""
        self._words[_PID] = pid
        self.beat(0, 0)
        self._words[_READY] = 1

    def set_draining(self) -> None:
        """The worker accepts no more connections."""
        self._words[_READY] = 0

    def beat(self, in_flight: int, connections: int) -> None:
        """The worker's event loop turns."""
        self._words[_IN_FLIGHT] = in_flight
        self._words[_CONNECTIONS] = connections
        self._words[_HEARTBEAT] = time.monotonic_ns()

    def accepts(self) -> bool:
        """True when the worker is ready and its event loop has turned in the last 5 seconds."""
        late = time.monotonic_ns() - self.heartbeat
        return self._words[_READY] == 1 and late < _LATE_NANOSECONDS

    def clear(self) -> None:
        """The worker is dead: nothing of it is in flight. For the supervisor alone."""
        for word in range(len(self._words)):
            self._words[word] = 0
        self.filter[:] = memoryview(bytes(self.filter.nbytes)).cast("H")


class SharedBlock:
    """Anonymous memory, inherited through fork by every worker of `slots`."""

    def __init__(self, slots: int) -> None:
        end = HEAD_BYTES + slots * _SLOT_BYTES
        self._map = mmap.mmap(-1, end + REMEMBERED_SLOTS + VERDICTS_BYTES)
        whole = memoryview(self._map)
        self.head = whole[:HEAD_BYTES]
        self.slots = tuple(
            WorkerSlot(whole[start : start + _SLOT_BYTES])
            for start in range(HEAD_BYTES, end, _SLOT_BYTES)
        )
        self.remembered = whole[end : end + REMEMBERED_SLOTS]
        """A slot for each of the targets that were in some worker's memory, by a hash."""
        self.verdicts = whole[end + REMEMBERED_SLOTS :]
        """A word for each of the origins that are checked, by a hash."""
