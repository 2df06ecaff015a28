"""Compaction: at once, and to the end, what the sweep does for a store's space bit by bit."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.invalidation.rules import Standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.cache.store import SharedTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.view import JournalView


class Compacted(NamedTuple):
    """What a compaction gave back."""

    responses: int
    """Stored responses that went."""
    bytes: int
    """And what they took."""


async def compact(
    tier: SharedTier,
    view: JournalView,
    is_dead: Callable[[StoredResponse], bool],
    clock: Callable[[], float],
) -> Compacted:
    """Remove all that can never be served again, what is beyond the store's bound, and the bodies
    that they leave.

    Files of bodies go from the disk. The pages of LMDB's file that become free are used again; the
    file does not shrink: to write it anew would need the workers that have it mapped to end. What
    is stored meanwhile need not have been looked at. Raises StoreError.
    """
    await tier.flush()
    view.catch_up()
    entries, size = tier.entries, tier.bytes_used

    def is_gone(stored: StoredResponse) -> bool:
        verdict = view.verdict(stored, stored.position)
        return verdict.standing is Standing.DELETED or is_dead(stored)

    cursor: bytes | None = None
    while True:
        began = time.monotonic()
        cursor, _ = await tier.expire_step(cursor, is_gone)
        if cursor is None:
            break
        # Readers' requests come first: no more than half of the time.
        await asyncio.sleep(time.monotonic() - began)
    await make_room(tier, clock)
    return Compacted(max(0, entries - tier.entries), max(0, size - tier.bytes_used))


async def make_room(tier: SharedTier, clock: Callable[[], float]) -> None:
    """What is least worth its bytes goes where the store is nearly full, and the bodies that no
    row has."""
    while await tier.evict_step(clock()):
        pass
    while await tier.collect_garbage():
        pass
