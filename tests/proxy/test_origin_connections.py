"""Connections to an origin: how many, how long, how made, and to whom."""

import asyncio
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from edgeproxy.proxy import origin_connections
from edgeproxy.proxy.errors import (
    OriginBodyCut,
    OriginBusy,
    OriginTimedOut,
    OriginUnreachable,
    OutOfFiles,
)
from tests.kit import Answer, ScriptedOrigin
from tests.proxy.origin_client import HOST, body_of, client_of, fetch, get

pytestmark = pytest.mark.both_loops


async def test_a_connection_is_kept_for_the_next_request(origin: ScriptedOrigin) -> None:
    origin.otherwise(Answer(body=b"ok"))
    async with client_of(origin) as client:
        for _ in range(3):
            await fetch(client)
    assert origin.connections == 1


async def test_a_connection_is_kept_only_so_long(origin: ScriptedOrigin) -> None:
    origin.otherwise(Answer(body=b"ok"))
    async with client_of(origin, pool={"keepalive": 0.1}) as client:
        await fetch(client)
        await origin.quiet()
        assert await fetch(client) == b"ok"
    assert origin.connections == 2


async def test_no_connection_is_kept_where_none_is_to_be(origin: ScriptedOrigin) -> None:
    origin.otherwise(Answer(body=b"ok"))
    async with client_of(origin, pool={"keepalive": 0.0}) as client:
        await fetch(client)
        await origin.quiet()


async def test_there_are_never_more_than_the_pool_allows(origin: ScriptedOrigin) -> None:
    go_on = asyncio.Event()
    origin.otherwise(Answer(body=b"ok", hold=go_on))
    async with client_of(origin, connect=0.3, pool={"max_connections": 3}) as client:
        fetches = [asyncio.create_task(fetch(client)) for _ in range(30)]
        await origin.seen("/", 3)
        # Longer than it may take to connect: waiting for one's turn is no trouble of the network.
        await asyncio.sleep(0.4)
        assert origin.counts["/"] == 3
        go_on.set()
        assert await asyncio.gather(*fetches) == [b"ok"] * 30
    assert origin.connections == 3


async def test_new_ones_take_the_place_of_those_that_are_kept(origin: ScriptedOrigin) -> None:
    """A request that is not to meet a closing connection has no use for them."""
    go_on = asyncio.Event()
    origin.route("/", Answer(hold=go_on))
    async with client_of(origin, pool={"max_connections": 3}) as client:
        warm = [asyncio.create_task(get(client)) for _ in range(3)]
        await origin.seen("/", 3)
        go_on.set()
        for response in await asyncio.gather(*warm):
            response.release()
        for number in range(4, 8):
            (await client.send(b"POST", b"/", HOST)).release()
            assert origin.connections == number
            async with asyncio.timeout(5.0):
                while origin.open_connections > 3:
                    await asyncio.sleep(0.01)


async def test_only_so_many_wait_for_a_connection(
    origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin_connections, "MAX_QUEUE", 2)
    go_on = asyncio.Event()
    origin.otherwise(Answer(body=b"ok", hold=go_on))
    async with client_of(origin, pool={"max_connections": 1}) as client:
        fetches = [asyncio.create_task(fetch(client)) for _ in range(3)]
        await origin.seen("/")
        with pytest.raises(OriginBusy) as raised:
            await fetch(client)
        assert (raised.value.status, raised.value.detail) == (503, "origin-queue-full")
        go_on.set()
        assert await asyncio.gather(*fetches) == [b"ok"] * 3
        assert await fetch(client) == b"ok"


async def test_waiting_for_a_connection_has_an_end(origin: ScriptedOrigin) -> None:
    go_on = asyncio.Event()
    origin.otherwise(Answer(body=b"x" * 10, hold_body=go_on))
    async with client_of(origin, first_byte=0.2, pool={"max_connections": 1}) as client:
        response = await get(client)
        with pytest.raises(OriginTimedOut) as raised:
            await get(client)
        assert (raised.value.stage, raised.value.status) == ("queue", 504)
        go_on.set()
        await body_of(response)
        assert await fetch(client) == b"x" * 10


async def test_an_upgraded_connection_leaves_its_place_to_others(origin: ScriptedOrigin) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n"
    origin.route("/chat", [switch, 1.0])
    origin.route("/", Answer(body=b"ok"))
    async with client_of(origin, pool={"max_connections": 1}) as client:
        transport, _ = (await get(client, "/chat", upgrade=True)).upgrade()
        assert await fetch(client) == b"ok"
        transport.abort()
    origin.complaints.clear()


async def test_after_retiring_each_request_ends_its_connection(origin: ScriptedOrigin) -> None:
    origin.otherwise(Answer(body=b"ok"))
    go_on = asyncio.Event()
    origin.route("/slow", Answer(body=b"slow", hold=go_on))
    async with client_of(origin) as client:
        await fetch(client)
        slow = asyncio.create_task(fetch(client, "/slow"))
        await origin.seen("/slow")
        await fetch(client)
        client.retire()
        assert await fetch(client) == b"ok"
        go_on.set()
        assert await slow == b"slow"
        await origin.quiet()


async def test_closing_tells_whoever_still_reads(origin: ScriptedOrigin) -> None:
    origin.otherwise(Answer(body=b"x" * 10, hold_body=asyncio.Event()))
    async with client_of(origin) as client:
        response = await get(client)
        reading = asyncio.create_task(response.read_chunk())
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(OriginBodyCut):
            await reading


async def test_a_response_that_nobody_released_loses_no_place(origin: ScriptedOrigin) -> None:
    origin.route("/forgotten", Answer(body=b"x" * 100_000))
    origin.route("/", Answer(body=b"ok"))
    async with client_of(origin, first_byte=0.5, pool={"max_connections": 1}) as client:
        response = await get(client, "/forgotten")
        del response
        assert await fetch(client) == b"ok"
    origin.complaints.clear()


