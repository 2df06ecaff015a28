"""Who gets in when more is asked for than can be served."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.config.server import Limits
from edgeproxy.proxy import admission
from edgeproxy.proxy.admission import (
    AT_ONCE,
    MOST_OWED,
    MOST_SAVED,
    Admission,
    Balance,
    Overloaded,
)
from edgeproxy.proxy.processor import Times

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


def an_admission(**limits: Any) -> Admission:
    """For a worker that has no hits."""
    return Admission(Limits(**limits), lambda: 0, lambda: Times(time.monotonic(), 0.0, 0.0))


class Request:
    """One that stays inside until it is told to end."""

    def __init__(self, entrance: AbstractAsyncContextManager[None]) -> None:
        self.inside = asyncio.Event()
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._run(entrance))

    async def _run(self, entrance: AbstractAsyncContextManager[None]) -> None:
        async with entrance:
            self.inside.set()
            await self.end.wait()


async def turn() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def test_so_many_are_inside_and_the_others_follow_in_order() -> None:
    entrance = an_admission(max_requests=2)
    requests = [Request(entrance) for _ in range(4)]
    await turn()
    assert [each.inside.is_set() for each in requests] == [True, True, False, False]
    assert (entrance.inside, entrance.waiting) == (2, 2)
    requests[1].end.set()
    await turn()
    assert [each.inside.is_set() for each in requests] == [True, True, True, False]
    for each in requests:
        each.end.set()
    await asyncio.gather(*(each.task for each in requests))
    assert (entrance.inside, entrance.waiting) == (0, 0)


@pytest.mark.parametrize("at_once", [False, True])
async def test_who_finds_no_place_in_time_is_refused(
    monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 0.05)
    entrance = an_admission(max_requests=1)
    first = Request(entrance)
    await turn()
    second = Request(entrance.at_once if at_once else entrance)
    with pytest.raises(Overloaded) as refusal:
        await second.task
    assert not refusal.value.ends_connection
    assert (entrance.inside, entrance.waiting) == (1, 0)
    first.end.set()
    await first.task
    assert entrance.inside == 0


async def test_the_line_is_bounded() -> None:
    entrance = an_admission(max_requests=1, max_waiting=1)
    first, second, third = (Request(entrance) for _ in range(3))
    with pytest.raises(Overloaded) as refusal:
        await third.task
    assert refusal.value.ends_connection
    for each in (first, second):
        each.end.set()
        await each.task


async def test_who_leaves_the_line_takes_no_place() -> None:
    entrance = an_admission(max_requests=1)
    first, second, third = (Request(entrance) for _ in range(3))
    await turn()
    # Let in, and gone at the same moment.
    first.end.set()
    await first.task
    while entrance.waiting > 1:
        await asyncio.sleep(0)
    second.task.cancel()
    await asyncio.gather(second.task, return_exceptions=True)
    await turn()
    assert third.inside.is_set()
    third.end.set()
    await third.task
    assert entrance.inside == 0


async def test_a_higher_limit_counts_at_once() -> None:
    entrance = an_admission(max_requests=1)
    requests = [Request(entrance) for _ in range(2)]
    await turn()
    entrance.configure(Limits(max_requests=2))
    await turn()
    assert entrance.inside == 2
    for each in requests:
        each.end.set()
        await each.task


# -- beside hits

HIT, OTHER = 23e-6, 700e-6
"""Seconds of the processor."""


class Machine:
    """An event loop with a flood of closed-loop clients, and so many hits in each round. Its time
    goes by what is done, not by a clock: each round looks at the line."""

    def __init__(self, clients: int, hits_in_a_round: int, **limits: Any) -> None:
        self.hits = self.served = self.refused = 0
        self.spent = self.on_others = self.idle = self.waited = 0.0
        self.admission = Admission(
            Limits(**limits),
            lambda: self.hits,
            lambda: Times(self.spent + self.idle + self.waited, self.spent, self.waited),
        )
        self.hits_in_a_round = hits_in_a_round
        self._tasks = [asyncio.create_task(self._client()) for _ in range(clients)]

    async def _client(self) -> None:
        while True:
            try:
                async with self.admission:
                    await self._work(OTHER / 2)
                    self.served += 1
            except Overloaded:
                self.refused += 1
                await self._work(OTHER / 4)

    async def _work(self, seconds: float) -> None:
        for _ in range(2):
            self.spent += seconds
            self.on_others += seconds
            await asyncio.sleep(0)

    async def run(self, rounds: int, *, idle: float = 0.0, waited: float = 0.0) -> None:
        """With so many idle seconds in each round that has left them, and so many in which the
        machine did something else."""
        for _ in range(rounds):
            before = self.on_others
            self.hits += self.hits_in_a_round
            self.spent += self.hits_in_a_round * HIT
            await asyncio.sleep(0)
            self.idle += max(0.0, idle - (self.on_others - before))
            self.waited += waited

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
def _each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is looked at in each round, and lets nobody in for having waited."""
    monkeypatch.setattr(admission, "_TICK", 0.0)
    monkeypatch.setattr(admission, "LEAST_OFTEN", 1e9)


