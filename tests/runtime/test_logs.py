"""The log's lines."""

import logging
import re
import sys

import pytest

from edgeproxy.runtime.logs import LineFormatter, configure


def line(message: str, *args: object, exc_info: object = None) -> str:
    record = logging.LogRecord(
        "edgeproxy.x", logging.WARNING, "x.py", 1, message, args, exc_info or None
    )
    record.created, record.msecs = 1_700_000_000.25, 250.0
    return LineFormatter("worker 1").format(record)


def test_a_line_says_when_how_bad_and_who() -> None:
    assert line("store %s", "full") == "2023-11-14T22:13:20.250Z WARNING [worker 1] store full"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\n2023 ERROR [x] forged", "a\\n2023 ERROR [x] forged"),
        ("a\rb\tc", "a\\rb\\tc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("\u2028", "\\u2028"),
        ("café", "café"),
    ],
)
def test_a_logged_value_cannot_forge_a_line_or_drive_a_terminal(value: str, shown: str) -> None:
    assert line("%s", value).endswith(f"[worker 1] {shown}")


def test_a_traceback_stays_in_the_line() -> None:
    try:
        int("broken")
    except ValueError:
        text = line("it failed", exc_info=sys.exc_info())
    assert "\n" not in text
    assert re.search(r"it failed\\nTraceback .*\\nValueError: invalid literal .*$", text)


@pytest.mark.parametrize(
    ("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_the_level_is_the_least_that_is_shown(
    level: str, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure(level, "supervisor")
        for severity in ("debug", "info", "warning", "error"):
            getattr(logging.getLogger("edgeproxy.test"), severity)("hello")
        assert capsys.readouterr().err.count("[supervisor] hello\n") == shown
    finally:
        root.handlers[:], root.level = before
