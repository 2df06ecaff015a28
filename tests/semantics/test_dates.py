"""RFC 9110 5.6.7: three forms of a date, and no other."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.dates import format_http_date, parse_http_date
from tests.semantics.build import NOW, checked, field_values

EXAMPLE = 784_111_777  # RFC 9110's own: Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"Sun, 06 Nov 1994 08:49:37 GMT", id="IMF-fixdate"),
        pytest.param(b"Sunday, 06-Nov-94 08:49:37 GMT", id="rfc850-date"),
        pytest.param(b"Sun Nov  6 08:49:37 1994", id="asctime-date"),
        pytest.param(b"Sun Nov 06 08:49:37 1994", id="asctime-date-two-digits"),
        pytest.param(b"sun, 06 nov 1994 08:49:37 gmt", id="9111-4.2-any-case"),
        pytest.param(b"Mon, 06 Nov 1994 08:49:37 GMT", id="wrong-day-name"),
    ],
)
def test_the_three_forms(value: bytes) -> None:
    assert parse_http_date(value) == EXAMPLE


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"0",
        b"784111777",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49:37 UTC",
        b"Sun, 06 Nov 1994 08:49:37 EST",
        b"Sun, 06 Nov 1994 08:49:37 +0000",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 94 08:49:37 GMT",
        b"Sun, 06 Nov 1994 8:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49 GMT",
        b"Sun, 06 Nov 1994 08.49.37 GMT",
        b"Sun, 06-Nov-1994 08:49:37 GMT",
        b"Sun 06 Nov 1994 08:49:37 GMT",
        b"06 Nov 1994 08:49:37 GMT",
        b"Sun,  06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT ",
        b"Sun, 06 November 1994 08:49:37 GMT",
        b"Sun, 06-Nov-94 08:49:37 GMT",
        b"Sunday, 06-Nov-1994 08:49:37 GMT",
        b"Sun Nov 6 08:49:37 1994",
        b"Sun Nov  6 08:49:37 1994 GMT",
        b"Sun, 31 Nov 1994 08:49:37 GMT",
        b"Sun, 29 Feb 1995 08:49:37 GMT",
        b"Sun, 00 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 24:00:00 GMT",
        b"Sun, 06 Nov 1994 08:60:00 GMT",
        b"Sun, 06 Nov 1994 08:49:61 GMT",
        b"Sun, 06 Nov 0000 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:3\u0667 GMT".encode(),
    ],
)
def test_everything_else_is_invalid(value: bytes) -> None:
    assert parse_http_date(value) is None


def test_a_leap_second_is_the_second_after() -> None:
    assert parse_http_date(b"Sat, 31 Dec 2016 23:59:60 GMT") == parse_http_date(
        b"Sun, 01 Jan 2017 00:00:00 GMT"
    )


@pytest.mark.parametrize(
    ("value", "year"),
    [
        (b"Monday, 06-Nov-23 08:49:37 GMT", 2023),
        (b"Monday, 06-Nov-72 08:49:37 GMT", 2072),
        # NOW is in November 2023: less and more than 50 years ahead.
        (b"Monday, 14-Nov-73 22:13:20 GMT", 2073),
        (b"Monday, 14-Nov-73 22:13:21 GMT", 1973),
        (b"Monday, 06-Nov-74 08:49:37 GMT", 1974),
        (b"Monday, 06-Nov-99 08:49:37 GMT", 1999),
    ],
)
def test_two_digits_of_a_year_are_at_most_50_years_ahead(value: bytes, year: int) -> None:
    seconds = parse_http_date(value, NOW)
    assert seconds is not None
    assert datetime.fromtimestamp(seconds, UTC).year == year


def test_format_is_imf_fixdate_and_rounds_down() -> None:
    assert format_http_date(EXAMPLE + 0.9) == b"Sun, 06 Nov 1994 08:49:37 GMT"
    assert format_http_date(-0.5) == b"Wed, 31 Dec 1969 23:59:59 GMT"


@checked
@given(st.integers(-62_135_596_800, 253_402_300_799))
def test_what_is_formatted_is_parsed(seconds: int) -> None:
    assert parse_http_date(format_http_date(seconds)) == seconds


@checked
@given(field_values)
def test_parsing_never_raises(value: bytes) -> None:
    parse_http_date(value)
