"""One environment for each index in a process."""

from pathlib import Path

from edgeproxy.cache.shared_index import acquire_index, acquire_sibling, release_index

MIB = 2**20
JOURNAL_ID = b"journal!"


def test_those_who_share_an_index_in_a_process_share_one_environment(tmp_path: Path) -> None:
    one = acquire_index(tmp_path, MIB, JOURNAL_ID)
    two = acquire_index(tmp_path / ".." / tmp_path.name, MIB, JOURNAL_ID)
    assert one is two
    release_index(one)
    assert two.find(bytes(16)) == ([], [])
    release_index(two)
    three = acquire_index(tmp_path, MIB, JOURNAL_ID)
    assert three is not one
    release_index(three)


def test_a_sibling_is_of_the_same_journal(tmp_path: Path) -> None:
    one = acquire_index(tmp_path / "one", MIB, JOURNAL_ID)
    two = acquire_sibling(one, tmp_path / "two")
    assert two is acquire_index(tmp_path / "two", MIB, JOURNAL_ID)
    for index in (one, two, two):
        release_index(index)
