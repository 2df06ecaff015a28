"""What the answers to requests that are passed on do to what is stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edgeproxy.invalidation.selectors import Mode
from tests.kit import Answer, OriginRequest, ScriptedOrigin
from tests.kit.disk import full_disk
from tests.kit.origin import CLOSE
from tests.proxy.parts import ServedEdge, Time, by_tag, by_url, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

MINUTE = {"Cache-Control": "max-age=60"}
MODIFIED = "Tue, 14 Nov 2023 20:00:00 GMT"


@pytest.fixture
async def shop(tmp_path: Path, origin: ScriptedOrigin) -> AsyncIterator[ServedEdge]:
    async with running(tmp_path, origin, clock=Time()) as edge:
        yield edge


# -- HEAD, RFC 9111 4.3.5


@pytest.mark.parametrize(
    "head",
    [
        pytest.param({}, id="no-validators"),
        pytest.param({"ETag": '"1"'}, id="the-same-tag"),
        pytest.param({"ETag": '"1"', "Last-Modified": MODIFIED}, id="all-the-same"),
        pytest.param({"Content-Length": "4"}, id="the-same-length"),
    ],
)
async def test_a_head_response_freshens(
    shop: ServedEdge, origin: ScriptedOrigin, head: Mapping[str, str]
) -> None:
    stored = MINUTE | {"ETag": '"1"', "Last-Modified": MODIFIED, "X": "old", "Y": "kept"}
    origin.route("/page", Answer(200, stored, b"page"))
    await shop.get("/page")
    shop.clock.now += 61
    origin.route("/page", [_head_of(MINUTE | {"X": "new"} | dict(head))])
    response = await shop.get("/page", method="HEAD")
    assert (response.status, response.cache_status["fwd"]) == (200, "stale")
    assert origin.requests[-1].method == "HEAD"
    response = await shop.get("/page")
    assert response.cache_status["hit"] is True
    assert (response.body, response.field("x"), response.field("y")) == (b"page", "new", "kept")
    assert response.field("content-length") == "4"


def _head_of(fields: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode()


@pytest.mark.parametrize(
    "head",
    [
        pytest.param({"ETag": '"2"'}, id="another-tag"),
        pytest.param({"ETag": 'W/"1"'}, id="a-weak-tag"),
        pytest.param({"Last-Modified": "Tue, 14 Nov 2023 21:00:00 GMT"}, id="another-date"),
        pytest.param({"ETag": '"1"', "Content-Length": "5"}, id="another-length"),
        pytest.param({"ETag": '"1"', "Cache-Control": "no-store"}, id="not-to-be-stored-any-more"),
    ],
)
async def test_a_head_response_that_tells_of_another_ends_the_stored_one(
    shop: ServedEdge, origin: ScriptedOrigin, head: Mapping[str, str]
) -> None:
    stored = {"ETag": '"1"', "Last-Modified": MODIFIED, "Cache-Control": "max-age=60"}
    origin.route("/page", Answer(200, stored, b"page"))
    await shop.get("/page")
    shop.clock.now += 61
    origin.route("/page", [_head_of(MINUTE | dict(head))])
    await shop.get("/page", method="HEAD")
    assert shop.stored() == []


@pytest.mark.parametrize(
    ("head", "hit"),
    [
        pytest.param({"ETag": 'W/"1"'}, True, id="the-same-weak-tag"),
        pytest.param({}, False, id="nothing-that-tells"),
        pytest.param({"Content-Length": "4"}, False, id="an-equal-length-alone"),
    ],
)
async def test_a_head_response_and_weak_validators(
    shop: ServedEdge, origin: ScriptedOrigin, head: Mapping[str, str], hit: bool
) -> None:
    origin.route("/page", Answer(200, MINUTE | {"ETag": 'W/"1"'}, b"page"))
    await shop.get("/page")
    shop.clock.now += 61
    origin.route("/page", [_head_of(MINUTE | dict(head))])
    await shop.get("/page", method="HEAD")
    origin.route("/page", Answer(200, MINUTE, b"new!"))
    response = await shop.get("/page")
    assert (response.cache_status.get("hit", False), response.body == b"page") == (hit, hit)


async def test_a_head_response_concerns_only_what_it_would_have_selected(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    def page(request: OriginRequest) -> Answer:
        kind = request.field("x-kind") or "none"
        return Answer(200, MINUTE | {"Vary": "X-Kind", "ETag": f'"{kind}{len(origin.requests)}"'})

    origin.route("/page", page)
    await shop.get("/page", {"X-Kind": "a"})
    await shop.get("/page", {"X-Kind": "b"})
    shop.clock.now += 61
    await shop.get("/page", {"X-Kind": "a"}, method="HEAD")
    assert [dict(stored.selecting) for stored in shop.stored()] == [{b"x-kind": b"b"}]


@pytest.mark.parametrize(
    ("status", "fields"),
    [(404, {}), (301, {}), (200, {"Authorization": "Basic YTpi"})],
    ids=["404", "301", "3.5-with-credentials"],
)
async def test_other_head_responses_say_nothing_of_it(
    shop: ServedEdge, origin: ScriptedOrigin, status: int, fields: Mapping[str, str]
) -> None:
    origin.route("/page", Answer(200, MINUTE | {"ETag": '"1"'}, b"page"))
    await shop.get("/page")
    before = shop.stored()
    shop.clock.now += 61
    origin.route("/page", Answer(status, MINUTE | {"ETag": '"2"'}))
    assert (await shop.get("/page", dict(fields), method="HEAD")).status == status
    assert shop.stored() == before


async def test_a_fresh_response_answers_head_itself(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9111 4: the method must allow it, and HEAD does."""
    origin.route("/page", Answer(200, MINUTE, b"page"))
    await shop.get("/page")
    response = await shop.get("/page", method="HEAD")
    assert (response.status, response.body, response.field("content-length")) == (200, b"", "4")
    assert "hit" in response.cache_status
    assert origin.counts["/page"] == 1


