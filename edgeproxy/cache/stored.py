"""The stored response: one response of an origin as it is kept, and its encoding."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal, TypeAlias

import msgspec

BodyKind: TypeAlias = Literal["none", "inline", "file", "external"]


class BodyRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a body is. `id` (8 bytes) is unique and never used again."""

    kind: BodyKind
    id: bytes
    length: int
    """Bytes."""
    crc: int
    """zlib.crc32 of the whole."""


UNWRITTEN = BodyRef("none", b"", 0, 0)
"""The body of a response that is not in the store yet."""


class StoredResponse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One response as kept. Times are in seconds since the epoch."""

    primary: bytes
    """The cache key, 16 bytes."""
    variant: bytes
    """What `selecting` comes to, 8 bytes."""
    target_id: bytes
    """What a purge of the path selects, 16 bytes: the same for all hosts, schemes and busters."""
    site: str
    environment: str
    scheme: str
    host: str
    target: bytes
    """Path and query after the key rules, without a `cb:` segment."""
    buster: bytes
    """The `cb:` token; empty if there is none."""
    status: int
    reason: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    """What RFC 9111 3.1 stores, tag fields and all, in the order that the origin sent."""
    selecting: tuple[tuple[bytes, bytes | None], ...]
    """The request fields that Vary named, normalised, as its request had them (RFC 9111 4.1)."""
    tags: tuple[str, ...]
    request_time: float
    response_time: float
    position: int
    """The journal's head before the request to the origin left."""
    invalidated: int
    """The journal position that marked it stale; 0 if none has."""
    body: BodyRef
    deleted_from: float = 0.0
    """From then on it is as if it were not there; 0 where no purge has set it a deadline."""
    stepped: float = 0.0
    """By how many seconds the system's clock was set forward since it came. The times here go by
    the clock as it is; the dates in its fields are to be held against the clock as it was."""

    @property
    def id(self) -> bytes:
        """What tells it from every other stored response, 24 bytes."""
        return self.primary + self.variant

    @property
    def incomplete(self) -> bool:
        """Whether its body is not the whole: then its Content-Range lines say what it is, and it
        must answer nothing but ranges within that (RFC 9111 3.3). No whole response is a 206."""
        return self.status == 206

    @property
    def content_type(self) -> str:
        """Its media type in lower case, without parameters; empty if there is none."""
        for name, value in self.fields:
            if name.lower() == b"content-type":
                return value.partition(b";")[0].strip().lower().decode("latin-1")
        return ""

    @property
    def url(self) -> str:
        """Its URL for people to read: logs and answers, not for comparing."""
        segment = f"/cb:{self.buster.decode()}" if self.buster else ""
        return f"{self.scheme}://{self.host}{segment}{self.target.decode('utf-8', 'replace')}"


def id_of(row: bytes, start: int = 0) -> bytes:
    """The `id` of the response whose encoding begins there, without the rest of it."""
    # An array of that many items has 3 bytes before them, and short bytes have 2.
    return row[start + 5 : start + 21] + row[start + 23 : start + 31]


def variant_id(selecting: tuple[tuple[bytes, bytes | None], ...]) -> bytes:
    """The 8 bytes that tell a key's variants apart."""
    return blake2b(msgspec.msgpack.encode(selecting), digest_size=8).digest()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(StoredResponse)


def encode(stored: StoredResponse) -> bytes:
    """The row's bytes."""
    return _encoder.encode(stored)


def decode(row: bytes | memoryview) -> StoredResponse:
    """The response of a row; raises one of `UNREADABLE` where it is not one."""
    return _decoder.decode(row)
