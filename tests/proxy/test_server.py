"""The public port over real connections, under both event loops: what is taken, what is refused."""

import asyncio
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import trustme

from edgeproxy.proxy import lingering, protocol
from edgeproxy.proxy.body import RequestBodyLate, content_length, request_body
from edgeproxy.proxy.incoming import Incoming
from edgeproxy.proxy.wire import Reply, ResponseWriter
from edgeproxy.semantics.errors import BadRequest
from edgeproxy.semantics.fields import Fields
from tests.kit import Connection, MessageCut, Response
from tests.proxy.reader_side import PATIENCE, Served, echo, hello, serving, with_writer

pytestmark = pytest.mark.both_loops


HOST = b"Host: shop.example\r\n"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(echo) as echoing:
        yield echoing


class Held:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, request: Incoming) -> Reply:
        self.begun.set()
        await self.go_on.wait()
        return await hello(request)


async def closed(connection: Connection) -> str:
    return await asyncio.wait_for(connection.ended(), PATIENCE)


async def answer_to(url: str, *pieces: bytes) -> Response:
    """The answer to these bytes, after which the server must close the connection."""
    async with await Connection.open(url) as connection:
        for piece in pieces:
            await connection.send(piece)
        response = await asyncio.wait_for(connection.response(), PATIENCE)
        assert await closed(connection) == "closed"
        return response


# -- what is taken


@pytest.mark.parametrize(
    "target",
    ["/", "/%2f//a;b/../c", "/?", "/a?b=%zz&&", "/ä?ö=ü", "/\udcff", "*"],
    ids=ascii,
)
async def test_the_target_is_handed_on_as_it_was_sent(served: Served, target: str) -> None:
    sent = target.encode("utf-8", "surrogateescape")
    async with await Connection.open(served.url) as connection:
        await connection.send(b"OPTIONS %b HTTP/1.1\r\n%b\r\n" % (sent, HOST))
        assert (await connection.response()).body == b"OPTIONS %b " % sent


@pytest.mark.parametrize(
    "method",
    ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PURGE", "BREW", "LINK", "PROPFIND",
     "DESCRIBE", "PRI", "get", "M-SEARCH", "!#$%&'*+.^_`|~"],
)  # fmt: skip
@pytest.mark.parametrize("framing", ["none", "length", "chunked"])
async def test_any_method_is_taken_with_any_body(served: Served, method: str, framing: str) -> None:
    fields, body = {
        "none": (b"", b""),
        "length": (b"Content-Length: 4\r\n", b"body"),
        "chunked": (b"Transfer-Encoding: chunked\r\n", b"4\r\nbody\r\n0\r\n\r\n"),
    }[framing]
    request = b"%b /x HTTP/1.1\r\n%b%b\r\n%b" % (method.encode(), HOST, fields, body)
    async with await Connection.open(served.url) as connection:
        for _ in range(2):
            await connection.send(request)
            response = await connection.response()
            expected = b"" if framing == "none" else b"body"
            assert response.body == b"%b /x %b" % (method.encode(), expected)


