"""Workers whose event loops stand still."""

import socket

import pytest

from edgeproxy.runtime.control import SupervisorEnd
from edgeproxy.runtime.process import WorkerProcess
from edgeproxy.runtime.shared import SharedBlock
from edgeproxy.runtime.watchdog import Watchdog


class Bench:
    """Two workers, and a clock."""

    def __init__(self, channel: socket.socket) -> None:
        self.now = 100.0
        self.slots = SharedBlock(2).slots
        self.workers = [self.worker(number, 10 + number, channel) for number in (0, 1)]
        self.watchdog = Watchdog(self.slots, lambda: self.now)

    def worker(self, number: int, pid: int, channel: socket.socket) -> WorkerProcess:
        self.slots[number].set_ready(pid)
        return WorkerProcess(number, pid, SupervisorEnd(channel), 0.0, ready=True)

    def look(self, *beating: int, after: float = 1.0, timeout: float = 3.0) -> list[int]:
        """The numbers of those that hang, `after` seconds in which the slots given have beaten."""
        self.now += after
        for number in beating:
            self.slots[number].beat(0, 0)
        return [process.number for process in self.watchdog.hung(self.workers, timeout)]


@pytest.fixture
def bench() -> Bench:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return Bench(ours)


def test_one_that_beats_does_not_hang(bench: Bench) -> None:
    assert not any(bench.look(0, 1) for _ in range(9))


def test_one_that_does_not_beat_hangs_once_its_time_is_over(bench: Bench) -> None:
    assert [bench.look(0) for _ in range(5)] == [[], [], [], [1], [1]]
    assert bench.look(0, 1) == []


def test_looks_count_and_not_the_time(bench: Bench) -> None:
    bench.look(0, 1)
    assert bench.look(after=3600.0) == []
    assert not any(bench.look(0, after=0.1) for _ in range(9))


def test_a_successor_has_all_its_time(bench: Bench) -> None:
    for _ in range(4):
        bench.look(0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bench.workers[1] = bench.worker(1, 99, ours)
    assert [bench.look(0) for _ in range(4)] == [[], [], [], [1]]
