"""HTTP-date (RFC 9110 5.6.7): its three forms and no other."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

_MONTHS: Final = (
    b"jan", b"feb", b"mar", b"apr", b"may", b"jun",
    b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
)  # fmt: skip
_MONTH_NUMBER: Final = {name: number for number, name in enumerate(_MONTHS, 1)}
_DAY: Final = rb"(?:mon|tue|wed|thu|fri|sat|sun)"
_DAY_L: Final = rb"(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_MONTH: Final = rb"(?P<month>" + b"|".join(_MONTHS) + rb")"
_TIME: Final = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DAY_2: Final = rb"(?P<day>[0-9]{2})"
_YEAR_4: Final = rb"(?P<year>[0-9]{4})"

# RFC 9111 4.2: case-sensitive by the grammar, but a cache SHOULD match them case-insensitively.
_FORMS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # IMF-fixdate:  Sun, 06 Nov 1994 08:49:37 GMT
        _DAY + rb", " + _DAY_2 + rb" " + _MONTH + rb" " + _YEAR_4 + rb" " + _TIME + rb" GMT",
        # rfc850-date:  Sunday, 06-Nov-94 08:49:37 GMT
        _DAY_L + rb", " + _DAY_2 + rb"-" + _MONTH + rb"-(?P<year>[0-9]{2}) " + _TIME + rb" GMT",
        # asctime-date: Sun Nov  6 08:49:37 1994
        _DAY + rb" " + _MONTH + rb" (?P<day>[0-9]{2}| [0-9]) " + _TIME + rb" " + _YEAR_4,
    )
)

_DAY_NAMES: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTH_NAMES: Final = tuple(name.decode().capitalize() for name in _MONTHS)

_FIXDATE: Final = len(b"Sun, 06 Nov 1994 08:49:37 GMT")
"""Bytes; of the other two forms the one has 24, and the one with a two-digit year 30 to 33."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_2026: Final = 1_767_225_600.0


def parse_http_date(value: bytes, now: float = _YEAR_2026) -> int | None:
    """Seconds since the epoch, or None if `value` is not exactly an HTTP-date.

    `now` (seconds since the epoch) tells the century of the one form with a two-digit year: what
    appears to be more than 50 years in the future is past. A precise one matters only for dates
    about 50 years away from it.

    The name of the day is not held against the date: it is redundant, and origins that write dates
    by hand get it wrong. A zone other than GMT is invalid (RFC 9111 4.2).
    """
    # The usual form has no century to be told: what was read of one is good for ever.
    return _read_fixdate(value) if len(value) == _FIXDATE else _read(value, now)


@lru_cache(maxsize=1024)
def _read_fixdate(value: bytes) -> int | None:
    return _read(value, _YEAR_2026)


def _read(value: bytes, now: float) -> int | None:
    for form in _FORMS:
        match = form.fullmatch(value)
        if match is not None:
            break
    else:
        return None
    year, month = int(match["year"]), _MONTH_NUMBER[match["month"].lower()]
    day, hour, minute, second = (int(match[part]) for part in ("day", "hour", "minute", "second"))
    if second > 60:
        return None
    leap = second == 60  # RFC 9110 5.6.7 allows for leap seconds, the epoch's clock has none
    try:
        if len(match["year"]) == 2:
            year = _full_year(year, (month, day, hour, minute, second), now)
        when = datetime(year, month, day, hour, minute, second - leap, tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    since = when - _EPOCH
    return since.days * 86400 + since.seconds + leap


def _full_year(two_digits: int, rest: tuple[int, ...], now: float) -> int:
    # RFC 9110 5.6.7: the latest year of these digits that is not more than 50 years ahead.
    today = datetime.fromtimestamp(now, UTC)
    limit = today.year + 50
    year = limit - (limit - two_digits) % 100
    moment = (today.month, today.day, today.hour, today.minute, today.second)
    return year - 100 if year == limit and rest > moment else year


def format_http_date(when: float) -> bytes:
    """`when` (seconds since the epoch, rounded down) as an IMF-fixdate.

    Raises OverflowError or ValueError outside the years 1 to 9999.
    """
    return _fixdate(when // 1)


@lru_cache(maxsize=64)
def _fixdate(second: float) -> bytes:
    at = datetime.fromtimestamp(second, UTC)
    return (
        f"{_DAY_NAMES[at.weekday()]}, {at.day:02} {_MONTH_NAMES[at.month - 1]} {at.year:04}"
        f" {at.hour:02}:{at.minute:02}:{at.second:02} GMT"
    ).encode()
