"""Looking at what is stored and at what was invalidated, a page at a time."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.cache.lists import WHOLE, List, Span, shortened
from edgeproxy.cache.snapshot import Mark
from edgeproxy.semantics.environment import ENVIRONMENTS
from edgeproxy.semantics.tags import is_group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeproxy.cache.snapshot import Snapshot
    from edgeproxy.cache.store import SharedTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.journal import LocalJournal
    from edgeproxy.invalidation.record import Buster, Record
    from edgeproxy.invalidation.selectors import Selector
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.semantics.environment import Environment

MAX_LOOKED_AT = 2000
"""So many responses, or records, are looked at for one page, however few of them are wanted."""
MAX_TAGS = 1_000_000
"""Of so many different tags the most used are found; of more, among the first so many."""
_STEP = 500
_COUNTS = 4
"""Counts of tags at a time: each keeps a read transaction open."""


class ResponsePage(NamedTuple):
    """Some stored responses, in the order of the list that was read."""

    found: list[StoredResponse]
    after: tuple[bytes, bytes] | None
    """Where the next page begins; None: there is none."""


@dataclass(frozen=True, slots=True)
class TagCount:
    """A tag of a site, and how many stored responses bear it."""

    count: int
    site: str
    tag: str

    @property
    def rank(self) -> tuple[int, str, str]:
        """What the list is sorted by: the most used first, then by name."""
        return -self.count, self.tag, self.site


class RecordPage(NamedTuple):
    """Some records of the journal, the newest first."""

    found: list[Record]
    before: int | None
    """The position below which the next page begins; None: there is none."""


class Browser:
    """Reads the store and the journal of a node for people; nothing here is for the hot path."""

    def __init__(self, tier: SharedTier, view: JournalView, journal: LocalJournal) -> None:
        self._tier = tier
        self._view = view
        self._journal = journal
        self._counting = asyncio.Semaphore(_COUNTS)

    def responses(
        self, selector: Selector, after: tuple[bytes, bytes] | None, limit: int
    ) -> ResponsePage:
        """What a selector with one list picks, at most `limit` ids of it, behind `after`.

        Where each worker has a store of its own, each may have another response of one id: all of
        these come. Raises StoreUnusable.
        """
        (span,) = selector.spans()
        found: list[StoredResponse] = []
        ids = 0
        with self._tier.snapshot() as snapshot:
            mark = None if after is None else Mark(*after)
            marks = snapshot.ids(span, mark, MAX_LOOKED_AT)
            for mark in marks:
                if ids == limit:
                    return ResponsePage(found, after)
                after = mark
                picked = [each for each in snapshot.read(mark.id) if selector.matches(each)]
                found += picked
                ids += bool(picked)
        return ResponsePage(found, after if len(marks) == MAX_LOOKED_AT else None)

    async def tags(
        self,
        sites: Sequence[str],
        environment: Environment | None,
        prefix: str,
        after: TagCount | None,
        limit: int,
    ) -> list[TagCount]:
        """The tags that begin with `prefix`, the most used first, at most `limit` behind `after`.

        Every tag is looked at, in small steps: tags are many fewer than responses. What was deleted
        and is not swept out yet counts. Raises StoreUnusable.
        """
        environments = ENVIRONMENTS if environment is None else (environment,)
        best: list[TagCount] = []
        left = MAX_TAGS
        async with self._counting:
            with self._tier.snapshot() as snapshot:
                for site in sites:
                    found: dict[str, int] = {}
                    for each in environments:
                        span = Span(List.TAG, site, each, prefix.encode()[:WHOLE], open=True)
                        await _count_tags(snapshot, span, prefix, found, left)
                    left -= len(found)
                    counts = (TagCount(count, site, tag) for tag, count in found.items())
                    behind = (tag for tag in counts if after is None or tag.rank > after.rank)
                    best = heapq.nsmallest(limit, [*best, *behind], key=lambda tag: tag.rank)
        return best

    def count(self, site: str, environment: Environment) -> int:
        """How many responses are stored for one environment of a site. Raises StoreUnusable."""
        with self._tier.snapshot() as snapshot:
            return snapshot.count(Span(List.SITE, site, environment, b""))

    def records(
        self, before: int | None, limit: int, wanted: Callable[[Record], bool]
    ) -> RecordPage:
        """The newest wanted records at positions below `before` (None: all), at most `limit`.

        Raises JournalError.
        """
        head = self._view.catch_up()
        position = head if before is None else min(before - 1, head)
        oldest = self._journal.oldest()
        least = max(oldest, position - MAX_LOOKED_AT + 1)
        found: list[Record] = []
        while position >= least and len(found) < limit:
            start = max(least - 1, position - limit)
            for record in reversed(self._journal.since(start, position, limit)):
                position = record.position - 1
                if wanted(record):
                    found.append(record)
                    if len(found) == limit:
                        break
            else:
                position = start
        return RecordPage(found, position + 1 if position >= oldest else None)

    def following(self, position: int, limit: int) -> list[Record]:
        """The records after a position, in order. Raises JournalError."""
        return self._journal.since(position, self._view.catch_up(), limit)

    def busters(self, before: int | None) -> list[tuple[int, Buster]]:
        """The issued cache busters that are known, the newest first, with their positions; those
        below `before`."""
        return [
            (position, buster)
            for position, buster in reversed(self._view.busters())
            if before is None or position < before
        ]

    def record_at(self, position: int) -> Record | None:
        """The record at a position; None if it is forgotten. Raises JournalError."""
        return next(iter(self._journal.since(position - 1, position, 1)), None)


async def _count_tags(
    snapshot: Snapshot, span: Span, prefix: str, found: dict[str, int], most: int
) -> None:
    """Add up how often each tag of a span is borne, until there are `most` of them."""
    after: bytes | None = None
    while len(found) < most:
        values = snapshot.values(span, after, _STEP)
        for value, count, one in values:
            tag = _whole(value, one)
            if tag is not None and tag.startswith(prefix) and not is_group(tag):
                found[tag] = found.get(tag, 0) + count
        if len(values) < _STEP:
            return
        after = values[-1][0]
        await asyncio.sleep(0)


def _whole(value: bytes, one: StoredResponse | None) -> str | None:
    """The tag that a value in a key stands for: a response that bears it tells a long one."""
    if one is None:
        return value.decode("utf-8", "replace")
    return next((tag for tag in one.tags if shortened(tag.encode()) == value), None)
