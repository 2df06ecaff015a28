"""What answers bear whichever way they come about (RFC 9111 4, 5), over real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import Answer, ScriptedOrigin
from tests.proxy.parts import ServedEdge, Time, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

MINUTE = {"Cache-Control": "max-age=60", "ETag": '"1"'}
LATER = "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.fixture
async def shop(tmp_path: Path, origin: ScriptedOrigin) -> AsyncIterator[ServedEdge]:
    async with running(tmp_path, origin, clock=Time()) as edge:
        yield edge


# -- RFC 9111 4, 5.1: Age


@pytest.mark.parametrize(
    ("method", "fields", "status"),
    [
        pytest.param("GET", {}, 200, id="whole"),
        pytest.param("HEAD", {}, 200, id="HEAD"),
        pytest.param("GET", {"Range": "bytes=0-0"}, 206, id="part"),
        pytest.param("GET", {"Range": "bytes=0-0,2-2"}, 206, id="parts"),
        pytest.param("GET", {"Range": "bytes=9-"}, 416, id="no-such-part"),
        pytest.param("GET", {"If-None-Match": '"1"'}, 304, id="not-modified"),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
async def test_all_that_comes_from_the_cache_has_an_age(
    shop: ServedEdge,
    origin: ScriptedOrigin,
    method: str,
    fields: Mapping[str, str],
    status: int,
    in_memory: bool,
) -> None:
    origin.route("/page", Answer(200, MINUTE | {"Age": "7"}, b"page"))
    await shop.get("/page")
    if not in_memory:
        shop.empty_memory()
    shop.clock.now += 30
    response = await shop.get("/page", dict(fields), method=method)
    assert (response.status, response.lines("age")) == (status, ["37"])
    assert origin.counts["/page"] == 1


async def test_a_validated_response_is_as_old_as_its_validation(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9111 4.2.3: a validation makes it young again."""
    origin.route("/page", Answer(200, MINUTE | {"Age": "50"}, b"page"))
    await shop.get("/page")
    shop.clock.now += 61
    origin.route("/page", Answer(304, MINUTE))
    await shop.get("/page")
    shop.clock.now += 5
    assert (await shop.get("/page")).lines("age") == ["5"]


