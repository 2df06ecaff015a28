"""Fastly's purge API, as its document and its Python client have it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import fastly
import pytest
from fastly.api import purge_api

from edgeproxy.invalidation.journal import JournalError, LocalJournal
from edgeproxy.invalidation.selectors import Mode
from tests.admin.dialects.conftest import PAGES, secret, store
from tests.invalidation.samples import new_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.admin.conftest import AdminPort, Called

KEY = "/service/shop/purge/contacts"
KEYS = "/service/shop/purge"
ALL = "/service/shop/purge_all"
URL = "/purge/shop.test/a"
TAGS = {"/a": "Surrogate-Key: contacts a", "/b": "Surrogate-Key: labels/b"}
SOFT = {"Fastly-Soft-Purge": "1"}


async def say(
    port: AdminPort,
    path: str,
    body: Any = None,
    by: str = "shop",
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> Called:
    """A call as Fastly's clients make it."""
    named = {"Fastly-Key": secret(by), "Accept": "application/json", **(headers or {})}
    return await port.call(method, path, body, secret=None, headers=named)


def journal(port: AdminPort) -> int:
    return port.served.edge.view.catch_up()


# -- success, and what it does


@pytest.mark.parametrize(("headers", "becomes"), [({}, "missed"), (SOFT, "stale")])
async def test_a_key(speaking: AdminPort, headers: dict[str, str], becomes: str) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, KEY, headers=headers)
    assert (answer.status, answer.body["status"], len(answer.body["id"])) == (200, "ok", 32)
    assert answer.headers["Edge-Matched"] == "2"
    assert [await pages.how(target) for target in ("/a", "/b", "/c")] == [becomes, "fresh", "fresh"]
    assert await pages.how("/a", "blog.test") == "fresh"


async def test_a_key_may_be_escaped_and_its_case_counts(speaking: AdminPort) -> None:
    pages = await store(speaking, TAGS)
    assert (await say(speaking, "/service/shop/purge/Labels%2Fb")).headers["Edge-Matched"] == "0"
    for key in ("labels%2Fb", "labels/b"):
        answer = await say(speaking, f"/service/shop/purge/{key}", headers=SOFT)
        assert answer.headers["Edge-Matched"] == "1"
    assert await pages.how("/b") == "stale"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param({"surrogate_keys": ["contacts", "labels/b"]}, {}, id="body"),
        pytest.param(None, {"Surrogate-Key": "contacts  labels/b"}, id="field"),
        pytest.param(
            {"surrogate_keys": ["labels/b"]}, {"Surrogate-Key": "contacts labels/b"}, id="both"
        ),
    ],
)
@pytest.mark.parametrize(("soft", "becomes"), [({}, "missed"), (SOFT, "stale")])
async def test_several_keys(
    speaking: AdminPort, body: Any, headers: dict[str, str], soft: dict[str, str], becomes: str
) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, KEYS, body, headers=headers | soft)
    assert answer.status == 200
    assert set(answer.body) == {"contacts", "labels/b"}
    assert all(len(each) == 32 for each in answer.body.values())
    assert [await pages.how(target) for target in ("/a", "/b", "/c")] == [becomes, becomes, "fresh"]
    assert await pages.how("/a", "blog.test") == "fresh"


@pytest.mark.parametrize("headers", [{}, SOFT], ids=["hard", "never soft"])
async def test_all(speaking: AdminPort, headers: dict[str, str]) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, ALL, headers=headers)
    assert (answer.status, answer.body) == (200, {"status": "ok"})
    assert [await pages.how(target) for target in ("/a", "/b", "/c")] == ["missed"] * 3
    assert await pages.left() == ["shop.test/a", "shop.test/b", "shop.test/c", "blog.test/a"]


