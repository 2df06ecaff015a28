"""A request's way from its head to its answer and its line in the log, through a whole edge."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.invalidation.selectors import Mode
from tests.kit import CLOSE, RESET, Answer, Connection, MessageCut, OriginRequest
from tests.proxy.parts import PATIENCE, ServedEdge, by_tag, by_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgeproxy.proxy.access import AccessRecord
    from tests.kit import Response, ScriptedOrigin

    Serve = Callable[..., Awaitable[ServedEdge]]

FRESH = {"Cache-Control": "max-age=60, stale-while-revalidate=0, stale-if-error=0"}
GRACE = {"Cache-Control": "max-age=60, stale-while-revalidate=600, stale-if-error=0"}
ON_ERROR = {"Cache-Control": "max-age=60, stale-while-revalidate=0, stale-if-error=600"}
STRICT = {"Cache-Control": "max-age=60, must-revalidate"}
NO_CACHE = {"Cache-Control": "no-cache", "ETag": '"1"'}
BROKEN = [b"HTTP/1.1 2", CLOSE]
"""No response, and too much of one for another try."""


async def record_of(served: ServedEdge, count: int = 1) -> AccessRecord:
    """The newest record, once there are so many."""
    await served.until(lambda: len(served.records) >= count)
    return served.records[count - 1]


# -- what is done, what Cache-Status says (RFC 9211), and what the log


@pytest.mark.parametrize(
    ("answer", "passed", "purged", "again", "said", "result"),
    [
        pytest.param(
            Answer(200, FRESH, b"x"), 10, None, None,
            {"hit": True, "ttl": "50"}, "hit",
            id="9211-2.1: fresh",
        ),
        pytest.param(
            Answer(200, GRACE, b"x"), 70, None, None,
            {"hit": True, "ttl": "-10", "detail": "stale-while-revalidate"}, "stale",
            id="5861-3: within its grace",
        ),
        pytest.param(
            Answer(200, GRACE, b"x"), 10, Mode.INVALIDATE, None,
            {"hit": True, "ttl": "50", "detail": "invalidated"}, "stale",
            id="invalidated",
        ),
        pytest.param(
            Answer(200, FRESH, b"x"), 10, Mode.DELETE, None,
            {"fwd": "uri-miss", "fwd-status": "200", "stored": True}, "miss",
            id="9211-2.2: deleted",
        ),
        pytest.param(
            Answer(200, FRESH, b"x"), 70, None, None,
            {"fwd": "stale", "fwd-status": "200", "stored": True}, "miss",
            id="9111-4.2.4: stale",
        ),
        pytest.param(
            Answer(200, STRICT, b"x"), 10, Mode.INVALIDATE, None,
            {"fwd": "stale", "fwd-status": "200", "stored": True, "detail": "invalidated"}, "miss",
            id="9111-5.2.2.2: invalidated, and must-revalidate",
        ),
        pytest.param(
            Answer(200, {**FRESH, "ETag": '"1"'}, b"x"), 70, None, Answer(304, FRESH),
            {"fwd": "stale", "fwd-status": "304", "stored": True}, "revalidated",
            id="9111-4.3.3: validated",
        ),
        pytest.param(
            Answer(200, NO_CACHE, b"x"), 0, None, Answer(304, NO_CACHE),
            {"fwd": "stale", "fwd-status": "304", "stored": True, "detail": "no-cache"},
            "revalidated",
            id="9111-5.2.2.4: no-cache",
        ),
        pytest.param(
            Answer(200, ON_ERROR, b"x"), 70, None, Answer(503, {}, b"down"),
            {"fwd": "stale", "fwd-status": "503", "ttl": "-10", "detail": "stale-if-error"},
            "stale",
            id="5861-4: the origin answers an error",
        ),
        pytest.param(
            Answer(200, ON_ERROR, b"x"), 70, None, BROKEN,
            {"fwd": "stale", "ttl": "-10", "detail": "stale-if-error; origin-disconnected"},
            "stale",
            id="5861-4: the origin answers nothing",
        ),
        pytest.param(
            Answer(200, {**FRESH, "Vary": "X-Kind"}, b"x"), 0, None, None,
            {"fwd": "vary-miss", "fwd-status": "200", "stored": True}, "miss",
            id="9211-2.2: another variant",
        ),
        pytest.param(
            Answer(200, {"Cache-Control": "private"}, b"x"), 0, None, None,
            {"fwd": "bypass", "fwd-status": "200", "detail": "uncacheable; private"}, "pass",
            id="9211-2.2: known not to be cacheable",
        ),
    ],
)  # fmt: skip
async def test_the_second_request_for_a_page(
    served: ServedEdge,
    origin: ScriptedOrigin,
    answer: Answer,
    passed: int,
    purged: Mode | None,
    again: Any,
    said: dict[str, str | bool],
    result: str,
) -> None:
    origin.route("/", answer)
    await served.get("/")
    served.clock.now += passed
    if purged is not None:
        await served.purge(by_url("/"), mode=purged)
    if again is not None:
        origin.route("/", again)
    second = await served.get(
        "/", {"X-Kind": "2"} if answer.fields and "Vary" in answer.fields else {}
    )
    assert (second.status, second.body) == (200, b"x")
    assert second.cache_status == said
    record = await record_of(served, 2)
    assert (record.result, record.status) == (result, 200)
    assert record.cache_status.decode() == (second.lines("cache-status")[-1])


@pytest.mark.parametrize(
    ("method", "fields", "body", "said"),
    [
        pytest.param("POST", {}, b"x", {"fwd": "method"}, id="9211-2.2: POST"),
        pytest.param("OPTIONS", {}, None, {"fwd": "method"}, id="9211-2.2: OPTIONS"),
        pytest.param("BREW", {}, None, {"fwd": "method"}, id="9110-9.1: a method of their own"),
        pytest.param("GET", {}, b"x", {"fwd": "request", "detail": "body"}, id="9110-9.3.1"),
        pytest.param(
            "GET", {"If-Match": "*"}, None, {"fwd": "request", "detail": "precondition"},
            id="9111-4.3.2: only an origin can tell",
        ),
        pytest.param("HEAD", {}, None, {"fwd": "uri-miss"}, id="9110-9.3.2: nothing is stored"),
    ],
)  # fmt: skip
async def test_what_is_passed_on_for_itself_alone(
    served: ServedEdge,
    origin: ScriptedOrigin,
    method: str,
    fields: dict[str, str],
    body: bytes | None,
    said: dict[str, str],
) -> None:
    origin.route("/", Answer(200, {**FRESH, "X-A": "1"}, b"page"))
    for count in (1, 2):
        answer = await served.get("/", fields, method=method, body=body)
        assert (answer.status, answer.field("x-a")) == (200, "1")
        assert answer.body == (b"" if method == "HEAD" else b"page")
        assert answer.cache_status == {**said, "fwd-status": "200"}
        asked = origin.requests_for("/")[count - 1]
        assert (asked.method, asked.body) == (method, body or b"")
        assert asked.field("if-match") == fields.get("If-Match")
    assert served.stored() == []


async def test_a_head_of_what_is_stale(served: ServedEdge, origin: ScriptedOrigin) -> None:
    fields = {**FRESH, "ETag": '"1"'}

    def reply(request: OriginRequest) -> Answer:
        return Answer(304, fields) if request.field("if-none-match") else Answer(200, fields, b"x")

    origin.route("/", reply)
    await served.get("/")
    served.clock.now += 100
    answer = await served.get("/", method="HEAD")
    assert (answer.status, answer.body, answer.field("content-length")) == (200, b"", "1")
    assert answer.cache_status["fwd"] == "stale"
    assert origin.counts["/"] == 2
    assert (await served.get("/")).body == b"x"


@pytest.mark.parametrize(
    ("stored", "passed", "status"),
    [
        pytest.param(False, 0, 504, id="9111-5.2.1.7: nothing is stored"),
        pytest.param(True, 10, 200, id="9111-5.2.1.7: it is fresh"),
        pytest.param(True, 70, 504, id="9111-5.2.1.7: it is stale"),
    ],
)
async def test_only_if_cached(
    served: ServedEdge, origin: ScriptedOrigin, stored: bool, passed: int, status: int
) -> None:
    origin.route("/", Answer(200, FRESH, b"page"))
    if stored:
        await served.get("/")
    served.clock.now += passed
    answer = await served.get("/", {"Cache-Control": "only-if-cached"})
    assert answer.status == status
    assert origin.counts["/"] == stored
    if status == 504:
        assert answer.cache_status == {"detail": "only-if-cached"}


async def test_only_if_cached_goes_no_further_for_what_only_an_origin_can_tell(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9111 5.2.1.7."""
    answer = await served.get("/", {"Cache-Control": "only-if-cached", "If-Match": "*"})
    assert (answer.status, answer.cache_status) == (504, {"detail": "only-if-cached"})
    assert origin.counts["/"] == 0


