"""The journal: durable before it is acknowledged, in one order for all processes, checked."""

from __future__ import annotations

import asyncio
import fcntl
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeproxy.invalidation import journal as journal_module
from edgeproxy.invalidation.journal import (
    JournalError,
    LocalJournal,
    Record,
)
from edgeproxy.invalidation.selectors import Mode, Selector
from tests.invalidation.appender import mapped_head
from tests.invalidation.samples import new_head, record
from tests.kit.disk import full_disk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[LocalJournal]:
    opened = LocalJournal(tmp_path / "journal", new_head())
    yield opened
    await opened.close()


def everything(journal: LocalJournal) -> list[Record]:
    return journal.since(0, 1 << 32, 1 << 32)


# -- appending and reading


async def test_a_record_comes_back_as_it_was_given_with_its_position(
    journal: LocalJournal,
) -> None:
    selectors = (
        Selector.by_tag("shop", "käse"),
        Selector.by_url("shop", "a.test", b"/\xff", "preview"),
    )
    draft = record(*selectors, mode=Mode.DELETE, matched=3)
    written = await journal.append(draft)
    assert written.position == 1
    assert everything(journal) == [written]
    assert (written.selectors, written.mode, written.matched) == (selectors, Mode.DELETE, 3)


async def test_concurrent_appends_go_to_the_disk_together(
    journal: LocalJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    append_all = journal.append_all
    monkeypatch.setattr(
        journal, "append_all", lambda drafts: (batches.append(len(drafts)), append_all(drafts))[1]
    )
    drafts = [record(Selector.by_tag("shop", str(number))) for number in range(200)]
    written = await asyncio.gather(*map(journal.append, drafts))
    assert [each.position for each in written] == list(range(1, 201))
    assert [each.selectors for each in written] == [each.selectors for each in drafts]
    assert everything(journal) == written
    assert sum(batches) == 200
    assert len(batches) <= 3


async def test_the_head_is_published_after_the_record_is_durable_and_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = new_head()
    journal = LocalJournal(tmp_path, head)
    seen: list[tuple[int, int]] = []
    publish = head.publish

    def publishing(position: int) -> None:
        seen.append((head.get(), len(everything(journal))))
        publish(position)

    monkeypatch.setattr(head, "publish", publishing)
    await journal.append(record())
    assert seen == [(0, 1)]
    assert head.get() == 1
    await journal.close()


async def test_an_append_waits_for_that_of_another_process(journal: LocalJournal) -> None:
    with (journal.directory / "append.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        append = asyncio.create_task(journal.append(record()))
        await asyncio.sleep(0.02)
        assert not append.done()
        assert everything(journal) == []
    assert (await append).position == 1


async def test_a_caller_who_goes_away_takes_nothing_back(journal: LocalJournal) -> None:
    task = asyncio.create_task(journal.append(record()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await journal.append(record())).position == 2
    assert [each.position for each in everything(journal)] == [1, 2]


async def test_a_journal_that_cannot_be_written_tells_every_caller_and_goes_on(
    journal: LocalJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> list[Record]:
        raise JournalError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "append_all", full)
        results = await asyncio.gather(
            *(journal.append(record()) for _ in range(3)), return_exceptions=True
        )
    assert [str(each) for each in results] == ["no room"] * 3
    assert (await journal.append(record())).position == 1


async def test_a_full_disk_is_no_reason_to_refuse_a_purge(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    for opening in range(2):
        journal = LocalJournal(directory, new_head())
        with full_disk((directory / "data.mdb").stat().st_size):
            for _ in range(2000):
                journal.append_all([record()])
            journal.make_room()
        journal.make_room()
        assert len(everything(journal)) == 2000 * (opening + 1)
        journal.verify()
        await journal.close()


async def test_a_disk_that_stays_full_is_told_of_once_and_before_it_is_too_late(
    journal: LocalJournal, caplog: pytest.LogCaptureFixture
) -> None:
    with full_disk((journal.directory / "data.mdb").stat().st_size):
        while not caplog.records:
            journal.append_all([record()] * 100)
            journal.make_room()
        taken = len(everything(journal))
        assert re.fullmatch(
            rf"the journal in {journal.directory} can't grow \(.+\): purges are taken until the "
            r"[1-9]\d\d KiB that it has left are used up",
            caplog.records[0].message,
        )
        for _ in range(1000):
            journal.append_all([record()])
            journal.make_room()
        assert len(caplog.records) == 1
        # After that they are refused, and nobody takes one for recorded.
        with pytest.raises(JournalError, match=str(journal.directory)):
            for _ in range(100):
                journal.append_all([record()] * 1000)
        last = everything(journal)[-1].position
        assert last >= taken + 1000
        assert journal._head.get() == last
    journal.make_room()
    assert caplog.records[-1].message == f"the journal in {journal.directory} can grow again"
    assert (await journal.append(record())).position == last + 1
    journal.verify()


async def test_room_for_records_is_made_as_it_is_used_and_no_more_than_that(
    journal: LocalJournal,
) -> None:
    file = journal.directory / "data.mdb"
    first = file.stat().st_size
    for _ in range(4):
        size = file.stat().st_size
        journal.make_room()
        assert file.stat().st_size == size
        journal.append_all([record()] * 5000)
        journal.make_room()
        assert size <= file.stat().st_size < size + (4 << 20)
    assert file.stat().st_size > first


async def test_a_record_that_cannot_be_encoded_is_refused_and_harms_no_other(
    journal: LocalJournal,
) -> None:
    results = await asyncio.gather(
        journal.append(record()),
        journal.append(record(Selector.by_tag("shop", "\ud800"))),
        journal.append(record()),
        return_exceptions=True,
    )
    assert isinstance(results[1], UnicodeEncodeError)
    assert [each.position for each in everything(journal)] == [1, 2]


async def test_closing_waits_for_what_is_being_written(tmp_path: Path) -> None:
    journal = LocalJournal(tmp_path, new_head())
    tasks = [asyncio.create_task(journal.append(record())) for _ in range(20)]
    await asyncio.sleep(0)
    await journal.close()
    assert [(await task).position for task in tasks] == list(range(1, 21))


@pytest.mark.parametrize(
    ("since", "until", "limit", "positions"),
    [(0, 9, 99, [1, 2, 3, 4, 5]), (2, 4, 99, [3, 4]), (0, 5, 2, [1, 2]), (5, 9, 99, [])],
)
async def test_records_are_read_in_order_between_two_positions(
    journal: LocalJournal, since: int, until: int, limit: int, positions: list[int]
) -> None:
    journal.append_all([record() for _ in range(5)])
    assert [each.position for each in journal.since(since, until, limit)] == positions


async def test_it_goes_on_where_it_was_and_stays_the_same_journal(tmp_path: Path) -> None:
    first = LocalJournal(tmp_path / "a", new_head())
    first.append_all([record(), record()])
    await first.close()
    head = new_head()
    again = LocalJournal(tmp_path / "a", head)
    assert head.get() == 2
    assert again.id == first.id
    assert (await again.append(record())).position == 3
    other = LocalJournal(tmp_path / "b", new_head())
    assert other.id != again.id
    await again.close()
    await other.close()


# -- trimming


async def test_the_newest_records_are_kept_and_those_not_dealt_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = LocalJournal(tmp_path / "short", new_head(), kept_records=10)
    monkeypatch.setattr(journal_module, "_TRIM_STEP", 8)
    assert journal.oldest() == 1
    journal.append_all([record() for _ in range(40)])
    assert journal.trim(3) is True
    assert journal.oldest() == 4
    steps = 0
    while not journal.trim(40):
        steps += 1
    assert steps == 3
    assert journal.oldest() == 31
    assert [each.position for each in journal.since(0, 40)] == list(range(31, 41))
    journal.verify()


async def test_records_that_take_too_much_room_go_though_they_are_few(
    journal: LocalJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_TRIM_BYTES", 100_000)
    tags = [Selector.by_tag("shop", "x" * 1000 + str(number)) for number in range(10)]
    journal.append_all([record(*tags) for _ in range(40)])
    for _ in range(100):
        journal.trim(40)
    assert 1 < journal.oldest() <= 40
    assert journal.append_all([record()])[0].position == 41


# -- several processes, and their deaths


@contextmanager
def appender(folder: Path, batches: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A process that has the journal open, and appends once it is sent a line."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.invalidation.appender"),
            *(str(folder / "journal"), str(folder / "head"), str(batches)),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")


def acknowledged(lines: list[str]) -> list[int]:
    # The last line may have been cut by the kill.
    return [int(number) for line in lines if line.endswith("\n") for number in line.split()]


async def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    told: list[int] = []
    for patience in (1, 7, 20):
        with appender(tmp_path) as process:
            start(process)
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(patience)]
            process.kill()
            told += acknowledged([*lines, *process.stdout.readlines()])
    head = mapped_head(tmp_path / "head")
    journal = LocalJournal(tmp_path / "journal", head)
    journal.verify()
    positions = [each.position for each in everything(journal)]
    assert positions == list(range(1, len(positions) + 1))
    assert len(told) >= 3 * (1 + 7 + 20)
    assert told == sorted(set(told))
    assert set(told) <= set(positions)
    assert head.get() == positions[-1]
    await journal.close()


async def test_two_processes_share_one_order_and_see_all(tmp_path: Path) -> None:
    with appender(tmp_path, 100) as one, appender(tmp_path, 100) as two:
        start(one)
        start(two)
        told = [acknowledged(process.communicate()[0].splitlines(True)) for process in (one, two)]
    assert sorted(told[0] + told[1]) == list(range(1, 601))
    assert told[0] == sorted(told[0])
    assert told[1] == sorted(told[1])
    head = mapped_head(tmp_path / "head")
    assert head.get() == 600
    journal = LocalJournal(tmp_path / "journal", head)
    assert [each.position for each in everything(journal)] == list(range(1, 601))
    await journal.close()


async def test_what_was_durable_and_not_yet_visible_becomes_so_at_the_next_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = new_head()
    journal = LocalJournal(tmp_path, head)
    with monkeypatch.context() as patch:
        patch.setattr(head, "publish", lambda _: None)  # as if killed before
        journal.append_all([record()])
    assert head.get() == 0
    await journal.close()
    again = LocalJournal(tmp_path, head)
    assert head.get() == 1
    await again.close()
