"""How many requests may be repeated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.proxy.origins.retry_budget import RetryBudget


def test_what_is_saved_up_is_spent_and_then_the_share() -> None:
    budget = RetryBudget(0.25, 3)
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]
    spent = 0
    for _ in range(100):
        budget.earn()
        spent += budget.spend()
    assert spent == 25


@pytest.mark.parametrize(("share", "burst", "spent"), [(0.0, 0, 0), (0.0, 2, 2), (0.5, 0, 5)])
def test_none_of_a_kind(share: float, burst: int, spent: int) -> None:
    budget = RetryBudget(share, burst)
    done = 0
    for _ in range(10):
        budget.earn()
        done += budget.spend()
    assert done == spent


@given(st.floats(0, 1), st.integers(0, 50), st.lists(st.booleans(), max_size=300))
def test_never_more_than_share_and_burst(share: float, burst: int, events: list[bool]) -> None:
    budget = RetryBudget(share, burst)
    earned = spent = 0
    for spend in events:
        if spend:
            spent += budget.spend()
        else:
            budget.earn()
            earned += 1
        assert spent <= share * earned + burst + 1e-6
