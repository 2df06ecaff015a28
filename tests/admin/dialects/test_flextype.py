"""Flextype's cache/clear, as its document and its released code have it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from edgeproxy.admin.app import reload_admin
from edgeproxy.config.model import Config
from tests.admin.dialects.conftest import access, refusals, secret, store
from tests.kit.toml import merged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.admin.conftest import AdminPort, Called

CLEAR = "/api/v1/cache/clear"
FORM = "application/x-www-form-urlencoded"
WAYS = ("query", "get", "form", "json", "both")


def pair(by: str) -> dict[str, str]:
    """The parameters of a call."""
    return {"token": secret(by), "access_token": access(by)}


async def say(
    port: AdminPort,
    given: Mapping[str, Any],
    way: str = "json",
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Called:
    """A call with its parameters in the query, in a form, in JSON, or in a form over others in the
    query."""
    target, body, named = CLEAR, None, dict(headers or {})
    if way in ("query", "get"):
        target += "?" + urlencode(given)
    elif way == "json":
        body, named["Content-Type"] = json.dumps(given).encode(), "application/json"
    else:
        body, named["Content-Type"] = urlencode(given).encode(), FORM
    if way == "both":
        target += "?" + urlencode(pair("nobody"))
    method = method or ("GET" if way == "get" else "POST")
    return await port.call(method, target, body, secret=None, headers=named)


def settled(port: AdminPort, **settings: Any) -> None:
    """Give the dialect other settings."""
    data = port.config.model_dump(mode="json", exclude_unset=True)
    data = merged(data, {"admin": {"dialects": {"flextype": settings}}})
    config = Config.model_validate(data)
    reload_admin(port.app, config, config.admin.tokens)


def is_error(answer: Called, status: int, title: str, message: str | None = None) -> bool:
    expected = {"title": title, "http_status_code": status}
    assert answer.body["message"]
    if message is not None:
        expected["message"] = message
    return answer.status == status and answer.body | expected == answer.body


def is_invalid(answer: Called) -> bool:
    return is_error(answer, 400, "Bad Request", "Validation for this particular item failed")


def journal(port: AdminPort) -> int:
    return port.served.edge.view.catch_up()


# -- success, and what it does


@pytest.mark.parametrize("way", WAYS)
async def test_the_site_of_the_token_is_cleared(speaking: AdminPort, way: str) -> None:
    pages = await store(speaking, {})
    answer = await say(speaking, pair("shop"), way)
    assert (answer.status, answer.body, answer.headers["Edge-Matched"]) == (200, {}, "4")
    assert answer.headers["Cache-Control"] == "no-store"
    assert await pages.how("/a") == "missed"
    assert await pages.how("/b") == "missed"
    assert await pages.how("/a", "blog.test") == "fresh"


@pytest.mark.parametrize("way", ["json", "get"])
async def test_a_success_can_be_a_204(speaking: AdminPort, way: str) -> None:
    settled(speaking, status=204)
    answer = await say(speaking, pair("shop"), way)
    assert (answer.status, answer.body, journal(speaking)) == (204, None, 1)


async def test_get_can_be_switched_off(speaking: AdminPort) -> None:
    settled(speaking, allow_get=False)
    answer = await say(speaking, pair("shop"), "get")
    assert is_error(answer, 405, "Method Not Allowed")
    assert (answer.headers["Allow"], journal(speaking)) == ("POST", 0)
    assert (await say(speaking, pair("shop"), "query")).status == 200


async def test_a_dry_run_counts_and_clears_nothing(speaking: AdminPort) -> None:
    pages = await store(speaking, {})
    answer = await say(speaking, pair("shop"), headers={"Edge-Dry-Run": "1"})
    assert (answer.status, answer.headers["Edge-Matched"]) == (200, "4")
    assert len(await pages.left()) == 5


async def test_only_the_environments_of_the_token_are_cleared(speaking: AdminPort) -> None:
    pages = await store(speaking, {})
    assert (await say(speaking, pair("preview"))).status == 200
    left = await pages.left()
    assert "shop.test/a" in left
    assert "preview.shop.test/a" not in left


async def test_a_call_limit(speaking: AdminPort) -> None:
    assert (await say(speaking, pair("spent"))).status == 200
    assert is_invalid(await say(speaking, pair("spent")))
    assert journal(speaking) == 1


async def test_too_many_calls_in_a_time(speaking: AdminPort) -> None:
    assert (await say(speaking, pair("hurried"))).status == 200
    answer = await say(speaking, pair("hurried"))
    assert is_error(answer, 429, "Too Many Requests")
    assert answer.headers["Retry-After"] == "60"


# -- refusals


@refusals
@pytest.mark.parametrize("missing", ["token", "access_token"])
@pytest.mark.parametrize("instead", [None, ""])
@pytest.mark.parametrize("way", ["query", "get", "form", "json"])
async def test_both_parameters_are_needed(
    refusing: AdminPort, way: str, missing: str, instead: str | None
) -> None:
    given = pair("shop")
    del given[missing]
    if instead is not None:
        given[missing] = instead
    assert is_invalid(await say(refusing, given, way))


@refusals
async def test_a_bearer_is_no_parameter(refusing: AdminPort) -> None:
    headers = {"Authorization": f"Bearer {secret('shop')}"}
    assert is_invalid(await say(refusing, {}, "query", headers=headers))


@refusals
@pytest.mark.parametrize("way", WAYS)
async def test_a_disabled_token(refusing: AdminPort, way: str) -> None:
    assert is_invalid(await say(refusing, pair("disabled"), way))


@refusals
@pytest.mark.parametrize(
    "given",
    [
        pytest.param(pair("nobody"), id="unknown"),
        pytest.param(pair("expired"), id="expired"),
        pytest.param({"token": secret("shop"), "access_token": "x"}, id="a wrong access token"),
        pytest.param(
            {"token": secret("shop"), "access_token": access("master")}, id="another's access token"
        ),
        pytest.param(
            {"token": access("shop"), "access_token": secret("shop")}, id="one for the other"
        ),
    ],
)
@pytest.mark.parametrize("way", WAYS)
async def test_a_wrong_token(refusing: AdminPort, way: str, given: dict[str, str]) -> None:
    answer = await say(refusing, given, way)
    assert is_error(answer, 401, "Unauthorized", "Token is wrong")
    assert not any(value in str(answer.body) for value in given.values() if len(value) > 1)


@refusals
@pytest.mark.parametrize("by", ["elsewhere", "reader", "narrow"])
async def test_who_may_not(refusing: AdminPort, by: str) -> None:
    assert is_error(await say(refusing, pair(by)), 403, "Forbidden")


@refusals
async def test_the_body_wins(refusing: AdminPort) -> None:
    target = CLEAR + "?" + urlencode(pair("shop"))
    body = json.dumps({"token": "x"}).encode()
    headers = {"Content-Type": "application/json"}
    answer = await refusing.call("POST", target, body, secret=None, headers=headers)
    assert is_error(answer, 401, "Unauthorized", "Token is wrong")


@refusals
@pytest.mark.parametrize("by", ["two", "master"])
async def test_a_token_for_several_sites_clears_none(refusing: AdminPort, by: str) -> None:
    assert is_invalid(await say(refusing, pair(by)))


@refusals
@pytest.mark.parametrize("value", [7, ["x"], {"a": "b"}, True])
async def test_parameters_are_texts(refusing: AdminPort, value: Any) -> None:
    assert is_invalid(await say(refusing, pair("shop") | {"token": value}))


@refusals
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("application/json", b'{"token":"a","token":"b"}'),
        (FORM, b"token=a&token=b"),
        (FORM, b"token=%ff"),
    ],
)
async def test_bodies_that_can_t_be_read(
    refusing: AdminPort, content_type: str, body: bytes
) -> None:
    headers = {"Content-Type": content_type}
    assert is_invalid(await refusing.call("POST", CLEAR, body, secret=None, headers=headers))


@refusals
async def test_a_body_that_is_too_large(refusing: AdminPort) -> None:
    given = pair("shop") | {"more": "x" * (1 << 20)}
    assert is_error(await say(refusing, given), 413, "Request Entity Too Large")


@refusals
async def test_a_body_that_is_neither_form_nor_json(refusing: AdminPort) -> None:
    headers = {"Content-Type": "text/plain"}
    answer = await refusing.call("POST", CLEAR, b"token=a", secret=None, headers=headers)
    assert is_error(answer, 415, "Unsupported Media Type")


@refusals
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_another_method(refusing: AdminPort, method: str) -> None:
    answer = await say(refusing, pair("shop"), "query", method=method)
    assert is_error(answer, 405, "Method Not Allowed")
    assert answer.headers["Allow"] == "GET, POST"


@refusals
async def test_another_path(refusing: AdminPort) -> None:
    answer = await refusing.call("POST", "/api/v1/cache/nothing", secret=None)
    assert is_error(answer, 404, "Not Found")


async def test_what_can_t_be_recorded(speaking: AdminPort) -> None:
    await store(speaking, {})
    await speaking.served.edge.service._journal.close()
    answer = await say(speaking, pair("shop"))
    assert answer.status in (500, 503)
    assert answer.body["http_status_code"] == answer.status