@pytest.mark.parametrize(
    ("hops", "status", "left"),
    [
        pytest.param("0", 200, None, id="9110-7.6.2: no further"),
        pytest.param("1", 204, "0", id="9110-7.6.2: one less"),
        pytest.param("many", 204, "many", id="no number"),
    ],
)
async def test_options_goes_as_far_as_it_may(
    served: ServedEdge, origin: ScriptedOrigin, hops: str, status: int, left: str | None
) -> None:
    origin.route("/", Answer(204))
    answer = await served.get("/", {"Max-Forwards": hops}, method="OPTIONS")
    assert answer.status == status
    assert [each.field("max-forwards") for each in origin.requests] == ([left] if left else [])
    if status == 200:
        assert (answer.field("content-length"), answer.body) == ("0", b"")


@pytest.mark.parametrize(
    ("setting", "asked", "origin_asked"),
    [
        pytest.param("ignore", "no-cache", 1, id="whoever reloads costs nothing"),
        pytest.param("honour", "no-cache", 2, id="9111-5.2.1.4: no-cache"),
        pytest.param("honour", "max-age=5", 2, id="9111-5.2.1.1: max-age"),
        pytest.param("honour", "max-age=50", 1, id="9111-5.2.1.1: it is young enough"),
        pytest.param("honour", "min-fresh=55", 2, id="9111-5.2.1.3: min-fresh"),
        pytest.param("honour", "no-store", 2, id="9111-5.2.1.5: no-store"),
        pytest.param("trusted", "no-cache", 1, id="from a stranger"),
    ],
)
async def test_who_may_ask_for_a_fresh_copy(
    serve: Serve, origin: ScriptedOrigin, setting: str, asked: str, origin_asked: int
) -> None:
    served = await serve(site={"cache": {"request_cache_control": setting}})
    origin.route("/", Answer(200, FRESH, b"page"))
    await served.get("/")
    served.clock.now += 10
    assert (await served.get("/", {"Cache-Control": asked})).body == b"page"
    assert origin.counts["/"] == origin_asked


