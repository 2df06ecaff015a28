"""How output for people looks."""

import pytest

from edgeproxy.cli.tables import duration, moment, shown, size, table


def test_columns_are_aligned() -> None:
    assert table(("N", "NAME", "X"), [(7, "grün", "a"), (12, None, "")], right="N").split("\n") == [
        " N  NAME  X",
        " 7  grün  a",
        "12  -     -",
    ]


def test_what_strangers_wrote_can_t_steer_the_terminal() -> None:
    assert shown("a\x1b[2Jb\nc\x9b\u202e") == r"a\x1b[2Jb\nc\x9b\u202e"
    assert shown("x" * 101) == "x" * 99 + "…"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"),
     (3 << 50, "3072.0 TiB")],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (3600, "1 h"), (3661, "1 h 1 min"), (90_061, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_moments() -> None:
    assert moment(None) == "-"
    assert moment(1_700_000_000.0)[:8] == "2023-11-"
