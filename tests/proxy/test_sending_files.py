"""Bodies that go from their files to the socket, and what becomes of those that can't."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import zlib
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from edgeproxy.cache.bodies import FileBodies, FileBody
from edgeproxy.cache.layout import body_path
from edgeproxy.cache.reading import StoredBody
from edgeproxy.cache.stored import BodyRef
from edgeproxy.proxy.sending_files import STEP
from edgeproxy.semantics.fields import Fields
from tests.kit import Connection, MessageCut
from tests.proxy.reader_side import PATIENCE, serving, with_writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgeproxy.cache.errors import BodyMissing
    from edgeproxy.proxy.incoming import Incoming
    from edgeproxy.proxy.wire import ResponseWriter
    from tests.proxy.reader_side import Served

pytestmark = pytest.mark.both_loops

BODY = os.urandom(5_000_000)
LONG = 64 * 1024 * 1024
"""More than all the buffers on its way take."""
NONE = Fields()


@dataclass
class Sender:
    """Answers with a part of a file, and notes what became of it."""

    bodies: FileBodies
    ref: BodyRef
    path: Path
    sent: list[tuple[int, int]] = field(default_factory=list)
    """For each answer, its bytes that went from the file, and all of its body's."""
    failed: list[BaseException] = field(default_factory=list)
    lost: list[BodyMissing] = field(default_factory=list)
    before: bytes = b""
    """What is written before the file's bytes are sent."""
    begun: int = 0

    async def open(self) -> StoredBody:
        opened = await self.bodies.open(self.ref)
        opened.found_whole()
        return StoredBody(opened, self.ref, self._lost)

    async def _lost(self, error: BodyMissing) -> None:
        self.lost.append(error)

    async def __call__(self, request: Incoming, writer: ResponseWriter) -> None:
        self.begun += 1
        first, _, last = request.target.decode().strip("/").partition("-")
        start, stop = int(first or 0), int(last or self.ref.length)
        body = await self.open()
        reached = start
        try:
            await writer.start(200, b"OK", NONE, len(self.before) + stop - start)
            await writer.write(self.before)
            reached = await writer.send_file(body, start, stop)
            async for chunk in body(reached, stop):
                await writer.write(chunk)
            await writer.finish()
        except BaseException as error:
            self.failed.append(error)
            writer.abort()
            raise
        finally:
            self.sent.append((reached - start, writer.bytes_sent))


@pytest.fixture
async def sender(tmp_path: Path) -> AsyncIterator[Sender]:
    ref = BodyRef("file", bytes(8), len(BODY), zlib.crc32(BODY))
    bodies = FileBodies(tmp_path)
    path = body_path(tmp_path, ref.id)
    path.parent.mkdir()
    path.write_bytes(BODY)
    yield Sender(bodies, ref, path)
    await bodies.close()


def lengthen(sender: Sender) -> None:
    """Make it a body of `LONG` bytes, whatever they are."""
    os.truncate(sender.path, LONG)
    sender.ref = BodyRef("file", bytes(8), LONG, 0)


@asynccontextmanager
async def asked(sender: Sender, **limits: Any) -> AsyncIterator[tuple[Served, Connection]]:
    """A connection that has asked for all of it."""
    async with (
        asyncio.timeout(PATIENCE),
        serving(with_writer(sender), **limits) as served,
        await Connection.open(served.url) as connection,
    ):
        await connection.request("GET", "/")
        yield served, connection
        await until_over(sender)


async def until_over(sender: Sender) -> None:
    """Wait until all answers that were begun are over: their readers may know it earlier."""
    while len(sender.sent) < max(1, sender.begun):
        await asyncio.sleep(0.001)


