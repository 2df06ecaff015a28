"""Wix's invalidateCache, as its document and its SDK have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.invalidation.journal import LocalJournal
from edgeproxy.invalidation.selectors import Mode
from tests.admin.dialects.conftest import secret, store
from tests.invalidation.samples import new_head

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.admin.conftest import AdminPort, Called

PATHS = (
    "/ssr/v1/invalidate-cache",
    "/v1/invalidate-cache",
    "/wix-public-html-cache-invalidate-webapp/v1/invalidate-cache",
)
PURGE_SITE = "/v1/purge-site-cache"
ALL_PATHS = (*PATHS, PURGE_SITE)

TAGS = {"/a": "Cache-Tag: contacts, a", "/b": "Cache-Tag: labels"}


def tags(*names: object) -> dict[str, Any]:
    """The body of a call."""
    return {"invalidationMethods": [{"tag": name} for name in names]}


async def say(
    port: AdminPort,
    body: Any = None,
    by: str = "shop",
    *,
    path: str = PATHS[0],
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> Called:
    """A call as Wix's SDK makes it."""
    named = {"Authorization": secret(by), **(headers or {})}
    return await port.call(method, path, body, secret=None, headers=named)


def violations(answer: Called) -> list[tuple[str, str]]:
    """The fields that are wrong, and the rules that they break."""
    found = answer.body["details"]["validationError"]["fieldViolations"]
    assert all(each["description"] and each["ruleName"] for each in found)
    return [(each["field"], each["violatedRule"]) for each in found]


def journal(port: AdminPort) -> int:
    """The position of the newest purge."""
    return port.served.edge.view.catch_up()


# -- success, and what it does


@pytest.mark.parametrize("path", PATHS)
async def test_what_bears_a_tag_is_cleared(speaking: AdminPort, path: str) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, tags("contacts", "nothing"), path=path)
    assert (answer.status, answer.body) == (200, {})
    assert answer.headers["Edge-Matched"] == "2"
    assert "Edge-Dry-Run" not in answer.headers
    assert await pages.left() == ["shop.test/b", "shop.test/c", "blog.test/a"]


async def test_several_tags_are_any_of_them_and_the_next_reader_waits(speaking: AdminPort) -> None:
    pages = await store(speaking, TAGS)
    assert (await say(speaking, tags("contacts", "labels"))).status == 200
    assert [await pages.how(target) for target in ("/a", "/b", "/c")] == [
        "missed",
        "missed",
        "fresh",
    ]


async def test_the_whole_site_is_cleared(speaking: AdminPort) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, {}, path=PURGE_SITE)
    assert (answer.status, answer.body, answer.headers["Edge-Matched"]) == (200, {}, "4")
    assert await pages.left() == ["blog.test/a"]


@pytest.mark.parametrize(
    "body", [None, {}, {"invalidationMethods": []}, {"invalidationMethods": None}], ids=str
)
@pytest.mark.parametrize("path", PATHS)
async def test_no_method_is_a_success_that_invalidates_nothing(
    speaking: AdminPort, path: str, body: Any
) -> None:
    answer = await say(speaking, body, path=path)
    assert (answer.status, answer.body) == (200, {})
    assert answer.headers["Edge-Matched"] == "0"
    assert journal(speaking) == 0


@pytest.mark.parametrize("path", ALL_PATHS)
async def test_a_dry_run_counts_and_clears_nothing(speaking: AdminPort, path: str) -> None:
    pages = await store(speaking, TAGS)
    body = {} if path == PURGE_SITE else tags("contacts")
    answer = await say(speaking, body, path=path, headers={"Edge-Dry-Run": "1"})
    assert (answer.status, answer.body) == (200, {})
    assert answer.headers["Edge-Dry-Run"] == "1"
    assert answer.headers["Edge-Matched"] == ("4" if path == PURGE_SITE else "2")
    assert len(await pages.left()) == 5


@pytest.mark.parametrize("header", ["wix-site-id", "wix-account-id"])
async def test_the_site_is_the_one_that_is_named(speaking: AdminPort, header: str) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, tags("contacts"), "two", headers={header: "blog"})
    assert answer.status == 200
    left = await pages.left()
    assert "blog.test/a" not in left
    assert "shop.test/a" in left


async def test_only_the_environments_of_the_token_are_cleared(speaking: AdminPort) -> None:
    pages = await store(speaking, TAGS)
    assert (await say(speaking, tags("contacts"), "preview")).status == 200
    left = await pages.left()
    assert "shop.test/a" in left
    assert "preview.shop.test/a" not in left


async def test_the_journal_says_who_and_what(speaking: AdminPort) -> None:
    await say(speaking, tags("a"))
    await speaking.served.edge.close()
    opened = LocalJournal(speaking.served.place.directory / "journal", new_head())
    (record,) = opened.since(0, 9)
    assert (record.actor, record.source, record.mode) == ("shop", "127.0.0.1", Mode.DELETE)
    assert record.dialect == "wix"


