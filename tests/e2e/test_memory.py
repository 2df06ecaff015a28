"""What a worker takes is bounded, whatever is asked of it."""

import asyncio
import socket
from pathlib import Path

import pytest

from tests.conftest import StartEdge
from tests.e2e.secure import speak_tls
from tests.kit import Answer, Connection, EdgeProcess, OriginRequest, ScriptedOrigin

MB = 1_000_000
CACHEABLE = {"Cache-Control": "max-age=3600"}
UNSTORED = {"Cache-Control": "no-store"}
SLACK = 30 * MB
"""What buffers, threads and the interpreter may take beside what is configured."""


def anonymous(pid: int) -> int:
    """The bytes of memory that a process has for itself, of no file: what it can't give back."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell")


@pytest.mark.parametrize(
    ("size", "idle_size", "fields"),
    [
        pytest.param(400_000, 400_000, CACHEABLE, id="for memory"),
        pytest.param(5 * MB, 5 * MB, CACHEABLE, id="for the disk alone"),
        # So long that sockets do not take all of it.
        pytest.param(5 * MB, 30 * MB, UNSTORED, id="not stored"),
    ],
)
async def test_a_flood_of_large_misses_takes_no_more_memory_than_it_may(
    origin: ScriptedOrigin,
    start_edge: StartEdge,
    size: int,
    idle_size: int,
    fields: dict[str, str],
) -> None:
    body, idle_body = bytes(size), bytes(idle_size)

    def page(request: OriginRequest) -> Answer:
        return Answer(200, fields, idle_body if request.target.startswith("/idle/") else body)

    origin.otherwise(page)
    memory = {"max_bytes": "8MB", "max_object_bytes": "1MB"}
    edge = await start_edge(
        origin,
        config={"memory": memory, "store": {"max_bytes": "64MB", "max_object_bytes": "20MB"}},
    )
    await edge.get("/first")
    (worker,) = edge.pids()
    before = anonymous(worker)
    peak = 0

    async def read(reader: int) -> None:
        nonlocal peak
        async with await edge.connect() as connection:
            for number in range(2 * (60 * MB // size // 10)):
                target = f"/{reader}/{number // 2}"
                assert (await connection.exchange("GET", target)).body == body
                peak = max(peak, anonymous(worker))

    # Some take the head of an answer, and no more.
    idle = [await stalled(edge, f"/idle/{number}") for number in range(20)]
    async with asyncio.TaskGroup() as readers:
        for reader in range(10):
            readers.create_task(read(reader))
    assert peak - before < 8 * MB + SLACK
    for connection in idle:
        connection.reset()


async def stalled(edge: EdgeProcess, target: str) -> Connection:
    connection = await edge.connect()
    await connection.request("GET", target)
    await connection.start_response()
    return connection


async def test_readers_over_tls_that_take_nothing_are_little(
    tmp_path: Path, origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    """Nothing is encrypted long before it is taken; and what they had goes back to the system."""
    origin.otherwise(Answer(200, CACHEABLE, bytes(900_000)))
    edge = await start_edge(origin, config={"memory": {"max_object_bytes": "1MB"}})
    context = await speak_tls(edge, tmp_path)
    host, _, port = edge.config["listen"][0]["address"].partition(":")

    async def ask() -> Connection:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=context, server_hostname="shop.example", limit=1024
        )
        writer.write(b"GET /page HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        await reader.readexactly(12)
        return Connection(reader, writer, "shop.example")

    readers = [await ask()]
    (worker,) = edge.pids()
    before = anonymous(worker)
    readers += [await ask() for _ in range(60)]
    held = anonymous(worker) - before
    print(f"{held / 60_000:.0f} KB for each that takes nothing")
    assert held < 25 * MB
    for reader in readers:
        reader.reset()
    async with asyncio.timeout(20):
        while anonymous(worker) - before > 10 * MB:
            await asyncio.sleep(0.1)
