"""RFC 9110 5: fields in order with repeats, lists, tokens, quoted strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.fields import (
    Fields,
    decimal,
    is_token,
    list_members,
    split_unquoted,
    unquote,
)
from tests.semantics.build import checked, field_values, fields, lines_of, tokens

SAMPLE = fields("Via: 1.1 a", "X-Tag: one", "via: 1.0 b", "Empty:")


class TestFields:
    def test_keep_order_repeats_case_and_bytes(self) -> None:
        raw = [(b"B", b"\xff"), (b"a", b""), (b"b", b"2")]
        assert list(Fields(raw)) == raw
        assert len(Fields(raw)) == 3

    def test_are_looked_up_by_lower_case_names(self) -> None:
        assert SAMPLE.get(b"via") == b"1.1 a"
        assert SAMPLE.get_all(b"via") == (b"1.1 a", b"1.0 b")
        assert b"x-tag" in SAMPLE
        assert b"via" in SAMPLE

    def test_tell_an_absent_field_from_an_empty_one(self) -> None:
        assert SAMPLE.get(b"empty") == b""
        assert SAMPLE.joined(b"empty") == b""
        assert SAMPLE.get(b"absent") is None
        assert SAMPLE.joined(b"absent") is None
        assert SAMPLE.get_all(b"absent") == ()
        assert b"absent" not in SAMPLE

    def test_combine_the_lines_of_one_name(self) -> None:  # RFC 9110 5.3
        assert SAMPLE.joined(b"via") == b"1.1 a, 1.0 b"

    def test_without_takes_every_line_of_the_names(self) -> None:
        assert lines_of(SAMPLE.without({b"via", b"absent"})) == ["X-Tag: one", "Empty: "]

    def test_without_nothing_to_take_is_the_same_value(self) -> None:
        assert SAMPLE.without({b"absent"}) is SAMPLE

    def test_plus_appends(self) -> None:
        assert lines_of(SAMPLE.plus((b"Via", b"1.1 c")))[-1] == "Via: 1.1 c"
        assert SAMPLE.plus((b"Via", b"1.1 c")).get_all(b"via") == (b"1.1 a", b"1.0 b", b"1.1 c")

    def test_replacing_leaves_one_line_where_the_first_was(self) -> None:
        assert lines_of(SAMPLE.replacing(b"via", b"x")) == ["Via: x", "X-Tag: one", "Empty: "]
        assert lines_of(SAMPLE.replacing(b"new", b"x"))[-1] == "new: x"

    def test_are_values(self) -> None:
        again = fields("Via: 1.1 a", "X-Tag: one", "via: 1.0 b", "Empty:")
        assert again == SAMPLE
        assert hash(again) == hash(SAMPLE)
        assert fields("via: 1.1 a") != fields("Via: 1.1 a")
        assert [*SAMPLE] != SAMPLE
        assert eval(repr(SAMPLE)) == SAMPLE


@pytest.mark.parametrize(
    ("lines", "members"),
    [
        pytest.param([b"a, b,c"], [b"a", b"b", b"c"], id="5.6.1"),
        pytest.param([b"a", b"b , c"], [b"a", b"b", b"c"], id="5.3-several-lines"),
        pytest.param([b" ,a,,\t, b,"], [b"a", b"b"], id="5.6.1.2-empty-elements"),
        pytest.param([b""], [], id="nothing"),
        pytest.param([], [], id="no-line"),
        pytest.param([b'a="1,2", b'], [b'a="1,2"', b"b"], id="5.6.4-comma-in-quotes"),
        pytest.param([rb'a="1\",2", b'], [rb'a="1\",2"', b"b"], id="5.6.4-quoted-pair"),
        pytest.param([b'a="1, b', b"c"], [b'a="1', b"b", b"c"], id="a-quote-left-open"),
        pytest.param([b'a="x", b="y, c'], [b'a="x"', b'b="y', b"c"], id="second-quote-left-open"),
    ],
)
def test_list_members(lines: list[bytes], members: list[bytes]) -> None:
    assert list_members(lines) == members


@checked
@given(st.lists(tokens | tokens.map(lambda token: b'"%b, %b"' % (token, token)), max_size=6))
def test_what_is_joined_by_commas_comes_apart_again(members: list[bytes]) -> None:
    assert list_members([b" , ".join(members)]) == members
    assert list_members(members) == members


@checked
@given(field_values, st.sampled_from([b",", b";"]))
def test_splitting_loses_nothing_but_separators_and_whitespace(
    value: bytes, separator: bytes
) -> None:
    def bare(text: bytes) -> bytes:
        return text.translate(None, b" \t" + separator)

    assert b"".join(map(bare, split_unquoted(value, separator))) == bare(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"a!#$%&'*+-.^_`|~9Z", True),
        (b"", False),
        (b"a b", False),
        (b"a\xe9", False),
        (b'"a"', False),
    ],
)
def test_is_token(value: bytes, expected: bool) -> None:
    assert is_token(value) is expected


@pytest.mark.parametrize(
    ("digits", "number"),
    [(b"", 0), (b"0", 0), (b"10", 10), (b"007", 7), (b"0" * 10_000, 0), (b"0" * 10_000 + b"9", 9)],
)
def test_decimal(digits: bytes, number: int) -> None:
    assert decimal(digits) == number


@pytest.mark.parametrize(
    ("value", "content"),
    [
        (b'""', b""),
        (b'"a b"', b"a b"),
        (rb'"a\"b\\c"', rb'a"b\c'),
        (b'"\xe9"', b"\xe9"),
        (b'"a', None),
        (b'a"', None),
        (b'"a"b"', None),
        (b'"a" ', None),
        (b'"\x00"', None),
        (b"'a'", None),
        (b"", None),
    ],
)
def test_unquote(value: bytes, content: bytes | None) -> None:
    assert unquote(value) == content


@checked
@given(field_values)
def test_quoting_is_undone(content: bytes) -> None:
    escaped = content.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    assert unquote(b'"%b"' % escaped) == content