@pytest.mark.parametrize("failure", [500, 503, None])
async def test_head_is_answered_with_the_stale_response_if_the_origin_fails(
    shop: ServedEdge, origin: ScriptedOrigin, failure: int | None
) -> None:
    """RFC 5861 4."""
    origin.route("/page", Answer(200, MINUTE, b"page"))
    await shop.get("/page")
    shop.clock.now += 61
    origin.route("/page", [CLOSE] if failure is None else Answer(failure))
    response = await shop.get("/page", method="HEAD")
    assert (response.status, response.field("content-length")) == (200, "4")


# -- POST, RFC 9110 9.3.3


@pytest.mark.parametrize(
    ("location", "stored"),
    [
        pytest.param("/form", True, id="8.7-path"),
        pytest.param("", True, id="8.7-relative"),
        pytest.param("http://SHOP.test:80/form", True, id="8.7-absolute"),
        pytest.param("/other", False, id="9.3.3-another"),
        pytest.param("/form?a=b", False, id="9.3.3-another-query"),
        pytest.param("http://other.test/form", False, id="9.3.3-another-host"),
        pytest.param("https://shop.test/form", False, id="9.3.3-another-scheme"),
        pytest.param("http://[/", False, id="no-uri"),
        pytest.param(None, False, id="9.3.3-absent"),
    ],
)
async def test_a_post_that_brings_what_a_get_would(
    shop: ServedEdge, origin: ScriptedOrigin, location: str | None, stored: bool
) -> None:
    origin.route("/form", Answer(200, MINUTE, b"old"))
    await shop.get("/form")
    fields = MINUTE | ({} if location is None else {"Content-Location": location})
    origin.route("/form", Answer(200, fields, b"posted"))
    response = await shop.get("/form", method="POST", body=b"a=b")
    assert (response.body, response.cache_status.get("stored", False)) == (b"posted", stored)
    origin.route("/form", Answer(200, MINUTE, b"got"))
    response = await shop.get("/form")
    assert response.body == (b"posted" if stored else b"got")
    assert ("hit" in response.cache_status) is stored
    response = await shop.get("/form", method="POST", body=b"a=b")
    assert response.body == b"got", "no POST is ever answered from the cache"


