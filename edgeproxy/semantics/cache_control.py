"""Cache-Control (RFC 9111 5.2) and the fields that take its place for some caches (RFC 9213).

What cannot be read is read in its strictest sense, never in a laxer one:

- A number that is missing, negative, fractional or otherwise not delta-seconds is 0 (RFC 9111
  4.2.1: responses with invalid freshness information are stale), one that is too large is 2^31.
- Where a directive comes several times, the strictest counts: the least number, the unqualified
  form. RFC 9111 4.2.1 asks for the first or for staleness: the least is never laxer than the first,
  and a cache that keeps to it is never talked into a longer life by what some hop appended.
- A directive that restricts counts though its member is malformed; one that permits does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from edgeproxy.semantics.fields import OWS, is_token, list_members, split_unquoted, unquote
from edgeproxy.semantics.structured import (
    Item,
    StructuredFieldError,
    Token,
    parse_dictionary,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edgeproxy.semantics.fields import Fields
    from edgeproxy.semantics.structured import InnerList

MAX_DELTA: Final = 2**31
"""What an overflowing delta-seconds counts as (RFC 9111 1.2.2), in seconds."""

DEFAULT_TARGETS: Final = (b"surrogate-control", b"vercel-cdn-cache-control", b"cdn-cache-control")
"""The fields that take Cache-Control's place here, most specific first (RFC 9213 2.2)."""


@dataclass(frozen=True, slots=True)
class Directives:
    """What a message's cache directives say, whether it is a request or a response.

    Numbers are seconds, None where the directive is absent. `no_cache` and `private` are qualified
    (RFC 9111 5.2.2.4, 5.2.2.7) where they come with field names, in lower case.
    """

    max_age: int | None = None
    s_maxage: int | None = None
    stale_while_revalidate: int | None = None
    stale_if_error: int | None = None
    min_fresh: int | None = None
    max_stale: int | None = None
    no_store: bool = False
    no_cache: bool = False
    no_cache_fields: frozenset[bytes] = frozenset()
    private: bool = False
    private_fields: frozenset[bytes] = frozenset()
    public: bool = False
    must_revalidate: bool = False
    proxy_revalidate: bool = False
    must_understand: bool = False
    no_transform: bool = False
    immutable: bool = False
    only_if_cached: bool = False


_SAYS_NOTHING: Final = Directives()

_REMEMBERED_BYTES: Final = 256
"""An origin, or a browser, says the same again and again: what is no longer than this is read once.
"""

SURROGATE: Final = b"edgeproxy"
"""This surrogate's name in Surrogate-Capability, by which Surrogate-Control may address it."""

_DELTAS: Final = {
    b"max-age": "max_age",
    b"s-maxage": "s_maxage",
    b"stale-while-revalidate": "stale_while_revalidate",
    b"stale-if-error": "stale_if_error",
    b"min-fresh": "min_fresh",
    b"max-stale": "max_stale",
}
_QUALIFIED: Final = {
    b"no-cache": ("no_cache", "no_cache_fields"),
    b"private": ("private", "private_fields"),
}
_RESTRICTING: Final = {
    b"no-store": "no_store",
    b"must-revalidate": "must_revalidate",
    b"proxy-revalidate": "proxy_revalidate",
    b"no-transform": "no_transform",
}
_PERMITTING: Final = {
    b"public": "public",
    b"must-understand": "must_understand",
    b"immutable": "immutable",
    b"only-if-cached": "only_if_cached",
}
_KNOWN: Final = frozenset({*_DELTAS, *_QUALIFIED, *_RESTRICTING, *_PERMITTING})

# A directive as its field's grammar gave it: lower-case name, argument if any, well-formed.
_Member: TypeAlias = tuple[bytes, bytes | None, bool]

# What people put between directives in place of a comma, or around them.
_MISPLACED: Final = re.compile(rb"[ \t;:=\"']+")


def delta_seconds(value: bytes) -> int | None:
    """RFC 9111 1.2.2: a non-negative integer, at most `MAX_DELTA`; None if it is anything else."""
    if not value.isdigit():
        return None
    digits = value.lstrip(b"0")
    return min(int(digits or b"0"), MAX_DELTA) if len(digits) <= 10 else MAX_DELTA


def parse_cache_control(lines: Iterable[bytes]) -> Directives:
    """The directives of Cache-Control's lines; never raises.

    Unknown directives are ignored (RFC 9111 5.2), both argument forms are read for all of them.
    """
    lines = tuple(lines)
    if not lines:
        return _SAYS_NOTHING
    if sum(map(len, lines)) <= _REMEMBERED_BYTES:
        return _remembered(lines)
    return _cache_control(lines)


def _cache_control(lines: Iterable[bytes]) -> Directives:
    return _directives(read for member in list_members(lines) for read in _read(member))


_remembered = lru_cache(maxsize=1024)(_cache_control)


def parse_targeted(lines: Iterable[bytes]) -> Directives | None:
    """The directives of a targeted field (RFC 9213 2.1), a structured dictionary.

    None where the field is empty or not such a dictionary: it is then as if it were not there.
    """
    try:
        dictionary = parse_dictionary(lines)
    except StructuredFieldError:
        return None
    if not dictionary:
        return None
    return _directives(
        _read_targeted(name.encode(), member)
        for name, member in dictionary.items()
        # `?0` is how a structured field says that a directive without value is not there.
        if not (isinstance(member, Item) and member.value is False)
    )


