"""What a thread has had of the processor."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edgeproxy.proxy.processor import ProcessorTime


def test_a_thread_that_sleeps_neither_spends_nor_waits() -> None:
    times = ProcessorTime()
    before = times.read()
    time.sleep(0.2)
    after = times.read()
    assert after.at - before.at >= 0.2
    assert after.spent - before.spent < 0.1
    assert after.waited - before.waited < 0.15
    times.close()


@pytest.mark.skipif(
    not Path("/proc/thread-self/schedstat").exists(), reason="the kernel does not say"
)
def test_a_thread_waits_while_another_process_has_the_processor() -> None:
    allowed = os.sched_getaffinity(0)
    one = {min(allowed)}
    other = os.fork()
    if not other:
        os.sched_setaffinity(0, one)
        while True:
            pass
    try:
        os.sched_setaffinity(0, one)
        times = ProcessorTime()
        before = after = times.read()
        while after.waited - before.waited < 0.02 and after.at - before.at < 20:
            after = times.read()
        assert after.waited - before.waited >= 0.02
        known = (after.spent - before.spent) + (after.waited - before.waited)
        assert known <= after.at - before.at + 0.02
        times.close()
    finally:
        os.kill(other, 9)
        os.waitpid(other, 0)
        os.sched_setaffinity(0, allowed)


def test_without_a_word_of_the_kernel_there_is_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(os, "open", absent)
    times = ProcessorTime()
    assert times.read().waited == 0.0
    times.close()
