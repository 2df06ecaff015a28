"""Bodies that lie outside the index and that no row has: noted there, until they are deleted."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from edgeproxy.cache.layout import KINDS
from edgeproxy.cache.stored import BodyRef

if TYPE_CHECKING:
    from edgeproxy.cache.index import Index, WriteTxn

# since when, kind, length.
_GARBAGE = struct.Struct("!dBQ")


def discard_body(index: Index, txn: WriteTxn, body: BodyRef, since: float) -> None:
    """Leave a body that no row has to the collection of garbage."""
    packed = _GARBAGE.pack(since, KINDS.index(body.kind), body.length)
    txn.put(body.id, packed, db=index.garbage)


def garbage_before(index: Index, time: float, limit: int) -> list[BodyRef]:
    """At most `limit` bodies that were left to be collected before `time`."""
    found = []
    # A process that was killed while it read would keep LMDB from using space again.
    index.env.reader_check()
    with index.env.begin() as txn, txn.cursor(index.garbage) as cursor:
        for body_id, value in cursor:
            since, kind, length = _GARBAGE.unpack(value)
            if since <= time:
                found.append(BodyRef(KINDS[kind], body_id, length, 0))
                if len(found) == limit:
                    break
    return found
