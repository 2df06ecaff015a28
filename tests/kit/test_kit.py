"""The kit itself: a tool that lets a fault pass makes every test that uses it worthless."""

import asyncio
import os
import subprocess
import tomllib
from collections.abc import AsyncIterator

import pytest

from tests.kit import (
    CLOSE,
    RESET,
    Answer,
    Connection,
    MalformedMessage,
    MessageCut,
    OriginRequest,
    RedisServer,
    ScriptedOrigin,
    fetch,
)
from tests.kit.edge import pid_end
from tests.kit.ports import PortLease
from tests.kit.toml import merged, to_toml


async def test_an_answer_reaches_the_client_as_written(origin: ScriptedOrigin) -> None:
    origin.route("/a", Answer(203, [("X-A", "1"), ("x-a", "2")], b"body"))
    response = await fetch(origin.url + "/a")
    assert (response.status, response.body) == (203, b"body")
    assert response.lines("X-A") == ["1", "2"]
    assert response.field("x-a") == "1, 2"
    assert (await fetch(origin.url + "/none")).status == 404


async def test_requests_are_kept_as_they_came(origin: ScriptedOrigin) -> None:
    origin.route("/p?q=%2f", Answer())
    await fetch(origin.url + "/p?q=%2f", method="POST", fields=[("X-Y", "z")], body=b"abc")
    (request,) = origin.requests_for("/p?q=%2f")
    assert (request.method, request.body, request.field("x-y")) == ("POST", b"abc", "z")
    assert request.head.raw.startswith(b"POST /p?q=%2f HTTP/1.1\r\nHost: ")
    assert origin.counts == {"/p?q=%2f": 1}


async def test_one_connection_serves_many_requests(origin: ScriptedOrigin) -> None:
    origin.otherwise(lambda request: Answer(body=request.target.encode()))
    async with await Connection.open(origin.url) as connection:
        for target in ("/1", "/2"):
            assert (await connection.exchange("GET", target)).text == target
        assert (await connection.exchange("HEAD", "/3")).body == b""
        await connection.request("GET", "/4")
        await connection.request("GET", "/5")
        assert [(await connection.response()).text for _ in "45"] == ["/4", "/5"]
    await origin.quiet()
    assert origin.connections == 1


async def test_an_answer_is_held_until_its_signal(origin: ScriptedOrigin) -> None:
    go = asyncio.Event()
    origin.route("/held", Answer(body=b"late", hold=go))
    waiting = asyncio.create_task(fetch(origin.url + "/held"))
    await origin.seen("/held")
    assert not waiting.done()
    go.set()
    assert (await waiting).text == "late"


async def test_chunks_and_trailers(origin: ScriptedOrigin) -> None:
    chunked = Answer(framing="chunked", chunks=(b"ab", b"c"), trailers={"X-Sum": "3"})
    origin.route("/", chunked)
    response = await fetch(origin.url)
    assert (response.body, response.trailers) == (b"abc", ((b"X-Sum", b"3"),))


async def test_a_body_can_be_read_while_it_comes(origin: ScriptedOrigin) -> None:
    go = asyncio.Event()
    origin.route("/", [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc", go, b"def"])
    async with await Connection.open(origin.url) as connection:
        await connection.request("GET", "/")
        response = await connection.start_response()
        assert await response.read(3) == b"abc"
        go.set()
        assert await response.read() == b"def"


async def test_a_streaming_route_reads_the_body_itself(origin: ScriptedOrigin) -> None:
    async def echo(request: OriginRequest) -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        while piece := await request.content.read_piece():
            yield piece

    origin.route("/echo", lambda request: echo(request), stream=True)
    assert (await fetch(origin.url + "/echo", method="PUT", body=b"hello")).text == "hello"


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("script", "partial", "reset"),
    [
        ([OK + b"Content-Length: 9\r\n\r\nshort", CLOSE], b"short", False),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", CLOSE], b"hello", False),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", CLOSE], b"hel", False),
        ([OK + b"Content-Length: 9\r\n\r\n", 0.05, RESET], b"", True),
        ([OK + b"Content-Le", CLOSE], b"", False),
        ([CLOSE], b"", False),
    ],
    ids=["length", "between-chunks", "in-a-chunk", "reset", "head", "nothing"],
)
async def test_a_cut_is_no_end(
    origin: ScriptedOrigin, script: list[bytes], partial: bytes, reset: bool
) -> None:
    origin.route("/", script)
    with pytest.raises(MessageCut) as caught:
        await fetch(origin.url)
    assert (caught.value.partial, caught.value.reset) == (partial, reset)