# -- credentials


@pytest.mark.parametrize("path", ALL_PATHS)
@pytest.mark.parametrize("scheme", ["", "Bearer ", "bearer "])
async def test_the_token_comes_alone_or_with_bearer(
    speaking: AdminPort, path: str, scheme: str
) -> None:
    headers = {"Authorization": scheme + secret("shop")}
    assert (await say(speaking, {}, path=path, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("by", "status", "code"),
    [
        pytest.param("nobody", 401, "UNAUTHENTICATED", id="unknown"),
        pytest.param("expired", 401, "UNAUTHENTICATED", id="expired"),
        pytest.param("disabled", 403, "PERMISSION_DENIED", id="disabled"),
        pytest.param("elsewhere", 403, "PERMISSION_DENIED", id="from elsewhere"),
        pytest.param("reader", 403, "PERMISSION_DENIED", id="may only read"),
    ],
)
@pytest.mark.parametrize("path", ALL_PATHS)
async def test_who_may_not(speaking: AdminPort, path: str, by: str, status: int, code: str) -> None:
    body = {} if path == PURGE_SITE else tags("a")
    answer = await say(speaking, body, by, path=path)
    assert answer.status == status
    assert answer.body["message"]
    assert answer.body["details"]["applicationError"]["code"] == code
    assert answer.body["details"]["applicationError"]["data"] == {}
    assert secret(by) not in str(answer.body)
    assert journal(speaking) == 0


@pytest.mark.parametrize("authorization", [None, "", "Basic YTpi", "Bearer"])
@pytest.mark.parametrize("path", ALL_PATHS)
async def test_without_a_token(speaking: AdminPort, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await speaking.call("POST", path, {}, secret=None, headers=headers)
    assert answer.status == 401
    assert answer.body["details"]["applicationError"]["code"] == "UNAUTHENTICATED"


async def test_the_whole_site_takes_more_than_a_tag(speaking: AdminPort) -> None:
    assert (await say(speaking, tags("a"), "narrow")).status == 200
    answer = await say(speaking, {}, "narrow", path=PURGE_SITE)
    assert (answer.status, journal(speaking)) == (403, 1)


@pytest.mark.parametrize(
    ("by", "site", "status", "code"),
    [
        pytest.param("shop", "blog", 403, "PERMISSION_DENIED", id="another's"),
        pytest.param("shop", "none", 403, "PERMISSION_DENIED", id="none, and none of the token's"),
        pytest.param("master", "none", 404, "NOT_FOUND", id="none"),
    ],
)
@pytest.mark.parametrize("path", ALL_PATHS)
async def test_sites_that_can_t_be_purged(
    speaking: AdminPort, path: str, by: str, site: str, status: int, code: str
) -> None:
    body = {} if path == PURGE_SITE else tags("a")
    answer = await say(speaking, body, by, path=path, headers={"wix-site-id": site})
    assert answer.status == status
    assert answer.body["details"]["applicationError"]["code"] == code
    assert journal(speaking) == 0


async def test_a_token_for_several_sites_must_name_one(speaking: AdminPort) -> None:
    answer = await say(speaking, tags("a"), "two")
    assert (answer.status, violations(answer)) == (400, [("site", "REQUIRED_FIELD")])


@pytest.mark.parametrize("path", ALL_PATHS)
async def test_too_many_calls_in_a_time(speaking: AdminPort, path: str) -> None:
    assert (await say(speaking, {}, "hurried", path=path)).status == 200
    answer = await say(speaking, {}, "hurried", path=path)
    assert answer.status == 429
    assert answer.body["details"]["applicationError"]["code"] == "RESOURCE_EXHAUSTED"
    assert answer.headers["Retry-After"] == "60"
    speaking.served.clock.now += 60
    assert (await say(speaking, {}, "hurried", path=path)).status == 200


@pytest.mark.parametrize("path", ALL_PATHS)
async def test_a_token_that_is_used_up(speaking: AdminPort, path: str) -> None:
    assert (await say(speaking, {}, "spent", path=path)).status == 200
    answer = await say(speaking, {}, "spent", path=path)
    assert answer.status == 403
    assert answer.body["details"]["applicationError"]["code"] == "PERMISSION_DENIED"


# -- bodies


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        pytest.param(tags(""), [("invalidationMethods[0].tag", "MIN_LENGTH")], id="empty"),
        pytest.param(
            tags("a", "b" * 501), [("invalidationMethods[1].tag", "MAX_LENGTH")], id="501 long"
        ),
        pytest.param(tags(7), [("invalidationMethods[0].tag", "TYPE")], id="no text"),
        pytest.param(tags("a\x00"), [("invalidationMethods[0].tag", "FORMAT")], id="NUL"),
        pytest.param(tags("a\nb"), [("invalidationMethods[0].tag", "FORMAT")], id="line break"),
        pytest.param(tags("\ud800"), [("invalidationMethods[0].tag", "FORMAT")], id="half a pair"),
        pytest.param(
            {"invalidationMethods": [{}]},
            [("invalidationMethods[0].tag", "REQUIRED_FIELD")],
            id="no tag",
        ),
        pytest.param(
            {"invalidationMethods": ["a"]}, [("invalidationMethods[0]", "TYPE")], id="no object"
        ),
        pytest.param({"invalidationMethods": "a"}, [("invalidationMethods", "TYPE")], id="no list"),
        pytest.param(tags(*"a" * 101), [("invalidationMethods", "MAX_SIZE")], id="101 of them"),
        pytest.param(
            tags("", 7),
            [("invalidationMethods[0].tag", "MIN_LENGTH"), ("invalidationMethods[1].tag", "TYPE")],
            id="two wrong ones",
        ),
    ],
)
async def test_fields_that_are_wrong_are_named(
    speaking: AdminPort, body: Any, wrong: list[tuple[str, str]]
) -> None:
    answer = await say(speaking, body)
    assert (answer.status, violations(answer)) == (400, wrong)
    assert answer.body["message"]
    assert journal(speaking) == 0


