"""Each request of the table, where its URL is stored and where it is not."""

import asyncio
from pathlib import Path

import pytest

from tests.hostile.conftest import PLAIN, mirror
from tests.hostile.heedless import HeedlessOrigin
from tests.hostile.requests import HIDDEN, HOST, REQUESTS, SECTIONS, Row, length
from tests.kit import (
    Answer,
    Connection,
    EdgeProcess,
    MalformedMessage,
    MessageCut,
    ScriptedOrigin,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")

PATIENCE = 10.0
LAST = b"GET %b/last HTTP/1.1\r\n" + HOST + b"\r\n"


async def answers(connection: Connection, method: str) -> list[int]:
    """The status of each answer until the edge closes, or `GET /last` is answered."""
    statuses: list[int] = []
    while True:
        try:
            response = await connection.response(method)
        except MessageCut:
            return statuses
        statuses.append(response.status)
        if response.field("x-last"):
            return statuses


async def goes_on(connection: Connection) -> bool:
    """Whether the edge answers once more on the connection."""
    try:
        await connection.send(b"GET /again HTTP/1.1\r\n" + HOST + b"\r\n")
        await connection.response()
    except (MessageCut, ConnectionError):
        return False
    return True


async def attempt(
    edge: EdgeProcess, origin: ScriptedOrigin, row: Row, target: str, state: str
) -> None:
    """Send a request, and hold all that comes of it against the table."""
    own = target.encode()
    plain = b"GET %b HTTP/1.1\r\n%b\r\n" % (own, HOST)
    hot = state != "cold"
    if state == "only hits":
        await edge.get(target, {"Host": "shop.example"})
    async with await edge.connect() as connection:
        if hot:
            # Twice by the same field block, on the connection that the attack comes over.
            await connection.send(plain)
            await connection.response()
            await connection.send(plain)
            assert "hit" in (await connection.response()).cache_status
        before = len(origin.requests_for(target))
        await connection.send(row.raw.replace(b"TARGET", own) + LAST % own)
        method = row.raw.lstrip().split(b" ")[0].decode("latin-1")
        assert await answers(connection, method) == list(row.statuses)
        assert await goes_on(connection) is not row.closed
    got = [f"{request.method} TARGET" for request in origin.requests_for(target)[before:]]
    assert got == ([] if row.hit and hot else list(row.seen))
    assert origin.counts[f"{target}/last"] == (0 if row.closed else 1)
    reader = await edge.get(target, {"Host": "shop.example"})
    assert reader.json() == ["GET", target, PLAIN, ""]
    if row.refused:
        assert ("hit" in reader.cache_status) is hot


# Where the URL is stored, the connection has seen nothing but hits, or a miss as well: what is
# fresh may be answered by other means than all else, and by others yet on a new connection.
@pytest.mark.parametrize("state", ["cold", "only hits", "hits and misses"])
@pytest.mark.parametrize("section", SECTIONS)
async def test_a_request_comes_to_what_it_must(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, section: str, state: str
) -> None:
    """Its answers, the connection's end, what the origin got of it, and that no other reader gets
    anything else for it."""
    last = Answer(200, {"Cache-Control": "no-store", "X-Last": "1"}, b"last")
    origin.otherwise(lambda request: last if request.target.endswith("/last") else mirror(request))
    at_once = asyncio.Semaphore(16)
    failures: dict[str, str] = {}

    async def attempted(row: Row, own: str) -> None:
        async with at_once:
            try:
                async with asyncio.timeout(PATIENCE):
                    await attempt(edge, origin, row, own, state)
            except (AssertionError, TimeoutError, MalformedMessage, MessageCut) as error:
                failures[str(row)] = repr(error)

    rows = [row for row in REQUESTS if row.section == section]
    await asyncio.gather(*(attempted(row, f"{target}/{number}") for number, row in enumerate(rows)))
    assert failures == {}
    assert origin.counts["/hidden"] == 0
    # A request whose body broke off in the middle was broken off at the origin, too.
    origin.complaints[:] = [each for each in origin.complaints if "cut" not in each]


async def test_pipelined_requests_are_answered_in_their_order(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    """9.3.2: what is stored does not overtake what is not."""
    origin.otherwise(mirror)
    await edge.get(f"{target}/1", {"Host": "shop.example"})
    wanted = [f"{target}/{number}" for number in (0, 1, 2, 1, 1, 3, 1)]
    async with asyncio.timeout(PATIENCE), await edge.connect() as connection:
        head = b"GET %b HTTP/1.1\r\n" + HOST + b"\r\n"
        await connection.send(b"".join(head % each.encode() for each in wanted))
        assert [(await connection.response()).json()[1] for _ in wanted] == wanted


async def test_no_hit_overtakes_what_is_under_way(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    """9.3.2: nor if it comes by itself, while the answer before it is still awaited."""
    held = asyncio.Event()
    origin.otherwise(mirror)
    origin.route(f"{target}/slow", Answer(200, {"Cache-Control": "no-store"}, b"slow", hold=held))
    await edge.get(target, {"Host": "shop.example"})
    head = b"GET %b HTTP/1.1\r\n" + HOST + b"\r\n"
    async with asyncio.timeout(PATIENCE), await edge.connect() as connection:
        await connection.send(head % target.encode())
        await connection.response()
        await connection.send(head % f"{target}/slow".encode())
        await origin.seen(f"{target}/slow")
        for _ in range(2):
            await connection.send(head % target.encode())
            # Another connection's hit is answered behind what has come in on this one.
            await edge.get(target, {"Host": "shop.example"})
        held.set()
        assert (await connection.response()).body == b"slow"
        assert [(await connection.response()).json()[1] for _ in range(2)] == [target] * 2


async def test_no_request_behind_a_refused_one_is_answered(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    """What stands before it is; 9.3.2 has the order kept."""
    origin.otherwise(mirror)
    good = b"GET %b HTTP/1.1\r\n%b\r\n" % (target.encode(), HOST)
    async with asyncio.timeout(PATIENCE), await edge.connect() as connection:
        await connection.send(good + good + good.replace(b"Host", b"Host ") + good)
        assert [(await connection.response()).status for _ in range(3)] == [200, 200, 400]
        assert await connection.ended() == "closed"
    assert origin.counts[target] == 1


async def test_a_broken_body_right_behind_an_answer_is_told_so(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """Not with a silent end: it may come in while the answer before it is being finished."""
    origin.route("/last", Answer(200, {"Cache-Control": "no-store"}, b"last"))
    good = b"GET /last HTTP/1.1\r\n" + HOST + b"\r\n"
    bad = b"POST /last HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\ng\r\n"
    statuses, before = set(), origin.open_connections
    for _ in range(40):
        async with asyncio.timeout(PATIENCE), await edge.connect() as connection:
            await connection.send(good)
            await connection.response()
            await connection.send(bad)
            statuses.update(await answers(connection, "POST") or [None])
    assert statuses == {400}
    async with asyncio.timeout(PATIENCE):
        # The last of them may have got as far as the origin, which hears of its end in a moment.
        while origin.open_connections > max(before, 1):
            await asyncio.sleep(0.01)
    origin.complaints[:] = [each for each in origin.complaints if "cut" not in each]


async def test_a_host_that_is_nobody_s_is_421(origin: ScriptedOrigin, tmp_path: Path) -> None:
    """7.4 of RFC 9110: neither by Host, nor by absolute form."""
    sites = {"shop": {"hosts": ["shop.example"], "origins": [{"url": origin.url}]}}
    strict = EdgeProcess(tmp_path / "strict", config={"sites": sites})
    del strict.config["default_site"]
    before = len(origin.requests)
    async with strict:
        for raw in (
            b"GET /a HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            b"GET http://evil.example/a HTTP/1.1\r\nHost: shop.example\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: shop.example.evil.example\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        ):
            async with asyncio.timeout(PATIENCE), await strict.connect() as connection:
                await connection.send(raw)
                assert (await connection.response()).status == 421
    assert len(origin.requests) == before


@pytest.mark.parametrize(
    "sent",
    [b"Expect: 100-continue\r\n", b"", None],
    ids=["Expect", "late body", "body at once (CL.0)"],
)
async def test_an_answer_to_a_body_reaches_nobody(
    edge: EdgeProcess, heedless: HeedlessOrigin, sent: bytes | None
) -> None:
    """10.1.1 of RFC 9110: an origin that answers before the body comes may not be reading that."""
    host = {"Host": "heedless.example"}
    name = {b"Expect: 100-continue\r\n": 1, b"": 2, None: 3}[sent]
    hidden = HIDDEN.replace(b"/hidden", b"/hidden%d" % name)
    head = b"POST /open HTTP/1.1\r\nHost: heedless.example\r\n%b%b\r\n" % (
        sent or b"", length(hidden),
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE), await edge.connect() as attacker:
        await attacker.send(head if sent is not None else head + hidden)
        assert (await attacker.response("POST")).body == b"/open"
        if sent is not None:
            await attacker.send(hidden)
        while not any(target.startswith(b"/hidden") for target in heedless.seen):
            await asyncio.sleep(0.01)
        heedless.seen.clear()
        for target in ("/victim", "/other", "/victim"):
            assert (await edge.get(f"{target}{name}", host)).text == f"{target}{name}"