async def test_repeated_fields_keep_case_and_order(served: Served) -> None:
    seen: list[tuple[bytes, bytes]] = []

    @with_writer
    async def note(request: Incoming, writer: ResponseWriter) -> None:
        seen.extend(request.fields)
        await writer.start(204, b"", Fields(), None)
        await writer.finish()

    async with serving(note) as noting, await Connection.open(noting.url) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nhOST: a\r\nX-A: 1 \r\nx-a:\t\xff\r\nX-B:\r\n\r\n")
        assert (await connection.response()).status == 204
    assert seen == [(b"hOST", b"a"), (b"X-A", b"1"), (b"x-a", b"\xff"), (b"X-B", b"")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize(
    ("body", "content"),
    [
        pytest.param(b"5\r\nhello\r\n0\r\n\r\n", b"hello", id="one chunk"),
        pytest.param(b"1\r\na\r\n02\r\nbc\r\n0\r\n\r\n", b"abc", id="several chunks"),
        pytest.param(b"0\r\n\r\n", b"", id="empty"),
        pytest.param(b"000\r\n\r\n", b"", id="many zeros"),
        pytest.param(b"3;a=b;c=\"d\"\r\nabc\r\n0;e\r\n\r\n", b"abc", id="extensions"),
        pytest.param(b"A\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n" * 2, id="lookalike"),
    ],
)  # fmt: skip
async def test_a_chunked_body_is_read_however_it_is_cut(
    served: Served, body: bytes, content: bytes, size: int
) -> None:
    head = b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n" % HOST
    wire = (head + body) * 2 + b"GET /next HTTP/1.1\r\n%b\r\n" % HOST
    async with await Connection.open(served.url) as connection:
        for start in range(0, len(wire), size):
            await connection.send(wire[start : start + size])
        for _ in range(2):
            assert (await connection.response()).body == b"POST / " + content
        assert (await connection.response()).body == b"GET /next "


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_trailers_are_no_fields_of_the_next_request(served: Served, size: int) -> None:
    """The parser takes them for that, so the connection ends with the answer."""
    wire = b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n" % HOST
    wire += b"3\r\nabc\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n"
    wire += b"GET /next HTTP/1.1\r\n%b\r\n" % HOST
    async with await Connection.open(served.url) as connection:
        for start in range(0, len(wire), size):
            await connection.send(wire[start : start + size])
        assert (await connection.response()).body == b"POST / abc"
        assert await closed(connection) == "closed"


async def test_the_length_of_a_body_is_known_where_it_was_given(served: Served) -> None:
    @with_writer
    async def tell(request: Incoming, writer: ResponseWriter) -> None:
        async for _ in request_body(request):
            pass
        text = str(content_length(request)).encode()
        await writer.start(200, b"OK", Fields(), len(text))
        await writer.write(text)
        await writer.finish()

    async with serving(tell) as telling, await Connection.open(telling.url) as connection:
        assert (await connection.exchange("POST", "/", body=b"four")).body == b"4"
        assert (await connection.exchange("POST", "/", body=b"")).body == b"0"
        assert (await connection.exchange("GET", "/")).body == b"None"
        chunked = {"Transfer-Encoding": "chunked"}
        assert (await connection.exchange("PUT", "/", chunked, b"0\r\n\r\n")).body == b"None"


async def test_a_compressed_body_is_not_decompressed(served: Served) -> None:
    async with await Connection.open(served.url) as connection:
        response = await connection.exchange("PUT", "/", {"Content-Encoding": "gzip"}, b"not gzip")
        assert response.body == b"PUT / not gzip"


async def test_empty_lines_before_a_request_are_passed_over(served: Served) -> None:
    async with await Connection.open(served.url) as connection:
        for _ in range(2):
            await connection.send(b"\r\n\r\nGET / HTTP/1.1\r\n%b\r\n\r\n" % HOST)
            assert (await connection.response()).body == b"GET / "


async def test_an_upgrade_that_is_not_granted_is_a_request_like_any_other(served: Served) -> None:
    async with await Connection.open(served.url) as connection:
        for protocol in ("websocket", "foo"):
            fields = {"Connection": "upgrade", "Upgrade": protocol}
            for body in (None, b"body"):
                response = await connection.exchange("GET", "/", fields, body)
                assert response.body == b"GET / " + (body or b"")


# -- one after the other


async def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    request = b"BREW /%d HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc"
    async with await Connection.open(served.url) as connection:
        await connection.send(b"".join(request % number for number in range(100)))
        for number in range(100):
            assert (await connection.response()).body == b"BREW /%d abc" % number


async def test_pipelined_requests_beyond_what_is_buffered_wait() -> None:
    held = Held()
    request = b"GET / HTTP/1.1\r\n" + HOST + b"X-Long: " + b"x" * 60_000 + b"\r\n\r\n"
    async with serving(held) as served, await Connection.open(served.url) as connection:
        sending = asyncio.create_task(connection.send(request * 500))
        await asyncio.wait_for(held.begun.wait(), PATIENCE)
        await asyncio.wait([sending], timeout=0.3)
        assert not sending.done()
        held.go_on.set()
        for _ in range(500):
            assert (await connection.response()).body == b"hello"
        await sending


async def test_a_malformed_request_does_not_take_the_one_before_it_along(served: Served) -> None:
    async with await Connection.open(served.url) as connection:
        await connection.send(b"GET / HTTP/1.1\r\n%b\r\nGARBAGE\r\n\r\n" % HOST)
        assert (await connection.response()).body == b"GET / "
        assert (await connection.response()).status == 400
        assert await closed(connection) == "closed"


async def test_a_request_is_not_begun_before_the_one_before_it_is_answered() -> None:
    under_way, most = 0, 0

    @with_writer
    async def count(request: Incoming, writer: ResponseWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        await writer.start(204, b"", Fields(), None)
        await writer.finish()

    async with serving(count) as counting, await Connection.open(counting.url) as connection:
        await connection.send(b"GET / HTTP/1.1\r\n%b\r\n" % HOST * 10)
        for _ in range(10):
            await connection.response()
    assert most == 1


# -- the end of a connection


@pytest.mark.parametrize(
    ("version", "fields", "kept"),
    [
        ("1.1", b"", True),
        ("1.1", b"Connection: close\r\n", False),
        ("1.1", b"Connection: foo, Close\r\n", False),
        ("1.0", b"", False),
        ("1.0", b"Connection: keep-alive\r\n", True),
    ],
)
async def test_a_connection_lasts_as_long_as_the_client_wants(
    served: Served, version: str, fields: bytes, kept: bool
) -> None:
    request = b"GET / HTTP/%b\r\n%b%b\r\n" % (version.encode(), HOST, fields)
    async with await Connection.open(served.url) as connection:
        await connection.send(request)
        response = await connection.response()
        expected = {("1.1", True): None, ("1.0", True): "keep-alive"}
        assert response.field("Connection") == expected.get((version, kept), "close")
        if kept:
            await connection.send(request)
            assert (await connection.response()).status == 200
        else:
            assert await closed(connection) == "closed"


async def test_an_idle_connection_is_closed() -> None:
    async with (
        serving(echo, keepalive_timeout=0.05) as served,
        await Connection.open(served.url) as connection,
    ):
        await connection.exchange("GET", "/")
        assert await closed(connection) == "closed"


async def test_a_connection_that_is_used_again_is_not_idle() -> None:
    async with (
        serving(echo, keepalive_timeout=1.0) as served,
        await Connection.open(served.url) as connection,
    ):
        for _ in range(3):
            await connection.exchange("GET", "/")
            await asyncio.sleep(0.4)
        assert (await connection.exchange("GET", "/")).status == 200


async def test_a_connection_without_any_request_is_closed_without_a_word() -> None:
    async with (
        serving(echo, header_timeout=0.05) as served,
        await Connection.open(served.url) as connection,
    ):
        assert await closed(connection) == "closed"


async def test_an_answer_before_the_end_of_the_body_reaches_a_client_that_goes_on_sending() -> None:
    async with serving(hello) as served, await Connection.open(served.url) as connection:
        await connection.send(b"POST / HTTP/1.1\r\n%bContent-Length: 100000000\r\n\r\n" % HOST)
        response = await connection.response()
        assert (response.body, response.field("Connection")) == (b"hello", "close")
        await connection.send(bytes(4_000_000))
        assert await closed(connection) == "closed"


async def test_an_answer_before_the_end_of_the_body_frees_a_client_that_is_held_back() -> None:
    held = Held()
    async with serving(held) as served, await Connection.open(served.url) as connection:
        await connection.send(b"POST / HTTP/1.1\r\n%bContent-Length: 100000000\r\n\r\n" % HOST)
        sending = asyncio.create_task(connection.send(bytes(30_000_000)))
        await asyncio.wait([sending], timeout=0.3)
        assert not sending.done()
        held.go_on.set()
        assert (await connection.response()).body == b"hello"
        await asyncio.wait_for(sending, lingering.LINGER)
        assert await closed(connection) == "closed"


async def test_a_client_that_never_closes_is_left_alone_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lingering, "LINGER", 0.1)
    async with serving(hello) as served, await Connection.open(served.url) as connection:
        await connection.send(b"GET / HTTP/1.1\r\n%bConnection: close\r\n\r\n" % HOST)
        assert (await connection.response()).body == b"hello"
        await asyncio.wait_for(served.server.drained(), PATIENCE)
        assert served.server.open_connections == 0


@pytest.mark.parametrize(
    ("requests", "answers"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n%b\r\n" % HOST, 1, id="GET"),
        pytest.param(b"GET / HTTP/1.1\r\n%b\r\n" % HOST * 3, 3, id="pipelined"),
        pytest.param(
            b"POST / HTTP/1.1\r\n%bContent-Length: 3\r\n\r\nabc" % HOST, 1, id="with-a-body"
        ),
        pytest.param(b"GET / HTTP/1.1\r\n%b\r\nGET / HT" % HOST, 1, id="half-a-request-behind-it"),
    ],
)
async def test_a_client_that_has_ended_its_own_direction_is_answered(
    requests: bytes, answers: int
) -> None:
    held = Held()
    async with serving(held) as served, await Connection.open(served.url) as connection:
        await connection.send(requests)
        await asyncio.wait_for(held.begun.wait(), PATIENCE)
        connection.writer.write_eof()
        # Nothing tells that the end has come in.
        await asyncio.sleep(0.05)
        held.go_on.set()
        for _ in range(answers):
            response = await asyncio.wait_for(connection.response(), PATIENCE)
            assert response.body == b"hello"
        assert await closed(connection) == "closed"
        await asyncio.wait_for(served.server.drained(), PATIENCE)


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HTTP/1.1\r\nHo", id="half-a-head"),
        pytest.param(b"POST / HTTP/1.1\r\n%bContent-Length: 9\r\n\r\nabc" % HOST, id="half-a-body"),
    ],
)
async def test_a_client_that_can_ask_no_more_is_not_waited_for(begun: bytes) -> None:
    async with serving(echo) as served, await Connection.open(served.url) as connection:
        await connection.send(begun)
        connection.writer.write_eof()
        assert await closed(connection) == "closed"
        await asyncio.wait_for(served.server.drained(), PATIENCE)


