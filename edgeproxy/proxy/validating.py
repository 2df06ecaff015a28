"""Which stored responses a request to the origin asks about, and which of them a 304 speaks of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeproxy.proxy.lookup import recency
from edgeproxy.semantics.conditional import entity_tag, last_modified, validates, validation_fields
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.preferences import accepts_codings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.proxy.lookup import Found

_MAX_TAGS: Final = 32
_MAX_TAG_BYTES: Final = 4096
"""Bounds of If-None-Match: origins refuse heads that are too long."""

# Fields that say who asks.
_PERSONAL: Final = frozenset({b"cookie", b"authorization"})


def worth_asking_about(
    stored: Sequence[StoredResponse], request_fields: Fields, found: Found | None
) -> tuple[StoredResponse, ...]:
    """Those of a key's stored responses, but for `found`, that could turn out to be the answer to
    a request, the newest first (RFC 9111 4.1, 4.3.1).

    Only strong entity tags tell representations apart. And as some origins give one tag to all
    codings of a file, a response in a coding that the request does not accept is none; nor is one
    that was selected by who asked, lest a tag too few show one reader's page to another.
    """
    if found is not None and entity_tag(found.fields) is None:
        # With If-None-Match there, If-Modified-Since would not be looked at (RFC 9110 13.1.3).
        return ()
    known = () if found is None else (found.stored.id,)
    ranked = sorted(
        ((each, Fields(each.fields)) for each in stored if each.id not in known),
        key=lambda each: recency(*each),
        reverse=True,
    )
    chosen: list[StoredResponse] = []
    room = _MAX_TAG_BYTES
    for each, fields in ranked:
        tag = entity_tag(fields)
        if tag is None or tag.weak or not accepts_codings(request_fields, fields):
            continue
        if any(name in _PERSONAL for name, _ in each.selecting):
            continue
        room -= len(tag.opaque)
        if room < 0 or len(chosen) == _MAX_TAGS:
            break
        chosen.append(each)
    return tuple(chosen)


def conditions(
    found: Found | None, others: Sequence[StoredResponse]
) -> tuple[tuple[bytes, bytes], ...]:
    """The preconditions that ask about all of them at once (RFC 9111 4.3.1)."""
    asked = [] if found is None else [found.fields]
    return validation_fields([*asked, *(Fields(each.fields) for each in others)])


def freshened(update: Fields, found: Found, others: Sequence[StoredResponse]) -> bool:
    """Whether a 304 says that `found`, the response for the request, is current (9111 4.3.4)."""
    if validates(update, [found.fields]):
        return True
    # Many origins leave the validators out, though RFC 9110 15.4.5 wants them there. Then the 304
    # can only be about what was asked, where that was one response.
    return not others and entity_tag(update) is None and last_modified(update) is None


def selected(update: Fields, others: Sequence[StoredResponse]) -> StoredResponse | None:
    """The response for other requests that a 304 says would be the answer to this one as well."""
    tag = entity_tag(update)
    if tag is None:
        return None
    for each in others:
        stored = entity_tag(Fields(each.fields))
        if stored is not None and stored.strongly_equals(tag):
            return each
    return None
