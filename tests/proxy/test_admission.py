"""Who gets in when more is asked for than can be served."""

import asyncio

import pytest

from edgeproxy.proxy import admission
from edgeproxy.proxy.admission import Admission, Overloaded


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
    entrance = Admission(2)
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


async def test_who_finds_no_place_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 0.05)
    entrance = Admission(1)
    first, second = Request(entrance), Request(entrance)
    with pytest.raises(Overloaded):
        await second.task
    assert (entrance.inside, entrance.waiting) == (1, 0)
    first.end.set()
    await first.task
    assert entrance.inside == 0


async def test_the_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_LINE", 1)
    entrance = Admission(1)
    first, second, third = (Request(entrance) for _ in range(3))
    with pytest.raises(Overloaded):
        await third.task
    for each in (first, second):
        each.end.set()
        await each.task


async def test_who_leaves_the_line_takes_no_place() -> None:
    entrance = Admission(1)
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


async def test_a_higher_limit_counts_at_once() -> None:
    entrance = Admission(1)
    requests = [Request(entrance) for _ in range(2)]
    await turn()
    entrance.configure(2)
    await turn()
    assert all(each.inside.is_set() for each in requests)
    for each in requests:
        each.end.set()
        await each.task
