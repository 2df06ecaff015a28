"""The sweep: the store comes to say what the rules say, and then the rules can go."""

from __future__ import annotations

import asyncio
import math
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.cache import tier as tier_module
from edgeproxy.invalidation import sweeper as sweeper_module
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.invalidation.sweeper import settle_if_empty
from edgeproxy.invalidation.view import JournalView
from tests.invalidation.conftest import working
from tests.invalidation.samples import picks, response, walk
from tests.kit.disk import full_disk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeproxy.cache.stored import StoredResponse
    from tests.invalidation.conftest import Node, Worker

HOME = Selector.by_tag("shop", "home")
ALL = Selector.by_everything("shop")


def row(worker: Worker, name: str) -> StoredResponse | None:
    found = worker.tier.lookup(response(name).primary)
    return found[0] if found else None


# -- what a sweep does


async def test_what_was_deleted_leaves_the_store_and_the_rest_stays(worker: Worker) -> None:
    await worker.store("a", tags=("home",))
    await worker.store("b")
    worker.append(HOME, mode=Mode.DELETE)
    await worker.store("c", tags=("home",))
    await worker.sweeper.sweep()
    assert row(worker, "a") is None
    assert row(worker, "b") is not None
    assert row(worker, "c") is not None
    assert worker.tier.settled == 1


async def test_what_was_invalidated_is_marked_with_the_last_position(worker: Worker) -> None:
    await worker.store("a", tags=("home",))
    worker.append(HOME)
    worker.append(ALL)
    await worker.store("b", tags=("home",))
    await worker.sweeper.sweep()
    marked, fresh = row(worker, "a"), row(worker, "b")
    assert marked is not None
    assert fresh is not None
    assert (marked.invalidated, fresh.invalidated) == (2, 0)
    await worker.settle()
    assert len(worker.view) == 0
    assert (worker.stands("a"), worker.stands("b")) == ("invalidated", "valid")


async def test_of_rules_with_one_selector_the_last_counts(worker: Worker) -> None:
    for _ in range(2):
        await worker.store("a", tags=("home",))
        worker.append(HOME, mode=Mode.DELETE)
    await worker.sweeper.sweep()
    assert row(worker, "a") is None


@pytest.mark.parametrize("own_steps", [1, 1000])
async def test_more_rows_and_records_than_one_step_takes(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, own_steps: int
) -> None:
    monkeypatch.setattr(sweeper_module, "_ROWS", 3)
    monkeypatch.setattr(sweeper_module, "_OWN_STEPS", own_steps)
    monkeypatch.setattr(sweeper_module, "_RECORDS", 2)
    for number in range(10):
        await worker.store(f"a{number}", tags=("home",))
        await worker.store(f"b{number}", tags=(f"t{number}",))
    for number in range(0, 10, 2):
        worker.append(Selector.by_tag("shop", f"t{number}"), mode=Mode.DELETE)
    worker.append(HOME, mode=Mode.DELETE)
    await worker.sweeper.sweep()
    assert worker.tier.settled == 6
    left = {name for each in range(10) for name in (f"a{each}", f"b{each}") if row(worker, name)}
    assert left == {f"b{number}" for number in range(1, 10, 2)}


async def test_a_put_that_was_admitted_before_the_rule_is_waited_for(worker: Worker) -> None:
    admitted, go_on = threading.Event(), threading.Event()
    admit = worker.view.admit

    def slow(stored: StoredResponse) -> StoredResponse | None:
        told = admit(stored)
        admitted.set()
        go_on.wait(10)
        return told

    worker.view.admit = slow  # type: ignore[method-assign]
    # The loop leaves it to the thread: what it stores itself, a sweep can't come in between.
    worker.tier._writer._shy_until = math.inf
    put = asyncio.create_task(worker.store("a", tags=("home",)))
    await asyncio.to_thread(admitted.wait, 10)
    worker.append(HOME, mode=Mode.DELETE)
    sweep = asyncio.create_task(worker.sweeper.sweep())
    await asyncio.sleep(0.02)
    assert not sweep.done()
    go_on.set()
    assert await put is not None
    await sweep
    assert row(worker, "a") is None


async def test_a_store_that_missed_trimmed_records_loses_what_is_older(worker: Worker) -> None:
    await worker.store("a")
    for _ in range(5):
        worker.append(HOME)
    await worker.store("b")
    for position in (1, 2, 3):
        with worker.journal._env.begin(worker.journal._records, write=True) as transaction:
            transaction.delete(position.to_bytes(8, "big"))
    await worker.sweeper.sweep()
    assert row(worker, "a") is None
    assert row(worker, "b") is not None
    assert worker.tier.settled == 5


