"""The fields of the requests that the fast path answers, read once and remembered by their bytes.

A browser sends the same lines with every request of a page, most of them with every request of a
day. Only blocks without anything unusual are read here; whatever else comes is the parser's.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar, cast

from edgeproxy.semantics.fields import OWS, TCHAR, Fields
from edgeproxy.semantics.forwarding import end_to_end

if TYPE_CHECKING:
    from collections.abc import Mapping

V = TypeVar("V")

# Fields that frame a message, belong to the connection, or ask for more than the stored response:
# requests that bear one are for the full path.
_NOT_HERE: Final = frozenset(
    {
        *(b"content-length", b"transfer-encoding", b"te", b"trailer", b"expect", b"upgrade"),
        *(b"keep-alive", b"proxy-connection", b"http2-settings", b"max-forwards"),
        *(b"range", b"if-range", b"if-match", b"if-unmodified-since"),
        *(b"cache-control", b"pragma"),
    }
)
_CONDITIONS: Final = frozenset({b"if-none-match", b"if-modified-since"})
# What says which site is asked for, and by which scheme: the latter where a proxy is trusted.
_PLACE: Final = frozenset({b"host", b"x-forwarded-proto"})
_SPECIAL: Final = _CONDITIONS | _PLACE | {b"connection"}

_VISIBLE: Final = bytes(range(0x21, 0x7F)) + OWS
_LONGEST_REMEMBERED: Final = 1024


class _Line(NamedTuple):
    name: bytes
    """In lower case."""
    pair: tuple[bytes, bytes]
    special: bool
    """One of `_SPECIAL`."""


_name = itemgetter(0)


class FieldBlock:
    """The fields of a request, and what is to be known of them for a hit."""

    __slots__ = ("_fields", "_lines", "_values", "closing", "conditional", "place")

    def __init__(
        self, lines: list[_Line], place: bytes, *, conditional: bool, closing: bool
    ) -> None:
        self._lines = lines
        self._fields: Fields | None = None
        self._values: dict[tuple[bytes, ...], tuple[bytes | None, ...]] | None = None
        self.place = place
        """What is alike in all blocks for one site by one scheme: the values of Host and
        X-Forwarded-Proto."""
        self.conditional = conditional
        """If-None-Match or If-Modified-Since is there."""
        self.closing = closing
        """The client wants no further answer (RFC 9112 9.6)."""

    @property
    def fields(self) -> Fields:
        """As the full path has them: without those for the connection alone (RFC 9110 7.6.1)."""
        if self._fields is None:
            self._fields = end_to_end(Fields([line.pair for line in self._lines]))
        return self._fields

    def values(self, names: tuple[bytes, ...]) -> tuple[bytes | None, ...]:
        """What the fields of these names say, each in one; None for one that is not there."""
        if self._values is None:
            self._values = {}
        found = self._values.get(names)
        if found is None:
            fields = self.fields
            found = self._values[names] = tuple([fields.joined(name) for name in names])
        return found


class Generations(Generic[V]):
    """A bounded memo that keeps what is used: of two generations, the older one goes.

    At most `size` entries are in each; what is found in the older one moves to the younger one.
    """

    __slots__ = ("_old", "_size", "young")

    def __init__(self, size: int) -> None:
        self._size = size
        self.young: dict[bytes, V] = {}
        """For a quick look: `get` finds more."""
        self._old: Mapping[bytes, V] = {}

    def get(self, key: bytes) -> V | None:
        found = self.young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: bytes, value: V) -> None:
        if len(self.young) >= self._size:
            # The dictionary stays the same: others look into it, too.
            self._old = self.young.copy()
            self.young.clear()
        self.young[key] = value

    def clear(self) -> None:
        self.young.clear()
        self._old = {}


class BlockReader:
    """Reads blocks strictly: what it gives, the full path takes for the same."""

    def __init__(self, lines: int = 8192) -> None:
        """Remembers so many lines, twice."""
        self._lines: Generations[_Line] = Generations(lines)

    def read(self, block: bytes, max_fields: int) -> FieldBlock | None:
        """The block, which is the CRLF behind the request line and all that follows to the empty
        line; None where it is not for the fast path."""
        raw = block[2:-4].split(b"\r\n")
        if len(raw) > max_fields:
            return None
        lines = list(map(self._lines.young.get, raw))
        if None in lines:
            for at, each in enumerate(raw):
                if lines[at] is None:
                    lines[at] = line = self._read_line(each)
                    if line is None:
                        return None
        known = cast("list[_Line]", lines)
        if len(set(map(_name, known))) != len(known):
            # Which of two counts, or whether both do, is for the full path to say.
            return None
        host, proto, conditional, closing = None, b"", False, False
        for line in [line for line in known if line.special]:
            if line.name == b"host":
                host = line.pair[1]
            elif line.name == b"x-forwarded-proto":
                proto = line.pair[1]
            elif line.name == b"connection":
                closing = line.pair[1].lower() == b"close"
            else:
                conditional = True
        if host is None:
            return None
        place = host + b"\n" + proto
        return FieldBlock(known, place, conditional=conditional, closing=closing)

    def _read_line(self, raw: bytes) -> _Line | None:
        line = self._lines.get(raw)
        if line is not None:
            return line
        # RFC 9112 5: field-line = field-name ":" OWS field-value OWS
        name, colon, value = raw.partition(b":")
        if not colon or not name or name.translate(None, TCHAR) or value.translate(None, _VISIBLE):
            return None
        folded, value = name.lower(), value.strip(OWS)
        if folded in _NOT_HERE or folded.startswith(b"proxy-"):
            return None
        if folded == b"connection" and value.lower() not in (b"keep-alive", b"close"):
            return None
        line = _Line(folded, (name, value), folded in _SPECIAL)
        if len(raw) <= _LONGEST_REMEMBERED:
            self._lines.put(raw, line)
        return line