async def test_close_framing_ends_in_good_order(origin: ScriptedOrigin) -> None:
    origin.route("/", Answer(body=b"all", framing="close"))
    async with await Connection.open(origin.url) as connection:
        assert (await connection.exchange("GET", "/")).body == b"all"
        assert await connection.ended() == "closed"


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"Content-Length: +1\r\n\r\nx",
        OK + b"Bad Name: 1\r\nContent-Length: 0\r\n\r\n",
        OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        OK + b"X: a\nY: b\r\nContent-Length: 0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_a_malformed_response_is_refused(origin: ScriptedOrigin, raw: bytes) -> None:
    origin.route("/", [raw])
    with pytest.raises(MalformedMessage):
        await fetch(origin.url)


async def test_a_malformed_request_is_complained_of() -> None:
    server = ScriptedOrigin()
    with pytest.raises(AssertionError, match="Content-Length"):
        async with server:
            connection = await Connection.open(server.url)
            await connection.send(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n")
            assert await connection.ended() == "closed"


async def test_a_stopped_origin_refuses_and_comes_back(origin: ScriptedOrigin) -> None:
    origin.route("/", Answer(body=b"here"))
    await origin.stop_listening()
    with pytest.raises(ConnectionRefusedError):
        await fetch(origin.url)
    await origin.start()
    assert (await fetch(origin.url)).text == "here"


async def test_cache_status_of_the_nearest_cache(origin: ScriptedOrigin) -> None:
    value = 'far; fwd=miss, edge; hit; ttl=-3; detail="a, b; c"'
    origin.route("/", Answer(fields={"Cache-Status": value}))
    response = await fetch(origin.url)
    assert response.cache_status == {"hit": True, "ttl": "-3", "detail": "a, b; c"}


def test_a_leased_port_is_given_to_nobody_else() -> None:
    with PortLease() as lease:
        assert lease.port not in {PortLease().port for _ in range(100)}


def test_toml_says_what_the_dictionary_says() -> None:
    table = {
        "listen": [{"address": "127.0.0.1:1", "tls": {"a": True}}],
        "workers": 2,
        "name": 'a "quoted" \\ é\n',
        "sites": {"default": {"ttl": {"max": 1.5}, "hosts": ["*.a.example", "b"]}, "b.c": {}},
    }
    assert tomllib.loads(to_toml(table)) == table
    assert tomllib.loads(to_toml({"a": None})) == {}


def test_merged_replaces_values_and_merges_tables() -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": 2}
    assert merged(base, {"a": {"c": [2]}, "e": 3}) == {"a": {"b": 1, "c": [2]}, "d": 2, "e": 3}
    assert base["a"] == {"b": 1, "c": [1]}


async def test_the_end_of_a_process_is_a_signal() -> None:
    process = subprocess.Popen(["sleep", "60"])
    gone = pid_end(process.pid)
    assert not gone.done()
    os.kill(process.pid, 9)
    async with asyncio.timeout(5):
        await gone
    assert process.wait() == -9


def test_redis_answers(redis_server: RedisServer) -> None:
    assert redis_server.command("SET", "key", "value") == b"+OK\r\n"
    assert redis_server.command("DBSIZE") == b":1\r\n"
