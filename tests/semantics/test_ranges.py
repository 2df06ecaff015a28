"""RFC 9110 14: ranges out of a complete response."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.ranges import (
    FEW,
    MAX_RANGES,
    OVERHEAD,
    ByteRange,
    Unsatisfiable,
    content_range,
    multipart_fields,
    multipart_ranges,
    parse_ranges,
    partial_fields,
    requested_ranges,
)
from tests.semantics.build import DATE, checked, field_values, fields, lines_of

MODIFIED = "Last-Modified: Mon, 13 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize(
    ("value", "ranges"),
    [
        pytest.param(b"bytes=0-499", [(0, 499)], id="14.1.2-first-500"),
        pytest.param(b"bytes=500-999", [(500, 999)], id="14.1.2-second-500"),
        pytest.param(b"bytes=-500", [(500, 999)], id="14.1.2-last-500"),
        pytest.param(b"bytes=900-", [(900, 999)], id="14.1.2-open"),
        pytest.param(b"bytes=0-0,-1", [(0, 0), (999, 999)], id="14.1.2-first-and-last"),
        pytest.param(b"bytes= 0-9 , 90-99", [(0, 9), (90, 99)], id="14.1.2-whitespace"),
        pytest.param(b"bytes=,0-9,,", [(0, 9)], id="5.6.1.2-empty-members"),
        pytest.param(b"BYTES=0-9", [(0, 9)], id="14.1-unit-in-any-case"),
        pytest.param(b"bytes=0-5000", [(0, 999)], id="14.1.2-beyond-the-end"),
        pytest.param(b"bytes=-5000", [(0, 999)], id="14.1.2-longer-suffix"),
        pytest.param(b"bytes=2000-3000,0-1", [(0, 1)], id="unsatisfiable-ones-are-left-out"),
        pytest.param(b"bytes=90-99,0-9", [(90, 99), (0, 9)], id="15.3.7.2-order-asked-for"),
        pytest.param(b"bytes=0-50,40-99", [(0, 99)], id="15.3.7.2-overlapping"),
        pytest.param(b"bytes=0-9,10-19", [(0, 19)], id="15.3.7.2-touching"),
        pytest.param(b"bytes=50-60,0-9,55-70,5-15", [(50, 70), (0, 15)], id="where-the-first-was"),
        pytest.param(b"bytes=0-9,0-9", [(0, 9)], id="twice"),
    ],
)
def test_satisfiable(value: bytes, ranges: list[tuple[int, int]]) -> None:
    assert parse_ranges(value, 1000) == tuple(ByteRange(*each) for each in ranges)


@pytest.mark.parametrize(
    "value",
    [b"bytes=1000-", b"bytes=1000-1001", b"bytes=-0", b"bytes=2000-, 3000-4000", b"bytes=-0,1000-"],
)
def test_unsatisfiable(value: bytes) -> None:  # RFC 9110 15.5.17
    assert parse_ranges(value, 1000) == Unsatisfiable(b"bytes */1000")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"bytes", id="no-set"),
        pytest.param(b"bytes=", id="empty-set"),
        pytest.param(b"bytes=,", id="only-commas"),
        pytest.param(b"bytes = 0-9", id="space-before-equals"),
        pytest.param(b"lines=0-9", id="14.1-another-unit"),
        pytest.param(b"bytes=9-0", id="14.1.1-last-before-first"),
        pytest.param(b"bytes=0-9,9-0", id="14.1.1-one-invalid-is-all-invalid"),
        pytest.param(b"bytes=a-b", id="no-numbers"),
        pytest.param(b"bytes=0", id="no-dash"),
        pytest.param(b"bytes=-", id="dash-alone"),
        pytest.param(b"bytes=0 - 9", id="spaces-within"),
        pytest.param(b"bytes=0-9;10-19", id="wrong-separator"),
        pytest.param(b"bytes=+0-9", id="sign"),
        pytest.param(b"bytes=--1", id="two-dashes"),
        pytest.param("bytes=\u0661-9".encode(), id="other-digits"),
        pytest.param(b"bytes=0-" + b"9" * 19, id="absurd-number"),
        pytest.param(
            b"bytes=" + b",".join(b"%d-%d" % (n, n) for n in range(0, 40, 2)), id="17.15-too-many"
        ),
        pytest.param(b"", id="empty"),
    ],
)
def test_ignored(value: bytes) -> None:
    assert parse_ranges(value, 1000) is None


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        pytest.param(b"bytes=0-0,2-2,4-4,6-6", 4, id="a-few-are-sent-as-asked"),
        pytest.param(b"bytes=0-0,2-2,4-4,6-6,8-8", 1, id="more-become-one"),
        pytest.param(b"bytes=8-8,6-6,4-4,2-2,0-0", 1, id="in-any-order"),
        pytest.param(b"bytes=0-0,2-2,4-4,6-6,200-200", 2, id="those-that-are-close"),
        pytest.param(b"bytes=0-0,80-80,160-160,240-240,320-320", 1, id="as-far-as-their-lines"),
        pytest.param(b"bytes=0-0,81-81,162-162,243-243,324-324", 5, id="farther"),
        pytest.param(b"bytes=0-0,2-2,4-4,6-6,-1", 2, id="the-end-is-far"),
    ],
)
def test_many_that_are_close_together_become_one(value: bytes, parts: int) -> None:
    ranges = parse_ranges(value, 1000)
    assert isinstance(ranges, tuple)
    assert len(ranges) == parts


def test_as_many_as_are_allowed() -> None:
    value = b"bytes=" + b",".join(b"%d-%d" % (n, n) for n in range(0, 100 * MAX_RANGES, 100))
    ranges = parse_ranges(value, 10_000)
    assert isinstance(ranges, tuple)
    assert len(ranges) == MAX_RANGES


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"bytes=0-", Unsatisfiable(b"bytes */0")), (b"bytes=-5", None), (b"bytes=0-0,-5", None)],
)
def test_nothing_has_no_part(value: bytes, expected: object) -> None:
    assert parse_ranges(value, 0) == expected


bounds = st.integers(0, 60)
specs = st.one_of(
    st.builds("{}-".format, bounds),
    st.builds("-{}".format, bounds),
    st.tuples(bounds, bounds).map(lambda pair: f"{min(pair)}-{max(pair)}"),
)


def wanted(spec: str, length: int) -> set[int]:
    first, _, last = spec.partition("-")
    if not first:
        return set(range(max(0, length - int(last)), length))
    return set(range(int(first), min(int(last or length), length - 1) + 1))


@checked
@given(st.lists(specs, min_size=1, max_size=6), st.integers(1, 50))
def test_just_the_bytes_asked_for_and_each_once(asked: list[str], length: int) -> None:
    ranges = parse_ranges(f"bytes={','.join(asked)}".encode(), length)
    expected = set().union(*(wanted(spec, length) for spec in asked))
    if isinstance(ranges, Unsatisfiable):
        assert not expected
        return
    assert ranges is not None
    got = [at for each in ranges for at in range(each.first, each.last + 1)]
    assert len(got) == len(set(got)) == sum(each.size for each in ranges)
    # More than a few that lie apart have what is between them sent, too.
    apart = [at for at in expected if at - 1 not in expected]
    assert set(got) == (
        set(range(min(expected), max(expected) + 1)) if len(apart) > FEW else expected
    )


@checked
@given(st.lists(st.tuples(st.integers(0, 900), st.integers(1, 40)), min_size=FEW, max_size=16))
def test_what_lies_between_many_is_sent_where_it_is_short(asked: list[tuple[int, int]]) -> None:
    value = ",".join(f"{first}-{first + size - 1}" for first, size in asked)
    ranges = parse_ranges(f"bytes={value}".encode(), 1000)
    assert isinstance(ranges, tuple)
    got = [at for each in ranges for at in range(each.first, each.last + 1)]
    assert len(got) == len(set(got))
    expected = {at for first, size in asked for at in range(first, first + size)}
    assert expected <= set(got)
    ordered = sorted(expected)
    between = {
        at
        for before, after in itertools.pairwise(ordered)
        if after - before <= OVERHEAD
        for at in range(before, after)
    }
    assert set(got) - expected <= between


@checked
@given(field_values.map(lambda value: b"bytes=" + value), st.integers(0, 100))
def test_any_bytes_are_read(value: bytes, length: int) -> None:
    ranges = parse_ranges(value, length)
    if isinstance(ranges, tuple):
        assert all(0 <= each.first <= each.last < length for each in ranges)


RANGE = "Range: bytes=0-4"
PART = (ByteRange(0, 4),)


@pytest.mark.parametrize(
    ("request_lines", "stored", "expected"),
    [
        pytest.param([RANGE], [], PART, id="14.2"),
        pytest.param([], [], None, id="no-Range"),
        pytest.param([RANGE, RANGE], [], None, id="14.2-twice"),
        pytest.param([RANGE, 'If-Range: "1"'], ['ETag: "1"'], PART, id="13.1.5"),
        pytest.param([RANGE, 'If-Range: "2"'], ['ETag: "1"'], None, id="13.1.5-another"),
        pytest.param([RANGE, 'If-Range: W/"1"'], ['ETag: W/"1"'], None, id="13.1.5-weak"),
        pytest.param([RANGE, 'If-Range: "1"'], ['ETag: W/"1"'], None, id="13.1.5-weakly-stored"),
        pytest.param([RANGE, 'If-Range: "1"'], [], None, id="13.1.5-no-stored-tag"),
        pytest.param(
            [RANGE, "If-Range: Mon, 13 Nov 2023 22:13:20 GMT"], [MODIFIED, DATE], PART, id="date"
        ),
        pytest.param(
            [RANGE, "If-Range: Mon, 13 Nov 2023 22:13:20 GMT"], [MODIFIED], None, id="weak-date"
        ),
        pytest.param(
            [RANGE, "If-Range: Tue, 14 Nov 2023 22:13:20 GMT"], [MODIFIED, DATE], None, id="later"
        ),
        pytest.param(
            [RANGE, "If-Range: Monday, 13-Nov-23 22:13:20 GMT"], [MODIFIED, DATE], None,
            id="13.1.5-exact-match-alone",
        ),
        pytest.param([RANGE, 'If-Range: "1", "2"'], ['ETag: "1"'], None, id="a-list"),
        pytest.param([RANGE, "If-Range: x"], ['ETag: "1"'], None, id="neither-tag-nor-date"),
        pytest.param([RANGE, "If-Range:"], [], None, id="empty"),
        pytest.param(['If-Range: "1"'], ['ETag: "1"'], None, id="13.1.5-without-Range"),
        pytest.param(
            ["Range: bytes=99-"], [], Unsatisfiable(b"bytes */10"), id="15.5.17-unsatisfiable"
        ),
        pytest.param(
            ["Range: bytes=99-", 'If-Range: "2"'], ['ETag: "1"'], None, id="If-Range-comes-first"
        ),
    ],
)  # fmt: skip
def test_requested_ranges(request_lines: list[str], stored: list[str], expected: object) -> None:
    assert requested_ranges(fields(*request_lines), 200, fields(*stored), 10) == expected


@pytest.mark.parametrize("status", [203, 206, 301, 404])
def test_only_a_200_has_parts(status: int) -> None:  # RFC 9110 14.2
    assert requested_ranges(fields(RANGE), status, fields(), 10) is None


def test_content_range() -> None:  # RFC 9110 14.4
    assert content_range(42, 1233, 1234) == b"bytes 42-1233/1234"


STORED = [
    DATE, "Content-Type: text/plain", "Content-Length: 10", 'ETag: "1"', "Content-Language: de",
]  # fmt: skip


def test_the_fields_of_one_part() -> None:  # RFC 9110 15.3.7.1
    found = partial_fields(fields(RANGE), fields(*STORED), PART[0], 10)
    assert lines_of(found) == [
        DATE, "Content-Type: text/plain", 'ETag: "1"', "Content-Language: de",
        "Content-Range: bytes 0-4/10",
    ]  # fmt: skip


def test_a_client_that_has_the_rest_is_not_told_again() -> None:  # RFC 9110 15.3.7
    found = partial_fields(fields(RANGE, 'If-Range: "1"'), fields(*STORED), PART[0], 10)
    assert lines_of(found) == [DATE, 'ETag: "1"', "Content-Range: bytes 0-4/10"]


def test_several_parts() -> None:  # RFC 9110 15.3.7.2, RFC 2046 5.1
    ranges = (ByteRange(0, 1), ByteRange(8, 9))
    multipart = multipart_ranges(fields(*STORED), ranges, 10, b"XX")
    body = b"".join(
        head + b"0123456789"[part.first : part.last + 1] for head, part in multipart.parts
    )
    assert body + multipart.tail == (
        b"\r\n--XX\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01"
        b"\r\n--XX\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89"
        b"\r\n--XX--\r\n"
    )
    assert multipart.content_length == len(body + multipart.tail)
    assert lines_of(multipart_fields(fields(RANGE), fields(*STORED), multipart)) == [
        DATE, 'ETag: "1"', "Content-Language: de",
        "Content-Type: multipart/byteranges; boundary=XX",
    ]  # fmt: skip


def test_parts_of_what_has_no_type_have_none() -> None:
    multipart = multipart_ranges(fields(), PART, 10, b"XX")
    assert multipart.parts[0][0] == b"\r\n--XX\r\nContent-Range: bytes 0-4/10\r\n\r\n"
