"""What strangers may use up: connections, room in the store, time."""

import asyncio
import json
import re

import pytest

from tests.hostile.conftest import FRESH
from tests.hostile.requests import request
from tests.kit import Answer, Connection, EdgeProcess, ScriptedOrigin

pytestmark = pytest.mark.asyncio(loop_scope="package")

PATIENCE = 10.0


async def test_who_does_not_ask_is_not_kept(edge: EdgeProcess) -> None:
    async def outstay(url: str, sent: bytes) -> bytes:
        async with await Connection.open(url) as connection:
            await connection.send(sent)
            return (await connection.reader.read())[:12]

    half = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "
    ways = [(url, sent) for url in (edge.url, edge.admin_url) for sent in (b"", half)]
    async with asyncio.timeout(PATIENCE):
        ends = await asyncio.gather(*(outstay(*way) for way in ways))
    assert ends == [b"", b"HTTP/1.1 408", b"", b""]


async def test_slow_uploads_leave_connections_to_the_others(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.otherwise(Answer(200, FRESH, b"page"))
    slow = [await edge.connect() for _ in range(12)]
    for connection in slow:
        head = request(b"Content-Length: 100\r\n", b"x", method=b"POST", target=b"/slow")
        head = head.replace(b"shop.", b"small.")
        await connection.send(head)
    await asyncio.sleep(0.1)
    for number in range(5):
        async with asyncio.timeout(1):
            page = await edge.get(f"/while-uploading/{number}", {"Host": "small.example"})
            assert page.text == "page"
    for connection in slow:
        connection.reset()
    await asyncio.sleep(0.1)
    # What was given up here was broken off there.
    assert all("cut" in complaint for complaint in origin.complaints)
    origin.complaints.clear()


async def test_random_variants_and_busters_stay_few(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    before = await refused(edge)
    origin.route("/many", Answer(200, FRESH | {"Vary": "X-Random", "Cache-Tag": "many"}, b"page"))
    async with await edge.connect() as connection:
        for number in range(120):
            fields = {"Host": "shop.example", "X-Random": str(number)}
            await connection.exchange("GET", f"/cb:{number % 60}/many", fields)
    answer = await edge.purge(tags=["many"], site="default", dry_run=True)
    assert answer["matched"] <= 2 * 33
    after = await refused(edge)
    assert after["dropped_busters"] >= before["dropped_busters"] + 120 - 33


async def test_long_fields_cost_little(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    """Each is read for each variant of the page."""
    vary = {"Vary": "Accept-Language, Accept, Accept-Encoding", "Content-Language": "de"}
    origin.route("/long", Answer(200, FRESH | vary, b"page"))
    async with await edge.connect() as connection:
        for number in range(32):
            fields = {"Host": "shop.example", "Accept-Language": f"x-{number}"}
            await connection.exchange("GET", "/long", fields)
        longest = {"Host": "shop.example", "Accept-Language": ",".join(['"x"'] * 15_000)}
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            assert (await connection.exchange("GET", "/long", longest)).text == "page"
        assert asyncio.get_running_loop().time() - began < 3


async def test_a_purge_of_all_that_may_be_named_is_quick(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.route("/tagged", Answer(200, FRESH | {"Cache-Tag": "t1 t2, t9"}, b"page"))
    await edge.get("/tagged")
    began = asyncio.get_running_loop().time()
    answer = await edge.purge(tags=[f"t{n}" for n in range(10_000)], site="default", mode="delete")
    assert answer["matched"] == 1
    assert asyncio.get_running_loop().time() - began < 2
    assert "hit" not in (await edge.get("/tagged")).cache_status


# -- limits, each of which says so


async def refused(edge: EdgeProcess) -> dict[str, int]:
    """What `GET /v1/status` counts."""
    status = (await edge.admin("GET", "/v1/status")).json()
    counts: dict[str, int] = status["not_stored"] | status["refused"]
    dropped = ("dropped_variants", "dropped_busters", "dropped_uncacheable")
    return counts | {name: status[name] for name in dropped}


async def test_a_long_url_is_passed_on_and_not_stored(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    small = {"Host": "small.example"}
    before = await refused(edge)
    origin.otherwise(Answer(200, FRESH, b"page"))
    for length, stored in ((64, True), (65, False)):
        long = f"{target}?".ljust(length, "x")
        assert (await edge.get(long, small)).cache_status.get("stored", False) is stored
        again = (await edge.get(long, small)).cache_status
        assert ("hit" in again) is stored
        assert stored or again["detail"] == "uncacheable; key-too-long"
    assert (await refused(edge))["key-too-long"] == before["key-too-long"] + 2


async def test_too_many_tags_are_not_stored(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    small = {"Host": "small.example"}
    before = await refused(edge)
    for tags, stored in (("a,b,c,d", True), ("a,b,c,d,e", False)):
        origin.route(f"{target}/{stored}", Answer(200, FRESH | {"Cache-Tag": tags}, b"page"))
        status = (await edge.get(f"{target}/{stored}", small)).cache_status
        assert (status.get("stored"), status.get("detail")) == (
            (True, None) if stored else (None, "tag-limit")
        )
    assert (await refused(edge))["tag-limit"] == before["tag-limit"] + 1


async def test_variants_of_a_url_give_way(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    before = await refused(edge)
    origin.route(target, Answer(200, FRESH | {"Vary": "X-Random", "Cache-Tag": target}, b"page"))
    told = []
    async with await edge.connect() as connection:
        for number in range(40):
            fields = {"Host": "shop.example", "X-Random": str(number)}
            answer = await connection.exchange("GET", target, fields)
            told.append(answer.cache_status.get("detail"))
    assert told == [None] * 32 + ["variant-limit"] * 8
    assert (await edge.purge(tags=[target], site="default", dry_run=True))["matched"] == 32
    assert (await refused(edge))["dropped_variants"] == before["dropped_variants"] + 8


async def test_copies_of_a_url_give_way(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    before = await refused(edge)
    origin.route(target, Answer(200, FRESH, b"page"))
    told = [
        (await edge.get(f"/cb:{number}{target}")).cache_status.get("detail") for number in range(36)
    ]
    assert told == [None] * 32 + ["buster-limit"] * 4
    assert (await refused(edge))["dropped_busters"] == before["dropped_busters"] + 4


async def test_who_finds_no_place_among_those_that_wait_asks_the_origin(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    """As many as may wait for one answer, and no more: `max_waiters` is 3 there."""
    before = await refused(edge)
    go_on = asyncio.Event()
    origin.route(target, Answer(200, FRESH, b"page", hold=go_on))
    asking = [
        asyncio.create_task(edge.get(target, {"Host": "small.example"})) for _ in range(3 * 3)
    ]
    async with asyncio.timeout(PATIENCE):
        await origin.seen(target, 3)
        go_on.set()
        answers = [await each for each in asking]
    assert {each.text for each in answers} == {"page"}
    told = [each.cache_status.get("detail") for each in answers]
    assert told.count("too-many-waiters") == 2
    assert origin.counts[target] == 3
    assert (await refused(edge))["too-many-waiters"] == before["too-many-waiters"] + 2


async def test_only_so_many_urls_are_remembered_as_uncacheable(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    """100 of them here; the one of the longest ago is the next to be asked for in line."""
    before = await refused(edge)
    origin.otherwise(Answer(200, {"Cache-Control": "no-store"}, b"page"))
    async with await edge.connect() as connection:
        for number in range(101):
            fields = {"Host": "shop.example"}
            last = await connection.exchange("GET", f"{target}/{number}", fields)
        assert last.cache_status["detail"] == "no-store; uncacheable-limit"
        told = [
            (await connection.exchange("GET", f"{target}/{number}", fields)).cache_status["fwd"]
            for number in (100, 0)
        ]
    assert told == ["bypass", "uri-miss"]
    assert (await refused(edge))["dropped_uncacheable"] >= before["dropped_uncacheable"] + 1


async def test_no_word_of_a_stranger_s_becomes_the_name_of_a_count(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """What is counted has names of the edge's own, however many hosts and methods there are."""

    async def names() -> list[str]:
        told = (await edge.admin("GET", "/v1/status")).json()
        told |= {"sites": (await edge.admin("GET", "/v1/sites")).json()}
        return re.findall(r'"([^"]+)":', json.dumps(told))

    origin.otherwise(Answer(200, {"Cache-Control": "no-store"}, b"page"))
    before = await names()
    for number in range(20):
        async with asyncio.timeout(PATIENCE), await edge.connect() as connection:
            await connection.send(
                b"M%d /%d HTTP/1.1\r\nHost: h%d.example\r\n\r\n" % ((number,) * 3)
            )
            assert (await connection.response()).status == 200
            await connection.send(b"M%d bad%d HTTP/9.%d\r\n\r\n" % (number, number, number % 10))
            assert (await connection.response()).status in (400, 505)
    assert await names() == before


RANGES = {
    "all, sixteen times": ",".join(["0-"] * 16),
    "overlapping": ",".join(f"{first}-999" for first in range(16)),
    "seventeen": ",".join(f"{2 * first}-{2 * first}" for first in range(17)),
    "a thousand": ",".join(f"{2 * first}-{2 * first}" for first in range(1000)),
    "suffixes": ",".join(f"-{size}" for size in range(990, 1000)),
    "tiny": ",".join(f"{2 * first}-{2 * first}" for first in range(16)),
}


@pytest.mark.parametrize("asked", RANGES.values(), ids=RANGES)
async def test_no_ranges_bring_more_than_there_is(
    edge: EdgeProcess, origin: ScriptedOrigin, asked: str
) -> None:
    """RFC 9110 14.2, 17.15: each byte once at most, and sixteen parts' own lines."""
    origin.route("/ranged", Answer(200, FRESH, b"x" * 1000))
    await edge.get("/ranged")
    response = await edge.get("/ranged", {"Range": f"bytes={asked}"})
    assert response.status in (200, 206)
    assert response.body.count(b"x") <= 1000 + 16
    assert len(response.body) <= 1000 + 17 * 120
    assert origin.counts["/ranged"] == 1


async def test_small_ranges_close_together_are_one(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    """RFC 9110 15.3.7.2: what keeps many parts apart would be longer than what is between them."""
    origin.route(target, Answer(200, FRESH, b"x" * 1000))
    await edge.get(target)
    many = ",".join(f"{50 * first}-{50 * first}" for first in range(5))
    response = await edge.get(target, {"Range": f"bytes={many}"})
    assert (response.status, response.field("content-range")) == (206, "bytes 0-200/1000")


async def test_too_many_ranges_are_none(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    origin.route(target, Answer(200, FRESH, b"x" * 1000))
    before = (await refused(edge))["too-many-ranges"]
    many = {"Range": "bytes=" + ",".join(["0-0"] * 17)}
    for _ in ("miss", "hit"):
        response = await edge.get(target, many)
        assert (response.status, len(response.body)) == (200, 1000)
        assert response.cache_status["detail"] == "too-many-ranges"
    assert (await refused(edge))["too-many-ranges"] == before + 2


BOMB = bytes.fromhex("1f8b08000000000002ff") + b"\0" * 100


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "gzip, gzip"])
async def test_nothing_is_decompressed(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, coding: str
) -> None:
    encoded = {"Content-Encoding": coding}
    origin.route(target, Answer(200, FRESH | encoded, BOMB))
    for _ in range(2):
        response = await edge.get(target, {"Accept-Encoding": "identity"})
        assert (response.body, response.field("content-encoding")) == (BOMB, coding)
    async with await edge.connect() as connection:
        await connection.exchange("POST", target, encoded, BOMB)
    assert origin.requests_for(target)[-1].body == BOMB
