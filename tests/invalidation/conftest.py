"""A worker's journal, store and view, all real, in a folder of the test's own."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.cache.memory import Entry, MemoryTier
from edgeproxy.cache.store import open_tier
from edgeproxy.config.model import Config
from edgeproxy.invalidation.jobs import Jobs
from edgeproxy.invalidation.journal import LocalJournal
from edgeproxy.invalidation.service import Caller, InvalidationService, PurgeResult
from edgeproxy.invalidation.sweeper import Sweeper
from edgeproxy.invalidation.view import JournalView
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.freshness import FreshnessPolicy, assess_freshness
from tests.invalidation.samples import new_head, record, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from edgeproxy.cache.store import SharedTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.head import SharedHead
    from edgeproxy.invalidation.jobs import Job
    from edgeproxy.invalidation.selectors import Mode, Selector


@dataclass
class Worker:
    """One worker's side of caching, without the proxy."""

    folder: Path
    head: SharedHead
    journal: LocalJournal
    tier: SharedTier
    memory: MemoryTier = field(default_factory=lambda: MemoryTier(1 << 20))
    flying: set[bytes] = field(default_factory=set)
    refreshed: list[str] = field(default_factory=list)
    """Targets of what was to be fetched anew, in that order."""
    now: float = 5000.0

    def __post_init__(self) -> None:
        self.view = JournalView(self.journal, self.head, self.tier.settled, lambda: self.now)
        self.jobs = Jobs(self.folder / "jobs")
        self.service = InvalidationService(
            self.journal,
            self.view,
            self.tier,
            lambda: self.now,
            self.flying.__contains__,
            self._refresh,
        )
        self.sweeper = Sweeper(
            self.tier,
            self.journal,
            self.view,
            self.memory,
            self.folder / "sweeper",
            clock=lambda: self.now,
            is_dead=lambda stored: stored.response_time < self.now - 10_000,
        )

    def _refresh(self, purge_id: str, actor: str, picked: Sequence[StoredResponse]) -> Job:
        self.refreshed.extend(stored.target.decode() for stored in picked)
        return self.jobs.begin(purge_id, actor, ("shop",), len(picked), self.now)

    async def store(self, name: str = "a", **changes: Any) -> StoredResponse | None:
        """Fetch and store: the position is that of the head, unless `changes` says another."""
        changes.setdefault("position", self.view.catch_up())
        spool = self.tier.spool()
        await spool.append(name.encode())
        try:
            return await self.tier.put(
                response(name, **changes), spool, self.view.admit, max_variants=8, max_busters=8
            )
        finally:
            await spool.close()

    def stands(self, name: str = "a") -> str:
        """How what is stored stands, as a lookup would see it: "absent" if it is not there."""
        self.view.catch_up()
        for stored in self.tier.lookup(response(name).primary):
            standing = self.view.verdict(stored, stored.position).standing.value
            return "invalidated" if standing == "valid" and stored.invalidated else standing
        return "absent"

    def remember(self, stored: StoredResponse, checked: int) -> Entry:
        """Keep a response in memory."""
        fields = Fields(stored.fields)
        freshness = assess_freshness(stored.status, fields, 0.0, 0.0, FreshnessPolicy())
        entry = Entry.of(stored, b"body", freshness, checked)
        self.memory.put(entry)
        return entry

    async def purge(self, *selectors: Selector, mode: Mode, **how: Any) -> PurgeResult:
        return await self.service.purge(selectors, mode, Caller("editor", "192.0.2.1"), **how)

    def append(self, *selectors: Selector, **changes: Any) -> int:
        """Record an invalidation as another worker would; its position."""
        return self.journal.append_all([record(*selectors, **changes)])[0].position

    async def settle(self) -> None:
        """Sweep, and drop the rules that are not needed any more."""
        await self.sweeper.sweep()
        await self.sweeper.drop_rules()


Node = list[Worker]


def config(folder: Path, url: str | None = None) -> Config:
    """A configuration with its store in `folder`."""
    store: dict[str, Any] = {"url": url or f"lmdb:{folder}", "max_bytes": "512MiB"}
    if url is not None:
        store["state_dir"] = str(folder)
    return Config.model_validate(
        {
            "workers": 2,
            "store": store,
            "sites": {"shop": {"hosts": ["shop.test"], "origins": [{"url": "http://127.0.0.1:9"}]}},
        }
    )


@asynccontextmanager
async def working(folder: Path, workers: int = 1, url: str | None = None) -> AsyncIterator[Node]:
    """A node of so many workers, each with a view of its own; their store is on disk, or at
    `url`. Workers that share a store share the objects too: a process opens a folder once."""
    head = new_head()
    journal = LocalJournal(folder / "journal", head)
    ticks = itertools.count(1)
    tiers = []
    made = []
    for number in range(workers):
        if not tiers or tiers[0].per_worker:
            tier = open_tier(
                config(folder, url),
                folder,
                worker=number,
                journal_id=journal.id,
                clock=lambda: next(ticks),
            )
            tiers.append(tier)
        made.append(Worker(folder, head, journal, tiers[-1]))
    yield made
    for tier in tiers:
        await tier.close()
    await journal.close()


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    """The only worker of a node whose store is on disk."""
    async with working(tmp_path) as (only,):
        yield only
