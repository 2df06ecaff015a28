"""Compaction: what can never be served again goes at once, and what can stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.cache.bodies import INLINE_LIMIT
from edgeproxy.invalidation.compaction import compact
from edgeproxy.invalidation.selectors import Mode, Selector
from tests.invalidation.samples import response

if TYPE_CHECKING:
    from pathlib import Path

    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.compaction import Compacted
    from tests.invalidation.conftest import Worker

HOME = Selector.by_tag("shop", "home")


async def compacted(worker: Worker) -> Compacted:
    def is_dead(stored: StoredResponse) -> bool:
        return stored.status == 404

    return await compact(worker.tier, worker.view, is_dead, lambda: worker.now)


def there(worker: Worker, *names: str) -> list[str]:
    return [name for name in names if worker.tier.lookup(response(name).primary)]


async def test_the_deleted_and_the_dead_go_and_the_rest_stays(worker: Worker) -> None:
    await worker.store("deleted", tags=("home",))
    await worker.store("dead", status=404)
    await worker.store("marked", tags=("p-1",))
    worker.append(HOME, mode=Mode.DELETE)
    worker.append(Selector.by_tag("shop", "p-1"))
    await worker.store("later", tags=("home",))
    before = worker.tier.bytes_used
    gone = await compacted(worker)
    assert gone == (2, before - worker.tier.bytes_used)
    assert gone.bytes > 0
    assert there(worker, "deleted", "dead", "marked", "later") == ["marked", "later"]
    assert worker.stands("marked") == "invalidated"
    assert worker.stands("later") == "valid"


async def test_it_goes_through_all_of_a_large_store(worker: Worker) -> None:
    for number in range(450):
        await worker.store(f"p{number}", tags=("home",) if number % 2 else ())
    worker.append(HOME, mode=Mode.DELETE)
    assert (await compacted(worker)).responses == 225
    assert worker.tier.entries == 225
    assert (await compacted(worker)) == (0, 0)


async def test_what_a_deadline_ends_goes_when_it_has_passed(worker: Worker) -> None:
    await worker.store("a", tags=("home",))
    await worker.purge(HOME, mode=Mode.DELETE, deadline=60.0)
    assert (await compacted(worker)).responses == 0
    worker.now += 61
    assert (await compacted(worker)).responses == 1


async def test_the_files_of_large_bodies_go_from_the_disk(worker: Worker) -> None:
    spool = worker.tier.spool()
    await spool.append(bytes(INLINE_LIMIT + 1))
    await worker.tier.put(
        response("large", tags=("home",)), spool, worker.view.admit, max_variants=8, max_busters=8
    )
    await spool.close()

    def files() -> list[Path]:
        return [path for path in worker.folder.glob("bodies/*/*") if path.is_file()]

    assert len(files()) == 1
    worker.append(HOME, mode=Mode.DELETE)
    assert (await compacted(worker)).bytes > INLINE_LIMIT
    assert files() == []


async def test_freed_pages_are_used_again(worker: Worker) -> None:
    data = worker.folder / "responses" / "data.mdb"
    sizes = []
    for _ in range(6):
        for number in range(40):
            spool = worker.tier.spool()
            await spool.append(bytes(20_000))
            await worker.tier.put(
                response(f"p{number}", tags=("home",), position=worker.view.catch_up()),
                spool,
                worker.view.admit,
                max_variants=8,
                max_busters=8,
            )
            await spool.close()
        worker.append(HOME, mode=Mode.DELETE)
        assert (await compacted(worker)).responses == 40
        sizes.append(data.stat().st_blocks)
    assert sizes[-1] <= 1.5 * sizes[0]
