"""How many stored responses some selectors pick, each counted once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edgeproxy.invalidation.picking import Walk, upper_bound
from edgeproxy.invalidation.rules import Standing
from edgeproxy.invalidation.selectors import stored_keys

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from edgeproxy.cache.snapshot import Snapshot
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.selectors import KeyName, Selector
    from edgeproxy.invalidation.view import JournalView

_STEP = 100
ENOUGH = 1000
"""Where more than that have to be looked at, it is not worth knowing beforehand how many."""


class Count:
    """Counts the responses in a snapshot that any of some selectors picks.

    What one selector picks by one key of a list the index knows. What several pick together is that
    of the largest, and what the others pick besides: those are looked at one by one. So is
    everything of a site where a DELETE has not been swept out of the store yet, or may be past its
    deadline, and what is picked by more than a key.
    """

    def __init__(
        self, snapshot: Snapshot, view: JournalView, selectors: Iterable[Selector]
    ) -> None:
        self._snapshot = snapshot
        self._view = view
        settled, overdue = snapshot.settled, snapshot.deadlines
        sizes = {each: upper_bound(snapshot, each, ENOUGH) for each in selectors}
        picking = sorted(filter(sizes.get, sizes), key=lambda each: sizes[each], reverse=True)
        self._known = 0
        self._walks: list[tuple[Selector, int]] = []
        self.to_walk = 0
        """How many responses `run` looks at; or one of the numbers above `ENOUGH`."""
        # The place of each selector in that order: a response counts for the first that picks it.
        self._ranks: dict[Hashable, int] = {}
        self._names: dict[KeyName, None] = {}
        self._lengths: set[int] = set()
        self._conditional: list[tuple[int, Selector]] = []
        sites: set[str] = set()
        for rank, selector in enumerate(picking):
            counted = selector.exact and not any(span.open for span in selector.spans())
            swept = view.last_delete(selector.site) <= settled and not overdue
            if counted and swept and selector.site not in sites:
                self._known += sizes[selector]
            else:
                self._walks.append((selector, rank))
                self.to_walk += sizes[selector]
            sites.add(selector.site)
            self._file(selector, rank)

    def _file(self, selector: Selector, rank: int) -> None:
        if selector.conditional:
            self._conditional.append((rank, selector))
            return
        name = selector.key_name
        self._names[name] = None
        self._lengths.add(len(selector.prefix))
        place = (selector.site, selector.environment, name, selector.key())
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
        walk = Walk(selector)
        while not walk.done:
            for row_id in walk.step(self._snapshot, _STEP):
                # Several workers may each have a response of one id.
                total += any(
                    selector.matches(stored) and self._counts(stored, rank, until)
                    for stored in self._snapshot.read(row_id)
                )
            await asyncio.sleep(0)
        return total

    def _counts(self, stored: StoredResponse, rank: int, until: int) -> bool:
        places = (
            (stored.site, environment, name, key)
            for name in self._names
            for key in stored_keys(name, stored, self._lengths)
            for environment in (None, stored.environment)
        )
        if any(self._ranks.get(place, rank) < rank for place in places):
            return False
        for other, selector in self._conditional:
            if other < rank and selector.matches(stored):
                return False
        verdict = self._view.verdict(stored, stored.position, until)
        return verdict.standing is not Standing.DELETED
