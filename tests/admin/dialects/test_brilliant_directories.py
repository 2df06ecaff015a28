"""Brilliant Directories' refreshCache, as its document and its server's code have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from edgeproxy.admin.app import reload_admin
from edgeproxy.config.model import Config
from tests.admin.dialects.conftest import refusals, secret, store
from tests.kit.toml import merged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.admin.conftest import AdminPort, Called

REFRESH = "/api/v2/website_settings/refreshCache"
VERIFY = "/api/v2/token/verify"
BOTH = (REFRESH, VERIFY)
FORM = "application/x-www-form-urlencoded"
AREAS = ["data_widgets", "settings", "web_pages", "css", "menus", "sidebars"]
UPKEEP = ["db_optimization", "file_permissions"]
VALID = "data_widgets, settings, web_pages, css, menus, sidebars"
NO_PERMISSION = "API Key does not have permission to access this endpoint"

TAGS = {"/a": "Cache-Tag: menus", "/b": "Cache-Tag: css"}


async def say(
    port: AdminPort,
    given: Any = None,
    by: str = "shop",
    *,
    path: str = REFRESH,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Called:
    """A call as the vendor's console makes it: a form, or without a body its length of 0."""
    named = {"X-Api-Key": secret(by), **(headers or {})}
    body = given
    if isinstance(given, str):
        body, named["Content-Type"] = given.encode(), FORM
    method = method or ("GET" if path == VERIFY else "POST")
    if body is None and method == "POST":
        named["Content-Length"] = "0"
    return await port.call(method, path, body, secret=None, headers=named)


def refreshed(answer: Called, areas: list[str], scope: Any, **more: Any) -> bool:
    """Whether it is a success in those areas."""
    assert answer.status == 200
    return bool(
        answer.body
        == {
            "status": "success",
            "message": "Cache refreshed successfully",
            "areas_refreshed": areas,
            "scope": scope,
            **more,
        }
    )


def is_error(answer: Called, status: int, message: str | None = None) -> bool:
    assert answer.body["status"] == "error"
    assert answer.body["message"]
    assert set(answer.body) == {"status", "message"}
    return answer.status == status and message in (None, answer.body["message"])


def configured(port: AdminPort, **areas: list[str]) -> None:
    """Say what the shop's areas are."""
    data = port.config.model_dump(mode="json", exclude_unset=True)
    settings = {"brilliant_directories": {"areas": {"shop": areas}}}
    config = Config.model_validate(merged(data, {"admin": {"dialects": settings}}))
    reload_admin(port.app, config, config.admin.tokens)


def journal(port: AdminPort) -> int:
    return port.served.edge.view.catch_up()


# -- success, and what it does


@pytest.mark.parametrize(
    ("given", "areas", "scope"),
    [
        ("scope=menus", ["menus"], "menus"),
        ("scope=menus,css", ["menus", "css"], "menus,css"),
        ("scope=css%2C+menus%2Ccss", ["css", "menus"], "css, menus,css"),
        ({"scope": "menus"}, ["menus"], "menus"),
        ("scope=sidebars", ["sidebars"], "sidebars"),
        ("scope=menus&full=1", ["menus"], "menus"),
    ],
    ids=str,
)
async def test_the_named_areas_are_cleared(
    speaking: AdminPort, given: Any, areas: list[str], scope: str
) -> None:
    pages = await store(speaking, TAGS)
    assert refreshed(await say(speaking, given), areas, scope)
    assert await pages.how("/a") == ("missed" if "menus" in areas else "fresh")
    assert await pages.how("/b") == ("missed" if "css" in areas else "fresh")
    assert await pages.how("/c") == "fresh"
    assert await pages.how("/a", "blog.test") == "fresh"


@pytest.mark.parametrize("given", [None, "", "scope=", "full=0", "full=false", {}, {"full": False}])
async def test_without_areas_all_of_the_site_is_cleared(speaking: AdminPort, given: Any) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, given)
    assert refreshed(answer, AREAS, "full", full=False)
    assert (answer.headers["Edge-Matched"], journal(speaking)) == ("4", 1)
    assert await pages.left() == ["blog.test/a"]


@pytest.mark.parametrize("given", ["full=1", "full=true", {"full": True}, {"full": 1}], ids=str)
async def test_a_full_refresh_sees_to_the_store_too(speaking: AdminPort, given: Any) -> None:
    await store(speaking, TAGS)
    body = speaking.served.place.directory / "bodies"
    body.mkdir(exist_ok=True)
    body.chmod(0o755)
    used = speaking.served.edge.tier.bytes_used
    assert refreshed(await say(speaking, given), AREAS + UPKEEP, "full", full=True)
    assert 0 < speaking.served.edge.tier.bytes_used < used / 2, "the blog's page is left"
    assert len(speaking.served.stored("blog")) == 1
    assert body.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("verbose", ["verbose=1", "verbose=true"])
