"""One worker's edge as a whole: started, served from, reloaded, looked into and closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.kit import Answer

if TYPE_CHECKING:
    from tests.kit import ScriptedOrigin
    from tests.proxy.parts import ServedEdge


async def test_it_serves_and_stores(served: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/", Answer(200, {"Cache-Control": "max-age=60"}, b"page"))
    assert (await served.get("/")).body == b"page"
    assert (await served.get("/")).cache_status == {"hit": True, "ttl": "60"}
    assert origin.counts["/"] == 1