# -- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_all_of_it_goes_over_tls_too(authority: trustme.CA) -> None:
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    async with serving(hello, tls=server_side, body_idle_timeout=1.0) as served:
        async with await Connection.open(served.url, tls=client_side) as connection:
            for _ in range(2):
                assert (await connection.exchange("BREW", "/", body=b"x")).body == b"hello"
            response = await connection.exchange("GET", "/", {"Connection": "close"})
            assert response.body == b"hello"
            assert await closed(connection) == "closed"
        async with await Connection.open(served.url, tls=client_side) as connection:
            await connection.send(b"POST / HTTP/1.1\r\n%bContent-Length: 100000\r\n\r\n" % HOST)
            assert (await connection.response()).body == b"hello"
            await connection.send(bytes(1000))
            assert await closed(connection) == "closed"
        async with await Connection.open(served.url, tls=client_side) as connection:
            await connection.send(b"GARBAGE\r\n")
            assert (await connection.response()).status == 400
            assert await closed(connection) == "closed"


# -- what is refused


def heads() -> list[object]:
    get = b"GET / HTTP/1.1\r\n"
    post = b"POST / HTTP/1.1\r\n" + HOST
    many = b"".join(b"X-%d: x\r\n" % number for number in range(128))
    table: dict[str, tuple[bytes, int, str]] = {
        "9112 3: no version": (b"GET /\r\n\r\n", 400, "bad-request-line"),
        "9112 3: no method": (b" / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad-request-line"),
        "9112 3: two spaces": (b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad-request-line"),
        "9112 3: space behind": (b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n", 400, "bad-request-line"),
        "9110 5.6.2: method no token": (b"G@T / HTTP/1.1\r\n" + HOST, 400, "bad-request-line"),
        "control in the target": (b"GET /\x01 HTTP/1.1\r\n" + HOST, 400, "bad-request-line"),
        "lower-case version": (b"GET / http/1.1\r\n" + HOST, 400, "bad-request-line"),
        "two-digit version": (b"GET / HTTP/1.10\r\n" + HOST, 400, "bad-request-line"),
        "TLS": (b"\x16\x03\x01\x02\x00\x01", 400, "bad-request-line"),
        "2.0": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505, "version-not-supported"),
        "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version-not-supported"),
        "0.9": (b"GET / HTTP/0.9\r\n\r\n", 505, "version-not-supported"),
        "1.2": (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 505, "version-not-supported"),
        "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n", 405, "method-not-allowed"),
        "TRACE": (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 405, "method-not-allowed"),
        "9112 3.2: no Host": (get + b"\r\n", 400, "bad-request"),
        "9112 3.2: two Hosts": (get + HOST + HOST + b"\r\n", 400, "bad-request"),
        "9112 5.1: space before colon": (get + HOST + b"X : 1\r\n\r\n", 400, "bad-request"),
        "9112 5.1: no colon": (get + HOST + b"X\r\n\r\n", 400, "bad-request"),
        "9112 5.2: folded line": (get + HOST + b"X: 1\r\n 2\r\n\r\n", 400, "bad-request"),
        "9110 5.5: NUL": (get + HOST + b"X: a\0b\r\n\r\n", 400, "bad-request"),
        "9110 5.5: bare CR": (get + HOST + b"X: a\rb\r\n\r\n", 400, "bad-request"),
        "9112 2.2: bare LF": (get + b"Host: a\nX: b\r\n\r\n", 400, "bad-request"),
        "9112 2.2: bare LF at the end": (get + b"Host: a\n\n", 400, "bad-request"),
        "9112 2.2: bare LF, then CRLF": (get + b"Host: a\n\r\n", 400, "bad-request"),
        "9112 2.2: bare LF first": (b"GET / HTTP/1.1\n" + HOST, 400, "bad-request-line"),
        "empty name": (get + HOST + b": 1\r\n\r\n", 400, "bad-request"),
        "9112 6.3: both framings": (
            post + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad-request",
        ),
        "9112 6.3: two lengths": (
            post + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n", 400, "bad-request",
        ),
        "9110 8.6: list": (post + b"Content-Length: 3, 3\r\n\r\n", 400, "bad-request"),
        "9110 8.6: sign": (post + b"Content-Length: +3\r\n\r\n", 400, "bad-request"),
        "9110 8.6: negative": (post + b"Content-Length: -3\r\n\r\n", 400, "bad-request"),
        "9110 8.6: hexadecimal": (post + b"Content-Length: 0x3\r\n\r\n", 400, "bad-request"),
        "9110 8.6: empty": (post + b"Content-Length:\r\n\r\n", 400, "bad-request"),
        "9110 15.5.14: huge": (
            post + b"Content-Length: 18446744073709551615\r\n\r\n", 413, "body-too-large",
        ),
        "9112 6.1: unknown coding": (
            post + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "transfer-encoding-unknown",
        ),
        "9112 6.3: not chunked last": (
            post + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400, "bad-request",
        ),
        "9112 6.1: empty coding": (
            post + b"Transfer-Encoding:\r\n\r\n", 501, "transfer-encoding-unknown",
        ),
        "9112 6.1: in HTTP/1.0": (
            b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", 400,
            "transfer-encoding-in-http10",
        ),
        "6585 5: too many fields": (get + HOST + many + b"\r\n", 431, "too-many-fields"),
        "6585 5: too long": (get + HOST + b"X: " + b"x" * 4096 + b"\r\n\r\n", 431,
                             "head-too-large"),
        "6585 5: never-ending": (get + HOST + b"X: " + b"x" * 4096, 431, "head-too-large"),
        "15.5.15: target too long": (
            b"GET /" + b"x" * 4096 + b" HTTP/1.1\r\n\r\n", 414, "target-too-long",
        ),
        "15.5.15: never-ending": (b"GET /" + b"x" * 4096, 414, "target-too-long"),
    }  # fmt: skip
    return [pytest.param(*row, id=name) for name, row in table.items()]