def parse_surrogate_control(lines: Iterable[bytes]) -> Directives | None:
    """The directives of Surrogate-Control (Edge Architecture Specification 1.0, 2.3).

    Its own are `max-age=FRESH+STALE`, whose second number is how long it may be served stale, and
    `no-store-remote`; origins use those of Cache-Control in it as well. A directive for a named
    surrogate (`max-age=60;edgeproxy`) is for that one alone, in the place of the one for all. None
    where nothing is said about caching, so that `content="ESI/1.0"` does not take Cache-Control's
    place.
    """
    members = [
        read
        for directive in _for_this_surrogate(list_members(lines))
        for read in _read_surrogate(directive)
    ]
    return _directives(members) if any(name in _KNOWN for name, _, _ in members) else None


def response_directives(
    fields: Fields, targets: Sequence[bytes] = DEFAULT_TARGETS
) -> tuple[Directives, bytes]:
    """The directives that bind this cache, and the lower-case name of the field they come from.

    The first of `targets` that is present and valid wins whole, and Cache-Control and Expires are
    then ignored (RFC 9213 2.2).
    """
    for target in targets:
        lines = fields.get_all(target)
        if lines:
            parse = _PARSERS.get(target, parse_targeted)
            directives = parse(lines)
            if directives is not None:
                return directives, target
    return parse_cache_control(fields.get_all(b"cache-control")), b"cache-control"


def request_directives(fields: Fields) -> Directives:
    """What a request asks of caches; `Pragma: no-cache` counts without Cache-Control (9111 5.4)."""
    lines = fields.get_all(b"cache-control")
    if not lines and b"pragma" in fields:
        members = (member.lower() for member in list_members(fields.get_all(b"pragma")))
        return Directives(no_cache=b"no-cache" in members)
    return parse_cache_control(lines)


_PARSERS: Final = {b"surrogate-control": parse_surrogate_control}


def _read(member: bytes) -> Iterator[_Member]:
    # RFC 9111 5.2: cache-directive = token [ "=" ( token / quoted-string ) ]
    name, equals, raw_argument = member.partition(b"=")
    rest = member
    if is_token(name):
        argument = raw_argument if is_token(raw_argument) else unquote(raw_argument)
        well_formed = not equals or argument is not None
        yield name.lower(), argument, well_formed
        if well_formed:
            return
        rest = raw_argument
    # It may have been meant for several: in "max-age=0; private" the second one counts, too.
    for word in _MISPLACED.split(rest.lower()):
        yield word, None, False


def _for_this_surrogate(members: Iterable[bytes]) -> Iterator[bytes]:
    """The directives that are for all surrogates, or for this one: then in place of the former."""
    for_all: list[tuple[bytes, bytes]] = []
    for_this: list[tuple[bytes, bytes]] = []
    for member in members:
        directive, *targets = split_unquoted(member, b";")
        targets = [target for target in targets if target]
        read = (directive.partition(b"=")[0].lower(), directive)
        if not targets:
            for_all.append(read)
        elif SURROGATE in targets:
            for_this.append(read)
    names = {name for name, _ in for_this}
    yield from (directive for name, directive in for_all if name not in names)
    yield from (directive for _, directive in for_this)


def _read_surrogate(directive: bytes) -> Iterator[_Member]:
    for name, argument, valid in _read(directive):
        if name == b"no-store-remote":
            # An edge is what the specification calls remote: not on the origin's own premises.
            yield b"no-store", argument, valid
        elif name == b"max-age" and argument is not None and b"+" in argument:
            fresh, _, stale = argument.partition(b"+")
            yield b"max-age", fresh, valid
            yield b"stale-while-revalidate", stale, valid
            yield b"stale-if-error", stale, valid
        else:
            yield name, argument, valid


def _read_targeted(name: bytes, member: Item | InnerList) -> _Member:
    # RFC 9213 2.1: no value is a Boolean, a quoted-string a String, a token a Token or a number.
    match member:
        case Item(value=True):
            return name, None, True
        case Item(value=Token(name=token)):
            return name, token.encode(), True
        # Types count in a structured field: what is in quotes is not a number.
        case Item(value=str() as content) if name not in _DELTAS:
            return name, content.encode(), True
        case Item(value=int() | Decimal() as number):
            return name, str(number).encode(), True
        case _:
            return name, None, False


def _directives(members: Iterable[_Member]) -> Directives:
    found: dict[str, Any] = {}
    for name, argument, valid in members:
        if name in _DELTAS:
            attribute = _DELTAS[name]
            seconds = _seconds(name, argument, valid)
            strictest = max if name == b"min-fresh" else min
            found[attribute] = strictest(found.get(attribute, seconds), seconds)
        elif name in _QUALIFIED:
            attribute, fields_attribute = _QUALIFIED[name]
            names = _field_names(argument) if valid else frozenset()
            unqualified = not names or (attribute in found and not found[fields_attribute])
            found[attribute] = True
            found[fields_attribute] = (
                frozenset() if unqualified else names | found.get(fields_attribute, names)
            )
        elif name in _RESTRICTING:
            found[_RESTRICTING[name]] = True
        elif name in _PERMITTING and valid and argument is None:
            found[_PERMITTING[name]] = True
    return Directives(**found)


def _seconds(name: bytes, argument: bytes | None, valid: bool) -> int:
    if name == b"max-stale" and valid and argument is None:
        return MAX_DELTA  # RFC 9111 5.2.1.2: stale by whatever time
    seconds = delta_seconds(argument) if valid and argument is not None else None
    if seconds is None:
        return MAX_DELTA if name == b"min-fresh" else 0
    return seconds


def _field_names(argument: bytes | None) -> frozenset[bytes]:
    # One name that is none may hide any other: the directive is then taken as unqualified. So is
    # one in single quotes, which the grammar lets into tokens, and no field has in its name.
    names = [name.strip(OWS).lower() for name in (argument or b"").split(b",")]
    names = [name for name in names if name]
    valid = all(is_token(name) and b"'" not in name for name in names)
    return frozenset(names) if valid else frozenset()