async def until_stuck(served: Served) -> None:
    """Wait until the buffers are full, as far as a while without any room tells."""
    (protocol,) = served.server._open
    room = None
    while room is None or protocol.room is not room:
        room = protocol.room
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("in_memory", [True, False], ids=["from-the-loop", "from-a-thread"])
@pytest.mark.parametrize(
    ("start", "stop"),
    [
        pytest.param(0, len(BODY), id="whole"),
        pytest.param(0, 1, id="first-byte"),
        pytest.param(len(BODY) - 1, len(BODY), id="last-byte"),
        pytest.param(STEP - 1, 3 * STEP + 1, id="across-steps"),
    ],
)
async def test_what_is_sent_is_what_is_in_the_file(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, start: int, stop: int, *, in_memory: bool
) -> None:
    # Whether the disk has to be waited for is not for a test to say.
    monkeypatch.setattr("edgeproxy.cache.bodies._File.in_memory", lambda *_: in_memory)
    sender.bodies.in_memory = False
    async with (
        asyncio.timeout(PATIENCE),
        serving(with_writer(sender)) as served,
        await Connection.open(served.url) as connection,
    ):
        for _ in range(2):
            response = await connection.exchange("GET", f"/{start}-{stop}")
            assert response.body == BODY[start:stop]
        await until_over(sender)
    assert sender.sent == [(stop - start, stop - start)] * 2


async def test_a_request_behind_it_is_answered_after_it(sender: Sender) -> None:
    async with asked(sender) as (_, connection):
        await connection.request("GET", "/5-9")
        assert (await connection.response()).body == BODY
        assert (await connection.response()).body == BODY[5:9]
        assert (await connection.exchange("GET", "/")).body == BODY
    assert [every for every, _ in sender.sent] == [len(BODY), 4, len(BODY)]


async def test_it_follows_what_was_written_before(sender: Sender) -> None:
    sender.before = BODY[::-1]
    async with asked(sender) as (_, connection):
        assert (await connection.response()).body == BODY[::-1] + BODY
        # Writing goes on by the usual limits.
        assert (await connection.exchange("GET", "/")).body == BODY[::-1] + BODY
    assert sender.sent == [(len(BODY), 2 * len(BODY))] * 2


async def test_who_reads_slowly_gets_all_of_it(sender: Sender) -> None:
    lengthen(sender)
    async with asked(sender, body_idle_timeout=0.3) as (_, connection):
        response = await connection.start_response()
        read = 0
        async for piece in response.pieces():
            # For twice as long as a reader may do nothing at all.
            if read < 60 * 64 * 1024 and (read + len(piece)) // 2**16 > read // 2**16:
                await asyncio.sleep(0.01)
                assert not sender.sent
            read += len(piece)
        assert read == LONG
    assert sender.sent == [(LONG, LONG)]


async def test_who_has_stopped_reading_is_reset(sender: Sender) -> None:
    lengthen(sender)
    async with asked(sender, body_idle_timeout=0.2) as (served, connection):
        connection.writer.transport.pause_reading()
        await until_over(sender)
        (error,) = sender.failed
        assert isinstance(error, ConnectionResetError)
        assert "stopped reading" in str(error)
        connection.writer.transport.resume_reading()
        with pytest.raises((MessageCut, ConnectionResetError)):
            await connection.response()
        while served.server.open_connections:
            await asyncio.sleep(0.001)
    ((_, sent),) = sender.sent
    assert 0 < sent < LONG


@pytest.mark.parametrize(("rate", "kept"), [(1_000_000, False), (0, True)])
async def test_who_takes_too_little_is_reset(sender: Sender, rate: int, kept: bool) -> None:
    """It always takes something, but far less than it has to."""
    lengthen(sender)
    limits: dict[str, float] = {"body_idle_timeout": 0.4, "min_body_rate": rate}
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        async with serving(with_writer(sender), **limits) as served:
            counted = served.refusals
            await loop.sock_connect(sock, ("127.0.0.1", int(served.url.rpartition(":")[2])))
            await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            until = loop.time() + 2.4
            while loop.time() < until and not sender.sent:
                with suppress(ConnectionError):
                    await loop.sock_recv(sock, 8192)
                await asyncio.sleep(0.05)
            assert (not sender.sent) is kept
            assert counted()["reader-stalled"] == (0 if kept else 1)


