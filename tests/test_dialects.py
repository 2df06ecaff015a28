"""docs/dialects.md keeps its word: every dialect has its table, and every test it names is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.admin.dialects.table import DIALECTS
from tests.test_conformance import NAME, TESTS, run_tests, tables

if TYPE_CHECKING:
    from edgeproxy.admin.dialects.base import Dialect

TEXT = (TESTS.parent / "docs" / "dialects.md").read_text()
TABLES = tables(TEXT)
ROWS = [(heading, row) for heading, rows in TABLES.items() for row in rows]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_every_dialect_has_its_table_and_every_endpoint_its_rows(dialect: Dialect) -> None:
    section = TEXT.partition(f"\n## {dialect.title}\n")[2].partition("\n## ")[0]
    endpoints = " ".join(row[0] for row in TABLES[dialect.title])
    missing = {f"{route.method} {route.path}" for route in dialect.routes}
    missing = {each for each in missing if f"`{each}`" not in section}
    assert missing == set()
    assert [route.path for route in dialect.routes if f"`{route.path}`" not in endpoints] == []


@pytest.mark.parametrize(("heading", "row"), ROWS, ids=[f"{head}: {row[1]}" for head, row in ROWS])
def test_a_cell_is_shown_by_tests_that_are_run(heading: str, row: list[str]) -> None:
    assert len(row) == 5, row
    tests = row[-1]
    names = NAME.findall(tests)
    assert names, "no test shows it"
    assert NAME.sub("", tests).replace("<br>", "") == "", "something is no test's name"
    assert [f"{file}::{name}" for file, name in names if name not in run_tests(file)] == []