@pytest.mark.parametrize(("head", "status", "detail"), heads())
async def test_what_is_no_request_is_answered_and_the_connection_closed(
    head: bytes, status: int, detail: str
) -> None:
    called = False

    async def handle(request: Incoming) -> Reply:
        nonlocal called
        called = True
        return await hello(request)

    async with serving(handle, head_bytes=4096, max_fields=128) as served:
        response = await answer_to(served.url, head)
    assert not called
    assert (response.status, response.version) == (status, "1.1")
    assert response.field("Cache-Status") == f"edgeproxy; detail={detail}"
    assert response.field("Connection") == "close"
    assert response.field("Content-Type") == "text/plain; charset=utf-8"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", response.field("Date") or "")
    assert response.text.startswith(f"{status} ")
    assert ("Allow" in {name.decode() for name, _ in response.head.pairs}) == (status == 405)


async def test_a_refusal_of_head_has_no_body(served: Served) -> None:
    async with await Connection.open(served.url) as connection:
        await connection.send(b"HEAD / HTTP/1.1\r\n\r\n")
        assert (await connection.response("HEAD")).status == 400
        assert await closed(connection) == "closed"


async def test_a_head_within_the_limit_is_taken_to_the_byte() -> None:
    head = b"GET / HTTP/1.1\r\n" + HOST + b"X: "
    async with serving(echo, head_bytes=4096) as served:
        fill = b"x" * (4096 - len(head) - 4)
        async with await Connection.open(served.url) as connection:
            await connection.send(head + fill + b"\r\n\r\n")
            assert (await connection.response()).status == 200
        assert (await answer_to(served.url, head + fill + b"x\r\n\r\n")).status == 431


