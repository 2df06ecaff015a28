"""What may come before the final response, how long it may take, and when a request is repeated."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from edgeproxy.proxy.errors import OriginDisconnected, OriginProtocolError, OriginTimedOut
from edgeproxy.semantics.fields import Fields
from tests.kit import CLOSE, RESET, Answer, OriginRequest, ScriptedOrigin
from tests.kit.origin import Step
from tests.proxy.origin_client import (
    HOST,
    body_of,
    client_of,
    fetch,
    get,
    pieces,
)

pytestmark = pytest.mark.both_loops

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n"
UPGRADE = HOST.plus((b"Connection", b"Upgrade"), (b"Upgrade", b"chat"))


class Heard:
    """The interim responses that came."""

    def __init__(self) -> None:
        self.all: list[tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]] = []

    async def __call__(self, status: int, reason: bytes, fields: Fields) -> None:
        self.all.append((status, reason, fields.raw))


async def test_interim_responses_are_told_of_as_they_come(origin: ScriptedOrigin) -> None:
    go_on = asyncio.Event()
    heard = Heard()

    async def tell(status: int, reason: bytes, fields: Fields) -> None:
        await heard(status, reason, fields)
        if status == 103:
            go_on.set()

    origin.route(
        "/",
        [
            b"HTTP/1.1 100 Continue\r\n\r\n"
            b"HTTP/1.1 102 Processing\r\n\r\n"
            b"HTTP/1.1 103 Early Hints\r\nLink: a\r\nlink: b\r\n\r\n",
            go_on,
            b"HTTP/1.1 104 Upload Resumption\r\n\r\n" + OK,
        ],
    )
    async with client_of(origin) as client:
        assert await fetch(client, on_interim=tell) == b"ok"
        assert await fetch(client) == b"ok"
    assert heard.all == [
        (100, b"Continue", ()),
        (102, b"Processing", ()),
        (103, b"Early Hints", ((b"Link", b"a"), (b"link", b"b"))),
        (104, b"Upload Resumption", ()),
    ]
    assert origin.connections == 1


async def test_who_is_told_of_an_interim_response_may_end_it_all(origin: ScriptedOrigin) -> None:
    async def gone(status: int, reason: bytes, fields: Fields) -> None:
        raise ConnectionResetError("the reader is gone")

    origin.route("/", [b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.05, OK])
    async with client_of(origin) as client:
        with pytest.raises(ConnectionResetError, match="reader"):
            await get(client, on_interim=gone)
    origin.complaints.clear()


async def test_switching_protocols_hands_the_connection_over(origin: ScriptedOrigin) -> None:
    async def chat(request: OriginRequest) -> AsyncIterator[Step]:
        yield SWITCH + b"welcome"
        yield taken
        yield b", "
        yield await request.reader.readexactly(4)
        yield CLOSE

    taken = asyncio.Event()
    origin.route("/", lambda request: chat(request))
    async with client_of(origin, total=5.0) as client:
        response = await client.send(b"GET", b"/", UPGRADE, upgrade=True)
        assert (response.status, response.fields.get(b"upgrade")) == (101, b"chat")
        transport, leftover = response.upgrade()
        assert leftover == b"welcome"
        taken.set()
        await asyncio.sleep(0.05)
        reader = asyncio.StreamReader()
        transport.set_protocol(asyncio.StreamReaderProtocol(reader))
        transport.resume_reading()
        transport.write(b"ping")
        assert await reader.read() == b", ping"
        transport.close()
        response.release()
        with pytest.raises(OriginDisconnected):
            response.upgrade()


async def test_what_comes_before_a_connection_is_taken_over_is_not_lost(
    origin: ScriptedOrigin,
) -> None:
    async def flood() -> AsyncIterator[Step]:
        yield SWITCH
        for _ in range(64):
            yield b"x" * 10_000
        yield CLOSE

    origin.route("/", lambda _: flood())
    async with client_of(origin) as client:
        response = await client.send(b"GET", b"/", UPGRADE, upgrade=True)
        await asyncio.sleep(0.1)
        transport, leftover = response.upgrade()
        assert 0 < len(leftover) < 400_000
        reader = asyncio.StreamReader()
        transport.set_protocol(asyncio.StreamReaderProtocol(reader))
        transport.resume_reading()
        assert leftover + await reader.read() == b"x" * 640_000
        transport.close()


async def test_a_connection_that_is_gone_after_the_101_can_not_be_taken_over(
    origin: ScriptedOrigin,
) -> None:
    origin.route("/", [SWITCH, CLOSE])
    async with client_of(origin) as client:
        response = await client.send(b"GET", b"/", UPGRADE, upgrade=True)
        await origin.quiet()
        await asyncio.sleep(0.05)
        with pytest.raises(OriginDisconnected):
            response.upgrade()


@pytest.mark.parametrize(
    ("answer", "upgrade"),
    [
        pytest.param(SWITCH, False, id="unasked"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", True, id="to nothing"),
    ],
)
async def test_protocols_are_not_switched_unasked(
    origin: ScriptedOrigin, answer: bytes, upgrade: bool
) -> None:
    origin.route("/", [answer, 0.05])
    async with client_of(origin) as client:
        with pytest.raises(OriginProtocolError):
            await client.send(b"GET", b"/", HOST, upgrade=upgrade)
    origin.complaints.clear()


async def test_an_upgrade_may_be_declined(origin: ScriptedOrigin) -> None:
    origin.route("/", Answer(426, body=b"no"))
    async with client_of(origin) as client:
        response = await client.send(b"GET", b"/", UPGRADE, upgrade=True)
        assert (response.status, await body_of(response)) == (426, b"no")


# -- time


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([2.0], id="nothing"),
        pytest.param([b"HTTP/1.1 200 OK\r\nA: b\r\n", 2.0], id="half a head"),
        pytest.param([b"HTTP/1.1 103 Early Hints\r\n\r\n", 2.0], id="an interim response"),
    ],
)
async def test_the_first_byte_is_waited_for_only_so_long(
    origin: ScriptedOrigin, script: list[Step]
) -> None:
    origin.route("/", script)
    async with client_of(origin, first_byte=0.2) as client:
        with pytest.raises(OriginTimedOut) as raised:
            await get(client)
        error = raised.value
        assert (error.status, error.detail) == (504, "origin-timeout-first-byte")


async def test_who_says_that_it_is_still_at_it_wins_time(origin: ScriptedOrigin) -> None:
    origin.route("/", [0.6, b"HTTP/1.1 102 Processing\r\n\r\n", 0.6, OK])
    async with client_of(origin, first_byte=1.1) as client:
        assert await fetch(client) == b"ok"


@pytest.mark.parametrize(("status", "most"), [(100, 9), (103, 9), (102, 40)])
async def test_no_interim_response_wins_time_for_ever(
    origin: ScriptedOrigin, status: int, most: int
) -> None:
    """One that wins time does so ten times at most."""
    origin.route("/", [b"HTTP/1.1 %d Again\r\n\r\n" % status, 0.05] * 100)
    heard = Heard()
    async with client_of(origin, first_byte=0.1) as client:
        with pytest.raises(OriginTimedOut) as raised:
            await get(client, on_interim=heard)
        assert (raised.value.detail, raised.value.stage) == (
            "origin-timeout-first-byte",
            "first-byte",
        )
    assert 0 < len(heard.all) <= most


async def test_the_time_that_a_reader_takes_over_an_interim_response_is_not_the_origins(
    origin: ScriptedOrigin,
) -> None:
    async def slow(status: int, reason: bytes, fields: Fields) -> None:
        await asyncio.sleep(0.4)

    origin.route("/", [b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.3, OK])
    async with client_of(origin, first_byte=0.25) as client:
        assert await fetch(client, on_interim=slow) == b"ok"


async def test_the_whole_is_bounded_before_the_head_too(origin: ScriptedOrigin) -> None:
    origin.route("/", [b"HTTP/1.1 102 Processing\r\n\r\n", 0.1] * 50)
    async with client_of(origin, first_byte=0.3, total=0.5) as client:
        with pytest.raises(OriginTimedOut) as raised:
            await get(client)
        assert raised.value.detail == "origin-timeout-total"


async def test_the_time_for_the_first_byte_runs_from_the_last_of_the_request(
    origin: ScriptedOrigin,
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b"x"
            await asyncio.sleep(0.1)

    origin.route("/", lambda _: [0.1, OK])
    async with client_of(origin, first_byte=0.3) as client:
        assert await body_of(await client.send(b"POST", b"/", HOST, slow(), 6)) == b"ok"


# -- repeating


TOO_IDLE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"])
@pytest.mark.parametrize(
    "end", [[CLOSE], [RESET], [TOO_IDLE, CLOSE], [b"left of the last answer", CLOSE]], ids=repr
)
async def test_an_idempotent_request_that_met_a_closing_connection_is_sent_once_more(
    origin: ScriptedOrigin, method: bytes, end: list[Step]
) -> None:
    origin.route("/warm", Answer())
    origin.route("/", lambda request: end if request.connection == 0 else Answer(body=b"ok"))
    async with client_of(origin) as client:
        await fetch(client, "/warm")
        response = await client.send(method, b"/", HOST)
        assert response.status == 200
        assert await body_of(response) == (b"" if method == b"HEAD" else b"ok")
    assert origin.counts["/"] == 2


@pytest.mark.parametrize(
    ("method", "body"),
    [
        pytest.param(b"POST", True, id="unsafe"),
        pytest.param(b"POST", False, id="unsafe, without a body"),
        pytest.param(b"BREW", False, id="of unknown meaning"),
        pytest.param(b"PUT", True, id="with a body"),
    ],
)
async def test_what_is_not_sent_again_meets_no_closing_connection(
    origin: ScriptedOrigin, method: bytes, body: bool
) -> None:
    origin.route("/warm", Answer())
    origin.route("/", lambda request: [CLOSE] if request.connection == 0 else Answer(body=b"ok"))
    async with client_of(origin) as client:
        await fetch(client, "/warm")
        content = pieces(b"x") if body else None
        response = await client.send(method, b"/", HOST, content, 1 if body else None)
        assert await body_of(response) == b"ok"
    assert origin.counts["/"] == 1


async def test_a_request_is_late_that_is_told_so_on_a_new_connection(
    origin: ScriptedOrigin,
) -> None:
    origin.route("/", [TOO_IDLE, CLOSE])
    async with client_of(origin) as client:
        assert (await get(client)).status == 408
    assert origin.counts["/"] == 1


async def test_the_second_time_a_request_meets_no_closing_connection(
    origin: ScriptedOrigin,
) -> None:
    """Not even where it has to wait for its turn, and others leave theirs meanwhile."""
    seen: set[int] = set()

    def once(request: OriginRequest) -> Answer | list[Step]:
        if request.connection in seen:
            return [CLOSE]
        seen.add(request.connection)
        return Answer(body=b"ok")

    origin.otherwise(once)
    async with client_of(origin, pool={"max_connections": 1}) as client:
        for _ in range(2):
            bodies = await asyncio.gather(*(fetch(client, f"/{n}") for n in range(10)))
            assert bodies == [b"ok"] * 10
    assert max(origin.counts.values()) <= 4


@pytest.mark.parametrize("method", [b"POST", b"PUT"])
async def test_a_body_is_not_sent_twice(origin: ScriptedOrigin, method: bytes) -> None:
    origin.route("/warm", Answer())
    origin.route("/", [CLOSE])
    async with client_of(origin, pool={"reuse_after_body": True}) as client:
        await fetch(client, "/warm")
        with pytest.raises(OriginDisconnected) as raised:
            await client.send(method, b"/", HOST, pieces(b"x"), 1)
        assert (raised.value.status, raised.value.detail) == (502, "origin-disconnected")
    assert origin.counts["/"] == 1


@pytest.mark.parametrize("end", [CLOSE, RESET], ids=repr)
async def test_a_new_connection_that_brings_nothing_is_not_tried_again(
    origin: ScriptedOrigin, end: Step
) -> None:
    origin.route("/", [end])
    async with client_of(origin) as client:
        with pytest.raises(OriginDisconnected):
            await get(client)
    assert origin.counts["/"] == 1


async def test_a_request_of_whose_answer_a_byte_has_come_is_not_repeated(
    origin: ScriptedOrigin,
) -> None:
    origin.route("/warm", Answer())
    origin.route("/", [b"H", CLOSE])
    async with client_of(origin) as client:
        await fetch(client, "/warm")
        with pytest.raises(OriginDisconnected):
            await get(client)
    assert origin.counts["/"] == 1


async def test_a_request_is_repeated_on_a_connection_of_its_own_and_only_once(
    origin: ScriptedOrigin,
) -> None:
    origin.route("/warm", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 0.1, b"ok"])
    origin.route("/", [CLOSE])
    async with client_of(origin) as client:
        await asyncio.gather(*(fetch(client, "/warm") for _ in range(5)))
        assert origin.connections == 5
        with pytest.raises(OriginDisconnected):
            await get(client)
    assert [request.connection >= 5 for request in origin.requests_for("/")] == [False, True]


async def test_cancelling_breaks_the_exchange_off(origin: ScriptedOrigin) -> None:
    async def until_gone(request: OriginRequest) -> list[Step]:
        ended.append(await request.reader.read())
        return []

    ended: list[bytes] = []
    origin.route("/", until_gone)
    async with client_of(origin, pool={"max_connections": 1}) as client:
        task = asyncio.create_task(get(client))
        await origin.seen("/")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await origin.quiet()
        assert ended == [b""]
        origin.route("/", Answer(body=b"ok"))
        assert await fetch(client) == b"ok"
