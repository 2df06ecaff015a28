"""The rows of the index: a response as it is stored, with what a hit needs of it ahead of the rest.

front    checksum of all but the body, lengths, the body's reference, what goes with `Ready`
packed   figures at fixed places, then the response as msgpack; an entry in memory has the same
head     what answers begin with, rendered; empty where there is none
body     if it is a short one
"""

from __future__ import annotations

import struct
import zlib
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from edgeproxy.cache.errors import UNREADABLE
from edgeproxy.cache.stored import decode, encode, id_of
from edgeproxy.semantics.freshness import Freshness

if TYPE_CHECKING:
    from edgeproxy.cache.stored import BodyRef, StoredResponse

IN_ROW: Final = 2 * 1024
"""Longest body that is in its row, in bytes: it is read with it, and goes with it. Longer ones have
places of their own: a row is written anew when it is marked, and so would they be."""
POLICY_SIZE: Final = 8

# Checksum, lengths of what is packed and of the head; what the rows of the key vary by, by which
# policy it is ready; the body's length and checksum.
_FRONT: Final = struct.Struct("!III8s8sQI")
FRONT_SIZE: Final = _FRONT.size
_CHECKSUM: Final = 4
_VARIES_AT: Final = 12
# Status, position, invalidated, deleted from; then the freshness.
_FIGURES: Final = struct.Struct("!HQQd")
_MARKS: Final = struct.Struct("!QQd")
_STORED_AT: Final = _FIGURES.size + Freshness.PACKED
_UNREADY: Final = bytes(POLICY_SIZE)
_NO_FRESHNESS: Final = bytes(Freshness.PACKED)
MIXED: Final = bytes(8)
"""What stands for rows of one key that do not all vary by the same fields."""


class DamagedRow(Exception):
    """A row is not what was written."""


class Ready(NamedTuple):
    """What is worked out of a response when it is stored, so that a hit needn't."""

    policy: bytes
    """Stands for all that it was made by but the response, `POLICY_SIZE` bytes."""
    freshness: Freshness
    head: bytes
    """What all whole answers begin with."""


class RowMark:
    """By what to know a row again, and its body."""

    __slots__ = ("body_id", "crc", "front", "start")

    def __init__(self, front: bytes, start: int, crc: int) -> None:
        self.front = front
        self.start = start
        """Where the body begins, if it is in the row."""
        self.crc = crc
        """The body's."""
        self.body_id = b""
        """The body's, if that is beside the row."""

    def known(self, value: memoryview) -> bool:
        """Whether all of a row but its body is as it was."""
        return value[:FRONT_SIZE] == self.front

    def whole(self, body: memoryview) -> bytes | None:
        """The body, if that is as it was."""
        # Which length it has to have, the front says; what is cut off has another checksum.
        return bytes(body) if zlib.crc32(body) == self.crc else None


class Taken(NamedTuple):
    """A row as a hit needs it: its response is the only one for those requests that select it."""

    packed: bytes
    head: bytes
    body: bytes | None
    """None where it is not in the row."""
    mark: RowMark


def in_row(body: BodyRef) -> bool:
    """Whether a body that is in the index is in its response's row."""
    return body.kind == "inline" and body.length <= IN_ROW


def vary_digest(names: tuple[bytes, ...]) -> bytes:
    """What stands for the fields that responses vary by; their values tell them apart then."""
    # By Accept-Language, one is found for requests that have another value too.
    if b"accept-language" in names:
        return MIXED
    return blake2b(b",".join(names), digest_size=8).digest()


def varies(stored: StoredResponse) -> bytes:
    """`vary_digest` of a response that is to be stored."""
    if stored.incomplete:
        return MIXED
    return vary_digest(tuple([name for name, _ in stored.selecting]))


def pack(stored: StoredResponse, freshness: Freshness | None) -> bytes:
    """What an entry in memory has of a response, and its row."""
    return b"".join(
        (
            _FIGURES.pack(stored.status, stored.position, stored.invalidated, stored.deleted_from),
            _NO_FRESHNESS if freshness is None else freshness.pack(),
            encode(stored),
        )
    )


def repack(packed: bytes, stored: StoredResponse) -> bytes:
    """The same with the response as it is now; its freshness stays."""
    figures = _FIGURES.pack(stored.status, stored.position, stored.invalidated, stored.deleted_from)
    return figures + packed[_FIGURES.size : _STORED_AT] + encode(stored)


def packed_stored(packed: bytes | memoryview) -> StoredResponse:
    """The response; takes some microseconds."""
    stored = decode(memoryview(packed)[_STORED_AT:])
    _, _, invalidated, deleted_from = _FIGURES.unpack_from(packed)
    if (invalidated, deleted_from) == (stored.invalidated, stored.deleted_from):
        return stored
    # It was marked in its row.
    return replace(stored, invalidated=invalidated, deleted_from=deleted_from)


def packed_id(packed: bytes) -> bytes:
    return id_of(packed, _STORED_AT)


def packed_freshness(packed: bytes) -> Freshness:
    return Freshness.unpack(packed, _FIGURES.size)


def packed_figures(packed: bytes) -> tuple[int, int, int, float]:
    """The response's status, position, invalidated, and deleted_from."""
    return _FIGURES.unpack_from(packed)