async def test_as_many_fields_as_are_allowed_are_taken() -> None:
    async with (
        serving(echo, max_fields=3) as served,
        await Connection.open(served.url) as connection,
    ):
        two = [("X", "1"), ("X", "2")]
        assert (await connection.exchange("GET", "/", two)).status == 200
        assert (await connection.exchange("GET", "/", [*two, ("X", "3")])).status == 431


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"x\r\n", id="no size"),
        pytest.param(b"\r\n", id="empty size"),
        pytest.param(b"-1\r\n", id="negative size"),
        pytest.param(b"0x5\r\nhello\r\n", id="hexadecimal mark"),
        pytest.param(b"5\nhello\r\n", id="bare LF"),
        pytest.param(b"5\r\nhello\n", id="bare LF behind a chunk"),
        pytest.param(b"5\r\nhelloworld\r\n", id="longer than it says"),
        pytest.param(b"5;" + b"x" * 5000, id="long extension"),
        pytest.param(b"fffffffffffffffff\r\n", id="huge size"),
        pytest.param(b"0\r\n" + b"X: y\r\n" * 5000, id="long trailers"),
        pytest.param(b"0\r\n\n", id="bare LF at the end"),
    ],
)
async def test_a_broken_body_is_told_to_whoever_reads_it(body: bytes) -> None:
    @with_writer
    async def read(request: Incoming, writer: ResponseWriter) -> None:
        with pytest.raises(BadRequest, match="bad-body"):
            async for _ in request_body(request):
                pass
        await writer.start(400, b"Bad Request", Fields(), 0)
        await writer.finish()

    head = b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n" % HOST
    async with serving(read) as served:
        response = await answer_to(served.url, head, body)
    assert (response.status, response.field("Connection")) == (400, "close")