@pytest.mark.parametrize(("headers", "becomes"), [({}, "missed"), (SOFT, "stale")])
@pytest.mark.parametrize(
    "path", [URL, "/purge/http://shop.test/a", "/purge/SHOP.test/a", "/purge/shop.test%2Fa"]
)
async def test_a_url(speaking: AdminPort, path: str, headers: dict[str, str], becomes: str) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, path, headers=headers)
    assert (answer.status, answer.body["status"], len(answer.body["id"])) == (200, "ok", 32)
    assert [await pages.how(target) for target in ("/a", "/b")] == [becomes, "fresh"]
    assert await pages.how("/a", "preview.shop.test") == "fresh"


@pytest.mark.parametrize(("headers", "becomes"), [({}, "missed"), (SOFT, "stale")])
async def test_purge_by_method(speaking: AdminPort, headers: dict[str, str], becomes: str) -> None:
    pages = await store(speaking, TAGS)
    named = headers | {"Host": "shop.test"}
    answer = await say(speaking, "/a", method="PURGE", headers=named)
    assert (answer.status, answer.body["status"]) == (200, "ok")
    assert [await pages.how(target) for target in ("/a", "/b")] == [becomes, "fresh"]
    assert await pages.how("/a", "blog.test") == "fresh"


async def test_purge_by_method_takes_a_host_that_is_served_here(speaking: AdminPort) -> None:
    answer = await say(speaking, "/a", method="PURGE", headers={"Host": "else.test"})
    assert answer.status == 421


async def test_a_query_belongs_to_the_url(speaking: AdminPort) -> None:
    pages = await store(speaking, {}, [("shop.test", "/a"), ("shop.test", "/a?q=1")])
    assert (await say(speaking, f"{URL}?q=1")).status == 200
    assert await pages.left() == ["shop.test/a"]
    answer = await say(speaking, "/a?q=1", method="PURGE", headers={"Host": "shop.test"})
    assert answer.headers["Edge-Matched"] == "1"


@pytest.mark.parametrize("path", [KEY, KEYS, ALL, URL])
async def test_staging_is_preview(speaking: AdminPort, path: str) -> None:
    tags = {"/a": "Surrogate-Key: contacts"}
    pages = await store(speaking, tags)
    body = {"surrogate_keys": ["contacts"]} if path == KEYS else None
    path = path.replace("shop.test", "preview.shop.test")
    answer = await say(speaking, path, body, headers={"Fastly-Purge-Environment": "staging"})
    assert answer.status == 200
    assert set(await pages.left()) == {host + at for host, at in PAGES} - {"preview.shop.test/a"}


@pytest.mark.parametrize("path", [KEY, KEYS, ALL, URL])
async def test_a_dry_run_counts_and_clears_nothing(speaking: AdminPort, path: str) -> None:
    pages = await store(speaking, TAGS)
    body = {"surrogate_keys": ["contacts"]} if path == KEYS else None
    answer = await say(speaking, path, body, headers={"Edge-Dry-Run": "1"})
    assert answer.status == 200
    assert answer.headers["Edge-Matched"] == {ALL: "4", URL: "1"}.get(path, "2")
    assert len(await pages.left()) == len(PAGES)


async def test_the_journal_says_who_and_what(speaking: AdminPort) -> None:
    answer = await say(speaking, KEY, headers=SOFT)
    await speaking.served.edge.close()
    opened = LocalJournal(speaking.served.place.directory / "journal", new_head())
    (record,) = opened.since(0, 9)
    assert (record.id, record.mode) == (answer.body["id"], Mode.INVALIDATE)
    assert (record.actor, record.dialect) == ("shop", "fastly")


# -- the vendor's own client


async def test_the_vendor_s_own_client(speaking: AdminPort) -> None:
    pages = await store(speaking, TAGS)
    await asyncio.to_thread(drive, f"http://127.0.0.1:{speaking.client.port}")
    assert [await pages.how(target) for target in ("/a", "/b", "/c")] == [
        "missed",
        "stale",
        "fresh",
    ]
    assert await pages.how("/a", "blog.test") == "fresh"


