"""The node's clock: wall time that only goes forward."""

import time
from unittest.mock import patch

from edgeproxy.runtime.clock import Clock


def test_it_tells_the_time_of_day() -> None:
    assert abs(Clock.start().now() - time.time()) < 0.1


def test_it_goes_forward() -> None:
    clock = Clock.start()
    moments = [clock.now() for _ in range(100)]
    assert moments == sorted(moments)
    assert moments[-1] > moments[0]


def test_a_step_of_the_system_clock_changes_nothing() -> None:
    clock = Clock.start()
    before = clock.now()
    with patch("time.time", return_value=before - 3600):
        assert 0 <= clock.now() - before < 0.1


def test_both_clocks_tell_one_moment() -> None:
    clock = Clock.start()
    before = clock.now()
    wall, elapsed = clock.moment()
    assert before <= wall <= clock.now()
    assert clock.wall + (elapsed - clock.elapsed) == wall


def test_it_counts_from_where_it_was_started() -> None:
    anchored = Clock(wall=1000.0, elapsed=time.clock_gettime(time.CLOCK_BOOTTIME) - 5.0)
    assert 1005.0 <= anchored.now() < 1005.5
