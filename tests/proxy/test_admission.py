"""Who gets in when more is asked for than can be served."""

import asyncio
import time

import pytest

from edgeproxy.proxy import admission
from edgeproxy.proxy.admission import Admission, Overloaded, thread_meter


class Loop:
    """An event loop's load, as it is told."""

    def __init__(self) -> None:
        self.hits = 0
        self.saturated = False

    def hits_so_far(self) -> int:
        self.hits += 100 if self.saturated else 0
        return self.hits

    def busy(self) -> float:
        return asyncio.get_running_loop().time() if self.saturated else 0.0


def line(most: int, load: Loop | None = None) -> Admission:
    load = load or Loop()
    return Admission(most, load.hits_so_far, load.busy)


class Request:
    """One that stays inside until it is told to end."""

    def __init__(self, admission: Admission) -> None:
        self.inside = asyncio.Event()
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._run(admission))

    async def _run(self, admission: Admission) -> None:
        async with admission:
            self.inside.set()
            await self.end.wait()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_are_inside_and_the_others_follow_in_order() -> None:
    entrance = line(2)
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
    entrance.close()


async def test_who_finds_no_place_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 0.05)
    entrance = line(1)
    first, second = Request(entrance), Request(entrance)
    with pytest.raises(Overloaded):
        await second.task
    assert (entrance.inside, entrance.waiting) == (1, 0)
    first.end.set()
    await first.task
    assert entrance.inside == 0
    entrance.close()


async def test_the_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_LINE", 1)
    entrance = line(1)
    first, second, third = (Request(entrance) for _ in range(3))
    with pytest.raises(Overloaded):
        await third.task
    for each in (first, second):
        each.end.set()
        await each.task
    entrance.close()


async def test_who_leaves_the_line_takes_no_place() -> None:
    entrance = line(1)
    first, second, third = (Request(entrance) for _ in range(3))
    await turn()
    # Let in, and gone at the same moment.
    first.end.set()
    await first.task
    second.task.cancel()
    await asyncio.gather(second.task, return_exceptions=True)
    await turn()
    assert third.inside.is_set()
    third.end.set()
    await third.task
    assert entrance.inside == 0
    entrance.close()


async def test_a_higher_limit_counts_at_once() -> None:
    entrance = line(1)
    requests = [Request(entrance) for _ in range(2)]
    await turn()
    entrance.configure(2)
    await turn()
    assert all(each.inside.is_set() for each in requests)
    for each in requests:
        each.end.set()
        await each.task
    entrance.close()


async def test_beside_hits_that_take_all_the_time_few_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loop is never idle: from the next look on, one in a period gets in; with idle moments
    again, all do."""
    monkeypatch.setattr(admission, "_PERIOD", 0.01)
    load = Loop()
    load.saturated = True
    entrance = line(1000, load)
    keeping = Request(entrance)
    await asyncio.sleep(0.2)
    flood = [Request(entrance) for _ in range(200)]
    await turn()
    assert sum(each.inside.is_set() for each in flood) <= 5
    connections = [entrance.connected() for _ in range(20)]
    assert connections[0]
    assert not connections[-1]
    load.saturated = False
    async with asyncio.timeout(5):
        await asyncio.gather(*(each.inside.wait() for each in flood))
    assert all(entrance.connected() for _ in range(20))
    for each in (keeping, *flood):
        each.end.set()
        await each.task
    entrance.close()


def test_a_thread_that_works_is_busy_whatever_else_the_machine_does() -> None:
    meter = thread_meter()
    began, start = meter(), time.monotonic()
    while time.monotonic() - start < 0.2:
        pass
    worked = meter() - began
    began = meter()
    time.sleep(0.2)
    assert meter() - began < worked
