"""What goes through: every method, every byte, and how it ends when the origin fails."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trustme

from tests.conftest import StartEdge
from tests.kit import (
    CLOSE,
    RESET,
    Answer,
    EdgeProcess,
    MessageCut,
    OriginRequest,
    ScriptedOrigin,
)

MIB = 2**20
HUGE = 384 * MIB
"""Bytes of a body: more than may be stored, and far more than a worker may take for it."""


def echo(request: OriginRequest) -> Answer:
    return Answer(200, {"Cache-Control": "no-store", "X-Method": request.method}, request.body)


@pytest.mark.parametrize(
    "method",
    ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "MKCOL", "REPORT", "BREW"],
)
async def test_every_method_is_passed_on(
    edge: EdgeProcess, origin: ScriptedOrigin, method: str
) -> None:
    origin.otherwise(echo)
    async with await edge.connect() as connection:
        for body in (b"first", b"second"):
            sent = body if method != "GET" else None
            response = await connection.exchange(method, "/thing", body=sent)
            assert (response.status, response.field("x-method")) == (200, method)
            assert response.body == (sent or b"")


async def test_head_has_no_body_and_the_fields_of_get(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.route("/page", Answer(200, {"Cache-Control": "max-age=60"}, b"0123456789"))
    async with await edge.connect() as connection:
        for stored in (False, True):
            response = await connection.exchange("HEAD", "/page")
            assert (response.status, response.field("content-length")) == (200, "10")
            assert ("hit" in response.cache_status) is stored
            await connection.exchange("GET", "/page")
    assert [request.method for request in origin.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    "target",
    [
        "/%2f//a;b=c/../d/./e",
        "/a?",
        "/?",
        "/a?b=%7E&c=[d]&e={f}|g",
        "/%zz%",
        "//double//slash",
        "/caf\xe9?q=\xff\xfe",
        "/a?b=http://x.example/?y#".rstrip("#"),
        "/" + "x" * 8000,
    ],
    ids=lambda target: target[:30].encode("unicode_escape").decode(),
)
async def test_the_target_is_forwarded_byte_for_byte(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    origin.otherwise(echo)
    async with await edge.connect() as connection:
        assert (await connection.exchange("GET", target)).status == 200
    assert origin.requests[-1].target == target


async def test_absolute_form_goes_to_the_origin_in_origin_form(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """RFC 9112 3.2.2: its authority outranks Host."""
    origin.otherwise(echo)
    async with await edge.connect() as connection:
        response = await connection.exchange(
            "GET", "http://shop.example/a?b", {"Host": "other.example"}
        )
    assert response.status == 200
    seen = origin.requests[-1]
    assert (seen.target, seen.lines("host")) == ("/a?b", ["shop.example"])


async def test_hop_by_hop_fields_go_no_further(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    """RFC 9110 7.6.1, in both directions."""
    fields = {
        "Cache-Control": "no-store",
        "Connection": "X-Response-Hop, keep-alive",
        "Keep-Alive": "timeout=5",
        "X-Response-Hop": "1",
        "Proxy-Authenticate": "Basic",
        "X-Kept": "yes",
    }
    origin.route("/", Answer(200, fields, b"ok"))
    sent = {
        "Connection": "X-Hop, TE",
        "X-Hop": "1",
        "TE": "trailers",
        "Keep-Alive": "300",
        "Proxy-Connection": "keep-alive",
        "X-Kept": "yes",
    }
    response = await edge.get("/", fields=sent)
    seen = origin.requests[-1]
    for name in ("x-hop", "te", "keep-alive", "proxy-connection", "upgrade"):
        assert seen.field(name) is None, name
    assert seen.field("x-kept") == response.field("x-kept") == "yes"
    for name in ("x-response-hop", "keep-alive", "proxy-authenticate"):
        assert response.field(name) is None, name


async def test_the_origin_learns_who_asks(origin: ScriptedOrigin, edge: EdgeProcess) -> None:
    origin.otherwise(echo)
    lies = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https", "Forwarded": "for=6.6.6.6"}
    response = await edge.get("/", fields=lies | {"Host": "shop.example"})
    seen = origin.requests[-1]
    assert seen.lines("x-forwarded-for") == ["127.0.0.1"]
    assert seen.lines("x-forwarded-proto") == ["http"]
    assert seen.lines("x-forwarded-host") == ["shop.example"]
    assert seen.lines("forwarded") == ["for=127.0.0.1;host=shop.example;proto=http"]
    assert seen.lines("via") == ["1.1 edgeproxy"]
    assert response.field("via") == "1.1 edgeproxy"


async def test_a_trusted_proxy_is_believed(origin: ScriptedOrigin, start_edge: StartEdge) -> None:
    origin.otherwise(echo)
    edge = await start_edge(origin, config={"trusted_proxies": ["127.0.0.0/8"]})
    told = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    await edge.get("/", fields=told)
    seen = origin.requests[-1]
    assert seen.field("x-forwarded-for") == "203.0.113.9, 127.0.0.1"
    assert seen.field("x-forwarded-proto") == "https"


@pytest.mark.parametrize(
    ("host_header", "seen"),
    [("pass", "shop.example"), ("origin", None), ("fixed.example", "fixed.example")],
)
async def test_host_is_passed_on_or_replaced(
    origin: ScriptedOrigin, start_edge: StartEdge, host_header: str, seen: str | None
) -> None:
    origin.otherwise(echo)
    edge = await start_edge(origin, site={"host_header": host_header})
    await edge.get("/", fields={"Host": "shop.example"})
    assert origin.requests[-1].lines("host") == [seen or origin.authority]


async def test_nothing_of_one_reader_reaches_another(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """No cookie is kept, no redirect is followed, no body is decoded."""
    fields = {"Set-Cookie": "user=alice", "Cache-Control": "no-store", "Content-Encoding": "gzip"}
    origin.route("/login", Answer(302, fields | {"Location": "/home"}, b"not gzip at all"))
    response = await edge.get("/login")
    assert (response.status, response.body) == (302, b"not gzip at all")
    assert response.lines("set-cookie") == ["user=alice"]
    await edge.get("/login")
    assert origin.requests[-1].field("cookie") is None
    assert origin.requests[-1].field("accept-encoding") is None
    assert origin.counts["/home"] == 0


async def test_chunks_go_both_ways(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    def chunked(request: OriginRequest) -> Answer:
        return Answer(200, {"Cache-Control": "no-store"}, request.body, framing="chunked")

    origin.route("/", chunked)
    async with await edge.connect() as connection:
        await connection.send(
            b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\n\r\n"
        )
        response = await connection.response("POST")
    assert response.body == b"hello, world"
    assert response.field("transfer-encoding") == "chunked"


async def test_a_client_that_expects_continue_gets_it(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """RFC 9110 10.1.1: the client sends its body once it is told to."""
    origin.route("/", echo)
    async with await edge.connect() as connection:
        await connection.send(
            b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await connection.send(b"body")
        assert (await connection.response("POST")).body == b"body"


async def test_interim_responses_are_passed_on(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    """RFC 9110 15.2, RFC 8297."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>; rel=preload\r\n\r\n"
    final = b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nok"
    origin.route("/", [early, final])
    response = await edge.get("/")
    assert [head.field("link") for head in response.interims] == ["</s.css>; rel=preload"]
    assert response.body == b"ok"


