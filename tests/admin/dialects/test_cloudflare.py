"""Cloudflare's purge_cache and invalidate_cache, as its document and its own client have them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import cloudflare
import httpx
import pytest

from edgeproxy.invalidation.journal import JournalError, LocalJournal
from edgeproxy.invalidation.selectors import Mode
from tests.admin.conftest import admin_port, token
from tests.admin.dialects.conftest import PAGES, secret, store
from tests.invalidation.samples import new_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from pytest_aiohttp.plugin import AiohttpClient

    from tests.admin.conftest import AdminPort, Called
    from tests.kit import ScriptedOrigin

BASES = ("/client/v4/zones/shop", "/zones/shop")
PURGE = f"{BASES[0]}/purge_cache"
INVALIDATE = f"{BASES[0]}/invalidate_cache"
OF_PREVIEW = "/zones/shop/environments/preview/purge_cache"

TAGS = {"/a": "Cache-Tag: Contacts,a", "/b": "Cache-Tag: labels"}
EVERYTHING = {"purge_everything": True}


async def say(
    port: AdminPort,
    body: Any,
    by: str = "shop",
    *,
    path: str = PURGE,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> Called:
    """A call as Cloudflare's clients make it."""
    return await port.call(method, path, body, secret=secret(by), headers=headers)


def errors(answer: Called) -> list[tuple[int, str | None]]:
    """The codes and the places of what is wrong, in an envelope that is one."""
    body = answer.body
    assert (body["success"], body["messages"], body["result"]) == (False, [], None)
    assert all(each["message"] for each in body["errors"])
    return [(each["code"], each.get("source", {}).get("pointer")) for each in body["errors"]]


def journal(port: AdminPort) -> int:
    return port.served.edge.view.catch_up()


# -- success, and what it does


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    ("endpoint", "becomes"), [("purge_cache", "missed"), ("invalidate_cache", "stale")]
)
async def test_with_and_without_the_base(
    speaking: AdminPort, base: str, endpoint: str, becomes: str
) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, {"tags": ["contacts"]}, path=f"{base}/{endpoint}")
    assert answer.status == 200
    result = answer.body.pop("result")
    assert answer.body == {"success": True, "errors": [], "messages": []}
    assert len(result["id"]) == 32
    assert answer.headers["Edge-Matched"] == "2"
    assert [await pages.how(target) for target in ("/a", "/b", "/c")] == [becomes, "fresh", "fresh"]
    assert await pages.how("/a", "blog.test") == "fresh"


@pytest.mark.parametrize(
    ("body", "left"),
    [
        pytest.param({"tags": ["CONTACTS", "nothing"]}, "b c blog", id="tags: in any case"),
        pytest.param({"files": ["https://shop.test/a"]}, "b c preview blog", id="files"),
        pytest.param(
            {"files": [{"url": "http://shop.test/a", "headers": {"CF-Device-Type": "mobile"}}]},
            "b c preview blog",
            id="files with headers",
        ),
        pytest.param({"hosts": ["SHOP.test"]}, "preview blog", id="hosts"),
        pytest.param({"prefixes": ["shop.test/a"]}, "b c preview blog", id="prefixes"),
        pytest.param({"prefixes": ["shop.test"]}, "preview blog", id="a prefix without a path"),
        pytest.param({"prefixes": ["shop.test/"]}, "preview blog", id="a prefix of all"),
        pytest.param(
            {"tags": ["labels"], "hosts": ["preview.shop.test"], "prefixes": ["shop.test/c"]},
            "a blog",
            id="tags, hosts and prefixes together",
        ),
        pytest.param(EVERYTHING, "blog", id="everything"),
        pytest.param(
            {"purge_everything": False, "tags": ["labels"]}, "a c preview blog", id="not everything"
        ),
    ],
)
async def test_what_each_kind_clears(speaking: AdminPort, body: Any, left: str) -> None:
    pages = await store(speaking, TAGS)
    assert (await say(speaking, body)).status == 200
    hosts = {"preview": "preview.shop.test/a", "blog": "blog.test/a"}
    expected = {hosts.get(name, f"shop.test/{name}") for name in left.split()}
    assert set(await pages.left()) == expected


