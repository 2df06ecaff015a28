"""What a purge answers, what it leaves behind, and what a dry run does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.invalidation import counting as counting_module
from edgeproxy.invalidation import service as service_module
from edgeproxy.invalidation.journal import JournalError
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.invalidation.service import TooManyRules
from tests.invalidation.conftest import working
from tests.invalidation.samples import response

if TYPE_CHECKING:
    from pathlib import Path

    from edgeproxy.invalidation.record import Record
    from tests.invalidation.conftest import Worker

HOME = Selector.by_tag("shop", "home")
SALE = Selector.by_tag("shop", "sale")
ALL = Selector.by_everything("shop")


async def fill(worker: Worker) -> None:
    """a, b: home; b, c: sale; d: none; e: home, preview; f: home, another site."""
    await worker.store("a", tags=("home",))
    await worker.store("b", tags=("home", "sale"))
    await worker.store("c", tags=("sale",))
    await worker.store("d")
    await worker.store("e", tags=("home",), environment="preview")
    await worker.store("f", tags=("home",), site="blog")


def journal_of(worker: Worker) -> list[Record]:
    return worker.journal.since(0, 1 << 32)


# -- effect


async def test_a_purge_is_in_force_and_on_record_when_it_is_answered(worker: Worker) -> None:
    await fill(worker)
    result = await worker.purge(HOME, mode=Mode.DELETE)
    assert (result.position, result.matched, result.dry_run) == (1, 3, False)
    assert worker.head.get() == 1
    (kept,) = journal_of(worker)
    assert (kept.id, kept.position, kept.matched) == (result.id, 1, 3)
    assert (kept.selectors, kept.mode) == ((HOME,), Mode.DELETE)
    assert (kept.actor, kept.source, kept.time) == ("editor", "192.0.2.1", 5000.0)
    stands = {name: worker.stands(name) for name in "abcdef"}
    assert stands == {**dict.fromkeys("abe", "deleted"), **dict.fromkeys("cdf", "valid")}


async def test_an_invalidation_marks_and_a_later_fetch_is_good_again(worker: Worker) -> None:
    await fill(worker)
    assert (await worker.purge(HOME, mode=Mode.INVALIDATE)).matched == 3
    assert worker.stands("a") == "invalidated"
    await worker.store("a", tags=("home",))
    assert worker.stands("a") == "valid"
    assert worker.stands("b") == "invalidated"


@pytest.mark.parametrize("mode", Mode)
async def test_a_purge_during_a_fetch_applies_to_what_it_brings(worker: Worker, mode: Mode) -> None:
    with worker.view.hold() as hold:
        await worker.purge(HOME, mode=mode)
        await worker.store("a", tags=("home",), position=hold.position)
    assert worker.stands("a") == ("absent" if mode is Mode.DELETE else "invalidated")


async def test_another_worker_sees_a_purge_at_once(tmp_path: Path) -> None:
    async with working(tmp_path, workers=2) as (one, two):
        await fill(one)
        assert two.stands("a") == "valid"
        await one.purge(HOME, mode=Mode.DELETE)
        assert two.stands("a") == "deleted"


# -- counts


@pytest.mark.parametrize(
    ("selectors", "matched"),
    [
        ([HOME], 3),
        ([HOME, SALE], 4),
        ([SALE, SALE], 2),
        ([ALL], 5),
        ([ALL, HOME, Selector.by_url("shop", None, b"/d")], 5),
        ([Selector.by_tag("shop", "home", "preview")], 1),
        ([Selector.by_everything("shop", "production")], 4),
        ([Selector.by_tag("blog", "home"), SALE], 3),
        ([Selector.by_url("shop", None, b"/a")], 1),
        ([Selector.by_url("shop", "shop.test", b"/a")], 1),
        ([Selector.by_url("shop", "else.test", b"/a")], 0),
        ([Selector.by_tag("shop", "nobody")], 0),
        ([Selector.by_tag("shop", "HOME", any_case=True)], 3),
        ([Selector("shop", prefix=b"/")], 5),
        ([Selector("shop", prefix=b"/a"), SALE], 3),
        ([Selector("shop", host="shop.test")], 5),
        ([Selector("shop", host="else.test")], 0),
        ([Selector("shop", pattern="^/[ab]$")], 2),
        ([Selector("shop", pattern="^/[ab]$"), SALE], 3),
        ([Selector("shop", pattern="^https://shop[.]test/", pattern_on="url")], 5),
        ([Selector("shop", tag="home", pattern="^/[bc]$")], 1),
        ([Selector("shop", tag="home", prefix=b"/a"), Selector("shop", status=200)], 5),
        ([Selector("shop", content_type="text/plain"), ALL], 5),
        ([Selector("shop", content_type="image/*")], 0),
        ([Selector("shop", status=404)], 0),
    ],
)
@pytest.mark.parametrize("count_first", [1000, 0])
async def test_each_response_counts_once_whatever_picks_it(
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
    selectors: list[Selector],
    matched: int,
    count_first: int,
) -> None:
    monkeypatch.setattr(service_module, "ENOUGH", count_first)
    monkeypatch.setattr(counting_module, "_STEP", 2)
    await fill(worker)
    assert (await worker.purge(*selectors, mode=Mode.DELETE, dry_run=True)).matched == matched
    assert (await worker.purge(*selectors, mode=Mode.DELETE)).matched == matched
    assert (await worker.purge(*selectors, mode=Mode.DELETE)).matched == 0


@pytest.mark.parametrize("swept", [False, True])
async def test_what_was_deleted_before_is_not_counted_again(worker: Worker, swept: bool) -> None:
    await fill(worker)
    await worker.purge(SALE, mode=Mode.DELETE)
    await worker.store("c", tags=("sale",))
    if swept:
        await worker.settle()
    assert (await worker.purge(HOME, mode=Mode.INVALIDATE)).matched == 2
    assert (await worker.purge(HOME, mode=Mode.INVALIDATE)).matched == 2
    assert (await worker.purge(ALL, mode=Mode.DELETE)).matched == 4


async def test_what_another_worker_has_yet_to_remove_is_not_counted_again(tmp_path: Path) -> None:
    async with working(tmp_path, workers=2, url="memory:") as (one, two):
        await fill(one)
        await fill(two)
        assert (await one.purge(ALL, mode=Mode.DELETE)).matched == 5
        await one.settle()
        assert (await one.purge(HOME, mode=Mode.DELETE)).matched == 0
        await two.settle()
        await two.store("a", tags=("home",))
        assert (await one.purge(ALL, mode=Mode.DELETE)).matched == 1


async def test_more_purges_at_once_than_the_index_has_readers_for(worker: Worker) -> None:
    await fill(worker)
    purges = [worker.purge(HOME, SALE, mode=Mode.INVALIDATE) for _ in range(5000)]
    assert {result.matched for result in await asyncio.gather(*purges)} == {4}


async def test_one_selector_is_counted_without_a_look_at_what_it_picks(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(worker)
    monkeypatch.setattr("edgeproxy.cache.snapshot.Snapshot.read", None)
    assert (await worker.purge(HOME, mode=Mode.INVALIDATE)).matched == 3
    assert (await worker.purge(ALL, mode=Mode.DELETE)).matched == 5


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Nothing is counted before a purge takes effect; counts begin when this event is set."""
    may_count = asyncio.Event()
    run = service_module.Count.run

    async def waiting(count: Any, until: int) -> int:
        await may_count.wait()
        return await run(count, until)

    monkeypatch.setattr(service_module.Count, "run", waiting)
    monkeypatch.setattr(service_module, "ENOUGH", 0)
    return may_count


