"""What the admin side and the proxy call: invalidate this, and tell how much it was."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.invalidation.journal import Record
from edgeproxy.invalidation.rules import Standing
from edgeproxy.invalidation.selectors import KINDS, Mode, Selector

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from edgeproxy.cache.snapshot import Snapshot
    from edgeproxy.cache.store import SharedTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.journal import LocalJournal
    from edgeproxy.invalidation.view import JournalView

_COUNT_FIRST = 1000
"""Responses that may have to be looked at one by one before an invalidation takes effect; where
there are more, they are counted while it does."""
_STEP = 100
_COUNTS = 64
"""Purges that are counted at a time: each has a read transaction open meanwhile, and LMDB has room
for so many on the whole node."""


@dataclass(frozen=True, slots=True)
class PurgeResult:
    """What became of a purge."""

    id: str | None
    """The record's; None for a dry run, which leaves none."""
    position: int
    """The record's place in the journal; of a dry run: the head that it was counted at."""
    mode: Mode
    matched: int
    """Stored responses of the node that it picked, without those that were deleted before."""
    dry_run: bool


class InvalidationService:
    """Records invalidations, and counts what they pick."""

    def __init__(
        self,
        journal: LocalJournal,
        view: JournalView,
        tier: SharedTier,
        clock: Callable[[], float],
        maybe_in_flight: Callable[[bytes], bool],
    ) -> None:
        """`maybe_in_flight`: False when no worker of the node fetches a target (by its id)."""
        self._journal = journal
        self._view = view
        self._tier = tier
        self._clock = clock
        self._maybe_in_flight = maybe_in_flight
        self._counting = asyncio.Semaphore(_COUNTS)

    async def purge(
        self,
        selectors: Sequence[Selector],
        mode: Mode,
        actor: str,
        source: str,
        *,
        dry_run: bool = False,
    ) -> PurgeResult:
        """Invalidate or delete what any of the selectors picks.

        On return no worker of the node serves it as fresh (or at all), whatever was in the air.
        Costs the same however much that is. Raises JournalError if it could not be recorded.
        """
        if not selectors:
            raise ValueError("a purge needs a selector")
        draft = self._draft(selectors, mode, actor, source)
        record: Record | None = None
        # The rules that count are those of now, however long the count takes.
        with self._view.hold(self._view.floor):
            async with self._counting:
                with self._tier.snapshot() as snapshot:
                    position = self._view.catch_up()
                    count = _Count(snapshot, self._view, selectors)
                    if count.to_walk > _COUNT_FIRST and not dry_run:
                        record = await self._journal.append(draft)
                        position = record.position - 1
                    matched = await count.run(position)
        if dry_run:
            return PurgeResult(None, position, mode, matched, dry_run=True)
        if record is None:
            record = await self._journal.append(msgspec.structs.replace(draft, matched=matched))
        return PurgeResult(record.id, record.position, mode, matched, dry_run=False)

    async def invalidate_changed(
        self, site: str, targets: Iterable[tuple[str, bytes]], tags: Iterable[str] = ()
    ) -> int | None:
        """Remove what an unsafe request changed (RFC 9111 4.4): (host, canonical target) each, and
        what bears any of the tags. The position of the record; None if there was no need of one.

        Nothing is recorded for what is neither stored nor on its way: most of what is posted to.
        What tags it will bear that is on its way, nobody knows.
        """
        selectors = [
            selector
            for selector in (Selector.by_url(site, host, target) for host, target in targets)
            if self._concerned(selector)
        ]
        selectors.extend(Selector.by_tag(site, tag) for tag in tags)
        if not selectors:
            return None
        record = await self._journal.append(self._draft(selectors, Mode.DELETE, "origin", ""))
        return record.position

    def _draft(self, selectors: Iterable[Selector], mode: Mode, actor: str, source: str) -> Record:
        return Record(
            id=secrets.token_hex(16),
            time=self._clock(),
            mode=mode,
            selectors=tuple(dict.fromkeys(selectors)),
            actor=actor,
            source=source,
        )

    def _concerned(self, selector: Selector) -> bool:
        # In this order: what is no longer in the air has been stored by then, if it was at all.
        if self._maybe_in_flight(selector.target_id):
            return True
        with self._tier.snapshot() as snapshot:
            return bool(snapshot.ids(selector, None, 1))


class _Count:
    """Counts the responses in a snapshot that any of some selectors picks, each once.

    What one selector picks the index knows. What several pick together is that of the largest,
    and what the others pick besides: those are looked at one by one. So is everything of a site
    where a DELETE has not been swept out of the store yet.
    """

    def __init__(
        self, snapshot: Snapshot, view: JournalView, selectors: Iterable[Selector]
    ) -> None:
        self._snapshot = snapshot
        self._view = view
        settled = snapshot.settled
        sizes = {selector: snapshot.count(selector) for selector in selectors}
        picking = sorted(filter(sizes.get, sizes), key=lambda each: sizes[each], reverse=True)
        self._known = 0
        self._walks: list[tuple[Selector, int]] = []
        self.to_walk = 0
        """How many responses `run` looks at."""
        # The place of each selector in that order: a response counts for the first that picks it.
        self._ranks: dict[Hashable, int] = {}
        sites = set()
        for rank, selector in enumerate(picking):
            if selector.site in sites or view.last_delete(selector.site) > settled:
                self._walks.append((selector, rank))
                self.to_walk += sizes[selector]
            else:
                self._known += sizes[selector]
            sites.add(selector.site)
            key = KINDS[selector.kind].rule_key(selector)
            place = (selector.site, selector.environment, selector.kind, key)
            self._ranks.setdefault(place, rank)

    async def run(self, until: int) -> int:
        """The count, by the rules up to position `until`; lets others run on the way."""
        total = self._known
        for selector, rank in self._walks:
            total += await self._walk(selector, rank, until)
            await asyncio.sleep(0)
        return total

    async def _walk(self, selector: Selector, rank: int, until: int) -> int:
        """How many `selector` picks that none before it does."""
        total = 0
        after: bytes | None = None
        while True:
            ids = self._snapshot.ids(selector, after, _STEP)
            responses = self._snapshot.responses(selector, after, _STEP)
            # Several workers may each have a response of one id.
            total += len({each.id for each in responses if self._counts(each, rank, until)})
            if len(ids) < _STEP:
                return total
            after = ids[-1]
            await asyncio.sleep(0)

    def _counts(self, stored: StoredResponse, rank: int, until: int) -> bool:
        places = (
            (stored.site, environment, name, key)
            for name, kind in KINDS.items()
            for key in kind.stored_keys(stored)
            for environment in (None, stored.environment)
        )
        if any(self._ranks.get(place, rank) < rank for place in places):
            return False
        verdict = self._view.verdict(stored, stored.position, until)
        return verdict.standing is not Standing.DELETED
