"""Answers byte for byte over real connections, under both event loops."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.proxy.body import request_body
from edgeproxy.proxy.incoming import Incoming
from edgeproxy.proxy.wire import ResponseWriter, UnsafeField, render_head
from edgeproxy.semantics.fields import Fields
from tests.kit import Connection, MessageCut
from tests.proxy.reader_side import PATIENCE, serving, with_writer

pytestmark = pytest.mark.both_loops


NONE = Fields()
LARGE = bytes(range(256)) * 64 * 1024
"""16 MiB: more than all the buffers on its way take."""


Answer = Callable[[Incoming, ResponseWriter], Awaitable[None]]


async def raw_answer(answer: Answer, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """All the bytes that a client gets of an answer on a connection that is closed after it."""
    async with (
        serving(with_writer(answer)) as served,
        await Connection.open(served.url) as connection,
    ):
        close = b"Connection: close\r\n" if version == b"1.1" else b""
        await connection.send(b"%b / HTTP/%b\r\nHost: a\r\n%b\r\n" % (method, version, close))
        return await asyncio.wait_for(connection.reader.read(-1), PATIENCE)


# -- heads


async def test_fields_go_out_as_they_are() -> None:
    fields = Fields(
        [(b"x-B", b"2"), (b"X-a", b"\xff;\t, "), (b"Set-Cookie", b"a"), (b"set-cookie", b"b")]
    )

    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(299, b"As You Wish", fields, 2)
        await writer.write(b"ok")
        await writer.finish()

    assert await raw_answer(answer) == (
        b"HTTP/1.1 299 As You Wish\r\nx-B: 2\r\nX-a: \xff;\t, \r\n"
        b"Set-Cookie: a\r\nset-cookie: b\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    )


async def test_framing_is_never_copied() -> None:
    fields = Fields(
        [
            (b"Content-length", b"99"),
            (b"Transfer-Encoding", b"chunked"),
            (b"connection", b"x, upgrade"),
            (b"Keep-Alive", b"timeout=5"),
            (b"Upgrade", b"h2c"),
            (b"Proxy-Connection", b"keep-alive"),
        ]
    )

    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"", fields, 0)
        await writer.finish()

    expected = b"HTTP/1.1 200 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert await raw_answer(answer) == expected


@pytest.mark.parametrize(
    "pair",
    [
        (b"X", b"a\r\nSet-Cookie: b"),
        (b"X", b"a\nb"),
        (b"X", b"a\rb"),
        (b"X", b"a\0b"),
        (b"X\r\nY", b"a"),
        (b"X\0", b"a"),
        (b"X", b"\r\n"),
        (b"X", b"\n\r"),
    ],
)
@pytest.mark.parametrize("interim", [False, True])
async def test_a_field_that_would_end_early_is_not_sent(
    pair: tuple[bytes, bytes], interim: bool
) -> None:
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        fields = Fields([(b"A", b"b"), pair])
        with pytest.raises(UnsafeField):
            if interim:
                await writer.interim(103, b"Early Hints", fields)
            else:
                await writer.start(200, b"OK", fields, 5)
        assert not writer.head_sent
        await writer.start(500, b"", NONE, 0)
        await writer.finish()

    expected = b"HTTP/1.1 500 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert await raw_answer(answer) == expected


def test_a_reason_that_would_end_early_is_not_sent() -> None:
    with pytest.raises(UnsafeField):
        render_head(200, b"OK\r\nX: y", ())


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=8), st.binary(max_size=8)), max_size=6))
def test_a_rendered_head_has_the_lines_it_was_given_and_no_other(
    fields: list[tuple[bytes, bytes]],
) -> None:
    unsafe = any(byte in name + value for name, value in fields for byte in b"\r\n\0")
    if unsafe:
        with pytest.raises(UnsafeField):
            render_head(200, b"OK", fields)
        return
    lines = render_head(200, b"OK", fields).split(b"\r\n")
    assert lines == [b"HTTP/1.1 200 OK", *(b"%b: %b" % pair for pair in fields), b""]


# -- bodies


@pytest.mark.parametrize("pieces", [[], [b"a"], [b"hello", b"", b" world"]])
async def test_a_body_of_unknown_length_is_chunked(pieces: list[bytes]) -> None:
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"OK", NONE, None)
        for piece in pieces:
            await writer.write(piece)
        await writer.finish()
        assert writer.bytes_sent == sum(map(len, pieces))

    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    assert await raw_answer(answer) == (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"%b0\r\n\r\n" % chunks
    )


async def test_for_http_1_0_the_end_of_the_connection_ends_the_body() -> None:
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"OK", NONE, None)
        await writer.write(b"hello")
        await writer.write(b" world")
        await writer.finish()

    expected = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello world"
    assert await raw_answer(answer, version=b"1.0") == expected


@pytest.mark.parametrize("keep", [False, True])
async def test_http_1_0_may_keep_a_connection_whose_answer_has_a_length(keep: bool) -> None:
    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"OK", NONE, 2 if keep else None)
        await writer.write(b"ok")
        await writer.finish()

    async with serving(answer) as served, await Connection.open(served.url) as connection:
        await connection.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        response = await connection.response()
        assert response.body == b"ok"
        assert response.field("Connection") == ("keep-alive" if keep else "close")


@pytest.mark.parametrize("length", [None, 5])
@pytest.mark.parametrize(
    ("method", "status", "head_only"),
    [(b"HEAD", 200, False), (b"GET", 304, False), (b"GET", 304, True), (b"HEAD", 404, True)],
)
async def test_there_is_no_body_where_there_must_be_none(
    method: bytes, status: int, head_only: bool, length: int | None
) -> None:
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(status, b"", NONE, length, head_only=head_only)
        await writer.write(b"hello")
        await writer.finish()
        assert writer.bytes_sent == 0

    told = b"" if length is None else b"Content-Length: 5\r\n"
    expected = b"HTTP/1.1 %d \r\n%bConnection: close\r\n\r\n" % (status, told)
    assert await raw_answer(answer, method) == expected


@pytest.mark.parametrize("length", [None, 0, 5])
async def test_a_204_has_neither_body_nor_length(length: int | None) -> None:
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(204, b"No Content", NONE, length)
        await writer.write(b"hello")
        await writer.finish()

    assert await raw_answer(answer) == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


async def test_a_large_body_goes_no_faster_than_it_is_taken() -> None:
    written = 0
    done = asyncio.Event()

    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        nonlocal written
        await writer.start(200, b"OK", NONE, len(LARGE))
        for start in range(0, len(LARGE), 65536):
            await writer.write(LARGE[start : start + 65536])
            written = writer.bytes_sent
        await writer.finish()
        done.set()

    async with serving(answer) as served, await Connection.open(served.url) as connection:
        await connection.request("GET", "/")
        streamed = await connection.start_response()
        await asyncio.wait([asyncio.create_task(done.wait())], timeout=0.3)
        assert written < len(LARGE)
        assert await streamed.read() == LARGE


# -- ready answers


@pytest.mark.parametrize("body", [b"", b"hello", LARGE], ids=len)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_ready_answer_is_sent_in_one_call(body: bytes, method: str) -> None:
    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        head = render_head(200, b"OK", [(b"X", b"y"), (b"Content-Length", b"%d" % len(body))])
        writer.send_ready(head, body)
        assert writer.bytes_sent == (len(body) if method == "GET" else 0)

    async with serving(answer) as served, await Connection.open(served.url) as connection:
        for _ in range(2):
            response = await connection.exchange(method, "/")
            assert response.body == (body if method == "GET" else b"")
            assert response.head.pairs == (
                (b"X", b"y"),
                (b"Content-Length", b"%d" % len(body)),
            )
        response = await connection.exchange(method, "/", {"Connection": "close"})
        assert response.head.pairs[-1] == (b"Connection", b"close")


async def test_ready_answers_wait_for_a_client_that_does_not_read() -> None:
    answered = 0

    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        nonlocal answered
        head = render_head(200, b"OK", [(b"Content-Length", b"65536")])
        writer.send_ready(head, bytes(65536))
        answered += 1

    async with serving(answer) as served, await Connection.open(served.url) as connection:
        connection.writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 500)
        await asyncio.sleep(0.5)
        assert answered < 500
        for _ in range(500):
            await connection.response()


# -- 1xx


async def test_interim_responses_go_before_the_final_one() -> None:
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        hints = Fields([(b"Link", b"</a>"), (b"Connection", b"x"), (b"Content-Length", b"3")])
        await writer.interim(103, b"Early Hints", hints)
        await writer.interim(101, b"Switching Protocols", NONE)
        assert not writer.head_sent
        await writer.start(200, b"OK", NONE, 0)
        await writer.interim(103, b"Early Hints", hints)
        await writer.finish()

    assert await raw_answer(answer) == (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert await raw_answer(answer, version=b"1.0") == final


async def test_the_origins_100_goes_on_and_is_not_said_twice() -> None:
    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.interim(100, b"Continue", NONE)
        body = b"".join([chunk async for chunk in request_body(request)])
        await writer.start(200, b"OK", NONE, len(body))
        await writer.write(body)
        await writer.finish()

    async with serving(answer) as served, await Connection.open(served.url) as connection:
        await connection.request("PUT", "/", {"Expect": "100-continue", "Content-Length": "1"})
        continued = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert await connection.reader.readexactly(len(continued)) == continued
        await connection.send(b"x")
        response = await connection.response()
        assert (response.interims, response.body) == ((), b"x")


# -- another protocol


async def test_after_a_101_the_connection_is_another_owners() -> None:
    received, sent = asyncio.Event(), asyncio.Event()

    class Owner(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            transport.write(b"<" + data + b">")
            received.set()

    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        nonlocal transport
        await writer.start(101, b"Switching Protocols", Fields([(b"Upgrade", b"websocket")]), None)
        transport, unread = writer.take_over()
        transport.write(b"[" + unread + b"]")
        await sent.wait()
        await asyncio.sleep(0.05)
        transport.set_protocol(Owner())
        transport.resume_reading()
        await received.wait()
        transport.close()

    transport: asyncio.Transport
    async with serving(answer) as served, await Connection.open(served.url) as connection:
        await connection.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly"
        )
        streamed = await connection.start_response()
        assert streamed.head.pairs == ((b"Upgrade", b"websocket"), (b"Connection", b"upgrade"))
        assert await connection.reader.readexactly(7) == b"[early]"
        assert served.server.in_flight == 1
        await connection.send(b"late")
        sent.set()
        assert await asyncio.wait_for(connection.reader.read(-1), PATIENCE) == b"<late>"
        await asyncio.wait_for(served.server.drained(), PATIENCE)
        assert served.server.open_connections == 0


# -- broken ends


@pytest.mark.parametrize("length", [None, 10])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_what_is_broken_off_is_reset(version: bytes, length: int | None) -> None:
    go_on = asyncio.Event()

    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"OK", NONE, length)
        await writer.write(b"hello")
        await go_on.wait()
        writer.abort()

    async with serving(answer) as served, await Connection.open(served.url) as connection:
        await connection.send(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version)
        streamed = await connection.start_response()
        assert await streamed.read(5) == b"hello"
        go_on.set()
        with pytest.raises(MessageCut) as cut:
            await asyncio.wait_for(streamed.read(), PATIENCE)
        assert cut.value.reset


async def test_an_answer_that_was_not_finished_is_broken_off() -> None:
    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"OK", NONE, None)
        await writer.write(b"hello")

    async with serving(answer) as served, await Connection.open(served.url) as connection:
        await connection.request("GET", "/")
        with pytest.raises(MessageCut):
            await connection.response()


async def test_a_body_shorter_than_announced_is_broken_off() -> None:
    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"OK", NONE, 10)
        await writer.write(b"hello")
        with pytest.raises(ConnectionAbortedError):
            await writer.finish()

    async with serving(answer) as served, await Connection.open(served.url) as connection:
        await connection.request("GET", "/")
        with pytest.raises(MessageCut):
            await connection.response()


async def test_a_body_longer_than_announced_is_broken_off() -> None:
    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"OK", NONE, 5)
        await writer.write(b"hel")
        with pytest.raises(ValueError, match="longer"):
            await writer.write(b"lo!")

    async with serving(answer) as served, await Connection.open(served.url) as connection:
        await connection.request("GET", "/")
        with pytest.raises(MessageCut):
            await connection.response()


async def test_an_answer_is_begun_once() -> None:
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"OK", NONE, 0)
        with pytest.raises(RuntimeError):
            await writer.start(500, b"", NONE, 0)
        with pytest.raises(RuntimeError):
            writer.send_ready(b"HTTP/1.1 500 \r\n", b"")
        await writer.finish()

    expected = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    assert await raw_answer(answer) == expected


async def test_writing_to_a_client_that_is_gone_fails() -> None:
    begun = asyncio.Event()
    failed = asyncio.Event()

    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"OK", NONE, None)
        begun.set()
        with pytest.raises(ConnectionError):
            while True:
                await writer.write(bytes(65536))
                await asyncio.sleep(0)
        failed.set()

    async with serving(answer) as served:
        async with await Connection.open(served.url) as connection:
            await connection.request("GET", "/")
            await asyncio.wait_for(begun.wait(), PATIENCE)
        await asyncio.wait_for(failed.wait(), PATIENCE)


async def test_a_client_that_stops_reading_is_dropped() -> None:
    failed = asyncio.Event()

    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"OK", NONE, None)
        with pytest.raises(ConnectionError):
            while True:
                await writer.write(LARGE)
        failed.set()

    async with (
        serving(answer, body_idle_timeout=0.2) as served,
        await Connection.open(served.url) as connection,
    ):
        connection.writer.transport.pause_reading()
        await connection.request("GET", "/")
        await asyncio.wait_for(failed.wait(), PATIENCE)


async def test_a_client_that_reads_slowly_is_not_dropped() -> None:
    finished = asyncio.Event()

    @with_writer
    async def answer(request: Incoming, writer: ResponseWriter) -> None:
        await writer.start(200, b"OK", NONE, len(LARGE))
        await writer.write(LARGE)
        await writer.finish()
        finished.set()

    async with (
        serving(answer, body_idle_timeout=0.4) as served,
        await Connection.open(served.url) as connection,
    ):
        await connection.request("GET", "/")
        streamed = await connection.start_response()
        read = 0
        async for piece in streamed.pieces():
            if read < 8 * 2**20 and (read + len(piece)) // 2**20 > read // 2**20:
                await asyncio.sleep(0.1)
            read += len(piece)
        assert read == len(LARGE)
        assert finished.is_set()