@pytest.mark.parametrize("body", [tags(*map(str, range(100))), tags("a" * 500)], ids=["100", "500"])
async def test_what_is_just_within_the_limits(speaking: AdminPort, body: Any) -> None:
    assert (await say(speaking, body)).status == 200


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"\xff", id="no UTF-8"),
        pytest.param(b'{"invalidationMethods":[],"invalidationMethods":[]}', id="a key twice"),
        pytest.param(b'{"a":' * 40 + b"1" + b"}" * 40, id="40 deep"),
        pytest.param(b'{"a":' + b"[" * 100_000, id="without end"),
    ],
)
@pytest.mark.parametrize("path", ALL_PATHS)
async def test_bodies_that_can_t_be_read(speaking: AdminPort, path: str, body: bytes) -> None:
    answer = await say(speaking, body, path=path)
    assert answer.status == 400
    assert answer.body["details"]["applicationError"]["code"] == "INVALID_ARGUMENT"
    assert journal(speaking) == 0


@pytest.mark.parametrize("path", ALL_PATHS)
async def test_a_body_that_is_too_large(speaking: AdminPort, path: str) -> None:
    answer = await say(speaking, b" " * (1 << 20) + b"{}", path=path)
    assert (answer.status, journal(speaking)) == (413, 0)
    assert answer.body["details"]["applicationError"]["code"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"],
)
@pytest.mark.parametrize("path", ALL_PATHS)
async def test_a_body_that_is_no_json(speaking: AdminPort, path: str, content_type: str) -> None:
    answer = await say(speaking, b"{}", path=path, headers={"Content-Type": content_type})
    assert (answer.status, journal(speaking)) == (415, 0)


async def test_a_dry_run_that_is_not_understood_clears_nothing(speaking: AdminPort) -> None:
    answer = await say(speaking, tags("a"), headers={"Edge-Dry-Run": "yes"})
    assert (answer.status, journal(speaking)) == (400, 0)


# -- paths and methods


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ALL_PATHS)
async def test_another_method(speaking: AdminPort, path: str, method: str) -> None:
    answer = await say(speaking, path=path, method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert answer.body["details"]["applicationError"]["code"] == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize("path", ["/ssr/v1/nothing", "/ssr/v1/invalidate-cache/"])
async def test_another_path(speaking: AdminPort, path: str) -> None:
    answer = await say(speaking, path=path)
    assert answer.status == 404
    assert answer.body["details"]["applicationError"]["code"] == "NOT_FOUND"


# -- what goes wrong inside


@pytest.mark.parametrize("path", ALL_PATHS)
async def test_what_can_t_be_recorded(
    speaking: AdminPort, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    await store(speaking, TAGS)
    await speaking.served.edge.service._journal.close()
    body = {} if path == PURGE_SITE else tags("contacts")
    answer = await say(speaking, body, path=path)
    assert answer.status in (500, 503)
    assert answer.body["details"]["applicationError"]["code"] in ("INTERNAL", "UNAVAILABLE")
    assert str(speaking.served.place.directory) not in str(answer.body)
    assert secret("shop") not in caplog.text


# -- the request's id


@pytest.mark.parametrize("by", ["shop", "nobody"])
async def test_the_request_s_id_is_echoed(speaking: AdminPort, by: str) -> None:
    answer = await say(speaking, {}, by, headers={"X-Wix-Request-Id": "1234.abc:5"})
    assert answer.headers["X-Wix-Request-Id"] == "1234.abc:5"


@pytest.mark.parametrize("claimed", [None, "", "a b", "x" * 129])
async def test_without_one_it_is_made(speaking: AdminPort, claimed: str | None) -> None:
    headers = {} if claimed is None else {"X-Wix-Request-Id": claimed}
    made = {
        (await say(speaking, {}, headers=headers)).headers["X-Wix-Request-Id"] for _ in range(2)
    }
    assert len(made) == 2
    assert all(len(each) == 32 for each in made)
