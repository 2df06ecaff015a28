"""What one fetch brings: what is stored of it and what is not, and what a 304 changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.cache.stored import variant_id
from edgeproxy.semantics.key import target_id
from tests.kit import Answer, OriginRequest
from tests.proxy.other_worker import readers
from tests.proxy.parts import PATIENCE, ServedEdge, by_tag, by_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.kit import Response, ScriptedOrigin

    Serve = Callable[..., Awaitable[ServedEdge]]

FRESH = {"Cache-Control": "max-age=60"}
STRICT = {"Cache-Control": "max-age=60, stale-while-revalidate=0, stale-if-error=0"}
ON_ERROR = {"Cache-Control": "max-age=60, stale-while-revalidate=0, stale-if-error=600"}


def missed(response: Response) -> dict[str, str | bool]:
    """The Cache-Status of a response that was fetched, without what all of them have."""
    status = response.cache_status
    assert "hit" not in status
    return {name: value for name, value in status.items() if name not in ("fwd", "fwd-status")}


# -- what may be stored


@pytest.mark.parametrize(
    ("answer", "site", "reason"),
    [
        pytest.param(
            Answer(200, {"Cache-Control": "no-store"}, b"x"), {}, "no-store", id="9111-5.2.2.5"
        ),
        pytest.param(
            Answer(200, {"Cache-Control": "private"}, b"x"), {}, "private", id="9111-5.2.2.7"
        ),
        pytest.param(Answer(200, {**FRESH, "Vary": "*"}, b"x"), {}, "vary-star", id="9111-4.1"),
        pytest.param(Answer(200, {}, b"x"), {}, "no-freshness", id="9111-3: no freshness"),
        pytest.param(
            Answer(200, {**FRESH, "Set-Cookie": "a=b"}, b"x"), {}, "set-cookie", id="a cookie"
        ),
        pytest.param(
            Answer(200, {**FRESH, "Cache-Tag": "a,b,c"}, b"x"),
            {"tags": {"max_tags": 2}},
            "tag-limit",
            id="more tags than there may be: not one is dropped",
        ),
        pytest.param(
            Answer(200, FRESH, b"x", framing="close"), {}, "unframed", id="9112-8: cut or whole?"
        ),
        pytest.param(Answer(206, FRESH, b"x"), {}, "status", id="9111-3.3: a part"),
        pytest.param(Answer(412, FRESH, b"x"), {}, "status", id="9110-15.5.13"),
        pytest.param(Answer(428, FRESH, b"x"), {}, "status", id="6585-3"),
    ],
)
async def test_what_is_not_stored_says_why_and_is_remembered_so(
    serve: Serve, origin: ScriptedOrigin, answer: Answer, site: dict[str, Any], reason: str
) -> None:
    served = await serve(site={**site, "cache": {"uncacheable_ttl": 30}})
    origin.route("/", answer)
    first = await served.get("/")
    assert (first.status, first.body) == (answer.status, b"x")
    assert missed(first) == {"detail": reason}
    assert first.cache_status["fwd"] == "uri-miss"
    assert served.stored() == []
    second = (await served.get("/")).cache_status
    assert (second["fwd"], second["detail"]) == ("bypass", f"uncacheable; {reason}")
    served.clock.now += 30
    assert missed(await served.get("/")) == {"detail": reason}, "it is tried again then"
    assert origin.counts["/"] == 3


async def test_what_turns_out_cacheable_is_no_longer_remembered_as_not(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    go = asyncio.Event()

    def reply(request: OriginRequest) -> Answer:
        if request.field("authorization"):
            return Answer(200, {"Cache-Control": "no-store"}, b"mine")
        return Answer(200, FRESH, b"page", hold=go)

    origin.route("/", reply)
    asking = asyncio.create_task(served.get("/"))
    await origin.seen("/")
    await served.get("/", {"Authorization": "Basic YQ=="})
    assert served.edge.notes(by_url("/")) != []
    go.set()
    await asking
    assert served.edge.notes(by_url("/")) == []
    await served.purge(by_url("/"))
    assert (await served.get("/")).cache_status["fwd"] == "uri-miss"


async def test_what_turns_out_cacheable_is_stored_at_once(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/", Answer(200, {"Cache-Control": "no-store"}, b"mine"))
    await served.get("/")
    origin.route("/", Answer(200, FRESH, b"page"))
    second = await served.get("/")
    assert second.cache_status["fwd"] == "bypass"
    assert second.cache_status["stored"] is True
    third = await served.get("/")
    assert (third.body, third.cache_status["hit"]) == (b"page", True)


@pytest.mark.parametrize("asked", [{"Range": "bytes=0-1"}, {"If-None-Match": '"v"'}], ids=str)
async def test_nor_is_a_part_or_a_304_taken_for_the_page(
    served: ServedEdge, origin: ScriptedOrigin, asked: dict[str, str]
) -> None:
    origin.route("/", Answer(200, {"Cache-Control": "no-store"}, b"mine"))
    await served.get("/")
    fields = {**FRESH, "ETag": '"v"'}
    part = Answer(206, {**fields, "Content-Range": "bytes 0-1/4"}, b"pa")
    origin.route("/", part if "Range" in asked else Answer(304, fields))
    assert (await served.get("/", asked)).cache_status["fwd"] == "bypass"
    assert served.stored() == []


@pytest.mark.parametrize(
    "asked", [{}, {"If-None-Match": '"another"'}, {"Range": "bytes=0-1"}], ids=str
)
async def test_a_304_that_nothing_asked_for_is_a_failure(
    served: ServedEdge, origin: ScriptedOrigin, asked: dict[str, str]
) -> None:
    """9110-15.4.5: a reader would take it for its own copy being good."""
    origin.route("/", Answer(304, {"ETag": '"odd"'}))
    origin.route("/stored", Answer(200, {"Cache-Control": "max-age=60", "ETag": '"v"'}, b"page"))
    response = await served.get("/", asked)
    assert (response.status, response.cache_status["detail"]) == (502, "origin-protocol-error")
    await served.get("/stored")
    served.clock.now += 61
    origin.route("/stored", Answer(304, {"ETag": '"odd"'}))
    response = await served.get("/stored", asked)
    assert (response.status, response.body) in ((200, b"page"), (206, b"pa")), "stale"


async def test_what_was_changed_while_it_was_passed_on_is_not_stored(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9111 4.4."""
    go = asyncio.Event()
    origin.route("/", Answer(200, {"Cache-Control": "no-store"}, b"mine"))
    await served.get("/")

    def reply(request: OriginRequest) -> Answer:
        if request.method == "POST":
            return Answer(204)
        return Answer(200, FRESH, b"old", hold=go)

    origin.route("/", reply)
    asking = asyncio.create_task(served.get("/"))
    await origin.seen("/", 2)
    await served.get("/", method="POST")
    go.set()
    assert (await asking).body == b"old"
    origin.route("/", Answer(200, FRESH, b"new"))
    assert (await served.get("/")).body == b"new"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
