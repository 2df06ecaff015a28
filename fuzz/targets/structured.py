"""Structured fields: what is read is written out as RFC 9651 4.1 says, and read again."""

import base64
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from edgeproxy.semantics.structured import (
    BareItem,
    Date,
    DisplayString,
    InnerList,
    Item,
    StructuredFieldError,
    Token,
    parse_dictionary,
    parse_item,
    parse_list,
)


def check(data: bytes) -> None:
    lines = data.split(b"\n")
    for parse, write in WRITERS:
        try:
            read = parse(lines)
        except StructuredFieldError:
            continue
        assert parse([write(read).encode()]) == read, read


def _item(item: Item | InnerList) -> str:
    if isinstance(item, InnerList):
        inner = " ".join(_item(each) for each in item.items)
        return f"({inner}){_parameters(item.parameters)}"
    return _bare(item.value) + _parameters(item.parameters)


def _parameters(parameters: Mapping[str, BareItem]) -> str:
    return "".join(f";{name}={_bare(value)}" for name, value in parameters.items())


def _bare(value: BareItem) -> str:
    match value:
        case bool():
            return f"?{value:d}"
        case int() | Decimal():
            return str(value)
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case Token(name):
            return name
        case bytes():
            return f":{base64.b64encode(value).decode()}:"
        case Date(seconds):
            return f"@{seconds}"
        case DisplayString(text):
            return '%"' + "".join(f"%{byte:02x}" for byte in text.encode()) + '"'


WRITERS: tuple[tuple[Callable[[list[bytes]], Any], Callable[[Any], str]], ...] = (
    (parse_list, lambda members: ", ".join(map(_item, members))),
    (
        parse_dictionary,
        lambda members: ", ".join(f"{name}={_item(member)}" for name, member in members.items()),
    ),
    (parse_item, _item),
)
