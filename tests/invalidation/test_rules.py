"""The rule table: it says what reading every record would say, and costs less."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.invalidation.rules import VALID, RuleTable, Standing, Verdict
from edgeproxy.invalidation.selectors import Mode, Selector
from tests.invalidation.samples import record, records, response, responses, walk

if TYPE_CHECKING:
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.record import Record

HOME = Selector.by_tag("shop", "home")
STORED = response(tags=("home",))


def table_of(journal: list[Record]) -> RuleTable:
    table = RuleTable()
    for each in journal:
        mode, deleted_from = each.effect
        table.add(each.position, mode, each.selectors, deleted_from)
    return table


def told(verdict: Verdict) -> tuple[str, int, float]:
    return verdict.standing.value, verdict.position, verdict.deleted_from


@given(records(), responses(), st.integers(0, 13), st.none() | st.integers(0, 13))
def test_a_verdict_is_that_of_a_walk_over_all_records(
    journal: list[Record], stored: StoredResponse, since: int, until: int | None
) -> None:
    expected = walk(journal, stored, since, 99 if until is None else until)
    assert told(table_of(journal).verdict(stored, since, until)) == expected


@given(records(), responses(), st.integers(0, 13), st.integers(0, 13), st.integers(1, 5))
def test_dropping_rules_changes_no_later_verdict(
    journal: list[Record], stored: StoredResponse, up_to: int, later: int, step: int
) -> None:
    table = table_of(journal)
    while not table.drop(up_to, step):
        pass
    since = up_to + later
    assert told(table.verdict(stored, since)) == walk(journal, stored, since, 99)


@given(records())
def test_nothing_is_left_of_rules_that_were_all_dropped(journal: list[Record]) -> None:
    table = table_of(journal)
    assert table.drop(99, 1000)
    assert len(table) == 0
    assert not any(rules for site in table._sites.values() for rules in _filed(site))


def _filed(site: object) -> list[object]:
    places = site.places.values()  # type: ignore[attr-defined]
    plain = [rules for place in places for rules in place.plain.values()]
    return [*plain, *(place.others for place in places), *(place.lengths for place in places)]


def test_delete_outweighs_a_later_invalidate() -> None:
    table = table_of([record(HOME, mode=Mode.DELETE, position=1), record(HOME, position=2)])
    assert table.verdict(STORED, 0) == Verdict(Standing.DELETED, 1)
    assert table.verdict(STORED, 1) == Verdict(Standing.INVALIDATED, 2)
    assert table.verdict(STORED, 2) == VALID


def test_a_drop_takes_as_many_steps_as_its_limit_asks() -> None:
    table = table_of([record(HOME, position=position) for position in range(1, 6)])
    assert [table.drop(4, 2), table.drop(4, 2), len(table)] == [False, True, 1]
    assert table.verdict(STORED, 4) == Verdict(Standing.INVALIDATED, 5)


@pytest.mark.parametrize("mode", Mode)
def test_the_last_delete_of_a_site_is_known(mode: Mode) -> None:
    table = table_of([record(HOME, mode=mode, position=7)])
    assert table.last_delete("shop") == (7 if mode is Mode.DELETE else 0)
    assert table.last_delete("blog") == 0
