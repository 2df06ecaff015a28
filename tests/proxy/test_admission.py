"""Who gets in when more is asked for than can be served."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.config.server import Limits
from edgeproxy.proxy import admission
from edgeproxy.proxy.admission import MOST_OWED, MOST_SAVED, Admission, Balance, Overloaded

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


def an_admission(**limits: Any) -> Admission:
    """For a worker that has neither hits nor new connections."""
    return Admission(Limits(**limits), lambda: 0, lambda: 0)


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
    """An event loop with a flood of closed-loop clients, and so many hits in each round. Its
    processor time goes by what is done, not by a clock."""

    def __init__(self, clients: int, hits_in_a_round: int, **limits: Any) -> None:
        self.hits = self.connections = self.served = self.refused = 0
        self.spent = self.on_others = 0.0
        self.admission = Admission(
            Limits(**limits), lambda: self.hits, lambda: self.connections, lambda: self.spent
        )
        self._hits_in_a_round = hits_in_a_round
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

    async def run(self, rounds: int, connections: int = 0) -> None:
        for _ in range(rounds):
            self.connections += connections
            self.hits += self._hits_in_a_round
            self.spent += self._hits_in_a_round * HIT
            await asyncio.sleep(0)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.mark.parametrize("hits_in_a_round", [10, 40, 400])
@pytest.mark.parametrize("share", [0.15, 0.4])
async def test_while_hits_take_all_of_the_processor_the_others_have_their_share(
    monkeypatch: pytest.MonkeyPatch, hits_in_a_round: int, share: float
) -> None:
    monkeypatch.setattr(admission, "LEAST_OFTEN", 1e9)
    machine = Machine(50, hits_in_a_round, miss_share=share)
    await machine.run(1000)
    machine.spent = machine.on_others = 0.0
    await machine.run(200_000 // hits_in_a_round)
    assert share * 0.6 < machine.on_others / machine.spent < share * 1.15
    await machine.stop()


async def test_without_hits_nobody_waits() -> None:
    entrance = an_admission()
    requests = [Request(entrance) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert all(each.inside.is_set() for each in requests)
    for each in requests:
        each.end.set()
        await each.task


async def test_when_there_are_no_more_hits_all_get_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "LEAST_OFTEN", 1e9)
    machine = Machine(50, 40, miss_share=0.0)
    await machine.run(100)
    assert machine.served < 20
    monkeypatch.setattr(admission, "_CALM", 0.0)
    await machine.run(5)
    assert machine.served > 50
    await machine.stop()


async def test_between_hits_the_others_get_in_with_each_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "_CALM", 1e9)
    machine = Machine(50, 0)
    machine.hits = 1
    await machine.run(50)
    assert 100 < machine.served < 250
    await machine.stop()


async def test_new_connections_are_taken_in_before_others_get_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "_BETWEEN", 1e9)
    monkeypatch.setattr(admission, "_CALM", 1e9)
    machine = Machine(50, 0)
    machine.hits = 1
    await machine.run(20)
    before = machine.served
    await machine.run(100, connections=1)
    assert machine.served - before < 20
    await machine.run(50)
    assert machine.served - before > 100
    await machine.stop()


async def test_some_get_in_whatever_hits_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "LEAST_OFTEN", 0.0)
    machine = Machine(50, 100, miss_share=0.0)
    await machine.run(500)
    assert machine.served > 490
    await machine.stop()


async def test_refusals_are_paced_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 0.0)
    monkeypatch.setattr(admission, "LEAST_OFTEN", 1e9)
    machine = Machine(500, 40)
    await machine.run(3000)
    assert machine.refused > 50
    assert machine.on_others / machine.spent < 0.2
    await machine.stop()


async def test_what_is_something_of_a_hit_does_not_wait_for_hits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "LEAST_OFTEN", 1e9)
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
    ("spent", "hits", "alone", "saved"),
    [
        pytest.param(0.001, 0, True, 0.0, id="without hits nothing is owed"),
        pytest.param(0.001, 50, True, 0.00015, id="hits alone save the share"),
        pytest.param(0.002, 50, False, 0.0003 - 0.001, id="others use it up"),
        pytest.param(0.0001, 50, False, 0.000015, id="hits don't take more than all"),
        pytest.param(5.0, 50, False, -MOST_OWED, id="what is owed is bounded"),
        pytest.param(1.0, 50_000, False, MOST_SAVED, id="what is saved is bounded"),
    ],
)
def test_what_the_others_may_still_take(spent: float, hits: int, alone: bool, saved: float) -> None:
    balance = Balance(hit_cost=20e-6, saved=0.0).after(spent, hits, 0.15, alone=alone)
    assert balance.saved == pytest.approx(saved, abs=3e-6)


@pytest.mark.parametrize(
    ("spent", "hits", "alone", "cost"),
    [
        pytest.param(0.004, 100, True, 21e-6, id="more by and by"),
        pytest.param(0.001, 100, True, 19.5e-6, id="less by and by"),
        pytest.param(0.004, 7, True, 20e-6, id="too few to tell"),
        pytest.param(0.004, 100, False, 19.998e-6, id="others among them: not known so well"),
    ],
)
def test_what_a_hit_costs(spent: float, hits: int, alone: bool, cost: float) -> None:
    balance = Balance(hit_cost=20e-6).after(spent, hits, 0.15, alone=alone)
    assert balance.hit_cost == pytest.approx(cost)