async def test_what_comes_from_the_origin_is_not_given_an_age(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9111 5.1: Age implies that the response was not made for this request."""
    origin.route("/page", Answer(200, MINUTE, b"page"))
    assert (await shop.get("/page")).field("age") is None
    origin.route("/other", Answer(200, {"Cache-Control": "no-store", "Age": "3"}, b"other"))
    assert (await shop.get("/other")).lines("age") == ["3"]


# -- RFC 9110 6.6.1: Date


@pytest.mark.parametrize("cached", [True, False])
async def test_a_missing_date_is_added(
    shop: ServedEdge, origin: ScriptedOrigin, cached: bool
) -> None:
    fields = {"Cache-Control": "max-age=60" if cached else "no-store"}
    origin.route("/page", Answer(200, fields, b"page"))
    assert (await shop.get("/page")).lines("date") == [LATER]
    if cached:
        shop.clock.now += 30
        assert (await shop.get("/page")).lines("date") == [LATER], "when it came"


async def test_a_date_is_left_as_it_came(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/page", Answer(200, MINUTE | {"Date": "Tue, 14 Nov 2023 22:13:00 GMT"}, b"page"))
    for _ in range(2):
        assert (await shop.get("/page")).lines("date") == ["Tue, 14 Nov 2023 22:13:00 GMT"]


# -- RFC 9111 5.4, 5.5: Pragma and Warning


async def test_pragma_in_a_response_says_nothing(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    """RFC 9111 5.4: only requests have it."""
    origin.route("/page", Answer(200, MINUTE | {"Pragma": "no-cache"}, b"page"))
    await shop.get("/page")
    response = await shop.get("/page")
    assert ("hit" in response.cache_status, response.field("pragma")) == (True, "no-cache")


@pytest.mark.parametrize(
    ("fields", "hit"),
    [
        pytest.param({"Pragma": "no-cache"}, False, id="5.4-alone"),
        pytest.param({"Pragma": "x, No-Cache"}, False, id="5.4-among-others"),
        pytest.param({"Pragma": "no-cache", "Cache-Control": "max-age=600"}, True, id="5.4-beside"),
        pytest.param({"Pragma": "no-store"}, True, id="5.4-something-else"),
    ],
)
async def test_pragma_in_a_request_stands_for_cache_control(
    tmp_path: Path, origin: ScriptedOrigin, fields: Mapping[str, str], hit: bool
) -> None:
    site = {"cache": {"request_cache_control": "honour"}}
    async with running(tmp_path, origin, site=site) as shop:
        origin.route("/page", Answer(200, MINUTE, b"page"))
        await shop.get("/page")
        assert ("hit" in (await shop.get("/page", dict(fields))).cache_status) is hit


async def test_no_warning_is_made(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    """RFC 9111 5.5: it is obsolete; what an origin sends is a field like any other."""
    fields = {"Cache-Control": "max-age=0, stale-while-revalidate=600"}
    origin.route("/page", Answer(200, fields, b"page"))
    await shop.get("/page")
    response = await shop.get("/page")
    assert response.cache_status["detail"] == "stale-while-revalidate"
    assert response.field("warning") is None


# -- RFC 9111 5.2.2.2, 5.2.2.8: disconnected


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "directive", ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=0"]
)
async def test_what_must_be_validated_is_a_504_while_the_origin_is_away(
    shop: ServedEdge, origin: ScriptedOrigin, method: str, directive: str
) -> None:
    fields = {"Cache-Control": f"max-age=0, {directive}", "ETag": '"1"'}
    origin.route("/page", Answer(200, fields, b"page"))
    await shop.get("/page")
    await origin.stop_listening()
    response = await shop.get("/page", method=method)
    assert response.status == 504
    assert response.cache_status == {"fwd": "stale", "detail": "origin-unreachable"}
    await origin.start()
    origin.route("/page", [b"HTTP/1.1 what?\r\n\r\n"])
    assert (await shop.get("/page", method=method)).status == 502, "that is the origin's own fault"


async def test_what_is_not_stored_is_a_502_while_the_origin_is_away(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9110 15.6.3."""
    await origin.stop_listening()
    assert (await shop.get("/page")).status == 502


# -- RFC 9111 5.2.2.6, 3.1: what is stored goes out as it came


@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_response_is_sent_as_it_came(
    shop: ServedEdge, origin: ScriptedOrigin, in_memory: bool
) -> None:
    pairs = [
        ("Cache-Control", "max-age=60, no-transform"),
        ("X-One", "a"),
        ("x-TWO", "b, c"),
        ("X-One", "d"),
        ("Content-Encoding", "gzip"),
        ("Link", "</a>; rel=next"),
        ("Link", "</b>; rel=prev"),
        ("Connection", "X-Gone"),
        ("X-Gone", "e"),
        ("Proxy-Authenticate", "Basic"),
    ]
    origin.route("/page", Answer(200, pairs, b"\x1f\x8bnot really"))
    first = await shop.get("/page")
    if not in_memory:
        shop.empty_memory()
    second = await shop.get("/page")
    kept = [(name.encode(), value.encode()) for name, value in pairs[:7]]
    for response in (first, second):
        assert response.body == b"\x1f\x8bnot really"
        assert [pair for pair in response.head.pairs if pair in kept] == kept
        assert response.field("x-gone") is None
        assert response.field("proxy-authenticate") is None


async def test_trailers_are_left_out(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    """RFC 9110 6.5.1: they may be discarded; they are never merged into the header section."""
    answer = Answer(
        200,
        MINUTE,
        b"page",
        framing="chunked",
        trailers={"X-Late": "1", "Cache-Control": "private"},
    )
    origin.route("/page", answer)
    for _ in range(2):
        response = await shop.get("/page")
        assert (response.body, response.field("x-late")) == (b"page", None)
        assert response.lines("cache-control") == ["max-age=60"]
    assert origin.counts["/page"] == 1


# -- both ways to a hit


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "stored",
    [
        pytest.param({}, id="plain"),
        pytest.param({"ETag": '"1"', "Last-Modified": "Tue, 14 Nov 2023 20:00:00 GMT"}, id="valid"),
        pytest.param({"ETag": 'W/"1"', "Content-Type": "text/plain"}, id="weak"),
        pytest.param({"Vary": "X-Kind, Accept-Language", "Age": "3"}, id="varies"),
        pytest.param({"Cache-Tag": "a", "Surrogate-Control": "max-age=60"}, id="for-this-cache"),
    ],
)
async def test_from_memory_or_from_the_store_the_bytes_are_the_same(
    shop: ServedEdge, origin: ScriptedOrigin, stored: Mapping[str, str], method: str
) -> None:
    origin.route(
        "/page", Answer(200, {"Cache-Control": "max-age=60"} | dict(stored), b"0123456789")
    )
    await shop.get("/page")
    shop.clock.now += 7
    for fields in (
        {},
        {"Range": "bytes=2-3"},
        {"Range": "bytes=-1"},
        {"Range": "bytes=99-"},
        {"Range": "bytes=2-3", "If-Range": '"1"'},
        {"Range": "bytes=2-3", "If-Range": '"2"'},
        {"If-None-Match": '"1"'},
        {"If-None-Match": '"2"'},
        {"If-None-Match": "*"},
        {"If-Modified-Since": "Tue, 14 Nov 2023 21:00:00 GMT"},
        {"If-Modified-Since": "Tue, 14 Nov 2023 19:00:00 GMT"},
        {"Cache-Control": "no-cache"},
        {"Accept-Encoding": "gzip"},
    ):
        await shop.get("/page")
        fast = await shop.get("/page", fields, method=method)
        shop.empty_memory()
        full = await shop.get("/page", fields, method=method)
        assert "hit" in fast.cache_status
        assert (fast.head.raw, fast.body) == (full.head.raw, full.body), fields
    assert origin.counts["/page"] == 1
