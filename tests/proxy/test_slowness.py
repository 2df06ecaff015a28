"""Clients that take their time over a body: how long they are waited for."""

import asyncio
import gc
import socket
import weakref
from contextlib import suppress

import pytest

from edgeproxy.proxy.body import request_body
from edgeproxy.proxy.errors import EdgeError
from edgeproxy.proxy.incoming import Incoming
from edgeproxy.proxy.wire import ResponseWriter
from edgeproxy.semantics.fields import Fields
from tests.kit import Connection
from tests.proxy.reader_side import PATIENCE, Handler, serving, with_writer

pytestmark = pytest.mark.both_loops

PAUSE = 0.4
SIZE = 32 * 1024 * 1024


def reading(outcome: asyncio.Future[EdgeError | None]) -> Handler:
    """Takes a body, and tells what came of it."""

    @with_writer
    async def read(request: Incoming, writer: ResponseWriter) -> None:
        try:
            async for _ in request_body(request):
                pass
        except EdgeError as error:
            outcome.set_result(error)
        else:
            outcome.set_result(None)
        await writer.start(204, b"", Fields(), None)
        await writer.finish()

    return read


@pytest.mark.parametrize(("rate", "pause", "kept"), [(250, PAUSE, False), (0, 2 * PAUSE, True)])
async def test_a_body_that_dribbles(rate: int, pause: float, kept: bool) -> None:
    """A byte each quarter of the pause that is allowed: no pause is too long, but all together."""
    outcome: asyncio.Future[EdgeError | None] = asyncio.get_running_loop().create_future()
    async with (
        serving(reading(outcome), body_idle_timeout=pause, min_body_rate=rate) as served,
        await Connection.open(served.url) as connection,
    ):
        await connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            if outcome.done():
                break
            await connection.send(b"x")
            await asyncio.sleep(pause / 4)
        async with asyncio.timeout(PATIENCE):
            error = await outcome
    assert (error is None) is kept
    assert error is None or error.detail == "request-body-timeout"


@pytest.mark.parametrize(
    ("rate", "buffered", "kept"),
    [
        pytest.param(1_000_000, 16_384, False, id="less-than-it-has-to"),
        pytest.param(0, 16_384, True, id="as-little-as-it-likes"),
        pytest.param(1_000, None, True, id="enough-though-the-buffer-hides-it"),
    ],
)
async def test_a_reader_that_sips(rate: int, buffered: int | None, kept: bool) -> None:
    """It always takes something: 8 KiB a twentieth of a second. The system takes more of the edge
    only when a third of the socket's buffer is free, which is much here, as to a client that was
    fast before."""

    @with_writer
    async def pour(request: Incoming, writer: ResponseWriter) -> None:
        # So that each little that it takes shows at this end.
        assert request.protocol.transport is not None
        sock = request.protocol.transport.get_extra_info("socket")
        if buffered is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffered)
        await writer.start(200, b"OK", Fields(), SIZE)
        try:
            await writer.write(bytes(SIZE))
            await writer.finish()
        finally:
            ended.set()

    ended = asyncio.Event()
    limits: dict[str, float] = {"body_idle_timeout": PAUSE, "min_body_rate": rate}
    loop = asyncio.get_running_loop()
    async with serving(pour, **limits) as served:
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
            await loop.sock_connect(sock, ("127.0.0.1", int(served.url.rpartition(":")[2])))
            await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            until = loop.time() + 6 * PAUSE
            while loop.time() < until and not ended.is_set():
                with suppress(ConnectionError):
                    await loop.sock_recv(sock, 8192)
                await asyncio.sleep(PAUSE / 8)
            assert ended.is_set() is not kept


async def test_what_is_sent_to_a_client_that_is_gone_is_not_kept() -> None:
    """Not even until the garbage is collected, which may be long."""

    begun, ended = asyncio.Event(), asyncio.Event()

    class Held:
        """What a handler's frame has."""

    @with_writer
    async def pour(request: Incoming, writer: ResponseWriter) -> None:
        held = Held()
        left.append(weakref.ref(held))
        try:
            await writer.start(200, b"OK", Fields(), SIZE)
            begun.set()
            await writer.write(bytes(SIZE))
        finally:
            ended.set()

    left: list[weakref.ref[Held]] = []
    async with serving(pour) as served:
        gc.disable()
        try:
            async with await Connection.open(served.url) as connection:
                connection.writer.transport.pause_reading()
                await connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                async with asyncio.timeout(PATIENCE):
                    await begun.wait()
                await asyncio.sleep(0.05)
                connection.reset()
            async with asyncio.timeout(PATIENCE):
                await ended.wait()
                await served.server.drained()
            await asyncio.sleep(0.05)
            assert [held() for held in left] == [None]
        finally:
            gc.enable()
