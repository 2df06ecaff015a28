"""How long a slow client is waited for."""

import pytest

from edgeproxy.proxy.pace import Pace


@pytest.mark.parametrize(
    ("rate", "waits", "left"),
    [
        pytest.param(100, [(4, 0)], 6, id="waiting uses it up"),
        pytest.param(100, [(4, 200)], 8, id="bytes buy time"),
        pytest.param(100, [(4, 10_000)], 10, id="no more than there was"),
        pytest.param(100, [(10, 0)], 0, id="a whole pause"),
        pytest.param(100, [(9, 1), (2, 1)], 0, id="a byte now and then"),
        pytest.param(100, [(5, 500)] * 100, 10, id="at the rate, for ever"),
        pytest.param(0, [(9, 1)] * 100, 10, id="no rate: a byte will do"),
        pytest.param(0, [(10, 0)], 0, id="no rate: a pause will not"),
    ],
)
def test_patience(rate: int, waits: list[tuple[float, int]], left: float) -> None:
    pace = Pace(10, rate)
    for waited, moved in waits:
        pace.note(waited, moved)
    assert pace.left == pytest.approx(left)
