"""What readers may take of a whole edge: connections, files, requests under way, memory."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.e2e.secure import speak_tls
from tests.kit import Answer, Connection

if TYPE_CHECKING:
    from tests.conftest import StartEdge
    from tests.kit import EdgeProcess, ScriptedOrigin

PATIENCE = 10.0
FRESH = {"Cache-Control": "max-age=600"}
HIT = b"GET /page HTTP/1.1\r\nHost: shop.example\r\n\r\n"
IDLE = 10_000
IP_BIND_ADDRESS_NO_PORT = 24
"""Of Linux: the port is chosen when it is known who is at the other end."""
TICKS = os.sysconf("SC_CLK_TCK")


async def with_a_page(
    start_edge: StartEdge, origin: ScriptedOrigin, limits: dict[str, Any], **more: Any
) -> EdgeProcess:
    """An edge with these limits that has `/page` stored."""
    origin.route("/page", Answer(200, FRESH, b"page"))
    edge = await start_edge(origin, config={"limits": limits, "log": {"access": "off"}}, **more)
    assert (await edge.get("/page", {"Host": "shop.example"})).text == "page"
    return edge


async def refused(edge: EdgeProcess) -> dict[str, int]:
    """Whom it has refused, and how often: only what happened."""
    counts: dict[str, int] = (await edge.admin("GET", "/v1/status")).json()["refused"]
    return {name: count for name, count in counts.items() if count}


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def answered(connection: Connection) -> bool:
    async with asyncio.timeout(PATIENCE):
        return (await connection.exchange("GET", "/page", {"Host": "shop.example"})).text == "page"


async def test_idle_connections_make_room_for_new_ones(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    edge = await with_a_page(start_edge, origin, {"max_connections": 8})
    async with AsyncExitStack() as stack:
        for _ in range(30):
            connection = await stack.enter_async_context(await edge.connect())
            assert await answered(connection)
        counts = await refused(edge)
        workers = (await edge.admin("GET", "/v1/status")).json()["workers"]
    assert counts["idle-closed"] >= 22
    assert counts["connections-full"] >= 1
    assert workers[0]["connections"] <= 9
    assert edge.log.count("new connections wait until others end") == 1


async def test_a_client_has_only_so_many_connections(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    edge = await with_a_page(start_edge, origin, {"max_connections_per_client": 3})
    edge.write_config({"log": {"access": str(edge.config_path.with_name("access.log"))}})
    await edge.stop()
    await edge.start()
    held = [await edge.connect() for _ in range(3)]
    for connection in held:
        assert await answered(connection)
    async with await edge.connect() as one_more:
        response = await one_more.response("GET")
        assert (response.status, response.field("Retry-After")) == (503, "1")
        assert response.cache_status == {"detail": "too-many-connections"}
        assert await one_more.ended()
    assert (await refused(edge))["too-many-connections"] == 1
    async with asyncio.timeout(PATIENCE):
        while '"-" 503 ' not in edge.config_path.with_name("access.log").read_text():
            await asyncio.sleep(0.05)
    await held.pop().close()
    async with asyncio.timeout(PATIENCE), await edge.connect() as instead:
        assert await answered(instead)
    for connection in held:
        await connection.close()


async def test_trusted_proxies_have_as_many_as_they_like(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/page", Answer(200, FRESH, b"page"))
    config = {"limits": {"max_connections_per_client": 1}, "trusted_proxies": ["127.0.0.0/8"]}
    edge = await start_edge(origin, config=config)
    async with await edge.connect() as one, await edge.connect() as other:
        assert await answered(one)
        assert await answered(other)


async def test_without_descriptors_connections_wait_and_nothing_dies(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    """96 files: connections that do not ask take what there is; those behind them are neither
    closed nor served until some of them go, and the edge neither spins nor says so twice. What is
    left to origins and files stays so, however often it looks whether there is room."""
    edge = await with_a_page(
        start_edge, origin, {"header_timeout": "60s"}, sabotage="few_files"
    )  # fmt: skip
    (worker,) = edge.pids()
    silent = [await edge.connect() for _ in range(120)]
    await edge.logged("new connections wait until others end")
    asking = [await edge.connect() for _ in range(10)]
    for connection in asking:
        await connection.send(HIT)
    before = processor_seconds(worker)
    waiting = [asyncio.create_task(connection.response("GET")) for connection in asking]
    files = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    done, _ = await asyncio.wait(waiting, timeout=1.0)
    assert not done
    assert processor_seconds(worker) - before < 0.5
    assert len(list(Path(f"/proc/{worker}/fd").iterdir())) <= files + 2
    # What is kept for it answers the admin port meanwhile, and an origin's connection is made.
    assert (await refused(edge)).keys() & {"files-low", "connections-full"}
    for connection in silent:
        connection.reset()
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(*waiting)
    assert {answer.text for answer in answers} == {"page"}
    for connection in asking:
        await connection.close()
    assert edge.pids() == [worker]
    assert edge.log.count("new connections wait until others end") == 1


async def test_connections_over_tls_wait_like_others(
    tmp_path: Path, start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    """Again and again there is no room and some again: none is lost at the turn."""
    origin.route("/page", Answer(200, FRESH, b"page"))
    limits = {"max_connections": 4}
    edge = await start_edge(origin, config={"limits": limits, "log": {"access": "off"}})
    context = await speak_tls(edge, tmp_path)
    host, _, port = edge.config["listen"][0]["address"].partition(":")

    held = []
    async with asyncio.timeout(PATIENCE):
        for _ in range(12):
            reader, writer = await asyncio.open_connection(
                host, int(port), ssl=context, server_hostname="shop.example"
            )
            writer.write(HIT)
            assert (await reader.readuntil(b"page")).startswith(b"HTTP/1.1 200")
            held.append(writer)
    for writer in held:
        writer.close()
    assert (await refused(edge))["connections-full"] >= 1
    assert "Unhandled" not in edge.log


async def test_requests_beyond_the_limit_are_told_so_and_hits_go_on(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    edge = await with_a_page(start_edge, origin, {"max_requests": 2})
    go_on = asyncio.Event()
    origin.otherwise(Answer(200, FRESH, b"slow", hold=go_on))
    slow = [asyncio.create_task(edge.get(f"/slow/{number}")) for number in range(2)]
    for number in range(2):
        await origin.seen(f"/slow/{number}")
    third = asyncio.create_task(edge.get("/slow/third"))
    async with await edge.connect() as hits:
        for _ in range(50):
            assert await answered(hits)
    async with asyncio.timeout(PATIENCE):
        response = await third
    assert (response.status, response.field("Retry-After")) == (503, "1")
    assert response.cache_status["detail"] == "overloaded"
    assert "/slow/third" not in origin.counts
    fourth = asyncio.create_task(edge.get("/slow/fourth"))
    go_on.set()
    assert {(await task).text for task in (*slow, fourth)} == {"slow"}
    assert (await refused(edge))["overloaded"] == 1


async def test_a_full_line_refuses_at_once_and_ends_the_connection(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    edge = await with_a_page(start_edge, origin, {"max_requests": 1, "max_waiting": 3})
    go_on = asyncio.Event()
    origin.otherwise(Answer(200, FRESH, b"slow", hold=go_on))
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(await edge.connect()) for _ in range(4)]
        for number, connection in enumerate(held):
            await connection.request("GET", f"/slow/{number}", {"Host": "shop.example"})
            if not number:
                await origin.seen("/slow/0")
        async with asyncio.timeout(PATIENCE), await edge.connect() as one_more:
            response = await one_more.exchange("GET", "/more", {"Host": "shop.example"})
            assert (response.status, response.field("Retry-After")) == (503, "1")
            assert response.cache_status["detail"] == "overloaded"
            assert await one_more.ended()
        assert "/more" not in origin.counts
        held[1].reset()
        assert await answered(await stack.enter_async_context(await edge.connect()))
        go_on.set()
        async with asyncio.timeout(PATIENCE):
            assert (await held[0].response("GET")).text == "slow"
            assert (await edge.get("/slow/after")).text == "slow"
        # Its client has not waited.
        assert "/slow/1" not in origin.counts
    assert (await refused(edge))["overloaded"] >= 1


class Hits:
    """How many there have been."""

    def __init__(self) -> None:
        self.count = 0
        self.any = asyncio.Event()


async def hits_without_end(edge: EdgeProcess, hits: Hits) -> None:
    """So many at once on one connection that there is always one to be answered."""
    marker, rest = b"HTTP/1.1 200", b""
    async with await edge.connect() as connection:
        await connection.send(HIT * 400)
        while data := await connection.reader.read(1 << 16):
            data = rest + data
            count = data.count(marker)
            rest = data[1 - len(marker) :]
            hits.count += count
            hits.any.set()
            await connection.send(HIT * count)


async def test_while_hits_take_all_of_a_worker_the_others_are_shed(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    edge = await with_a_page(start_edge, origin, {"miss_share": 0.0}, sabotage="costly_hits")
    origin.otherwise(Answer(200, FRESH, b"miss"))
    hits = Hits()
    refusals: list[Any] = []
    enough = asyncio.Event()

    async def misses(number: int) -> None:
        async with await edge.connect() as connection:
            for again in range(1_000_000):
                target = f"/miss/{number}/{again}"
                response = await connection.exchange("GET", target, {"Host": "shop.example"})
                if response.status == 503:
                    refusals.append(response)
                    if len(refusals) == 10:
                        enough.set()

    async with asyncio.timeout(30):
        load = [asyncio.create_task(hits_without_end(edge, hits)) for _ in range(4)]
        await hits.any.wait()
        load += [asyncio.create_task(misses(number)) for number in range(80)]
        await enough.wait()
    assert hits.count > 20 * sum(origin.counts.values())
    assert {(each.status, each.field("Retry-After")) for each in refusals} == {(503, "1")}
    assert {each.cache_status["detail"] for each in refusals} == {"overloaded"}
    assert not any(task.done() for task in load)
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)
    async with asyncio.timeout(PATIENCE):
        assert (await edge.get("/after")).text == "miss"
    assert (await refused(edge))["overloaded"] >= 10


class QuickOrigin(asyncio.Protocol):
    """Answers each piece that comes in at once; only `/page` may be stored."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        fresh = b"max-age=600" if data.startswith(b"GET /page ") else b"no-store"
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nCache-Control: %b\r\nContent-Length: 4\r\n\r\npage" % fresh
        )


