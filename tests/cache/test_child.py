"""What a damaged file may kill, done by a process that may die of it."""

import os
import signal

import pytest

from edgeproxy.cache import child
from edgeproxy.cache.child import Told, in_child


def killed() -> bytes:
    os.kill(os.getpid(), signal.SIGBUS)
    return b"never"


def failing() -> bytes:
    raise ValueError("what was read is nonsense")


def test_it_tells_what_the_work_gave() -> None:
    mine = os.getpid()
    told = in_child(lambda: b"%d" % os.getpid())
    assert (told.signal, told.in_time) == (0, True)
    assert int(told.report) != mine


def test_it_outlives_the_work() -> None:
    assert in_child(killed) == Told(b"", signal.SIGBUS, in_time=True)
    assert in_child(failing) == Told(b"", 0, in_time=True)


def test_it_waits_for_no_end_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_SECONDS", 0.05)

    def endless() -> bytes:
        signal.pause()
        return b"never"

    assert in_child(endless) == Told(b"", signal.SIGKILL, in_time=False)
