"""Request bodies on their way to the origin, beside the response that may come meanwhile."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from edgeproxy.proxy.errors import OriginDisconnected, OriginTimedOut
from edgeproxy.proxy.upstream import OriginClient
from tests.kit import CLOSE, Answer, MessageCut, OriginRequest, ScriptedOrigin
from tests.kit.origin import Step
from tests.proxy.origin_client import (
    HOST,
    Resident,
    body_of,
    client_of,
    fetch,
    pieces,
    until_steady,
)

pytestmark = pytest.mark.both_loops

KEEP = {"reuse_after_body": True}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EXPECTING = HOST.plus((b"Expect", b"100-continue"))


@pytest.mark.parametrize(
    ("parts", "length", "framing"),
    [
        pytest.param([b"ab", b"", b"c"], 3, ("content-length", "3"), id="known length"),
        pytest.param([b"ab", b"", b"c"], None, ("transfer-encoding", "chunked"), id="chunks"),
        pytest.param([], None, ("transfer-encoding", "chunked"), id="no chunk"),
        pytest.param([], 0, ("content-length", "0"), id="length zero"),
    ],
)
async def test_a_body_goes_out_whole(
    origin: ScriptedOrigin, parts: list[bytes], length: int | None, framing: tuple[str, str]
) -> None:
    origin.route("/", Answer(body=b"ok"))
    async with client_of(origin, pool=KEEP) as client:
        for _ in range(2):
            response = await client.send(b"POST", b"/", HOST, pieces(*parts), length)
            assert await body_of(response) == b"ok"
    for request in origin.requests:
        assert request.body == b"".join(parts)
        assert request.field(framing[0]) == framing[1]
        assert len(request.head.pairs) == 2
    assert origin.connections == 1


async def test_a_connection_that_took_a_body_takes_nothing_else(origin: ScriptedOrigin) -> None:
    """Nobody can tell whether the origin has read it; what it left would be the next request."""
    origin.route("/", Answer(body=b"ok"))
    async with client_of(origin) as client:
        for _ in range(2):
            response = await client.send(b"POST", b"/", HOST, pieces(b"abc"), 3)
            assert await body_of(response) == b"ok"
            assert await fetch(client) == b"ok"
            assert await fetch(client) == b"ok"
    # Each body had its own, and the plain requests theirs.
    assert [request.connection for request in origin.requests] == [0, 1, 1, 2, 1, 1]


async def test_an_empty_body_may_be_said_to_be_empty(origin: ScriptedOrigin) -> None:
    origin.route("/", Answer())
    async with client_of(origin) as client:
        (await client.send(b"POST", b"/", HOST, None, 0)).release()
        (await client.send(b"POST", b"/", HOST, None, None)).release()
    assert [request.field("content-length") for request in origin.requests] == ["0", None]


async def test_what_an_origin_says_before_it_resets_the_connection_is_heard() -> None:
    """It refuses a body, and closes with that unread: the edge may find out by sending."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)

        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            peer, _ = server.accept()
            peer.sendall(b"HTTP/1.1 413 Too\r\nContent-Length: 3\r\n\r\nbig")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            yield b"b"
            yield b"c"

        async with client_of(f"http://127.0.0.1:{server.getsockname()[1]}") as client:
            response = await client.send(b"POST", b"/", HOST, body(), 3)
            assert (response.status, await body_of(response)) == (413, b"big")


@pytest.mark.parametrize("length", [3, None])
async def test_a_body_whose_source_fails_is_cut_at_the_origin(
    origin: ScriptedOrigin, length: int | None
) -> None:
    cuts: list[bytes] = []

    async def broken() -> AsyncIterator[bytes]:
        yield b"ab"
        await origin.seen("/")
        raise ConnectionResetError("the reader is gone")

    async def read(request: OriginRequest) -> Answer:
        try:
            await request.content.read()
        except MessageCut as cut:
            cuts.append(cut.partial)
        return Answer()

    origin.route("/", read, stream=True)
    async with client_of(origin) as client:
        with pytest.raises(ConnectionResetError, match="reader"):
            await client.send(b"PUT", b"/", HOST, broken(), length)
        await origin.quiet()
    assert cuts == [b"ab"]