async def test_who_has_ended_its_own_direction_gets_all_of_it(sender: Sender) -> None:
    lengthen(sender)
    async with asked(sender) as (served, connection):
        response = await connection.start_response()
        connection.writer.transport.pause_reading()
        await until_stuck(served)
        connection.writer.write_eof()
        connection.writer.transport.resume_reading()
        assert sum([len(piece) async for piece in response.pieces()]) == LONG
    assert sender.sent == [(LONG, LONG)]


@pytest.mark.parametrize("how", ["reset", "closed"])
async def test_a_client_that_leaves_is_noticed(sender: Sender, how: str) -> None:
    lengthen(sender)
    async with asked(sender, body_idle_timeout=60.0) as (served, connection):
        transport = connection.writer.transport
        assert (await connection.start_response()).status == 200
        transport.pause_reading()
        await until_stuck(served)
        if how == "reset":
            connection.reset()
        else:
            transport.close()
        await until_over(sender)
        assert [isinstance(error, ConnectionError) for error in sender.failed] == [True]


async def test_one_that_is_broken_off_here_is_reset_at_once(sender: Sender) -> None:
    lengthen(sender)
    async with asked(sender, body_idle_timeout=60.0) as (served, connection):
        response = await connection.start_response()
        connection.writer.transport.pause_reading()
        await until_stuck(served)
        await served.server.shutdown()
        connection.writer.transport.resume_reading()
        with pytest.raises((MessageCut, ConnectionResetError)):
            await response.whole()
    assert sender.failed


async def test_a_file_that_is_cut_meanwhile_breaks_the_connection_off(sender: Sender) -> None:
    lengthen(sender)
    async with asked(sender) as (_, connection):
        response = await connection.start_response()
        os.truncate(sender.path, LONG // 2)
        with pytest.raises((MessageCut, ConnectionResetError)):
            await response.whole()
    assert [str(error).endswith("has been cut short") for error in sender.lost] == [True]
    assert sender.failed == sender.lost


async def test_a_file_that_is_removed_meanwhile_is_sent_to_its_end(sender: Sender) -> None:
    lengthen(sender)
    async with asked(sender) as (_, connection):
        response = await connection.start_response()
        await sender.bodies.remove(sender.ref)
        assert not sender.path.exists()
        assert len((await response.whole()).body) == LONG


async def test_over_tls_it_is_read_and_written(sender: Sender) -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client_side = ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    authority.configure_trust(client_side)
    async with (
        asyncio.timeout(PATIENCE),
        serving(with_writer(sender), tls=server_side) as served,
        await Connection.open(served.url, tls=client_side) as connection,
    ):
        assert (await connection.exchange("GET", "/")).body == BODY
        await until_over(sender)
    assert sender.sent == [(0, len(BODY))]


async def test_where_the_file_system_cannot_the_rest_is_read(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, steps = FileBody.send, iter(range(100))

    async def twice(body: FileBody, socket: int, offset: int, size: int) -> int | None:
        return None if next(steps) >= 2 else await send(body, socket, offset, min(size, 1000))

    monkeypatch.setattr(FileBody, "send", twice)
    async with asked(sender) as (_, connection):
        assert (await connection.response()).body == BODY
    assert sender.sent == [(2000, len(BODY))]


async def test_others_have_their_turn_between_steps(sender: Sender) -> None:
    lengthen(sender)
    async with asked(sender) as (served, connection):
        response = await connection.start_response()
        whole = asyncio.create_task(response.whole())
        async with await Connection.open(served.url) as other:
            assert (await other.exchange("GET", "/0-1000")).status == 200
        assert sender.sent == [(1000, 1000)]
        assert len((await whole).body) == LONG