def write_row(
    stored: StoredResponse, ready: Ready | None, body: bytes | None, vary: bytes = MIXED
) -> bytes:
    """A row's bytes; `body` where it is in the row, `vary`: what all rows of the key vary by."""
    if ready is None:
        policy, packed, head = _UNREADY, pack(stored, None), b""
    else:
        policy, packed, head = ready.policy, pack(stored, ready.freshness), ready.head
    return _assembled(packed, head, vary, policy, stored.body, body or b"")


def _assembled(
    packed: bytes, head: bytes, vary: bytes, policy: bytes, body: BodyRef, rest: bytes
) -> bytes:
    front = _FRONT.pack(0, len(packed), len(head), vary, policy, body.length, body.crc)
    front = front[_CHECKSUM:]
    crc = zlib.crc32(head, zlib.crc32(packed, zlib.crc32(front)))
    return b"".join((crc.to_bytes(_CHECKSUM, "big"), front, packed, head, rest))


class Marks(NamedTuple):
    """What invalidations go by, and change, in a row."""

    position: int
    invalidated: int
    deleted_from: float

    def after(self, position: int, deleted_from: float) -> Marks:
        """What they are after an invalidation at that position; with a deletion from that time on,
        unless it is 0."""
        due = min([each for each in (self.deleted_from, deleted_from) if each], default=0.0)
        return Marks(self.position, max(self.invalidated, position), due)


def read_marks(row_id: bytes, value: bytes) -> Marks:
    """Those of a row; raises DamagedRow."""
    try:
        checksum, length, head_length, *_ = _FRONT.unpack_from(value)
        if zlib.crc32(value[_CHECKSUM : FRONT_SIZE + length + head_length]) != checksum:
            raise DamagedRow(row_id.hex())
        _, *marks = _FIGURES.unpack_from(value, FRONT_SIZE)
    except struct.error as error:
        raise DamagedRow(row_id.hex()) from error
    return Marks(*marks)


def mark_row(value: bytes, marks: Marks) -> bytes:
    """A row that can be read, with these."""
    _, length, head_length, *_ = _FRONT.unpack_from(value)
    status = value[FRONT_SIZE : FRONT_SIZE + 2]
    row = b"".join(
        (value[:FRONT_SIZE], status, _MARKS.pack(*marks), value[FRONT_SIZE + _FIGURES.size :])
    )
    checksum = zlib.crc32(row[_CHECKSUM : FRONT_SIZE + length + head_length])
    return checksum.to_bytes(_CHECKSUM, "big") + row[_CHECKSUM:]


def row_vary(value: bytes | memoryview) -> bytes:
    """What the rows of the key vary by; `MIXED` too where it can't be read."""
    return bytes(value[_VARIES_AT : _VARIES_AT + 8]).ljust(8, b"\0")


def mixed_row(value: bytes) -> bytes:
    """A row of a key that has rows which vary by other fields now; one that is damaged stays so."""
    checksum, length, head_length, *_ = _FRONT.unpack_from(value)
    end = _FRONT.size + length + head_length
    if zlib.crc32(value[_CHECKSUM:end]) != checksum:
        return value
    front = value[_CHECKSUM:_VARIES_AT] + MIXED + value[_VARIES_AT + 8 : _FRONT.size]
    crc = zlib.crc32(value[_FRONT.size : end], zlib.crc32(front))
    return b"".join((crc.to_bytes(_CHECKSUM, "big"), front, value[_FRONT.size :]))


def read_row(row_id: bytes, value: bytes | memoryview) -> StoredResponse:
    """The response of a row; raises DamagedRow."""
    try:
        crc, length, head_length, *_ = _FRONT.unpack_from(value)
        start, stop = _FRONT.size, _FRONT.size + length
        if zlib.crc32(value[_CHECKSUM : stop + head_length]) != crc:
            raise DamagedRow(row_id.hex())
        stored = packed_stored(value[start:stop])
    except (struct.error, *UNREADABLE) as error:
        raise DamagedRow(row_id.hex()) from error
    if stored.id != row_id or len(value) != stop + head_length + (
        stored.body.length if in_row(stored.body) else 0
    ):
        raise DamagedRow(row_id.hex())
    return stored


def row_body(value: bytes | memoryview) -> bytes:
    """What a row has behind all else: its body, if that is in there. Unchecked."""
    if len(value) < _FRONT.size:
        return b""
    _, length, head_length, *_ = _FRONT.unpack_from(value)
    return bytes(value[_FRONT.size + length + head_length :])


def take_row(value: memoryview, vary: bytes, policy: bytes) -> Taken | None:
    """What a hit needs of a row; None if not all rows of its key vary by `vary`, if nothing is
    ready by `policy`, or where it is damaged."""
    try:
        checksum, length, head_length, own_vary, own_policy, body_length, crc = _FRONT.unpack_from(
            value
        )
    except struct.error:
        return None
    if own_vary != vary or own_policy != policy or own_vary == MIXED:
        return None
    middle = FRONT_SIZE + length
    end = middle + head_length
    if zlib.crc32(value[_CHECKSUM:end]) != checksum:
        return None
    mark = RowMark(bytes(value[:FRONT_SIZE]), end, crc)
    body = None
    if body_length <= IN_ROW and (body := mark.whole(value[end:])) is None:
        return None
    return Taken(bytes(value[FRONT_SIZE:middle]), bytes(value[middle:end]), body, mark)
