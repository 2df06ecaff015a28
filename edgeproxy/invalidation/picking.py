"""What a selector picks out of a snapshot: by the lists that have it, and what else it asks."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgeproxy.cache.snapshot import Mark, Snapshot
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.selectors import Selector

_STEP = 100
_LOOKED_AT = 200_000


class Walk:
    """Goes through the ids of what a selector picks, a few at a time, in snapshots of any time.

    What is stored all the while comes once.
    """

    def __init__(self, selector: Selector) -> None:
        self._selector = selector
        self._spans = selector.spans()
        self._span = 0
        self._after: Mark | None = None

    @property
    def done(self) -> bool:
        return self._span == len(self._spans)

    def step(self, snapshot: Snapshot, limit: int) -> list[bytes]:
        """Some more ids, none at times: it looks at no more than `limit`."""
        if self.done:
            return []
        marks = snapshot.ids(self._spans[self._span], self._after, limit)
        if len(marks) < limit:
            self._span += 1
            self._after = None
        else:
            self._after = marks[-1]
        if self._selector.exact:
            return [mark.id for mark in marks]
        return [
            mark.id
            for mark in marks
            if any(self._selector.matches(stored) for stored in snapshot.read(mark.id))
        ]


def picked(snapshot: Snapshot, selector: Selector) -> Iterator[StoredResponse]:
    """The responses that a selector picks; several workers may each have one of one id."""
    walk = Walk(selector)
    while not walk.done:
        for row_id in walk.step(snapshot, _STEP):
            # Another worker need not have the same response under that id.
            yield from filter(selector.matches, snapshot.read(row_id))


async def most_used(
    snapshot: Snapshot, selectors: Iterable[Selector], most: int
) -> list[StoredResponse]:
    """The responses that selectors pick, those first that have been used most; at most `most`.

    Out of the first `_LOOKED_AT` that come: whoever has more had better not wait for the search.
    """
    hits: dict[bytes, int] = {}
    for selector in selectors:
        walk = Walk(selector)
        while not walk.done and len(hits) < _LOOKED_AT:
            hits.update((row_id, snapshot.hits(row_id)) for row_id in walk.step(snapshot, _STEP))
            await asyncio.sleep(0)
    chosen = heapq.nlargest(most, hits, key=hits.__getitem__)
    found = []
    for at, row_id in enumerate(chosen):
        # Several workers may have one each: what is asked for is the same.
        found += snapshot.read(row_id)[:1]
        if at % _STEP == 0:
            await asyncio.sleep(0)
    return [stored for stored in found if not stored.incomplete]


def upper_bound(snapshot: Snapshot, selector: Selector, at_most: int | None = None) -> int:
    """The number of responses that have to be looked at to find what a selector picks; just
    what it picks, if it is `exact`. Beyond `at_most` it is not counted on."""
    return sum(snapshot.count(span, at_most) for span in selector.spans())