def drive(host: str) -> None:
    """Every call, in Fastly's own client for Python."""

    def client(by: str) -> fastly.ApiClient:
        # It takes no setting for these, but the environment's.
        return fastly.ApiClient(fastly.Configuration(host=host, api_key={"token": secret(by)}))

    os.environ.pop("FASTLY_API_TOKEN", None)
    with client("shop") as shop:
        calls = purge_api.PurgeApi(shop)
        answer = calls.purge_tag("shop", "contacts")
        assert (answer.status, len(answer.id)) == ("ok", 32)
        assert calls.purge_tag("shop", "labels/b", fastly_soft_purge=1).status == "ok"
        answer = calls.bulk_purge_tag("shop", surrogate_key="x y", fastly_soft_purge=1)
        assert set(answer.to_dict()) == {"x", "y"}
        assert calls.purge_single_url("shop.test/a").status == "ok"
        with pytest.raises(fastly.exceptions.ForbiddenException):
            calls.purge_all("blog")
    with client("nobody") as nobody, pytest.raises(fastly.exceptions.UnauthorizedException):
        purge_api.PurgeApi(nobody).purge_tag("shop", "contacts")


# -- credentials


@pytest.mark.parametrize(
    ("by", "status", "message"),
    [
        pytest.param("nobody", 401, "Provided credentials are missing or invalid", id="unknown"),
        pytest.param("expired", 401, "Provided credentials are missing or invalid", id="expired"),
        pytest.param("disabled", 403, "You are not authorized to perform this action", id="off"),
        pytest.param(
            "elsewhere", 403, "You are not authorized to perform this action", id="from elsewhere"
        ),
        pytest.param(
            "reader", 403, "You are not authorized to perform this action", id="may only read"
        ),
    ],
)
@pytest.mark.parametrize("path", [KEY, KEYS, ALL, URL])
async def test_who_may_not(
    speaking: AdminPort, path: str, by: str, status: int, message: str
) -> None:
    body = {"surrogate_keys": ["a"]} if path == KEYS else None
    answer = await say(speaking, path, body, by)
    assert (answer.status, answer.body["msg"]) == (status, message)
    assert ("detail" in answer.body) == (status == 403)
    assert secret(by) not in str(answer.body)
    assert journal(speaking) == 0


@pytest.mark.parametrize("headers", [{}, {"Fastly-Key": " "}, {"Authorization": "Bearer x"}])
@pytest.mark.parametrize("method", ["POST", "PURGE"])
async def test_without_a_token(speaking: AdminPort, method: str, headers: dict[str, str]) -> None:
    answer = await speaking.call(method, URL, secret=None, headers=headers)
    assert answer.status == 401
    assert answer.body == {"msg": "Provided credentials are missing or invalid"}


async def test_all_takes_more_than_a_key(speaking: AdminPort) -> None:
    assert (await say(speaking, KEY, by="narrow")).status == 200
    assert (await say(speaking, ALL, by="narrow")).status == 403
    assert journal(speaking) == 1


@pytest.mark.parametrize(
    ("by", "path", "status"),
    [
        pytest.param("shop", "/service/blog/purge/a", 403, id="another's"),
        pytest.param("shop", "/service/none/purge/a", 403, id="none, and none of the token's"),
        pytest.param("master", "/service/none/purge/a", 404, id="none"),
        pytest.param("shop", "/purge/blog.test/a", 403, id="another's host"),
        pytest.param("shop", "/purge/none.test/a", 403, id="nobody's host, for all it knows"),
        pytest.param("master", "/purge/none.test/a", 404, id="nobody's host"),
    ],
)
async def test_services_that_can_t_be_purged(
    speaking: AdminPort, by: str, path: str, status: int
) -> None:
    answer = await say(speaking, path, by=by)
    message = (
        "Record not found" if status == 404 else "You are not authorized to perform this action"
    )
    assert (answer.status, answer.body["msg"]) == (status, message)
    assert journal(speaking) == 0


async def test_too_many_calls_in_a_time(speaking: AdminPort) -> None:
    assert (await say(speaking, KEY, by="hurried")).status == 200
    answer = await say(speaking, KEY, by="hurried")
    assert (answer.status, answer.body["msg"]) == (429, "API rate limit exceeded")
    assert answer.headers["Retry-After"] == "60"
    assert answer.headers["Fastly-RateLimit-Remaining"] == "0"
    reset = int(answer.headers["Fastly-RateLimit-Reset"])
    assert reset == int(speaking.served.clock.now + 60)


