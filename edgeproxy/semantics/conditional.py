"""Validators, conditional requests and 304 (RFC 9110 8.8, 13, 15.4.5; RFC 9111 3.2, 4.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

from edgeproxy.semantics.dates import parse_http_date
from edgeproxy.semantics.storing import storable_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeproxy.semantics.fields import Fields

CONDITIONAL: Final = frozenset(
    {b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range"}
)
"""The request fields that make a request conditional (RFC 9110 13.1)."""

# RFC 9110 8.8.3: entity-tag = [ weak ] opaque-tag, opaque-tag = DQUOTE *etagc DQUOTE. The weakness
# mark is case-sensitive, and a backslash in a tag is a character like any other: no quoted-string.
_ENTITY_TAG: Final = re.compile(rb'(W/)?"([\x21\x23-\x7e\x80-\xff]*+)"')
_TO_NEXT_MEMBER: Final = re.compile(rb"[ \t]*+(?:,[ \t,]*+|\Z)")
_BEYOND_MEMBER: Final = re.compile(rb"[^,]*+[ \t,]*+")

# RFC 9110 8: what describes a representation or content that a 304 does not have. The last four
# (RFC 9530, RFC 3230, RFC 1864) are digests of it.
_REPRESENTATION_METADATA: Final = frozenset(
    {
        *(b"content-type", b"content-encoding", b"content-language", b"content-length"),
        *(b"content-range", b"content-digest", b"repr-digest", b"digest", b"content-md5"),
    }
)

# RFC 9111 3.2: Content-Length is excepted by name, Content-Range as a field that an implementation
# processes and removes. Content-Encoding is one "that the cache's stored response depends upon":
# the stored bytes are in the coding that they came in, whatever a later answer would be coded in.
_NEVER_UPDATED: Final = frozenset({b"content-length", b"content-range", b"content-encoding"})


@dataclass(frozen=True, slots=True)
class EntityTag:
    """An entity tag, RFC 9110 8.8.3."""

    opaque: bytes
    """What stands between the quotes."""
    weak: bool

    def strongly_equals(self, other: EntityTag) -> bool:
        """Strong comparison (RFC 9110 8.8.3.2): the same, and neither of them weak."""
        return self.opaque == other.opaque and not (self.weak or other.weak)

    def weakly_equals(self, other: EntityTag) -> bool:
        """Weak comparison (RFC 9110 8.8.3.2): the same, weak or not."""
        return self.opaque == other.opaque

    def __bytes__(self) -> bytes:
        return (b'W/"%b"' if self.weak else b'"%b"') % self.opaque


class _Any(Enum):
    ANY = "*"


ANY: Final = _Any.ANY
"""What "*" in If-Match and If-None-Match stands for."""


def parse_entity_tag(value: bytes) -> EntityTag | None:
    """The entity tag that `value` is, or None if it is not exactly one."""
    match = _ENTITY_TAG.fullmatch(value)
    return EntityTag(match[2], weak=match[1] is not None) if match else None


def parse_entity_tags(lines: Iterable[bytes]) -> tuple[EntityTag, ...] | Literal[_Any.ANY]:
    """The value of If-Match or If-None-Match (RFC 9110 13.1.1, 13.1.2).

    Malformed members are left out: they match nothing, and the others still count. "*" is only
    itself when it stands alone.
    """
    value = b",".join(lines).strip(b" \t")
    if value == b"*":
        return ANY
    tags: list[EntityTag] = []
    at = 0
    while at < len(value):
        tag = _ENTITY_TAG.match(value, at)
        following = _TO_NEXT_MEMBER.match(value, tag.end() if tag else at)
        if following is None:
            following = _BEYOND_MEMBER.match(value, at)
            assert following is not None
        elif tag is not None:
            tags.append(EntityTag(tag[2], weak=tag[1] is not None))
        at = following.end()
    return tuple(tags)


def entity_tag(fields: Fields) -> EntityTag | None:
    """The response's entity tag, or None if it has none that is valid."""
    value = fields.get(b"etag")
    return parse_entity_tag(value) if value is not None else None


def last_modified(fields: Fields) -> int | None:
    """The response's modification date in seconds since the epoch, or None."""
    value = fields.get(b"last-modified")
    return parse_http_date(value) if value is not None else None


def strong_last_modified(fields: Fields) -> int | None:
    """The modification date, where it is a strong validator (RFC 9110 8.8.2.2), else None.

    It is one if the response was sent at least a second after it, by the origin's own clock: then
    no second version can bear the same date.
    """
    modified, date = last_modified(fields), fields.get(b"date")
    sent = parse_http_date(date) if date is not None else None
    return modified if modified is not None and sent is not None and sent > modified else None


def not_modified(
    request_fields: Fields, status: int, stored_fields: Fields, response_time: float
) -> bool:
    """Whether a GET or HEAD that a stored response can answer is to be answered with 304.

    RFC 9111 4.3.2 and RFC 9110 13.2.2: If-None-Match by weak comparison, and only in its absence
    If-Modified-Since. If-Match and If-Unmodified-Since are for origins, and not looked at. Only a
    stored 200 or 206 is held against conditions. `response_time` (seconds since the epoch) is
    when the stored response was received: it counts where that has neither Last-Modified nor Date.
    """
    if status not in (200, 206):
        return False
    if b"if-none-match" in request_fields:
        wanted = parse_entity_tags(request_fields.get_all(b"if-none-match"))
        if wanted is ANY:
            return True
        stored = entity_tag(stored_fields)
        return stored is not None and any(stored.weakly_equals(tag) for tag in wanted)
    since = request_fields.get_all(b"if-modified-since")
    if len(since) != 1:
        return False  # RFC 9110 13.1.3: a value of more than one member is ignored
    seen = parse_http_date(since[0])
    if seen is None:
        return False
    modified = last_modified(stored_fields)
    if modified is None:
        modified = parse_http_date(stored_fields.get(b"date") or b"")
    return (response_time if modified is None else modified) <= seen


