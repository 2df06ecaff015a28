"""The requests that the benchmark makes beforehand."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.requests import CLIENTS, fresh_url, read_requests, requests, write_requests
from bench.scenarios import SCENARIOS, Scenario, in_groups

if TYPE_CHECKING:
    from pathlib import Path

HIT = Scenario("hit", "hits")


def some(scenario: Scenario, count: int = 4000) -> list[bytes]:
    return list(itertools.islice(requests(scenario), count))


def block(request: bytes) -> bytes:
    return request.partition(b"\r\n")[2]


def test_fields_are_those_of_some_clients_of_about_600_bytes() -> None:
    blocks = {block(request) for request in some(HIT)}
    assert len(blocks) == CLIENTS
    assert all(500 < len(one) < 650 for one in blocks)


def test_some_pages_are_asked_for_much_more_often_than_others() -> None:
    seen = Counter(request.split(b" ")[1] for request in some(HIT))
    assert seen.most_common(1)[0][1] > 100 * min(seen.values())
    assert len(seen) > 500


def test_pages_may_be_asked_for_in_turn() -> None:
    seen = Counter(request.split(b" ")[1] for request in some(replace(HIT, by_turns=True)))
    assert set(seen.values()) == {4}


def test_all_fields_may_be_different() -> None:
    assert len({block(request) for request in some(replace(HIT, distinct=True))}) == 4000


def test_they_are_the_same_each_time() -> None:
    assert some(HIT, 50) == some(HIT, 50)


@pytest.mark.parametrize(
    ("scenario", "line"),
    [
        (replace(HIT, close=True), b"\r\nConnection: close\r\n"),
        (replace(HIT, method="HEAD"), b"HEAD /page/"),
        (replace(HIT, path="/vary/"), b"GET /vary/"),
    ],
)
def test_what_a_scenario_says_is_in_them(scenario: Scenario, line: bytes) -> None:
    assert line in some(scenario, 1)[0]


def test_conditional_ones_have_the_page_s_own_validator() -> None:
    conditional = requests(replace(HIT, conditional=True), lambda target: f'"{target}"')
    request = next(conditional)
    target = request.split(b" ")[1]
    assert b'\r\nIf-None-Match: "%b"\r\n' % target in request


def test_a_url_of_its_own_differs_by_its_query() -> None:
    assert fresh_url(b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n", "2-3") == (
        b"GET /a?2-3 HTTP/1.1\r\nHost: b\r\n\r\n"
    )


def test_a_file_has_them_as_they_are(tmp_path: Path) -> None:
    write_requests(HIT, tmp_path / "hits", 20)
    assert read_requests(tmp_path / "hits", 30) == some(HIT, 20)


def test_what_is_compared_is_measured_together() -> None:
    groups = in_groups(SCENARIOS)
    assert sum(map(len, groups)) == len(SCENARIOS)
    for group in groups:
        names = [scenario.name for scenario in group]
        assert all(scenario.against in names for scenario in group[1:])
        assert group[0].against == ""