async def test_a_long_count_does_not_keep_a_purge_from_taking_effect(
    worker: Worker, counting: asyncio.Event
) -> None:
    await fill(worker)
    purge = asyncio.create_task(worker.purge(HOME, SALE, mode=Mode.DELETE))
    while worker.head.get() == 0:
        await asyncio.sleep(0)
    assert worker.stands("a") == "deleted"
    # The sweep takes them out of the store, and yet they count.
    await worker.settle()
    assert worker.stands("a") == "absent"
    counting.set()
    assert (await purge).matched == 4
    assert journal_of(worker)[0].matched is None


async def test_rules_that_a_count_needs_stay_until_it_is_done(
    worker: Worker, counting: asyncio.Event
) -> None:
    await fill(worker)
    worker.append(ALL, mode=Mode.DELETE)
    purge = asyncio.create_task(worker.purge(HOME, mode=Mode.INVALIDATE))
    while worker.head.get() == 1:
        await asyncio.sleep(0)
    await worker.settle()
    counting.set()
    assert (await purge).matched == 0


async def test_a_store_that_each_worker_has_for_itself_is_counted_over_all(
    tmp_path: Path,
) -> None:
    async with working(tmp_path, workers=2, url="memory:") as (one, two):
        await one.store("a", tags=("home",))
        await two.store("a", tags=("home",))
        await two.store("b", tags=("home",))
        assert (await one.purge(HOME, mode=Mode.INVALIDATE)).matched == 2
        assert (one.stands("a"), two.stands("a")) == ("invalidated", "invalidated")


