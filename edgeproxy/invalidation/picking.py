"""What a selector picks out of a snapshot: by the lists that have it, and what else it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeproxy.cache.snapshot import Mark, Snapshot
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.selectors import Selector

_STEP = 100


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


def upper_bound(snapshot: Snapshot, selector: Selector, at_most: int | None = None) -> int:
    """The number of responses that have to be looked at to find what a selector picks; just
    what it picks, if it is `exact`. Beyond `at_most` it is not counted on."""
    return sum(snapshot.count(span, at_most) for span in selector.spans())
