"""Output for people: tables, times, sizes. What strangers wrote can't steer the terminal."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST = 100


def table(titles: Sequence[str], rows: Sequence[Sequence[object]], *, right: str = "") -> str:
    """Lines of columns under their titles; those that are named in `right` (by their titles,
    between blanks) are flush right. The last column may be of any length."""
    texts = [[shown(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *texts, strict=True)]
    lines = []
    for row in (titles, *texts):
        cells = [
            cell.rjust(width) if title in right.split() else cell.ljust(width)
            for title, cell, width in zip(titles, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def shown(value: object, longest: int = _LONGEST) -> str:
    """A value in one line; escape sequences and the like are seen, not obeyed."""
    text = "-" if value is None or value == "" else str(value)
    text = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return text if len(text) <= longest else text[: longest - 1] + "…"


def moment(seconds: float | None) -> str:
    """A time in the zone of the machine."""
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def size(count: int) -> str:
    """A number of bytes."""
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, 4)
    return f"{count / 1024**power:.1f} {'KMGT'[power - 1]}iB"


def duration(seconds: float) -> str:
    """A length of time, in its two largest units."""
    parts = []
    rest = int(seconds)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        number, rest = divmod(rest, length)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or "0 s"


def as_json(value: Any) -> str:
    """A value for programs, in one line."""
    return json.dumps(value, ensure_ascii=False)
