"""Handshakes: they count as connections, and end when they must."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from tests.e2e.secure import speak_tls
from tests.e2e.test_limits import FRESH, HIT, PATIENCE, refused
from tests.kit.origin import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import StartEdge
    from tests.kit.edge import EdgeProcess
    from tests.kit.origin import ScriptedOrigin


def place_of(edge: EdgeProcess) -> tuple[str, int]:
    host, _, port = edge.config["listen"][0]["address"].partition(":")
    return host, int(port)


@pytest.fixture
def silent() -> Iterator[list[socket.socket]]:
    """Connections whose clients say nothing."""
    connections: list[socket.socket] = []
    yield connections
    for connection in connections:
        connection.close()


async def test_they_count_as_connections(
    tmp_path: Path,
    start_edge: StartEdge,
    origin: ScriptedOrigin,
    silent: list[socket.socket],
) -> None:
    limits = {"max_connections": 4, "header_timeout": "1s"}
    edge = await start_edge(origin, config={"limits": limits})
    await speak_tls(edge, tmp_path)
    silent += [socket.create_connection(place_of(edge)) for _ in range(8)]
    async with asyncio.timeout(PATIENCE):
        while not (await refused(edge)).get("connections-full"):
            await asyncio.sleep(0.02)
        # All have their turn, and go when they have taken too long.
        for connection in silent:
            connection.setblocking(False)
            assert not await asyncio.get_running_loop().sock_recv(connection, 1)
    assert "Traceback" not in edge.log


async def test_a_client_may_have_only_so_many(
    tmp_path: Path,
    start_edge: StartEdge,
    origin: ScriptedOrigin,
    silent: list[socket.socket],
) -> None:
    origin.route("/page", Answer(200, FRESH, b"page"))
    edge = await start_edge(origin, config={"limits": {"max_connections_per_client": 3}})
    context = await speak_tls(edge, tmp_path)
    silent += [socket.create_connection(place_of(edge)) for _ in range(3)]
    host, port = place_of(edge)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(OSError):  # whatever a handshake fails with
            await asyncio.open_connection(host, port, ssl=context, server_hostname="shop.example")
        assert (await refused(edge))["too-many-connections"] == 1
        silent.pop().close()
        while True:
            try:
                reader, writer = await asyncio.open_connection(
                    host, port, ssl=context, server_hostname="shop.example"
                )
                break
            except OSError:
                await asyncio.sleep(0.02)
        writer.write(HIT)
        assert (await reader.readuntil(b"page")).startswith(b"HTTP/1.1 200")
    writer.close()


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + bytes(600), b""]
)
async def test_what_is_no_handshake_is_closed_without_noise(
    tmp_path: Path, start_edge: StartEdge, origin: ScriptedOrigin, sent: bytes
) -> None:
    edge = await start_edge(origin)
    await speak_tls(edge, tmp_path)
    reader, writer = await asyncio.open_connection(*place_of(edge))
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(PATIENCE):
        # With an alert, perhaps.
        assert len(await reader.read()) < 100
    writer.close()
    assert (await edge.admin("GET", "/v1/status")).status == 200
    assert "Traceback" not in edge.log