# -- what goes wrong


@pytest.mark.parametrize(
    ("script", "status", "detail"),
    [
        pytest.param([CLOSE], 502, "origin-disconnected", id="it closes"),
        pytest.param([RESET], 502, "origin-disconnected", id="it resets"),
        pytest.param([b"SSH-2.0-OpenSSH\r\n\r\n"], 502, "origin-protocol-error", id="no HTTP"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"], 502,
            "origin-protocol-error", id="9112-6.3: two lengths",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_origin_that_fails(
    served: ServedEdge,
    origin: ScriptedOrigin,
    method: str,
    script: list[Any],
    status: int,
    detail: str,
) -> None:
    origin.route("/", script)
    answer = await served.get("/", method=method, body=b"x" if method == "POST" else None)
    await expect_error(served, answer, status, detail)
    # RFC 9211 2.2
    assert answer.cache_status["fwd"] == ("uri-miss" if method == "GET" else "method")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_origin_that_is_late(serve: Serve, origin: ScriptedOrigin, method: str) -> None:
    served = await serve(site={"timeouts": {"first_byte": 0.05}})
    origin.route("/", [PATIENCE])
    answer = await served.get("/", method=method, body=b"x" if method == "POST" else None)
    await expect_error(served, answer, 504, "origin-timeout-first-byte")


async def test_nobody_waits_for_one_time_out_after_the_other(
    serve: Serve, origin: ScriptedOrigin
) -> None:
    """What one request has waited for in vain, those who waited with it don't try again."""
    served = await serve(site={"timeouts": {"first_byte": 0.2}})
    origin.route("/", [PATIENCE])
    answers = await asyncio.gather(*(served.get("/") for _ in range(5)))
    assert [answer.status for answer in answers] == [504] * 5
    assert origin.counts["/"] == 1


async def test_what_stands_in_for_an_error_says_that_it_is_stale(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/", Answer(200, {"Cache-Control": "max-age=60"}, b"page"))
    await served.get("/")
    served.clock.now += 60.5
    origin.route("/", Answer(503))
    answer = await served.get("/")
    assert answer.body == b"page"
    # RFC 9211 2.4: negative, if only by half a second
    said = {"fwd": "stale", "fwd-status": "503", "ttl": "-1", "detail": "stale-if-error"}
    assert answer.cache_status == said


async def expect_error(served: ServedEdge, answer: Response, status: int, detail: str) -> None:
    """It must be an error of the edge's own, and say so to all who keep or log it."""
    assert answer.status == status
    assert answer.cache_status["detail"] == detail
    assert answer.field("cache-control") == "no-store"
    assert answer.field("content-type") == "text/plain; charset=utf-8"
    record = await record_of(served)
    assert (record.status, record.result) == (status, "error")


async def test_an_origin_that_is_not_there(serve: Serve, origin: ScriptedOrigin) -> None:
    served = await serve()
    await origin.stop_listening()
    answer = await served.get("/")
    assert (answer.status, answer.cache_status["detail"]) == (502, "origin-unreachable")


async def test_an_error_to_head_has_no_body(served: ServedEdge, origin: ScriptedOrigin) -> None:
    """RFC 9110 9.3.2: what follows it is the next response."""
    origin.route("/", BROKEN)
    origin.route("/a", Answer(200, FRESH, b"page"))
    async with await served.connect() as connection:
        answer = await connection.exchange("HEAD", "/")
        assert answer.status == 502
        assert int(answer.field("content-length") or "0") > 0
        assert (await connection.exchange("GET", "/a")).body == b"page"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_body_that_is_cut_is_cut_for_its_reader(
    served: ServedEdge, origin: ScriptedOrigin, method: str
) -> None:
    origin.route("/", [b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf", CLOSE])
    with pytest.raises(MessageCut) as caught:
        await served.get("/", method=method, body=b"x" if method == "POST" else None)
    assert caught.value.partial in (b"", b"half")
    record = await record_of(served)
    assert record.status == 200


@pytest.mark.parametrize(
    ("raw", "status", "detail", "goes_on"),
    [
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", 421, "unknown-host", True,
            id="9110-15.5.20: nobody's host",
        ),
        pytest.param(
            b"GET /#a HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400, "bad-request", False,
            id="9112-3.2: a fragment",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: shop.test:x\r\n\r\n", 400, "bad-request", False,
            id="9112-3.2: no port",
        ),
    ],
)  # fmt: skip
async def test_what_no_site_can_answer(
    served: ServedEdge,
    origin: ScriptedOrigin,
    raw: bytes,
    status: int,
    detail: str,
    goes_on: bool,
) -> None:
    origin.route("/", Answer(200, FRESH, b"page"))
    async with await served.connect() as connection:
        await connection.send(raw)
        answer = await connection.response()
        assert (answer.status, answer.cache_status) == (status, {"detail": detail})
        if goes_on:
            assert (await connection.exchange("GET", "/")).status == 200
        else:
            assert answer.field("connection") == "close"
            assert await connection.ended() == "closed"
    record = served.records[0]
    assert (record.status, record.site, record.result) == (status, "", "error")
    assert origin.counts["/"] == goes_on


async def test_a_failure_of_the_edge_itself_is_a_500(
    served: ServedEdge, origin: ScriptedOrigin, caplog: pytest.LogCaptureFixture
) -> None:
    """Here: its journal can't be read any more, and says that there is more to read."""
    origin.route("/", Answer(200, FRESH, b"page"))
    await served.get("/")
    await served.edge.service._journal.close()
    served.place.head.cast("Q")[0] = 1
    answer = await served.get("/")
    assert (answer.status, answer.cache_status) == (500, {"detail": "internal-error"})
    assert b"journal" not in answer.body
    assert "answering b'/' failed" in caplog.text
    served.place.head.cast("Q")[0] = 0


# -- requests that wait for another's


async def test_who_has_waited_long_enough_asks_itself(serve: Serve, origin: ScriptedOrigin) -> None:
    served = await serve(site={"cache": {"collapse_timeout": 0.05}})
    go = asyncio.Event()
    origin.route("/", Answer(200, FRESH, b"slow", hold=go))
    first = asyncio.create_task(served.get("/"))
    await origin.seen("/")
    origin.route("/", Answer(200, FRESH, b"fast"))
    second = await served.get("/")
    assert second.body == b"fast"
    assert second.cache_status["detail"] == "collapse-timeout"
    go.set()
    assert (await first).body == b"slow"


async def test_variants_that_were_not_known_to_be_any_are_told_apart(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    go = asyncio.Event()

    def reply(request: OriginRequest) -> Answer:
        language = (request.field("accept-language") or "").encode()
        return Answer(200, {**FRESH, "Vary": "Accept-Language"}, language, hold=go)

    origin.route("/", reply)
    languages = ["en", "de", "en", "fr", "de"]
    asking = [asyncio.create_task(served.get("/", {"Accept-Language": each})) for each in languages]
    await origin.seen("/")
    await served.until(lambda: served.edge.in_flight == len(languages))
    go.set()
    assert [(await each).body.decode() for each in asking] == languages
    assert origin.counts["/"] == 3


async def test_those_who_wait_for_what_is_one_reader_s_ask_side_by_side(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    go, together = asyncio.Event(), asyncio.Event()

    async def reply(request: OriginRequest) -> Answer:
        if origin.counts["/"] > 1:
            # All others are at the origin at the same time, or nobody is answered.
            if origin.counts["/"] == 5:
                together.set()
            await together.wait()
        return Answer(200, {"Cache-Control": "private"}, b"%d" % id(request), hold=go)

    origin.route("/", reply)
    asking = [asyncio.create_task(served.get("/")) for _ in range(5)]
    await origin.seen("/")
    await served.until(lambda: served.edge.in_flight == 5)
    go.set()
    async with asyncio.timeout(PATIENCE):
        answers = [await each for each in asking]
    assert len({each.body for each in answers}) == 5
    details = sorted(str(each.cache_status["detail"]) for each in answers)
    assert details == ["private", *["uncacheable"] * 4]


async def test_who_leaves_holds_nobody_up(served: ServedEdge, origin: ScriptedOrigin) -> None:
    go = asyncio.Event()
    origin.route("/", Answer(200, FRESH, b"page", hold=go))
    first = await served.connect()
    await first.request("GET", "/")
    await origin.seen("/")
    second = asyncio.create_task(served.get("/"))
    await served.until(lambda: served.edge.in_flight == 2)
    first.reset()
    await served.until(lambda: served.edge.server.open_connections == 1)
    go.set()
    assert (await second).body == b"page"
    assert origin.counts["/"] == 1


async def test_a_purge_while_a_request_waits(served: ServedEdge, origin: ScriptedOrigin) -> None:
    """What it asked for before the purge, it may have; what comes later must not."""
    go = asyncio.Event()
    origin.route("/", Answer(200, {**FRESH, "Cache-Tag": "a"}, b"old", hold=go))
    early = [asyncio.create_task(served.get("/")) for _ in range(2)]
    await origin.seen("/")
    await served.until(lambda: served.edge.in_flight == 2)
    await served.purge(by_tag("a"))
    origin.route("/", Answer(200, {**FRESH, "Cache-Tag": "a"}, b"new"))
    late = await served.get("/")
    go.set()
    assert late.body == b"new"
    assert {(await each).body for each in early} <= {b"old", b"new"}
    assert (await served.get("/")).body == b"new"


# -- unsafe methods (RFC 9111 4.4)


@pytest.mark.parametrize(
    ("method", "target", "answer", "gone"),
    [
        pytest.param("POST", "/a", Answer(200, {}, b"ok"), ["/a"], id="9111-4.4: the target"),
        pytest.param("PUT", "/a", Answer(204), ["/a"], id="9111-4.4: PUT"),
        pytest.param("DELETE", "/a", Answer(200), ["/a"], id="9111-4.4: DELETE"),
        pytest.param("FROB", "/a", Answer(200), ["/a"], id="9110-9.2.1: unknown, so unsafe"),
        pytest.param(
            "POST", "/form", Answer(303, {"Location": "/a"}), ["/a"], id="9111-4.4: Location"
        ),
        pytest.param(
            "POST", "/a", Answer(201, {"Content-Location": "http://shop.test/b"}), ["/a", "/b"],
            id="9111-4.4: Content-Location",
        ),
        pytest.param(
            "POST", "/form", Answer(303, {"Location": "http://www.shop.test/a"}), [],
            id="9111-4.4: another origin's",
        ),
        pytest.param(
            "POST", "/form", Answer(303, {"Location": "http://[a"}), [],
            id="a Location that is none",
        ),
        pytest.param("POST", "/a", Answer(400), [], id="9111-4.4: it was refused"),
        pytest.param("POST", "/a", Answer(500), [], id="9111-4.4: it failed"),
        pytest.param("OPTIONS", "/a", Answer(200), [], id="9110-9.2.1: safe"),
        pytest.param("POST", "/c", Answer(200), [], id="nothing is stored for it"),
    ],
)  # fmt: skip
async def test_what_an_unsafe_request_changes(
    served: ServedEdge,
    origin: ScriptedOrigin,
    method: str,
    target: str,
    answer: Answer,
    gone: list[str],
) -> None:
    for page in ("/a", "/b"):
        origin.route(page, lambda request: answer if request.method == method else PAGE)
        await served.get(page)
    origin.route("/form", answer)
    origin.route("/c", answer)
    assert (await served.get(target, method=method, body=b"")).status == answer.status
    found = [page for page in ("/a", "/b") if "hit" not in (await served.get(page)).cache_status]
    assert found == gone


PAGE = Answer(200, FRESH, b"page")


async def test_most_unsafe_requests_leave_no_record(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.otherwise(Answer(200))
    for each in range(5):
        await served.get(f"/api/{each}", method="POST", body=b"x")
    assert served.edge.view.catch_up() == 0


async def test_an_unsafe_request_reaches_what_is_in_the_air(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    go = asyncio.Event()
    bodies = iter((b"old", b"new"))

    def reply(request: OriginRequest) -> Answer:
        if request.method == "POST":
            return Answer(200)
        return Answer(200, FRESH, next(bodies), hold=go)

    origin.route("/", reply)
    early = asyncio.create_task(served.get("/"))
    await origin.seen("/")
    assert (await served.get("/", method="POST", body=b"x")).status == 200
    late = asyncio.create_task(served.get("/"))
    await origin.seen("/", 3)
    go.set()
    assert ((await early).body, (await late).body) == (b"old", b"new")
    assert (await served.get("/")).body == b"new"


async def test_what_can_t_be_recorded_is_not_confirmed_and_frees_its_connection(
    serve: Serve, origin: ScriptedOrigin
) -> None:
    served = await serve(site={"pool": {"max_connections": 1}})
    origin.route("/", lambda request: Answer(200, FRESH, b"page"))
    await served.get("/")
    await served.edge.service._journal.close()
    for _ in range(2):
        answer = await served.get("/", method="POST", body=b"x")
        assert answer.status == 500
    assert (await served.get("/", method="OPTIONS")).status == 200


# -- bodies, upgrades, interim responses


async def test_a_body_goes_up_while_the_answer_comes_down(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    async def echo(request: OriginRequest) -> Any:
        async def steps() -> Any:
            yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            while piece := await request.content.read_piece():
                yield b"%x\r\n%b\r\n" % (len(piece), piece)
            yield b"0\r\n\r\n"

        return steps()

    origin.route("/", echo, stream=True)
    async with asyncio.timeout(PATIENCE), await served.connect() as connection:
        await connection.send(
            b"POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        streamed = None
        for piece in (b"one", b"two"):
            await connection.send(b"3\r\n%b\r\n" % piece)
            streamed = streamed or await connection.start_response("POST")
            assert await streamed.read(3) == piece
        await connection.send(b"0\r\n\r\n")
        assert streamed is not None
        assert (await streamed.whole()).body == b""


async def test_interim_responses_reach_all_who_wait(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9110 15.2, RFC 8297."""
    go = asyncio.Event()
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    origin.route("/", [hint, go, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"])
    asking = [asyncio.create_task(served.get("/")) for _ in range(3)]
    await origin.seen("/")
    await served.until(lambda: served.edge.in_flight == 3)
    go.set()
    for each in asking:
        answer = await each
        assert [interim.field("link") for interim in answer.interims][:1] == ["</a.css>"]


@pytest.mark.parametrize(("method", "debug"), [("GET", False), ("POST", False), ("GET", True)])
async def test_interim_responses_show_no_tags(
    serve: Serve, origin: ScriptedOrigin, method: str, debug: bool
) -> None:
    served = await serve(site={"tags": {"debug": debug}})
    hint = b"HTTP/1.1 103 Early Hints\r\nCache-Tag: secret\r\nLink: </a.css>\r\n\r\n"
    origin.route("/", [hint, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"])
    async with asyncio.timeout(PATIENCE), await served.connect() as connection:
        await connection.request(method, "/")
        (interim,) = (await connection.response()).interims
    told = (interim.field("link"), interim.field("cache-tag"))
    assert told == ("</a.css>", "secret" if debug else None)


async def test_an_upgrade_is_tunnelled_and_accounted_for(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    async def switch(request: OriginRequest) -> Any:
        async def steps() -> Any:
            yield b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\nCache-Tag: t\r\n\r\n"
            yield b"<" + await request.reader.readexactly(4) + b">"
            yield CLOSE

        return steps()

    origin.route("/", switch, stream=True)
    async with asyncio.timeout(PATIENCE), await served.connect() as connection:
        await connection.request("GET", "/", {"Connection": "Upgrade", "Upgrade": "echo"})
        streamed = await connection.start_response()
        assert (streamed.status, streamed.field("upgrade")) == (101, "echo")
        assert streamed.field("cache-tag") is None
        await connection.send(b"ping")
        assert await connection.reader.read() == b"<ping>"
    record = await record_of(served)
    assert (record.status, record.result, record.bytes_sent) == (101, "pass", 6)
    assert origin.requests[0].field("upgrade") == "echo"


async def test_an_upgrade_that_the_origin_does_not_want(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/", Answer(200, FRESH, b"page"))
    answer = await served.get("/", {"Connection": "Upgrade", "Upgrade": "echo"})
    assert (answer.status, answer.body) == (200, b"page")
    assert answer.cache_status["detail"] == "upgrade"


# -- the account


async def test_all_that_the_log_is_told(serve: Serve, origin: ScriptedOrigin) -> None:
    served = await serve(config={"trusted_proxies": ["127.0.0.0/8"]})

    def reply(_: OriginRequest) -> Answer:
        served.clock.now += 2
        return Answer(200, FRESH, b"a page")

    origin.route("/a?b", reply)
    began = served.clock.now
    await served.get(
        "/cb:t1/a?b",
        {"X-Forwarded-For": "192.0.2.7", "Referer": "http://a/\xe9", "User-Agent": 'x"y'},
    )
    record = await record_of(served)
    assert (record.client, record.host, record.site) == ("192.0.2.7", "shop.test", "shop")
    assert (record.method, record.target, record.version) == (b"GET", b"/cb:t1/a?b", "1.1")
    assert (record.status, record.bytes_sent, record.result) == (200, 6, "miss")
    assert record.cache_status == b"edgeproxy; fwd=uri-miss; fwd-status=200; stored"
    assert (record.referer, record.user_agent) == (b"http://a/\xe9", b'x"y')
    assert (record.started, record.duration, record.first_byte) == (began, 2, 2)
    assert record.origin_seconds == 2
    served.clock.now += 5
    await served.get("/cb:t1/a?b")
    hit = await record_of(served, 2)
    assert (hit.started, hit.duration, hit.first_byte) == (began + 7, 0, 0)
    assert (hit.result, hit.bytes_sent, hit.origin_seconds) == ("hit", 6, None)


@pytest.mark.parametrize(
    ("method", "fields", "status", "size"),
    [
        ("GET", {}, 200, 16),
        ("HEAD", {}, 200, 0),
        ("GET", {"If-None-Match": '"1"'}, 304, 0),
        ("GET", {"Range": "bytes=0-3"}, 206, 4),
        ("POST", {}, 200, 16),
    ],
)
async def test_the_bytes_that_are_accounted_for_are_the_body_s(
    served: ServedEdge,
    origin: ScriptedOrigin,
    method: str,
    fields: dict[str, str],
    status: int,
    size: int,
) -> None:
    origin.route("/", Answer(200, {**FRESH, "ETag": '"1"'}, b"0123456789abcdef"))
    await served.get("/")
    await served.get("/", fields, method=method, body=b"" if method == "POST" else None)
    record = await record_of(served, 2)
    assert (record.status, record.bytes_sent) == (status, size)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_reader_that_leaves_is_in_the_log(
    served: ServedEdge, origin: ScriptedOrigin, method: str
) -> None:
    rest = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 8\r\n\r\n"
    origin.route("/", [head + b"half", rest, b"half"])
    connection: Connection = await served.connect()
    await connection.request(method, "/", body=b"x" if method == "POST" else None)
    assert await (await connection.start_response()).read(4) == b"half"
    connection.reset()
    await served.until(lambda: served.edge.server.open_connections == 0)
    rest.set()
    record = await record_of(served)
    assert (record.status, record.bytes_sent) == (200, 4)
    await served.until(lambda: served.edge.in_flight == 0)


async def test_pipelined_requests_are_answered_in_their_order(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9112 9.3.2."""
    origin.route("/slow", Answer(200, FRESH, b"slow"))
    origin.route("/fast", Answer(200, FRESH, b"fast"))
    await served.get("/fast")
    async with await served.connect() as connection:
        for target in ("/slow", "/fast", "/slow"):
            await connection.request("GET", target)
        answers: list[Response] = [await connection.response() for _ in range(3)]
    assert [each.body for each in answers] == [b"slow", b"fast", b"slow"]
