"""What was written to disk or by another process, and may have been damaged since.

The first byte says which of them the rest is; a row and a record get the checksum that they need.
"""

import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from edgeproxy.cache.errors import UNREADABLE
from edgeproxy.cache.layout import (
    DamagedRow,
    read_cost,
    read_row,
    read_usage,
    write_row,
    write_usage,
)
from edgeproxy.invalidation.ledger import _decoder as kept
from edgeproxy.invalidation.record import Record
from edgeproxy.proxy.peers import _Failure, _SharedHead
from edgeproxy.runtime.control import to_supervisor, to_worker

RECORD = msgspec.msgpack.Decoder(Record)


def _row(data: bytes) -> None:
    row_id, row = data[:24], data[24:]
    try:
        read_row(row_id, row)
        assert zlib.crc32(row[4:]) == int.from_bytes(row[:4], "big")
    except DamagedRow:
        pass
    try:
        stored = read_row(row_id, zlib.crc32(row).to_bytes(4, "big") + row)
    except DamagedRow:
        return
    assert read_row(stored.id, write_row(stored)) == stored


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