# -- refresh ahead


@pytest.mark.parametrize("count_first", [1000, 0])
async def test_what_was_picked_is_fetched_anew_the_most_used_first(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, count_first: int
) -> None:
    monkeypatch.setattr(service_module, "ENOUGH", count_first)
    await fill(worker)
    for name, hits in (("b", 3), ("a", 1), ("d", 9)):
        for _ in range(hits):
            worker.tier.touch(response(name).id, 1.0)
    await worker.tier.flush()
    result = await worker.purge(HOME, mode=Mode.DELETE, refresh=True)
    assert result.job is not None
    assert (result.job.purge_id, result.job.actor, result.job.total) == (result.id, "editor", 3)
    assert worker.refreshed == ["/b", "/a", "/e"]


async def test_no_more_is_fetched_anew_than_is_bearable(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "MAX_REFRESHED", 2)
    await fill(worker)
    await worker.purge(ALL, mode=Mode.INVALIDATE, refresh=True)
    assert len(worker.refreshed) == 2


async def test_a_dry_run_fetches_nothing_anew(worker: Worker) -> None:
    await fill(worker)
    result = await worker.purge(ALL, mode=Mode.DELETE, refresh=True, dry_run=True)
    assert (result.job, worker.refreshed) == (None, [])


# -- deadlines


async def test_a_deadline_turns_an_invalidation_into_a_deletion(worker: Worker) -> None:
    await fill(worker)
    result = await worker.purge(HOME, mode=Mode.DELETE, deadline=60.0)
    assert (result.matched, result.mode) == (3, Mode.DELETE)
    worker.now += 59.9
    assert worker.stands("a") == "invalidated"
    worker.now += 0.1
    assert worker.stands("a") == "deleted"
    assert worker.stands("c") == "valid"


@pytest.mark.parametrize("mode", Mode)
async def test_a_deadline_outlives_its_rule_and_later_ones(worker: Worker, mode: Mode) -> None:
    await fill(worker)
    await worker.purge(HOME, mode=Mode.DELETE, deadline=60.0)
    await worker.settle()
    assert len(worker.view) == 0
    await worker.purge(HOME, mode=mode, deadline=600.0 if mode is Mode.DELETE else 0.0)
    await worker.settle()
    assert worker.stands("a") == "invalidated"
    worker.now += 60.0
    assert worker.stands("a") == "deleted"
    assert (await worker.purge(ALL, mode=Mode.INVALIDATE)).matched == 2


async def test_what_was_fetched_after_it_has_no_deadline(worker: Worker) -> None:
    await fill(worker)
    await worker.purge(HOME, mode=Mode.DELETE, deadline=60.0)
    await worker.store("a", tags=("home",))
    await worker.settle()
    worker.now += 60.0
    assert (worker.stands("a"), worker.stands("b")) == ("valid", "deleted")


async def test_what_is_stored_after_the_deadline_though_asked_for_before_it_is_gone(
    worker: Worker,
) -> None:
    with worker.view.hold() as hold:
        await worker.purge(HOME, mode=Mode.DELETE, deadline=60.0)
        await worker.store("a", tags=("home",), position=hold.position)
        assert worker.stands("a") == "invalidated"
        worker.now += 60.0
        assert await worker.store("b", tags=("home",), position=hold.position) is None