async def test_an_environment_is_cleared_alone(speaking: AdminPort) -> None:
    pages = await store(speaking, TAGS)
    assert (await say(speaking, EVERYTHING, path=OF_PREVIEW)).status == 200
    assert [await pages.how("/a", host) for host in ("preview.shop.test", "shop.test")] == [
        "missed",
        "fresh",
    ]
    path = OF_PREVIEW.replace("preview", "production").replace("purge", "invalidate")
    assert (await say(speaking, EVERYTHING, path=path)).status == 200
    assert await pages.how("/b") == "stale"


async def test_the_environments_of_the_token(speaking: AdminPort) -> None:
    pages = await store(speaking, TAGS)
    assert (await say(speaking, EVERYTHING, "preview")).status == 200
    assert set(await pages.left()) == {host + path for host, path in PAGES} - {
        "preview.shop.test/a"
    }
    path = OF_PREVIEW.replace("preview", "production")
    answer = await say(speaking, EVERYTHING, "preview", path=path)
    assert (answer.status, errors(answer)) == (403, [(10000, None)])


async def test_a_dry_run_counts_and_clears_nothing(speaking: AdminPort) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, EVERYTHING, headers={"Edge-Dry-Run": "1"})
    assert (answer.status, answer.body["success"]) == (200, True)
    assert answer.headers["Edge-Matched"] == "4"
    assert len(await pages.left()) == len(PAGES)


async def test_the_journal_says_who_and_what(speaking: AdminPort) -> None:
    answer = await say(speaking, {"tags": ["A"]}, path=INVALIDATE)
    await speaking.served.edge.close()
    opened = LocalJournal(speaking.served.place.directory / "journal", new_head())
    (record,) = opened.since(0, 9)
    assert (record.id, record.mode, record.actor, record.dialect) == (
        answer.body["result"]["id"],
        Mode.INVALIDATE,
        "shop",
        "cloudflare",
    )


@pytest.fixture
async def zoned(
    tmp_path: Path, origin: ScriptedOrigin, aiohttp_client: AiohttpClient
) -> AsyncIterator[AdminPort]:
    """An admin port where the shop has a zone's id, and at most three items are in a call."""
    config = {
        "admin": {
            "tokens": [token("shop", secret("shop"), sites=["shop"])],
            "dialects": {"cloudflare": {"max_items": 3}},
        },
        "sites": {"shop": {"ids": ["023e105f4ecef8ad9ca31a8372d0c353"]}},
    }
    async with admin_port(tmp_path, origin, aiohttp_client, config) as made:
        yield made


async def test_a_zone_may_go_by_its_id(zoned: AdminPort) -> None:
    pages = await store(zoned, TAGS)
    path = "/client/v4/zones/023e105f4ecef8ad9ca31a8372d0c353/purge_cache"
    assert (await say(zoned, EVERYTHING, path=path)).status == 200
    assert await pages.left() == ["blog.test/a"]


async def test_the_number_of_items_is_a_setting(zoned: AdminPort) -> None:
    assert (await say(zoned, {"tags": list("abc")})).status == 200
    answer = await say(zoned, {"tags": list("abcd")})
    assert (answer.status, errors(answer)) == (400, [(1092, "/tags")])


# -- the vendor's own client


async def test_the_vendor_s_own_client(speaking: AdminPort) -> None:
    pages = await store(speaking, TAGS)
    for base in ("/client/v4", ""):
        await asyncio.to_thread(drive, f"http://127.0.0.1:{speaking.client.port}{base}")
    assert [await pages.how(target) for target in ("/a", "/b", "/c")] == [
        "missed",
        "stale",
        "fresh",
    ]
    assert await pages.how("/a", "blog.test") == "fresh"


