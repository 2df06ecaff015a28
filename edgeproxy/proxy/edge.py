"""One worker's edge: its parts put together, started, reloaded and closed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from edgeproxy.cache.evict import DROPPED_BUSTERS, DROPPED_VARIANTS
from edgeproxy.cache.memory import MemoryTier
from edgeproxy.cache.permissions import mend_permissions
from edgeproxy.cache.store import open_tier
from edgeproxy.config.sites import SiteTable
from edgeproxy.invalidation.browsing import Browser
from edgeproxy.invalidation.compaction import compact
from edgeproxy.invalidation.head import SharedHead
from edgeproxy.invalidation.jobs import Jobs
from edgeproxy.invalidation.journal import LocalJournal
from edgeproxy.invalidation.ledger import LEDGER, Ledger
from edgeproxy.invalidation.service import InvalidationService
from edgeproxy.invalidation.sweeper import Sweeper, settle_if_empty
from edgeproxy.invalidation.view import JournalView
from edgeproxy.proxy.access import refused_record
from edgeproxy.proxy.admission import Admission
from edgeproxy.proxy.arrivals import Arrivals
from edgeproxy.proxy.claims import Claims
from edgeproxy.proxy.crowd import capacity
from edgeproxy.proxy.explain import Explanation, explain
from edgeproxy.proxy.fast import FastPath
from edgeproxy.proxy.fetching import Fetching, FetchParts
from edgeproxy.proxy.foretelling import Foreteller
from edgeproxy.proxy.handler import Handler
from edgeproxy.proxy.handler_parts import HandlerParts
from edgeproxy.proxy.in_flight import InFlight, RememberedTargets
from edgeproxy.proxy.incomplete import Incomplete
from edgeproxy.proxy.intake import Intake
from edgeproxy.proxy.keeping import Keeping
from edgeproxy.proxy.lookup import Lookup, freshness_of
from edgeproxy.proxy.memo import RefreshBackoff, UncacheableKeys
from edgeproxy.proxy.origins.checks import Checks
from edgeproxy.proxy.origins.health import Verdicts
from edgeproxy.proxy.passed import Passed
from edgeproxy.proxy.peers import PeerServer
from edgeproxy.proxy.pool import Pools
from edgeproxy.proxy.processor import ProcessorTime
from edgeproxy.proxy.refresh_ahead import RefreshAhead
from edgeproxy.proxy.refreshing import Refreshing
from edgeproxy.proxy.retrieving import Retrieving
from edgeproxy.proxy.server import EdgeServer
from edgeproxy.proxy.serving import Serving
from edgeproxy.proxy.sharing import Sharing
from edgeproxy.proxy.tally import Tally
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.key import cache_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from edgeproxy.cache.permissions import Mended
    from edgeproxy.cache.store import SharedTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.config.model import Config
    from edgeproxy.invalidation.compaction import Compacted
    from edgeproxy.invalidation.jobs import Job
    from edgeproxy.invalidation.selectors import Selector
    from edgeproxy.proxy.access import AccessSink
    from edgeproxy.proxy.place import Place
    from edgeproxy.proxy.pool import PoolState
    from edgeproxy.proxy.purging import Purger
    from edgeproxy.proxy.refused import Refused


class Edge:
    """One worker's edge. Made outside the event loop; `start` opens what belongs to it."""

    server: EdgeServer
    arrivals: Arrivals
    service: InvalidationService
    ledger: Ledger
    tier: SharedTier
    view: JournalView
    browser: Browser
    foreteller: Foreteller
    jobs: Jobs

    def __init__(
        self, config: Config, place: Place, clock: Callable[[], float], access_log: AccessSink
    ) -> None:
        self.sites = SiteTable(config)
        self._config = config
        self._place = place
        self._clock = clock
        self._access_log = access_log
        self._closing = AsyncExitStack()
        self._memory = MemoryTier(config.memory.max_bytes)
        self.tally = Tally(place.tallies, place.worker)
        self._uncacheable = UncacheableKeys(
            config.memory.uncacheable_keys, lambda: self.tally.note("uncacheable")
        )
        self._backoff = RefreshBackoff()
        self._purger: Purger | None = None
        self._compacting: asyncio.Task[Compacted] | None = None

    async def start(self) -> None:
        """Open the journal and the store, and be ready for connections.

        Raises `JournalError` and `StoreError`.
        """
        config, place, clock = self._config, self._place, self._clock
        head = SharedHead(place.head)
        kept = config.store.journal_records
        journal = LocalJournal(
            place.directory / "journal", head, place.on_damage, kept_records=kept
        )
        self._closing.push_async_callback(journal.close)
        self.tier = open_tier(
            config,
            place.directory,
            worker=place.worker,
            journal_id=place.journal_id,
            clock=clock,
            on_damage=place.on_damage,
        )
        self._closing.push_async_callback(self.tier.close)
        settle_if_empty(self.tier, head)
        self.view = JournalView(journal, head, self.tier.settled, clock)
        self.browser = Browser(self.tier, self.view, journal)
        in_flight = InFlight(place.filters, place.worker)
        remembered = RememberedTargets(place.remembered)

        def concerned(target_id: bytes) -> bool:
            # In this order: what is no longer in the air is in memory by then.
            return in_flight.may_be(target_id) or remembered.may_have(target_id)

        self.service = InvalidationService(
            journal,
            self.view,
            self.tier,
            clock,
            maybe_in_flight=concerned,
            refresh=self._refresh_ahead,
            max_conditional=config.store.journal_conditional,
            on_refused=self.tally.note,
        )
        self.ledger = Ledger(place.directory / LEDGER)
        self._closing.callback(self.ledger.close)
        claims = Claims(place.runtime_dir / "claims")
        self._closing.callback(claims.close)
        memory_object = config.memory.max_object_bytes
        lookup = Lookup(self._memory, self.tier, self.view, remembered, memory_object)
        self._lookup = lookup
        incomplete = Incomplete(self.tier, lookup, self.view)
        keeping = Keeping(
            self.tier, lookup, incomplete, self.view, self._uncacheable, self._backoff, self.tally
        )
        fetching = Fetching(
            FetchParts(
                tier=self.tier,
                lookup=lookup,
                incomplete=incomplete,
                view=self.view,
                tally=self.tally,
                claims=claims,
                peers=place.runtime_dir,
                clock=clock,
                in_flight=in_flight,
                retrieving=Retrieving(
                    lookup, incomplete, self.view, self._uncacheable, clock, keeping
                ),
            )
        )
        refreshing = Refreshing(fetching, keeping, self._backoff, clock)
        verdicts = Verdicts(place.verdicts)
        self._checks = Checks(verdicts, claims)
        self._closing.push_async_callback(self._checks.close)
        self._checks.watch(self.sites.policies.values())
        self._pools = Pools(clock, verdicts=verdicts)
        self._closing.push_async_callback(self._pools.close)
        self._closing.push_async_callback(fetching.close)
        self.jobs = Jobs(place.runtime_dir / "jobs")
        self._ahead = RefreshAhead(self.jobs, fetching, lookup, self._pools, clock)
        self._closing.push_async_callback(self._ahead.close)
        serving = Serving(self.tier, lookup, clock, memory_object, self.tally)
        times = ProcessorTime()
        self._closing.callback(times.close)
        self._admission = Admission(config.limits, lambda: self._fast.hits, times.read)
        self._handler = Handler(
            HandlerParts(
                clock=clock,
                admission=self._admission,
                tally=self.tally,
                lookup=lookup,
                incomplete=incomplete,
                fetching=fetching,
                refreshing=refreshing,
                sharing=Sharing(lookup, self.view, clock),
                serving=serving,
                view=self.view,
                passed=Passed(
                    self.tier,
                    lookup,
                    keeping,
                    self.view,
                    self.service,
                    in_flight,
                    self._uncacheable,
                ),
                uncacheable=self._uncacheable,
                backoff=self._backoff,
                access_log=self._access_log,
            ),
            Intake(self.sites, config.trusted_proxies),
            self._pools,
        )
        self._handler.purger = self._purger
        self._closing.push_async_callback(refreshing.close)
        self.foreteller = Foreteller(self._handler, lookup, self.view, self._backoff, clock)
        open_body = self.tier.open if self.tier.per_worker else None
        peers = PeerServer(place.runtime_dir, fetching.find_flight, open_body)
        await peers.start()
        self._closing.push_async_callback(peers.close)
        self.server = EdgeServer(
            self._handler.handle,
            config.limits,
            clock=clock,
            on_refused=self._log_refused,
            capacity=capacity(config.limits, place.files),
            tally=self.tally,
        )
        self._fast = FastPath(
            clock=clock,
            memory=self._memory,
            tier=self.tier,
            view=self.view,
            lookup=lookup,
            deciding=self._handler.deciding,
            serving=serving,
        )
        self._configure_fast()
        self.server.fast = self._fast
        self.arrivals = Arrivals(self.server, self._fast)
        sweeper = Sweeper(
            self.tier,
            journal,
            self.view,
            self._memory,
            self._sweeper_lock(),
            clock=clock,
            is_dead=self._is_dead,
        )
        self._sweeping = asyncio.create_task(sweeper.run())
        self._closing.push_async_callback(self._break_off)

    def _sweeper_lock(self) -> Path:
        # Workers that have a store each sweep each their own.
        name = f"sweeper-{self._place.worker}" if self.tier.per_worker else "sweeper"
        return self._place.runtime_dir / name

    @property
    def in_flight(self) -> int:
        """How many requests are being answered."""
        return self.server.in_flight

    def reload(self, config: Config) -> None:
        """Take a new configuration's sites over; connections and what is stored stay."""
        self._config = config
        self.sites = SiteTable(config)
        self._handler.intake = Intake(self.sites, config.trusted_proxies)
        self.server.limits = config.limits
        self.server.crowd.capacity = capacity(config.limits, self._place.files)
        self._admission.configure(config.limits)
        # Freshness and rendered heads in memory were made under the old policies.
        self._memory.clear()
        self._lookup.policies = self.sites.policies
        self._configure_fast()
        self._pools.reload(self.sites.policies.values())
        self._checks.watch(self.sites.policies.values())

    def _configure_fast(self) -> None:
        config = self._config
        log = None if config.log.access == "off" else self._access_log
        self._fast.configure(self._handler.intake, config.limits, log)
        self._handler.access_log = log
        self.server.crowd.exempt = config.trusted_proxies

    def begin_drain(self) -> None:
        """Close idle connections, and each other one after its answer."""
        self.server.begin_drain()

    async def close(self) -> None:
        """Give up what is in flight, and close the store."""
        await self._closing.aclose()

    async def _break_off(self) -> None:
        self.arrivals.close()
        await self.server.shutdown()
        working = [task for task in (self._sweeping, self._compacting) if task is not None]
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)

    # -- for the admin side

    def purge_by(self, purger: Purger) -> None:
        """Have `purger` do what requests at the public port want purged."""
        self._purger = purger
        if hasattr(self, "_handler"):
            self._handler.purger = purger

    def now(self) -> float:
        """The time, in seconds since the epoch."""
        return self._clock()

    @property
    def dropped_variants(self) -> int:
        """Variants that gave way to newer ones of their URL, in the store's life."""
        return self.tier.counter(DROPPED_VARIANTS)

    @property
    def dropped_busters(self) -> int:
        """The same of `cb:` copies."""
        return self.tier.counter(DROPPED_BUSTERS)

    def origins(self, site: str) -> PoolState:
        """How the origins of a site that there is do, as this worker sees them."""
        return self._pools.of(self.sites.policies[site]).state()

    def explain(self, found: Iterable[StoredResponse]) -> list[Explanation]:
        """All about some stored responses of sites that there are."""
        self.view.catch_up()
        now = self._clock()
        return [
            explain(
                stored,
                self.sites.policies[stored.site],
                self.view.verdict(stored, stored.position),
                backing_off=self._backoff.active(stored.id, now),
                now=now,
            )
            for stored in found
        ]

    async def compact(self) -> Compacted:
        """Give back what space of the store can be; one at a time, and who comes meanwhile waits
        for that one. Raises StoreError."""
        if self._compacting is None or self._compacting.done():
            self._compacting = asyncio.create_task(
                compact(self.tier, self.view, self._is_dead, self._clock)
            )
        return await asyncio.shield(self._compacting)

    async def mend_permissions(self) -> Mended:
        """Put modes and owner of the node's files right. Raises StoreUnusable."""
        return await asyncio.to_thread(mend_permissions, self._place.directory)

    def notes(self, selector: Selector) -> list[str]:
        """What this worker remembers of a URL of which nothing may be stored."""
        if selector.host is None:
            return []
        policy, now = self.sites.policies[selector.site], self._clock()
        notes = []
        for scheme in ("http", "https"):
            key = cache_key(selector.site, scheme, selector.host, selector.target, policy.key)
            reason = self._uncacheable.reason(key.primary, now)
            if reason is not None:
                notes.append(f"{key.url}: the last answer was not stored: {reason}")
        return notes

    def _refresh_ahead(self, purge_id: str, actor: str, picked: Sequence[StoredResponse]) -> Job:
        rate = self._config.admin.refresh_rate
        return self._ahead.start(purge_id, actor, picked, self.sites, rate)

    def _log_refused(self, client: str, start_line: bytes, refused: Refused) -> None:
        """Requests that were no requests are in the access log, too."""
        self._access_log(refused_record(client, start_line, refused, self._clock()))

    def _is_dead(self, stored: StoredResponse) -> bool:
        """Whether a stored response can never answer again: past a purge's deadline, or too old
        even for a failing origin with nothing in it to ask the origin about (RFC 9111 4.3.1)."""
        if stored.deleted_from and stored.deleted_from <= self._clock():
            return True
        policy = self.sites.policies.get(stored.site)
        if policy is None:
            # A site may come back with the next reload; until then only eviction takes its space.
            return False
        fields = Fields(stored.fields)
        if b"etag" in fields or b"last-modified" in fields:
            return False
        freshness = freshness_of(stored, fields, policy)
        grace = max(freshness.stale_while_revalidate, freshness.stale_if_error)
        return freshness.ttl(self._clock()) + grace < 0