async def test_an_error_says_nothing_of_the_page(
    served: ServedEdge, origin: ScriptedOrigin, status: int
) -> None:
    origin.route("/", Answer(status, {"Cache-Control": "no-store"}, b"x"))
    assert (await served.get("/")).status == status
    origin.route("/", Answer(200, FRESH, b"page"))
    found = await served.get("/")
    assert (found.cache_status["fwd"], found.body) == ("uri-miss", b"page")


async def test_all_that_is_kept_of_a_response(served: ServedEdge, origin: ScriptedOrigin) -> None:
    await served.purge(by_tag("other"))

    def reply(_: OriginRequest) -> Answer:
        served.clock.now += 2
        fields = {
            "Cache-Control": 'max-age=60, private="x-mine"',
            "Cache-Tag": "b, a",
            "Vary": "X-B, X-A",
            "X-Mine": "1",
            "Connection": "X-Hop",
            "X-Hop": "1",
        }
        return Answer(200, fields, b"page")

    origin.route("/a?b", reply)
    began = served.clock.now
    await served.get("/cb:t1/a?b", {"X-A": " 1 ", "X-C": "2"}, host="preview.shop.test")
    (stored,) = served.stored()
    assert (stored.site, stored.environment) == ("shop", "preview")
    assert (stored.scheme, stored.host, stored.target) == ("http", "preview.shop.test", b"/a?b")
    assert (stored.buster, stored.target_id) == (b"t1", target_id("shop", b"/a?b"))
    assert (stored.request_time, stored.response_time) == (began, began + 2)
    assert (stored.position, stored.invalidated, stored.tags) == (1, 0, ("a", "b"))
    assert stored.selecting == ((b"x-a", b"1"), (b"x-b", None))
    assert stored.variant == variant_id(stored.selecting)
    names = {name.lower() for name, _ in stored.fields}
    assert names == {b"cache-control", b"cache-tag", b"vary", b"content-length", b"via", b"date"}
    assert (stored.status, stored.reason, stored.body.length) == (200, b"OK", 4)


