"""Sizes and durations, as people write them and back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config.sizes import (
    MAX_DURATION,
    MAX_SIZE,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    shown,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1500, 1500),
        ("1500B", 1500),
        ("1KB", 1000),
        ("1 kib", 1024),
        ("64MiB", 64 * 2**20),
        ("1.5GB", 1_500_000_000),
        ("0.5KiB", 512),
        (" 2TiB ", 2 * 2**40),
        (0, 0),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("64", '"64" is not a size; give bytes as a number, or a string such as "512KB"'),
        ("64M", '"64M" is not a size'),
        ("", '"" is not a size'),
        ("-1MB", '"-1MB" is not a size'),
        ("1e3MB", "is not a size"),
        (1.5, "1.5 is not a size"),
        (True, "true is not a size"),
        ([1], "an array is not a size"),
        (-1, "-1 is negative"),
        ("1.5B", "not a whole number of bytes"),
        ("2000TiB", "is too large; at most 1024TiB"),
        ("x" * 100, f'"{"x" * 57}..." is not a size'),
    ],
)
def test_what_is_no_size(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_size(value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (30, 30.0),
        (0.25, 0.25),
        (0, 0.0),
        ("10s", 10.0),
        ("500ms", 0.5),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("1.5h", 5400.0),
        ("1w2d3h4m5s6ms", 604_800 + 2 * 86_400 + 3 * 3_600 + 4 * 60 + 5.006),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10", '"10" is not a duration; give seconds as a number, or a string such as "10s"'),
        ("", '"" is not a duration'),
        ("10 years", "is not a duration"),
        ("10S", "is not a duration"),
        ("5m1h", "is not a duration"),
        ("1m1m", "is not a duration"),
        ("1h30", "is not a duration"),
        (True, "true is not a duration"),
        (None, "nothing is not a duration"),
        (-1, "-1 is negative"),
        (float("inf"), "is too long; at most 3650d"),
        (float("nan"), "is too long; at most 3650d"),
        ("11000d", "is too long; at most 3650d"),
    ],
)
def test_what_is_no_duration(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_duration(value)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1, "1B"), (1500, "1500B"), (2000, "2KB"), (2048, "2KiB"), (2**30, "1GiB")],
)
def test_a_size_is_shown_in_its_largest_whole_unit(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.5, "500ms"), (60, "1m"), (75, "1m15s"), (5400, "1h30m"), (86_400, "1d")],
)
def test_a_duration_is_shown_in_parts(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=MAX_SIZE))
def test_a_shown_size_is_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(min_value=0, max_value=int(MAX_DURATION) * 1000))
def test_a_shown_duration_is_read_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans())
def test_anything_is_read_or_refused_with_a_message(value: object) -> None:
    for parse in (parse_size, parse_duration):
        try:
            assert parse(value) >= 0
        except ValueError as error:
            assert shown(value) in str(error)