def drive(base_url: str) -> None:
    """Every form of the call, in Cloudflare's own client for Python."""
    client = cloudflare.Cloudflare(
        api_token=secret("shop"), base_url=base_url, max_retries=0, http_client=httpx.Client()
    )
    with client:
        for body in (
            {"tags": ["contacts"]},
            {"files": ["http://shop.test/a"]},
            {"files": [{"url": "http://shop.test/a", "headers": {"CF-IPCountry": "US"}}]},
            {"prefixes": ["shop.test/a"]},
            {"hosts": ["www.shop.test"]},
        ):
            answer = client.cache.purge(zone_id="shop", **body)  # type: ignore[call-overload]
            assert answer is not None
            assert len(answer.id) == 32
        answered = client.cache.invalidate(zone_id="shop", tags=["labels"])
        assert answered is not None
        purged = client.cache.purge_environment(
            zone_id="shop", environment_id="preview", purge_everything=True
        )
        assert purged is not None
        with pytest.raises(cloudflare.BadRequestError) as wrong:
            client.cache.purge(zone_id="shop", tags=[])
        assert [error.code for error in wrong.value.errors] == [1012]
        with pytest.raises(cloudflare.PermissionDeniedError):
            client.cache.purge(zone_id="blog", tags=["a"])
    with (
        cloudflare.Cloudflare(api_token="nobody-s", base_url=base_url, max_retries=0) as stranger,
        pytest.raises(cloudflare.AuthenticationError),
    ):
        stranger.cache.purge(zone_id="shop", tags=["a"])


# -- credentials


@pytest.mark.parametrize(
    ("by", "status", "code"),
    [
        pytest.param("nobody", 401, 10000, id="unknown"),
        pytest.param("expired", 401, 10000, id="expired"),
        pytest.param("disabled", 403, 10000, id="disabled"),
        pytest.param("elsewhere", 403, 9109, id="from elsewhere"),
        pytest.param("reader", 403, 10000, id="may only read"),
    ],
)
@pytest.mark.parametrize("path", [PURGE, INVALIDATE, OF_PREVIEW])
async def test_who_may_not(speaking: AdminPort, path: str, by: str, status: int, code: int) -> None:
    answer = await say(speaking, {"tags": ["a"]}, by, path=path)
    assert (answer.status, errors(answer)) == (status, [(code, None)])
    assert secret(by) not in str(answer.body)
    assert journal(speaking) == 0


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic YTpi", secret("shop")])
async def test_without_a_token(speaking: AdminPort, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await speaking.call("POST", PURGE, EVERYTHING, secret=None, headers=headers)
    assert (answer.status, errors(answer)) == (401, [(9106, None)])


async def test_everything_takes_more_than_a_tag(speaking: AdminPort) -> None:
    assert (await say(speaking, {"tags": ["a"]}, "narrow")).status == 200
    answer = await say(speaking, EVERYTHING, "narrow")
    assert (answer.status, errors(answer), journal(speaking)) == (403, [(10000, None)], 1)


@pytest.mark.parametrize(
    ("by", "zone", "status", "code"),
    [
        pytest.param("shop", "blog", 403, 10000, id="another's"),
        pytest.param("shop", "none", 403, 10000, id="none, and none of the token's"),
        pytest.param("master", "none", 404, 7003, id="none"),
    ],
)
async def test_zones_that_can_t_be_purged(
    speaking: AdminPort, by: str, zone: str, status: int, code: int
) -> None:
    answer = await say(speaking, EVERYTHING, by, path=f"/client/v4/zones/{zone}/purge_cache")
    assert (answer.status, errors(answer)) == (status, [(code, None)])


async def test_too_many_calls_in_a_time(speaking: AdminPort) -> None:
    assert (await say(speaking, {"tags": ["a"]}, "hurried")).status == 200
    answer = await say(speaking, {"tags": ["a"]}, "hurried")
    assert (answer.status, errors(answer)) == (429, [(1134, None)])
    assert answer.headers["Retry-After"] == "60"


async def test_a_token_that_is_used_up(speaking: AdminPort) -> None:
    assert (await say(speaking, {"tags": ["a"]}, "spent")).status == 200
    answer = await say(speaking, {"tags": ["a"]}, "spent")
    assert (answer.status, errors(answer)) == (403, [(10000, None)])


# -- bodies


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        pytest.param(None, [(1012, None)], id="nothing"),
        pytest.param({"tag": ["a"]}, [(1012, None)], id="none of the kinds"),
        pytest.param({"purge_everything": False}, [(1012, None)], id="not everything"),
        pytest.param({"purge_everything": 1}, [(1014, "/purge_everything")], id="1"),
        pytest.param({"tags": []}, [(1012, "/tags")], id="no tags"),
        pytest.param({"tags": "a"}, [(1014, "/tags")], id="no list"),
        pytest.param({"tags": ["a"] * 101}, [(1092, "/tags")], id="101 tags"),
        pytest.param({"files": ["http://shop.test/"] * 101}, [(1092, "/files")], id="101 files"),
        pytest.param({"hosts": ["shop.test"] * 101}, [(1092, "/hosts")], id="101 hosts"),
        pytest.param({"prefixes": ["shop.test"] * 101}, [(1092, "/prefixes")], id="101 prefixes"),
        pytest.param(
            {"tags": ["", 7, "a\x00", "b" * 1025]},
            [(1092, "/tags/0"), (1014, "/tags/1"), (1092, "/tags/2"), (1092, "/tags/3")],
            id="tags that are none",
        ),
        pytest.param(
            EVERYTHING | {"tags": ["a"]}, [(1092, "/purge_everything")], id="everything and tags"
        ),
        pytest.param(
            {"files": ["http://shop.test/"], "tags": ["a"]}, [(1092, "/files")], id="files and tags"
        ),
        pytest.param(
            {"files": ["/a", "ftp://shop.test/", "http://blog.test/a", "http://else.test/"]},
            [(1092, f"/files/{at}") for at in range(4)],
            id="files that are none, or another's",
        ),
        pytest.param(
            {"files": [{"headers": {}}, {"url": "http://shop.test/", "headers": []}]},
            [(1014, "/files/0/url"), (1014, "/files/1/headers")],
            id="files with headers",
        ),
        pytest.param(
            {"hosts": ["blog.test", "a b", "http://shop.test"]},
            [(1092, f"/hosts/{at}") for at in range(3)],
            id="hosts",
        ),
        pytest.param(
            {"prefixes": ["http://shop.test/a", "shop.test/a?b", "shop.test/#a", "blog.test/"]},
            [(1092, f"/prefixes/{at}") for at in range(4)],
            id="prefixes",
        ),
        pytest.param(b"{", [(6007, None)], id="no JSON"),
        pytest.param(b"[]", [(6007, None)], id="no object"),
        pytest.param(b'{"tags":["a"],"tags":["b"]}', [(6007, None)], id="a key twice"),
    ],
)
async def test_bodies_that_are_wrong(
    speaking: AdminPort, body: Any, wrong: list[tuple[int, str | None]]
) -> None:
    answer = await say(speaking, body)
    assert (answer.status, errors(answer)) == (400, wrong)
    assert journal(speaking) == 0


