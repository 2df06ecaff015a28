"""What was written to disk or by another process, and may have been damaged since.

The first byte says which of them the rest is; a row and a record get the checksum that they need.
"""

import zlib
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from edgeproxy.cache.errors import UNREADABLE
from edgeproxy.cache.layout import read_cost, read_usage, write_usage
from edgeproxy.cache.rows import (
    FRONT_SIZE,
    MIXED,
    DamagedRow,
    mark_row,
    mixed_row,
    packed_stored,
    read_marks,
    read_row,
    row_body,
    row_vary,
    take_row,
)
from edgeproxy.invalidation.ledger import _decoder as kept
from edgeproxy.invalidation.record import Record
from edgeproxy.proxy.peers import _Failure, _SharedHead
from edgeproxy.runtime.control import to_supervisor, to_worker

RECORD = msgspec.msgpack.Decoder(Record)


def _row(data: bytes) -> None:
    row_id, rest = data[:24], data[24:]
    for value in (rest, _sealed(rest)):
        vary = row_vary(value)
        take_row(memoryview(value), vary, value[20:28])
        row_body(value)
        try:
            stored = read_row(row_id, value)
        except DamagedRow:
            continue
        if read_row(row_id, value) != stored:
            # A time that is no number.
            continue
        marks = read_marks(row_id, value)
        for written in (mixed_row(value), mark_row(value, marks)):
            assert read_row(row_id, written) == stored
            assert row_body(written) == row_body(value)
        marked = read_row(row_id, mark_row(value, marks._replace(invalidated=9)))
        assert marked == replace(stored, invalidated=9)
        assert row_vary(mixed_row(value)) == MIXED
        taken = take_row(memoryview(value), vary, value[20:28])
        assert taken is None or vary != MIXED
        if taken is not None:
            assert packed_stored(taken.packed) == stored
            assert taken.mark.known(memoryview(value))
            assert taken.body is None or zlib.crc32(taken.body) == taken.mark.crc


def _sealed(rest: bytes) -> bytes:
    """A row with that behind its checksum."""
    lengths = [int.from_bytes(rest[at : at + 4], "big") for at in (0, 4)]
    checksum = zlib.crc32(rest[: FRONT_SIZE - 4 + sum(lengths)])
    return checksum.to_bytes(4, "big") + rest


def _usage(data: bytes) -> None:
    usage = read_usage(data)
    assert usage.cost
    assert read_cost(data) >= 0
    assert read_usage(write_usage(usage)) == usage


def _decoded(decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]) -> Callable[..., None]:
    def check(data: bytes) -> None:
        try:
            read = decode(data)
        except UNREADABLE:
            return
        assert decode(encode(read)) == read

    return check


pack = msgspec.msgpack.encode
KINDS: dict[bytes, Callable[[bytes], None]] = {
    b"r": _row,
    b"u": _usage,
    b"j": _decoded(RECORD.decode, pack),
    b"l": _decoded(kept.decode, pack),
    b"w": _decoded(to_worker.decode, msgspec.json.encode),
    b"s": _decoded(to_supervisor.decode, msgspec.json.encode),
    b"h": _decoded(msgspec.msgpack.Decoder(_SharedHead).decode, pack),
    b"f": _decoded(msgspec.msgpack.Decoder(_Failure).decode, pack),
}


def check(data: bytes) -> None:
    KINDS.get(data[:1], _row)(data[1:])
