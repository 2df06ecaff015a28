"""New connections before they have a transport: who is answered and gone, and who stays."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgeproxy.proxy.newcomer import ends_here
from tests.kit import Answer
from tests.proxy.parts import PATIENCE, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.kit import ScriptedOrigin
    from tests.proxy.parts import ServedEdge

FRESH = {"Cache-Control": "max-age=600"}
LARGE = b"large" * 2_500_000
"""More than the kernel takes at once from someone whose client does not read."""
HIT = b"GET /page HTTP/1.1\r\nHost: shop.test\r\n\r\n"
LAST = b"GET /page HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"

pytestmark = pytest.mark.both_loops


@pytest.fixture
async def shop(tmp_path: Path, origin: ScriptedOrigin) -> AsyncIterator[ServedEdge]:
    origin.route("/page", Answer(200, FRESH, b"page"))
    origin.route("/large", Answer(200, FRESH, LARGE))
    origin.route("/other", Answer(200, FRESH, b"other"))
    limits = {"max_connections_per_client": 4, "header_timeout": 1.0}
    memory = {"max_object_bytes": "16MiB"}
    async with running(tmp_path, origin, config={"limits": limits, "memory": memory}) as shop:
        for target in ("/page", "/large"):
            for _ in range(2):
                await shop.get(target)
        await until(lambda: shop.edge.server.open_connections == 0)
        yield shop


async def until(condition) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


def port_of(shop: ServedEdge) -> int:
    return int(shop.url.rpartition(":")[2])


def connect(shop: ServedEdge, sent: bytes = b"", *, room: int | None = None) -> socket.socket:
    """A connection that has sent this by the time that the edge sees it."""
    client = socket.socket()
    if room is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    client.connect(("127.0.0.1", port_of(shop)))
    client.sendall(sent)
    client.setblocking(False)
    return client


async def read_all(client: socket.socket) -> bytes:
    """What comes until the edge closes the connection; raises ConnectionError at a reset."""
    loop, got = asyncio.get_running_loop(), b""
    async with asyncio.timeout(PATIENCE):
        while data := await loop.sock_recv(client, 65536):
            got += data
    client.close()
    return got


async def read_answer(client: socket.socket) -> bytes:
    loop, got = asyncio.get_running_loop(), b""
    async with asyncio.timeout(PATIENCE):
        while not got.endswith(b"\r\n\r\npage"):
            got += await loop.sock_recv(client, 65536)
    return got


async def test_a_last_request_that_came_along_takes_no_transport(
    shop: ServedEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.edge.arrivals, "_make_transport", None)
    answer = await read_all(connect(shop, LAST))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\npage")
    assert shop.edge.server.open_connections == 0


async def test_nor_does_one_that_comes_later(
    shop: ServedEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shop.edge.arrivals, "_make_transport", None)
    client = connect(shop)
    await until(lambda: shop.edge.server.open_connections == 1)
    client.sendall(LAST)
    assert (await read_all(client)).endswith(b"\r\n\r\npage")
    assert shop.edge.server.open_connections == 0


@pytest.mark.parametrize(
    ("sent", "then"),
    [
        pytest.param(HIT, LAST, id="a hit"),
        pytest.param(HIT + HIT[:20], HIT[20:] + LAST, id="a hit and a half"),
        pytest.param(HIT[:20], HIT[20:] + LAST, id="a half"),
        pytest.param(b"", HIT + LAST, id="nothing"),
        pytest.param(b"\r\n", HIT + LAST, id="an empty line"),
    ],
)
async def test_a_connection_that_stays_goes_on(shop: ServedEdge, sent: bytes, then: bytes) -> None:
    client = connect(shop, sent)
    await until(lambda: shop.edge.server.open_connections == 1)
    client.sendall(then)
    answer = await read_all(client)
    assert answer.count(b"\r\n\r\npage") == (sent + then).count(b"GET /page")
    await until(lambda: shop.edge.server.open_connections == 0)


async def test_what_is_no_hit_goes_on_too(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    answer = await read_all(connect(shop, HIT + LAST.replace(b"/page", b"/other")))
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert answer.endswith(b"\r\n\r\nother")
    assert [request.target for request in origin.requests].count("/other") == 1


async def test_a_slow_reader_gets_all_of_a_long_answer(shop: ServedEdge) -> None:
    client = connect(shop, LAST.replace(b"/page", b"/large"), room=1 << 17)
    await until(lambda: shop.edge.server.open_connections == 1)
    assert (await read_all(client)).endswith(LARGE)
    await until(lambda: shop.edge.server.open_connections == 0)


async def test_an_answer_arrives_though_more_was_sent_than_is_read(shop: ServedEdge) -> None:
    """Closing with bytes unread would be a reset (RFC 9112 9.6)."""
    client = connect(shop, LAST + b"x" * 40_000)
    assert (await read_all(client)).endswith(b"\r\n\r\npage")


async def test_who_sends_nothing_is_not_waited_for_for_ever(shop: ServedEdge) -> None:
    assert await read_all(connect(shop)) == b""
    assert shop.edge.server.open_connections == 0


async def test_half_a_head_is_due_when_the_whole_was(shop: ServedEdge) -> None:
    client = connect(shop)
    await asyncio.sleep(0.3)
    client.sendall(HIT[:20])
    later = asyncio.create_task(read_all(connect(shop, HIT[:20])))
    assert (await read_all(client)).startswith(b"HTTP/1.1 408 ")
    assert not later.done()
    assert (await later).startswith(b"HTTP/1.1 408 ")


async def test_who_goes_away_is_forgotten(shop: ServedEdge) -> None:
    client = connect(shop)
    await until(lambda: shop.edge.server.open_connections == 1)
    client.close()
    await until(lambda: shop.edge.server.open_connections == 0)


async def test_those_that_wait_count_as_connections_of_their_client(shop: ServedEdge) -> None:
    limits = shop.edge.server.crowd.capacity
    shop.edge.server.crowd.capacity = replace(limits, per_client=2, local_too=True)
    held = [connect(shop) for _ in range(2)]
    await until(lambda: shop.edge.server.open_connections == 2)
    refused = await read_all(connect(shop, LAST))
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"too-many-connections" in refused
    held.pop().close()
    await until(lambda: shop.edge.server.open_connections == 1)
    assert (await read_all(connect(shop, LAST))).startswith(b"HTTP/1.1 200 ")
    held.pop().close()


async def test_one_that_is_handed_over_never_stops_counting(shop: ServedEdge) -> None:
    limits = shop.edge.server.crowd.capacity
    shop.edge.server.crowd.capacity = replace(limits, per_client=1, local_too=True)
    for _ in range(20):
        client = connect(shop, HIT)
        assert (await read_answer(client)).startswith(b"HTTP/1.1 200 ")
        refused = await read_all(connect(shop, LAST))
        assert refused.startswith(b"HTTP/1.1 503 ")
        client.close()
        await until(lambda: shop.edge.server.open_connections == 0)


async def test_a_drain_lets_who_is_new_ask_once(shop: ServedEdge) -> None:
    client = connect(shop)
    await until(lambda: shop.edge.server.open_connections == 1)
    shop.edge.begin_drain()
    client.sendall(HIT)
    answer = await read_all(client)
    assert answer.endswith(b"\r\n\r\npage")
    assert b"Connection: close\r\n" in answer
    async with asyncio.timeout(PATIENCE):
        await shop.edge.server.drained()


async def test_a_shutdown_breaks_off_who_waits(shop: ServedEdge) -> None:
    client = connect(shop)
    await until(lambda: shop.edge.server.open_connections == 1)
    await shop.edge.server.shutdown()
    with pytest.raises(ConnectionResetError):
        await read_all(client)


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (LAST, True),
        (LAST + LAST, False),
        (LAST + b"x", False),
        (b"\r\n\r\n" + LAST, False),
    ],
)
def test_where_a_head_ends_the_data(data: bytes, whole: bool) -> None:
    assert ends_here(data) is whole


async def test_a_close_forsakes_those_for_whom_there_may_be_room(
    shop: ServedEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.proxy.arrivals._SETTLES_SECONDS", 0.1)
    clients = [connect(shop) for _ in range(5)]
    await until(lambda: shop.edge.arrivals.open_connections == 5)
    assert shop.edge.server.open_connections == 4
    await shop.edge.close()
    assert shop.edge.arrivals.open_connections == 0
    for client in clients:
        with contextlib.suppress(ConnectionError):
            assert await read_all(client) == b""
    await asyncio.sleep(0.2)
