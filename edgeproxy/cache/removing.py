"""How responses leave the index, with all that points to them.

All of it runs inside a write transaction of its caller.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edgeproxy.cache.garbage import discard_body
from edgeproxy.cache.layout import PRIMARY_SIZE, read_cost, read_usage
from edgeproxy.cache.lists import keys_of
from edgeproxy.cache.rows import DamagedRow, in_row

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.cache.index import Index, WriteTxn
    from edgeproxy.cache.stored import StoredResponse

log = logging.getLogger(__name__)


def remove(index: Index, txn: WriteTxn, row_ids: Iterable[bytes], now: float) -> int:
    """Remove rows and free their bodies; gives their cost, 0 where there is none of them."""
    found = []
    cost = 0
    for row_id in dict.fromkeys(row_ids):
        try:
            stored = index.row(txn, row_id)
        except DamagedRow:
            log.warning("the row %s is damaged and is removed", row_id.hex())
            cost += _remove_damaged(index, txn, row_id, now)
        else:
            if stored is not None:
                found.append(stored)
    return cost + remove_all(index, txn, found, now)


def remove_all(index: Index, txn: WriteTxn, responses: Iterable[StoredResponse], now: float) -> int:
    """Remove responses, each once, that are just now as they were read; gives their cost."""
    # A purge may come here for millions of them: hence no more steps than have to be.
    delete, rows, lists, bodies = txn.delete, index.rows, index.lists, index.bodies
    cost = deadlines = 0
    for stored in responses:
        row_id, body = stored.id, stored.body
        delete(row_id, b"", rows)
        for key in keys_of(stored):
            delete(key, row_id, lists)
        if stored.deleted_from:
            deadlines += 1
        if stored.buster and not index.ids_of(txn, stored.primary):
            delete(stored.target_id, stored.primary, index.busters)
        if not in_row(body):
            delete(body.id, b"", bodies)
        if body.kind != "inline":
            discard_body(index, txn, body, now)
        cost += read_cost(txn.pop(row_id, index.usage))
    if cost:
        index.add_to_counter(txn, b"bytes", -cost)
    if deadlines:
        index.add_to_counter(txn, b"deadlines", -deadlines)
    return cost


def _remove_damaged(index: Index, txn: WriteTxn, row_id: bytes, now: float) -> int:
    """Remove a row that can't be read any more, so can't say where it is listed."""
    txn.delete(row_id, db=index.rows)
    _unlist_everywhere(index, txn, row_id)
    packed = txn.pop(row_id, db=index.usage)
    if packed is None:
        return 0
    usage = read_usage(packed)
    if not in_row(usage.body):
        txn.delete(usage.body.id, db=index.bodies)
    if usage.body.kind != "inline":
        discard_body(index, txn, usage.body, now)
    index.add_to_counter(txn, b"bytes", -usage.cost)
    return usage.cost


def _unlist_everywhere(index: Index, txn: WriteTxn, row_id: bytes) -> None:
    listed = [(index.lists, row_id)]
    if not index.ids_of(txn, row_id[:PRIMARY_SIZE]):
        listed.append((index.busters, row_id[:PRIMARY_SIZE]))
    for db, value in listed:
        with txn.cursor(db) as cursor:
            keys = [bytes(key) for key in cursor.iternext_nodup()]
        for key in keys:
            txn.delete(key, value, db=db)
