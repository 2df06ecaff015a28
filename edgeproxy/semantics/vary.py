"""Which request fields select among the responses of one key (RFC 9111 4.1, RFC 9110 12.5.5)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from edgeproxy.semantics.fields import is_token, list_members, split_unquoted
from edgeproxy.semantics.preferences import (
    PREFERENCE_FIELDS,
    first_choice,
    normal_preferences,
    only_language,
)

if TYPE_CHECKING:
    from edgeproxy.semantics.fields import Fields

Selecting: TypeAlias = tuple[tuple[bytes, bytes | None], ...]
"""Request field names with their normalised values; None is a field that was not there."""

# Fields whose values are no lists: a comma in them is a character like any other.
_NO_LISTS: Final = frozenset(
    {
        *(b"user-agent", b"referer", b"cookie", b"authorization", b"from", b"host", b"origin"),
        *(b"if-modified-since", b"if-unmodified-since", b"date"),
    }
)

# What the origin is told of these is in the key, or (conditions) not told at all when a response is
# fetched for the cache: requests with one key don't differ in them, whatever their clients say.
_THE_SAME_FOR_ALL: Final = frozenset(
    {
        *(b"host", b"x-forwarded-host", b"x-forwarded-proto"),
        *(b"if-none-match", b"if-modified-since", b"if-range"),
    }
)

# What this proxy tells the origin of each client: two requests that look alike differ in them.
_CLIENTS_OWN: Final = frozenset({b"x-forwarded-for", b"forwarded"})


def vary_names(fields: Fields) -> tuple[bytes, ...] | None:
    """The field names in a response's Vary that tell requests with one key apart: sorted,
    lower-case, each once. A coded response is for those who accept such codings, whether or not its
    origin says so: from one that forgets it, nobody else could read what a stranger had coded.

    None where no request can be known to select the response: "*" is among them, something that
    is no field name, or a field by which the origin was told of the client.
    """
    names = {member.lower() for member in list_members(fields.get_all(b"vary"))}
    if b"*" in names or names & _CLIENTS_OWN or not all(is_token(name) for name in names):
        return None
    if fields.get(b"content-encoding") not in (None, b"", b"identity"):
        names.add(b"accept-encoding")
    return tuple(sorted(names - _THE_SAME_FOR_ALL))


def selecting(names: tuple[bytes, ...], request_fields: Fields) -> Selecting:
    """What a request has in the named fields, so that equal means the same (RFC 9111 4.1).

    Its fields are those that the origin sees (`forwarding.heard`): what that is not told splits no
    cache. Only what can't matter is normalised: over how many lines a list is spread, the
    whitespace around its commas, and in the fields of RFC 9110 12.5 what says the same in other
    words.
    """
    return tuple((name, _normalised(name, request_fields)) for name in names)


def matches(stored_selecting: Selecting, request_fields: Fields, stored_fields: Fields) -> bool:
    """Whether a request selects the response that is stored with these fields.

    Where Accept-Language selects, a response in the one language that a request wants most is for
    it, whatever it would have been content with (RFC 9111 4.1 lets preference choose).
    """
    return all(
        _normalised(name, request_fields) == value
        or (name == b"accept-language" and _in_first_choice(request_fields, stored_fields))
        for name, value in stored_selecting
    )


def _in_first_choice(request_fields: Fields, stored_fields: Fields) -> bool:
    wanted = request_fields.joined(b"accept-language")
    language = only_language(stored_fields.get_all(b"content-language"))
    return wanted is not None and language is not None and first_choice(wanted) == language


def _normalised(name: bytes, fields: Fields) -> bytes | None:
    value = fields.joined(name)
    if value is None or name in _NO_LISTS:
        return value
    if name in PREFERENCE_FIELDS:
        preferences = normal_preferences(name, value)
        if preferences is not None:
            return preferences
    return _respaced(value) if b"," in value else value


# A request is held against each variant of a page, and may bear a list of the longest.
@lru_cache(maxsize=64)
def _respaced(value: bytes) -> bytes:
    return b", ".join(split_unquoted(value, b","))
