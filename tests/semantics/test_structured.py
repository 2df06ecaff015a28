"""RFC 9651 4.2: structured fields."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from tests.semantics.build import checked, field_values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param(b"42", 42, id="3.3.1"),
        pytest.param(b"-0", 0, id="3.3.1-minus-zero"),
        pytest.param(b"042", 42, id="3.3.1-leading-zero"),
        pytest.param(b"999999999999999", 999_999_999_999_999, id="3.3.1-longest"),
        pytest.param(b"4.5", Decimal("4.5"), id="3.3.2"),
        pytest.param(b"-123456789012.123", Decimal("-123456789012.123"), id="3.3.2-longest"),
        pytest.param(rb'"a \"b\" \\"', 'a "b" \\', id="3.3.3"),
        pytest.param(b'""', "", id="3.3.3-empty"),
        pytest.param(b"foo123/456:*", Token("foo123/456:*"), id="3.3.4"),
        pytest.param(b"*", Token("*"), id="3.3.4-star"),
        pytest.param(b":cHJldGVuZA==:", b"pretend", id="3.3.5"),
        pytest.param(b":cHJldGVuZA:", b"pretend", id="4.2.7-no-padding"),
        pytest.param(b"::", b"", id="3.3.5-empty"),
        pytest.param(b"?1", True, id="3.3.6"),
        pytest.param(b"@1659578233", Date(1_659_578_233), id="3.3.7"),
        pytest.param(b"@-1", Date(-1), id="3.3.7-before-1970"),
        pytest.param(b'%"f%c3%bc%c3%bc"', DisplayString("füü"), id="3.3.8"),
        pytest.param(b"  1  ", 1, id="4.2-spaces-around"),
    ],
)
def test_bare_items(text: bytes, value: BareItem) -> None:
    item = parse_item([text])
    assert item == Item(value)
    assert type(item.value) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"\t1",
        b"1\t",
        b"1 2",
        b"1,2",
        b"1000000000000000",
        b"1234567890123.0",
        b"1.1234",
        b"1.",
        b".5",
        b"-",
        b"--1",
        b"+1",
        b"1e3",
        b'"a',
        b'a"',
        rb'"\a"',
        b'"\t"',
        '"é"'.encode(),
        b"'a'",
        b":a",
        b":a b:",
        b":a:",
        b"?2",
        b"?",
        b"?true",
        b"@1.5",
        b"@",
        b'%"%C3%BC"',
        b'%"%ff"',
        b'%"a',
        b"%a",
        b"1;",
        b"1;A",
        b"1 ;a",
        b"1;a=",
        b"1;a= 1",
        b"(1)",
    ],
)
def test_what_is_no_item_fails(text: bytes) -> None:
    with pytest.raises(StructuredFieldError):
        parse_item([text])


def test_parameters() -> None:  # 3.1.2
    assert parse_item([b'a;b;c=1;  d="x";b=?0']) == Item(Token("a"), {"b": False, "c": 1, "d": "x"})


@pytest.mark.parametrize(
    ("lines", "members"),
    [
        pytest.param([b"a, b;q=1"], [Item(Token("a")), Item(Token("b"), {"q": 1})], id="3.1"),
        pytest.param([b"1", b"2"], [Item(1), Item(2)], id="4.2-lines-are-joined"),
        pytest.param([b"1\t , \t2"], [Item(1), Item(2)], id="4.2.1-OWS-around-commas"),
        pytest.param([b"1", b"", b"2"], None, id="4.2-empty-line-between"),
        pytest.param([b""], [], id="4.2.1-empty"),
        pytest.param([], [], id="absent"),
        pytest.param(
            [b'("a" "b";x);y, ()'],
            [InnerList((Item("a"), Item("b", {"x": True})), {"y": True}), InnerList(())],
            id="3.1.1",
        ),
        pytest.param([b"( 1  2 )"], [InnerList((Item(1), Item(2)))], id="3.1.1-spaces"),
        pytest.param([b"1,"], None, id="4.2.1-trailing-comma"),
        pytest.param([b"1 2"], None, id="no-comma"),
        pytest.param([b"(1"], None, id="3.1.1-open"),
        pytest.param([b'("a""b")'], None, id="4.2.1.2-no-space"),
        pytest.param([b"((1))"], None, id="3.1.1-nested"),
        pytest.param([b'"a', b'b"'], [Item("a, b")], id="4.2-a-string-split-over-lines"),
    ],
)
def test_lists(lines: list[bytes], members: list[Item | InnerList] | None) -> None:
    if members is None:
        with pytest.raises(StructuredFieldError):
            parse_list(lines)
    else:
        assert parse_list(lines) == members


@pytest.mark.parametrize(
    ("lines", "members"),
    [
        pytest.param(
            [b"a=1, b;x, c=(1 2)"],
            {"a": Item(1), "b": Item(True, {"x": True}), "c": InnerList((Item(1), Item(2)))},
            id="3.2",
        ),
        pytest.param([b"a=1", b"b"], {"a": Item(1), "b": Item(True)}, id="several-lines"),
        pytest.param([b"a=1, a=2"], {"a": Item(2)}, id="4.2.2-last-counts"),
        pytest.param([b"*a_-.9=1"], {"*a_-.9": Item(1)}, id="3.1.2-key"),
        pytest.param([b""], {}, id="empty"),
        pytest.param([b"A=1"], None, id="upper-case-key"),
        pytest.param([b"9=1"], None, id="digit-first"),
        pytest.param([b"a= 1"], None, id="space-after-equals"),
        pytest.param([b"a =1"], None, id="space-before-equals"),
        pytest.param([b"a=1,"], None, id="trailing-comma"),
        pytest.param([b"a="], None, id="no-value"),
        pytest.param([b"\xff"], None, id="4.2-not-ascii"),
    ],
)
def test_dictionaries(lines: list[bytes], members: dict[str, Item | InnerList] | None) -> None:
    if members is None:
        with pytest.raises(StructuredFieldError):
            parse_dictionary(lines)
    else:
        assert parse_dictionary(lines) == members


@checked
@given(st.lists(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=10)))
def test_strings_come_back(strings: list[str]) -> None:
    escaped = [text.replace("\\", "\\\\").replace('"', '\\"') for text in strings]
    line = ", ".join(f'"{text}"' for text in escaped).encode()
    assert parse_list([line]) == [Item(text) for text in strings]


@checked
@given(field_values)
def test_only_one_error_is_ever_raised(value: bytes) -> None:
    for parse in (parse_item, parse_list, parse_dictionary):
        try:
            parse([value])
        except StructuredFieldError:
            continue
