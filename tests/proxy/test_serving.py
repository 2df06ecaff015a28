"""What readers get of a stored response: out of memory, out of the store, and while it comes in."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import Answer, MessageCut

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.kit import Response, ScriptedOrigin
    from tests.proxy.parts import ServedEdge

    Serve = Callable[..., Awaitable[ServedEdge]]

BODY = b"0123456789abcdef"
ETAG = '"v1"'
MODIFIED = "Tue, 14 Nov 2023 20:00:00 GMT"
BEFORE = "Tue, 14 Nov 2023 19:59:59 GMT"
PAGE = {
    "Date": "Tue, 14 Nov 2023 22:13:20 GMT",
    "Content-Type": "text/plain",
    "Cache-Control": "max-age=600",
    "ETag": ETAG,
    "Last-Modified": MODIFIED,
    "Vary": "Accept",
    "X-Kept": "1",
}
LARGE = os.urandom(300_000)
"""A body that the store keeps in a file."""


@pytest.fixture(params=["memory", "store"])
async def warm(request: pytest.FixtureRequest, serve: Serve, origin: ScriptedOrigin) -> ServedEdge:
    """An edge that has the page / in its memory, or in its store alone."""
    config = {"memory": {"max_object_bytes": 1}} if request.param == "store" else {}
    served = await serve(config=config)
    origin.route("/", Answer(200, PAGE, BODY))
    assert (await served.get("/")).body == BODY
    return served


def from_cache(response: Response) -> Response:
    """That response, which must have come out of the cache."""
    assert response.cache_status.get("hit") is True
    return response


def names(response: Response) -> list[str]:
    return [name.decode().lower() for name, _ in response.head.pairs]


# -- whole


async def test_a_stored_response_goes_out_as_it_came(
    warm: ServedEdge, origin: ScriptedOrigin
) -> None:
    warm.clock.now += 7.9
    first, second = [from_cache(await warm.get("/")) for _ in range(2)]
    assert first.head.raw == second.head.raw, "rendered once, or each time: the same"
    assert first.body == second.body == BODY
    fields = {name.decode(): value.decode() for name, value in first.head.pairs}
    assert fields == {
        **PAGE,
        "Via": "1.1 edgeproxy",
        "Age": "7",
        "Content-Length": "16",
        "Cache-Status": "edgeproxy; hit; ttl=592",
    }
    assert origin.counts["/"] == 1


async def test_every_answer_tells_its_own_age(warm: ServedEdge) -> None:
    """RFC 9111 5.1."""
    for seconds in (0, 1, 599):
        warm.clock.now = 1_700_000_000.0 + seconds
        response = from_cache(await warm.get("/"))
        assert response.lines("age") == [str(seconds)]
        assert response.cache_status["ttl"] == str(600 - seconds)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("fields", "passed", "ages"),
    [
        pytest.param({}, 5, [None, "5"], id="it is new"),
        pytest.param({"Age": "10"}, 5, ["10", "15"], id="9111-4.2.3: it was aged before"),
        pytest.param({"Age": "0"}, 0, ["0", "0"], id="an Age is never left out"),
        pytest.param(
            {"Date": "Tue, 14 Nov 2023 22:12:50 GMT"}, 5, ["30", "35"], id="9111-4.2.3: by its Date"
        ),
    ],
)
async def test_the_age_goes_on_from_what_others_have_aged_it(
    serve: Serve,
    origin: ScriptedOrigin,
    in_memory: bool,
    fields: dict[str, str],
    passed: int,
    ages: list[str | None],
) -> None:
    served = await serve(config={} if in_memory else {"memory": {"max_object_bytes": 1}})
    origin.route("/", Answer(200, {"Cache-Control": "max-age=600", **fields}, BODY))
    found = [await served.get("/")]
    served.clock.now += passed
    found.append(from_cache(await served.get("/")))
    assert [response.field("age") for response in found] == ages
    assert all(len(response.lines("age")) < 2 for response in found)


async def test_head_is_get_without_its_body(warm: ServedEdge, origin: ScriptedOrigin) -> None:
    """RFC 9110 9.3.2."""
    got, headed = [from_cache(await warm.get("/", method=each)) for each in ("GET", "HEAD")]
    assert headed.body == b""
    assert sorted(headed.head.pairs) == sorted(got.head.pairs)
    assert origin.counts["/"] == 1


@pytest.mark.parametrize(
    ("status", "fields", "body"),
    [
        pytest.param(204, {}, b"", id="9110-15.3.5: 204 has no length"),
        pytest.param(404, {"Content-Type": "text/plain"}, b"no such page", id="404"),
        pytest.param(301, {"Location": "/b"}, b"moved", id="301"),
        pytest.param(200, {"Content-Type": "text/plain"}, b"", id="200 without a byte"),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
async def test_other_statuses(
    serve: Serve,
    origin: ScriptedOrigin,
    in_memory: bool,
    status: int,
    fields: dict[str, str],
    body: bytes,
) -> None:
    served = await serve()
    origin.route("/", Answer(status, {"Cache-Control": "max-age=60", **fields}, body))
    await served.get("/")
    if not in_memory:
        served.empty_memory()
    response = from_cache(await served.get("/"))
    assert (response.status, response.body) == (status, body)
    length = None if status == 204 else str(len(body))
    assert response.field("content-length") == length
    assert response.field("location") == fields.get("Location")


@pytest.mark.parametrize("in_memory", [True, False])
async def test_lines_and_reason_stay_byte_for_byte(
    serve: Serve, origin: ScriptedOrigin, in_memory: bool
) -> None:
    served = await serve(config={} if in_memory else {"memory": {"max_object_bytes": 1}})
    lines = b"x-B: 2\r\nX-a: \xe9 \xc3\xa9\r\nX-B: 1\r\nset-thing: a,  b"
    head = b"HTTP/1.1 200 Fine, Thanks\r\nCache-Control: max-age=60\r\n" + lines
    origin.route("/", [head + b"\r\nContent-Length: 2\r\n\r\nok"])
    first, second = await served.get("/"), from_cache(await served.get("/"))
    for response in (first, second):
        assert response.reason == "Fine, Thanks"
        assert lines in response.head.raw


# -- what is for the cache alone


TAGGED = {"Cache-Control": "max-age=60", "Cache-Tag": "a, b", "Surrogate-Key": "c d"}


@pytest.mark.parametrize(
    ("site", "shown"),
    [
        ({}, False),
        ({"tags": {"debug": True}}, True),
        ({"tags": {"fields": ["cache-tag"]}}, False),
    ],
)
async def test_tags_are_shown_only_to_who_debugs(
    serve: Serve, origin: ScriptedOrigin, site: dict[str, Any], shown: bool
) -> None:
    served = await serve(site=site)
    origin.route("/", Answer(200, TAGGED, BODY))
    missed, hit = await served.get("/"), from_cache(await served.get("/"))
    part = await served.get("/", {"Range": "bytes=0-1"})
    same = await served.get("/", {"If-None-Match": "*"})
    passed = await served.get("/", method="POST", body=b"")
    for response in (missed, hit, part, same, passed):
        assert ("cache-tag" in names(response)) is shown


async def test_cache_status_can_be_left_out(serve: Serve, origin: ScriptedOrigin) -> None:
    served = await serve(site={"cache_status": False})
    origin.route("/", Answer(200, {**PAGE, "Cache-Status": "Inner; hit"}, BODY))
    for _ in range(2):
        assert (await served.get("/")).lines("cache-status") == ["Inner; hit"]


async def test_the_members_of_inner_caches_stay_in_front(
    serve: Serve, origin: ScriptedOrigin
) -> None:
    """RFC 9211 2."""
    served = await serve()
    origin.route("/", Answer(200, {**PAGE, "Cache-Status": "Inner; hit"}, BODY))
    await served.get("/")
    hit = await served.get("/")
    assert hit.lines("cache-status") == ["Inner; hit", "edgeproxy; hit; ttl=600"]


# -- conditions


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param({"If-None-Match": ETAG}, 304, id="9110-13.1.2: the same tag"),
        pytest.param({"If-None-Match": f'"x", W/{ETAG}'}, 304, id="9110-8.8.3.2: weakly the same"),
        pytest.param({"If-None-Match": "*"}, 304, id="9110-13.1.2: any"),
        pytest.param({"If-None-Match": '"v2"'}, 200, id="9110-13.1.2: another tag"),
        pytest.param({"If-Modified-Since": MODIFIED}, 304, id="9110-13.1.3: not modified"),
        pytest.param({"If-Modified-Since": BEFORE}, 200, id="9110-13.1.3: modified"),
        pytest.param({"If-Modified-Since": "yesterday"}, 200, id="9110-13.1.3: no date"),
        pytest.param(
            {"If-None-Match": '"v2"', "If-Modified-Since": MODIFIED},
            200,
            id="9110-13.2.2: the tag comes first",
        ),
        pytest.param(
            {"If-None-Match": ETAG, "Range": "bytes=0-1"}, 304, id="9110-13.2.2: before the range"
        ),
    ],
)
async def test_conditions(warm: ServedEdge, fields: dict[str, str], status: int) -> None:
    warm.clock.now += 3
    for method in ("GET", "HEAD"):
        response = from_cache(await warm.get("/", fields, method=method))
        assert response.status == status
        assert response.body == (BODY if status == 200 and method == "GET" else b"")
        if status == 304:
            # RFC 9110 15.4.5: nothing of what the client has already.
            assert sorted(names(response)) == sorted(
                ["date", "cache-control", "etag", "vary", "x-kept", "via", "age", "cache-status"]
            )
            assert response.field("age") == "3"


# -- ranges


@pytest.mark.parametrize(
    ("asked", "content_range", "body"),
    [
        pytest.param("bytes=0-3", "bytes 0-3/16", b"0123", id="9110-14.1.2: from, to"),
        pytest.param("bytes=12-", "bytes 12-15/16", b"cdef", id="9110-14.1.2: from"),
        pytest.param("bytes=-2", "bytes 14-15/16", b"ef", id="9110-14.1.2: the last"),
        pytest.param("bytes=-99", "bytes 0-15/16", BODY, id="9110-14.1.2: more than there is"),
        pytest.param("bytes=10-99", "bytes 10-15/16", b"abcdef", id="9110-14.1.2: beyond the end"),
        pytest.param("BYTES=0-0", "bytes 0-0/16", b"0", id="9110-14.1: units in any case"),
    ],
)
async def test_a_part(warm: ServedEdge, asked: str, content_range: str, body: bytes) -> None:
    response = from_cache(await warm.get("/", {"Range": asked}))
    assert (response.status, response.reason, response.body) == (206, "Partial Content", body)
    assert response.field("content-range") == content_range
    assert response.field("content-length") == str(len(body))
    assert (response.field("etag"), response.field("x-kept")) == (ETAG, "1")


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        pytest.param("GET", {"Range": "bytes=3-1"}, id="9110-14.1.1: backwards"),
        pytest.param("GET", {"Range": "lines=0-1"}, id="9110-14.2: another unit"),
        pytest.param("GET", {"Range": "bytes"}, id="9110-14.2: malformed"),
        pytest.param("HEAD", {"Range": "bytes=0-1"}, id="9110-14.2: HEAD"),
        pytest.param(
            "GET", {"Range": "bytes=0-1", "If-Range": '"v2"'}, id="9110-13.1.5: another tag"
        ),
        pytest.param(
            "GET", {"Range": "bytes=0-1", "If-Range": f"W/{ETAG}"}, id="9110-13.1.5: a weak tag"
        ),
        pytest.param(
            "GET", {"Range": "bytes=0-1", "If-Range": BEFORE}, id="9110-13.1.5: another date"
        ),
    ],
)
async def test_what_is_no_range_gets_the_whole(
    warm: ServedEdge, method: str, fields: dict[str, str]
) -> None:
    response = from_cache(await warm.get("/", fields, method=method))
    assert (response.status, response.field("content-length")) == (200, "16")
    assert response.body == (BODY if method == "GET" else b"")
    assert response.field("content-range") is None


async def test_a_part_of_the_same_representation(warm: ServedEdge) -> None:
    """RFC 9110 15.3.7: what If-Range shows the client to have, is not said again."""
    response = from_cache(await warm.get("/", {"Range": "bytes=0-1", "If-Range": ETAG}))
    assert (response.status, response.body) == (206, b"01")
    assert "content-type" not in names(response)
    assert {"date", "cache-control", "etag", "vary"} <= set(names(response))


async def test_beyond_the_end(warm: ServedEdge) -> None:
    """RFC 9110 15.5.17."""
    response = from_cache(await warm.get("/", {"Range": "bytes=16-"}))
    assert (response.status, response.field("content-range")) == (416, "bytes */16")
    assert response.field("etag") is None
    assert response.field("content-type") == "text/plain"
    assert response.body == b"416 Range Not Satisfiable\n"


async def test_several_parts(warm: ServedEdge) -> None:
    """RFC 9110 14.6."""
    response = from_cache(await warm.get("/", {"Range": "bytes=0-1, 10-11"}))
    assert response.status == 206
    kind = response.field("content-type") or ""
    match = re.fullmatch("multipart/byteranges; ?boundary=([0-9a-f]{32})", kind)
    assert match is not None
    boundary = match[1].encode()
    parts = response.body.split(b"--" + boundary)
    assert parts[0].strip() == b"" and parts[-1].strip() == b"--"
    assert [part.partition(b"\r\n\r\n")[2] for part in parts[1:-1]] == [b"01\r\n", b"ab\r\n"]
    assert b"Content-Range: bytes 0-1/16" in parts[1] and b"Content-Type: text/plain" in parts[1]
    assert response.field("content-length") == str(len(response.body))
    again = await warm.get("/", {"Range": "bytes=0-1, 10-11"})
    assert again.field("content-type") != kind, "no body can have been made to contain it"


# -- large ones, from a file


async def test_a_large_body_is_read_from_its_file(serve: Serve, origin: ScriptedOrigin) -> None:
    served = await serve(config={"memory": {"max_object_bytes": 1}})
    origin.route("/", Answer(200, PAGE, LARGE))
    assert (await served.get("/")).body == LARGE
    for asked, expected in (
        ({"Range": "bytes=0-9"}, LARGE[:10]),
        ({"Range": "bytes=270000-"}, LARGE[270_000:]),
        ({}, LARGE),
    ):
        response = from_cache(await served.get("/", asked))
        assert response.body == expected
    assert [stored.body.kind for stored in served.stored()] == ["file"]
    assert origin.counts["/"] == 1


async def test_a_large_body_is_sent_from_its_file_once_it_was_found_whole(
    serve: Serve, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    sendfile = os.sendfile

    def counted(*arguments: int) -> int:
        sent.append(count := sendfile(*arguments))
        return count

    monkeypatch.setattr(os, "sendfile", counted)
    served = await serve(config={"memory": {"max_object_bytes": 1}})
    origin.route("/", Answer(200, PAGE, LARGE))
    await served.get("/")
    for asked, expected, from_file in (
        ({"Range": "bytes=0-9"}, LARGE[:10], False),
        ({}, LARGE, False),
        ({}, LARGE, True),
        ({"Range": "bytes=100-"}, LARGE[100:], True),
        ({"Range": "bytes=-7"}, LARGE[-7:], True),
    ):
        sent.clear()
        async with await served.connect() as connection:
            response = from_cache(await connection.exchange("GET", "/", asked))
            assert response.body == expected
            assert sum(sent) == (len(expected) if from_file else 0)
            # The connection is as good as before.
            assert (await connection.exchange("GET", "/", {"If-None-Match": ETAG})).status == 304
    sent.clear()
    several = await served.get("/", {"Range": "bytes=0-9,299000-"})
    assert LARGE[:10] in several.body
    assert LARGE[299_000:] in several.body
    assert sum(sent) == 1010
    assert (await served.get("/", method="HEAD")).body == b""
    assert sum(sent) == 1010
    lengths = [record.bytes_sent for record in served.records if record.status != 304]
    assert lengths[1:6] == [10, 300_000, 300_000, 299_900, 7]


def body_file(served: ServedEdge) -> Any:
    """Where the only large body is."""
    (path,) = (each for each in (served.place.directory / "bodies").rglob("*") if each.is_file())
    return path


async def test_a_body_that_is_gone_is_fetched_anew(serve: Serve, origin: ScriptedOrigin) -> None:
    served = await serve(config={"memory": {"max_object_bytes": 1}})
    origin.route("/", Answer(200, PAGE, LARGE))
    await served.get("/")
    body_file(served).unlink()
    again = await served.get("/")
    assert (again.status, again.body) == (200, LARGE)
    assert again.cache_status["fwd"] == "uri-miss"
    assert origin.counts["/"] == 2
    assert from_cache(await served.get("/")).body == LARGE


async def test_a_body_that_is_damaged_never_looks_whole(
    serve: Serve, origin: ScriptedOrigin
) -> None:
    served = await serve(config={"memory": {"max_object_bytes": 1}})
    origin.route("/", Answer(200, PAGE, LARGE))
    await served.get("/")
    # Once it was found whole, it need not be read to be sent.
    assert (await served.get("/")).body == LARGE
    path = body_file(served)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(MessageCut):
        await served.get("/")
    whole = await served.get("/")
    assert (whole.status, whole.body, origin.counts["/"]) == (200, LARGE, 2)


async def test_what_is_damaged_is_noticed_before_it_is_kept_in_memory(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/", Answer(200, PAGE, LARGE))
    await served.get("/")
    served.empty_memory()
    body_file(served).write_bytes(bytes(len(LARGE)))
    whole = await served.get("/")
    assert (whole.status, whole.body, origin.counts["/"]) == (200, LARGE, 2)


async def test_what_comes_from_the_store_is_in_memory_then(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/", Answer(200, PAGE, LARGE))
    await served.get("/")
    served.empty_memory()
    assert from_cache(await served.get("/", {"Range": "bytes=0-1"})).body == LARGE[:2]
    body_file(served).unlink()
    assert from_cache(await served.get("/")).body == LARGE


# -- while it comes in


@pytest.mark.parametrize(
    ("framing", "fields", "status", "body"),
    [
        pytest.param("length", {}, 200, BODY, id="the whole"),
        pytest.param("chunked", {}, 200, BODY, id="the whole, of a length not known yet"),
        pytest.param("length", {"Range": "bytes=2-5"}, 206, b"2345", id="a part"),
        pytest.param("length", {"Range": "bytes=16-"}, 416, None, id="9110-15.5.17: no such part"),
        pytest.param(
            "chunked",
            {"Range": "bytes=2-5"},
            200,
            BODY,
            id="9110-14.2: a part of what may be any length is not cut",
        ),
        pytest.param("length", {"If-None-Match": ETAG}, 304, b"", id="9110-13.1.2: not modified"),
        pytest.param("length", {"If-None-Match": '"v2"'}, 200, BODY, id="9110-13.1.2: modified"),
    ],
)
async def test_conditions_and_ranges_hold_for_what_is_on_its_way(
    served: ServedEdge,
    origin: ScriptedOrigin,
    framing: str,
    fields: dict[str, str],
    status: int,
    body: bytes | None,
) -> None:
    go = asyncio.Event()
    origin.route("/", Answer(200, PAGE, BODY, framing=framing, hold=go))
    plain = asyncio.create_task(served.get("/"))
    await origin.seen("/")
    asking = asyncio.create_task(served.get("/", fields))
    await served.until(lambda: served.edge.in_flight == 2)
    go.set()
    response = await asking
    assert (await plain).body == BODY
    assert response.status == status
    assert body is None or response.body == body
    assert (response.cache_status["fwd"], response.cache_status["collapsed"]) == ("uri-miss", True)
    assert origin.counts["/"] == 1


async def test_a_part_is_sent_before_the_whole_has_come(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    rest = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 16\r\n\r\n"
    origin.route("/", [head + BODY[:8], rest, BODY[8:]])
    async with await served.connect() as connection:
        await connection.request("GET", "/")
        whole = await connection.start_response()
        part = await served.get("/", {"Range": "bytes=2-5"})
        assert (part.status, part.body) == (206, b"2345")
        rest.set()
        assert (await whole.whole()).body == BODY
    assert origin.counts["/"] == 1


async def test_a_fetched_response_has_an_age_if_it_waited(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9111 4.2.3: who joins a fetch late gets what has been here for a while."""
    rest = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 16\r\n\r\n"
    origin.route("/", [head + BODY[:8], rest, BODY[8:]])
    async with await served.connect() as early, await served.connect() as late:
        await early.request("GET", "/")
        first = await early.start_response()
        served.clock.now += 9
        await late.request("GET", "/")
        second = await late.start_response()
        rest.set()
        assert (first.field("age"), second.field("age")) == (None, "9")
        assert (await first.whole()).body == (await second.whole()).body == BODY