# -- slow clients


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX:"])
async def test_a_head_that_does_not_end_in_time_is_408(sent: bytes) -> None:
    async with serving(echo, header_timeout=0.1) as served:
        response = await answer_to(served.url, sent)
        assert response.status == 408
        assert response.cache_status == {"detail": "head-timeout"}


async def test_a_head_that_trickles_is_408_all_the_same() -> None:
    async with (
        serving(echo, header_timeout=0.3) as served,
        await Connection.open(served.url) as connection,
    ):
        await connection.exchange("GET", "/")
        await connection.send(b"GET / HTTP/1.1\r\nX: ")

        async def trickle() -> None:
            while True:
                await connection.send(b"x")
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        started = asyncio.get_running_loop().time()
        assert (await connection.response()).status == 408
        assert asyncio.get_running_loop().time() - started < 2
        trickling.cancel()
        assert await closed(connection) == "closed"


async def test_a_short_keep_alive_does_not_cut_a_head_short() -> None:
    async with (
        serving(echo, keepalive_timeout=0.1, header_timeout=PATIENCE) as served,
        await Connection.open(served.url) as connection,
    ):
        await connection.exchange("GET", "/")
        await connection.send(b"GET / HTTP/1.1\r\n")
        await asyncio.sleep(0.3)
        await connection.send(HOST + b"\r\n")
        assert (await connection.response()).status == 200