async def test_a_token_that_is_used_up(speaking: AdminPort) -> None:
    assert (await say(speaking, KEY, by="spent")).status == 200
    assert (await say(speaking, KEY, by="spent")).status == 403


# -- what is asked for


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        pytest.param(KEYS, None, {}, id="no keys"),
        pytest.param(KEYS, {"surrogate_keys": []}, {}, id="an empty list"),
        pytest.param(KEYS, {"surrogate_keys": "a"}, {}, id="no list"),
        pytest.param(KEYS, {"surrogate_keys": ["a", 7]}, {}, id="no text"),
        pytest.param(KEYS, {"surrogate_keys": ["a", ""]}, {}, id="empty"),
        pytest.param(KEYS, {"surrogate_keys": ["a\x00"]}, {}, id="NUL"),
        pytest.param(KEYS, {"surrogate_keys": ["b" * 1025]}, {}, id="1025 long"),
        pytest.param(KEYS, {"surrogate_keys": ["a"] * 257}, {}, id="257 keys"),
        pytest.param(KEYS, None, {"Surrogate-Key": "a " * 257}, id="257 in the field"),
        pytest.param(
            KEYS, {"surrogate_keys": ["a"] * 200}, {"Surrogate-Key": "a " * 57}, id="257 in both"
        ),
        pytest.param(KEYS, b"{", {}, id="no JSON"),
        pytest.param(KEY + "%00", None, {}, id="NUL in the path"),
        pytest.param(f"/service/shop/purge/{'b' * 1025}", None, {}, id="1025 in the path"),
        pytest.param("/purge/", None, {}, id="no URL"),
        pytest.param("/purge/ftp://shop.test/a", None, {}, id="another scheme"),
        pytest.param("/purge/a@shop.test/a", None, {}, id="user information"),
        pytest.param(KEY, None, {"Fastly-Purge-Environment": "moon"}, id="another environment"),
    ],
)
async def test_what_is_wrong(
    speaking: AdminPort, path: str, body: Any, headers: dict[str, str]
) -> None:
    answer = await say(speaking, path, body, headers=headers)
    assert (answer.status, answer.body["msg"]) == (400, "Bad request")
    assert answer.body["detail"]
    assert journal(speaking) == 0


async def test_what_is_just_within_the_limits(speaking: AdminPort) -> None:
    keys = [str(number) for number in range(255)] + ["k" * 1024]
    assert len((await say(speaking, KEYS, {"surrogate_keys": keys})).body) == 256


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        pytest.param(
            b"a" * (1 << 20 | 1), "application/json", 413, "Request entity too large", id="large"
        ),
        pytest.param(b"a=b", "text/plain", 415, "Unsupported media type", id="no JSON"),
    ],
)
async def test_bodies_that_are_not_read(
    speaking: AdminPort, body: bytes, kind: str, status: int, message: str
) -> None:
    answer = await say(speaking, KEYS, body, headers={"Content-Type": kind})
    assert (answer.status, answer.body["msg"]) == (status, message)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", KEY, 405, "Method not allowed"),
        ("DELETE", URL, 405, "Method not allowed"),
        ("GET", "/service/shop", 404, "Record not found"),
        ("POST", "/service/shop/version", 404, "Record not found"),
    ],
)
async def test_other_methods_and_paths(
    speaking: AdminPort, method: str, path: str, status: int, message: str
) -> None:
    answer = await say(speaking, path, method=method)
    assert (answer.status, answer.body["msg"]) == (status, message)
    assert answer.headers.get("Allow") == ("POST" if status == 405 else None)


async def test_what_can_t_be_recorded(speaking: AdminPort, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(*_: Any, **__: Any) -> None:
        raise JournalError("no room")

    monkeypatch.setattr(speaking.served.edge.service, "purge", failing)
    answer = await say(speaking, KEY)
    assert (answer.status, answer.body["msg"]) == (503, "Service unavailable")