async def test_a_site_may_store_what_only_the_end_of_the_connection_ends(
    serve: Serve, origin: ScriptedOrigin
) -> None:
    served = await serve(site={"cache": {"store_unframed": True}})
    origin.route("/", Answer(200, FRESH, b"page", framing="close"))
    await served.get("/")
    assert (await served.get("/")).cache_status["hit"] is True


# -- bodies beyond the bound


@pytest.fixture
async def small(serve: Serve) -> ServedEdge:
    """An edge that stores bodies of up to 1000 bytes."""
    return await serve(config={"store": {"max_object_bytes": 1000}})


@pytest.mark.parametrize("size", [1000, 1001, 5_000_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_too_large_a_body_passes_through(
    small: ServedEdge, origin: ScriptedOrigin, framing: str, size: int
) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    origin.route("/", Answer(200, FRESH, framing=framing, chunks=(body[:600], body[600:])))
    for _ in range(2):
        assert (await small.get("/")).body == body
    fits = size <= 1000
    assert len(small.stored()) == fits
    if framing == "length" and not fits:
        assert small.edge.notes(by_url("/"))[0].endswith("too-large"), "known from the first"
    assert origin.counts["/"] == (1 if fits else 2)


async def test_all_who_wait_get_a_body_that_outgrows_the_store(
    small: ServedEdge, origin: ScriptedOrigin
) -> None:
    go = asyncio.Event()
    chunks = tuple(bytes([at]) * 100_000 for at in range(30))
    origin.route("/", Answer(200, FRESH, chunks=chunks, framing="chunked", hold=go))
    asking = [asyncio.create_task(small.get("/")) for _ in range(3)]
    await origin.seen("/")
    await small.until(lambda: readers(small, "/") == 3)
    go.set()
    assert {(await each).body for each in asking} == {b"".join(chunks)}
    assert origin.counts["/"] == 1
    assert small.stored() == []


async def test_what_can_t_be_kept_is_given_up_with_its_last_reader(
    small: ServedEdge, origin: ScriptedOrigin
) -> None:
    def endless(_: OriginRequest) -> Any:
        yield b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n"
        while True:
            yield b"%x\r\n%b\r\n" % (100_000, bytes(100_000))

    origin.route("/", endless)
    async with await small.connect() as connection:
        await connection.request("GET", "/")
        streamed = await connection.start_response()
        assert len(await streamed.read(1_000_000)) >= 1_000_000
    await asyncio.wait_for(origin.quiet(), PATIENCE)


async def test_what_can_be_kept_is_fetched_to_its_end_for_nobody(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    rest = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 8\r\n\r\n"
    origin.route("/", [head + b"half", rest, b"half"])
    async with await served.connect() as connection:
        await connection.request("GET", "/")
        await (await connection.start_response()).read(4)
    rest.set()
    await served.until(served.stored)
    assert (await served.get("/")).body == b"halfhalf"
    assert origin.counts["/"] == 1


# -- validation (RFC 9111 4.3)


async def test_a_304_freshens_what_is_stored(served: ServedEdge, origin: ScriptedOrigin) -> None:
    first = {**STRICT, "ETag": '"1"', "Last-Modified": "Tue, 14 Nov 2023 20:00:00 GMT"}
    origin.route("/", Answer(200, {**first, "X-A": "1", "Cache-Tag": "a"}, b"page"))
    await served.get("/")
    await served.purge(by_tag("nothing"))
    served.clock.now += 100
    origin.route("/", Answer(304, {**STRICT, "ETag": '"1"', "X-A": "2", "Cache-Tag": "b"}))
    again = await served.get("/", {"If-Modified-Since": "Tue, 14 Nov 2023 19:00:00 GMT"})
    assert (again.status, again.body, again.field("x-a")) == (200, b"page", "2")
    assert (again.cache_status["fwd"], again.cache_status["fwd-status"]) == ("stale", "304")
    asked = origin.requests_for("/")[1]
    assert asked.field("if-none-match") == '"1"'
    assert asked.lines("if-modified-since") == ["Tue, 14 Nov 2023 20:00:00 GMT"]
    (stored,) = served.stored()
    assert (stored.tags, stored.position) == (("b",), 1)
    assert stored.response_time == served.clock.now
    assert (await served.get("/")).cache_status["hit"] is True
    served.empty_memory()
    assert (await served.get("/")).body == b"page"
    assert origin.counts["/"] == 2


@pytest.mark.parametrize("tagged", [True, False])
async def test_what_was_deleted_meanwhile_is_asked_for_as_a_whole(
    served: ServedEdge, origin: ScriptedOrigin, tagged: bool
) -> None:
    go = asyncio.Event()
    fields = {**STRICT, "ETag": '"1"', "Cache-Tag": "a"}

    def reply(request: OriginRequest) -> Answer:
        if request.field("if-none-match"):
            return Answer(304, fields, hold=go)
        return Answer(200, fields, b"version %d" % origin.counts["/"])

    origin.route("/", reply)
    await served.get("/")
    served.clock.now += 100
    asking = asyncio.create_task(served.get("/"))
    await origin.seen("/", 2)
    await served.purge(by_tag("a") if tagged else by_url("/"))
    go.set()
    assert (await asking).body == b"version 3"
    assert origin.counts["/"] == 3


async def test_more_tags_in_a_304_than_there_may_be(serve: Serve, origin: ScriptedOrigin) -> None:
    served = await serve(site={"tags": {"max_tags": 1}})
    fields = {**STRICT, "ETag": '"1"'}

    def reply(request: OriginRequest) -> Answer:
        if request.field("if-none-match"):
            return Answer(304, {**fields, "Cache-Tag": "a, b"})
        return Answer(200, fields, b"page")

    origin.route("/", reply)
    await served.get("/")
    served.clock.now += 100
    assert (await served.get("/")).body == b"page"
    assert [stored.tags for stored in served.stored()] == [()]
    assert origin.counts["/"] == 3, "a response must not lose a tag: the whole was fetched"


async def test_a_new_response_takes_the_place_of_the_one_it_was_to_validate(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/", Answer(200, STRICT, b"old"))
    await served.get("/")
    served.clock.now += 100
    origin.route("/", Answer(200, {**STRICT, "Vary": "Accept"}, b"new"))
    assert (await served.get("/")).body == b"new"
    assert [stored.selecting for stored in served.stored()] == [((b"accept", None),)]


async def test_an_error_does_not_take_its_place(served: ServedEdge, origin: ScriptedOrigin) -> None:
    """RFC 5861 4, though the error says that it may be stored."""
    origin.route("/", Answer(200, ON_ERROR, b"page"))
    await served.get("/")
    served.clock.now += 100
    origin.route("/", Answer(503, {"Cache-Control": "max-age=3600"}, b"down"))
    answer = await served.get("/")
    assert (answer.status, answer.body) == (200, b"page")
    assert answer.cache_status == {
        "fwd": "stale",
        "fwd-status": "503",
        "ttl": "-40",
        "detail": "stale-if-error",
    }
    assert [stored.status for stored in served.stored()] == [200]
