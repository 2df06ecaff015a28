"""Fields by which a request ranks what it would like to get (RFC 9110 12.4, 12.5).

Two values that state the same preferences are one value here, however they are written: the order
of their members, whitespace, the case of languages, codings and media types, and how a weight is
spelt mean nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from edgeproxy.semantics.fields import list_members, split_unquoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.semantics.fields import Fields

# RFC 9110 12.4.2: weight = OWS ";" OWS "q=" qvalue
_WEIGHT: Final = re.compile(rb"[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")
_LANGUAGE_RANGE: Final = re.compile(rb"\*|[A-Za-z]{1,8}(?:-(?:[A-Za-z0-9]{1,8}|\*))*")
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_CODING: Final = re.compile(_TOKEN)
_MEDIA_RANGE: Final = re.compile(_TOKEN + rb"/" + _TOKEN)

# RFC 9110 8.4.1.1, 8.4.1.3: "a recipient SHOULD consider" these names equivalent.
_ALIASES: Final = {b"x-gzip": b"gzip", b"x-compress": b"compress"}

_RANGES: Final = {
    b"accept": _MEDIA_RANGE,
    b"accept-charset": _CODING,
    b"accept-encoding": _CODING,
    b"accept-language": _LANGUAGE_RANGE,
}
PREFERENCE_FIELDS: Final = frozenset(_RANGES)
"""The request fields whose members are weighted, and come in any order (RFC 9110 12.5)."""

# Nobody's preferences are longer; reading them would only be work for a stranger to give.
_LONGEST: Final = 512
_FULL_WEIGHT: Final = 1000


def normal_preferences(name: bytes, value: bytes) -> bytes | None:
    """The one way to write the preferences that `value` states in the field `name`, one of
    `PREFERENCE_FIELDS`; None if it is not written as it should be, or of no sane length."""
    return _remembered(name, value) if len(value) <= _LONGEST else None


def first_choice(languages: bytes) -> bytes | None:
    """The language that an Accept-Language field wants more than any other, in lower case.

    None where there is no such one: two weigh the same, it is "*", or the field is malformed.
    """
    weighted = _weighted(b"accept-language", languages)
    if not weighted:
        return None
    best, weight = max(weighted.items(), key=lambda each: each[1])
    alone = sum(each == weight for each in weighted.values()) == 1
    return best if alone and weight > 0 and b"*" not in best else None


def only_language(lines: Iterable[bytes]) -> bytes | None:
    """The one language of a Content-Language field, in lower case; None if there are more."""
    tags = list_members(lines)
    return tags[0].lower() if len(tags) == 1 else None


def accepts_codings(request_fields: Fields, response_fields: Fields) -> bool:
    """Whether the request names all codings of the response as acceptable, or it has none.

    Stricter than RFC 9110 12.5.3, which takes a request without Accept-Encoding for one that
    accepts any.
    """
    codings = list_members(response_fields.get_all(b"content-encoding"))
    if not codings:
        return True
    weighted = _weighted(b"accept-encoding", request_fields.joined(b"accept-encoding") or b"")
    if weighted is None:
        return False
    named = (_ALIASES.get(coding.lower(), coding.lower()) for coding in codings)
    return all(weighted.get(coding, weighted.get(b"*", 0)) > 0 for coding in named)


def _normal(name: bytes, value: bytes) -> bytes | None:
    weighted = _weighted(name, value)
    if weighted is None:
        return None
    ranked = sorted(weighted.items(), key=lambda each: (-each[1], each[0]))
    return b", ".join(
        each if weight == _FULL_WEIGHT else b"%b;q=0.%03d" % (each, weight)
        for each, weight in ranked
    )


# A pure function's memory: nearly all readers send one of a few values, on each request.
_remembered = lru_cache(maxsize=4096)(_normal)


def _weighted(name: bytes, value: bytes) -> dict[bytes, int] | None:
    """What is wanted, with its weight in thousandths; None if the field is malformed, too long, or
    gives one member two weights."""
    if len(value) > _LONGEST:
        return None
    weighted: dict[bytes, int] = {}
    for member in split_unquoted(value, b","):
        if not member:
            continue
        what, *parameters = split_unquoted(member, b";")
        weight = _FULL_WEIGHT
        if parameters:
            match = _WEIGHT.fullmatch(parameters[-1])
            if match is not None:
                weight = round(float(match[1]) * _FULL_WEIGHT)
                del parameters[-1]
        if _RANGES[name].fullmatch(what) is None or (parameters and name != b"accept"):
            return None
        what = what.lower()
        if name == b"accept-encoding":
            what = _ALIASES.get(what, what)
        # A media type's parameters stay as they are: what their values mean is its own affair.
        what = b";".join((what, *parameters))
        if weighted.setdefault(what, weight) != weight:
            return None
    return weighted
