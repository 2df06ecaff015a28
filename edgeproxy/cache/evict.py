"""What goes when something has to: the least worth where room is short, the least recent where one
key has too many variants or one target too many `cb:` copies.

All of it runs inside a write transaction of its caller.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgeproxy.cache.layout import ID_SIZE, read_usage

if TYPE_CHECKING:
    from edgeproxy.cache.index import Index, WriteTxn
    from edgeproxy.cache.layout import Usage
    from edgeproxy.cache.stored import StoredResponse

DROPPED_VARIANTS = b"dropped-variants"
DROPPED_BUSTERS = b"dropped-busters"
"""Counts of the index: variants, and `cb:` copies, that gave way to newer ones of their URL."""

_RUNS = 8
_RUN = 8
_SHARE = 4
"""Of those sampled, one in so many goes at a time."""
BATCH = 192
"""Most rows that one transaction gives up."""


def worth(usage: Usage, now: float) -> float:
    """What keeping a response brings: hits for its bytes, and less the longer the last one was."""
    idle = max(0.0, now - usage.used)
    return (1 + usage.hits) / ((1.0 + idle) * usage.cost)


def evict(index: Index, txn: WriteTxn, need: int, now: float) -> int:
    """Give up what is least worth until `need` bytes are free, or a batch has gone.

    Gives the number of bytes freed; 0 when nothing is left to give up. The candidates are sampled:
    ids are hashes, so any place in their order is as good as any other.
    """
    freed = gone = 0
    while freed < need and gone < BATCH:
        candidates = sorted(_sample(index, txn), key=lambda one: worth(one[1], now))
        if not candidates:
            break
        for row_id, usage in candidates[: max(1, len(candidates) // _SHARE)]:
            index.remove(txn, [row_id], now)
            freed += usage.cost
            gone += 1
            if freed >= need or gone == BATCH:
                break
    return freed


def _sample(index: Index, txn: WriteTxn) -> list[tuple[bytes, Usage]]:
    found: dict[bytes, Usage] = {}
    with txn.cursor(index.usage) as cursor:
        for _ in range(_RUNS):
            # A run, not a single step: of neighbours, the first one alone would be too easily hit.
            more = cursor.set_range(os.urandom(ID_SIZE)) or cursor.first()
            for _ in range(_RUN):
                if not more:
                    break
                found[cursor.key()] = read_usage(cursor.value())
                more = cursor.next() or cursor.first()
    return list(found.items())


def limit_variants(index: Index, txn: WriteTxn, others: list[bytes], most: int, now: float) -> None:
    """Keep at most `most` variants of a key: of its newest one and the `others`, by their ids."""
    surplus = len(others) + 1 - most
    if surplus > 0:
        leaving = sorted(others, key=lambda row_id: _used(index, txn, row_id))[:surplus]
        index.remove(txn, leaving, now)
        index.add_to_counter(txn, DROPPED_VARIANTS, surplus)


def limit_busters(
    index: Index, txn: WriteTxn, stored: StoredResponse, most: int, now: float
) -> None:
    """Keep at most `most` `cb:` copies of a response's target, itself among them."""
    if not stored.buster:
        return
    with txn.cursor(index.busters) as cursor:
        if not cursor.set_key(stored.target_id) or cursor.count() <= most:
            return
        copies = [primary for primary in cursor.iternext_dup() if primary != stored.primary]
    variants = [index.ids_of(txn, primary) for primary in copies]
    variants.sort(key=lambda ids: max(_used(index, txn, row_id) for row_id in ids))
    surplus = len(copies) + 1 - most
    for ids in variants[:surplus]:
        index.remove(txn, ids, now)
    index.add_to_counter(txn, DROPPED_BUSTERS, surplus)


def _used(index: Index, txn: WriteTxn, row_id: bytes) -> float:
    usage = index.usage_of(txn, row_id)
    return 0.0 if usage is None else usage.used
