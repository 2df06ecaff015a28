"""RFC 9111 3.3, 3.4 and RFC 9110 15.3.7.3: incomplete responses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.partial import (
    MAX_PARTS,
    Parts,
    combine,
    combined_fields,
    completing_fields,
    cut_out,
    extending_fields,
    first_position,
    passed_positions,
    passed_range,
    received_part,
    same_representation,
    satisfied_ranges,
    stated_parts,
    strong_validator,
)
from edgeproxy.semantics.ranges import ByteRange
from tests.semantics.build import DATE, checked, fields, lines_of

STRONG = 'ETag: "a"'
WEAK = 'ETag: W/"a"'
MODIFIED = "Last-Modified: Mon, 13 Nov 2023 22:13:20 GMT"


def parts(*bounds: tuple[int, int], length: int | None = 1000) -> Parts:
    return Parts(tuple(ByteRange(*each) for each in bounds), length)


def pairs(*lines: str) -> tuple[tuple[bytes, bytes], ...]:
    return fields(*lines).raw


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(["bytes 0-99/1000"], parts((0, 99)), id="14.4"),
        pytest.param(["BYTES 0-99/1000"], parts((0, 99)), id="14.1-unit-in-any-case"),
        pytest.param(["bytes 42-1233/*"], parts((42, 1233), length=None), id="14.4-length-unknown"),
        pytest.param(["bytes 999-999/1000"], parts((999, 999)), id="the-last-byte"),
        pytest.param(["bytes 0-9/1000", "bytes 20-29/1000"], parts((0, 9), (20, 29)), id="stored"),
        pytest.param([], None, id="none"),
        pytest.param(["bytes */1000"], None, id="15.5.17"),
        pytest.param(["bytes 99-0/1000"], None, id="14.4-last-before-first"),
        pytest.param(["bytes 0-1000/1000"], None, id="14.4-beyond-the-length"),
        pytest.param(["bytes=0-99/1000"], None, id="not-a-range-field"),
        pytest.param(["pages 0-99/1000"], None, id="another-unit"),
        pytest.param(["bytes 0-99"], None, id="no-length"),
        pytest.param(["bytes -99/1000"], None, id="no-first"),
        pytest.param(["bytes 0-9/1000", "bytes 20-29/2000"], None, id="of-two-lengths"),
        pytest.param(["bytes 20-29/1000", "bytes 0-9/1000"], None, id="out-of-order"),
        pytest.param(["bytes 0-9/1000", "bytes 5-19/1000"], None, id="overlapping"),
    ],
)
def test_what_content_range_states(lines: list[str], expected: Parts | None) -> None:
    stated = stated_parts(fields(*(f"Content-Range: {line}" for line in lines)))
    assert stated == expected
    if expected is not None:
        assert stated_parts(Fields(expected.content_ranges)) == expected


def test_multipart_content_is_no_range() -> None:
    """RFC 9110 15.3.7.2."""
    several = fields(
        "Content-Type: multipart/byteranges; boundary=x", "Content-Range: bytes 0-9/10"
    )
    assert stated_parts(several) is None


@pytest.mark.parametrize(
    ("stated", "size", "cut", "expected"),
    [
        pytest.param(parts((10, 19)), 10, False, parts((10, 19)), id="as-stated"),
        pytest.param(parts((10, 19)), 10, True, parts((10, 19)), id="cut-behind-the-last-byte"),
        pytest.param(parts((10, 19)), 4, True, parts((10, 13)), id="RFC9111-3.3-cut-short"),
        pytest.param(parts((10, 19)), 0, True, None, id="nothing"),
        pytest.param(parts((10, 19)), 4, False, None, id="whole-but-too-short"),
        pytest.param(parts((10, 19)), 11, False, None, id="too-long"),
        pytest.param(parts((10, 19)), 11, True, None, id="too-long-and-cut"),
        pytest.param(parts((10, 19)), 9, False, None, id="a-byte-short-in-the-middle"),
        pytest.param(parts((4, 9), length=10), 5, False, None, id="a-byte-short-at-the-end"),
        pytest.param(parts((4, 9), length=10), 5, True, parts((4, 8), length=10), id="really-cut"),
        pytest.param(parts((0, 1), (5, 6)), 4, False, None, id="several"),
    ],
)
def test_what_came(stated: Parts, size: int, cut: bool, expected: Parts | None) -> None:
    assert received_part(stated, size, cut=cut) == expected


@pytest.mark.parametrize(
    ("lines", "passed"),
    [
        (["Range: bytes=0-99"], b"bytes=0-99"),
        (["Range: bytes=100-"], b"bytes=100-"),
        (["Range: bytes=-5"], b"bytes=-5"),
        (["Range: bytes=0-"], None),
        (["Range: bytes=0-1,5-6"], None),
        (["Range: bytes=5-1"], None),
        (["Range: bytes=-0"], None),
        (["Range: pages=1-2"], None),
        (["Range: bytes=0-1", "Range: bytes=5-6"], None),
        ([], None),
    ],
    ids=str,
)
def test_ranges_that_are_sent_on(lines: list[str], passed: bytes | None) -> None:
    assert passed_range(fields(*lines)) == passed


@pytest.mark.parametrize(
    ("passed", "first"),
    [(b"bytes=0-99", 0), (b"BYTES=100-", 100), (b"bytes=-5", None), (b"bytes= -5", None)],
)
def test_where_a_range_begins(passed: bytes, first: int | None) -> None:
    assert first_position(passed) == first


@pytest.mark.parametrize(
    ("asked", "there", "expected"),
    [
        pytest.param("bytes=10-19", parts((10, 19)), [(10, 19)], id="all-of-it"),
        pytest.param("bytes=12-13", parts((10, 19)), [(12, 13)], id="3.3-wholly-within"),
        pytest.param("bytes=9-13", parts((10, 19)), None, id="begins-before"),
        pytest.param("bytes=12-20", parts((10, 19)), None, id="ends-behind"),
        pytest.param("bytes=5-6,12-13", parts((0, 9), (12, 19)), [(5, 6), (12, 13)], id="several"),
        pytest.param("bytes=5-13", parts((0, 9), (12, 19)), None, id="over-a-gap"),
        pytest.param("bytes=-5", parts((990, 999)), [(995, 999)], id="suffix"),
        pytest.param("bytes=-50", parts((990, 999)), None, id="longer-suffix"),
        pytest.param("bytes=992-", parts((990, 999)), [(992, 999)], id="open"),
        pytest.param("bytes=5-5000", parts((5, 999)), [(5, 999)], id="14.1.2-beyond-the-end"),
        pytest.param("bytes=5-", parts((0, 99)), None, id="open-and-cut"),
        pytest.param("bytes=2000-", parts((0, 99)), None, id="unsatisfiable"),
        pytest.param("pages=1", parts((0, 99)), None, id="another-unit"),
        pytest.param("bytes=5-6", parts((0, 9), length=None), [(5, 6)], id="length-unknown"),
        pytest.param("bytes=5-", parts((0, 9), length=None), None, id="length-unknown-open"),
        pytest.param("bytes=-5", parts((0, 9), length=None), None, id="length-unknown-suffix"),
        pytest.param("bytes=5-10", parts((0, 9), length=None), None, id="length-unknown-behind"),
    ],
)
def test_what_is_answered(asked: str, there: Parts, expected: list[tuple[int, int]] | None) -> None:
    found = satisfied_ranges(fields(f"Range: {asked}"), fields(STRONG), there)
    assert found == (None if expected is None else tuple(ByteRange(*each) for each in expected))


def test_nothing_but_ranges_is_answered() -> None:
    """RFC 9111 3.3."""
    assert satisfied_ranges(fields(), fields(STRONG), parts((0, 99))) is None


@pytest.mark.parametrize(
    ("condition", "stored", "holds"),
    [
        ('"a"', STRONG, True),
        ('"b"', STRONG, False),
        ('W/"a"', STRONG, False),
        ('"a"', WEAK, False),
        ('W/"a"', WEAK, False),
    ],
)
def test_if_range_takes_strong_validators_alone(condition: str, stored: str, holds: bool) -> None:
    """RFC 9110 13.1.5."""
    asked = fields("Range: bytes=0-4", f"If-Range: {condition}")
    assert (satisfied_ranges(asked, fields(stored), parts((0, 9))) is not None) is holds


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param([STRONG], [STRONG], True, id="strong"),
        pytest.param([STRONG], ['ETag: "b"'], False, id="other"),
        pytest.param([WEAK], [WEAK], False, id="weak"),
        pytest.param([STRONG], [WEAK], False, id="one-weak"),
        pytest.param([], [], False, id="none"),
        pytest.param([MODIFIED, DATE], [MODIFIED, DATE], True, id="8.8.2.2-date"),
        pytest.param([MODIFIED], [MODIFIED], False, id="8.8.2.2-no-date"),
        pytest.param([STRONG, MODIFIED, DATE], [MODIFIED, DATE], False, id="tag-on-one-side"),
        pytest.param([STRONG], [STRONG, "Content-Encoding: gzip"], False, id="another-coding"),
        pytest.param([STRONG, "Content-Encoding: gzip"], [STRONG], True, id="coding-not-repeated"),
    ],
)
def test_what_may_be_combined(one: list[str], other: list[str], same: bool) -> None:
    assert same_representation(fields(*one), fields(*other)) is same


@pytest.mark.parametrize(
    ("stored", "there", "expected"),
    [
        pytest.param([STRONG], parts((0, 99)), ["Range: bytes=100-", 'If-Range: "a"'], id="head"),
        pytest.param(
            [MODIFIED, DATE], parts((0, 99)),
            ["Range: bytes=100-", "If-Range: Mon, 13 Nov 2023 22:13:20 GMT"], id="13.1.5-date",
        ),
        pytest.param(
            [STRONG], parts((500, 999)), ["Range: bytes=0-499", 'If-Range: "a"'], id="tail"
        ),
        pytest.param(
            [STRONG], parts((0, 99), (900, 999)), ["Range: bytes=100-899", 'If-Range: "a"'],
            id="both-ends",
        ),
        pytest.param(
            [STRONG], parts((0, 99), (300, 399)), ["Range: bytes=100-", 'If-Range: "a"'], id="gaps"
        ),
        pytest.param(
            [STRONG], parts((0, 9), length=None), ["Range: bytes=10-", 'If-Range: "a"'],
            id="length-unknown",
        ),
        pytest.param([STRONG], parts((100, 199)), [], id="middle"),
        pytest.param([WEAK], parts((0, 99)), [], id="weak"),
        pytest.param([MODIFIED], parts((0, 99)), [], id="weak-date"),
        pytest.param([], parts((0, 99)), [], id="15.3.7.3-no-validator"),
    ],
)  # fmt: skip
def test_the_rest_is_asked_for(stored: list[str], there: Parts, expected: list[str]) -> None:
    assert completing_fields(fields(*stored), there) == pairs(*expected)


def test_the_new_response_s_fields_prevail() -> None:
    """RFC 9111 3.4, 3.2."""
    stored = fields(STRONG, "A: 1", "B: 1", "Age: 5", "Content-Range: bytes 0-9/20")
    new = fields(STRONG, "A: 2", DATE, "Content-Range: bytes 10-19/20", "Content-Length: 10")
    assert set(lines_of(combined_fields(stored, new))) == {STRONG, "A: 2", "B: 1", DATE}


@pytest.mark.parametrize(
    ("stored", "new"),
    [
        pytest.param(parts((0, 9)), parts((10, 19), length=2000), id="lengths-differ"),
        pytest.param(parts((0, 9), length=None), parts((4, 7), length=8), id="beyond-the-length"),
        pytest.param(parts((0, 9), length=10), parts((10, 19), length=None), id="behind-the-end"),
        pytest.param(
            parts(*((n * 10, n * 10) for n in range(MAX_PARTS))), parts((999, 999)), id="too-many"
        ),
    ],
)
def test_what_does_not_fit_together(stored: Parts, new: Parts) -> None:
    assert combine(stored, new) is None


def content(original: bytes, there: Parts) -> bytes:
    return b"".join(original[each.first : each.last + 1] for each in there.ranges)


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[bytes, list[Parts]]:
    """A representation, and some of its ranges in any order."""
    original = draw(st.binary(min_size=1, max_size=60))
    bounds = st.tuples(
        st.integers(0, len(original) - 1), st.integers(0, len(original) - 1), st.booleans()
    )
    return original, [
        parts((min(one, other), max(one, other)), length=len(original) if known else None)
        for one, other, known in draw(st.lists(bounds, min_size=1, max_size=8))
    ]


@checked
@given(arrivals())
def test_combining_ranges_yields_the_original_bytes(drawn: tuple[bytes, list[Parts]]) -> None:
    original, (there, *others) = drawn
    body, received = content(original, there), {*range(*bounds(there))}
    for new in others:
        added = content(original, new)
        both = combine(there, new)
        assert both is not None
        there, pieces = both
        body = b"".join((added if p.new else body)[p.start : p.stop] for p in pieces)
        received |= {*range(*bounds(new))}
        assert body == content(original, there)
        assert {p for each in there.ranges for p in range(each.first, each.last + 1)} == received
        assert stated_parts(Fields(there.content_ranges)) == there
        for position in received:
            assert body[there.offset(position)] == original[position]
    assert there.whole == (there.length is not None and body == original)


@checked
@given(arrivals())
def test_the_rest_makes_it_whole(drawn: tuple[bytes, list[Parts]]) -> None:
    original, (there, *others) = drawn
    for new in others:
        both = combine(there, new)
        assert both is not None
        there = both[0]
    body = content(original, there)
    missing = there.missing()
    if there.size == len(original):
        return
    if missing is None:
        assert there.ranges[0].first > 0
        assert there.length is None or there.ranges[-1].last < len(original) - 1
        return
    first, last = missing
    rest = parts((first, len(original) - 1 if last is None else last), length=len(original))
    both = combine(there, rest)
    assert both is not None
    added = content(original, rest)
    assert both[0].whole
    assert original == b"".join((added if p.new else body)[p.start : p.stop] for p in both[1])


@checked
@given(arrivals(), st.integers(0, 59), st.integers(0, 59))
def test_what_is_missing_of_a_range_makes_that_whole(
    drawn: tuple[bytes, list[Parts]], one: int, other: int
) -> None:
    original, (there, *others) = drawn
    for new in others:
        both = combine(there, new)
        assert both is not None
        there = both[0]
    last = len(original) - 1
    wanted = ByteRange(min(one, other, last), min(max(one, other), last))
    missing = there.missing_of(wanted)
    assert (missing is None) == there.has(wanted)
    if missing is None:
        return
    assert wanted.first <= missing.first <= missing.last <= wanted.last
    rest = parts((missing.first, missing.last), length=len(original))
    both = combine(there, rest)
    assert both is not None
    pieces = cut_out(*both, wanted)
    assert pieces is not None
    body, added = content(original, there), content(original, rest)
    cut = b"".join((added if p.new else body)[p.start : p.stop] for p in pieces)
    assert cut == original[wanted.first : wanted.last + 1]


@pytest.mark.parametrize(
    ("new", "wanted"),
    [
        pytest.param((20, 29), (5, 14), id="not all of it is there"),
        pytest.param((10, 29), (5, 14), id="more came than is wanted"),
    ],
)
def test_what_can_not_be_cut_out(new: tuple[int, int], wanted: tuple[int, int]) -> None:
    both = combine(parts((0, 9)), parts(new))
    assert both is not None
    assert cut_out(*both, ByteRange(*wanted)) is None


@pytest.mark.parametrize(
    ("stored", "there", "wanted", "expected"),
    [
        ([STRONG], parts((0, 9)), (5, 14), ["Range: bytes=10-14", 'If-Range: "a"']),
        pytest.param([STRONG], parts((0, 9)), (20, 29), [], id="all is missing"),
        pytest.param([STRONG], parts((0, 9)), (5, 9), [], id="nothing is missing"),
        pytest.param([WEAK], parts((0, 9)), (5, 14), [], id="no strong validator"),
    ],
)
def test_the_rest_of_a_range_is_asked_for(
    stored: list[str], there: Parts, wanted: tuple[int, int], expected: list[str]
) -> None:
    assert extending_fields(fields(*stored), there, ByteRange(*wanted)) == pairs(*expected)


@pytest.mark.parametrize(
    ("passed", "length", "expected"),
    [
        (b"bytes=5-9", 100, ByteRange(5, 9)),
        (b"bytes=5-9", None, ByteRange(5, 9)),
        (b"bytes=5-", 100, ByteRange(5, 99)),
        (b"bytes=-5", 100, ByteRange(95, 99)),
        pytest.param(b"bytes=5-", None, None, id="no-length"),
        pytest.param(b"bytes=-5", None, None, id="no-length-for-a-suffix"),
        pytest.param(b"bytes=100-", 100, None, id="unsatisfiable"),
    ],
)
def test_which_bytes_a_range_asks_for(
    passed: bytes, length: int | None, expected: ByteRange | None
) -> None:
    assert passed_positions(passed, length) == expected


def bounds(there: Parts) -> tuple[int, int]:
    (only,) = there.ranges
    return only.first, only.last + 1


def test_a_position_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="byte 5"):
        parts((0, 4)).offset(5)


def test_the_validator_for_if_range() -> None:
    assert strong_validator(fields(STRONG, MODIFIED)) == b'"a"'
    assert strong_validator(fields(WEAK, MODIFIED, DATE)) is None
