"""Which request fields select among the responses of one key (RFC 9111 4.1, RFC 9110 12.5.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from edgeproxy.semantics.fields import is_token, list_members, split_unquoted

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


def vary_names(fields: Fields) -> tuple[bytes, ...] | None:
    """The field names in a response's Vary: sorted, lower-case, each once.

    None where no request can be known to select the response: "*" is among them, or something that
    is no field name.
    """
    names = {member.lower() for member in list_members(fields.get_all(b"vary"))}
    if b"*" in names or not all(is_token(name) for name in names):
        return None
    return tuple(sorted(names))


def selecting(names: tuple[bytes, ...], request_fields: Fields) -> Selecting:
    """What a request has in the named fields, so that equal means the same (RFC 9111 4.1).

    Only what can't matter is normalised: over how many lines a list is spread, and the whitespace
    around its commas.
    """
    return tuple((name, _normalised(name, request_fields)) for name in names)


def matches(stored_selecting: Selecting, request_fields: Fields) -> bool:
    """Whether a request selects the response that is stored with these fields."""
    return all(_normalised(name, request_fields) == value for name, value in stored_selecting)


def _normalised(name: bytes, fields: Fields) -> bytes | None:
    value = fields.joined(name)
    if value is None or name in _NO_LISTS:
        return value
    return b", ".join(split_unquoted(value, b",")) if b"," in value else value
