"""A worker's view of the journal: up to date before it judges, and never too forgetful."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from edgeproxy.invalidation import view as view_module
from edgeproxy.invalidation.journal import LocalJournal
from edgeproxy.invalidation.rules import Standing
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.invalidation.view import JournalView
from tests.invalidation.samples import new_head, record, records, response, responses, walk

if TYPE_CHECKING:
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.record import Record
    from tests.invalidation.conftest import Worker

HOME = Selector.by_tag("shop", "home")


def standing(worker: Worker, stored: StoredResponse) -> str:
    return worker.view.verdict(stored, stored.position).standing.value


# -- catching up


async def test_what_another_worker_appended_is_known_after_catching_up(worker: Worker) -> None:
    stored = response(tags=("home",))
    assert worker.view.catch_up() == 0
    assert standing(worker, stored) == "valid"
    assert worker.append(HOME) == 1
    assert worker.view.catch_up() == 1
    assert standing(worker, stored) == "invalidated"


async def test_an_unmoved_head_reads_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.append(HOME)
    worker.view.catch_up()
    monkeypatch.setattr(worker.journal, "since", None)
    assert worker.view.catch_up() == 1


@settings(max_examples=50)
@given(journal=records(), stored=responses())
def test_its_verdict_is_that_of_a_walk_over_the_journal(
    tmp_path_factory: pytest.TempPathFactory, journal: list[Record], stored: StoredResponse
) -> None:
    async def check() -> None:
        head = new_head()
        local = LocalJournal(tmp_path_factory.mktemp("journal"), head)
        view = JournalView(local, head, 0, lambda: 0.0)
        if journal:
            local.append_all(journal)
        position = view.catch_up()
        assert position == len(journal)
        verdict = view.verdict(stored, stored.position)
        if stored.position > position:
            assert verdict.standing is Standing.DELETED
        else:
            told = (verdict.standing.value, verdict.position, verdict.deleted_from)
            assert told == walk(journal, stored, stored.position, 99)
        await local.close()

    asyncio.run(check())


async def test_more_records_than_one_read_takes_are_all_known(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "_READ_STEP", 7)
    for number in range(30):
        worker.append(Selector.by_tag("shop", str(number)))
    assert worker.view.catch_up() == 30
    for number in range(30):
        assert standing(worker, response(tags=(str(number),))) == "invalidated"


async def test_a_position_that_the_journal_never_reached_is_another_journals(
    worker: Worker,
) -> None:
    worker.append(HOME)
    assert standing(worker, response(position=1)) == "valid"
    assert standing(worker, response(position=2)) == "deleted"


async def test_a_response_stored_by_a_worker_that_is_ahead_is_not_taken_for_foreign(
    worker: Worker,
) -> None:
    worker.view.catch_up()
    worker.append(HOME)
    assert standing(worker, response(position=1)) == "valid"


async def test_what_is_older_than_records_trimmed_unread_is_not_trusted(worker: Worker) -> None:
    worker.journal.append_all([record(HOME) for _ in range(5)])
    for position in (1, 2):
        with worker.journal._env.begin(worker.journal._records, write=True) as transaction:
            transaction.delete(position.to_bytes(8, "big"))
    late = JournalView(worker.journal, worker.head, 0, lambda: 0.0)
    assert late.catch_up() == 5
    assert late.verdict(response(position=1), 1).standing is Standing.DELETED
    assert late.verdict(response(position=2), 2).standing is Standing.VALID
    assert late.admit(response(position=1)) is None


# -- admitting to the store


@pytest.mark.parametrize(
    ("mode", "position", "admitted"),
    [
        (Mode.INVALIDATE, 0, "marked"),
        (Mode.INVALIDATE, 1, "as it is"),
        (Mode.DELETE, 0, "no"),
        (Mode.DELETE, 1, "as it is"),
    ],
)
async def test_a_purge_during_a_fetch_is_seen_when_its_response_is_stored(
    worker: Worker, mode: Mode, position: int, admitted: str
) -> None:
    worker.append(HOME, mode=mode)
    stored = response(tags=("home",), position=position)
    told = worker.view.admit(stored)
    if admitted == "no":
        assert told is None
    else:
        assert told is not None
        assert told.invalidated == (1 if admitted == "marked" else 0)


async def test_a_response_of_before_the_dropped_rules_is_not_admitted(worker: Worker) -> None:
    worker.append(Selector.by_tag("shop", "other"))
    await worker.settle()
    assert worker.view.floor == 1
    assert worker.view.admit(response(position=0)) is None
    assert worker.view.admit(response(position=1)) is not None


# -- dropping rules


async def test_rules_that_were_swept_are_dropped(worker: Worker) -> None:
    for _ in range(3):
        worker.append(HOME)
    worker.view.catch_up()
    assert len(worker.view) == 3
    await worker.view.drop_settled(2, worker.memory)
    assert (len(worker.view), worker.view.floor) == (1, 2)


async def test_rules_stay_while_a_fetch_that_left_before_them_is_in_the_air(
    worker: Worker,
) -> None:
    worker.append(HOME)
    with worker.view.hold() as hold:
        assert hold.position == 1
        worker.append(HOME, mode=Mode.DELETE)
        await worker.settle()
        assert worker.tier.settled == 2
        assert worker.view.floor == 1
        assert worker.view.admit(response(tags=("home",), position=1)) is None
    await worker.settle()
    assert (len(worker.view), worker.view.floor) == (0, 2)


async def test_the_oldest_hold_counts_and_a_second_release_does_nothing(worker: Worker) -> None:
    first = worker.view.hold()
    worker.append(HOME)
    second, third = worker.view.hold(), worker.view.hold()
    worker.append(HOME)
    floors = []
    for hold in (second, second, first, third):
        hold.release()
        await worker.settle()
        floors.append(worker.view.floor)
    assert floors == [0, 0, 1, 2]


async def test_a_hold_does_not_hold_for_ever(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "MAX_HELD", 3)
    with worker.view.hold():
        for _ in range(5):
            worker.append(HOME)
        await worker.settle()
        assert worker.view.floor == 2
        assert worker.view.admit(response("unrelated", position=0)) is None


async def test_what_is_in_memory_is_judged_before_its_rules_are_dropped(worker: Worker) -> None:
    kept = worker.remember(response("kept"), 0)
    stale = worker.remember(response("stale", tags=("home",)), 0)
    gone = worker.remember(response("gone", tags=("away",)), 0)
    newer = worker.remember(response("newer", tags=("away",), position=2), 2)
    worker.append(HOME)
    worker.append(Selector.by_tag("shop", "away"), mode=Mode.DELETE)
    await worker.settle()
    assert len(worker.view) == 0
    there = [worker.memory.get(entry.stored.primary) for entry in (kept, stale, newer)]
    assert [entry.checked for (entry,) in there] == [2, 2, 2]
    assert [entry.stored.invalidated for (entry,) in there] == [0, 1, 0]
    assert there[1] != (stale,), "whoever remembers what it was can see that it is not"
    assert worker.memory.get(gone.stored.primary) == ()
    assert len(worker.memory) == 3


async def test_a_hold_taken_while_memory_is_checked_counts(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "_CHECK_STEP", 1)
    for name in "abc":
        worker.remember(response(name), 0)
    worker.append(HOME)
    await worker.sweeper.sweep()
    dropping = asyncio.create_task(worker.view.drop_settled(1, worker.memory))
    await asyncio.sleep(0)
    with worker.view.hold(worker.view.floor):
        await dropping
        assert (len(worker.view), worker.view.floor) == (1, 0)
