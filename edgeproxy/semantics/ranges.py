"""Ranges out of a complete stored response (RFC 9110 13.1.5, 14, 15.3.7, 15.5.17)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeproxy.semantics.conditional import entity_tag, parse_entity_tag, strong_last_modified
from edgeproxy.semantics.fields import OWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.semantics.fields import Fields

MAX_RANGES: Final = 16
"""The most ranges one request may ask for; a Range field with more is ignored (RFC 9110 17.15)."""

OVERHEAD: Final = 80
"""Bytes that a part's own lines take, more or less: to send what lies between two ranges costs no
more where that is less (RFC 9110 15.3.7.2)."""
FEW: Final = 4
"""So many ranges are sent as they were asked for; of more, those with less than `OVERHEAD` between
them become one."""

# RFC 9110 14.1.1: ranges-specifier = range-unit "=" range-set; the unit's case has no meaning.
_BYTES: Final = re.compile(rb"bytes=", re.IGNORECASE)
# RFC 9110 14.1.2: int-range = first-pos "-" [ last-pos ]; suffix-range = "-" suffix-length. No
# length has 19 digits; a bound keeps the conversion of the number cheap.
_INT_RANGE: Final = re.compile(rb"([0-9]{1,18})-([0-9]{0,18})")
_SUFFIX_RANGE: Final = re.compile(rb"-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A range within a representation: positions of its first and its last byte."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many bytes these are, never 0."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """No requested range has a byte in the representation: 416, with this Content-Range."""

    content_range: bytes


def parse_ranges(value: bytes, length: int) -> tuple[ByteRange, ...] | Unsatisfiable | None:
    """What a Range field asks for of a representation of `length` bytes (RFC 9110 14.1, 14.2).

    Ranges come in the order asked for; those that overlap or touch become one, where the first of
    them stood (15.3.7.2), so that no byte is sent twice. If that leaves more than four, so do those
    that lie closer together than what it takes to tell them apart. None: the field is to be
    ignored, since it is malformed, in another unit, asks for more than `MAX_RANGES`, or for the end
    of nothing.
    """
    unit = _BYTES.match(value)
    if unit is None:
        return None
    specs = _specs(value[unit.end() :])
    if not specs or len(specs) > MAX_RANGES:
        return None
    ranges: list[ByteRange] = []
    for spec in specs:
        if (suffix := _SUFFIX_RANGE.fullmatch(spec)) is not None:
            wanted = int(suffix[1])
            if wanted and not length:
                # 14.1.2 calls it satisfiable, yet Content-Range cannot say "none of nothing".
                return None
            if wanted:
                ranges.append(ByteRange(max(0, length - wanted), length - 1))
        elif (bounds := _INT_RANGE.fullmatch(spec)) is not None:
            first, last = int(bounds[1]), int(bounds[2] or length)
            if bounds[2] and last < first:
                return None  # 14.1.1: one invalid range-spec makes the specifier invalid
            if first < length:
                ranges.append(ByteRange(first, min(last, length - 1)))
        else:
            return None
    if not ranges:
        return Unsatisfiable(b"bytes */%d" % length)
    apart = _coalesced(ranges, 1)
    return _coalesced(apart, OVERHEAD) if len(apart) > FEW else apart


def _specs(range_set: bytes) -> list[bytes]:
    return [spec for part in range_set.split(b",") if (spec := part.strip(OWS))]


def too_many_ranges(request_fields: Fields) -> bool:
    """Whether a Range field is ignored because it asks for more than `MAX_RANGES`."""
    lines = request_fields.get_all(b"range")
    unit = _BYTES.match(lines[0]) if len(lines) == 1 else None
    return unit is not None and len(_specs(lines[0][unit.end() :])) > MAX_RANGES


def _coalesced(ranges: Sequence[ByteRange], gap: int) -> tuple[ByteRange, ...]:
    merged: list[tuple[int, ByteRange]] = []  # each with the place of its earliest part
    for place, each in sorted(enumerate(ranges), key=lambda item: item[1].first):
        if merged and each.first <= merged[-1][1].last + gap:
            earliest, before = merged[-1]
            joined = ByteRange(before.first, max(before.last, each.last))
            merged[-1] = (min(earliest, place), joined)
        else:
            merged.append((place, each))
    return tuple(each for _, each in sorted(merged, key=lambda item: item[0]))


def requested_ranges(
    request_fields: Fields, status: int, stored_fields: Fields, length: int
) -> tuple[ByteRange, ...] | Unsatisfiable | None:
    """What a GET asks for of a complete stored response: like `parse_ranges`, If-Range applied.

    Only for GET (RFC 9110 14.2), and after the conditions that can lead to 304 (13.2.2). None: the
    whole response is to be sent.
    """
    lines = request_fields.get_all(b"range")
    # 14.2: only where the answer without Range would be 200; a singleton field sent twice is none.
    if status != 200 or len(lines) != 1:
        return None
    if not if_range_holds(request_fields, stored_fields):
        return None
    return parse_ranges(lines[0], length)


def if_range_holds(request_fields: Fields, stored_fields: Fields) -> bool:
    """Whether If-Range lets a Range field be heeded, for what is stored (RFC 9110 13.1.5).

    It does where it is not there, or is the very validator of the response, and a strong one.
    """
    lines = request_fields.get_all(b"if-range")
    if not lines:
        return True
    if len(lines) != 1:
        return False
    tag = parse_entity_tag(lines[0])
    if tag is not None:
        stored = entity_tag(stored_fields)
        return stored is not None and tag.strongly_equals(stored)
    return (
        lines[0] == stored_fields.get(b"last-modified")
        and strong_last_modified(stored_fields) is not None
    )


def content_range(first: int, last: int, length: int | None) -> bytes:
    """The value of Content-Range for one part; None: the length is not known (RFC 9110 14.4)."""
    return b"bytes %d-%d/%b" % (first, last, b"*" if length is None else b"%d" % length)


MESSAGE_FIELDS: Final = frozenset(
    {b"content-length", b"content-range", b"content-digest", b"content-md5"}
)
"""What a response says of the content it comes with, not of the whole representation (RFC 9530 2
for the digest): a part, or a combination of parts, has another."""

# RFC 9110 15.3.7: a client that sent If-Range has these already.
_KNOWN_TO_CLIENT: Final = frozenset({b"content-type", b"content-encoding", b"content-language"})


def partial_fields(
    request_fields: Fields, stored_fields: Fields, part: ByteRange, length: int | None
) -> Fields:
    """The fields of a 206 with one part, without Content-Length (RFC 9110 15.3.7, 15.3.7.1)."""
    unsent = MESSAGE_FIELDS
    if b"if-range" in request_fields:
        unsent |= _KNOWN_TO_CLIENT
    value = content_range(part.first, part.last, length)
    return stored_fields.without(unsent).plus((b"Content-Range", value))


@dataclass(frozen=True, slots=True)
class MultipartRanges:
    """A multipart/byteranges body whose every byte but the ranges' own is known (RFC 9110 14.6)."""

    content_type: bytes
    parts: tuple[tuple[bytes, ByteRange], ...]
    """Each range with what is to be sent before it."""
    tail: bytes
    """What is to be sent after the last range."""

    @property
    def content_length(self) -> int:
        """How many bytes heads, ranges and tail are together."""
        return len(self.tail) + sum(len(head) + part.size for head, part in self.parts)


