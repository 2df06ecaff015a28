"""What has been used most, of what selectors pick."""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING

from edgeproxy.invalidation.picking import Walk

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.cache.snapshot import Snapshot
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.selectors import Selector

_STEP = 100
_LOOKED_AT = 200_000


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