async def test_server_sent_events_come_as_they_are_sent(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """The second event is sent only after the reader has the first."""
    received = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    origin.route("/events", [head, b"data: 1\n\n", received, b"data: 2\n\n", CLOSE])
    async with await edge.connect() as connection:
        await connection.request("GET", "/events")
        stream = await connection.start_response()
        assert await stream.read(1) == b"data: 1\n\n"
        received.set()
        assert await stream.read() == b"data: 2\n\n"


async def test_websockets_are_tunnelled(start_edge: StartEdge, origin: ScriptedOrigin) -> None:
    """A real client against a real server, with a megabyte each way."""

    edge = await start_edge(origin)

    async def server(request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        socket = aiohttp.web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            await socket.send_bytes(message.data[::-1])
        return socket

    app = aiohttp.web.Application()
    app.router.add_get("/socket", server)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    edge.write_config({"sites": {"default": {"origins": [{"url": f"http://127.0.0.1:{port}"}]}}})
    await edge.stop()
    await edge.start()
    data = os.urandom(MIB)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{edge.url}/socket", max_msg_size=0) as socket,
    ):
        for _ in range(3):
            await socket.send_bytes(data)
            assert await socket.receive_bytes() == data[::-1]
    await runner.cleanup()


async def test_an_upgrade_is_tunnelled_with_what_follows_it_at_once(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello"

    async def protocol(request: OriginRequest) -> AsyncIterator[bytes | object]:
        assert request.field("upgrade") == "x"
        yield switch
        line = await request.reader.readline()
        yield line.upper()
        yield CLOSE

    origin.route("/up", protocol)  # type: ignore[arg-type]
    async with await edge.connect() as connection:
        await connection.send(
            b"GET /up HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
        )
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert await connection.reader.readexactly(5) == b"hello"
        await connection.send(b"and back\n")
        assert await connection.reader.read() == b"AND BACK\n"


@pytest.mark.parametrize(
    ("script", "status", "detail"),
    [
        ([CLOSE], 502, "origin-protocol-error"),
        ([RESET], 502, "origin-protocol-error"),
        ([b"nonsense\r\n\r\n"], 502, "origin-protocol-error"),
        ([b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n"], 502, "origin-protocol-error"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"], 502, None),
    ],
    ids=["close", "reset", "nonsense", "nul", "two-lengths"],
)
async def test_an_origin_that_breaks_the_protocol_is_a_502(
    edge: EdgeProcess, origin: ScriptedOrigin, script: list[bytes], status: int, detail: str | None
) -> None:
    origin.route("/", script)
    response = await edge.get("/")
    assert response.status == status
    if detail is not None:
        assert str(response.cache_status["detail"]).startswith("origin-")
    assert len(response.body) < 200


async def test_an_origin_that_is_down_is_a_502(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    await origin.stop_listening()
    response = await edge.get("/")
    assert (response.status, response.cache_status["detail"]) == (502, "origin-unreachable")


async def test_an_origin_that_is_late_is_a_504(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin.route("/", Answer(200, hold=asyncio.Event()))
    edge = await start_edge(origin, site={"timeouts": {"first_byte": "0.2s"}})
    response = await edge.get("/")
    assert response.status == 504
    assert response.cache_status["detail"] == "origin-timeout-first-byte"


@pytest.mark.parametrize("cacheable", [True, False])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_cut_body_never_ends_cleanly(
    edge: EdgeProcess, origin: ScriptedOrigin, framing: str, cacheable: bool
) -> None:
    head = b"HTTP/1.1 200 OK\r\nCache-Control: %b\r\n" % (b"max-age=9" if cacheable else b"private")
    length = b"Content-Length: 100\r\n\r\nhalf"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    origin.route("/", [head + (length if framing == "length" else chunked), CLOSE])
    with pytest.raises(MessageCut):
        await edge.get("/")


async def test_the_next_origin_is_tried_when_one_is_down(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin.otherwise(echo)
    async with ScriptedOrigin() as gone:
        dead = gone.url
    edge = await start_edge(site={"origins": [{"url": dead}, {"url": origin.url}]})
    for _ in range(4):
        assert (await edge.get("/")).status == 200


async def test_tls_to_the_origin_is_verified(tmp_path: Path, start_edge: StartEdge) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("origin.example").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with ScriptedOrigin(tls=context) as secure:
        secure.otherwise(echo)
        for server_name, status in (("origin.example", 200), ("wrong.example", 502)):
            tls = {"ca_file": str(tmp_path / "ca.pem"), "server_name": server_name}
            edge = await start_edge(site={"origins": [{"url": secure.url, "tls": tls}]})
            assert (await edge.get("/")).status == status
            await edge.stop()


# -- huge bodies


def resident(pid: int) -> int:
    """Bytes of memory that the process has had resident at most."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


async def test_a_huge_body_comes_down_in_constant_memory(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    edge = await start_edge(origin)
    piece = os.urandom(MIB)

    async def large(_: OriginRequest) -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n\r\n" % HUGE
        for _ in range(HUGE // MIB):
            yield piece

    origin.route("/large", large)
    (worker,) = edge.pids()
    before = resident(worker)
    received, expected = 0, memoryview(piece * 2)
    async with await edge.connect() as connection:
        await connection.request("GET", "/large")
        stream = await connection.start_response()
        async for data in stream.pieces():
            at = received % MIB
            assert expected[at : at + len(data)] == data
            received += len(data)
    assert received == HUGE
    assert resident(worker) - before < 80 * MIB


async def test_a_huge_body_goes_up_in_constant_memory(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    edge = await start_edge(origin)
    piece = os.urandom(MIB)
    arrived = 0

    async def counting(request: OriginRequest) -> Answer:
        nonlocal arrived
        while data := await request.content.read_piece():
            arrived += len(data)
        return Answer(201, {}, b"done")

    origin.route("/upload", counting, stream=True)
    (worker,) = edge.pids()
    before = resident(worker)
    async with await edge.connect() as connection:
        await connection.send(
            b"PUT /upload HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % HUGE
        )
        for _ in range(HUGE // MIB):
            await connection.send(piece)
        assert (await connection.response("PUT")).status == 201
    assert arrived == HUGE
    assert resident(worker) - before < 80 * MIB


# -- what is refused


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /#frag HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ],
    ids=lambda value: value[:24].decode() if isinstance(value, bytes) else str(value),
)
async def test_malformed_requests_get_a_clear_refusal(
    edge: EdgeProcess, origin: ScriptedOrigin, request_bytes: bytes, status: int
) -> None:
    async with await edge.connect() as connection:
        await connection.send(request_bytes)
        response = await connection.response()
    assert response.status == status
    assert response.field("cache-status") is not None
    assert origin.requests == []
