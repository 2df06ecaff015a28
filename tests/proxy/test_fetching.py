"""Fetching for the cache: one fetch for all who ask, on the whole node, and purges exact."""

from __future__ import annotations

import asyncio
import struct
import zlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from edgeproxy.cache.stored import StoredResponse, variant_id
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.proxy import collapsing
from edgeproxy.proxy.collapsing import Shared, Stored, Unshared
from edgeproxy.proxy.errors import EdgeError, InternalFailure, OriginBodyCut, OriginUnreachable
from edgeproxy.proxy.fetching import flight_key
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.key import target_id
from tests.invalidation.samples import response
from tests.kit import CLOSE, Answer, MessageCut, OriginRequest
from tests.proxy.other_worker import OtherWorker, other_worker, primary_of, readers
from tests.proxy.parts import PATIENCE, ServedEdge, Versions, by_tag, by_url, edge_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from edgeproxy.cache.bodies import ReadBody
    from tests.kit import ScriptedOrigin

    Serve = Callable[..., Awaitable[ServedEdge]]

FRESH = {"Cache-Control": "max-age=60"}
ON_ERROR = {"Cache-Control": "max-age=60, stale-while-revalidate=0, stale-if-error=600"}
GRACE = {"Cache-Control": "max-age=60, stale-while-revalidate=600, stale-if-error=600"}


BROKEN = [b"HTTP/1.1 2", CLOSE]
"""No response, and too much of one for another try."""