async def test_a_body_that_pauses_is_told_to_whoever_reads_it() -> None:
    @with_writer
    async def read(request: Incoming, writer: ResponseWriter) -> None:
        with pytest.raises(RequestBodyLate):
            async for chunk in request_body(request):
                assert chunk == b"ab"
        await writer.start(408, b"", Fields(), 0)
        await writer.finish()

    async with serving(read, body_idle_timeout=0.1) as served:
        head = b"POST / HTTP/1.1\r\n%bContent-Length: 3\r\n\r\n" % HOST
        assert (await answer_to(served.url, head, b"ab")).status == 408


async def test_a_client_that_leaves_in_its_body_is_told_to_whoever_reads_it() -> None:
    result: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    async def read(request: Incoming) -> Reply:
        try:
            async for _ in request_body(request):
                begun.set()
        except BaseException as error:
            result.set_result(error)
        return ResponseWriter(request).reply

    async with serving(read) as served:
        async with await Connection.open(served.url) as connection:
            await connection.send(b"POST / HTTP/1.1\r\n%bContent-Length: 9\r\n\r\nab" % HOST)
            await asyncio.wait_for(begun.wait(), PATIENCE)
        error = await asyncio.wait_for(result, PATIENCE)
    assert isinstance(error, ConnectionError)


async def test_a_body_is_read_no_faster_than_it_is_taken() -> None:
    go_on = asyncio.Event()
    size = 64 * 1024 * 1024

    @with_writer
    async def read(request: Incoming, writer: ResponseWriter) -> None:
        await go_on.wait()
        total, longest = 0, 0
        async for chunk in request_body(request):
            total += len(chunk)
            longest = max(longest, len(chunk))
        text = b"%d %d" % (total, longest)
        await writer.start(200, b"OK", Fields(), len(text))
        await writer.write(text)
        await writer.finish()

    async with serving(read) as served, await Connection.open(served.url) as connection:
        await connection.send(b"POST / HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (HOST, size))
        sending = asyncio.create_task(connection.send(bytes(size)))
        await asyncio.wait([sending], timeout=0.5)
        assert not sending.done()
        go_on.set()
        total, longest = (await connection.response()).body.split()
        await sending
        assert int(total) == size
        assert int(longest) < 1024 * 1024


# -- 100 Continue


async def test_100_continue_is_sent_when_the_body_is_asked_for(served: Served) -> None:
    async with await Connection.open(served.url) as connection:
        for _ in range(2):
            await connection.send(
                b"PUT / HTTP/1.1\r\n%bExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n" % HOST
            )
            raw = await connection.reader.readuntil(b"\r\n\r\n")
            assert raw == b"HTTP/1.1 100 Continue\r\n\r\n"
            await connection.send(b"ab")
            response = await connection.response()
            assert (response.body, response.interims) == (b"PUT / ab", ())


async def test_no_100_continue_where_the_body_is_not_wanted() -> None:
    async with serving(hello) as served:
        head = b"PUT / HTTP/1.1\r\n%bExpect: 100-continue\r\nContent-Length: 2\r\n\r\n" % HOST
        response = await answer_to(served.url, head)
        assert (response.body, response.interims) == (b"hello", ())
        assert response.field("Connection") == "close"


async def test_no_100_continue_once_the_answer_has_begun() -> None:
    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"OK", Fields(), None)
        async for chunk in request_body(request):
            await writer.write(chunk)
        await writer.finish()

    async with serving(answer) as served, await Connection.open(served.url) as connection:
        await connection.request("PUT", "/", {"Expect": "100-continue", "Content-Length": "2"})
        streamed = await connection.start_response()
        await connection.send(b"ab")
        assert (await streamed.read(), streamed.interims) == (b"ab", ())


