"""Many requests for one cold URL cost one fetch, and nobody is worse off for it."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.conftest import StartEdge
from tests.kit import RESET, Answer, EdgeProcess, MessageCut, OriginRequest, ScriptedOrigin

CACHEABLE = {"Cache-Control": "max-age=3600"}


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_thousand_cold_requests_make_one_origin_request(
    origin: ScriptedOrigin, start_edge: StartEdge, workers: int
) -> None:
    body = b"x" * 100_000
    held = asyncio.Event()
    origin.route("/page", Answer(200, CACHEABLE, body, hold=held))
    edge = await start_edge(origin, workers=workers)
    connections = [await edge.connect() for _ in range(1000)]
    for connection in connections:
        await connection.request("GET", "/page")
    await origin.seen("/page")
    held.set()
    responses = await asyncio.gather(*(connection.response() for connection in connections))
    assert {(response.status, response.body == body) for response in responses} == {(200, True)}
    assert origin.counts["/page"] == 1
    led = [each for each in responses if not {"collapsed", "hit"} & each.cache_status.keys()]
    assert len(led) == 1
    for connection in connections:
        await connection.close()


async def test_waiters_are_streamed_the_bytes_as_they_arrive(
    origin: ScriptedOrigin, pair: EdgeProcess
) -> None:
    held = asyncio.Event()

    async def halting(_: OriginRequest) -> list[bytes | asyncio.Event]:
        head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 8\r\n\r\n"
        return [head, b"half", held, b"half"]

    origin.route("/page", halting)
    connections = [await pair.connect() for _ in range(20)]
    for connection in connections:
        await connection.request("GET", "/page")
    streams = [await connection.start_response() for connection in connections]
    assert [await stream.read(4) for stream in streams] == [b"half"] * 20
    held.set()
    assert [await stream.read() for stream in streams] == [b"half"] * 20
    assert origin.counts["/page"] == 1


async def test_a_leader_that_disconnects_does_not_end_the_fetch(
    origin: ScriptedOrigin, pair: EdgeProcess
) -> None:
    held = asyncio.Event()
    origin.route("/page", Answer(200, CACHEABLE, b"page", hold=held))
    leader = await pair.connect()
    await leader.request("GET", "/page")
    await origin.seen("/page")
    waiters = [asyncio.create_task(pair.get("/page")) for _ in range(10)]
    await asyncio.sleep(0)
    leader.reset()
    held.set()
    assert [response.body for response in await asyncio.gather(*waiters)] == [b"page"] * 10
    assert (await pair.get("/page")).cache_status.get("hit")
    assert origin.counts["/page"] == 1


async def test_waiters_for_what_is_uncacheable_go_on_in_parallel_and_it_is_remembered(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    first, others = asyncio.Event(), asyncio.Event()

    def private(_: OriginRequest) -> Answer:
        # Each of the later ones waits for all of them: one after the other, none would end.
        number = origin.counts["/mine"]
        if number == 11:
            others.set()
        fields = {"Cache-Control": "private"}
        return Answer(200, fields, b"%d" % number, hold=first if number == 1 else others)

    origin.route("/mine", private)
    connections = [await edge.connect() for _ in range(11)]
    for connection in connections:
        await connection.request("GET", "/mine")
    await origin.seen("/mine")
    first.set()
    responses = await asyncio.gather(*(connection.response() for connection in connections))
    assert sorted(int(response.body) for response in responses) == list(range(1, 12))
    origin.route("/mine", Answer(200, {"Cache-Control": "private"}, b"later"))
    later = await edge.get("/mine")
    assert later.cache_status == {
        "fwd": "bypass",
        "fwd-status": "200",
        "detail": "uncacheable; private",
    }


async def test_a_cut_body_reaches_no_waiter_as_whole_and_is_not_stored(
    origin: ScriptedOrigin, pair: EdgeProcess
) -> None:
    held = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 8\r\n\r\n"
    origin.route("/page", [head, b"half", held, RESET])
    connections = [await pair.connect() for _ in range(10)]
    for connection in connections:
        await connection.request("GET", "/page")
    streams = [await connection.start_response() for connection in connections]
    held.set()
    for stream in streams:
        with pytest.raises(MessageCut):
            await stream.read()
    origin.route("/page", Answer(200, CACHEABLE, b"wholepage"))
    assert (await pair.get("/page")).body == b"wholepage"


async def test_variants_are_told_apart_though_they_were_asked_for_at_once(
    origin: ScriptedOrigin, pair: EdgeProcess
) -> None:
    fields = CACHEABLE | {"Vary": "Accept-Language"}

    def page(request: OriginRequest) -> Answer:
        return Answer(200, fields, (request.field("accept-language") or "none").encode())

    origin.route("/page", page)
    languages = [f"l{n % 5}" for n in range(100)]
    responses = await asyncio.gather(
        *(pair.get("/page", fields={"Accept-Language": language}) for language in languages)
    )
    assert [response.text for response in responses] == languages
    for language in set(languages):
        response = await pair.get("/page", fields={"Accept-Language": language})
        assert (response.text, response.cache_status.get("hit")) == (language, True)


async def test_a_failed_fetch_is_tried_once_more_for_those_who_only_waited(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    held = asyncio.Event()

    def failing_first(_: OriginRequest) -> object:
        if origin.counts["/page"] == 1:
            return [held, RESET]
        return Answer(200, CACHEABLE, b"page")

    origin.route("/page", failing_first)
    connections = [await edge.connect() for _ in range(10)]
    for connection in connections:
        await connection.request("GET", "/page")
    await origin.seen("/page")
    held.set()
    statuses = [(await connection.response()).status for connection in connections]
    assert sorted(statuses) == [200] * 9 + [502]


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_must_be_validated_is_validated_for_all_who_wait_together(
    origin: ScriptedOrigin, start_edge: StartEdge, workers: int
) -> None:
    """RFC 9111 5.2.2.4: not by a fetch that had left before a request came, but by the next."""
    fields = {"Cache-Control": "no-cache", "ETag": '"1"'}

    def page(request: OriginRequest) -> Answer:
        if request.field("if-none-match") == '"1"':
            return Answer(304, fields)
        return Answer(200, fields, b"page")

    origin.route("/page", page)
    edge = await start_edge(origin, workers=workers)
    responses = await asyncio.gather(*(edge.get("/page") for _ in range(200)))
    assert {(response.status, response.body) for response in responses} == {(200, b"page")}
    assert origin.counts["/page"] < 60


async def test_who_comes_too_late_for_a_validation_shares_the_next(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """However long the response that came too early for them is still on its way."""
    fields = {"Cache-Control": "no-cache", "ETag": '"1"'}
    held, held_next = asyncio.Event(), asyncio.Event()

    def page(_: OriginRequest) -> Answer:
        hold = held if origin.counts["/page"] == 1 else held_next
        return Answer(200, fields, b"page", hold_body=hold)

    origin.route("/page", page)
    first = asyncio.create_task(edge.get("/page"))
    await origin.seen("/page")
    others = [asyncio.create_task(edge.get("/page")) for _ in range(10)]
    await origin.seen("/page", 2)
    held_next.set()
    assert {(await other).body for other in others} == {b"page"}
    held.set()
    assert (await first).body == b"page"
    # One for each wave of those who came while the one before was on its way.
    assert origin.counts["/page"] <= 4


async def test_a_failed_fetch_of_another_worker_leaves_everybody_the_stale_response(
    origin: ScriptedOrigin, pair: EdgeProcess
) -> None:
    """RFC 5861 4."""
    fields = {"Cache-Control": "max-age=0", "ETag": '"1"'}
    origin.route("/page", Answer(200, fields, b"page"))
    await pair.get("/page")
    held = asyncio.Event()
    origin.route("/page", lambda _: [held, RESET])
    connections = [await pair.connect() for _ in range(20)]
    for connection in connections:
        await connection.request("GET", "/page")
    await origin.seen("/page", 2)
    held.set()
    for connection in connections:
        response = await connection.response()
        assert (response.status, response.body) == (200, b"page")
        await connection.close()


def claimant(edge: EdgeProcess) -> int:
    """The process id of the worker that fetches just now: it has the one lock on the claims."""
    (claims,) = edge.folder.glob("run/*/claims")
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    inode = str(claims.stat().st_ino)
    (pid,) = [int(lock[4]) for lock in locks if lock[5].rpartition(":")[2] == inode]
    return pid


async def test_a_worker_that_hangs_keeps_none_of_the_other_s_readers_waiting(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    held = asyncio.Event()
    origin.route("/page", lambda _: Answer(200, CACHEABLE, b"page", hold=held))
    origin.route("/other", Answer(200, CACHEABLE, b"other"))
    edge = await start_edge(origin, workers=2, site={"cache": {"collapse_timeout": "0.3s"}})
    connections = [await edge.connect() for _ in range(20)]
    for connection in connections:
        await connection.exchange("GET", "/other")
    early = asyncio.create_task(edge.get("/page"))
    await origin.seen("/page")
    leader = claimant(edge)
    os.kill(leader, signal.SIGSTOP)
    try:
        answers = [asyncio.create_task(each.exchange("GET", "/other")) for each in connections]
        await asyncio.wait(answers, timeout=1)
        lively = [each for each, task in zip(connections, answers, strict=True) if task.done()]
        assert 0 < len(lively) < 20
        origin.route("/page", Answer(200, CACHEABLE, b"page"))
        async with asyncio.timeout(5):
            pages = await asyncio.gather(*(each.exchange("GET", "/page") for each in lively))
    finally:
        os.kill(leader, signal.SIGCONT)
        held.set()
    assert {page.body for page in pages} == {b"page"}
    assert (await early).body == b"page"
    await asyncio.gather(*answers)
    for connection in connections:
        await connection.close()
