"""Optimole's cache, as its document and its plugin have it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from edgeproxy.semantics.url_hash import url_hash
from tests.admin.dialects.conftest import refusals, secret, store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.admin.conftest import AdminPort, Called

BASE = "/api/optml/v2/cache"
ALL, DOMAIN, ASSET = (f"{BASE}/invalidate/{what}" for what in ("all", "domain", "asset"))
TOKEN = f"{BASE}/token"
TOKENS = "/api/optml/v1/cache/tokens"
PURGES = (ALL, DOMAIN, ASSET)
ISSUES = (TOKEN, TOKENS)
EVERY = (*PURGES, *ISSUES)
JSON = (DOMAIN, ASSET, TOKEN)
FORM = "application/x-www-form-urlencoded"

IMAGE = "https://img.test/i.jpg"
MADE, MADE_TOO, OTHER, PAGE = (
    "/w:100/https://img.test/i.jpg",
    "/w:200/https://img.test/i.jpg",
    "/w:100/https://other.test/i.jpg",
    "/page",
)
PAGES = [("shop.test", target) for target in (MADE, MADE_TOO, OTHER, PAGE)] + [
    ("www.shop.test", PAGE),
    ("preview.shop.test", MADE),
    ("blog.test", MADE),
]


def body_of(path: str) -> Any:
    """What a call of that path sends."""
    if path == DOMAIN:
        return {"domain": "img.test"}
    if path == ASSET:
        return {"assets": [IMAGE]}
    return urlencode({"token": "eFRn.20eff", "type": "images"}).encode() if path == TOKENS else None


async def say(
    port: AdminPort,
    path: str,
    body: Any = None,
    by: str = "shop",
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> Called:
    """A call as the plugin makes it."""
    named = {"Authorization": f"Bearer {secret(by)}", **(headers or {})}
    if isinstance(body, bytes):
        named.setdefault("Content-Type", FORM if path == TOKENS else "application/json")
    return await port.call(method, path, body, secret=None, headers=named)


def is_error(answer: Called, status: int, message: str | None = None) -> bool:
    """Whether it is that error, with both readings of its body."""
    body = answer.body
    assert body["message"] == body["error"] != ""
    assert (body["success"], body["code"]) == (False, answer.status)
    return answer.status == status and message in (None, body["message"])


def journal(port: AdminPort) -> int:
    return port.served.edge.view.catch_up()


# -- invalidation


@pytest.mark.parametrize(
    ("path", "body", "cleared"),
    [
        pytest.param(ALL, None, PAGES[:6], id="all"),
        pytest.param(ALL, b"", PAGES[:6], id="all, with an empty form"),
        pytest.param(
            DOMAIN, {"domain": "img.test"}, [*PAGES[:2], PAGES[5]], id="a source's domain"
        ),
        pytest.param(DOMAIN, {"domain": "WWW.shop.test:443"}, [PAGES[4]], id="a served domain"),
        pytest.param(DOMAIN, {"domain": "none.test"}, [], id="nobody's domain"),
        pytest.param(ASSET, {"assets": [IMAGE]}, [*PAGES[:2], PAGES[5]], id="a source image"),
        pytest.param(ASSET, {"assets": ["http://shop.test" + MADE]}, [PAGES[0]], id="a URL"),
        pytest.param(
            ASSET, {"assets": ["https://shop.test/cb:T" + MADE]}, [PAGES[0]], id="a cb: URL"
        ),
        pytest.param(
            ASSET, {"assets": [url_hash("shop.test", MADE_TOO.encode())]}, [PAGES[1]], id="a hash"
        ),
        pytest.param(
            ASSET,
            {"assets": [url_hash("www.shop.test", b"/page"), "https://shop.test/page", "0" * 32]},
            PAGES[3:5],
            id="several",
        ),
        pytest.param(ASSET, {"assets": [url_hash("blog.test", MADE.encode())]}, [], id="another's"),
    ],
)
async def test_what_is_cleared(
    speaking: AdminPort, path: str, body: Any, cleared: list[tuple[str, str]]
) -> None:
    pages = await store(speaking, {}, PAGES)
    answer = await say(speaking, path, body, headers={"Content-Type": FORM} if body == b"" else {})
    data = {"invalidated": len(cleared)}
    assert (answer.status, answer.body) == (200, {"success": True, "code": 200, "data": data})
    kept = [each for each in PAGES if each not in cleared]
    assert await pages.left() == [host + target for host, target in kept]
    # `left` has fetched what was gone anew, and it is stored again.
    assert len(await pages.left()) == len(PAGES)


async def test_the_next_reader_waits(speaking: AdminPort) -> None:
    pages = await store(speaking, {}, PAGES)
    await say(speaking, ASSET, {"assets": [IMAGE]})
    assert await pages.how(MADE) == "missed"


async def test_the_own_api_shows_the_hash(speaking: AdminPort) -> None:
    await store(speaking, {}, PAGES)
    found = await speaking.call(
        "GET", f"/v1/entries?url=http://shop.test{PAGE}", secret=secret("shop")
    )
    (entry,) = found.body["entries"]
    assert len(entry["hash"]) == 32
    answer = await say(speaking, ASSET, {"assets": [entry["hash"]]})
    assert answer.body["data"] == {"invalidated": 1}


@pytest.mark.parametrize("path", PURGES)
async def test_a_dry_run_counts_and_clears_nothing(speaking: AdminPort, path: str) -> None:
    pages = await store(speaking, {}, PAGES)
    answer = await say(speaking, path, body_of(path), headers={"Edge-Dry-Run": "1"})
    assert answer.body["data"]["invalidated"] == (6 if path == ALL else 3)
    assert answer.headers["Edge-Dry-Run"] == "1"
    assert (len(await pages.left()), journal(speaking)) == (7, 0)


@pytest.mark.parametrize("path", PURGES)
async def test_only_the_environments_of_the_token_are_cleared(
    speaking: AdminPort, path: str
) -> None:
    pages = await store(speaking, {}, PAGES)
    assert (await say(speaking, path, body_of(path), "preview")).status == 200
    left = await pages.left()
    assert "preview.shop.test" + MADE not in left
    assert len(left) == len(PAGES) - 1


@pytest.mark.parametrize(
    "named", ["blog", "blog.test", "https://www.blog.test", "http://blog.test:8080/wp/"]
)
@pytest.mark.parametrize("path", PURGES)
async def test_the_site_is_the_one_that_is_named(
    speaking: AdminPort, path: str, named: str
) -> None:
    pages = await store(speaking, {}, PAGES)
    answer = await say(speaking, path, body_of(path), "two", headers={"Optml-Site": named})
    assert answer.status == 200
    assert await pages.left() == [host + target for host, target in PAGES[:6]]


@pytest.mark.parametrize("path", EVERY)
async def test_a_page_that_is_served_elsewhere_names_no_site(
    speaking: AdminPort, path: str
) -> None:
    headers = {"Optml-Site": "https://elsewhere.test"}
    assert (await say(speaking, path, body_of(path), headers=headers)).status == 200


# -- cache busters


async def issued(port: AdminPort, path: str, body: Any, **how: Any) -> str:
    answer = await say(port, path, body, **how)
    token: str = answer.body["data"]["token"]
    expected: dict[str, Any] = {"code": 200, "data": {"token": token}}
    if path == TOKEN:
        expected["success"] = True
    assert (answer.status, answer.body) == (200, expected)
    assert token.isalnum()
    assert token == token.lower()
    return token


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (TOKEN, None),
        (TOKEN, {}),
        (TOKEN, {"domain": "shop.test"}),
        (TOKEN, {"url": "https://shop.test" + MADE}),
        (TOKENS, b"token=eFRn.20eff&type=images"),
        (TOKENS, b"token=&type=assets"),
        (TOKENS, b"token=old"),
        (TOKENS, None),
    ],
    ids=str,
)
async def test_an_issued_token_fetches_anew_once(speaking: AdminPort, path: str, body: Any) -> None:
    pages = await store(speaking, {}, PAGES)
    token = await issued(speaking, path, body)
    assert await pages.how(f"/cb:{token}{MADE}") == "missed"
    asked = speaking.origin.requests[-1]
    assert (asked.target, asked.field("cache-control")) == (MADE, "no-cache")
    assert await pages.how(f"/cb:{token}{MADE}") == "fresh"
    assert await pages.how(MADE) == "fresh"


@pytest.mark.parametrize("body", [{"domain": "www.shop.test"}, {"url": "http://shop.test/page"}])
async def test_a_token_is_good_for_what_it_was_issued_for(
    speaking: AdminPort, body: dict[str, str]
) -> None:
    pages = await store(speaking, {}, PAGES)
    token = await issued(speaking, TOKEN, body)
    host = "shop.test" if "url" in body else "www.shop.test"
    before = len(speaking.origin.requests)
    assert await pages.how(f"/cb:{token}{PAGE}", host) == "missed"
    assert speaking.origin.requests[before].field("cache-control") == "no-cache"
    assert await pages.how(f"/cb:{token}{MADE}") == "missed", "a copy of its own, as of any token"
    assert speaking.origin.requests[-1].field("cache-control") is None


@refusals
@pytest.mark.parametrize("path", ISSUES)
async def test_issuing_takes_its_action(refusing: AdminPort, path: str) -> None:
    assert is_error(await say(refusing, path, body_of(path), "narrow"), 403)


@refusals
@pytest.mark.parametrize("path", ISSUES)
async def test_a_token_is_not_issued_by_a_dry_run(refusing: AdminPort, path: str) -> None:
    headers = {"Edge-Dry-Run": "1"}
    assert is_error(await say(refusing, path, body_of(path), headers=headers), 400)


@refusals
@pytest.mark.parametrize(
    "body",
    [
        {"url": "shop.test/a"},
        {"url": "ftp://shop.test/a"},
        {"url": "https://shop.test/a b"},
        {"url": ""},
        {"url": 7},
        {"url": "https://shop.test/" + "a" * 8192},
        {"domain": "https://shop.test"},
        {"domain": ""},
        {"domain": None},
        {"domain": "shop.test", "url": "https://shop.test/"},
    ],
    ids=lambda body: str(body)[:40],
)
async def test_what_a_token_can_t_be_issued_for(refusing: AdminPort, body: Any) -> None:
    assert is_error(await say(refusing, TOKEN, body), 400)


@refusals
@pytest.mark.parametrize("kind", ["videos", "", "Images"])
@pytest.mark.parametrize("as_json", [False, True])
async def test_a_bad_type(refusing: AdminPort, kind: str, as_json: bool) -> None:
    given = {"token": "old", "type": kind}
    body = json.dumps(given).encode() if as_json else urlencode(given).encode()
    headers = {"Content-Type": "application/json" if as_json else FORM}
    assert is_error(await say(refusing, TOKENS, body, headers=headers), 400)


# -- credentials


@refusals
@pytest.mark.parametrize("authorization", ["", "Basic YTpi", "Bearer"])
@pytest.mark.parametrize("path", EVERY)
async def test_without_a_token(refusing: AdminPort, path: str, authorization: str) -> None:
    headers = {"Authorization": authorization}
    assert is_error(await say(refusing, path, body_of(path), headers=headers), 401)


@refusals
@pytest.mark.parametrize(
    ("by", "status", "message"),
    [
        ("nobody", 401, None),
        ("expired", 401, None),
        ("disabled", 403, "User not active"),
        ("elsewhere", 403, None),
        ("reader", 403, None),
    ],
)
@pytest.mark.parametrize("path", EVERY)
async def test_who_may_not(
    refusing: AdminPort, path: str, by: str, status: int, message: str | None
) -> None:
    answer = await say(refusing, path, body_of(path), by)
    assert is_error(answer, status, message)
    assert secret(by) not in str(answer.body)


@refusals
@pytest.mark.parametrize(
    ("by", "site", "status", "message"),
    [
        pytest.param("shop", "blog", 403, None, id="another's"),
        pytest.param("shop", "https://blog.test", 403, None, id="another's, by its URL"),
        pytest.param("shop", "none", 403, None, id="none, and none of the token's"),
        pytest.param("master", "none", 404, "User not found", id="none"),
        pytest.param("two", "", 400, None, id="several"),
        pytest.param("two", "https://elsewhere.test", 400, None, id="several, and none named"),
    ],
)
@pytest.mark.parametrize("path", EVERY)
async def test_sites_that_can_t_be_purged(
    refusing: AdminPort, path: str, by: str, site: str, status: int, message: str | None
) -> None:
    answer = await say(refusing, path, body_of(path), by, headers={"Optml-Site": site})
    assert is_error(answer, status, message)


async def test_a_whole_site_takes_more_than_an_asset(speaking: AdminPort) -> None:
    for path, status in ((ALL, 403), (DOMAIN, 200), (ASSET, 200)):
        assert (await say(speaking, path, body_of(path), "narrow")).status == status


async def test_too_many_calls_in_a_time(speaking: AdminPort) -> None:
    for path in EVERY:
        assert (await say(speaking, path, body_of(path), "hurried")).status == 200
        answer = await say(speaking, path, body_of(path), "hurried")
        assert is_error(answer, 429)
        assert answer.headers["Retry-After"] == "60"
        speaking.served.clock.now += 60


async def test_a_token_that_is_used_up(speaking: AdminPort) -> None:
    assert (await say(speaking, ALL, by="spent")).status == 200
    for path in EVERY:
        assert is_error(await say(speaking, path, body_of(path), "spent"), 403)


# -- bodies


@refusals
@pytest.mark.parametrize(
    "domain",
    ["https://img.test", "img.test/a", "", "a b", "*.img.test", "a:99999", 7, None, "a\0b"],
)
async def test_bad_domains(refusing: AdminPort, domain: Any) -> None:
    assert is_error(await say(refusing, DOMAIN, {"domain": domain}), 400)


@refusals
async def test_no_domain(refusing: AdminPort) -> None:
    assert is_error(await say(refusing, DOMAIN, {}), 400)


@refusals
@pytest.mark.parametrize(
    "assets",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="none"),
        pytest.param(IMAGE, id="no list"),
        pytest.param([7], id="a number"),
        pytest.param([""], id="an empty one"),
        pytest.param(["/i.jpg"], id="a path"),
        pytest.param(["img.test/i.jpg"], id="no scheme"),
        pytest.param(["https://"], id="no host"),
        pytest.param([IMAGE, "https://img.test/a b"], id="a space"),
        pytest.param(["A" * 32], id="32 capitals"),
        pytest.param(["a" * 31], id="31 characters"),
        pytest.param([IMAGE + "?" + "a" * 8192], id="too long"),
    ],
)
async def test_bad_assets(refusing: AdminPort, assets: Any) -> None:
    assert is_error(await say(refusing, ASSET, {"assets": assets}), 400)


@refusals
async def test_too_many_assets(refusing: AdminPort) -> None:
    answer = await say(refusing, ASSET, {"assets": [IMAGE] * 101})
    assert is_error(answer, 400, "Too many assets to invalidate")


async def test_what_is_just_within_the_limits(speaking: AdminPort) -> None:
    assets = [f"https://img.test/{at}.jpg" for at in range(100)]
    assert (await say(speaking, ASSET, {"assets": assets})).status == 200


@refusals
@pytest.mark.parametrize("body", [b"{", b"[]", b'{"url":"a","url":"b"}', b"\xff"])
@pytest.mark.parametrize("path", JSON)
async def test_bodies_that_can_t_be_read(refusing: AdminPort, path: str, body: bytes) -> None:
    assert is_error(await say(refusing, path, body), 400)


@refusals
@pytest.mark.parametrize("path", EVERY)
async def test_a_body_that_is_too_large(refusing: AdminPort, path: str) -> None:
    assert is_error(await say(refusing, path, b" " * (1 << 20) + b"{}"), 413)


@refusals
@pytest.mark.parametrize("path", [*JSON, TOKENS])
async def test_another_content_type(refusing: AdminPort, path: str) -> None:
    answer = await say(refusing, path, b"{}", headers={"Content-Type": "text/plain"})
    assert is_error(answer, 415)


# -- paths, methods, and what goes wrong inside


@refusals
@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("path", EVERY)
async def test_another_method(refusing: AdminPort, path: str, method: str) -> None:
    answer = await say(refusing, path, method=method)
    assert is_error(answer, 405)
    assert answer.headers["Allow"] == "POST"


@refusals
@pytest.mark.parametrize("path", [f"{BASE}/nothing", "/api/optml/v1/images"])
async def test_another_path(refusing: AdminPort, path: str) -> None:
    assert is_error(await say(refusing, path), 404)


@pytest.mark.parametrize("path", EVERY)
async def test_what_can_t_be_recorded(speaking: AdminPort, path: str) -> None:
    await store(speaking, {}, PAGES)
    await speaking.served.edge.service._journal.close()
    answer = await say(speaking, path, body_of(path))
    assert is_error(answer, answer.status)
    assert answer.status in (500, 503)