@pytest.mark.usefixtures("_each_round")
@pytest.mark.parametrize("hits_in_a_round", [10, 40, 400])
@pytest.mark.parametrize("share", [0.15, 0.4])
async def test_while_hits_take_all_of_the_processor_the_others_have_their_share(
    hits_in_a_round: int, share: float
) -> None:
    machine = Machine(50, hits_in_a_round, miss_share=share)
    await machine.run(1000)
    before = machine.spent, machine.on_others
    await machine.run(200_000 // hits_in_a_round)
    taken = (machine.on_others - before[1]) / (machine.spent - before[0])
    assert share * 0.7 < taken < share * 1.1
    await machine.stop()


@pytest.mark.usefixtures("_each_round")
@pytest.mark.parametrize("left", [0.4, 0.6, 0.9])
async def test_the_others_have_most_of_what_hits_leave(left: float) -> None:
    machine = Machine(50, 10, miss_share=0.1)
    await machine.run(20_000, idle=10 * HIT * left / (1 - left))
    taken = machine.on_others / (machine.spent + machine.idle)
    assert 0.7 * left < taken < left + 0.12
    await machine.stop()


@pytest.mark.usefixtures("_each_round")
async def test_what_the_machine_does_besides_leaves_them_nothing() -> None:
    machine = Machine(50, 40, miss_share=0.1)
    await machine.run(5_000, waited=0.01)
    assert machine.on_others / machine.spent < 0.12
    await machine.stop()


@pytest.mark.parametrize("slowness", [0.0, 0.005])
async def test_without_hits_nobody_waits_for_them(slowness: float) -> None:
    now = itertools.count()
    # However long each of them takes before the next one asks.
    entrance = Admission(Limits(), lambda: 0, lambda: Times(next(now) * slowness, 0.0, 0.0))
    requests = [Request(entrance) for _ in range(5 * AT_ONCE)]
    await asyncio.sleep(0)
    # No more than a few before the event loop can see a hit.
    assert entrance.inside == AT_ONCE
    await asyncio.gather(*(each.inside.wait() for each in requests))
    for each in requests:
        each.end.set()
        await each.task


@pytest.mark.usefixtures("_each_round")
async def test_when_there_are_no_more_hits_all_get_in() -> None:
    machine = Machine(50, 40, miss_share=0.0)
    await machine.run(100)
    assert machine.served < 20
    machine.hits_in_a_round = 0
    machine.idle += 1.0
    await machine.run(15)
    assert machine.served > 80
    await machine.stop()


async def test_some_get_in_whatever_hits_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_TICK", 0.0)
    monkeypatch.setattr(admission, "LEAST_OFTEN", 0.0)
    machine = Machine(50, 100, miss_share=0.0)
    await machine.run(500)
    assert machine.served > 490
    await machine.stop()


@pytest.mark.usefixtures("_each_round")
async def test_refusals_are_paced_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 0.0)
    machine = Machine(500, 40)
    await machine.run(3000)
    assert machine.refused > 50
    assert machine.on_others / machine.spent < 0.2
    await machine.stop()