# -- connecting


async def test_a_refused_connection_is_an_unreachable_origin(origin: ScriptedOrigin) -> None:
    await origin.stop_listening()
    async with client_of(origin) as client:
        with pytest.raises(OriginUnreachable) as raised:
            await get(client)
        assert (raised.value.status, raised.value.detail) == (502, "origin-unreachable")
        assert str(raised.value) == "no connection to the origin: connection refused"
        await origin.start()
        origin.otherwise(Answer(body=b"ok"))
        assert await fetch(client) == b"ok"


async def test_an_unknown_name_is_an_unreachable_origin() -> None:
    async with client_of("http://origin.invalid:8080") as client:
        with pytest.raises(OriginUnreachable, match="name is not known"):
            await get(client)


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that neither accepts nor refuses: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for one in waiting:
            one.close()


async def test_connecting_may_take_only_so_long(mute_port: int) -> None:
    async with client_of(f"http://127.0.0.1:{mute_port}", connect=0.2) as client:
        with pytest.raises(OriginTimedOut) as raised:
            await get(client)
        assert (raised.value.stage, raised.value.status) == ("connect", 504)


# -- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def server_tls(authority: trustme.CA, *names: str) -> tuple[ssl.SSLContext, list[str | None]]:
    """A server's context with a certificate of these names, and the names it is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    asked: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked.append(name)  # type: ignore[assignment]
    return context, asked


async def test_an_origin_proves_who_it_is(authority: trustme.CA, ca_file: Path) -> None:
    context, asked = server_tls(authority, "origin.example", "localhost")
    async with ScriptedOrigin(tls=context) as origin:
        origin.otherwise(Answer(body=b"secret"))
        by_url = f"https://localhost:{origin.port}"
        async with client_of(by_url, tls={"ca_file": ca_file}) as client:
            assert await fetch(client) == b"secret"
            assert await fetch(client) == b"secret"
        by_name = {"ca_file": ca_file, "server_name": "origin.example"}
        async with client_of(origin, tls=by_name) as client:
            assert await fetch(client) == b"secret"
        assert origin.connections == 2
    assert asked == ["localhost", "origin.example"]


async def test_the_authorities_of_the_machine_are_trusted(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    monkeypatch.setattr(origin_connections, "_trusting_machine", origin_connections._trusting)
    context, _ = server_tls(authority, "127.0.0.1")
    async with ScriptedOrigin(tls=context) as origin:
        origin.otherwise(Answer(body=b"ok"))
        async with client_of(origin) as client:
            assert await fetch(client) == b"ok"


@pytest.mark.parametrize(
    "tls",
    [
        pytest.param({}, id="another's authority"),
        pytest.param({"ca_file": True}, id="another's name"),
        pytest.param({"ca_file": True, "server_name": "www.example"}, id="another than asked for"),
    ],
)
async def test_an_origin_that_can_not_prove_it_gets_no_request(
    authority: trustme.CA, ca_file: Path, tls: dict[str, Any]
) -> None:
    settings = {name: ca_file if value is True else value for name, value in tls.items()}
    context, _ = server_tls(authority, "origin.example")
    async with ScriptedOrigin(tls=context) as origin:
        async with client_of(origin, tls=settings) as client:
            with pytest.raises(OriginUnreachable, match="certificate"):
                await get(client)
        assert origin.requests == []


async def test_proof_may_be_waived(authority: trustme.CA) -> None:
    context, _ = server_tls(authority, "origin.example")
    async with ScriptedOrigin(tls=context) as origin:
        origin.otherwise(Answer(body=b"ok"))
        async with client_of(origin, tls={"verify": False}) as client:
            assert await fetch(client) == b"ok"


async def test_an_origin_that_does_not_speak_tls_is_unreachable() -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with client_of(f"https://127.0.0.1:{port}") as client:
            with pytest.raises(OriginUnreachable, match="TLS"):
                await get(client)


async def test_a_handshake_may_take_only_so_long() -> None:
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass
        writer.close()
        ended.set()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with client_of(f"https://127.0.0.1:{port}", connect=0.2) as client:
            with pytest.raises(OriginTimedOut) as raised:
                await get(client)
            assert (raised.value.stage, raised.value.status) == ("connect", 504)
            # No socket is left behind.
            async with asyncio.timeout(5.0):
                await ended.wait()


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_authorities_that_can_not_be_read_make_it_unreachable_until_they_can(
    authority: trustme.CA, ca_file: Path, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    context, _ = server_tls(authority, "127.0.0.1")
    async with ScriptedOrigin(tls=context) as origin:
        origin.otherwise(Answer(body=b"ok"))
        async with client_of(origin, tls={"ca_file": path}) as client:
            with pytest.raises(OriginUnreachable):
                await get(client)
            path.write_bytes(ca_file.read_bytes())
            assert await fetch(client) == b"ok"


async def test_a_large_body_comes_whole_over_tls(authority: trustme.CA, ca_file: Path) -> None:
    context, _ = server_tls(authority, "127.0.0.1")
    async with ScriptedOrigin(tls=context) as origin:
        origin.route("/", Answer(body=b"x" * 1_000_000))
        async with client_of(origin, tls={"ca_file": ca_file}) as client:
            assert await fetch(client) == b"x" * 1_000_000


async def test_want_of_descriptors_is_not_the_origin_s_fault(origin: ScriptedOrigin) -> None:
    """Others would be asked in its place, and it would be taken for down."""
    origin.otherwise(Answer(body=b"ok"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with client_of(origin) as client:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(OutOfFiles):
                await fetch(client)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await fetch(client) == b"ok"
