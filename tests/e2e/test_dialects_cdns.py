"""Cloudflare's and Fastly's own clients, and the conventions of Varnish's users, through a running
edge of two workers: what readers get next, in that site alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import cloudflare
import fastly
from fastly.api import purge_api

from tests.e2e.test_dialects import HOSTS, VENDOR, call, fill, page, result
from tests.kit import fetch
from tests.kit.edge import TOKEN, token_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.conftest import StartEdge
    from tests.kit import EdgeProcess, Response, ScriptedOrigin

FRESH = ["fresh"] * 3


async def start(start_edge: StartEdge, origin: ScriptedOrigin) -> EdgeProcess:
    """An edge with two sites in front of one origin: the shop may be purged at the public port from
    here, the blog with a token."""
    tokens = [
        {"name": "kit", "hash": token_hash(TOKEN)},
        {"name": "vendor", "hash": token_hash(VENDOR), "sites": ["shop"]},
    ]
    site = {"origins": [{"url": origin.url}]}
    shop = {"hosts": ["shop.test"], "preview_hosts": ["preview.test"], "ids": ["0123abcd"]}
    return await start_edge(
        origin,
        workers=2,
        config={
            "admin": {"tokens": tokens},
            "sites": {
                "shop": {**site, **shop, "varnish": {"networks": ["127.0.0.1"]}},
                "blog": {**site, "hosts": ["blog.test"], "varnish": {"tokens": True}},
            },
        },
    )


async def results(edge: EdgeProcess, target: str) -> list[str]:
    """How the page is answered on each host."""
    return [await result(edge, target, host) for host in HOSTS]


async def refreshed(edge: EdgeProcess, origin: ScriptedOrigin, target: str, *, seen: int) -> None:
    """The page is stale once, on production; behind that it is fetched, and fresh again."""
    assert await results(edge, target) == ["stale", "stale", "fresh"]
    await origin.seen(target, seen + 2)
    while await results(edge, target) != FRESH:
        pass
    assert origin.counts[target] == seen + 2


async def test_cloudflare(origin: ScriptedOrigin, start_edge: StartEdge) -> None:
    edge = await start(start_edge, origin)
    await fill(edge, origin, {"/a": page(Cache_Tag="News,a"), "/b": page(Cache_Tag="b")})

    async def ask(method: Callable[[Any], Callable[..., Any]], **body: Any) -> None:
        def blocking() -> None:
            with cloudflare.Cloudflare(
                api_token=VENDOR, base_url=f"{edge.admin_url}/client/v4", max_retries=0
            ) as client:
                assert method(client.cache)(zone_id="0123abcd", **body).id

        await asyncio.to_thread(blocking)

    await ask(lambda cache: cache.purge, tags=["NEWS"])
    assert await results(edge, "/a") == ["missed", "missed", "fresh"]
    assert await results(edge, "/b") == FRESH
    await ask(lambda cache: cache.invalidate, tags=["news"])
    await refreshed(edge, origin, "/a", seen=5)
    await ask(lambda cache: cache.purge, files=["https://shop.test/a"])
    assert await results(edge, "/a") == ["missed", "fresh", "fresh"]
    await ask(lambda cache: cache.purge, prefixes=["preview.test/b"])
    assert await results(edge, "/b") == ["fresh", "missed", "fresh"]
    await ask(lambda cache: cache.purge, hosts=["shop.test"])
    assert await results(edge, "/b") == ["missed", "fresh", "fresh"]
    await ask(lambda cache: cache.purge, purge_everything=True)
    assert [await results(edge, each) for each in ("/a", "/b")] == [
        ["missed", "missed", "fresh"]
    ] * 2


async def test_fastly(origin: ScriptedOrigin, start_edge: StartEdge) -> None:
    edge = await start(start_edge, origin)
    pages = {"/a": page(Surrogate_Key="news a"), "/b": page(Surrogate_Key="b")}
    await fill(edge, origin, pages)

    async def ask(method: str, *arguments: str, **settings: Any) -> Any:
        def blocking() -> Any:
            configuration = fastly.Configuration(host=edge.admin_url, api_key={"token": VENDOR})
            with fastly.ApiClient(configuration) as client:
                return getattr(purge_api.PurgeApi(client), method)(*arguments, **settings)

        return await asyncio.to_thread(blocking)

    assert (await ask("purge_tag", "0123abcd", "news")).status == "ok"
    assert await results(edge, "/a") == ["missed", "missed", "fresh"]
    assert await results(edge, "/b") == FRESH
    await ask("purge_tag", "shop", "news", fastly_soft_purge=1)
    await refreshed(edge, origin, "/a", seen=5)
    await ask("bulk_purge_tag", "shop", surrogate_key="x b")
    assert await results(edge, "/b") == ["missed", "missed", "fresh"]
    await ask("purge_single_url", "shop.test/a")
    assert await results(edge, "/a") == ["missed", "fresh", "fresh"]
    fields = {"Fastly-Key": VENDOR, "Host": "shop.test"}
    answer = await call(edge, "PURGE", "/b", None, fields)
    assert (answer.status, answer.json()["status"]) == (200, "ok")
    assert await results(edge, "/b") == ["missed", "fresh", "fresh"]
    answer = await call(edge, "POST", "/service/shop/purge_all", None, {"Fastly-Key": VENDOR})
    assert (answer.status, answer.json()) == (200, {"status": "ok"})
    assert [await results(edge, each) for each in ("/a", "/b")] == [
        ["missed", "missed", "fresh"]
    ] * 2


async def test_varnish(origin: ScriptedOrigin, start_edge: StartEdge) -> None:
    edge = await start(start_edge, origin)
    pages = {"/a": page(xkey="news a"), "/b": page(X_Cache_Tags="b,c")}
    await fill(edge, origin, pages)

    async def ask(
        method: str, target: str, fields: Mapping[str, str], host: str = "shop.test"
    ) -> Response:
        return await fetch(edge.url + target, method=method, fields={"Host": host, **fields})

    answer = await ask("PURGE", "/a", {})
    assert (answer.status, answer.reason) == (200, "Purged")
    assert await results(edge, "/a") == ["missed", "fresh", "fresh"]
    answer = await ask("PURGEKEYS", "/", {"xkey-purge": "news"})
    assert answer.reason == "Purged 2 objects, expired 0 objects"
    assert await results(edge, "/a") == ["missed", "missed", "fresh"]
    answer = await ask("PURGEKEYS", "/", {"xkey-softpurge": "news"})
    assert answer.reason == "Purged 0 objects, expired 2 objects"
    await refreshed(edge, origin, "/a", seen=6)
    answer = await ask("BAN", "/", {"X-Cache-Tags": "(^|,)(c)(,|$)", "X-Host": "^shop"})
    assert answer.reason == "Banned"
    assert await results(edge, "/b") == ["missed", "fresh", "fresh"]
    assert (await ask("BAN", "/", {"X-Url": "^/[a-b]$", "X-Host": ".*"})).status == 200
    for target in pages:
        assert await results(edge, target) == ["missed", "missed", "fresh"]

    seen = origin.counts["/a"]
    assert not (await ask("GET", "/a", {"Cache-Control": "no-cache"})).cache_status.get("hit")
    assert origin.counts["/a"] == seen + 1
    assert await results(edge, "/a") == FRESH

    answer = await ask("PURGE", "/a", {}, "blog.test")
    assert (answer.status, origin.counts["/a"]) == (405, seen + 1)
    answer = await ask("PURGE", "/a", {"X-Purge-Token": edge.token}, "blog.test")
    assert (answer.status, await results(edge, "/a")) == (200, ["fresh", "fresh", "missed"])
    assert edge.token not in edge.log + edge.stdout