async def test_each_worker_sweeps_the_store_that_it_has_for_itself(tmp_path: Path) -> None:
    async with working(tmp_path, workers=2, url="memory:") as (one, two):
        await one.store("a", tags=("home",))
        await two.store("a", tags=("home",))
        one.append(HOME, mode=Mode.DELETE)
        await one.settle()
        assert (row(one, "a"), one.tier.settled) == (None, 1)
        assert row(two, "a") is not None
        assert two.stands("a") == "deleted"
        await two.settle()
        assert row(two, "a") is None


async def test_an_empty_store_is_spared_the_past(worker: Worker) -> None:
    worker.append(HOME)
    settle_if_empty(worker.tier, worker.head)
    assert worker.tier.settled == 1
    late = JournalView(worker.journal, worker.head, worker.tier.settled, lambda: worker.now)
    assert len(late) == 0
    await worker.store("a")
    worker.append(HOME)
    settle_if_empty(worker.tier, worker.head)
    assert worker.tier.settled == 1


# -- the task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_INTERVAL", "_UPKEEP_INTERVAL", "_FAILURE_PAUSE"):
        monkeypatch.setattr(sweeper_module, name, 0.005)


async def stop(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.usefixtures("quick")
async def test_it_sweeps_drops_rules_and_clears_the_dead(worker: Worker) -> None:
    await worker.store("a", tags=("home",))
    await worker.store("dead", response_time=worker.now - 20_000)
    await worker.store("alive")
    running = asyncio.create_task(worker.sweeper.run())
    worker.append(HOME, mode=Mode.DELETE)
    await until(lambda: len(worker.view) == 0 and worker.view.floor == 1)
    assert row(worker, "a") is None
    await until(lambda: row(worker, "dead") is None)
    assert row(worker, "alive") is not None
    await stop(running)


async def test_many_dead_go_one_step_after_the_other(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tier_module, "STEP", 10)
    # Upkeep comes but once, at the start.
    monkeypatch.setattr(sweeper_module, "_UPKEEP_INTERVAL", 600.0)
    for number in range(40):
        await worker.store(f"dead{number}", response_time=worker.now - 20_000)
        await worker.store(f"alive{number}")
    running = asyncio.create_task(worker.sweeper.run())
    await until(lambda: worker.tier.entries == 40)
    await stop(running)
    assert all(row(worker, f"alive{number}") for number in range(40))


async def test_where_nothing_is_dead_little_is_looked_at(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tier_module, "STEP", 2)
    for number in range(10):
        await worker.store(f"alive{number}")
    looked_at: list[StoredResponse] = []
    monkeypatch.setattr(worker.sweeper, "_is_dead", looked_at.append)
    await worker.sweeper._make_room()
    assert len(looked_at) == 2


@pytest.mark.usefixtures("quick")
async def test_of_the_workers_that_share_a_store_one_sweeps_and_all_drop(tmp_path: Path) -> None:
    async with working(tmp_path, workers=2) as (one, two):
        tasks = []
        swept_by: list[Worker] = []
        for worker in (one, two):
            sweep = worker.sweeper.sweep

            async def noting(worker: Worker = worker, sweep: Callable[[], object] = sweep) -> None:
                swept_by.append(worker)
                await sweep()  # type: ignore[misc]

            worker.sweeper.sweep = noting  # type: ignore[method-assign]
            tasks.append(asyncio.create_task(worker.sweeper.run()))
        one.append(HOME)
        await until(lambda: one.view.floor == two.view.floor == 1)
        assert {id(worker) for worker in swept_by} == {id(one)}
        await stop(tasks[0])
        one.append(HOME)
        await until(lambda: two.view.floor == 2)
        await stop(tasks[1])


@pytest.mark.usefixtures("quick")
async def test_what_fails_is_logged_and_tried_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settle = worker.tier.settle
    failures = iter([OSError("disk")])

    def failing(position: int) -> None:
        for error in failures:
            raise error
        settle(position)

    monkeypatch.setattr(worker.tier, "settle", failing)
    worker.append(HOME)
    running = asyncio.create_task(worker.sweeper.run())
    await until(lambda: worker.tier.settled == 1)
    assert "the sweep failed" in caplog.text
    await stop(running)


@pytest.mark.usefixtures("quick")
async def test_a_full_disk_only_puts_the_sweep_off(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    await worker.store("a", tags=("home",))
    worker.append(HOME, mode=Mode.DELETE)
    with full_disk():
        running = asyncio.create_task(worker.sweeper.run())
        await until(lambda: bool(caplog.records))
        assert row(worker, "a") is not None
    await until(lambda: row(worker, "a") is None and len(worker.view) == 0)
    await stop(running)
    assert "can't be written" in caplog.text
    assert "Traceback" not in caplog.text


# -- all together: sweeping and dropping never change an answer

NAMES = "abc"
TAGS = {"a": ("x",), "b": ("x", "y"), "c": ()}
SELECTORS = (
    Selector.by_tag("shop", "x"),
    Selector.by_tag("shop", "y"),
    Selector.by_url("shop", None, b"/c"),
    ALL,
    Selector.by_everything("shop", "preview"),
)
STEPS = st.one_of(
    st.tuples(st.just("begin"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("end"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("remember"), st.sampled_from(NAMES), st.sampled_from([0, 1])),
    st.tuples(st.just("purge"), st.integers(0, len(SELECTORS) - 1), st.sampled_from(Mode)),
    st.tuples(st.just("count"), st.integers(0, len(SELECTORS) - 1), st.sampled_from([0, 1, 2])),
    st.tuples(st.just("sweep"), st.just(0), st.just(0)),
    st.tuples(st.just("drop"), st.sampled_from([0, 1]), st.just(0)),
)


class History:
    """What is done to a node of two workers, and what must be true of it by the journal alone."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.flights: dict[str, tuple[int, object]] = {}
        self.stored: dict[str, StoredResponse] = {}

    def expected(self, stored: StoredResponse, since: int) -> str:
        return walk(self.node[0].journal.since(0, 1 << 32), stored, since, 1 << 32)[0]

    def live(self, name: str) -> str:
        """How what was stored under a name stands by the journal."""
        stored = self.stored.get(name)
        told = "absent" if stored is None else self.expected(stored, stored.position)
        return "absent" if told == "deleted" else told

    async def do(self, what: str, which: object, how: object) -> None:
        one, two = self.node
        if what == "begin" and which not in self.flights:
            hold = one.view.hold()
            self.flights[str(which)] = (hold.position, hold)
        elif what == "end" and which in self.flights:
            name = str(which)
            position, hold = self.flights.pop(name)
            made = await one.store(name, tags=TAGS[name], position=position)
            hold.release()  # type: ignore[attr-defined]
            fetched = response(name, tags=TAGS[name], position=position)
            refused = self.expected(fetched, position) == "deleted"
            assert (made is None) is refused
            if made is not None:
                self.stored[name] = fetched
        elif what == "remember":
            worker, name = self.node[int(str(how))], str(which)
            head = worker.view.catch_up()
            found = row(worker, name)
            if found is not None and worker.stands(name) == "valid":
                worker.remember(found, head)
        elif what == "purge":
            selector = SELECTORS[int(str(which))]
            expected = sum(
                picks(selector, self.stored[name]) for name in NAMES if self.live(name) != "absent"
            )
            assert isinstance(how, Mode)
            assert (await two.purge(selector, mode=how)).matched == expected
        elif what == "count":
            several = (SELECTORS[int(str(which))], SELECTORS[int(str(how))])
            expected = sum(
                any(picks(selector, self.stored[name]) for selector in several)
                for name in NAMES
                if self.live(name) != "absent"
            )
            result = await one.purge(*several, mode=Mode.DELETE, dry_run=True)
            assert result.matched == expected
        elif what == "sweep":
            await one.sweeper.sweep()
        elif what == "drop":
            worker = self.node[int(str(which))]
            await worker.view.drop_settled(worker.tier.settled, worker.memory)

    def check(self) -> None:
        for worker in self.node:
            head = worker.view.catch_up()
            for name in NAMES:
                told = worker.stands(name)
                assert ("absent" if told == "deleted" else told) == self.live(name)
                for entry in worker.memory.get(response(name).primary):
                    if entry.checked < worker.view.floor:
                        continue  # not to be served
                    verdict = worker.view.verdict(entry.stored, entry.checked).standing.value
                    invalidated = verdict == "valid" and entry.stored.invalidated
                    stands = "invalidated" if invalidated else verdict
                    assert stands == self.expected(entry.stored, entry.stored.position)
                    if stands == "valid":
                        entry.checked = head


@settings(max_examples=60)
@given(st.lists(STEPS, min_size=5, max_size=40))
def test_no_order_of_events_changes_what_the_journal_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object, object]]
) -> None:
    async def run() -> None:
        async with working(tmp_path_factory.mktemp("node"), workers=2) as node:
            history = History(node)
            for step in steps:
                await history.do(*step)
                history.check()

    asyncio.run(run())
