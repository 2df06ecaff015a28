"""The journal, page by page and live: who purged what, and who may know."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.admin.api import journal
from edgeproxy.admin.app import reload_admin
from edgeproxy.admin.state import STATE
from tests.admin.conftest import EDITOR, MASTER, READER

if TYPE_CHECKING:
    from aiohttp import ClientResponse

    from tests.admin.conftest import AdminPort

PATIENCE = 10.0


async def records(port: AdminPort, query: str = "", secret: str = MASTER) -> list[Any]:
    answer = await port.call("GET", f"/v1/journal{query}", secret=secret)
    assert answer.status == 200, answer.body
    return list(answer.body["records"])


async def test_a_record_tells_who_asked_for_what(port: AdminPort) -> None:
    purged = await port.purge(
        EDITOR,
        tags=["a"],
        urls=["http://shop.test/b"],
        selectors=[{"prefix": "/c/", "status": 404, "glob": "**.html"}],
        site="shop",
        environment="preview",
        mode="delete",
        deadline=60,
    )
    assert await records(port) == [
        {
            "position": 1,
            "id": purged.body["id"],
            "time": port.served.clock.now,
            "kind": "purge",
            "actor": "editor",
            "source": "127.0.0.1",
            "dialect": "edgeproxy",
            "mode": "delete",
            "selectors": [
                {"site": "shop", "environment": "preview", "tag": "a"},
                {"site": "shop", "environment": "preview", "url": "/b", "host": "shop.test"},
                {
                    "site": "shop",
                    "environment": "preview",
                    "prefix": "/c/",
                    "pattern": r"^.*\.html$",
                    "status": 404,
                },
            ],
            "matched": 0,
            "deadline": 60,
        }
    ]


async def test_what_a_record_tells_can_be_purged_again(port: AdminPort) -> None:
    await port.purge(
        selectors=[
            {"url": "http://shop.test/a?b=ü", "status": 200},
            {"tag": "A", "any_case": True, "host": "shop.test"},
            {"pattern": "x", "pattern_on": "url", "content_type": "IMAGE/*"},
            {"source": "/i.jpg", "source_host": "e.test"},
        ],
        site="shop",
    )
    (first,) = await records(port)
    again = [
        {name: value for name, value in each.items() if name != "site"}
        for each in first["selectors"]
    ]
    assert (await port.purge(selectors=again, site="shop")).status == 200
    second, _ = await records(port)
    assert second["selectors"] == first["selectors"]


async def test_an_issued_token_is_in_it(port: AdminPort) -> None:
    issued = await port.call("POST", "/v1/tokens", {"url": "http://shop.test/a"})
    (record,) = await records(port)
    assert record["kind"] == "token"
    assert record["issued"] == {
        "token": issued.body["token"],
        "site": "shop",
        "host": "shop.test",
        "one_url": True,
    }
    assert "selectors" not in record


async def test_pages_begin_with_the_newest(port: AdminPort) -> None:
    for number in range(7):
        await port.purge(tags=[f"t{number}"], site="shop")
    first = await port.call("GET", "/v1/journal?limit=3")
    await port.purge(tags=["later"], site="shop")
    second = await port.call("GET", f"/v1/journal?limit=3&cursor={first.body['next']}")
    third = await port.call("GET", f"/v1/journal?limit=3&cursor={second.body['next']}")
    positions = [[each["position"] for each in page.body["records"]]
                 for page in (first, second, third)]  # fmt: skip
    assert positions == [[7, 6, 5], [4, 3, 2], [1]]
    assert third.body["next"] is None
    assert (first.body["position"], third.body["position"]) == (7, 8)


async def test_nobody_learns_of_other_sites(port: AdminPort) -> None:
    await port.purge(tags=["a"], site="*")
    await port.purge(tags=["b"], site="blog")
    await port.call("POST", "/v1/tokens", {"site": "blog"})
    assert [each["position"] for each in await records(port, secret=READER)] == [3, 2, 1]
    (seen,) = await records(port, secret=EDITOR)
    assert [each["site"] for each in seen["selectors"]] == ["shop"]
    assert seen["matched"] is None, "some of those are the blog's"
    assert [each["position"] for each in await records(port, "?site=blog")] == [3, 2, 1]
    assert [each["position"] for each in await records(port, "?site=shop")] == [1]


# -- live


async def opened(port: AdminPort, secret: str = MASTER, last: int | None = None) -> ClientResponse:
    headers = {"Authorization": f"Bearer {secret}"}
    if last is not None:
        headers["Last-Event-ID"] = str(last)
    response = await port.client.get("/v1/journal/stream", headers=headers)
    assert response.status == 200, await response.text()
    assert response.headers["Content-Type"] == "text/event-stream"
    assert await response.content.readuntil(b"\n\n") == b"retry: 1000\n\n"
    return response


async def event(response: ClientResponse) -> dict[str, Any]:
    """The next event; its data says the same position as its id."""
    async with asyncio.timeout(PATIENCE):
        lines = (await response.content.readuntil(b"\n\n")).decode().split("\n")
    name, kind, data = lines[:3]
    told: dict[str, Any] = json.loads(data.removeprefix("data: "))
    assert (name, kind) == (f"id: {told['position']}", "event: record")
    return told


async def test_records_come_as_they_are_made(port: AdminPort) -> None:
    await port.purge(tags=["before"], site="shop")
    stream = await opened(port)
    await port.purge(tags=["a"], site="shop")
    await port.purge(tags=["b"], site="shop")
    told = [await event(stream), await event(stream)]
    assert told == (await records(port))[1::-1]
    stream.close()


async def test_a_stream_is_taken_up_where_it_broke_off(port: AdminPort) -> None:
    for tag in "abc":
        await port.purge(tags=[tag], site="shop")
    stream = await opened(port, last=1)
    assert [(await event(stream))["position"] for _ in range(2)] == [2, 3]
    stream.close()
    beyond = await opened(port, last=10**17)
    await port.purge(tags=["d"], site="shop")
    assert (await event(beyond))["position"] == 4
    beyond.close()


async def test_a_stream_tells_nothing_of_other_sites(port: AdminPort) -> None:
    stream = await opened(port, EDITOR)
    await port.purge(tags=["a"], site="blog")
    await port.purge(tags=["a"], site="shop")
    assert (await event(stream))["position"] == 2
    stream.close()


async def test_a_stream_that_has_nothing_to_say_shows_that_it_lives(
    port: AdminPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "HEARTBEAT_SECONDS", 0.01)
    stream = await opened(port)
    async with asyncio.timeout(PATIENCE):
        assert await stream.content.readuntil(b"\n\n") == b":\n\n"
    stream.close()


async def test_streams_are_bounded(port: AdminPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_STREAMS", 2)
    streams = [await opened(port), await opened(port)]
    assert (await port.call("GET", "/v1/status")).body["streams"] == 2
    full = await port.call("GET", "/v1/journal/stream")
    assert (full.status, full.headers["Retry-After"]) == (503, "5")
    for stream in streams:
        stream.close()
    await port.served.until(lambda: port.app[STATE].streams == 0)
    (await opened(port)).close()


async def test_streams_end_when_the_tokens_change(port: AdminPort) -> None:
    """Whoever is no longer let in does not go on listening."""
    stream = await opened(port)
    reload_admin(port.app, port.config, ())
    async with asyncio.timeout(PATIENCE):
        assert await stream.content.read() == b""


async def test_streams_end_with_the_worker(port: AdminPort) -> None:
    stream = await opened(port)
    port.app[STATE].closing.set()
    async with asyncio.timeout(PATIENCE):
        assert await stream.content.read() == b""


@pytest.mark.parametrize("last", ["x", "-1", "1.0", "", "9" * 19])
async def test_where_to_begin_is_a_position(port: AdminPort, last: str) -> None:
    answer = await port.call("GET", "/v1/journal/stream", headers={"Last-Event-ID": last})
    assert answer.status == 400
    assert [each["field"] for each in answer.body["errors"]] == ["Last-Event-ID"]