@pytest.mark.parametrize(
    ("given", "areas"),
    [("scope=css,menus", ["css", "menus"]), ("full=1", AREAS + UPKEEP), ("", AREAS)],
)
async def test_verbose_says_how_long_each_area_took(
    speaking: AdminPort, given: str, areas: list[str], verbose: str
) -> None:
    answer = await say(speaking, f"{given}&{verbose}")
    details, total = answer.body["details"], answer.body["total_time_ms"]
    assert (answer.status, list(details)) == (200, areas)
    assert all(detail["status"] == "success" for detail in details.values())
    times = [detail["time_ms"] for detail in details.values()]
    assert all(isinstance(time, int) and time >= 0 for time in [*times, total])
    assert sum(times) <= total + len(times)


async def test_an_area_is_what_the_configuration_says(speaking: AdminPort) -> None:
    pages = await store(speaking, {"/b": "Content-Type: text/css"}, [
        ("shop.test", "/a"), ("shop.test", "/b"), ("shop.test", "/c/1"), ("www.shop.test", "/c/1"),
        ("shop.test", "/c?x"), ("blog.test", "/a"),
    ])  # fmt: skip
    configured(
        speaking,
        css=["type:text/css", "url:/a"],
        menus=["prefix:http://shop.test/c/"],
        sidebars=["everything"],
    )
    assert (await say(speaking, "scope=css")).headers["Edge-Matched"] == "2"
    assert (await say(speaking, "scope=menus")).headers["Edge-Matched"] == "1"
    left = ["www.shop.test/c/1", "shop.test/c?x", "blog.test/a"]
    assert await pages.left() == left
    assert (await say(speaking, "scope=sidebars")).status == 200
    assert [await pages.how("/c?x"), await pages.how("/a", "blog.test")] == ["missed", "fresh"]


async def test_an_area_that_fails_says_so_and_the_others_are_done(speaking: AdminPort) -> None:
    pages = await store(speaking, TAGS)
    configured(speaking, css=["everything"])
    answer = await say(speaking, "scope=menus,css,settings", "narrow")
    assert (answer.status, answer.body["status"]) == (200, "error")
    assert answer.body["areas_refreshed"] == ["menus", "settings"]
    assert "css" in answer.body["message"]
    details = {area: detail["status"] for area, detail in answer.body["details"].items()}
    assert details == {"menus": "success", "css": "error", "settings": "success"}
    assert [await pages.how(target) for target in ("/a", "/b")] == ["missed", "fresh"]