@pytest.mark.parametrize(
    ("version", "fields", "body"),
    [
        pytest.param(b"1.0", b"Content-Length: 2\r\n", b"ab", id="HTTP/1.0 has none"),
        pytest.param(b"1.1", b"Content-Length: 2\r\n", b"ab", id="body there"),
        pytest.param(b"1.1", b"", b"", id="no body"),
    ],
)
async def test_no_100_continue_where_nobody_waits_for_it(
    served: Served, version: bytes, fields: bytes, body: bytes
) -> None:
    async with await Connection.open(served.url) as connection:
        head = b"PUT / HTTP/%b\r\n%bExpect: 100-continue\r\n%b\r\n" % (version, HOST, fields)
        if version == b"1.0":
            await connection.send(head)
            await asyncio.sleep(0.1)
            await connection.send(body)
        else:
            await connection.send(head + body)
        response = await connection.response()
        assert (response.body, response.interims) == (b"PUT / " + body, ())


# -- draining


async def test_draining_closes_idle_connections_and_lets_answers_end() -> None:
    held = Held()
    async with serving(held) as served:
        server = served.server
        async with (
            await Connection.open(served.url) as idle,
            await Connection.open(served.url) as busy,
        ):
            held.go_on.set()
            await idle.exchange("GET", "/")
            held.go_on.clear()
            held.begun.clear()
            await busy.request("GET", "/")
            await asyncio.wait_for(held.begun.wait(), PATIENCE)
            assert (server.open_connections, server.in_flight) == (2, 1)
            server.begin_drain()
            assert await closed(idle) == "closed"
            draining = asyncio.create_task(server.drained())
            assert server.in_flight == 1
            held.go_on.set()
            response = await busy.response()
            assert (response.body, response.field("Connection")) == (b"hello", "close")
            assert await closed(busy) == "closed"
            await busy.close()
            await asyncio.wait_for(draining, PATIENCE)
        assert (server.open_connections, server.in_flight) == (0, 0)


async def test_draining_lets_a_request_in_that_is_just_coming() -> None:
    async with (
        serving(hello) as served,
        await Connection.open(served.url) as fresh,
        await Connection.open(served.url) as partial,
    ):
        await partial.exchange("GET", "/")
        await partial.send(b"GET / HTTP/1.1\r\n")
        await asyncio.sleep(0.1)
        assert served.server.open_connections == 2
        served.server.begin_drain()
        await partial.send(HOST + b"\r\n")
        await fresh.request("GET", "/")
        for connection in (fresh, partial):
            response = await connection.response()
            assert (response.body, response.field("Connection")) == (b"hello", "close")


async def test_draining_does_not_wait_for_a_connection_that_asks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "FRESH_GRACE", 0.1)
    async with serving(hello) as served, await Connection.open(served.url) as fresh:
        while not served.server.open_connections:
            await asyncio.sleep(0.01)
        served.server.begin_drain()
        assert await closed(fresh) == "closed"
        await asyncio.wait_for(served.server.drained(), PATIENCE)


async def test_shutdown_breaks_off_what_does_not_end() -> None:
    held = Held()
    async with serving(held) as served, await Connection.open(served.url) as connection:
        await connection.request("GET", "/")
        await asyncio.wait_for(held.begun.wait(), PATIENCE)
        await served.server.shutdown(0.05)
        assert (served.server.open_connections, served.server.in_flight) == (0, 0)
        with pytest.raises(MessageCut):
            await connection.response()


async def test_shutdown_ends_the_answers_to_clients_that_have_left() -> None:
    held = Held()
    async with serving(held) as served:
        async with await Connection.open(served.url) as connection:
            await connection.request("GET", "/")
            await asyncio.wait_for(held.begun.wait(), PATIENCE)
            connection.reset()
        while served.server.open_connections:
            await asyncio.sleep(0.01)
        assert served.server.in_flight == 1
        await served.server.shutdown()
        assert served.server.in_flight == 0


async def test_a_handler_that_fails_breaks_the_connection_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(request: Incoming) -> Reply:
        raise RuntimeError("on purpose")

    async with serving(fail) as served, await Connection.open(served.url) as connection:
        await connection.request("GET", "/")
        with pytest.raises(MessageCut):
            await connection.response()
    assert "on purpose" in caplog.text


def test_the_lenient_parser_is_refused() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import edgeproxy.proxy.server"],
        env={"AIOHTTP_NO_EXTENSIONS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "ImportError: aiohttp runs without its C parser" in result.stderr
