"""Structured fields (RFC 9651): the parsing algorithms of its section 4.2, strict as they are."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class StructuredFieldError(ValueError):
    """The field is not what its type demands, and is to be ignored whole (RFC 9651 4.2)."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token (RFC 9651 3.3.4), told apart from a string."""

    name: str


@dataclass(frozen=True, slots=True)
class Date:
    """A date (RFC 9651 3.3.7), in seconds since the epoch."""

    seconds: int


@dataclass(frozen=True, slots=True)
class DisplayString:
    """A string of any characters (RFC 9651 3.3.8)."""

    text: str


BareItem: TypeAlias = int | Decimal | str | Token | bytes | bool | Date | DisplayString


@dataclass(frozen=True, slots=True)
class Item:
    """A value with its parameters."""

    value: BareItem
    parameters: Mapping[str, BareItem] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InnerList:
    """A list within a list or dictionary, with its parameters."""

    items: tuple[Item, ...]
    parameters: Mapping[str, BareItem] = field(default_factory=dict)


def parse_dictionary(lines: Iterable[bytes]) -> dict[str, Item | InnerList]:
    """A dictionary field's members in order; raises StructuredFieldError."""
    parser = _Parser(lines)
    members: dict[str, Item | InnerList] = {}
    while not parser.at_end():
        key = parser.key()
        # Of a key that comes twice the last counts (4.2.2).
        if parser.skip("="):
            members[key] = parser.item_or_inner_list()
        else:
            members[key] = Item(True, parser.parameters())
        parser.next_member()
    return members


def parse_list(lines: Iterable[bytes]) -> list[Item | InnerList]:
    """A list field's members; raises StructuredFieldError."""
    parser = _Parser(lines)
    members: list[Item | InnerList] = []
    while not parser.at_end():
        members.append(parser.item_or_inner_list())
        parser.next_member()
    return members


def parse_item(lines: Iterable[bytes]) -> Item:
    """An item field's value; raises StructuredFieldError."""
    parser = _Parser(lines)
    item = parser.item()
    if not parser.at_end():
        raise StructuredFieldError("more than one item")
    return item


_KEY: Final = re.compile(r"[a-z*][a-z0-9_\-.*]*")
_NUMBER: Final = re.compile(r"(-?)([0-9]+)(?:(\.)([0-9]*))?")
_STRING: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*+)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_TOKEN: Final = re.compile(r"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_BYTES: Final = re.compile(r":([A-Za-z0-9+/]*)=*:")
_BOOLEAN: Final = re.compile(r"\?([01])")
_DISPLAY_STRING: Final = re.compile(r'%"((?:[ !#$&-~]|%[0-9a-f]{2})*+)"')
_PERCENT_ENCODED: Final = re.compile(rb"%([0-9a-f]{2})")
_SP: Final = re.compile(r" *")
_OWS: Final = re.compile(r"[ \t]*")


class _Parser:
    """A field's value and how far it has been read."""

    __slots__ = ("_at", "_text")

    def __init__(self, lines: Iterable[bytes]) -> None:
        try:
            self._text = b", ".join(lines).decode("ascii").strip(" ")
        except UnicodeDecodeError:
            raise StructuredFieldError("not ASCII") from None
        self._at = 0

    def at_end(self) -> bool:
        return self._at == len(self._text)

    def skip(self, character: str) -> bool:
        if not self._text.startswith(character, self._at):
            return False
        self._at += 1
        return True

    def next_member(self) -> None:
        """Go behind the comma that follows a member, if one does."""
        self._read(_OWS, "")
        if self.at_end():
            return
        if not self.skip(","):
            raise StructuredFieldError("no comma between members")
        self._read(_OWS, "")
        if self.at_end():
            raise StructuredFieldError("a comma at the end")

    def item_or_inner_list(self) -> Item | InnerList:
        return self._inner_list() if self.skip("(") else self.item()

    def item(self) -> Item:
        return Item(self._bare_item(), self.parameters())

    def parameters(self) -> dict[str, BareItem]:
        parameters: dict[str, BareItem] = {}
        while self.skip(";"):
            self._read(_SP, "")
            key = self.key()
            parameters[key] = self._bare_item() if self.skip("=") else True
        return parameters

    def key(self) -> str:
        return self._read(_KEY, "no key")[0]

    def _inner_list(self) -> InnerList:
        items: list[Item] = []
        while True:
            spaces = self._read(_SP, "")[0]
            if self.skip(")"):
                return InnerList(tuple(items), self.parameters())
            if items and not spaces:
                raise StructuredFieldError("no space between the items of an inner list")
            items.append(self.item())

    def _bare_item(self) -> BareItem:
        match self._text[self._at : self._at + 1]:
            case '"':
                return _ESCAPED.sub(r"\1", self._read(_STRING, "no string")[1])
            case "?":
                return self._read(_BOOLEAN, "no boolean")[1] == "1"
            case ":":
                return self._byte_sequence()
            case "@":
                self._at += 1
                seconds = self._number()
                if isinstance(seconds, int):
                    return Date(seconds)
                raise StructuredFieldError("a date with a fraction")
            case "%":
                return self._display_string()
            case first if first.isdigit() or first == "-":
                return self._number()
            case _:
                return Token(self._read(_TOKEN, "no item")[0])

    def _number(self) -> int | Decimal:
        match = self._read(_NUMBER, "no number")
        sign, whole, point, fraction = match.groups()
        if not point:
            if len(whole) > 15:
                raise StructuredFieldError("an integer of more than 15 digits")
            return int(sign + whole)
        if len(whole) > 12 or not 1 <= len(fraction) <= 3:
            raise StructuredFieldError("a decimal with too many digits, or none after its point")
        return Decimal(match[0])

    def _byte_sequence(self) -> bytes:
        encoded = self._read(_BYTES, "no byte sequence")[1]
        try:
            # 4.2.7: missing padding is no reason to fail.
            return base64.b64decode(encoded + "=" * (-len(encoded) % 4))
        except binascii.Error as error:
            raise StructuredFieldError(f"a byte sequence that is no base64: {error}") from None

    def _display_string(self) -> DisplayString:
        encoded = self._read(_DISPLAY_STRING, "no display string")[1].encode()
        raw = _PERCENT_ENCODED.sub(lambda match: bytes.fromhex(match[1].decode()), encoded)
        try:
            return DisplayString(raw.decode())
        except UnicodeDecodeError:
            raise StructuredFieldError("a display string that is not UTF-8") from None

    def _read(self, pattern: re.Pattern[str], otherwise: str) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise StructuredFieldError(f"{otherwise} at offset {self._at}")
        self._at = match.end()
        return match