@pytest.mark.parametrize("body", [{"tags": list(map(str, range(100)))}, {"tags": ["a" * 1024]}])
async def test_what_is_just_within_the_limits(speaking: AdminPort, body: Any) -> None:
    assert (await say(speaking, body)).status == 200


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        pytest.param(b"a" * (1 << 20 | 1), "application/json", 413, 10413, id="too large"),
        pytest.param(b"tags=a", "application/x-www-form-urlencoded", 415, 10415, id="a form"),
    ],
)
async def test_bodies_that_are_not_read(
    speaking: AdminPort, body: bytes, kind: str, status: int, code: int
) -> None:
    answer = await say(speaking, body, headers={"Content-Type": kind})
    assert (answer.status, errors(answer)) == (status, [(code, None)])


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", PURGE, 405, 10405),
        ("DELETE", "/zones/shop/invalidate_cache", 405, 10405),
        ("POST", "/client/v4/user", 404, 7000),
        ("POST", "/zones/shop/environments/staging/purge_cache", 404, 7000),
    ],
)
async def test_other_methods_and_paths(
    speaking: AdminPort, method: str, path: str, status: int, code: int
) -> None:
    answer = await say(speaking, None, path=path, method=method)
    assert (answer.status, errors(answer)) == (status, [(code, None)])
    assert answer.headers.get("Allow") == ("POST" if status == 405 else None)


async def test_what_can_t_be_recorded(speaking: AdminPort, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: Any, **__: Any) -> None:
        raise JournalError("no room")

    monkeypatch.setattr(speaking.served.edge.service, "purge", failing)
    answer = await say(speaking, {"tags": ["a"]})
    assert (answer.status, errors(answer)) == (503, [(10503, None)])
