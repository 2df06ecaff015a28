"""Memory that a flood has left goes back to the system."""

import os
from pathlib import Path

import pytest

from edgeproxy.runtime.trimming import Trimmer, trimmer

MIB = 1024 * 1024


class Library:
    """A C library with so many free bytes, which giving back does not change."""

    def __init__(self) -> None:
        self.free = 0
        self.given_back = 0

    def give_back(self) -> None:
        self.given_back += 1


@pytest.mark.parametrize(
    ("free", "given_back"),
    [
        pytest.param([1, 2, 3], 0, id="little"),
        pytest.param([0, 100], 1, id="much"),
        pytest.param([0, 100, 100, 101], 1, id="what-was-given-back-is-free-still"),
        pytest.param([0, 100, 20, 110], 2, id="used-again-and-left-again"),
        pytest.param([200, 5, 30], 2, id="used-since-the-start"),
    ],
)
def test_it_is_given_back_when_much_has_become_free(free: list[int], given_back: int) -> None:
    library = Library()
    memory = Trimmer(lambda: library.free, library.give_back)
    for mebibytes in free:
        library.free = mebibytes * MIB
        memory.look()
    assert library.given_back == given_back


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_the_c_library_gives_back_what_lies_between_blocks_in_use() -> None:
    memory = trimmer()
    if memory is None:
        pytest.skip("NOT TRIED: this C library can't give memory back")
    blocks = [bytes([1]) * 60_000 for _ in range(2_000)]
    between = blocks[::50]
    # Some of them may be where others have left room.
    memory.look()
    full = resident()
    del blocks
    assert memory.look()
    assert resident() < full - 60 * MIB
    assert len(between) == 40
