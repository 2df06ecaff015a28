"""Requests that purge at the public port, and how they are answered; what they do is elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.proxy.purging import PurgeAnswer
from tests.proxy.parts import running

if TYPE_CHECKING:
    from pathlib import Path

    from edgeproxy.proxy.request import EdgeRequest
    from tests.kit import ScriptedOrigin


@pytest.mark.parametrize("method", ["PURGE", "BAN", "PURGEKEYS"])
async def test_where_nobody_purges_there_is_no_such_method(
    tmp_path: Path, origin: ScriptedOrigin, method: str
) -> None:
    async with running(tmp_path, origin) as served:
        answer = await served.get("/a", method=method)
        refused = await served.get("/a", method="TRACE")
    assert (answer.status, answer.text) == (405, refused.text)
    assert answer.field("allow") == refused.field("allow")
    assert answer.field("connection") == "close"
    assert answer.cache_status == refused.cache_status
    assert origin.counts["/a"] == 0
    assert served.records[0].result == "refused"


@pytest.mark.parametrize(
    ("answered", "reason", "text"),
    [
        pytest.param(PurgeAnswer(200, "Purged"), "Purged", "Purged\n", id="done"),
        pytest.param(
            PurgeAnswer(503, "later", {"Retry-After": "1"}),
            "Service Unavailable",
            "503 Service Unavailable: later\n",
            id="not done",
        ),
        pytest.param(None, "Method Not Allowed", None, id="may not"),
    ],
)
async def test_it_is_answered_as_the_purger_says(
    tmp_path: Path,
    origin: ScriptedOrigin,
    answered: PurgeAnswer | None,
    reason: str,
    text: str | None,
) -> None:
    asked: list[EdgeRequest] = []

    async def purge(request: EdgeRequest) -> PurgeAnswer | None:
        asked.append(request)
        return answered

    async with running(tmp_path, origin) as served:
        served.edge.purge_by(purge)
        answer = await served.get("/a?b", {"xkey": "a"}, method="PURGE")
        assert (answer.status, answer.reason) == (answered.status if answered else 405, reason)
        assert text in (None, answer.text)
        assert answer.field("cache-control") == "no-store"
        assert answer.field("retry-after") == ("1" if answer.status == 503 else None)
        await served.get("/a", method="BREW")
    (request,) = asked
    assert (request.method, request.key.target, request.fields.get(b"xkey")) == (
        b"PURGE",
        b"/a?b",
        b"a",
    )
    assert served.records[0].result == ("purge" if answered else "refused")
    assert [each.method for each in origin.requests_for("/a")] == ["BREW"]


async def test_one_that_fails_is_a_fault_of_the_edge(
    tmp_path: Path, origin: ScriptedOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    async def purge(_: EdgeRequest) -> PurgeAnswer | None:
        raise RuntimeError("inside")

    async with running(tmp_path, origin) as served:
        served.edge.purge_by(purge)
        answer = await served.get("/a", method="PURGE")
    assert answer.status == 500
    assert "inside" in caplog.text
    assert "inside" not in answer.text