@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        pytest.param("POST", 200, {}, id="9.3.3-no-explicit-freshness"),
        pytest.param("POST", 200, {"Last-Modified": MODIFIED}, id="9.3.3-heuristic-freshness"),
        pytest.param("POST", 201, MINUTE, id="201"),
        pytest.param("POST", 404, MINUTE, id="8.7-an-error"),
        pytest.param("POST", 200, {"Cache-Control": "max-age=60, no-store"}, id="no-store"),
        pytest.param("POST", 200, {"Cache-Control": "max-age=60, private"}, id="private"),
        pytest.param("PUT", 200, MINUTE, id="9.3.4-PUT"),
        pytest.param("PATCH", 200, MINUTE, id="PATCH"),
    ],
)
async def test_other_answers_to_unsafe_methods_are_not_stored(
    shop: ServedEdge, origin: ScriptedOrigin, method: str, status: int, fields: Mapping[str, str]
) -> None:
    origin.route("/form", Answer(status, dict(fields) | {"Content-Location": "/form"}, b"x"))
    assert (await shop.get("/form", method=method, body=b"a=b")).status == status
    assert shop.stored() == []


async def test_a_post_that_asks_not_to_be_stored(tmp_path: Path, origin: ScriptedOrigin) -> None:
    """RFC 9111 5.2.1.5, where the site lets readers have a say."""
    site = {"cache": {"request_cache_control": "honour"}}
    async with running(tmp_path, origin, clock=Time(), site=site) as shop:
        fields = MINUTE | {"Content-Location": "/form"}
        origin.route("/form", Answer(200, fields, b"posted"))
        await shop.get("/form", {"Cache-Control": "no-store"}, method="POST")
        assert shop.stored() == []
        await shop.get("/form", method="POST")
        assert len(shop.stored()) == 1


async def test_a_post_response_too_long_to_store_is_sent_all_the_same(
    tmp_path: Path, origin: ScriptedOrigin
) -> None:
    least = 64 * 1024 * 1024
    config = {"store": {"max_bytes": least, "max_object_bytes": 1000}}
    async with running(tmp_path, origin, config=config) as shop:
        fields = MINUTE | {"Content-Location": "/form"}
        origin.route("/form", Answer(200, fields, b"x" * 2000, framing="chunked"))
        assert (await shop.get("/form", method="POST", body=b"")).body == b"x" * 2000
        assert shop.stored() == []