def multipart_ranges(
    stored_fields: Fields, ranges: tuple[ByteRange, ...], length: int | None, boundary: bytes
) -> MultipartRanges:
    """The body of a 206 with several parts (RFC 9110 15.3.7.2, RFC 2046 5.1).

    `boundary` must be a token that nobody can foresee (`secrets.token_hex`), lest the content
    contain it.
    """
    media_type = stored_fields.get(b"content-type")
    type_line = b"Content-Type: %b\r\n" % media_type if media_type is not None else b""
    parts = tuple(
        (
            b"\r\n--%b\r\n%bContent-Range: %b\r\n\r\n"
            % (boundary, type_line, content_range(each.first, each.last, length)),
            each,
        )
        for each in ranges
    )
    content_type = b"multipart/byteranges; boundary=%b" % boundary
    return MultipartRanges(content_type, parts, b"\r\n--%b--\r\n" % boundary)


def multipart_fields(
    request_fields: Fields, stored_fields: Fields, multipart: MultipartRanges
) -> Fields:
    """The fields of a 206 with several parts, without Content-Length (RFC 9110 15.3.7.2)."""
    unsent = MESSAGE_FIELDS | {b"content-type"}
    if b"if-range" in request_fields:
        unsent |= _KNOWN_TO_CLIENT
    return stored_fields.without(unsent).plus((b"Content-Type", multipart.content_type))