@pytest.mark.parametrize(
    ("mode", "deadline"),
    [(Mode.INVALIDATE, 1.0), (Mode.DELETE, -1.0), (Mode.DELETE, float("nan")), (Mode.DELETE, 1e9)],
)
async def test_a_deadline_that_can_not_be(worker: Worker, mode: Mode, deadline: float) -> None:
    with pytest.raises(ValueError, match="deadline"):
        await worker.purge(HOME, mode=mode, deadline=deadline)


# -- rules that every look-up goes through


async def test_rules_with_conditions_are_bounded_until_they_are_swept_for(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []
    monkeypatch.setattr(worker.service, "_max_conditional", 3)
    monkeypatch.setattr(worker.service, "_on_refused", refused.append)

    def pattern(number: int) -> Selector:
        return Selector("shop", pattern=f"^/{number}$")

    for number in range(3):
        await worker.purge(pattern(number), mode=Mode.DELETE)
    with pytest.raises(TooManyRules, match='site "shop"'):
        await worker.purge(pattern(3), mode=Mode.DELETE)
    with pytest.raises(TooManyRules):
        await worker.purge(ALL, mode=Mode.DELETE, deadline=5.0)
    assert refused == ["too-many-rules"] * 2
    await worker.purge(ALL, HOME, mode=Mode.DELETE)
    await worker.settle()
    await worker.purge(*map(pattern, range(3)), mode=Mode.DELETE)


# -- dry runs, refusals


async def test_a_dry_run_leaves_nothing_behind(worker: Worker) -> None:
    await fill(worker)
    await worker.purge(Selector.by_tag("shop", "other"), mode=Mode.INVALIDATE)
    result = await worker.purge(HOME, mode=Mode.DELETE, dry_run=True)
    assert (result.id, result.position, result.matched, result.dry_run) == (None, 1, 3, True)
    assert len(journal_of(worker)) == 1
    assert worker.stands("a") == "valid"


async def test_a_purge_of_nothing_is_a_mistake(worker: Worker) -> None:
    with pytest.raises(ValueError, match="selector"):
        await worker.purge(mode=Mode.DELETE)


async def test_a_purge_that_could_not_be_recorded_says_so_and_did_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> list[Record]:
        raise JournalError("no room")

    await fill(worker)
    monkeypatch.setattr(worker.journal, "append_all", full)
    with pytest.raises(JournalError):
        await worker.purge(HOME, mode=Mode.DELETE)
    assert worker.stands("a") == "valid"


# -- unsafe requests (RFC 9111 4.4)


async def test_what_an_unsafe_request_changed_is_removed(worker: Worker) -> None:
    await fill(worker)
    await worker.service.invalidate_changed("shop", [("shop.test", b"/a"), ("shop.test", b"/x")])
    assert (worker.stands("a"), worker.stands("b")) == ("deleted", "valid")
    (kept,) = journal_of(worker)
    assert kept.selectors == (Selector.by_url("shop", "shop.test", b"/a"),)
    assert (kept.mode, kept.actor) == (Mode.DELETE, "origin")


async def test_an_unsafe_request_on_another_host_changes_nothing_here(worker: Worker) -> None:
    await fill(worker)
    await worker.service.invalidate_changed("shop", [("else.test", b"/a")])
    assert journal_of(worker) == []


async def test_nothing_is_recorded_where_nothing_is_stored_or_on_its_way(worker: Worker) -> None:
    await worker.service.invalidate_changed("shop", [("shop.test", b"/a")])
    assert journal_of(worker) == []


async def test_what_is_on_its_way_during_an_unsafe_request_is_not_kept(
    worker: Worker,
) -> None:
    with worker.view.hold() as hold:
        worker.flying.add(response("a").target_id)
        await worker.service.invalidate_changed("shop", [("shop.test", b"/a")])
        await worker.store("a", position=hold.position)
    assert worker.stands("a") == "absent"
