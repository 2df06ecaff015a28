"""A journal that is not what was written: it is told, whatever becomes of who reads it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import lmdb
import pytest

from edgeproxy.invalidation.journal import JournalDamaged, JournalError, LocalJournal
from edgeproxy.invalidation.journal_check import check_journal
from edgeproxy.invalidation.selectors import Mode, Selector
from tests.invalidation.samples import new_head, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


async def filled(folder: Path) -> bytes:
    journal = LocalJournal(folder, new_head())
    journal.append_all([record(Selector.by_tag("shop", f"tag-{number}")) for number in range(500)])
    await journal.close()
    return journal.id


async def test_a_sound_journal_passes_its_check(tmp_path: Path) -> None:
    assert await filled(tmp_path) == check_journal(tmp_path)


async def test_deadlines_keep_their_distance_where_the_clock_was_stepped(tmp_path: Path) -> None:
    home = Selector.by_tag("shop", "home")
    journal = LocalJournal(tmp_path, new_head())
    journal.append_all(
        [
            record(home, mode=Mode.DELETE, deadline=60.0, time=1000.0),
            record(home, mode=Mode.DELETE, time=1000.0),
        ]
    )
    await journal.close()
    for step in (3600.0, -7200.0):
        check_journal(tmp_path, step)
    journal = LocalJournal(tmp_path, new_head())
    assert [each.effect.deleted_from for each in journal.since(0, 2)] == [1060.0 - 3600.0, 0.0]
    journal.verify()
    await journal.close()


def test_an_absent_journal_is_made_by_its_check(tmp_path: Path) -> None:
    identity = check_journal(tmp_path / "new")
    assert len(identity) == 16
    assert check_journal(tmp_path / "new") == identity


def garbled(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def cut_short(path: Path) -> None:
    # Much of the file is room for what is to come: this is in the middle of the records.
    os.truncate(path, path.stat().st_size // 20)


def one_letter_off(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(len(content)):
        if content[at : at + 7] == b"tag-123":
            content[at : at + 7] = b"tag-124"
    path.write_bytes(content)


def pages_swapped_out(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xaa" * (size - 2 * 4096))


@pytest.mark.parametrize("damage", [garbled, cut_short, one_letter_off, pages_swapped_out])
async def test_a_damaged_journal_is_told_with_its_folder(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    await filled(tmp_path)
    damage(tmp_path / "data.mdb")
    with pytest.raises(JournalDamaged, match=str(tmp_path)):
        check_journal(tmp_path)


async def test_a_missing_record_is_damage(tmp_path: Path) -> None:
    await filled(tmp_path)
    with lmdb.open(str(tmp_path), max_dbs=2, map_size=1 << 30) as env:
        records = env.open_db(b"records")
        with env.begin(records, write=True) as transaction:
            assert transaction.delete((77).to_bytes(8, "big"))
    with pytest.raises(JournalDamaged, match="lost"):
        LocalJournal(tmp_path, new_head())
    with pytest.raises(JournalDamaged, match="lost"):
        check_journal(tmp_path)


async def test_a_damaged_record_is_never_taken_for_another(tmp_path: Path) -> None:
    await filled(tmp_path)
    one_letter_off(tmp_path / "data.mdb")
    told: list[str] = []
    journal = LocalJournal(tmp_path, new_head(), told.append)
    with pytest.raises(JournalDamaged, match=str(tmp_path)) as raised:
        journal.since(0, 1 << 32, 1 << 32)
    assert told == [str(raised.value)]
    await journal.close()


async def test_a_journal_of_another_version_is_not_read(tmp_path: Path) -> None:
    await filled(tmp_path)
    with lmdb.open(str(tmp_path), max_dbs=2, map_size=1 << 30) as env:
        meta = env.open_db(b"meta")
        with env.begin(meta, write=True) as transaction:
            transaction.put(b"format", b"edgeproxy journal 7")
    with pytest.raises(JournalDamaged, match="another version"):
        check_journal(tmp_path)


def test_a_folder_that_cannot_be_used_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalError, match="file") as told:
        check_journal(tmp_path / "file" / "journal")
    assert not isinstance(told.value, JournalDamaged)


def test_another_program_s_database_is_no_journal(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path)) as env, env.begin(write=True) as transaction:
        transaction.put(b"something", b"else")
    with pytest.raises(JournalDamaged, match="is another program's"):
        check_journal(tmp_path)
