"""The dialects through a running edge: tagged by the origin in the vendor's way, called in the
vendor's way, and what readers get next, in that site alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.kit import Answer, fetch
from tests.kit.edge import TOKEN, token_hash

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.conftest import StartEdge
    from tests.kit import EdgeProcess, Response, ScriptedOrigin

HOUR = "max-age=3600, stale-while-revalidate=3600"
VENDOR = "vendors-token"
HOSTS = ("shop.test", "preview.test", "blog.test")
"""Of the shop, production and preview; and of another site."""


async def start(
    start_edge: StartEdge, origin: ScriptedOrigin, admin: Mapping[str, Any] | None = None
) -> EdgeProcess:
    """An edge of two workers with two sites in front of one origin, and a token for the shop."""
    tokens = [
        {"name": "kit", "hash": token_hash(TOKEN)},
        {"name": "vendor", "hash": token_hash(VENDOR), "sites": ["shop"]},
    ]
    site = {"origins": [{"url": origin.url}]}
    return await start_edge(
        origin,
        workers=2,
        config={
            "admin": {"tokens": tokens, **(admin or {})},
            "sites": {
                "shop": {**site, "hosts": ["shop.test"], "preview_hosts": ["preview.test"]},
                "blog": {**site, "hosts": ["blog.test"]},
            },
        },
    )


async def result(edge: EdgeProcess, target: str, host: str = "shop.test") -> str:
    """How a request is answered: "fresh", "stale" or "missed"."""
    status = (await edge.get(target, {"Host": host})).cache_status
    if not status.get("hit"):
        return "missed"
    return "stale" if status.get("detail") else "fresh"


async def fill(edge: EdgeProcess, origin: ScriptedOrigin, pages: Mapping[str, Answer]) -> None:
    """Have the pages stored for every host."""
    for target, answer in pages.items():
        origin.route(target, answer)
        for host in HOSTS:
            assert await result(edge, target, host) == "missed"
            assert await result(edge, target, host) == "fresh"


def page(**fields: str) -> Answer:
    """A page that is fresh for an hour, with fields such as `Cache_Tag`."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return Answer(200, {"Cache-Control": HOUR, **named}, b"page")


async def call(
    edge: EdgeProcess, method: str, path: str, body: Any, fields: Mapping[str, str]
) -> Response:
    """A call of the admin port as a vendor's client makes it; a body that is no bytes in JSON."""
    named = dict(fields)
    if body is not None and not isinstance(body, bytes):
        named["Content-Type"] = "application/json"
        body = json.dumps(body).encode()
    return await fetch(edge.admin_url + path, method=method, fields=named, body=body)


async def test_wix(origin: ScriptedOrigin, start_edge: StartEdge) -> None:
    edge = await start(start_edge, origin)
    await fill(edge, origin, {"/a": page(Cache_Tag="contacts,a"), "/b": page(Cache_Tag="labels")})
    body = {"invalidationMethods": [{"tag": "contacts"}]}
    answer = await call(edge, "POST", "/v1/invalidate-cache", body, {"Authorization": VENDOR})
    assert (answer.status, answer.json()) == (200, {})
    assert [await result(edge, "/a", host) for host in HOSTS] == ["missed", "missed", "fresh"]
    assert [await result(edge, "/b", host) for host in HOSTS] == ["fresh"] * 3
    answer = await call(edge, "POST", "/v1/purge-site-cache", {}, {"Authorization": VENDOR})
    assert (answer.status, answer.json()) == (200, {})
    assert [await result(edge, "/b", host) for host in HOSTS] == ["missed", "missed", "fresh"]


async def test_limits_hold_over_all_workers_and_a_restart(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    limited = {"name": "few", "hash": token_hash(VENDOR), "sites": ["default"], "max_calls": 20}
    edge = await start_edge(origin, workers=2, config={"admin": {"tokens": [limited]}})

    async def statuses(count: int) -> list[int]:
        path, fields = "/v1/purge-site-cache", {"Authorization": VENDOR}
        return [(await call(edge, "POST", path, {}, fields)).status for _ in range(count)]

    assert await statuses(15) == [200] * 15
    await edge.stop()
    await edge.start()
    assert await statuses(10) == [200] * 5 + [403] * 5
