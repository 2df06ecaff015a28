"""Header fields as they were received, and the syntax that most of them share (RFC 9110 5)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

OWS: Final = b" \t"
"""Optional whitespace, RFC 9110 5.6.3."""
_NO_NAMES: Final[frozenset[bytes]] = frozenset()

# RFC 9110 5.6.2: tchar
TCHAR: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# RFC 9110 5.6.4: quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE
_QUOTED_STRING: Final = re.compile(
    rb'"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+)"'
)
_QUOTED_PAIR: Final = re.compile(rb"\\(.)", re.DOTALL)
# What stands between an opening quote and its closing one, whatever the bytes: for splitting only.
_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)


class Fields:
    """The fields of one message: immutable, in order, repeats and the names' case kept.

    Names that are passed to a method are lower-case; those in `raw` are as they came.
    """

    __slots__ = ("_hash", "_index", "_repeatable", "raw")

    raw: Final[tuple[tuple[bytes, bytes], ...]]

    def __init__(self, raw: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.raw = tuple(raw)
        self._index: dict[bytes, tuple[bytes, ...]] | None = None
        self._hash: int | None = None
        self._repeatable: bool | None = None

    def _lines(self) -> dict[bytes, tuple[bytes, ...]]:
        # Many values of this type are only carried, or written out: the index waits for a question.
        # What is made of one with an index has one made of that: it is never changed.
        index = self._index
        if index is None:
            index = {}
            for name, value in self.raw:
                name = name.lower()
                index[name] = (*index[name], value) if name in index else (value,)
            self._index = index
        return index

    def get(self, name: bytes) -> bytes | None:
        """The value of the first line of that name; None if there is none."""
        lines = (self._index or self._lines()).get(name)
        return lines[0] if lines is not None else None

    def get_all(self, name: bytes) -> tuple[bytes, ...]:
        """The values of all lines of that name, in order."""
        return (self._index or self._lines()).get(name, ())

    def joined(self, name: bytes) -> bytes | None:
        """The field's combined value (RFC 9110 5.3); None if there is no such line.

        Wrong for Set-Cookie, the one list without a comma (RFC 9110 5.3).
        """
        lines = self._lines().get(name)
        return b", ".join(lines) if lines is not None else None

    @property
    def repeatable(self) -> bool:
        """Whether what is made of them may be remembered: few enough to be sent again and again, as
        a browser sends its own, and small enough to be kept, whoever sent them."""
        if self._repeatable is None:
            size = sum([len(name) + len(value) for name, value in self.raw])
            self._repeatable = len(self.raw) <= 40 and size <= 2048
        return self._repeatable

    def names(self) -> Iterable[bytes]:
        """The names that there are, in lower case, each once."""
        return self._lines().keys()

    def without(self, names: AbstractSet[bytes]) -> Fields:
        """These fields but for those of the given names."""
        return self if self._lines().keys().isdisjoint(names) else self.changed(names)

    def plus(self, *pairs: tuple[bytes, bytes]) -> Fields:
        """These fields, followed by the given lines."""
        return self.changed(_NO_NAMES, *pairs) if pairs else self

    def changed(self, but: AbstractSet[bytes], *more: tuple[bytes, bytes]) -> Fields:
        """These fields but for those of the given names, followed by the given lines."""
        raw, index = self.raw, self._index
        if but and not self._lines().keys().isdisjoint(but):
            raw = tuple([pair for pair in raw if pair[0].lower() not in but])
            index = None
        changed = Fields(raw + more)
        if index is not None:
            # Of what is left out, none is left: the rest can be taken over.
            index = index.copy()
            for name, value in more:
                name = name.lower()
                index[name] = (*index.get(name, ()), value)
            changed._index = index
        return changed

    def replacing(self, name: bytes, value: bytes) -> Fields:
        """These fields with one line of that name, where its first one was, or else at the end."""
        lines = self._lines().get(name)
        if lines is None:
            return self.plus((name, value))
        if lines == (value,):
            return self
        replaced: list[tuple[bytes, bytes]] = []
        done = False
        for pair in self.raw:
            if pair[0].lower() != name:
                replaced.append(pair)
            elif not done:
                replaced.append((pair[0], value))
                done = True
        return Fields(replaced)

    def __contains__(self, name: object) -> bool:
        return name in (self._index or self._lines())

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, Fields) else NotImplemented

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.raw)
        return self._hash

    def __repr__(self) -> str:
        return f"Fields({self.raw!r})"


def list_members(lines: Iterable[bytes]) -> list[bytes]:
    """The members of a list-based field (RFC 9110 5.6.1), trimmed, empty ones left out.

    Each line is read for itself, and a quote that is never closed is an ordinary character, so that
    a broken member ends at its own comma.
    """
    return [member for line in lines for member in split_unquoted(line, b",") if member]


def split_unquoted(value: bytes, separator: bytes) -> list[bytes]:
    """The parts of `value` between separators (one byte) outside quoted strings, OWS trimmed."""
    if b'"' not in value:
        return [part.strip(OWS) for part in value.split(separator)]
    parts: list[bytes] = []
    start = at = 0
    while (quote := value.find(b'"', at)) >= 0:
        while (found := value.find(separator, at, quote)) >= 0:
            parts.append(value[start:found].strip(OWS))
            start = at = found + 1
        quoted = _QUOTED.match(value, quote)
        if quoted is None:
            # Nothing behind it closes it, and nothing behind it can be a quoted string of its own.
            break
        at = quoted.end()
    parts.extend(part.strip(OWS) for part in _split_from(value, separator, start, at))
    return parts


def _split_from(value: bytes, separator: bytes, start: int, at: int) -> Iterator[bytes]:
    # The last parts of a value: separators count from `at` on, the first part begins at `start`.
    while (found := value.find(separator, at)) >= 0:
        yield value[start:found]
        start = at = found + 1
    yield value[start:]


def is_token(value: bytes) -> bool:
    """Whether `value` is a token (RFC 9110 5.6.2)."""
    return bool(value) and not value.translate(None, TCHAR)


def decimal(digits: bytes) -> int:
    """The number that a value of digits gives, however many zeros stand before it: `int` alone
    reads only so many."""
    return int(digits.lstrip(b"0") or b"0")


def unquote(value: bytes) -> bytes | None:
    """What a quoted-string (RFC 9110 5.6.4) says; None if `value` is not exactly one."""
    match = _QUOTED_STRING.fullmatch(value)
    if match is None:
        return None
    content: bytes = match[1]
    return _QUOTED_PAIR.sub(rb"\1", content) if b"\\" in content else content