async def test_a_purge_while_a_post_is_under_way_counts(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    """What the origin answered from may be what the purge was about."""
    held = asyncio.Event()
    fields = MINUTE | {"Content-Location": "/form", "Cache-Tag": "forms"}
    origin.route("/form", Answer(200, fields, b"posted", hold=held))
    posting = asyncio.create_task(shop.get("/form", method="POST", body=b""))
    await origin.seen("/form")
    await shop.purge(by_tag("forms"))
    held.set()
    assert (await posting).body == b"posted"
    assert shop.stored() == []


async def test_a_later_post_outdates_an_earlier_one(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    held = asyncio.Event()
    fields = MINUTE | {"Content-Location": "/form"}
    origin.route("/form", Answer(200, fields, b"slow", hold=held))
    slow = asyncio.create_task(shop.get("/form", method="POST", body=b""))
    await origin.seen("/form")
    shop.clock.now += 1
    origin.route("/form", Answer(200, fields, b"fast"))
    await shop.get("/form", method="POST", body=b"")
    held.set()
    assert (await slow).body == b"slow"
    origin.route("/form", Answer(200, fields, b"got"))
    assert (await shop.get("/form")).body == b"got", (
        "which of them was later is the origin's to say"
    )


async def test_what_a_post_stored_can_be_purged(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/form", Answer(200, MINUTE | {"Content-Location": "/form"}, b"posted"))
    await shop.get("/form", method="POST", body=b"")
    assert (await shop.purge(by_url("/form"), mode=Mode.DELETE)).matched == 1
    assert (await shop.get("/form")).cache_status["fwd"] == "uri-miss"


# -- RFC 9875


async def test_a_group_is_invalidated_by_an_unsafe_request(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/a", Answer(200, MINUTE | {"Cache-Groups": '"x", "y";p=1'}, b"a"))
    origin.route("/b", Answer(200, MINUTE | {"Cache-Groups": '"z"'}, b"b"))
    origin.route("/c", Answer(200, MINUTE | {"Cache-Groups": '"X"'}, b"c"))
    origin.route("/d", Answer(200, MINUTE | {"Cache-Tag": "x,y"}, b"d"))
    for target in "abcd":
        response = await shop.get(f"/{target}")
    assert (await shop.get("/a")).field("cache-groups") == '"x", "y";p=1', "for all caches"
    origin.route("/form", Answer(204, {"Cache-Group-Invalidation": '"y", "w";q'}))
    response = await shop.get("/form", method="POST", body=b"")
    assert response.field("cache-group-invalidation") == '"y", "w";q'
    hits = ["hit" in (await shop.get(f"/{target}")).cache_status for target in "abcd"]
    assert hits == [False, True, True, True], "compared character by character, groups alone"


async def test_what_can_t_be_invalidated_is_not_said_to_be_done(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    """With a full disk and no room left in the journal: RFC 9111 4.4 is a MUST."""
    origin.route("/page", Answer(200, MINUTE, b"page"))
    await shop.get("/page")
    with full_disk():
        response = await shop.get("/page", method="POST", body=b"new")
        assert (response.status, response.cache_status["detail"]) == (500, "not-invalidated")
        assert (await shop.get("/page")).cache_status["hit"]
    assert (await shop.get("/page", method="POST", body=b"new")).status == 200
    assert (await shop.get("/page")).cache_status["fwd"] == "uri-miss"


async def test_groups_are_those_of_one_origin(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    """RFC 9875 2.1."""
    origin.route("/a", Answer(200, MINUTE | {"Cache-Groups": '"x"'}, b"a"))
    await shop.get("/a")
    await shop.get("/a", host="www.shop.test")
    origin.route("/form", Answer(204, {"Cache-Group-Invalidation": '"x"'}))
    await shop.get("/form", method="POST", body=b"")
    assert "hit" not in (await shop.get("/a")).cache_status
    assert "hit" in (await shop.get("/a", host="www.shop.test")).cache_status


@pytest.mark.parametrize(
    ("method", "status", "value"),
    [
        pytest.param("GET", 200, '"x"', id="3-safe"),
        pytest.param("OPTIONS", 200, '"x"', id="3-another-safe-one"),
        pytest.param("POST", 500, '"x"', id="9111-4.4-an-error"),
        pytest.param("POST", 200, "x", id="9651-a-token"),
        pytest.param("POST", 200, '"x', id="9651-malformed"),
        pytest.param("POST", 200, '"x", 1', id="9651-not-only-strings"),
        pytest.param("POST", 200, '("x")', id="9651-an-inner-list"),
    ],
)
async def test_what_invalidates_no_group(
    shop: ServedEdge, origin: ScriptedOrigin, method: str, status: int, value: str
) -> None:
    origin.route("/a", Answer(200, MINUTE | {"Cache-Groups": '"x"'}, b"a"))
    await shop.get("/a")
    origin.route("/form", Answer(status, {"Cache-Group-Invalidation": value}))
    await shop.get("/form", method=method)
    assert "hit" in (await shop.get("/a")).cache_status


async def test_many_long_groups(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    """RFC 9875 2: at least 32 members of at least 32 characters."""
    groups = [f'"{number:0>100}"' for number in range(64)]
    origin.route("/a", Answer(200, MINUTE | {"Cache-Groups": ", ".join(groups)}, b"a"))
    await shop.get("/a")
    origin.route("/form", Answer(204, {"Cache-Group-Invalidation": ", ".join(groups[63:])}))
    await shop.get("/form", method="DELETE")
    assert "hit" not in (await shop.get("/a")).cache_status


async def test_invalidation_does_not_cascade(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    """RFC 9875 2.2.1."""
    origin.route("/a", Answer(200, MINUTE | {"Cache-Groups": '"x", "y"'}, b"a"))
    origin.route("/b", Answer(200, MINUTE | {"Cache-Groups": '"y"'}, b"b"))
    await shop.get("/a")
    await shop.get("/b")
    origin.route("/form", Answer(204, {"Cache-Group-Invalidation": '"x"'}))
    await shop.get("/form", method="POST", body=b"")
    assert "hit" not in (await shop.get("/a")).cache_status
    assert "hit" in (await shop.get("/b")).cache_status