def idle_connections(port: int, count: int) -> list[socket.socket]:
    """So many, from several addresses: one has fewer than 30,000 ports."""
    made = []
    for number in range(count):
        client = socket.socket()
        client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        client.bind((f"127.0.1.{number % 8 + 1}", 0))
        client.connect(("127.0.0.1", port))
        client.settimeout(PATIENCE)
        made.append(client)
    return made


def ask_over(connections: list[socket.socket], request: bytes) -> None:
    """Ask once over each of them, some at a time."""
    for start in range(0, len(connections), 32):
        asking = connections[start : start + 32]
        for each in asking:
            each.sendall(request)
        for each in asking:
            answer = each.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer
            assert answer.endswith(b"\r\npage"), answer


async def test_ten_thousand_idle_connections_on_one_worker(start_edge: StartEdge) -> None:
    """In less than 300 MB, with all that the worker has besides; after a hit, which costs less,
    and after a request that went to the origin."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 2 * IDLE:
        pytest.skip("10,000 CONNECTIONS WERE NOT TRIED: this user may not have 20,000 files open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loop = asyncio.get_running_loop()
    async with await loop.create_server(QuickOrigin, "127.0.0.1", 0) as origin:
        address, origin_port = origin.sockets[0].getsockname()
        limits = {"keepalive_timeout": "10m", "header_timeout": "10m"}
        config = {"limits": limits, "log": {"access": "off"}}
        edge = await start_edge(f"http://{address}:{origin_port}", config=config)
        await edge.get("/page", {"Host": "shop.example"})
        (worker,) = edge.pids()
        port = int(edge.url.rpartition(":")[2])
        before = resident_bytes(worker)
        connections = await asyncio.to_thread(idle_connections, port, IDLE)
        try:
            for kind, target in (("hit", b"/page"), ("pass", b"/private")):
                await asyncio.to_thread(ask_over, connections, HIT.replace(b"/page", target))
                taken = resident_bytes(worker)
                each = (taken - before) / IDLE
                print(f"after a {kind} each: {taken / 1e6:.0f} MB, {each:.0f} bytes a connection")
                assert len(list(Path(f"/proc/{worker}/fd").iterdir())) > IDLE
                assert taken < 300_000_000
                if kind == "hit":
                    assert taken - before < 60_000_000
        finally:
            for each in connections:
                each.close()


async def test_the_limits_are_in_the_status(start_edge: StartEdge, origin: ScriptedOrigin) -> None:
    """A name for each refusal, whether it has happened or not."""
    edge = await start_edge(origin)
    status = json.loads((await edge.admin("GET", "/v1/status")).body)
    assert {"overloaded", "too-many-connections", "head-timeout"} <= status["refused"].keys()
    async with await edge.connect() as connection:
        await connection.send(b"BAD\r\n\r\n")
        assert (await connection.response("GET")).status == 400
    assert (await refused(edge)) == {"bad-request": 1}


async def test_the_file_limit_is_raised_to_what_the_process_may_have(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    edge = await start_edge(origin, sabotage="low_soft_limit")
    (worker,) = edge.pids()
    line = next(
        line
        for line in Path(f"/proc/{worker}/limits").read_text().splitlines()
        if line.startswith("Max open files")
    )
    soft, hard = line.split()[3:5]
    assert soft == hard
