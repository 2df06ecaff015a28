"""The fields by which origins tag their responses, and the tags in them.

Tags are compared character by character, whatever vendor's field they come in: Cloudflare takes
`Cache-Tag` for case-insensitive, Vercel its own for case-sensitive, and two tags that differ must
not become one here. A vendor's purge call that ignores case is for its dialect to translate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from edgeproxy.semantics.errors import TagLimitExceeded
from edgeproxy.semantics.structured import InnerList, StructuredFieldError, parse_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.semantics.fields import Fields


@dataclass(frozen=True, slots=True)
class TagField:
    """A response field that holds tags."""

    name: bytes
    """Lower-case."""
    grammar: Literal["commas", "spaces", "strings"]
    """What separates its tags; "strings": a structured list of strings (RFC 9651 3.1)."""


TAG_FIELDS: Final = (
    TagField(b"cache-tag", "commas"),  # Cloudflare
    TagField(b"surrogate-key", "spaces"),  # Fastly
    TagField(b"vercel-cache-tag", "commas"),
    TagField(b"edge-cache-tag", "commas"),  # Akamai
    TagField(b"xkey", "spaces"),  # Varnish's xkey
    TagField(b"x-cache-tags", "commas"),  # FOSHttpCache
    TagField(b"x-magento-tags", "commas"),
    TagField(b"cache-groups", "strings"),  # RFC 9875 2
)
"""The known ones."""

DEFAULT_TAG_FIELDS: Final = tuple(field.name for field in TAG_FIELDS)
"""Their names."""

_GRAMMARS: Final = {field.name: field.grammar for field in TAG_FIELDS}

# Begins what a group counts as among tags: no field's value can hold it (RFC 9110 5.5).
_GROUP: Final = "\0"

# The surrogate that obeys Surrogate-Control must strip it (Edge Architecture Specification 1.0,
# 2.2), and Vercel's is for Vercel's place alone. CDN-Cache-Control is for every CDN on the way
# (RFC 9213 3.1), and goes on; so do Cache-Groups, which are for all caches.
_FOR_THIS_CACHE: Final = frozenset({b"surrogate-control", b"vercel-cdn-cache-control"})


@dataclass(frozen=True, slots=True)
class TagPolicy:
    """Which fields of a site's responses are read for tags, and how much they may hold.

    Raises ValueError for a field that is not in `TAG_FIELDS`.
    """

    fields: tuple[bytes, ...] = DEFAULT_TAG_FIELDS
    """Lower-case names."""
    max_tags: int = 1000
    """Most different tags of a response."""
    max_tag_bytes: int = 1024
    """Most bytes of a tag."""
    max_total_bytes: int = 65_536
    """Most bytes of all different tags of a response together."""

    def __post_init__(self) -> None:
        for name in self.fields:
            if name not in _GRAMMARS:
                raise ValueError(f"{name!r} is not a known tag field")


def response_tags(fields: Fields, policy: TagPolicy) -> tuple[str, ...]:
    """The response's tags, sorted, each once.

    Raises TagLimitExceeded where they break a limit: they are never cut, as a response that lost a
    tag would outlive a purge of it.
    """
    tags: set[str] = set()
    total = 0
    for name in policy.fields:
        lines = fields.get_all(name)
        if not lines:
            continue
        for tag in _read(name, lines):
            if tag in tags:
                continue
            size = len(tag.encode())
            tags.add(tag)
            total += size
            for limit, allowed, actual in (
                ("max_tag_bytes", policy.max_tag_bytes, size),
                ("max_tags", policy.max_tags, len(tags)),
                ("max_total_bytes", policy.max_total_bytes, total),
            ):
                if actual > allowed:
                    raise TagLimitExceeded(name.decode(), limit, allowed, actual)
    return tuple(sorted(tags))


def hidden_fields(policy: TagPolicy) -> frozenset[bytes]:
    """The names of the fields that are addressed to this cache alone, and no reader's: its tags,
    and Surrogate-Control and the like."""
    return _addressed_here(policy.fields)


@lru_cache(maxsize=64)
def _addressed_here(tag_fields: tuple[bytes, ...]) -> frozenset[bytes]:
    return _FOR_THIS_CACHE.union(tag_fields) - {b"cache-groups"}


def group_tags(fields: Fields, policy: TagPolicy, scheme: str, host: str) -> tuple[str, ...]:
    """The groups of a response of that origin (RFC 9875 2), as tags of a kind of their own.

    A group is its origin's: the same string elsewhere, or in another tag field, is another thing.
    """
    if b"cache-groups" not in policy.fields:
        return ()
    return _groups(fields.get_all(b"cache-groups"), scheme, host)


def invalidated_groups(fields: Fields, scheme: str, host: str) -> tuple[str, ...]:
    """The groups that a response to an unsafe request invalidates (RFC 9875 3), as `group_tags`."""
    return _groups(fields.get_all(b"cache-group-invalidation"), scheme, host)


def is_group(tag: str) -> bool:
    """Whether a tag is one of `group_tags`, which are not for people to see."""
    return tag.startswith(_GROUP)


def _groups(lines: tuple[bytes, ...], scheme: str, host: str) -> tuple[str, ...]:
    prefix = f"{_GROUP}{scheme}://{host} "
    return tuple(sorted({prefix + group for group in _strings(lines)}))


def _read(name: bytes, lines: tuple[bytes, ...]) -> Iterable[str]:
    match _GRAMMARS[name]:
        case "commas":
            return (
                _text(tag) for line in lines for part in line.split(b",") if (tag := part.strip())
            )
        case "spaces":
            return (_text(tag) for line in lines for tag in line.split())
        case _:
            # A string may be empty, which no tag is.
            return (tag for tag in _strings(lines) if tag)


def _strings(lines: tuple[bytes, ...]) -> list[str]:
    # RFC 9875 2: a list of strings, whose parameters are ignored. RFC 9651 4.2: one that is not
    # what it should be is as if it were not there.
    try:
        members = parse_list(lines)
    except StructuredFieldError:
        return []
    values = [None if isinstance(member, InnerList) else member.value for member in members]
    strings = [value for value in values if isinstance(value, str)]
    return strings if len(strings) == len(values) else []


def _text(tag: bytes) -> str:
    # Purge calls come in JSON: a tag has to be text. In UTF-8 it is what they say; any other bytes
    # become text one by one, so that the tag is at least kept and can be named.
    try:
        return tag.decode()
    except UnicodeDecodeError:
        return tag.decode("latin-1")