@pytest.mark.parametrize("length", [1, 4])
async def test_a_body_of_another_length_than_it_said_is_no_request(
    origin: ScriptedOrigin, length: int
) -> None:
    origin.route("/", lambda _: [0.1, OK], stream=True)
    async with client_of(origin) as client:
        with pytest.raises(ConnectionError, match="than it said"):
            await client.send(b"PUT", b"/", HOST, pieces(b"ab", b"c"), length)
        assert await _answers(origin, client)
    origin.complaints.clear()


async def _answers(origin: ScriptedOrigin, client: OriginClient) -> bool:
    origin.route("/next", Answer(body=b"right"))
    return await fetch(client, "/next") == b"right"


async def test_a_refusal_stops_the_body_and_costs_the_connection(origin: ScriptedOrigin) -> None:
    taken: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            taken.append(1)
            yield bytes(65_536)
            await asyncio.sleep(0)

    async def refuse(request: OriginRequest) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large"
        with pytest.raises(MessageCut):
            await request.content.read()

    origin.route("/", lambda request: refuse(request), stream=True)
    async with client_of(origin) as client:
        response = await client.send(b"POST", b"/", HOST, endless(), 1 << 40)
        so_far = len(taken)
        assert (response.status, await body_of(response)) == (413, b"too large")
        await asyncio.sleep(0.05)
        assert len(taken) == so_far
        assert await _answers(origin, client)
    assert origin.connections == 2
    origin.complaints.clear()


async def test_a_response_may_run_beside_the_body(origin: ScriptedOrigin) -> None:
    async def echo(request: OriginRequest) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        while piece := await request.content.read_piece():
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
        yield b"0\r\n\r\n"

    async def talk() -> AsyncIterator[bytes]:
        for word in (b"one", b"two", b"three"):
            yield word
            heard = await said.get()
            assert heard == word

    said: asyncio.Queue[bytes] = asyncio.Queue()
    origin.route("/", lambda request: echo(request), stream=True)
    async with client_of(origin, pool=KEEP) as client:
        response = await client.send(b"POST", b"/", HOST, talk())
        while chunk := await response.read_chunk():
            said.put_nowait(chunk)
        assert await _answers(origin, client)
    assert origin.connections == 1


async def test_an_early_answer_that_is_no_refusal_does_not_cut_the_body(
    origin: ScriptedOrigin,
) -> None:
    got: list[bytes] = []

    async def accept(request: OriginRequest) -> AsyncIterator[Step]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        got.append(await request.content.read())
        yield b"2\r\nok\r\n0\r\n\r\n"

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x"
            await asyncio.sleep(0.1)

    origin.route("/", lambda request: accept(request), stream=True)
    async with client_of(origin, pool=KEEP, between_bytes=0.25) as client:
        assert await body_of(await client.send(b"POST", b"/", HOST, slow(), 4)) == b"ok"
        assert await _answers(origin, client)
    assert got == [b"xxxx"]
    assert origin.connections == 1


async def test_a_response_that_is_over_first_waits_for_the_body(origin: ScriptedOrigin) -> None:
    got: list[bytes] = []

    async def accept(request: OriginRequest) -> AsyncIterator[Step]:
        yield OK
        got.append(await request.content.read())

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x"
            await asyncio.sleep(0.05)

    origin.route("/", lambda request: accept(request), stream=True)
    async with client_of(origin) as client:
        assert await body_of(await client.send(b"POST", b"/", HOST, slow(), 4)) == b"ok"
        assert await _answers(origin, client)
    assert got == [b"xxxx"]
    # Another origin might have taken the rest of the body for a request.
    assert origin.connections == 2


