"""Sizes ("64MB", "1GiB") and durations ("1h30m") as people write them, and back."""

from __future__ import annotations

import re
from decimal import Decimal

_SIZE_FORMS = 'bytes as a number, or a string such as "512KB", "64MiB", "1GB"'
_DURATION_FORMS = 'seconds as a number, or a string such as "10s", "5m", "1h30m", "1d"'

_SIZE_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE_NAMES = ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "KB")

_DURATION_UNITS = {
    "w": Decimal(604_800),
    "d": Decimal(86_400),
    "h": Decimal(3_600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}

_NUMBER = r"[0-9]{1,16}(?:\.[0-9]{1,9})?"
_SIZE = re.compile(rf"({_NUMBER}) ?([A-Za-z]+)")
_DURATION_PART = re.compile(rf"({_NUMBER}) ?([a-z]+) ?")

MAX_SIZE = 2**50
MAX_DURATION = 3650 * 86_400.0
"""Ten years: beyond it a slip is likelier than a wish, and sums of times stay exact."""


def parse_size(value: object) -> int:
    """A number of bytes. Raises ValueError, with what would be right."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = Decimal(value)
    else:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        unit = _SIZE_UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(f"{shown(value)} is not a size; give {_SIZE_FORMS}")
        size = Decimal(match[1]) * unit
    if size < 0:
        raise ValueError(f"{shown(value)} is negative; give {_SIZE_FORMS}")
    if size != int(size):
        raise ValueError(f"{shown(value)} is not a whole number of bytes; give {_SIZE_FORMS}")
    if size > MAX_SIZE:
        raise ValueError(f"{shown(value)} is too large; at most {format_size(MAX_SIZE)}")
    return int(size)


def parse_duration(value: object) -> float:
    """Seconds. Raises ValueError, with what would be right."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        seconds = _seconds(value)
    if seconds < 0:
        raise ValueError(f"{shown(value)} is negative; give {_DURATION_FORMS}")
    if not seconds <= MAX_DURATION:
        raise ValueError(f"{shown(value)} is too long; at most {format_duration(MAX_DURATION)}")
    return seconds


def _seconds(value: object) -> float:
    total = Decimal(0)
    last_unit = None
    position = 0
    text = value.strip() if isinstance(value, str) else ""
    while position < len(text):
        match = _DURATION_PART.match(text, position)
        unit = _DURATION_UNITS.get(match[2]) if match else None
        # Units go down ("1h30m"), each at most once: "5m1h" and "1m1m" are slips of the pen.
        if match is None or unit is None or (last_unit is not None and unit >= last_unit):
            break
        total += Decimal(match[1]) * unit
        last_unit = unit
        position = match.end()
    if last_unit is None or position < len(text):
        raise ValueError(f"{shown(value)} is not a duration; give {_DURATION_FORMS}")
    return float(total)


def format_size(size: int) -> str:
    """The shortest exact form: "64MiB", "1GB", "1500" (bytes); `parse_size` reads it back."""
    for name in _SIZE_NAMES:
        unit = _SIZE_UNITS[name.lower()]
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size}B"


def format_duration(seconds: float) -> str:
    """ "1h30m", "500ms", "0s": exact to the millisecond; `parse_duration` reads it back."""
    rest = round(Decimal(seconds) * 1000)
    parts = []
    for name in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, int(_DURATION_UNITS[name] * 1000))
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"


def text_of(value: object, expected: str) -> str:
    """A string setting without the blanks around it. Raises ValueError if it isn't a string."""
    text = value.strip() if isinstance(value, str) else None
    if text is None:
        raise ValueError(f"expected {expected}, got {shown(value)}")
    return text


def shown(value: object) -> str:
    """A setting's value as an error quotes it: as TOML writes it, and cut when it is long."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}..."'
    if isinstance(value, int | float):
        return str(value)
    return toml_type(value)


def toml_type(value: object) -> str:
    """What TOML calls a value of that type, with its article."""
    for kind, name in (
        (bool, "a boolean"),
        (str, "a string"),
        (int, "an integer"),
        (float, "a float"),
        (list, "an array"),
        (tuple, "an array"),
        (dict, "a table"),
    ):
        if isinstance(value, kind):
            return name
    return "nothing" if value is None else "a date or time"