async def test_upkeep_that_fails_says_so(
    speaking: AdminPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails() -> None:
        raise OSError("no such luck")

    monkeypatch.setattr(speaking.served.edge, "mend_permissions", fails)
    answer = await say(speaking, "full=1")
    assert (answer.status, answer.body["status"]) == (200, "error")
    assert answer.body["areas_refreshed"] == [*AREAS, "db_optimization"]
    assert answer.body["details"]["file_permissions"]["status"] == "error"
    assert "no such luck" not in str(answer.body)


async def test_a_dry_run_counts_and_clears_nothing(speaking: AdminPort) -> None:
    pages = await store(speaking, TAGS)
    folder = speaking.served.place.directory / "responses"
    folder.chmod(0o755)
    for given, matched in (("scope=menus,css", "3"), ("full=1", "4")):
        answer = await say(speaking, given, headers={"Edge-Dry-Run": "1"})
        assert (answer.status, answer.headers["Edge-Matched"]) == (200, matched)
    assert (len(await pages.left()), journal(speaking)) == (5, 0)
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("given", ["scope=menus", ""])
async def test_only_the_environments_of_the_token_are_cleared(
    speaking: AdminPort, given: str
) -> None:
    pages = await store(speaking, TAGS)
    assert (await say(speaking, given, "preview")).status == 200
    left = await pages.left()
    assert "shop.test/a" in left
    assert "preview.shop.test/a" not in left


@refusals
@pytest.mark.parametrize("by", ["shop", "reader", "master"])
async def test_a_key_is_verified(refusing: AdminPort, by: str) -> None:
    answer = await say(refusing, by=by, path=VERIFY)
    assert (answer.status, answer.body["status"]) == (200, "success")


# -- credentials


@refusals
@pytest.mark.parametrize(
    "headers", [{"X-Api-Key": ""}, {"X-Api-Key": "", "Authorization": f"Bearer {secret('shop')}"}]
)
@pytest.mark.parametrize("path", BOTH)
async def test_without_a_key(refusing: AdminPort, path: str, headers: dict[str, str]) -> None:
    assert is_error(await say(refusing, path=path, headers=headers), 401)


@refusals
@pytest.mark.parametrize(
    ("by", "status", "message"),
    [
        ("nobody", 401, None),
        ("expired", 401, None),
        ("disabled", 403, NO_PERMISSION),
        ("elsewhere", 403, NO_PERMISSION),
    ],
)
@pytest.mark.parametrize("path", BOTH)
async def test_who_may_not(
    refusing: AdminPort, path: str, by: str, status: int, message: str | None
) -> None:
    answer = await say(refusing, by=by, path=path)
    assert is_error(answer, status, message)
    assert secret(by) not in str(answer.body)


@refusals
@pytest.mark.parametrize("given", ["scope=menus", "", "full=1"])
async def test_refreshing_takes_its_action(refusing: AdminPort, given: str) -> None:
    assert is_error(await say(refusing, given, "reader"), 403, NO_PERMISSION)


async def test_all_of_a_site_takes_more_than_an_area(speaking: AdminPort) -> None:
    assert (await say(speaking, "scope=menus", "narrow")).status == 200
    assert is_error(await say(speaking, "", "narrow"), 403, NO_PERMISSION)
    assert is_error(await say(speaking, "full=1", "narrow"), 403, NO_PERMISSION)
    assert journal(speaking) == 1


@refusals
@pytest.mark.parametrize("by", ["two", "master"])
async def test_a_key_for_several_sites_refreshes_none(refusing: AdminPort, by: str) -> None:
    assert is_error(await say(refusing, "scope=menus", by), 400)


async def test_a_hundred_calls_in_a_minute(speaking: AdminPort) -> None:
    for _ in range(100):
        assert (await say(speaking, path=VERIFY)).status == 200
    for path in BOTH:
        answer = await say(speaking, path=path)
        assert is_error(answer, 429)
        assert answer.headers["Retry-After"] == "60"
    assert (await say(speaking, by="two", path=VERIFY)).status == 200, "each key has its own"
    speaking.served.clock.now += 60
    assert (await say(speaking)).status == 200


async def test_a_key_that_is_used_up(speaking: AdminPort) -> None:
    assert (await say(speaking, by="spent", path=VERIFY)).status == 200
    for path in BOTH:
        assert is_error(await say(speaking, by="spent", path=path), 403, NO_PERMISSION)


# -- bodies


@refusals
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("scope=images", "images"),
        ("scope=menus,images", "images"),
        ("scope=Menus", "Menus"),
        ("scope=menus,", ""),
        ("scope=full", "full"),
        ("scope=db_optimization", "db_optimization"),
        ({"scope": 7}, "7"),
        ({"scope": ["menus"]}, "['menus']"),
    ],
    ids=str,
)
async def test_areas_that_there_are_not(refusing: AdminPort, given: Any, named: str) -> None:
    message = f"Invalid scope value: {named}. Valid values: {VALID}"
    assert is_error(await say(refusing, given), 400, message)


@refusals
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("application/json", b'{"scope":"css","scope":"menus"}'),
        (FORM, urlencode([("scope", "css"), ("scope", "menus")]).encode()),
        (FORM, b"scope=%ff"),
    ],
)
async def test_bodies_that_can_t_be_read(
    refusing: AdminPort, content_type: str, body: bytes
) -> None:
    assert is_error(await say(refusing, body, headers={"Content-Type": content_type}), 400)


@refusals
async def test_a_body_that_is_too_large(refusing: AdminPort) -> None:
    assert is_error(await say(refusing, "x=" + "x" * (1 << 20)), 413)


@refusals
async def test_a_body_that_is_neither_form_nor_json(refusing: AdminPort) -> None:
    answer = await say(refusing, b"scope=css", headers={"Content-Type": "text/plain"})
    assert is_error(answer, 415)


# -- paths, methods, and what goes wrong inside


@refusals
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("path", BOTH)
async def test_another_method(refusing: AdminPort, path: str, method: str) -> None:
    answer = await say(refusing, path=path, method=method)
    assert is_error(answer, 405)
    assert answer.headers["Allow"] == ("GET" if path == VERIFY else "POST")


@refusals
async def test_another_path(refusing: AdminPort) -> None:
    assert is_error(await say(refusing, path="/api/v2/website_settings/nothing"), 404)


@pytest.mark.parametrize("given", ["scope=menus,css", "full=1"])
async def test_what_can_t_be_recorded(speaking: AdminPort, given: str) -> None:
    await store(speaking, TAGS)
    await speaking.served.edge.service._journal.close()
    answer = await say(speaking, given)
    if given == "full=1":
        assert answer.body["areas_refreshed"] == UPKEEP
        assert answer.body["status"] == "error"
    else:
        assert is_error(answer, answer.status)
        assert answer.status in (500, 503)
