"""Incomplete responses: what they have, whom they can answer, how they are combined and completed
(RFC 9111 3.3, 3.4; RFC 9110 14.4, 15.3.7.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeproxy.semantics.conditional import entity_tag, freshen, strong_last_modified
from edgeproxy.semantics.fields import OWS
from edgeproxy.semantics.ranges import (
    MESSAGE_FIELDS,
    ByteRange,
    Unsatisfiable,
    content_range,
    if_range_holds,
    parse_ranges,
)

if TYPE_CHECKING:
    from edgeproxy.semantics.fields import Fields

MAX_PARTS: Final = 16
"""The most ranges apart from each other that one incomplete response is kept of."""

# RFC 9110 14.4, the unit's case without meaning. `bytes */n` has no content, and is not matched.
_CONTENT_RANGE: Final = re.compile(
    rb"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE
)
_OPEN: Final = re.compile(rb"bytes=0-", re.IGNORECASE)
# Longer than anything: where the length is not known, no range may reach for the end.
_ENDLESS: Final = 10**18


@dataclass(frozen=True, slots=True)
class Parts:
    """What there is of a representation."""

    ranges: tuple[ByteRange, ...]
    """In ascending order, with something missing between any two. The content of the stored
    response is theirs, one after the other."""
    length: int | None
    """Of the whole representation, in bytes; None where no message has said."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return sum(each.size for each in self.ranges)

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return self.length is not None and self.size == self.length

    @property
    def content_ranges(self) -> tuple[tuple[bytes, bytes], ...]:
        """The field lines that tell of them in the store: a Content-Range for each."""
        return tuple(
            (b"Content-Range", content_range(each.first, each.last, self.length))
            for each in self.ranges
        )

    def has(self, wanted: ByteRange) -> bool:
        """Whether `wanted` is wholly within what there is."""
        return any(each.first <= wanted.first and wanted.last <= each.last for each in self.ranges)

    def offset(self, position: int) -> int:
        """Where in the stored content the byte is that is at `position` of the representation."""
        before = 0
        for each in self.ranges:
            if each.first <= position <= each.last:
                return before + position - each.first
            before += each.size
        raise ValueError(f"byte {position} is not there")

    def missing_of(self, wanted: ByteRange) -> ByteRange | None:
        """The range that has all that is missing of `wanted`; None if nothing is."""
        first, last = wanted.first, wanted.last
        for each in self.ranges:
            if each.first <= first <= each.last:
                first = each.last + 1
        for each in reversed(self.ranges):
            if each.first <= last <= each.last:
                last = each.first - 1
        return ByteRange(first, last) if first <= last else None

    def missing(self) -> tuple[int, int | None] | None:
        """The range, its end open, that has all that is missing; None if that is everything."""
        first = 0 if self.ranges[0].first > 0 else self.ranges[0].last + 1
        last = None
        if self.length is not None and self.ranges[-1].last == self.length - 1:
            last = self.ranges[-1].first - 1
        return None if (first, last) == (0, None) else (first, last)


def stated_parts(fields: Fields) -> Parts | None:
    """The ranges that the Content-Range lines of a 206, received or stored, tell of.

    None where there are none, as where the ranges are parts of a multipart content; or where they
    contradict each other or themselves: such content must not be combined with any other (RFC 9110
    14.4), and what it is, nobody knows.
    """
    if (fields.get(b"content-type") or b"").lower().startswith(b"multipart/byteranges"):
        return None
    ranges: list[ByteRange] = []
    lengths = set()
    for line in fields.get_all(b"content-range"):
        match = _CONTENT_RANGE.fullmatch(line)
        if match is None:
            return None
        each = ByteRange(int(match[1]), int(match[2]))
        length = None if match[3] == b"*" else int(match[3])
        if each.last < each.first or (length is not None and length <= each.last):
            return None
        if ranges and each.first <= ranges[-1].last + 1:
            return None
        ranges.append(each)
        lengths.add(length)
    return Parts(tuple(ranges), lengths.pop()) if len(lengths) == 1 else None


def received_part(stated: Parts, size: int, *, cut: bool) -> Parts | None:
    """What of the one stated range has come, given the content's size in bytes.

    `cut`: the message ended before its content did. None: the content is not what was stated.
    """
    if len(stated.ranges) != 1 or size < 1:
        return None
    (part,) = stated.ranges
    if size == part.size:
        return stated
    if cut and size < part.size:
        return Parts((ByteRange(part.first, part.first + size - 1),), stated.length)
    return None


def passed_range(request_fields: Fields) -> bytes | None:
    """The value of a Range field that is better sent on than cut out of the whole.

    That is one single range, and not all of the representation; None if there is none such.
    """
    lines = request_fields.get_all(b"range")
    if len(lines) != 1 or b"," in lines[0] or _OPEN.fullmatch(lines[0]):
        return None
    ranges = parse_ranges(lines[0], _ENDLESS)
    return None if ranges is None or isinstance(ranges, Unsatisfiable) else lines[0]


def first_position(passed: bytes) -> int | None:
    """Where the range that `passed_range` gave begins; None where only the length would tell."""
    ranges = parse_ranges(passed, _ENDLESS)
    if passed[6:].strip(OWS).startswith(b"-") or not isinstance(ranges, tuple):
        return None
    return ranges[0].first


def passed_positions(passed: bytes, length: int | None) -> ByteRange | None:
    """Which bytes the range that `passed_range` gave asks for, of a representation of that length.

    None where it has none of them, or the length is not known and would have to be.
    """
    ranges = parse_ranges(passed, _ENDLESS if length is None else length)
    if not isinstance(ranges, tuple):
        return None
    (wanted,) = ranges
    return wanted if wanted.last < _ENDLESS - 1 else None


