"""RFC 9111 4.2.3 and 5.1: how old a response is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.age import age_value, corrected_initial_age, current_age, date_value
from edgeproxy.semantics.cache_control import MAX_DELTA
from edgeproxy.semantics.dates import format_http_date
from edgeproxy.semantics.fields import Fields
from tests.semantics.build import DATE, NOW, checked, fields


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        pytest.param([], 0, id="absent"),
        pytest.param([b"60"], 60, id="5.1"),
        pytest.param([b"60, 100"], 60, id="5.1-first-of-a-list"),
        pytest.param([b"60", b"100"], 60, id="5.1-first-line"),
        pytest.param([b"x, 60"], 0, id="first-is-invalid"),
        pytest.param([b"-60"], 0, id="negative"),
        pytest.param([b"6.5"], 0, id="fraction"),
        pytest.param([b'"60"'], 0, id="quoted"),
        pytest.param([b"60;x=1"], 0, id="parameter"),
        pytest.param([b""], 0, id="empty"),
        pytest.param([b"99999999999"], MAX_DELTA, id="1.2.2-overflow"),
    ],
)
def test_age_value(lines: list[bytes], seconds: int) -> None:
    assert age_value(lines) == seconds


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["Date: Tue, 14 Nov 2023 22:13:10 GMT"], NOW - 10),
        ([], NOW),
        (["Date: yesterday"], NOW),
        (["Date: Tue, 14 Nov 2023 22:13:10 GMT", DATE], NOW - 10),
    ],
)
def test_a_response_without_a_valid_date_was_made_when_it_came(
    lines: list[str], expected: float
) -> None:  # RFC 9110 6.6.1
    assert date_value(fields(*lines), NOW) == expected


@pytest.mark.parametrize(
    ("lines", "delay", "expected"),
    [
        pytest.param([DATE], 0, 0, id="new"),
        pytest.param([DATE], 3, 3, id="response-delay"),
        pytest.param([DATE, "Age: 60"], 3, 63, id="corrected-age-value"),
        pytest.param(["Date: Tue, 14 Nov 2023 22:11:20 GMT"], 3, 120, id="apparent-age"),
        pytest.param(["Date: Tue, 14 Nov 2023 22:11:20 GMT", "Age: 60"], 0, 120, id="the-greater"),
        pytest.param(["Date: Tue, 14 Nov 2023 22:15:20 GMT"], 1, 1, id="date-in-the-future"),
        pytest.param([], 2, 2, id="no-date"),
    ],
)
def test_corrected_initial_age(lines: list[str], delay: float, expected: float) -> None:
    assert corrected_initial_age(fields(*lines), NOW - delay, NOW) == expected


def test_a_date_without_fractions_makes_nothing_older() -> None:
    """A response that is fresh for a second is so for all of it, wherever in a second it came."""
    assert corrected_initial_age(fields(DATE), NOW + 0.9, NOW + 0.95) == pytest.approx(0.05)


def test_resident_time_adds_up() -> None:
    assert current_age(5.0, NOW, NOW + 7) == 12.0


times = st.floats(0, 4e9)


@checked
@given(times, times, times, st.integers(0, 4 * 10**9), st.integers(-10, 10**12))
def test_age_is_never_negative_and_never_shrinks_whatever_the_clocks(
    requested: float, received: float, now: float, date: int, age: int
) -> None:
    response = Fields([(b"Date", format_http_date(date)), (b"Age", b"%d" % age)])
    initial = corrected_initial_age(response, requested, received)
    assert initial >= 0
    assert current_age(initial, received, now) >= initial
    assert current_age(initial, received, now + 1) >= current_age(initial, received, now)