def not_modified_fields(fields: Fields) -> Fields:
    """The fields of a 304 that stands for a response with these fields (RFC 9110 15.4.5).

    Metadata of the representation stays behind, but for what guides the recipient's cache:
    Last-Modified where there is no entity tag to do so better.
    """
    unsent = _REPRESENTATION_METADATA
    if entity_tag(fields) is not None:
        unsent |= {b"last-modified"}
    return fields.without(unsent)


def validation_fields(stored: Sequence[Fields]) -> tuple[tuple[bytes, bytes], ...]:
    """The preconditions that ask whether any of the stored responses is still current.

    RFC 9111 4.3.1: all their entity tags, and the modification date where there is only one
    response. The date goes out as the very bytes it came in, for origins that compare no more than
    those. () if nothing can be validated.
    """
    tags = dict.fromkeys(bytes(tag) for each in stored if (tag := entity_tag(each)) is not None)
    conditions: list[tuple[bytes, bytes]] = []
    if tags:
        conditions.append((b"If-None-Match", b", ".join(tags)))
    if len(stored) == 1 and last_modified(stored[0]) is not None:
        conditions.append((b"If-Modified-Since", stored[0].get(b"last-modified") or b""))
    return tuple(conditions)


def validates(update: Fields, candidates: Sequence[Fields]) -> tuple[int, ...]:
    """Which of the candidates a 304 with the fields `update` freshens, by index (RFC 9111 4.3.4).

    `candidates` are the stored responses that could have been chosen for the request. () means
    that the 304 says nothing of any of them, and that the request must be sent without conditions.
    """
    tag, date = entity_tag(update), last_modified(update)
    strong_tag = tag if tag is not None and not tag.weak else None
    strong_date = strong_last_modified(update)
    if strong_tag is not None or strong_date is not None:
        return tuple(
            index
            for index, each in enumerate(candidates)
            if _same_strong_tag(strong_tag, each)
            or (strong_date is not None and _same_date(update, each))
        )
    if tag is not None or date is not None:
        alike = [
            index
            for index, each in enumerate(candidates)
            if _same_date(update, each) or (tag is not None and _weakly_tagged(tag, each))
        ]
        return (max(alike, key=lambda index: _date(candidates[index])),) if alike else ()
    if len(candidates) == 1 and not _has_validator(candidates[0]):
        return (0,)
    return ()


def _same_strong_tag(tag: EntityTag | None, stored: Fields) -> bool:
    other = entity_tag(stored)
    return tag is not None and other is not None and tag.strongly_equals(other)


def _weakly_tagged(tag: EntityTag, stored: Fields) -> bool:
    other = entity_tag(stored)
    return other is not None and tag.weakly_equals(other)


def _same_date(update: Fields, stored: Fields) -> bool:
    # Two codings or languages of one file commonly share its date: where both sides have entity
    # tags and these differ, the date must not give one representation the other's fields.
    tag, other = entity_tag(update), entity_tag(stored)
    if tag is not None and other is not None and not tag.weakly_equals(other):
        return False
    date = last_modified(update)
    return date is not None and date == last_modified(stored)


def _has_validator(fields: Fields) -> bool:
    return entity_tag(fields) is not None or last_modified(fields) is not None


def _date(fields: Fields) -> int:
    return parse_http_date(fields.get(b"date") or b"") or 0


def freshen(stored: Fields, update: Fields) -> Fields:
    """The stored response's fields after a 304 (or a HEAD) that validated it (RFC 9111 3.2).

    Each field of `update` replaces all stored lines of its name, except those that are not stored
    at all (3.1) and those that the stored content depends on. Date and Age tell when a message was
    made: those of the older one do not outlive it, even if the newer one lacks them.
    """
    added = storable_fields(update).without(_NEVER_UPDATED)
    tag, stored_tag = entity_tag(added), entity_tag(stored)
    if tag and stored_tag and stored_tag.weak and not tag.weak and stored_tag.weakly_equals(tag):
        # Some origins weaken the tag of a response that they code on the way, but not that of a
        # 304. The stored bytes are as weakly identified as before; a strong tag would let ranges
        # of one coding be combined with those of another.
        added = added.without({b"etag"})
    replaced = {name.lower() for name, _ in added} | {b"date", b"age"}
    return storable_fields(stored.without(replaced).plus(*added))


def head_agrees(stored: Fields, length: int, head: Fields) -> bool:
    """Whether a 200 to HEAD describes the stored response of `length` bytes (RFC 9111 4.3.5).

    If it does, `head` may `freshen` it; if not, the stored response is to be considered stale.
    """
    for name in (b"etag", b"last-modified"):
        if name in head and head.get(name) != stored.get(name):
            return False
    lengths = head.get_all(b"content-length")
    return not lengths or lengths == (b"%d" % length,)
