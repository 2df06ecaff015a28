"""Refreshes of what is stale, behind the readers who got it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import CLOSE, Answer
from tests.proxy.parts import ServedEdge, Versions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.kit import ScriptedOrigin

    Serve = Callable[..., Awaitable[ServedEdge]]

GRACE = {"Cache-Control": "max-age=60, stale-while-revalidate=600, stale-if-error=600"}


BROKEN = [b"HTTP/1.1 2", CLOSE]
"""No response, and too much of one for another try."""


# -- refreshes behind the readers


async def refreshed(served: ServedEdge) -> None:
    """Wait until no refresh is under way."""
    await served.until(lambda: served.refreshes == 0)


@pytest.mark.parametrize(
    ("answer", "body", "origin_asked"),
    [
        pytest.param(Answer(200, GRACE, b"new"), b"new", 2, id="a new one"),
        pytest.param(Answer(404, GRACE, b"gone"), b"gone", 2, id="one that says it is gone"),
        pytest.param(
            Answer(200, {"Cache-Control": "no-store"}, b"mine"), b"mine", 3, id="not to be stored"
        ),
        pytest.param(Answer(500, GRACE, b"broken"), b"old", 2, id="5861-4: an error"),
        pytest.param(Answer(429, GRACE, b"slow down"), b"old", 2, id="6585-4: too many requests"),
        pytest.param(BROKEN, b"old", 2, id="5861-4: nothing at all"),
    ],
)
async def test_a_stale_response_is_refreshed_behind_its_reader(
    served: ServedEdge, origin: ScriptedOrigin, answer: Any, body: bytes, origin_asked: int
) -> None:
    origin.route("/", Answer(200, GRACE, b"old"))
    await served.get("/")
    served.clock.now += 100
    origin.route("/", answer)
    stale = await served.get("/")
    assert (stale.body, stale.cache_status["ttl"]) == (b"old", "-40")
    await refreshed(served)
    assert (await served.get("/")).body == body
    await refreshed(served)
    assert origin.counts["/"] == origin_asked


async def test_a_failed_refresh_is_tried_again_after_a_pause(
    served: ServedEdge, origin: ScriptedOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    origin.route("/", Answer(200, GRACE, b"old"))
    await served.get("/")
    served.clock.now += 100
    origin.route("/", BROKEN)
    asked = []
    for pause in (0.0, 0.5, 0.5, 1.0, 1.0):
        served.clock.now += pause
        assert (await served.get("/")).body == b"old"
        await refreshed(served)
        asked.append(origin.counts["/"])
    assert asked == [2, 2, 3, 3, 4], "after one second, and after two more"
    assert "the stale copy stays, next try in 1 s" in caplog.text
    origin.route("/", Answer(200, GRACE, b"new"))
    served.clock.now += 4
    await served.get("/")
    await refreshed(served)
    assert (await served.get("/")).cache_status["hit"] is True
    assert origin.counts["/"] == 5


async def test_one_refresh_at_a_time(served: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/", Answer(200, GRACE, b"old"))
    await served.get("/")
    served.clock.now += 100
    page = Versions(GRACE, held=True)
    origin.route("/", page)
    for _ in range(5):
        assert (await served.get("/")).body == b"old"
    await origin.seen("/", 2)
    assert served.refreshes == 1
    page.go.set()
    await refreshed(served)
    assert page.count == 1
