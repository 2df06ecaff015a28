"""The conventions of Varnish's users at the public port, as the VCL of FOSHttpCache and others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.invalidation.journal import JournalError, LocalJournal
from edgeproxy.invalidation.selectors import Mode
from edgeproxy.invalidation.service import TooManyRules
from tests.admin.conftest import admin_port, token
from tests.admin.dialects.conftest import HOUR, PAGES, SETTINGS, Pages, secret
from tests.invalidation.samples import new_head
from tests.kit import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pytest_aiohttp.plugin import AiohttpClient

    from tests.admin.conftest import AdminPort
    from tests.kit import Response, ScriptedOrigin

FIELDS = {
    "/a": {"X-Cache-Tags": "node:1,list"},
    "/b": {"xkey": "node:10 list", "Content-Type": "text/html; charset=utf-8"},
    "/c": {"X-Magento-Tags": "cat_p_1,cat_p"},
}
ALL = {host + path for host, path in PAGES}
SHOP = {each for each in ALL if "shop" in each}


@pytest.fixture
async def varnish(
    tmp_path: Path, origin: ScriptedOrigin, aiohttp_client: AiohttpClient
) -> AsyncIterator[AdminPort]:
    """An edge whose shop may be purged from here, and whose blog from elsewhere or by a token;
    a third site has nothing of that."""
    tokens = [token(name, secret(name), **settings) for name, settings in SETTINGS.items()]
    tokens.append(token("blog", secret("blog"), sites=["blog"]))
    config = {
        "admin": {"tokens": tokens},
        "sites": {
            "shop": {"varnish": {"networks": ["127.0.0.0/8"]}},
            "blog": {"varnish": {"networks": ["192.0.2.0/24"], "tokens": True}},
            "third": {"hosts": ["third.test"], "origins": [{"url": origin.url}]},
        },
    }
    async with admin_port(tmp_path, origin, aiohttp_client, config) as made:
        yield made


async def say(
    port: AdminPort,
    method: str,
    target: str = "/",
    fields: dict[str, str] | list[tuple[str, str]] | None = None,
    host: str = "shop.test",
) -> Response:
    return await port.served.get(target, fields or {}, method=method, host=host)


async def fill(port: AdminPort) -> Pages:
    """Have the pages stored."""
    for target, fields in FIELDS.items():
        port.origin.route(target, Answer(200, {"Cache-Control": HOUR, **fields}, target.encode()))
    for host, target in PAGES:
        assert (await port.served.get(target, host=host)).status == 200
    return Pages(port, PAGES)


def journal(port: AdminPort) -> int:
    return port.served.edge.view.catch_up()


def told(answer: Response) -> tuple[int, str, str]:
    return answer.status, answer.reason, answer.text.strip()


# -- what is purged


@pytest.mark.parametrize(
    ("method", "target", "fields", "answered", "gone"),
    [
        pytest.param("PURGE", "/a", {}, "Purged", {"shop.test/a"}, id="a path"),
        pytest.param(
            "PURGE", "/.*", {"X-Purge-Method": "regex"}, "Purged",
            {"shop.test/a", "shop.test/b", "shop.test/c"}, id="WordPress: all of a host",
        ),
        pytest.param(
            "PURGE", "/[ab]$", {"X-Purge-Method": "regex"}, "Purged",
            {"shop.test/a", "shop.test/b"}, id="WordPress: a pattern",
        ),
        pytest.param(
            "PURGE", "/a", {"X-Purge-Method": "default"}, "Purged", {"shop.test/a"},
            id="WordPress: a path",
        ),
        pytest.param(
            "PURGE", "/", {"X-Purge-Method": "tags", "X-Cache-Tags-Pattern": r"\bnode:1\b"},
            "Purged", {"shop.test/a", "preview.shop.test/a"}, id="WordPress: tags",
        ),
        pytest.param(
            "PURGE", "/", {"xkey": "list nothing"}, "Invalidated 3 objects",
            {"shop.test/a", "preview.shop.test/a", "shop.test/b"}, id="xkey",
        ),
        pytest.param(
            "PURGE", "/", {"X-Magento-Tags-Pattern": "((^|,)cat_p(,|$))|((^|,)node:1(,|$))"},
            "Purged", {"shop.test/a", "preview.shop.test/a", "shop.test/c"}, id="Magento",
        ),
        pytest.param(
            "PURGE", "/", {"X-Magento-Tags-Pattern": ".*"}, "Purged", SHOP, id="Magento: all"
        ),
        pytest.param(
            "BAN", "/", {"X-Host": ".*", "X-Url": ".*", "X-Content-Type": ".*"}, "Banned", SHOP,
            id="BAN: all",
        ),
        pytest.param(
            "BAN", "/", {"X-Host": "^(shop.test|www.shop.test)$", "X-Url": "^/[bc]"}, "Banned",
            {"shop.test/b", "shop.test/c"}, id="BAN: host and path",
        ),
        pytest.param(
            "BAN", "/", {"X-Content-Type": "^text/"}, "Banned", {"shop.test/b"}, id="BAN: type"
        ),
        pytest.param(
            "BAN", "/", {"X-Url": ".*", "X-Cache-Tags": "(^|,)(node:1|cat_p)(,|$)"}, "Banned",
            {"shop.test/a", "preview.shop.test/a", "shop.test/c"}, id="BAN: tags",
        ),
        pytest.param(
            "BAN", "/", {"X-Host": "^shop", "X-Cache-Tags": "(^|,)(list)(,|$)"}, "Banned",
            {"shop.test/a", "shop.test/b"}, id="BAN: tags of a host",
        ),
        pytest.param(
            "BAN", "/", {"X-Cache-Tags": "node:1|cat_p_"}, "Banned", SHOP,
            id="Drupal: what begins so, too",
        ),
        pytest.param(
            "BAN", "/", {"Cache-Tags": "(node:1)(,.+)?$"}, "Banned",
            {"shop.test/a", "preview.shop.test/a"}, id="BAN: another pattern of tags",
        ),
        pytest.param(
            "PURGEKEYS", "/", {"xkey-purge": "node:1 cat_p"}, "Purged 3 objects, expired 0 objects",
            {"shop.test/a", "preview.shop.test/a", "shop.test/c"}, id="PURGEKEYS",
        ),
    ],
)  # fmt: skip
async def test_what_is_purged(
    varnish: AdminPort,
    method: str,
    target: str,
    fields: dict[str, str],
    answered: str,
    gone: set[str],
) -> None:
    pages = await fill(varnish)
    answer = await say(varnish, method, target, fields)
    assert told(answer) == (200, answered, answered)
    assert answer.field("edge-matched") == str(len(gone))
    assert ALL - set(await pages.left()) == gone


async def test_all_variants_of_a_path_go(varnish: AdminPort) -> None:
    fields = {"Cache-Control": HOUR, "Vary": "Accept-Language"}
    varnish.origin.route("/a", Answer(200, fields, b"a"))
    for language in ("de", "en"):
        await varnish.served.get("/a", {"Accept-Language": language})
    assert (await say(varnish, "PURGE", "/a")).field("edge-matched") == "2"


async def test_softly_purged_is_stale(varnish: AdminPort) -> None:
    pages = await fill(varnish)
    answer = await say(varnish, "PURGEKEYS", fields={"xkey-softpurge": "list"})
    assert told(answer) == (200,) + ("Purged 0 objects, expired 3 objects",) * 2
    assert [await pages.how(target) for target in ("/a", "/b", "/c")] == ["stale", "stale", "fresh"]
    fields = {"xkey-purge": "cat_p", "xkey-softpurge": "node:10"}
    answer = await say(varnish, "PURGEKEYS", fields=fields)
    assert answer.reason == "Purged 1 objects, expired 1 objects"


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("PURGE", {}),
        ("PURGE", {"xkey": "list"}),
        ("BAN", {"X-Url": ".*"}),
        ("PURGEKEYS", {"xkey-purge": "list"}),
    ],
)
async def test_a_dry_run_counts_and_clears_nothing(
    varnish: AdminPort, method: str, fields: dict[str, str]
) -> None:
    pages = await fill(varnish)
    answer = await say(varnish, method, "/a", {**fields, "Edge-Dry-Run": "1"})
    assert (answer.status, answer.field("edge-dry-run")) == (200, "1")
    assert int(answer.field("edge-matched") or 0) > 0
    assert set(await pages.left()) == ALL


async def test_the_journal_says_who_and_what(varnish: AdminPort) -> None:
    await say(varnish, "PURGE", "/a")
    await say(varnish, "PURGE", "/a", {"X-Purge-Token": secret("blog")}, host="blog.test")
    await varnish.served.edge.close()
    opened = LocalJournal(varnish.served.place.directory / "journal", new_head())
    records = opened.since(0, 9)
    assert [(each.actor, each.dialect, each.source) for each in records] == [
        ("varnish.networks", "varnish", "127.0.0.1"),
        ("blog", "varnish", "127.0.0.1"),
    ]
    assert {each.mode for each in records} == {Mode.DELETE}


# -- who may


@pytest.mark.parametrize("method", ["PURGE", "BAN", "PURGEKEYS"])
@pytest.mark.parametrize(
    ("host", "by"),
    [
        pytest.param("third.test", None, id="nobody may"),
        pytest.param("third.test", "master", id="nor with a token"),
        pytest.param("blog.test", None, id="not from here"),
        pytest.param("blog.test", "nobody", id="unknown token"),
        pytest.param("blog.test", "expired", id="expired token"),
        pytest.param("blog.test", "disabled", id="disabled token"),
        pytest.param("blog.test", "elsewhere", id="token of another network"),
    ],
)
async def test_to_strangers_there_is_no_such_method(
    varnish: AdminPort, method: str, host: str, by: str | None
) -> None:
    fields = {"xkey": "a", "xkey-purge": "a", "X-Url": ".*"}
    if by is not None:
        fields["X-Purge-Token"] = secret(by)
    answer = await say(varnish, method, "/a", fields, host=host)
    unsupported = await say(varnish, "TRACE", "/a", host=host)
    assert (answer.status, answer.text) == (405, unsupported.text)
    names = ("allow", "cache-control", "cache-status", "connection", "content-type")
    assert [answer.field(each) for each in names] == [unsupported.field(each) for each in names]
    assert journal(varnish) == 0
    assert varnish.origin.counts["/a"] == 0


async def test_a_token_purges_where_the_address_does_not(varnish: AdminPort) -> None:
    pages = await fill(varnish)
    for by in ("blog", "master"):
        answer = await say(varnish, "PURGE", "/a", {"X-Purge-Token": secret(by)}, "blog.test")
        assert told(answer) == (200, "Purged", "Purged")
    assert await pages.how("/a", "blog.test") == "missed"


@pytest.mark.parametrize(
    ("by", "method", "fields"),
    [
        pytest.param("shop", "PURGE", {}, id="another site's token"),
        pytest.param("reader", "PURGE", {}, id="may only read"),
        pytest.param("narrow", "BAN", {"X-Url": ".*"}, id="all takes more"),
    ],
)
async def test_a_token_that_may_not_that(
    varnish: AdminPort, by: str, method: str, fields: dict[str, str]
) -> None:
    answer = await say(varnish, method, "/a", {**fields, "X-Purge-Token": secret(by)}, "blog.test")
    assert answer.status == 403
    assert secret(by) not in answer.text
    assert journal(varnish) == 0


async def test_too_many_calls_in_a_time(varnish: AdminPort) -> None:
    fields = {"X-Purge-Token": secret("hurried")}
    statuses = [(await say(varnish, "PURGE", "/a", fields, "blog.test")).status for _ in range(2)]
    assert statuses == [403, 429]


async def test_a_reload_says_who_may_from_now_on(varnish: AdminPort) -> None:
    assert (await say(varnish, "PURGE", "/a")).status == 200
    sites = varnish.config.sites
    closed = sites["shop"].model_copy(update={"varnish": sites["third"].varnish})
    config = varnish.config.model_copy(update={"sites": {**sites, "shop": closed}})
    varnish.served.edge.reload(config)
    assert (await say(varnish, "PURGE", "/a")).status == 405


# -- what is wrong


@pytest.mark.parametrize(
    ("method", "fields", "said"),
    [
        pytest.param(
            "PURGEKEYS",
            {},
            "Neither header XKey-Purge or XKey-SoftPurge set",
            id="no field of keys",
        ),
        pytest.param("PURGEKEYS", {"xkey-purge": " "}, "xkey-purge: has no keys", id="no keys"),
        pytest.param("PURGE", {"xkey": ""}, "xkey: has no keys", id="no key"),
        pytest.param("PURGE", {"xkey": "b" * 1025}, "xkey: must have at most 1024", id="1025"),
        pytest.param(
            "PURGE", [("xkey", "a"), ("xkey", "b")], "xkey: must come once", id="a field twice"
        ),
        pytest.param("BAN", {}, "there is none of X-Host", id="nothing to ban by"),
        pytest.param("BAN", {"X-Url": "("}, "X-Url: '(' is not an RE2 expression", id="no pattern"),
        pytest.param("BAN", {"X-Url": r"(a)\1"}, "X-Url: ", id="not in linear time"),
        pytest.param("BAN", {"X-Host": "["}, "X-Host: ", id="no pattern of hosts"),
        pytest.param("BAN", {"X-Content-Type": "["}, "X-Content-Type: ", id="none of types"),
        pytest.param("BAN", {"X-Cache-Tags": "["}, "X-Cache-Tags: ", id="none of tags"),
        pytest.param("BAN", {"X-Url": "a" * 1025}, "X-Url: a pattern has at most", id="too long"),
        pytest.param(
            "BAN",
            {"X-Cache-Tags": "a", "Cache-Tags": "b"},
            "Cache-Tags: can't come",
            id="tags twice",
        ),
        pytest.param("PURGE", {"X-Magento-Tags-Pattern": "["}, "x-magento-tags-pattern", id="["),
        pytest.param("PURGE", {"Edge-Dry-Run": "yes"}, "Edge-Dry-Run: ", id="dry run"),
    ],
)
async def test_what_is_wrong(varnish: AdminPort, method: str, fields: Any, said: str) -> None:
    answer = await say(varnish, method, "/", fields)
    assert (answer.status, answer.reason) == (400, "Bad Request")
    assert answer.text.startswith(f"400 Bad Request: {said}")
    assert journal(varnish) == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [(JournalError("no room in /secret"), 503), (TooManyRules("later"), 503), (OSError(), 500)],
    ids=["journal", "rules", "a fault"],
)
async def test_what_fails(
    varnish: AdminPort, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    async def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(varnish.served.edge.service, "purge", failing)
    answer = await say(varnish, "PURGE", "/a")
    assert answer.status == status
    assert "/secret" not in answer.text
    assert answer.field("retry-after") == ("1" if isinstance(error, TooManyRules) else None)


async def test_a_body_is_left_alone(varnish: AdminPort) -> None:
    connection = await varnish.served.connect()
    answer = await connection.exchange("PURGE", "/a", body=b"GET / HTTP/1.1\r\n\r\n")
    assert (answer.status, answer.field("connection")) == (200, "close")
    assert await connection.ended() == "closed"
    await connection.close()


# -- refreshing


async def test_no_cache_from_a_neighbour_fetches_anew(varnish: AdminPort) -> None:
    """Unconditionally: the origin may not know that what it has is new."""
    pages = await fill(varnish)
    fields = {"Cache-Control": HOUR, "ETag": '"same"'}
    varnish.origin.route("/a", Answer(200, fields, b"old"))
    await say(varnish, "PURGE", "/a")
    assert (await varnish.served.get("/a")).body == b"old"
    varnish.origin.route("/a", Answer(200, fields, b"new"))
    answer = await varnish.served.get("/a", {"Cache-Control": "no-cache"})
    assert answer.body == b"new"
    assert varnish.origin.requests_for("/a")[-1].field("if-none-match") is None
    assert (await varnish.served.get("/a")).body == b"new"
    assert await pages.how("/a") == "fresh"


async def test_no_cache_from_a_stranger_does_not(varnish: AdminPort) -> None:
    pages = await fill(varnish)
    before = varnish.origin.counts["/a"]
    fields = {"Cache-Control": "no-cache", "X-Purge-Token": secret("blog")}
    answer = await varnish.served.get("/a", fields, host="blog.test")
    assert answer.cache_status.get("hit")
    assert varnish.origin.counts["/a"] == before
    assert await pages.how("/a", "blog.test") == "fresh"


async def test_a_neighbour_is_told_that_the_origin_fails(varnish: AdminPort) -> None:
    pages = await fill(varnish)
    varnish.origin.route("/a", Answer(500, {}, b"oops"))
    assert (await varnish.served.get("/a", {"Cache-Control": "no-cache"})).status == 500
    assert await pages.how("/a") == "fresh"


async def test_no_origin_gets_to_see_the_token(varnish: AdminPort) -> None:
    varnish.origin.route("/x", Answer(200, {}, b""))
    await varnish.served.get("/x", {"X-Purge-Token": secret("blog")}, host="blog.test")
    (request,) = varnish.origin.requests_for("/x")
    assert request.field("x-purge-token") is None