def satisfied_ranges(
    request_fields: Fields, stored_fields: Fields, parts: Parts
) -> tuple[ByteRange, ...] | None:
    """What a GET asks for, if it is partial and all of it is there; else None.

    RFC 9111 3.3: an incomplete response answers nothing else.
    """
    lines = request_fields.get_all(b"range")
    if len(lines) != 1 or not if_range_holds(request_fields, stored_fields):
        return None
    length = _ENDLESS if parts.length is None else parts.length
    ranges = parse_ranges(lines[0], length)
    if ranges is None or isinstance(ranges, Unsatisfiable):
        return None
    return ranges if all(parts.has(each) for each in ranges) else None


def strong_validator(fields: Fields) -> bytes | None:
    """What If-Range may say of a response (RFC 9110 13.1.5): its strong validator, or None."""
    tag = entity_tag(fields)
    if tag is not None:
        return None if tag.weak else bytes(tag)
    return fields.get(b"last-modified") if strong_last_modified(fields) is not None else None


def same_representation(stored: Fields, new: Fields) -> bool:
    """Whether both share a strong validator, and so may be combined (RFC 9110 15.3.7.3)."""
    validator = strong_validator(stored)
    if validator is None or validator != strong_validator(new):
        return False
    # An origin that gives one entity tag to several codings is wrong, and not to be made worse.
    coding = new.get(b"content-encoding")
    return coding is None or coding == stored.get(b"content-encoding")


def completing_fields(stored: Fields, parts: Parts) -> tuple[tuple[bytes, bytes], ...]:
    """The request fields that ask for the rest of what is stored (RFC 9111 3.3); () if none can.

    With If-Range an origin sends the whole instead, if that has changed. Without a strong validator
    the rest could not be combined with what is there (RFC 9110 15.3.7.3).
    """
    missing, validator = parts.missing(), strong_validator(stored)
    if missing is None or validator is None:
        return ()
    first, last = missing
    asked = b"bytes=%d-%b" % (first, b"" if last is None else b"%d" % last)
    return ((b"Range", asked), (b"If-Range", validator))


def extending_fields(
    stored: Fields, parts: Parts, wanted: ByteRange
) -> tuple[tuple[bytes, bytes], ...]:
    """The request fields that ask for what is missing of a range; () if that is all of it, nothing,
    or can't be combined with what is there."""
    missing, validator = parts.missing_of(wanted), strong_validator(stored)
    if missing is None or missing == wanted or validator is None:
        return ()
    return ((b"Range", b"bytes=%d-%d" % (missing.first, missing.last)), (b"If-Range", validator))


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a combined content, and where they are: from `start` up to `stop`."""

    new: bool
    """In the new content, counted from its own beginning; else in the stored one."""
    start: int
    stop: int


def combine(stored: Parts, new: Parts) -> tuple[Parts, tuple[Piece, ...]] | None:
    """What two responses of one representation have together, and how its content is made up.

    `new` is a single range. Where both have a byte, it is the new one's. None: they don't agree on
    the length, one goes beyond it, or there would be too many parts.
    """
    if None not in (stored.length, new.length) and stored.length != new.length:
        return None
    length = stored.length if new.length is None else new.length
    (fresh,) = new.ranges
    if length is not None and max(fresh.last, stored.ranges[-1].last) >= length:
        return None
    # Each stored range as far as it is before or behind the new one, which comes in between.
    kept: list[tuple[ByteRange, bool]] = [(fresh, True)]
    for each in stored.ranges:
        if each.first < fresh.first:
            kept.append((ByteRange(each.first, min(each.last, fresh.first - 1)), False))
        if each.last > fresh.last:
            kept.append((ByteRange(max(each.first, fresh.last + 1), each.last), False))
    kept.sort(key=lambda item: item[0].first)
    ranges: list[ByteRange] = []
    pieces: list[Piece] = []
    for each, is_new in kept:
        start = 0 if is_new else stored.offset(each.first)
        pieces.append(Piece(is_new, start, start + each.size))
        if ranges and each.first == ranges[-1].last + 1:
            ranges[-1] = ByteRange(ranges[-1].first, each.last)
        else:
            ranges.append(each)
    if len(ranges) > MAX_PARTS:
        return None
    return Parts(tuple(ranges), length), tuple(pieces)


def cut_out(parts: Parts, pieces: tuple[Piece, ...], wanted: ByteRange) -> tuple[Piece, ...] | None:
    """The pieces of a combination that `wanted` is made of; None if something of it is not there.

    Nor may there be a new byte that is not wanted: new content is read once, from its beginning.
    """
    if not parts.has(wanted):
        return None
    start = parts.offset(wanted.first)
    stop = start + wanted.size
    chosen: list[Piece] = []
    at = 0
    for piece in pieces:
        size = piece.stop - piece.start
        first, last = max(start, at) - at, min(stop, at + size) - at
        if piece.new and (first, last) != (0, size):
            return None
        if first < last:
            chosen.append(Piece(piece.new, piece.start + first, piece.start + last))
        at += size
    return tuple(chosen)


def combined_fields(stored: Fields, new: Fields) -> Fields:
    """The fields of a combination, without Content-Range: RFC 9111 3.4, the new one's prevail."""
    return without_message_fields(freshen(stored, new))


def without_message_fields(fields: Fields) -> Fields:
    """A response's fields without those for its very content, which will be sent otherwise."""
    return fields.without(MESSAGE_FIELDS)