@pytest.mark.usefixtures("_each_round")
async def test_what_is_something_of_a_hit_does_not_wait_for_hits() -> None:
    machine = Machine(20, 40, miss_share=0.0)
    await machine.run(100)
    waiting = [Request(machine.admission) for _ in range(5)]
    await machine.run(100)
    assert not any(each.inside.is_set() for each in waiting)
    stored = Request(machine.admission.at_once)
    await turn()
    assert stored.inside.is_set()
    for each in (stored, *waiting):
        each.task.cancel()
    await asyncio.gather(stored.task, *(each.task for each in waiting), return_exceptions=True)
    await machine.stop()


@pytest.mark.parametrize(
    ("spent", "hits", "saved"),
    [
        pytest.param(0.001, 50, 0.00015, id="hits alone save the share"),
        pytest.param(0.002, 50, 0.0003 - 0.001, id="others use it up"),
        pytest.param(0.001, 0, 0.00015 - 0.001, id="without a hit, too"),
        pytest.param(0.0001, 50, 0.000015, id="hits don't take more than all"),
        pytest.param(5.0, 50, -MOST_OWED, id="what is owed is bounded"),
        pytest.param(1.0, 50_000, MOST_SAVED, id="what is saved is bounded"),
    ],
)
def test_what_the_others_may_still_take(spent: float, hits: int, saved: float) -> None:
    balance = Balance(20e-6, 0.0).after(spent, 0.0, hits, 0.15, alone=False)
    assert balance.saved == pytest.approx(saved, abs=3e-6)


@pytest.mark.parametrize(
    ("idle", "share"),
    [
        pytest.param(0.04, 0.15, id="a little of it there always is"),
        pytest.param(0.3, 0.15 + 4 * 0.25, id="what hits leave is theirs"),
    ],
)
def test_idle_time_is_good_for_some_more(idle: float, share: float) -> None:
    balance = Balance(20e-6, 0.0, idle)
    after = balance.after(0.001 * (1 - idle), 0.001 * idle, 0, 0.15, alone=False)
    assert after.idle == pytest.approx(idle)
    assert after.saved == pytest.approx(0.001 * share - 0.001 * (1 - idle), abs=3e-6)


def test_idle_time_is_what_it_was_of_late() -> None:
    balance = Balance()
    for _ in range(100):
        balance = balance.after(0.0, 0.001, 0, 0.15, alone=True)
    assert 0.6 < balance.idle < 0.7
    assert balance.after(1.0, 0.0, 0, 0.15, alone=True).idle == 0


@pytest.mark.parametrize(
    ("saved", "room"),
    [(-0.01, 0), (0.0, 0), (0.0001, 1), (0.0021, 3), (1.0, AT_ONCE)],
)
def test_so_many_may_get_in(saved: float, room: int) -> None:
    assert Balance(saved=saved).room == room


@pytest.mark.parametrize(
    ("spent", "hits", "alone", "cost"),
    [
        pytest.param(0.004, 100, True, 24e-6, id="more by and by"),
        pytest.param(0.001, 100, True, 18e-6, id="less by and by"),
        pytest.param(0.004, 7, True, 20e-6, id="too few to tell"),
        pytest.param(0.004, 100, False, 19.9996e-6, id="others among them: not known so well"),
    ],
)
def test_what_a_hit_costs(spent: float, hits: int, alone: bool, cost: float) -> None:
    balance = Balance(hit_cost=20e-6).after(spent, 0.0, hits, 0.15, alone=alone)
    assert balance.hit_cost == pytest.approx(cost)
