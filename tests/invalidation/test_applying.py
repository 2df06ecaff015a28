"""Rules applied by a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgeproxy.cache.errors import StoreUnusable
from edgeproxy.invalidation import applying, elsewhere
from edgeproxy.invalidation.applying import Due, Place, due_of
from edgeproxy.invalidation.elsewhere import apply_elsewhere
from edgeproxy.invalidation.record import Effect
from edgeproxy.invalidation.selectors import Mode, Selector
from tests.invalidation.samples import record, response

if TYPE_CHECKING:
    from pathlib import Path

    from tests.invalidation.conftest import Worker

HOME = Selector.by_tag("shop", "home")
DELETE = Effect(Mode.DELETE, 0.0)


def place(worker: Worker, *due: Due, journal_id: bytes | None = None) -> Place:
    tier = worker.tier
    identity = worker.journal.id if journal_id is None else journal_id
    return Place(str(tier.index_directory), tier.max_bytes, identity, 0.0, list(due))


async def test_it_does_what_is_due(worker: Worker) -> None:
    for _ in range(2):
        worker.append(Selector.by_tag("shop", "other"))
    for name in "abc":
        await worker.store(name, tags=("home",), position=1)
    await worker.store("d", tags=("sale",), position=1)
    await worker.store("e", tags=("home",), position=2)
    marked = Due(Selector.by_tag("shop", "sale"), Effect(Mode.INVALIDATE, 9000.0), 2)
    await apply_elsewhere(place(worker, Due(HOME, DELETE, 2), marked))
    left = {name: worker.tier.lookup(response(name).primary) for name in "abcde"}
    assert [name for name, stored in left.items() if stored] == ["d", "e"]
    (kept,) = left["d"]
    assert (kept.invalidated, kept.deleted_from) == (2, 9000.0)


async def test_what_it_can_not_open_is_told(worker: Worker) -> None:
    with pytest.raises(StoreUnusable, match="belongs to another journal"):
        await apply_elsewhere(place(worker, Due(HOME, DELETE, 1), journal_id=b"another"))


async def test_it_is_killed_when_nobody_waits_any_more(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def noting(*command: str, **how: object) -> asyncio.subprocess.Process:
        # One that never comes to its end by itself.
        command = (sys.executable, "-c", "import time; time.sleep(600)")
        process = await start(*command, **how)  # type: ignore[arg-type]
        started.append(process)
        return process

    monkeypatch.setattr(elsewhere.asyncio, "create_subprocess_exec", noting)
    waiting = asyncio.create_task(apply_elsewhere(place(worker, Due(HOME, DELETE, 1))))
    while not started:
        await asyncio.sleep(0.001)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert started[0].returncode == -9


def test_it_does_not_outlive_who_started_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", applying.__name__], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _, told = process.communicate(b"", timeout=30)
    assert process.returncode == 1
    assert b"truncated" in told


def test_of_equal_rules_the_latest_is_due() -> None:
    records = [
        record(HOME, mode=Mode.DELETE, position=1),
        record(HOME, position=2),
        record(HOME, mode=Mode.DELETE, position=3),
        record(HOME, mode=Mode.DELETE, deadline=5.0, time=10.0, position=4),
    ]
    assert due_of(records) == [
        Due(HOME, DELETE, 3),
        Due(HOME, Effect(Mode.INVALIDATE, 0.0), 2),
        Due(HOME, Effect(Mode.INVALIDATE, 15.0), 4),
    ]


def test_what_it_imports_is_little() -> None:
    # Of a purge of a million rows, readers notice the memory that this takes.
    told = subprocess.run(
        [sys.executable, "-c", f"import sys, {applying.__name__}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert {"asyncio", "pydantic", "aiohttp", "ssl"}.isdisjoint(told.stdout.split())
