"""Rates: so many calls in so much time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeproxy.config.sizes import format_duration, parse_duration, shown, text_of

_FORMS = 'calls and a time, such as "100/60s"'
_RATE = re.compile(r"(\d{1,7})\s*/\s*(\S+)")
_LONGEST = 86_400.0


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `calls` within `seconds` of the first of them."""

    calls: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.calls}/{format_duration(self.seconds)}"


def parse_rate(value: object) -> Rate:
    """A rate. Raises ValueError, with what would be right."""
    if isinstance(value, Rate):
        return value
    match = _RATE.fullmatch(text_of(value, _FORMS))
    if not match:
        raise ValueError(f"{shown(value)} is not a rate; give {_FORMS}")
    rate = Rate(int(match[1]), parse_duration(match[2]))
    if rate.calls < 1 or not 0 < rate.seconds <= _LONGEST:
        raise ValueError(f"{shown(value)}: at least one call, in more than 0s and at most 1d")
    return rate
