"""Purges by every selector, idempotency keys, cache busters, jobs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.admin.api.test_api import HOUR, fill, hits
from tests.admin.conftest import EDITOR, MASTER, READER, admin_port, token
from tests.kit import Answer

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_aiohttp.plugin import AiohttpClient

    from tests.admin.conftest import AdminPort
    from tests.kit import ScriptedOrigin

HOME = {"tags": ["home"], "site": "shop"}


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ({"prefixes": ["/a"]}, ["/b", "/c"]),
        ({"prefixes": ["http://shop.test/b"], "site": None}, ["/a", "/c"]),
        ({"prefixes": ["/"]}, []),
        ({"hosts": ["SHOP.test"], "site": None}, []),
        ({"hosts": ["www.shop.test"], "site": None}, ["/a", "/b", "/c"]),
        ({"patterns": ["^/[ab]$"]}, ["/c"]),
        ({"globs": ["/?"]}, []),
        ({"globs": ["http://*.test/c"]}, ["/a", "/b"]),
        ({"selectors": [{"tag": "home", "prefix": "/b"}]}, ["/a", "/c"]),
        ({"selectors": [{"tag": "HOME", "any_case": True, "host": "shop.test"}]}, ["/c"]),
        ({"selectors": [{"tag": "home", "pattern": "a"}, {"url": "/c"}]}, ["/b"]),
        ({"selectors": [{"tag": "a", "status": 404}]}, ["/a", "/b", "/c"]),
        ({"selectors": [{"status": 200.0}]}, []),
        ({"selectors": [{"content_type": "text/*"}]}, ["/a", "/b", "/c"]),
    ],
    ids=str,
)
async def test_what_each_selector_picks(
    port: AdminPort, body: dict[str, Any], left: list[str]
) -> None:
    await fill(port)
    asked = {"site": "shop", **body}
    dry = await port.call("POST", "/v1/purge", asked, headers={"Edge-Dry-Run": "1"})
    assert (dry.status, dry.body["dry_run"]) == (200, True)
    assert await hits(port, "/a", "/b", "/c") == ["/a", "/b", "/c"]
    done = await port.purge(**asked)
    assert (done.status, done.body["matched"]) == (200, dry.body["matched"])
    assert await hits(port, "/a", "/b", "/c") == left
    assert await hits(port, "/a", host="blog.test") == ["/a"]


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_word_for_a_dry_run_that_is_none_is_refused(port: AdminPort, dry_run: bool) -> None:
    """Whatever the body says."""
    asked = HOME | {"dry_run": dry_run}
    answer = await port.call("POST", "/v1/purge", asked, headers={"Edge-Dry-Run": "yes"})
    assert (answer.status, answer.body["errors"][0]["field"]) == (400, "Edge-Dry-Run")


async def test_images_are_purged_by_their_source(port: AdminPort) -> None:
    target = "/_next/image?url=%2Fi.jpg&w=100"
    port.origin.route(target, Answer(200, {"Cache-Control": HOUR}, b"x"))
    for by in ({"sources": ["/i.jpg"]}, {"selectors": [{"source_host": "SHOP.test"}]}):
        await port.served.get(target)
        done = await port.purge(site="shop", mode="delete", **by)
        assert done.body["matched"] == 1


async def test_stale_is_served_until_the_deadline(port: AdminPort) -> None:
    await fill(port)
    done = await port.purge(**HOME, mode="delete", deadline=60)
    assert done.body["deadline"] == 60
    stale = (await port.served.get("/a")).cache_status
    assert (stale["hit"], stale["detail"]) == (True, "invalidated")
    port.served.clock.now += 61
    assert (await port.served.get("/b")).cache_status["fwd"] == "uri-miss"


# -- once only


def key(value: str) -> dict[str, str]:
    return {"Idempotency-Key": value}


async def test_a_call_with_its_key_is_made_once(port: AdminPort) -> None:
    first = await port.call("POST", "/v1/purge", HOME, headers=key("k1"))
    again = await port.call("POST", "/v1/purge", HOME, headers=key("k1"))
    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert port.served.edge.view.catch_up() == 1
    token = {"site": "shop"}
    issued = [await port.call("POST", "/v1/tokens", token, headers=key("k1")) for _ in range(2)]
    assert [each.status for each in issued] == [201, 201]
    assert issued[0].body == issued[1].body
    assert port.served.edge.view.catch_up() == 2
    await port.call("POST", "/v1/purge", HOME, headers=key("k1"), secret=EDITOR)
    assert port.served.edge.view.catch_up() == 3, "each token has keys of its own"


@pytest.mark.parametrize(
    ("body", "headers"),
    [({**HOME, "mode": "delete"}, {}), (HOME, {"Edge-Dry-Run": "1"})],
)
async def test_a_key_is_for_one_call(
    port: AdminPort, body: dict[str, Any], headers: dict[str, str]
) -> None:
    await port.call("POST", "/v1/purge", HOME, headers=key("k1"))
    other = await port.call("POST", "/v1/purge", body, headers={**key("k1"), **headers})
    assert other.status == 422
    assert [each["field"] for each in other.body["errors"]] == ["Idempotency-Key"]
    assert port.served.edge.view.catch_up() == 1


async def test_two_at_once_are_one(port: AdminPort, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    journal = port.served.edge.service._journal
    append = journal.append

    async def held(record: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await append(record)

    monkeypatch.setattr(journal, "append", held)
    first = asyncio.create_task(port.call("POST", "/v1/purge", HOME, headers=key("k1")))
    await begun.wait()
    second = await port.call("POST", "/v1/purge", HOME, headers=key("k1"))
    go_on.set()
    assert (second.status, second.headers["Retry-After"]) == (409, "1")
    assert (await first).status == 200


async def test_what_failed_may_be_tried_again(port: AdminPort) -> None:
    wrong = {**HOME, "site": "nothing"}
    for _ in range(2):
        answer = await port.call("POST", "/v1/purge", wrong, headers=key("k1"))
        assert answer.status == 400
    assert (await port.call("POST", "/v1/purge", HOME, headers=key("k1"))).status == 200


@pytest.mark.parametrize("value", ["", "a b", "x" * 256, "\u00fc"])
async def test_what_is_no_key(port: AdminPort, value: str) -> None:
    answer = await port.call("POST", "/v1/purge", HOME, headers=key(value))
    assert answer.status == 400
    assert [each["field"] for each in answer.body["errors"]] == ["Idempotency-Key"]
    assert port.served.edge.view.catch_up() == 0


# -- who may


async def test_all_of_a_site_needs_its_own_permission(
    tmp_path: Path, origin: ScriptedOrigin, aiohttp_client: AiohttpClient
) -> None:
    tokens = [
        token("tagger", "t", actions=["purge"]),
        token("sweeper", "s", actions=["purge-everything"]),
    ]
    settings = {"admin": {"tokens": tokens}}
    async with admin_port(tmp_path, origin, aiohttp_client, settings) as port:
        for body, tagger, sweeper in (
            ({"tags": ["a"]}, 200, 403),
            ({"everything": True}, 403, 200),
            ({"everything": True, "tags": ["a"]}, 403, 200),
            ({"everything": True, "hosts": ["shop.test"]}, 403, 403),
            ({"prefixes": ["/"]}, 403, 403),
            ({"selectors": [{"prefix": "/"}]}, 403, 403),
            ({"selectors": [{"prefix": "/", "status": 404}]}, 200, 403),
            ({"hosts": ["shop.test"]}, 200, 403),
        ):
            statuses = [(await port.purge(by, site="shop", **body)).status for by in "ts"]
            assert statuses == [tagger, sweeper], body


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/purge", "POST"),
        ("OPTIONS", "/v1/entries", "GET,HEAD"),
        ("PUT", "/v1/tokens", "GET,HEAD,POST"),
        ("POST", "/v1/jobs/x", "DELETE,GET,HEAD"),
        ("PATCH", "/v1/status", "GET,HEAD"),
    ],
)
async def test_other_methods_are_refused(
    port: AdminPort, method: str, path: str, allow: str
) -> None:
    answer = await port.call(method, path)
    assert (answer.status, answer.headers["Allow"]) == (405, allow)
    assert answer.headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.api+json", 200),
        ("application/x-www-form-urlencoded", 200),
        ("application/json; charset=utf-16", 415),
        ("text/plain", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
async def test_bodies_are_json(port: AdminPort, content_type: str, status: int) -> None:
    """A form is what `curl -d` says that it sends."""
    answer = await port.call("POST", "/v1/purge", HOME, headers={"Content-Type": content_type})
    assert answer.status == status


# -- cache busters


@pytest.mark.parametrize(
    ("body", "host", "one_url"),
    [
        ({"site": "shop"}, None, False),
        ({"host": "shop.test"}, "shop.test", False),
        ({"url": "http://shop.test/a"}, "shop.test", True),
        ({"site": "shop", "url": "/a"}, None, True),
        ({"site": "shop", "url": "/a", "host": "shop.test"}, "shop.test", True),
    ],
    ids=str,
)
async def test_what_a_cache_buster_is_good_for(
    port: AdminPort, body: dict[str, Any], host: str | None, one_url: bool
) -> None:
    await fill(port)
    issued = await port.call("POST", "/v1/tokens", body)
    assert issued.status == 201
    assert issued.body["path"] == f"/cb:{issued.body['token']}"
    (told,) = (await port.call("GET", "/v1/tokens")).body["tokens"]
    assert told == {
        "token": issued.body["token"],
        "site": "shop",
        "host": host,
        "one_url": one_url,
        "position": 1,
        "time": port.served.clock.now,
        "actor": "master",
    }
    before = len(port.origin.requests_for("/a"))
    for _ in range(2):
        await port.served.get(f"{issued.body['path']}/a")
    assert len(port.origin.requests_for("/a")) == before + 1


@pytest.mark.parametrize(
    ("secret", "body", "status", "field"),
    [
        (MASTER, {}, 400, "site"),
        (MASTER, {"site": "*"}, 400, "site"),
        (MASTER, {"site": "shop", "url": "/a b"}, 400, "url"),
        (MASTER, {"host": "other.test"}, 400, "host"),
        (MASTER, {"host": "blog.test", "url": "http://shop.test/"}, 400, "host"),
        (EDITOR, {"site": "blog"}, 403, None),
        (READER, {"site": "shop"}, 403, None),
    ],
    ids=str,
)
async def test_which_cache_busters_are_not_issued(
    port: AdminPort, secret: str, body: dict[str, Any], status: int, field: str | None
) -> None:
    answer = await port.call("POST", "/v1/tokens", body, secret=secret)
    assert answer.status == status
    assert [each["field"] for each in answer.body.get("errors", [])] == ([field] if field else [])
    assert port.served.edge.view.catch_up() == 0


async def test_cache_busters_are_good_for_the_token_s_environment(
    tmp_path: Path, origin: ScriptedOrigin, aiohttp_client: AiohttpClient
) -> None:
    tokens = [token("previewer", "p", environments=["preview"])]
    settings = {"admin": {"tokens": tokens}}
    async with admin_port(tmp_path, origin, aiohttp_client, settings) as port:
        for body, status in (
            ({"site": "shop"}, 403),
            ({"site": "shop", "url": "/a"}, 403),
            ({"host": "shop.test"}, 403),
            ({"host": "preview.shop.test"}, 201),
            ({"url": "http://preview.shop.test/a"}, 201),
        ):
            assert (await port.call("POST", "/v1/tokens", body, secret="p")).status == status, body


# -- jobs, sites, status


async def test_a_job_fetches_anew_what_was_purged(port: AdminPort) -> None:
    await fill(port)
    purged = await port.purge(EDITOR, **HOME, refresh=True)
    path = f"/v1/jobs/{purged.body['job']}"
    async with asyncio.timeout(10):
        while (job := (await port.call("GET", path)).body)["state"] == "running":
            await asyncio.sleep(0.01)
    assert (job["state"], job["done"], job["total"]) == ("done", 2, 2)
    assert (job["purge_id"], job["actor"], job["sites"]) == (purged.body["id"], "editor", ["shop"])
    assert await hits(port, "/a", "/b") == ["/a", "/b"]
    assert (await port.call("GET", "/v1/jobs")).body == {"jobs": [job], "next": None}


async def test_a_job_is_cancelled_by_who_may_purge(
    tmp_path: Path, origin: ScriptedOrigin, aiohttp_client: AiohttpClient
) -> None:
    settings = {"admin": {"refresh_rate": 1}}
    async with admin_port(tmp_path, origin, aiohttp_client, settings) as port:
        await fill(port)
        path = f"/v1/jobs/{(await port.purge(site='*', everything=True, refresh=True)).body['job']}"
        assert (await port.call("GET", path, secret=EDITOR)).status == 404, "the blog is in it"
        assert (await port.call("DELETE", path, secret=READER)).status == 403
        assert (await port.call("GET", "/v1/jobs", secret=EDITOR)).body["jobs"] == []
        assert (await port.call("DELETE", path)).status == 200
        async with asyncio.timeout(10):
            while (await port.call("GET", path)).body["state"] == "running":
                await asyncio.sleep(0.01)
        assert (await port.call("GET", path)).body["state"] == "cancelled"


@pytest.mark.parametrize("name", ["nothing", "..%2Fjobs", "%00", "x" * 500])
async def test_there_is_no_such_job(port: AdminPort, name: str) -> None:
    assert (await port.call("GET", f"/v1/jobs/{name}")).status == 404


async def test_the_sites_that_a_token_may_read(port: AdminPort) -> None:
    await fill(port)
    (shop,) = (await port.call("GET", "/v1/sites", secret=EDITOR)).body["sites"]
    assert shop == {
        "name": "shop",
        "default": False,
        "actions": ["purge", "purge-everything", "read", "issue-token"],
        "environments": [
            {
                "environment": "production",
                "hosts": ["shop.test", "www.shop.test"],
                "entries": 3,
            },
            {"environment": "preview", "hosts": ["preview.shop.test"], "entries": 0},
        ],
        "origins": {
            "repeated": 0,
            "not_repeated": 0,
            "refused": 0,
            "each": [
                {
                    "url": port.origin.url,
                    "circuit": "closed",
                    "well": None,
                    "share": 1.0,
                    "load": 0,
                    "requests": 3,
                    "failures": {"unreachable": 0, "broken": 0, "late": 0, "status": 0},
                    "opened": 0,
                }
            ],
        },
    }
    first = await port.call("GET", "/v1/sites?limit=1", secret=READER)
    second = await port.call("GET", f"/v1/sites?limit=1&cursor={first.body['next']}")
    assert [first.body["sites"][0]["name"], second.body["sites"][0]["name"]] == ["blog", "shop"]
    assert second.body["next"] is None


async def test_how_the_node_is(port: AdminPort) -> None:
    await fill(port)
    port.served.clock.now += 90
    await port.purge(**HOME)
    told = (await port.call("GET", "/v1/status")).body
    assert (told["uptime"], told["position"], told["streams"]) == (90, 1, 0)
    assert told["workers"] == [
        {"number": 0, "pid": 11, "ready": True, "in_flight": 1, "connections": 2}
    ]
    assert (told["store"]["kind"], told["store"]["entries"]) == ("lmdb", 4)
    assert 0 < told["store"]["bytes"] < told["store"]["max_bytes"]
    assert told["warnings"] == []
    head = await port.call("HEAD", "/v1/status")
    assert (head.status, head.body) == (200, None)
