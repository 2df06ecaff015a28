"""How a store is laid out: its folders, the bytes of its index, and what they come to."""

from __future__ import annotations

import struct
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple, get_args

from edgeproxy.cache.lists import List
from edgeproxy.cache.stored import BodyKind, BodyRef

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

RESPONSES, BODIES, SPOOLS = "responses", "bodies", "tmp"
"""The folders of a store; where each worker has one of its own, it is in `worker-<n>`."""
WORKER = "worker-"

FORMAT = 4
PRIMARY_SIZE = 16
ID_SIZE = 24
KINDS: tuple[BodyKind, ...] = get_args(BodyKind)

_MAX_MAP = 1 << 44
# last use, hits, cost, and the body's kind, id, length and crc.
_USAGE = struct.Struct("!dIQB8sQI")
_COST = struct.Struct("!12xQ")
_PAGE = 4096
_PAGE_HEADER = 16
# LMDB moves a value out of its leaf, to pages of its own, when not two of its kind fit in one.
_LARGEST_IN_LEAF = 2000
# B-tree pages are two thirds full on average.
_FILL = 1.5
_NODE = 16


class Usage(NamedTuple):
    """How a stored response is used, and what it takes."""

    used: float
    hits: int
    cost: int
    """Bytes of the store, the index's share included."""
    body: BodyRef


# Nothing costs nothing: by its cost a response's worth is divided.
_DAMAGED = Usage(0.0, 0, 1, BodyRef("none", bytes(8), 0, 0))


def body_path(directory: Path, body_id: bytes) -> Path:
    """The file of a body; neighbours in time are spread over 256 folders."""
    name = body_id.hex()
    return directory / name[-2:] / name


def write_usage(usage: Usage) -> bytes:
    body = usage.body
    return _USAGE.pack(*usage[:3], KINDS.index(body.kind), body.id, body.length, body.crc)


def read_usage(value: bytes | memoryview) -> Usage:
    """What `write_usage` wrote. What is damaged is as if it had never been used, so that eviction
    takes it first and is not stopped by it."""
    try:
        used, hits, cost, kind, body_id, length, crc = _USAGE.unpack(value)
        usage = Usage(used, hits, cost, BodyRef(KINDS[kind], body_id, length, crc))
    except (struct.error, IndexError):
        return _DAMAGED
    return usage if cost and isfinite(used) else _DAMAGED


def read_cost(value: bytes | None) -> int:
    """What `read_usage` gives as the cost; 0 where there is nothing."""
    if value is None or len(value) != _USAGE.size:
        return 0
    cost: int = _COST.unpack_from(value)[0]
    return cost


def map_size(max_bytes: int) -> int:
    """How large the index may grow: LMDB needs room beside what is in it, for copies of pages."""
    return min(2 * max_bytes + 64 * 2**20, _MAX_MAP)


def cost_of(row: int, keys: Collection[bytes], body: int) -> int:
    """About how many bytes of the store a response takes, with its share of the index: its row and
    its body have so many bytes, and it is listed under those keys."""
    listed = sum(_listed(key) for key in keys)
    small = ID_SIZE + _NODE + 64 + ID_SIZE + _NODE + listed
    return int(small * _FILL) + _space(row) + _space(body)


def _listed(key: bytes) -> int:
    # An id each; a URL's key has hardly another one, and most other keys have many.
    alone = key[0] in (List.URL, List.SOURCE, List.HASH)
    return ID_SIZE + _NODE + (len(key) if alone else 0)


def _space(size: int) -> int:
    if size <= _LARGEST_IN_LEAF:
        return int((size + _NODE) * _FILL)
    return -(-(size + _PAGE_HEADER) // _PAGE) * _PAGE
