"""What a worker's death says of the store."""

import signal

import pytest

from edgeproxy.runtime.process import Crashes, end_in_words

BUS, SEGV, ABRT, KILL = (
    -number for number in (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL)
)


@pytest.mark.parametrize(
    ("deaths", "blamed"),
    [
        pytest.param([(0, BUS)], [True], id="a file cut short, or a disk that fails"),
        pytest.param([(0, SEGV), (1, ABRT), (2, SEGV)], [False, False, True], id="crashes"),
        pytest.param([(0, SEGV), (30, SEGV), (61, SEGV)], [False] * 3, id="now and then"),
        pytest.param([(0, SEGV), (30, SEGV), (61, SEGV), (62, SEGV)], [False] * 3 + [True], id="4"),
        pytest.param([(0, KILL), (1, KILL), (2, KILL), (3, 1)], [False] * 4, id="no crashes"),
    ],
)
def test_some_deaths_are_due_to_the_store(
    deaths: list[tuple[float, int]], blamed: list[bool]
) -> None:
    now = 0.0
    crashes = Crashes(lambda: now)
    found = []
    for now, status in deaths:  # noqa: B007 - read by the clock
        found.append(crashes.blame_store(status))
    assert found == blamed


@pytest.mark.parametrize(
    ("status", "words"),
    [(3, "ended with status 3"), (BUS, "was killed by SIGBUS"), (-99, "was killed by signal 99")],
)
def test_an_end_is_put_into_words(status: int, words: str) -> None:
    assert end_in_words(status) == words
