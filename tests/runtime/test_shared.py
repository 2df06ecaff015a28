"""The block of memory between supervisor and workers, with real forks."""

import os
from collections.abc import Callable
from unittest.mock import patch

import pytest

from edgeproxy.runtime.shared import FILTER_COUNTERS, HEAD_BYTES, SharedBlock

SECOND = 1_000_000_000


def in_child(function: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_new_block_says_nothing() -> None:
    block = SharedBlock(2)
    assert bytes(block.head) == bytes(HEAD_BYTES)
    for slot in block.slots:
        assert (slot.pid, slot.in_flight, slot.connections) == (0, 0, 0)
        assert not slot.accepts()
        assert set(slot.filter) == {0}


def test_what_a_worker_writes_is_seen_by_all() -> None:
    block = SharedBlock(2)

    def work() -> None:
        block.slots[1].set_ready(os.getpid())
        block.slots[1].beat(3, 7)
        block.slots[1].filter[FILTER_COUNTERS - 1] += 1
        block.head.cast("Q")[0] = 42

    in_child(work)
    slot = block.slots[1]
    assert slot.pid != 0
    assert (slot.in_flight, slot.connections) == (3, 7)
    assert slot.accepts()
    assert slot.filter[FILTER_COUNTERS - 1] == 1
    assert block.head.cast("Q")[0] == 42


def test_slots_do_not_touch_each_other_or_the_head() -> None:
    block = SharedBlock(3)
    middle = block.slots[1]
    middle.set_ready(2**63)
    middle.beat(2**63, 2**63)
    middle.filter[:] = memoryview(b"\xff" * 2 * FILTER_COUNTERS).cast("H")
    assert bytes(block.head) == bytes(HEAD_BYTES)
    for slot in (block.slots[0], block.slots[2]):
        assert (slot.pid, slot.in_flight, slot.connections) == (0, 0, 0)
        assert set(slot.filter) == {0}


def test_a_dead_worker_leaves_nothing() -> None:
    block = SharedBlock(1)
    slot = block.slots[0]
    slot.set_ready(1234)
    slot.beat(5, 6)
    slot.filter[17] = 9
    slot.clear()
    assert (slot.pid, slot.in_flight, slot.connections) == (0, 0, 0)
    assert not slot.accepts()
    assert set(slot.filter) == {0}


@pytest.mark.parametrize(("seconds", "accepts"), [(0, True), (4.9, True), (5.1, False)])
def test_a_worker_that_does_not_beat_does_not_count_as_accepting(
    seconds: float, accepts: bool
) -> None:
    slot = SharedBlock(1).slots[0]
    with patch("time.monotonic_ns", return_value=100 * SECOND):
        slot.set_ready(1)
    with patch("time.monotonic_ns", return_value=int((100 + seconds) * SECOND)):
        assert slot.accepts() is accepts


def test_a_draining_worker_does_not_count_as_accepting() -> None:
    slot = SharedBlock(1).slots[0]
    slot.set_ready(1)
    slot.set_draining()
    slot.beat(1, 1)
    assert not slot.accepts()
    assert slot.pid == 1
