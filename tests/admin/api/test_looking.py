"""What is stored, listed and explained, and who may know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.invalidation.selectors import Mode
from tests.admin.api.test_api import HOUR, fill
from tests.admin.conftest import EDITOR, MASTER, admin_port, token
from tests.kit import Answer
from tests.proxy.parts import by_tag, by_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pytest_aiohttp.plugin import AiohttpClient

    from tests.admin.conftest import AdminPort
    from tests.kit import ScriptedOrigin

PREVIEWER = "previewer-secret"


@pytest.fixture
async def port(
    tmp_path: Path, origin: ScriptedOrigin, aiohttp_client: AiohttpClient
) -> AsyncIterator[AdminPort]:
    """As `port`, with one more token: for the preview of the shop alone."""
    previewer = token("previewer", PREVIEWER, sites=["shop"], environments=["preview"])
    tokens = [token("master", MASTER), token("editor", EDITOR, sites=["shop"]), previewer]
    config = {"admin": {"tokens": tokens}}
    async with admin_port(tmp_path, origin, aiohttp_client, config) as made:
        yield made


async def listed(port: AdminPort, path: str, items: str, secret: str = MASTER) -> list[Any]:
    """All items of a list, over all its pages, of at most 2."""
    found: list[Any] = []
    cursor = ""
    mark = "&" if "?" in path else "?"
    for _ in range(20):
        answer = await port.call("GET", f"{path}{mark}limit=2{cursor}", secret=secret)
        assert answer.status == 200, answer.body
        assert len(answer.body[items]) <= 2
        found += answer.body[items]
        if answer.body["next"] is None:
            return found
        cursor = f"&cursor={answer.body['next']}"
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize(
    ("query", "secret", "urls"),
    [
        ("", MASTER, ["blog.test/a", "preview.shop.test/a", "shop.test/a", "shop.test/b",
                      "shop.test/c"]),
        ("", EDITOR, ["preview.shop.test/a", "shop.test/a", "shop.test/b", "shop.test/c"]),
        ("", PREVIEWER, ["preview.shop.test/a"]),
        ("?site=blog", MASTER, ["blog.test/a"]),
        ("?environment=preview", MASTER, ["preview.shop.test/a"]),
        ("?tag=home", MASTER, ["blog.test/a", "preview.shop.test/a", "shop.test/a", "shop.test/b"]),
        ("?tag=home&host=shop.test", MASTER, ["shop.test/a", "shop.test/b"]),
        ("?tag=home&prefix=/b", MASTER, ["shop.test/b"]),
        ("?prefix=/a&site=shop", MASTER, ["preview.shop.test/a", "shop.test/a"]),
        ("?prefix=http://shop.test/", MASTER, ["shop.test/a", "shop.test/b", "shop.test/c"]),
        ("?host=BLOG.test", MASTER, ["blog.test/a"]),
        ("?url=/a", MASTER, ["blog.test/a", "preview.shop.test/a", "shop.test/a"]),
        ("?tag=nothing", MASTER, []),
    ],
)  # fmt: skip
async def test_which_entries_are_listed(
    port: AdminPort, query: str, secret: str, urls: list[str]
) -> None:
    await fill(port)
    await port.served.get("/a", host="preview.shop.test")
    entries = await listed(port, f"/v1/entries{query}", "entries", secret)
    assert sorted(each["url"].removeprefix("http://") for each in entries) == urls


async def test_pages_of_entries_have_each_once_while_others_come_and_go(port: AdminPort) -> None:
    port.origin.route("/n", Answer(200, {"Cache-Control": HOUR, "Vary": "X-N"}, b"x"))
    for number in range(7):
        await port.served.get("/n", {"X-N": str(number)})
    first = await port.call("GET", "/v1/entries?limit=3")
    await port.served.purge(by_url("/n"), mode=Mode.DELETE)
    await port.served.until(lambda: port.served.edge.tier.settled == 1)
    rest = await port.call("GET", f"/v1/entries?limit=3&cursor={first.body['next']}")
    assert len(first.body["entries"]) == 3
    assert (rest.body["entries"], rest.body["next"]) == ([], None)


@pytest.mark.parametrize(
    ("query", "secret", "counts"),
    [
        ("", MASTER, [("home", "shop", 3), ("a", "shop", 2), ("a", "blog", 1),
                      ("home", "blog", 1)]),
        ("", EDITOR, [("home", "shop", 3), ("a", "shop", 2)]),
        ("", PREVIEWER, [("a", "shop", 1), ("home", "shop", 1)]),
        ("?prefix=h&site=shop", MASTER, [("home", "shop", 3)]),
        ("?environment=production&site=shop", MASTER, [("home", "shop", 2), ("a", "shop", 1)]),
        ("?prefix=x", MASTER, []),
    ],
)  # fmt: skip
async def test_tags_come_by_how_much_they_are_used(
    port: AdminPort, query: str, secret: str, counts: list[tuple[str, str, int]]
) -> None:
    await fill(port)
    await port.served.get("/a", host="preview.shop.test")
    tags = await listed(port, f"/v1/tags{query}", "tags", secret)
    assert [(each["tag"], each["site"], each["count"]) for each in tags] == counts


async def test_a_tag_that_is_too_long_for_the_index_is_told_whole(port: AdminPort) -> None:
    long = "x" * 900
    fields = {"Cache-Control": HOUR, "Cache-Tag": f"{long}1,{long}2"}
    port.origin.route("/long", Answer(200, fields, b"x"))
    await port.served.get("/long")
    tags = (await port.call("GET", "/v1/tags")).body["tags"]
    assert [each["tag"] for each in tags] == [f"{long}1", f"{long}2"]


# -- explain


async def explained(port: AdminPort, url: str, secret: str = MASTER, **request: Any) -> Any:
    answer = await port.call("POST", "/v1/explain", {"url": url, **request}, secret=secret)
    assert answer.status == 200, answer.body
    return answer.body


@pytest.mark.parametrize(
    ("url", "request_", "result", "why", "cache_status"),
    [
        ("http://shop.test/a", {}, "hit", "fresh for 3600 s more", "edgeproxy; hit; ttl=3600"),
        ("http://shop.test/a", {"method": "HEAD"}, "hit", "fresh", "edgeproxy; hit; ttl=3600"),
        ("http://shop.test/b", {}, "stale", "invalidated at position 1, within its grace",
         "edgeproxy; hit; ttl=3600; detail=invalidated"),
        ("http://shop.test/c", {}, "miss", "nothing is stored", "edgeproxy; fwd=uri-miss"),
        ("https://shop.test/a", {}, "miss", "nothing is stored", "edgeproxy; fwd=uri-miss"),
        ("http://shop.test/cb:x/a", {}, "miss", "nothing is stored", "edgeproxy; fwd=uri-miss"),
        ("http://shop.test/a", {"method": "POST"}, "pass", "POST is not answered from the cache",
         "edgeproxy; fwd=method"),
        ("http://shop.test/a", {"fields": {"If-Match": '"x"'}}, "pass", "precondition",
         "edgeproxy; fwd=request; detail=precondition"),
        ("http://shop.test/c", {"fields": {"Cache-Control": "only-if-cached"}}, "refuse", "504",
         "edgeproxy; detail=only-if-cached"),
        ("http://shop.test/mine", {}, "pass", "the last answer was not stored: private",
         'edgeproxy; fwd=bypass; detail="uncacheable; private"'),
        ("http://shop.test/a", {"fields": {"Upgrade": "x", "Connection": "upgrade"}}, "pass",
         "another protocol", "edgeproxy; fwd=bypass; detail=upgrade"),
        ("http://shop.test/a", {"fields": {"Host": "blog.test"}}, "hit", "fresh",
         "edgeproxy; hit; ttl=3600"),
    ],
)  # fmt: skip
async def test_what_is_foretold_is_what_happens(
    port: AdminPort, url: str, request_: dict[str, Any], result: str, why: str, cache_status: str
) -> None:
    await fill(port)
    port.origin.route("/mine", Answer(200, {"Cache-Control": "private"}, b"x"))
    await port.served.get("/mine")
    await port.served.purge(by_url("/b"), mode=Mode.INVALIDATE)
    await port.served.purge(by_url("/c"), mode=Mode.DELETE)
    told = await explained(port, url, **request_)
    assert (told["result"], told["cache_status"]) == (result, cache_status)
    assert why in told["why"]
    assert (told["entry"] is not None) == (result in ("hit", "stale"))
    if result in ("hit", "stale", "refuse") and "Host" not in request_.get("fields", {}):
        path = url.removeprefix("http://shop.test")
        fields = request_.get("fields", {})
        answer = await port.served.get(path, fields, method=request_.get("method", "GET"))
        assert answer.field("cache-status") == cache_status


async def test_the_variants_under_a_key_are_told(port: AdminPort) -> None:
    port.origin.route("/n", Answer(200, {"Cache-Control": HOUR, "Vary": "X-N"}, b"x"))
    for number in "12":
        await port.served.get("/n", {"X-N": number})
    told = await explained(port, "http://shop.test/n", fields={"X-N": "2"})
    assert told["entry"]["variant"] == {"x-n": "2"}
    assert [other["variant"] for other in told["others"]] == [{"x-n": "1"}]
    other = await explained(port, "http://shop.test/n", fields={"X-N": "3"})
    assert (other["result"], other["cache_status"]) == ("miss", "edgeproxy; fwd=vary-miss")
    assert (other["vary"], len(other["others"])) == (["x-n"], 2)


async def test_an_issued_cache_buster_is_seen_through(port: AdminPort) -> None:
    await fill(port)
    issued = (await port.call("POST", "/v1/tokens", {"site": "shop"})).body
    told = await explained(port, f"http://shop.test{issued['path']}/a")
    assert (told["cache_buster"], told["url"]) == (None, "http://shop.test/a")
    assert told["result"] == "miss"
    await port.served.get(f"{issued['path']}/a")
    assert (await explained(port, f"http://shop.test{issued['path']}/a"))["result"] == "hit"


@pytest.mark.parametrize(
    ("secret", "url", "status", "field"),
    [
        (MASTER, "http://other.test/", 400, "url"),
        (MASTER, "/a", 400, "url"),
        (MASTER, "http://shop.test/a b", 400, "url"),
        (MASTER, "http://u@shop.test/", 400, "url"),
        (EDITOR, "http://blog.test/", 403, None),
        (PREVIEWER, "http://shop.test/", 403, None),
        (PREVIEWER, "http://preview.shop.test/", 200, None),
    ],
)
async def test_of_what_nothing_is_foretold(
    port: AdminPort, secret: str, url: str, status: int, field: str | None
) -> None:
    answer = await port.call("POST", "/v1/explain", {"url": url}, secret=secret)
    assert answer.status == status
    assert [each["field"] for each in answer.body.get("errors", [])] == ([field] if field else [])


async def test_asking_changes_nothing(port: AdminPort) -> None:
    await fill(port)
    await port.served.purge(by_tag("home"), mode=Mode.INVALIDATE)
    asked = len(port.origin.requests)
    for _ in range(2):
        assert (await explained(port, "http://shop.test/a"))["result"] == "stale"
    assert len(port.origin.requests) == asked