# -- failures


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([b"Content-Length: 8\r\n\r\nhalf", CLOSE], id="9112-8: by its length"),
        pytest.param(
            [b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", CLOSE], id="9112-8: by its chunks"
        ),
    ],
)
async def test_a_body_that_is_cut_is_neither_stored_nor_taken_for_whole(
    served: ServedEdge, origin: ScriptedOrigin, script: list[Any]
) -> None:
    origin.route("/", [b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n", *script])
    with pytest.raises(MessageCut):
        await served.get("/")
    assert served.stored() == []
    origin.route("/", Answer(200, FRESH, b"page"))
    assert (await served.get("/")).body == b"page"


async def test_a_failure_is_tried_again_by_those_who_only_waited(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    go = asyncio.Event()
    origin.route("/", [go, CLOSE])
    asking = [asyncio.create_task(served.get("/")) for _ in range(3)]
    await origin.seen("/")
    await served.until(lambda: readers(served, "/") == 3)
    origin.route("/", Answer(200, FRESH, b"page"))
    go.set()
    answers = [await each for each in asking]
    assert sorted(each.status for each in answers) == [200, 200, 502]
    assert origin.counts["/"] == 2, "and they try it together"


async def test_once_more_and_no_oftener(served: ServedEdge, origin: ScriptedOrigin) -> None:
    go = asyncio.Event()
    origin.route("/", [go, *BROKEN])
    asking = [asyncio.create_task(served.get("/")) for _ in range(4)]
    await origin.seen("/")
    await served.until(lambda: readers(served, "/") == 4)
    go.set()
    assert {(await each).status for each in asking} == {502}
    assert origin.counts["/"] == 2


# -- one fetch for all


async def test_a_body_that_trickles_is_for_those_alone_who_have_begun_it(
    served: ServedEdge, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one connection that hardly moves would keep a page from everybody, for good."""
    monkeypatch.setattr(collapsing, "TRICKLING_SECONDS", 0.6)
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 600\r\n\r\n"
    origin.route("/", [head + b"x", *[0.1, b"x"] * 600])
    first = asyncio.create_task(served.get("/"))
    await origin.seen("/")
    await asyncio.sleep(0.05)
    second = asyncio.create_task(served.get("/"))
    await served.until(lambda: readers(served, "/") == 2)
    await asyncio.sleep(0.7)
    origin.route("/", Answer(200, FRESH, b"page"))
    async with asyncio.timeout(PATIENCE):
        assert (await served.get("/")).body == b"page"
    assert not first.done()
    assert not second.done()
    assert origin.counts["/"] == 2
    for each in (first, second):
        each.cancel()


async def test_all_who_ask_at_once_share_one_fetch(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    page = Versions(FRESH, held=True)
    origin.route("/", page)
    asking = [asyncio.create_task(served.get("/")) for _ in range(20)]
    await served.until(lambda: readers(served, "/") == 20)
    page.go.set()
    answers = [await each for each in asking]
    assert {each.body for each in answers} == {b"version 1"}
    assert sum("collapsed" in each.cache_status for each in answers) == 19
    assert page.count == 1


async def test_beyond_the_bound_of_waiters_a_request_asks_itself(
    serve: Serve, origin: ScriptedOrigin
) -> None:
    served = await serve(site={"cache": {"max_waiters": 2}})
    page = Versions(FRESH, held=True)
    origin.route("/", page)
    asking = [asyncio.create_task(served.get("/")) for _ in range(3)]
    await origin.seen("/", 2)
    page.go.set()
    answers = [await each for each in asking]
    assert {each.status for each in answers} == {200}
    assert page.count == 2
    told = [each.cache_status["detail"] for each in answers if "detail" in each.cache_status]
    assert told == ["too-many-waiters"]
    assert served.edge.tally.refusals()["too-many-waiters"] == 1


async def test_requests_with_credentials_share_nothing_that_is_in_the_air(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9111 3.5."""
    go = asyncio.Event()

    def reply(request: OriginRequest) -> Answer:
        own = request.field("authorization") or "nobody's"
        return Answer(200, {**FRESH, "X-Own": own}, own.encode(), hold=go)

    origin.route("/", reply)
    who = [{"Authorization": "Basic YQ=="}, {"Authorization": "Basic Yg=="}, {}]
    asking = [asyncio.create_task(served.get("/", each)) for each in who]
    await origin.seen("/", 3)
    go.set()
    answers = [(await each).body for each in asking]
    assert answers == [b"Basic YQ==", b"Basic Yg==", b"nobody's"]
    assert [stored.body.length for stored in served.stored()] == [len(b"nobody's")]


async def test_what_is_known_to_vary_is_fetched_side_by_side(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    go = asyncio.Event()
    go.set()

    def reply(request: OriginRequest) -> Answer:
        language = request.field("accept-language") or ""
        return Answer(200, {**FRESH, "Vary": "Accept-Language"}, language.encode(), hold=go)

    origin.route("/", reply)
    await served.get("/", {"Accept-Language": "en"})
    go.clear()
    asking = [
        asyncio.create_task(served.get("/", {"Accept-Language": each}))
        for each in ("de", "fr", "de", "en")
    ]
    await origin.seen("/", 3)
    assert (await asking[3]).cache_status["hit"] is True
    go.set()
    answers = [await each for each in asking]
    assert [each.body for each in answers] == [b"de", b"fr", b"de", b"en"]
    assert {each.cache_status.get("fwd") for each in answers[:3]} == {"vary-miss"}
    assert origin.counts["/"] == 3


@pytest.mark.parametrize(
    ("vary", "one", "other", "same"),
    [
        pytest.param((), {b"Accept": b"a"}, {b"Accept": b"b"}, True, id="nothing varies"),
        pytest.param((b"accept",), {b"Accept": b"a"}, {b"Accept": b"b"}, False, id="9111-4.1"),
        pytest.param((b"accept",), {b"Accept": b"a"}, {b"accept": b"a"}, True, id="9110-5.1"),
        pytest.param((b"accept",), {}, {b"Accept": b""}, False, id="9111-4.1: absent or empty"),
        pytest.param((b"accept",), {b"X": b"a"}, {b"X": b"b"}, True, id="other fields"),
    ],
)
def test_flights_are_told_apart_by_what_selects_a_response(
    vary: tuple[bytes, ...], one: dict[bytes, bytes], other: dict[bytes, bytes], same: bool
) -> None:
    primary = bytes(16)
    keys = {flight_key(primary, vary, Fields(each.items())) for each in (one, other)}
    assert (len(keys) == 1) is same
    assert all(len(key) == 16 for key in keys)
    assert flight_key(bytes(15) + b"1", vary, Fields(one.items())) not in keys


async def test_a_fetch_is_counted_as_long_as_it_is_in_the_air(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    page = Versions(FRESH, held=True)
    origin.route("/", page)
    counters = served.place.filters[0]
    asking = asyncio.create_task(served.get("/"))
    await origin.seen("/")
    assert sum(counters) == 1
    assert counters[int.from_bytes(target_id("shop", b"/")[:4], "big") % len(counters)] == 1
    page.go.set()
    await asking
    await served.until(lambda: sum(counters) == 0)
    origin.route("/cut", [CLOSE])
    await served.get("/cut")
    await served.until(lambda: sum(counters) == 0)


async def test_what_is_in_the_air_when_the_edge_closes_is_broken_off(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/", Versions(FRESH, held=True))
    async with await served.connect() as connection:
        await connection.request("GET", "/")
        await origin.seen("/")
        await asyncio.wait_for(served.edge.close(), PATIENCE)
        with pytest.raises(MessageCut):
            await connection.response()


# -- a purge is exact


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize(
    "selector", [by_url("/"), by_url("/", None), by_tag("a"), Selector.by_everything("shop")]
)
async def test_a_purge_reaches_what_is_in_the_air(
    served: ServedEdge, origin: ScriptedOrigin, selector: Selector, mode: Mode
) -> None:
    page = Versions({**GRACE, "Cache-Tag": "a"}, held=True)
    origin.route("/", page)
    early = asyncio.create_task(served.get("/"))
    await origin.seen("/")
    await served.purge(selector, mode=mode)
    late = asyncio.create_task(served.get("/"))
    await origin.seen("/", 2)
    page.go.set()
    assert (await early).body == b"version 1"
    assert (await late).body == b"version 2", "it came after the purge"
    assert [stored.position for stored in served.stored()] == [1]
    again = await served.get("/")
    assert (again.body, again.cache_status["hit"]) == (b"version 2", True)


@pytest.mark.parametrize("mode", Mode)
async def test_what_is_purged_before_it_is_stored_is_not_good(
    served: ServedEdge, origin: ScriptedOrigin, mode: Mode
) -> None:
    page = Versions({**GRACE, "Cache-Tag": "a"}, held=True)
    origin.route("/", page)
    asking = asyncio.create_task(served.get("/"))
    await origin.seen("/")
    await served.purge(by_tag("a"), mode=mode)
    page.go.set()
    await asking
    assert [stored.invalidated for stored in served.stored()] == (
        [] if mode is Mode.DELETE else [1]
    )
    again = (await served.get("/")).cache_status
    assert again.get("detail") == (None if mode is Mode.DELETE else "invalidated")


async def test_other_purges_leave_what_is_in_the_air_to_all(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    page = Versions({**FRESH, "Cache-Tag": "a"}, held=True)
    origin.route("/", page)
    early = asyncio.create_task(served.get("/"))
    await origin.seen("/")
    await served.purge(by_url("/other"))
    late = asyncio.create_task(served.get("/"))
    await served.until(lambda: readers(served, "/") == 2)
    page.go.set()
    assert (await early).body == (await late).body == b"version 1"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(200, FRESH, b"page"), id="a body"),
        pytest.param(Answer(200, FRESH, framing="chunked", chunks=(b"a", b"b")), id="chunks"),
        pytest.param(Answer(200, FRESH, framing="chunked"), id="chunks, and none of them"),
        pytest.param(Answer(301, {**FRESH, "Location": "/b"}), id="a body without a byte"),
        pytest.param(Answer(204, FRESH), id="no body"),
    ],
)
async def test_who_has_the_last_byte_can_purge_it(
    served: ServedEdge, origin: ScriptedOrigin, answer: Answer
) -> None:
    origin.route("/", answer)
    async with await served.connect() as connection:
        for count in range(1, 6):
            await connection.exchange("GET", "/")
            assert (await served.purge(by_url("/"))).matched == 1
            assert origin.counts["/"] == count


# -- what another worker of the node fetches


def page_of_other(served: ServedEdge, target: str, **changes: Any) -> StoredResponse:
    """The response that the other worker has fetched."""
    return response(
        primary=primary_of(target),
        target=target.encode(),
        scheme="http",
        variant=variant_id(()),
        fields=((b"Cache-Control", b"max-age=60"),),
        request_time=served.clock.now,
        response_time=served.clock.now,
        **changes,
    )


async def waited_for(served: ServedEdge, other: OtherWorker) -> None:
    """Wait until this process' worker follows that one."""
    await served.until(lambda: other.flights[other.key].readers)


async def test_another_worker_s_fetch_is_followed(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    async with other_worker(served, "/a") as other, await served.connect() as connection:
        flight = other.takes_off()
        await connection.request("GET", "/a")
        await waited_for(served, other)
        flight.announce(Shared(page_of_other(served, "/a"), 8, None))
        await flight.append(b"half")
        streamed = await connection.start_response()
        assert await streamed.read(4) == b"half", "as it comes"
        await flight.append(b"half")
        flight.land()
        whole = await streamed.whole()
    assert whole.body == b"half"
    assert "collapsed" in whole.cache_status
    assert origin.requests == []
    assert served.stored() == [], "it is the other worker's to store"


async def test_what_another_worker_has_stored_meanwhile_is_read_there(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    async with other_worker(served, "/a") as other:
        flight = other.takes_off()
        asking = asyncio.create_task(served.get("/a"))
        await waited_for(served, other)
        stored = await store_page(served, "/a", b"page")
        flight.announce(Stored(stored, 304))
        answer = await asking
    assert (answer.body, answer.cache_status["collapsed"]) == (b"page", True)
    assert "fwd-status" not in answer.cache_status
    assert origin.requests == []


async def test_what_another_worker_has_in_its_own_memory_it_hands_over(
    serve: Serve, origin: ScriptedOrigin
) -> None:
    """Body ids are each worker's own: the same one means another body here."""
    served = await serve(config={"store": {"url": "memory:"}})
    mine, theirs = b"m" * 150_000, b"t" * 150_000
    other_page = await store_page(served, "/b", mine)

    async def open_body(stored: StoredResponse) -> ReadBody:
        async def read(start: int, stop: int | None) -> AsyncIterator[bytes]:
            yield theirs[start:stop]

        return read

    body = msgspec.structs.replace(other_page.body, crc=zlib.crc32(theirs))
    async with other_worker(served, "/a", open_body) as other:
        flight = other.takes_off()
        asking = asyncio.create_task(served.get("/a"))
        await waited_for(served, other)
        flight.announce(Stored(page_of_other(served, "/a", body=body), 304))
        answer = await asking
    assert answer.body == theirs
    assert "collapsed" in answer.cache_status
    assert (await served.get("/a")).cache_status["hit"], "this worker has its own by now"
    assert origin.requests == []


async def test_what_another_worker_may_not_share_is_asked_for(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/a", Answer(200, {"Cache-Control": "no-store"}, b"own"))
    async with other_worker(served, "/a") as other:
        other.takes_off().announce(Unshared(None, 200, "no-store"))
        answer = await served.get("/a")
    assert (answer.body, answer.cache_status["detail"]) == (b"own", "uncacheable")


async def store_page(served: ServedEdge, target: str, body: bytes) -> StoredResponse:
    """Store what the other worker has fetched, as it does itself."""
    tier = served.edge.tier
    spool = tier.spool()
    await spool.append(body)
    page, admit = page_of_other(served, target), served.edge.view.admit
    stored = await tier.put(page, spool, admit, max_variants=8, max_busters=8)
    await spool.close()
    assert stored is not None
    return stored


@pytest.mark.parametrize("claimed", [False, True])
async def test_what_was_stored_between_a_look_and_the_claim_is_not_fetched(
    served: ServedEdge, origin: ScriptedOrigin, claimed: bool
) -> None:
    """By a worker that has just come to its end, whether or not its claim is free by now."""
    async with AsyncExitStack() as stack:
        if claimed:
            await stack.enter_async_context(other_worker(served, "/a"))
        stored = await store_page(served, "/a", b"page")
        request = edge_request(b"/a")
        flight, first = served.fetching.join(request, served.pool, None, ())
        with flight.waiting():
            outcome = await asyncio.wait_for(flight.outcome(), PATIENCE)
    assert first and flight.followed
    assert outcome == Stored(stored, None)
    assert origin.requests == []


@pytest.mark.parametrize(
    ("known", "passed", "purged"),
    [
        pytest.param(True, 0, None, id="it is what was known before"),
        pytest.param(False, 61, None, id="it is stale"),
        pytest.param(False, 0, Mode.INVALIDATE, id="it was invalidated"),
        pytest.param(False, 0, Mode.DELETE, id="it was deleted"),
    ],
)
async def test_what_is_stored_and_no_good_is_fetched_all_the_same(
    served: ServedEdge, origin: ScriptedOrigin, known: bool, passed: int, purged: Mode | None
) -> None:
    origin.route("/a", Answer(200, FRESH, b"new"))
    stored = await store_page(served, "/a", b"page")
    found = served.lookup.judge(stored, served.policy, 0) if known else None
    served.clock.now += passed
    if purged is not None:
        await served.purge(by_url("/a"), mode=purged)
    flight, _ = served.fetching.join(edge_request(b"/a"), served.pool, found, ())
    with flight.waiting():
        outcome = await asyncio.wait_for(flight.outcome(), PATIENCE)
        await asyncio.wait_for(flight.ended(), PATIENCE)
    assert isinstance(outcome, Shared) and not flight.followed
    assert origin.counts["/a"] == 1


async def test_the_claim_of_a_worker_that_dies_is_taken_over(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/a", Answer(200, FRESH, b"own"))
    async with other_worker(served, "/a") as other:
        await other.dies()
        answer = await served.get("/a")
    assert (answer.body, "collapsed" in answer.cache_status) == (b"own", False)


async def test_a_claim_behind_which_nothing_is_in_the_air_holds_nobody_up(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/a", Answer(200, FRESH, b"own"))
    async with other_worker(served, "/a"):
        answer = await served.get("/a")
    assert answer.body == b"own"


async def test_a_body_that_is_cut_at_the_other_worker_is_cut_here(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    async with other_worker(served, "/a") as other, await served.connect() as connection:
        flight = other.takes_off()
        flight.announce(Shared(page_of_other(served, "/a"), 8, None))
        await connection.request("GET", "/a")
        await waited_for(served, other)
        await flight.append(b"half")
        streamed = await connection.start_response()
        assert await streamed.read(4) == b"half"
        flight.fail(OriginBodyCut())
        with pytest.raises(MessageCut):
            await streamed.whole()


async def test_what_breaks_off_there_before_a_byte_was_sent_here_is_fetched_here(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/a", Answer(200, FRESH, b"whole"))
    async with other_worker(served, "/a") as other:
        flight = other.takes_off()
        asking = asyncio.create_task(served.get("/a"))
        await waited_for(served, other)
        await other.dies()
        flight.announce(Shared(page_of_other(served, "/a"), 5, None))
        await flight.append(b"who")
        flight.fail(OriginBodyCut())
        assert (await asking).body == b"whole"


@pytest.mark.parametrize(
    ("lives", "detail"), [(1, None), (2, "peer-lost")], ids=["once", "and again"]
)
async def test_and_so_it_is_when_that_worker_is_gone_with_it(
    served: ServedEdge, origin: ScriptedOrigin, lives: int, detail: str | None
) -> None:
    """Though it had told already what the body would belong to. It is no failure of the origin's,
    so nothing stale stands in for it."""
    origin.route("/a", Answer(200, ON_ERROR, b"old"))
    await served.get("/a")
    served.clock.now += 100
    origin.route("/a", Answer(200, FRESH, b"whole"))
    async with other_worker(served, "/a") as other:
        head = msgspec.msgpack.encode((page_of_other(served, "/a"), 5))
        # All at once, with an end that shows: nobody can have begun before it is known.
        said = struct.pack("!cI", b"S", len(head)) + head + struct.pack("!cI", b"?", 0)
        deaths = 0

        async def last_words(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal deaths
            deaths += 1
            if deaths == lives:
                await other.dies()
            writer.write(said)
            writer.close()

        async with await asyncio.start_unix_server(last_words, other.path):
            answer = await served.get("/a")
    assert answer.body == b"whole"
    assert answer.cache_status.get("detail") == detail
    assert (deaths, origin.counts["/a"]) == (lives, 2)


@pytest.mark.parametrize(
    "failure", [OriginUnreachable("refused"), InternalFailure("shutting-down")]
)
async def test_another_worker_s_failure_is_not_ours(
    served: ServedEdge, origin: ScriptedOrigin, failure: EdgeError
) -> None:
    """It was another request's: this one is owed a try of its own."""
    origin.route("/a", Answer(200, FRESH, b"own"))
    async with other_worker(served, "/a") as other:
        flight = other.takes_off()
        asking = asyncio.create_task(served.get("/a"))
        await waited_for(served, other)
        await other.dies()
        flight.fail(failure)
        assert (await asking).body == b"own"


async def test_a_stale_response_stands_in_for_another_worker_s_failure(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 5861 4: who asked the origin makes no difference."""
    origin.route("/a", Answer(200, ON_ERROR, b"page"))
    await served.get("/a")
    served.clock.now += 100
    async with other_worker(served, "/a") as other:
        flight = other.takes_off()
        asking = asyncio.create_task(served.get("/a"))
        await waited_for(served, other)
        flight.fail(OriginUnreachable("refused"))
        answer = await asking
    assert (answer.status, answer.body) == (200, b"page")
    assert answer.cache_status["detail"] == "stale-if-error; origin-unreachable"
    assert origin.counts["/a"] == 1


async def test_a_purge_reaches_what_another_worker_has_in_the_air(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/a", Answer(200, FRESH, b"own"))
    old = page_of_other(served, "/a", tags=("a",))
    await served.purge(by_tag("a"))
    async with other_worker(served, "/a") as other:
        flight = other.takes_off()
        asking = asyncio.create_task(served.get("/a"))
        await waited_for(served, other)
        await other.dies()
        flight.announce(Shared(old, 3, None))
        await flight.append(b"old")
        flight.land()
        assert (await asking).body == b"own"
