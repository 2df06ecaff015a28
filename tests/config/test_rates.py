"""Rates as a configuration writes them."""

from __future__ import annotations

import pytest

from edgeproxy.config.rates import Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/60s", Rate(100, 60.0)),
        (" 5 / 1h30m ", Rate(5, 5400.0)),
        ("1/500ms", Rate(1, 0.5)),
        ("10/1d", Rate(10, 86400.0)),
    ],
)
def test_a_rate(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate
    assert parse_rate(str(rate)) == rate


@pytest.mark.parametrize("value", ["", "100", "100/", "/60s", "0/60s", "5/0s", "5/2d", "-1/1s", 7])
def test_what_is_none(value: object) -> None:
    with pytest.raises(ValueError, match=r"rate|call|duration"):
        parse_rate(value)
