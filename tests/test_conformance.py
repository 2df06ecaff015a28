"""docs/conformance.md and security.md keep their word: every test that they name exists, and is
run."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "conformance.md"
SECURITY = DOCUMENT.with_name("security.md")

LEVELS = {"MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY"}
RFCS = {"5861", "8246", "9110", "9111", "9112", "9211", "9213", "9875"}

NAME = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
_RULE = re.compile(r"\| --- (\| --- )+\|")


class Row(NamedTuple):
    """A requirement."""

    standard: str
    section: str
    level: str
    asked: str
    done: str
    tests: str

    @property
    def names(self) -> list[tuple[str, str]]:
        """The tests that show it: file below `tests/`, and function."""
        return [(match[1], match[2]) for match in NAME.finditer(self.tests)]

    def __str__(self) -> str:
        return f"{self.standard.partition(',')[0]} {self.section}: {self.asked}"


def tables(text: str) -> dict[str, list[list[str]]]:
    """The rows of each heading's table, without its own heads."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("## "):
            heading = line[3:]
        elif line.startswith("| ") and _RULE.fullmatch(line) is None:
            found.setdefault(heading, []).append(line.strip("| ").split(" | "))
    return {heading: rows[1:] for heading, rows in found.items()}


TABLES = tables(DOCUMENT.read_text())
ROWS = [Row(heading, *row) for heading, rows in TABLES.items() for row in rows if "RFC" in heading]


@cache
def run_tests(file: str) -> frozenset[str]:
    """The test functions of a file that pytest collects and runs."""
    path = TESTS / file
    if not path.is_file() or not path.name.startswith("test_"):
        return frozenset()
    return frozenset(
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not any(_left_out(decorator) for decorator in node.decorator_list)
    )


def _left_out(decorator: ast.expr) -> bool:
    marked = ast.unparse(decorator)
    return marked.startswith(("pytest.mark.skip", "pytest.mark.xfail", "pytest.fixture"))


def test_every_standard_is_there() -> None:
    assert {rfc for row in ROWS for rfc in re.findall(r"\d{4}", row.standard)} >= RFCS
    assert len(ROWS) > 100


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_requirement_is_met_and_shown(row: Row) -> None:
    assert row.level in LEVELS
    assert row.section and row.asked and row.done
    assert row.names, "no test shows it"
    assert NAME.sub("", row.tests).replace("<br>", "") == "", "something is no test's name"
    missing = [f"{file}::{name}" for file, name in row.names if name not in run_tests(file)]
    assert not missing


def test_the_promises_of_security_are_shown() -> None:
    """docs/security.md names its tests in the same way."""
    named = [(match[1], match[2]) for match in NAME.finditer(SECURITY.read_text())]
    assert len(named) > 40
    assert [f"{file}::{name}" for file, name in named if name not in run_tests(file)] == []


def test_what_is_not_taken_says_why() -> None:
    for section, allowed, why in TABLES["MAYs that are not taken"]:
        assert re.match(r"RFC \d{4} \d", section)
        assert allowed and why