async def test_an_origin_that_takes_no_more_is_late(origin: ScriptedOrigin) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65_536)

    origin.route("/", lambda _: [3.0], stream=True)
    async with client_of(origin, between_bytes=0.2) as client:
        with pytest.raises(OriginTimedOut) as raised:
            await client.send(b"POST", b"/", HOST, endless())
        assert raised.value.stage == "between-bytes"


async def test_an_origin_that_closes_in_the_middle_of_a_body_is_disconnected(
    origin: ScriptedOrigin,
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(65_536)
            await asyncio.sleep(0)

    origin.route("/", [CLOSE], stream=True)
    async with client_of(origin) as client:
        with pytest.raises(OriginDisconnected):
            await client.send(b"POST", b"/", HOST, endless())


async def test_a_slow_origin_slows_the_source_down(origin: ScriptedOrigin) -> None:
    taken: list[int] = []
    go_on = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        for _ in range(1000):
            taken.append(1)
            yield bytes(65_536)

    async def later(request: OriginRequest) -> Answer:
        await go_on.wait()
        return Answer(body=b"%d" % len(await request.content.read()))

    origin.route("/", later, stream=True)
    async with client_of(origin) as client:
        sending = asyncio.create_task(client.send(b"PUT", b"/", HOST, source(), 1000 << 16))
        assert await until_steady(taken) < 500
        go_on.set()
        assert await body_of(await sending) == b"%d" % (1000 << 16)


@pytest.mark.parametrize("length", [1600 << 16, None])
async def test_a_hundred_megabytes_take_no_memory_on_their_way_up(
    origin: ScriptedOrigin, length: int | None
) -> None:
    resident = Resident()

    async def source() -> AsyncIterator[bytes]:
        for _ in range(1600):
            yield bytes(65_536)
            resident.look()

    async def count(request: OriginRequest) -> Answer:
        size = 0
        while piece := await request.content.read_piece():
            size += len(piece)
        return Answer(body=b"%d" % size)

    origin.route("/", count, stream=True)
    async with client_of(origin) as client:
        response = await client.send(b"PUT", b"/", HOST, source(), length)
        assert await body_of(response) == b"%d" % (1600 << 16)
    assert resident.growth < 16 << 20


# -- Expect: 100-continue


async def test_a_body_that_is_to_be_asked_for_waits(origin: ScriptedOrigin) -> None:
    go_on = asyncio.Event()
    begun: list[bool] = []

    async def source() -> AsyncIterator[bytes]:
        begun.append(go_on.is_set())
        yield b"abc"

    async def ask(request: OriginRequest) -> AsyncIterator[Step]:
        await asyncio.sleep(0.1)
        go_on.set()
        yield b"HTTP/1.1 100 Continue\r\n\r\n"
        assert await request.content.read() == b"abc"
        yield OK

    async def never(*_: object) -> None:
        raise AssertionError("100 (Continue) is for whoever sends the body")

    origin.route("/", lambda request: ask(request), stream=True)
    async with client_of(origin) as client:
        response = await client.send(b"PUT", b"/", EXPECTING, source(), 3, on_interim=never)
        assert await body_of(response) == b"ok"
    assert begun == [True]


async def test_a_body_that_is_refused_is_never_asked_for(origin: ScriptedOrigin) -> None:
    async def source() -> AsyncIterator[bytes]:
        raise AssertionError("nobody wants it")
        yield b""

    origin.route("/", Answer(417), stream=True)
    async with client_of(origin) as client:
        assert (await client.send(b"PUT", b"/", EXPECTING, source(), 3)).status == 417


async def test_an_origin_that_knows_no_100_gets_the_body_after_a_while(
    origin: ScriptedOrigin,
) -> None:
    async def mute(request: OriginRequest) -> Answer:
        return Answer(body=await request.content.read())

    origin.route("/", mute, stream=True)
    async with client_of(origin) as client:
        response = await client.send(b"PUT", b"/", EXPECTING, pieces(b"abc"), 3)
        assert await body_of(response) == b"abc"
