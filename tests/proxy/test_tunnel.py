"""Upgrades: who gets one, and the tunnel over real connections, under both event loops."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import pytest
import trustme

from edgeproxy.proxy.tunnel import splice, switched_as_asked, upgrade_requested
from edgeproxy.semantics.fields import Fields

pytestmark = pytest.mark.both_loops


PATIENCE = 10.0
"""Seconds that a test waits for what has to come."""
LARGE = bytes(range(256)) * 32 * 1024
"""8 MiB: more than all the buffers on its way take."""
BUFFERED = 1024 * 1024
"""More than a connection's buffer may ever hold: its limit, and what one read brings."""


# -- asking


@pytest.mark.parametrize(
    ("fields", "version", "expected"),
    [
        pytest.param([(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")], "1.1", True),
        pytest.param([(b"connection", b"upgrade"), (b"upgrade", b"WebSocket")], "1.1", True),
        pytest.param(
            [(b"Connection", b"keep-alive, Upgrade"), (b"Upgrade", b"websocket")], "1.1", True
        ),
        pytest.param(
            [
                (b"Connection", b"keep-alive"),
                (b"Connection", b"UPGRADE"),
                (b"Upgrade", b"IRC/6.9, RTA/x11"),
            ],
            "1.1",
            True,
            id="several lines, several protocols",
        ),
        pytest.param([], "1.1", False, id="plain"),
        pytest.param([(b"Upgrade", b"websocket")], "1.1", False, id="7.8: no connection option"),
        pytest.param([(b"Connection", b"upgrade")], "1.1", False, id="7.8: no protocol"),
        pytest.param(
            [(b"Connection", b"close"), (b"Upgrade", b"websocket")], "1.1", False, id="other option"
        ),
        pytest.param(
            [(b"Connection", b"upgrades"), (b"Upgrade", b"websocket")], "1.1", False, id="no token"
        ),
        pytest.param([(b"Connection", b"upgrade"), (b"Upgrade", b"")], "1.1", False, id="empty"),
        pytest.param([(b"Connection", b"upgrade"), (b"Upgrade", b" , ")], "1.1", False, id="none"),
        pytest.param(
            [(b"Connection", b"upgrade"), (b"Upgrade", b"a b")], "1.1", False, id="malformed name"
        ),
        pytest.param(
            [(b"Connection", b"upgrade"), (b"Upgrade", b"a/")], "1.1", False, id="malformed version"
        ),
        pytest.param(
            [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")], "1.0", False, id="7.8: 1.0"
        ),
        *(
            pytest.param(
                [(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", protocol)],
                "1.1",
                False,
                id=protocol.decode(),
            )
            for protocol in (b"h2c", b"H2C", b"websocket, h2c", b"h2", b"HTTP/2.0", b"h2c/1")
        ),
    ],
)
def test_upgrade_requested(fields: list[tuple[bytes, bytes]], version: str, expected: bool) -> None:
    assert upgrade_requested(Fields(fields), version) is expected


@pytest.mark.parametrize(
    ("asked", "chosen", "expected"),
    [
        pytest.param(b"websocket", [b"websocket"], True, id="the-one"),
        pytest.param(b"websocket", [b"WebSocket"], True, id="in-another-case"),
        pytest.param(b"IRC/6.9, RTA/x11", [b"RTA/x11"], True, id="one-of-two"),
        pytest.param(b"IRC/6.9, RTA/x11", [b"RTA/x11", b"IRC/6.9"], True, id="both"),
        pytest.param(b"IRC/6.9", [b"IRC/7"], False, id="another-version"),
        pytest.param(b"websocket", [b"h2c"], False, id="another"),
        pytest.param(b"websocket", [b"websocket, h2c"], False, id="one-more"),
        pytest.param(b"websocket", [], False, id="none"),
        pytest.param(b"", [b"websocket"], False, id="unasked"),
    ],
)
def test_switched_as_asked(asked: bytes, chosen: list[bytes], expected: bool) -> None:
    fields = Fields([(b"Upgrade", each) for each in chosen])
    assert switched_as_asked(asked, fields) is expected


# -- the tunnel


@dataclass
class Far:
    """A connection's other end: what the client, or the origin, sees."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def receive(self, count: int) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(count)

    async def rest(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def ended(self) -> bool:
        try:
            return await self.rest() == b""
        except ConnectionError:
            return True


@asynccontextmanager
async def connection(
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    buffers: int | None = None,
) -> AsyncIterator[tuple[asyncio.Transport, Far]]:
    """A connection on the loopback: this end's transport, with a protocol that reads nothing.

    `buffers`: how many bytes the kernel, and the other end's reader, take beforehand.
    """
    loop = asyncio.get_running_loop()
    near: asyncio.Future[asyncio.Transport] = loop.create_future()

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            near.set_result(cast("asyncio.Transport", transport))

    server = await loop.create_server(Accepting, "127.0.0.1", 0, ssl=tls[0] if tls else None)
    try:
        address = server.sockets[0].getsockname()
        sock = socket.socket()
        sock.setblocking(False)
        if buffers is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        await loop.sock_connect(sock, address)
        reader, writer = await asyncio.open_connection(
            sock=sock,
            limit=buffers or 64 * 1024,
            ssl=tls[1] if tls else None,
            server_hostname=address[0] if tls else None,
        )
        transport = await near
        if buffers is not None:
            own = transport.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        try:
            yield transport, Far(reader, writer)
        finally:
            for end in (transport, writer.transport):
                if not end.is_closing():
                    end.abort()
    finally:
        server.close()


@dataclass
class Tunnel:
    """A tunnel under way between two connections."""

    task: asyncio.Task[tuple[int, int]]
    client: Far
    origin: Far
    near_client: asyncio.Transport
    near_origin: asyncio.Transport

    async def moved(self) -> tuple[int, int]:
        """The bytes to the origin, and to the client, once it has ended."""
        async with asyncio.timeout(PATIENCE):
            return await self.task


Prepare = Callable[[asyncio.Transport, asyncio.Transport], None]


@asynccontextmanager
async def tunnel(
    from_client: bytes = b"",
    from_origin: bytes = b"",
    idle: float = PATIENCE * 2,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    prepare: Prepare | None = None,
) -> AsyncIterator[Tunnel]:
    async with connection(tls) as (near_client, client), connection() as (near_origin, origin):
        if prepare is not None:
            prepare(near_client, near_origin)
        spliced = splice(near_client, near_origin, from_client, from_origin, idle)
        task = asyncio.create_task(spliced)
        # Nothing is to come in before the connections are the tunnel's.
        await asyncio.sleep(0)
        yield Tunnel(task, client, origin, near_client, near_origin)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_bytes_go_both_ways() -> None:
    async with tunnel() as spliced:
        spliced.client.writer.write(b"ping")
        assert await spliced.origin.receive(4) == b"ping"
        spliced.origin.writer.write(b"pong!")
        assert await spliced.client.receive(5) == b"pong!"
        spliced.client.writer.close()
        assert await spliced.origin.ended()
        spliced.origin.writer.close()
        assert await spliced.moved() == (4, 5)


async def test_what_was_received_before_goes_first() -> None:
    async with tunnel(b"early ", b"soon ") as spliced:
        spliced.client.writer.write(b"bird")
        spliced.origin.writer.write(b"enough")
        assert await spliced.origin.receive(10) == b"early bird"
        assert await spliced.client.receive(11) == b"soon enough"
        spliced.client.writer.close()
        spliced.origin.writer.close()
        assert await spliced.moved() == (10, 11)


async def test_a_connection_that_was_not_read_is_read_on() -> None:
    def pause(client: asyncio.Transport, origin: asyncio.Transport) -> None:
        client.pause_reading()
        origin.pause_reading()

    async with tunnel(prepare=pause) as spliced:
        spliced.client.writer.write(b"ping")
        assert await spliced.origin.receive(4) == b"ping"
        spliced.origin.writer.write(b"pong")
        assert await spliced.client.receive(4) == b"pong"


@pytest.mark.parametrize("first", ["client", "origin"])
async def test_one_direction_may_end_before_the_other(first: str) -> None:
    async with tunnel() as spliced:
        ending, other = spliced.client, spliced.origin
        if first == "origin":
            ending, other = other, ending
        ending.writer.write(b"question")
        ending.writer.write_eof()
        assert await other.rest() == b"question"
        assert not spliced.task.done()
        other.writer.write(LARGE)
        other.writer.write_eof()
        assert await ending.rest() == LARGE
        expected = (8, len(LARGE)) if first == "client" else (len(LARGE), 8)
        assert await spliced.moved() == expected


@pytest.mark.parametrize("lost", ["client", "origin"])
async def test_a_lost_connection_ends_both(lost: str) -> None:
    async with tunnel() as spliced:
        ending, other = spliced.client, spliced.origin
        near = spliced.near_client
        if lost == "origin":
            ending, other, near = other, ending, spliced.near_origin
        ending.writer.write(b"last words")
        assert await other.receive(10) == b"last words"
        near.abort()
        assert await other.ended()
        await spliced.moved()
        assert spliced.near_client.is_closing()
        assert spliced.near_origin.is_closing()


async def test_what_a_lost_peer_sent_still_arrives() -> None:
    async with tunnel() as spliced:
        spliced.origin.writer.write(LARGE)
        spliced.origin.writer.close()
        received = await spliced.client.receive(len(LARGE))
        assert received == LARGE
        spliced.client.writer.close()
        assert await spliced.moved() == (0, len(LARGE))


@pytest.mark.parametrize("gone", ["client", "origin"])
async def test_a_connection_that_is_closing_already_ends_both(gone: str) -> None:
    def close(client: asyncio.Transport, origin: asyncio.Transport) -> None:
        (client if gone == "client" else origin).close()

    async with tunnel(b"abc", b"def", prepare=close) as spliced:
        await spliced.moved()
        assert spliced.near_client.is_closing()
        assert spliced.near_origin.is_closing()


async def test_cancelling_it_closes_both() -> None:
    async with tunnel() as spliced:
        spliced.client.writer.write(b"ping")
        assert await spliced.origin.receive(4) == b"ping"
        spliced.task.cancel()
        assert await spliced.client.ended()
        assert await spliced.origin.ended()


# -- slow peers


async def stalled(writer: asyncio.StreamWriter) -> None:
    """Wait until nothing of what was written leaves any more."""
    before = -1
    async with asyncio.timeout(PATIENCE):
        while (size := writer.transport.get_write_buffer_size()) != before:
            before = size
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("slow", ["client", "origin"])
async def test_a_fast_peer_waits_for_a_slow_one(slow: str) -> None:
    async with tunnel() as spliced:
        fast, slow_end, near = spliced.origin, spliced.client, spliced.near_client
        if slow == "origin":
            fast, slow_end, near = spliced.client, spliced.origin, spliced.near_origin
        body = LARGE * 4
        # The stream's own reading stops, and then the kernel's buffers fill up.
        slow_end.writer.transport.pause_reading()
        fast.writer.write(body)
        await stalled(fast.writer)
        assert fast.writer.transport.get_write_buffer_size() > 0
        assert 0 < near.get_write_buffer_size() < BUFFERED
        # The other direction is not held up.
        slow_end.writer.write(b"meanwhile")
        assert await fast.receive(9) == b"meanwhile"
        slow_end.writer.transport.resume_reading()
        assert await slow_end.receive(len(body)) == body


async def test_a_connection_that_was_full_before_holds_the_other_up() -> None:
    """Its transport has told its former protocol to pause, and won't say so again."""
    before = LARGE * 2
    async with connection() as (near_client, client), connection() as (near_origin, origin):
        client.writer.transport.pause_reading()
        near_client.write(before)
        full = near_client.get_write_buffer_size()
        assert full > BUFFERED
        task = asyncio.create_task(splice(near_client, near_origin, b"", b"", PATIENCE))
        await asyncio.sleep(0)
        origin.writer.write(LARGE * 2)
        await stalled(origin.writer)
        assert near_client.get_write_buffer_size() < full + BUFFERED
        client.writer.transport.resume_reading()
        assert await client.receive(len(before) * 2) == before + LARGE * 2
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- idle ones


async def test_an_idle_tunnel_ends() -> None:
    async with tunnel(b"abc", b"de", idle=0.05) as spliced:
        assert await spliced.moved() == (3, 2)
        assert await spliced.origin.rest() == b"abc"
        assert await spliced.client.rest() == b"de"


async def test_bytes_in_either_direction_keep_it_open() -> None:
    loop = asyncio.get_running_loop()
    async with tunnel(idle=0.3) as spliced:
        start = loop.time()
        while loop.time() < start + 0.7:
            spliced.origin.writer.write(b".")
            assert await spliced.client.receive(1) == b"."
            await asyncio.sleep(0.02)
        assert not spliced.task.done()


async def test_a_peer_that_takes_nothing_is_not_waited_for_longer() -> None:
    async with tunnel(idle=0.2) as spliced:
        spliced.client.writer.transport.pause_reading()
        spliced.origin.writer.write(LARGE * 4)
        _, to_client = await spliced.moved()
        assert to_client < 4 * len(LARGE)


async def test_a_peer_that_takes_little_by_little_is() -> None:
    """Nothing is read from the origin meanwhile: what the client still has to take is enough."""
    body = LARGE[: 600 * 1024]
    async with connection(buffers=16 * 1024) as (near_client, client), connection() as near_far:
        near_origin, origin = near_far
        task = asyncio.create_task(splice(near_client, near_origin, b"", b"", 0.4))
        await asyncio.sleep(0)
        origin.writer.write(body)
        got = b""
        async with asyncio.timeout(PATIENCE):
            while chunk := await client.reader.read(8192):
                got += chunk
                if len(got) == len(body):
                    break
                await asyncio.sleep(0.015)
        assert got == body
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- TLS, which knows no half-closed connections


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def test_over_tls(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with tunnel(b"early ", tls=tls) as spliced:
        spliced.client.writer.write(b"ping")
        assert await spliced.origin.receive(10) == b"early ping"
        sending = asyncio.create_task(spliced.client.receive(len(LARGE)))
        spliced.origin.writer.write(LARGE)
        assert await sending == LARGE
        spliced.client.writer.close()
        assert await spliced.origin.ended()
        spliced.origin.writer.close()
        assert await spliced.moved() == (10, len(LARGE))


async def test_an_end_that_tls_cannot_pass_on_closes(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with tunnel(tls=tls) as spliced:
        spliced.origin.writer.write(LARGE)
        spliced.origin.writer.write_eof()
        assert await spliced.client.receive(len(LARGE)) == LARGE
        assert await spliced.client.ended()
        spliced.client.writer.close()
        assert await spliced.moved() == (0, len(LARGE))
