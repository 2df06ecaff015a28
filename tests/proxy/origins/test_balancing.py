"""Whose turn it is."""

from collections import Counter
from dataclasses import dataclass

import pytest

from edgeproxy.proxy.origins.balancing import Balancer, SlowStart


@dataclass
class Seat:
    name: str
    part: float = 1.0
    load: int = 0
    due: float = 0.0

    def share(self, now: float) -> float:
        return self.part


def turns(balancer: Balancer, seats: list[Seat], count: int) -> str:
    names = ""
    for _ in range(count):
        chosen = balancer.choose(seats, 0.0)
        balancer.charge(chosen, 0.0)
        names += chosen.name
    return names


def test_each_gets_its_turn() -> None:
    assert turns(Balancer("round-robin"), [Seat("a"), Seat("b"), Seat("c")], 7) == "abcabca"


def test_a_smaller_share_is_less_often() -> None:
    seats = [Seat("a"), Seat("b", 0.25)]
    names = turns(Balancer("round-robin"), seats, 100)
    assert Counter(names) == {"a": 80, "b": 20}
    assert "bb" not in names


def test_who_was_away_is_owed_nothing() -> None:
    balancer = Balancer("round-robin")
    both = [Seat("a"), Seat("b")]
    assert turns(balancer, both, 2) == "ab"
    assert turns(balancer, both[:1], 50) == "a" * 50
    assert Counter(turns(balancer, both, 20))["a"] >= 9


def test_standing_in_for_another_is_no_turn() -> None:
    balancer = Balancer("round-robin")
    both = [Seat("a"), Seat("b")]
    for expected in "abab":
        chosen = balancer.choose(both, 0.0)
        assert chosen.name == expected
        balancer.charge(chosen, 0.0)
        balancer.choose([seat for seat in both if seat is not chosen], 0.0)


@pytest.mark.parametrize(
    ("seats", "expected"),
    [
        pytest.param([Seat("a", load=2), Seat("b", load=1)], "b", id="the fewest"),
        pytest.param([Seat("a", 0.5, load=1), Seat("b", load=2)], "b", id="for its share"),
        pytest.param([Seat("a", 0.1), Seat("b", load=8)], "b", id="idle, but just back"),
        pytest.param([Seat("a", 0.1), Seat("b", load=10)], "a", id="just back, but idle"),
        pytest.param([Seat("a", due=3.0), Seat("b", due=2.0)], "b", id="equal: in turn"),
    ],
)
def test_the_least_busy_is_chosen(seats: list[Seat], expected: str) -> None:
    assert Balancer("least-connections").choose(seats, 0.0).name == expected


def test_equally_busy_ones_take_turns() -> None:
    assert turns(Balancer("least-connections"), [Seat("a"), Seat("b")], 6) == "ababab"


@pytest.mark.parametrize(
    ("elapsed", "share"), [(0.0, 0.1), (0.5, 0.1), (5.0, 0.5), (10.0, 1.0), (99.0, 1.0)]
)
def test_who_comes_back_begins_slowly(elapsed: float, share: float) -> None:
    start = SlowStart(10.0)
    assert start.share(100.0) == 1.0
    start.begin(100.0)
    assert start.share(100.0 + elapsed) == share


def test_there_may_be_no_slow_start() -> None:
    start = SlowStart(0.0)
    start.begin(100.0)
    assert start.share(100.0) == 1.0
