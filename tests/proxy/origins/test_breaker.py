"""When a circuit opens, what it lets pass, and how it closes again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config.failover import Breaker as Settings
from edgeproxy.proxy.origins.breaker import Breaker

SETTINGS = Settings(
    failures=3, failure_share=0.5, window=10.0, min_requests=8, pause=1.0, max_pause=4.0
)


def ask(breaker: Breaker, now: float, ok: bool, *, slow: bool = False) -> bool:
    """One request from beginning to end: whether that opened or closed the circuit."""
    trial = breaker.begin(now, uploading=False)
    return breaker.succeeded(trial, now) if ok else breaker.failed(trial, now, slow=slow)


def opened(settings: Settings = SETTINGS, *, slow: bool = False) -> Breaker:
    """One that opened at 0."""
    breaker = Breaker(settings)
    while not ask(breaker, 0.0, False, slow=slow):
        assert breaker.closed
    return breaker


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        pytest.param("xx", "closed", id="fewer than three"),
        pytest.param("xxx", "open", id="three in a row"),
        pytest.param("xx.xx.xx", "open", id="never three in a row, but six of eight"),
        pytest.param("xx.xx.x", "closed", id="of seven, no share is taken"),
        pytest.param("x.x.x.x.", "closed", id="the eighth that makes it half succeeds"),
        pytest.param(".x.x.x.x", "open", id="four of eight"),
        pytest.param("..x.x..x.x", "closed", id="four of ten"),
    ],
)
def test_failures_open_it(outcomes: str, state: str) -> None:
    breaker = Breaker(SETTINGS)
    for outcome in outcomes:
        ask(breaker, 5.0, outcome == ".")
    assert breaker.state(5.0) == state
    assert breaker.admits(5.0) is (state == "closed")


def test_the_share_is_that_of_a_window() -> None:
    breaker = Breaker(SETTINGS)
    for moment in (0.0, 10.0, 20.0, 29.9):
        # Three of six, and another three only make it six of twelve within one window.
        opened = [ask(breaker, moment, ok) for ok in (False, True, False, True, False, True)]
        assert any(opened) == (moment == 29.9)


def test_after_a_pause_one_trial_passes() -> None:
    breaker = opened()
    assert (breaker.state(0.9), breaker.admits(0.9)) == ("open", False)
    assert (breaker.state(1.0), breaker.admits(1.0)) == ("half-open", True)
    trial = breaker.begin(1.0, uploading=False)
    assert trial
    assert not breaker.admits(1.0)
    assert breaker.succeeded(trial, 1.5)
    assert (breaker.state(1.5), breaker.admits(1.5)) == ("closed", True)


def test_a_trial_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    breaker, now = opened(), 0.0
    for pause in (1.0, 2.0, 4.0, 4.0):
        assert not breaker.admits(now + pause - 0.01)
        now += pause
        assert breaker.admits(now)
        assert not ask(breaker, now, False)
    assert ask(breaker, now + 4.0, True)
    assert not ask(breaker, now, False)
    assert breaker.closed


def test_a_trial_that_says_nothing_leaves_its_place() -> None:
    breaker = opened()
    breaker.abandoned(breaker.begin(1.0, uploading=False))
    assert breaker.admits(1.0)


def test_a_slow_upload_keeps_no_other_trial_waiting_for_longer_than_a_pause() -> None:
    """How long it takes is its client's choice."""
    breaker = opened()
    upload = breaker.begin(1.0, uploading=True)
    assert [breaker.admits(now) for now in (1.0, 4.9, 5.0)] == [False, False, True]
    trial = breaker.begin(5.0, uploading=False)
    assert not breaker.admits(1000.0)
    assert not breaker.failed(trial, 6.0, slow=True)
    assert [breaker.admits(now) for now in (7.9, 8.0)] == [False, True]
    assert breaker.succeeded(upload, 8.0)


def test_what_was_under_way_when_it_opened_changes_nothing() -> None:
    breaker = Breaker(SETTINGS)
    early = [breaker.begin(0.0, uploading=False) for _ in range(2)]
    for _ in range(3):
        ask(breaker, 0.0, False)
    assert not breaker.failed(early[0], 1.0, slow=False)
    assert breaker.state(1.0) == "half-open"
    assert not breaker.succeeded(early[1], 1.0)
    assert breaker.state(1.0) == "half-open"


@pytest.mark.parametrize(
    ("slow", "refuses"),
    [((True, True, True), True), ((False,) * 3, False), ((True, True, False), False)],
)
def test_it_refuses_only_what_would_have_to_wait(slow: tuple[bool, ...], refuses: bool) -> None:
    breaker = Breaker(SETTINGS)
    for each in slow:
        ask(breaker, 0.0, False, slow=each)
    assert (breaker.closed, breaker.refuses) == (False, refuses)
    assert ask(breaker, 0.5, True)
    assert not breaker.refuses


def test_a_trial_can_not_wait_for_ever() -> None:
    breaker = opened()
    assert not breaker.overdue(4.9)
    assert breaker.overdue(5.0)
    assert not Breaker(SETTINGS).overdue(5.0)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 20), st.sampled_from(["begin", "upload", "ok", "fail", "slow", "drop"])
        )
    )
)
def test_it_never_locks_an_origin_out(events: list[tuple[float, str]]) -> None:
    """However requests overlap and end, a trial passes after the longest pause."""
    breaker, now, running = Breaker(SETTINGS), 0.0, []
    for elapsed, event in events:
        now += elapsed
        if event in ("begin", "upload"):
            running.append(breaker.begin(now, uploading=event == "upload"))
        elif running:
            trial = running.pop()
            match event:
                case "ok":
                    breaker.succeeded(trial, now)
                case "drop":
                    breaker.abandoned(trial)
                case _:
                    breaker.failed(trial, now, slow=event == "slow")
    for trial in running:
        breaker.abandoned(trial)
    now += SETTINGS.max_pause
    assert breaker.admits(now)
    ask(breaker, now, True)
    assert breaker.closed
