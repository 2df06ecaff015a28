"""Stale while revalidating, stale if error (RFC 5861), and what is never served stale."""

import asyncio

import pytest

from tests.kit import Answer, EdgeProcess, OriginRequest, ScriptedOrigin

# Fresh for no time, so stale at once: no test waits for a lifetime to end.
AT_ONCE_STALE = {"Cache-Control": "max-age=0, stale-while-revalidate=600"}


async def test_one_refresh_runs_behind_any_number_of_stale_answers(
    origin: ScriptedOrigin, pair: EdgeProcess
) -> None:
    origin.route("/page", Answer(200, AT_ONCE_STALE, b"one"))
    assert (await pair.get("/page")).body == b"one"
    held = asyncio.Event()
    origin.route("/page", Answer(200, {"Cache-Control": "max-age=600"}, b"two", hold=held))

    responses = await asyncio.gather(*(pair.get("/page") for _ in range(200)))
    assert {response.body for response in responses} == {b"one"}
    for response in responses:
        assert response.cache_status["hit"] is True
        assert int(str(response.cache_status["ttl"])) <= 0
        assert response.cache_status["detail"] == "stale-while-revalidate"
    await origin.seen("/page", 2)
    held.set()
    while (response := await pair.get("/page")).body != b"two":
        pass
    assert origin.counts["/page"] == 2


async def test_a_refresh_is_conditional_and_a_304_makes_it_fresh(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """RFC 9111 4.3.1, 4.3.4: the 304's fields, tags among them, replace the stored ones."""
    first = AT_ONCE_STALE | {"ETag": '"v1"', "Cache-Tag": "old", "X-Kept": "yes"}
    origin.route("/page", Answer(200, first, b"page"))
    await edge.get("/page")
    update = {"Cache-Control": "max-age=600", "ETag": '"v1"', "Cache-Tag": "new"}
    origin.route("/page", Answer(304, update))
    await edge.get("/page")
    refresh = await origin.seen("/page", 2)
    assert refresh.field("if-none-match") == '"v1"'
    while not int(str((response := await edge.get("/page")).cache_status["ttl"])) > 0:
        pass
    assert (response.status, response.body, response.field("x-kept")) == (200, b"page", "yes")
    assert (await edge.purge(tags=["new"], dry_run=True))["matched"] == 1
    assert (await edge.purge(tags=["old"], dry_run=True))["matched"] == 0


@pytest.mark.parametrize("failure", [500, 502, 503, 504, "reset", "down"])
async def test_a_failing_origin_leaves_the_stale_response_in_place(
    edge: EdgeProcess, origin: ScriptedOrigin, failure: int | str
) -> None:
    """RFC 5861 4; with back-off, the origin is not asked at each request."""
    origin.route("/page", Answer(200, AT_ONCE_STALE, b"page"))
    await edge.get("/page")
    if failure == "down":
        await origin.stop_listening()
    elif failure == "reset":
        origin.route("/page", [b"HTTP/1.1 200 OK\r\nContent-Len"])
    else:
        assert isinstance(failure, int)
        origin.route("/page", Answer(failure, {"Cache-Control": "max-age=60"}, b"error"))
    for _ in range(30):
        response = await edge.get("/page")
        assert (response.status, response.body) == (200, b"page")
    assert origin.counts["/page"] <= 3


async def test_beyond_its_grace_a_response_serves_only_if_the_origin_fails(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    fields = {"Cache-Control": "max-age=0, stale-while-revalidate=0, stale-if-error=600"}
    origin.route("/page", Answer(200, fields, b"one"))
    await edge.get("/page")
    origin.route("/page", Answer(200, fields, b"two"))
    assert (await edge.get("/page")).body == b"two"
    origin.route("/page", Answer(503, {}, b"down"))
    response = await edge.get("/page")
    assert (response.status, response.body) == (200, b"two")
    assert response.cache_status["fwd-status"] == "503"


@pytest.mark.parametrize("directive", ["must-revalidate", "proxy-revalidate", "no-cache"])
async def test_what_forbids_stale_is_never_served_stale(
    edge: EdgeProcess, origin: ScriptedOrigin, directive: str
) -> None:
    """RFC 9111 4.2.4, 5.2.2.2, 5.2.2.4, 5.2.2.8."""
    fields = {"Cache-Control": f"max-age=0, {directive}", "ETag": '"1"'}
    origin.route("/page", Answer(200, fields, b"page"))
    await edge.get("/page")
    origin.route("/page", Answer(304, fields))
    response = await edge.get("/page")
    assert (response.status, response.body) == (200, b"page")
    assert response.cache_status["fwd"] == "stale"
    assert response.cache_status["fwd-status"] == "304"
    await origin.stop_listening()
    assert (await edge.get("/page")).status == 504


async def test_a_refresh_that_brings_something_uncacheable_ends_the_old_copy(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.route("/page", Answer(200, AT_ONCE_STALE, b"one"))
    await edge.get("/page")

    def private(_: OriginRequest) -> Answer:
        return Answer(200, {"Cache-Control": "private"}, b"mine")

    origin.route("/page", private)
    assert (await edge.get("/page")).body == b"one"
    await origin.seen("/page", 2)
    while (await edge.get("/page")).body != b"mine":
        pass


async def test_one_refresh_runs_behind_stale_answers_to_readers_with_credentials(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    fields = {"Cache-Control": "max-age=60, public", "Cache-Tag": "page"}
    origin.route("/page", Answer(200, fields, b"old"))
    await edge.get("/page")
    held = asyncio.Event()
    origin.route("/page", Answer(200, fields, b"new", hold=held))
    await edge.purge(tags=["page"])
    connections = [await edge.connect() for _ in range(20)]
    for connection in connections:
        await connection.request("GET", "/page", {"Authorization": "Basic YTpi"})
    for connection in connections:
        assert (await connection.response()).cache_status["detail"] == "invalidated"
    await origin.seen("/page", 2)
    held.set()
    while (await edge.get("/page")).body != b"new":
        pass
    assert origin.counts["/page"] == 2
