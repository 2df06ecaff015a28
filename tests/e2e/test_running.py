"""Workers that die, signals, reloads, logs, TLS, and starting from flags alone."""

import asyncio
import contextlib
import json
import os
import signal
import ssl
from pathlib import Path

import pytest
import trustme

from tests.conftest import StartEdge
from tests.kit import Answer, OriginRequest, ScriptedOrigin, fetch
from tests.kit.edge import pid_end

FRESH = {"Cache-Control": "max-age=600"}


async def test_a_worker_that_dies_is_replaced_and_nothing_stored_is_lost(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin.route("/", Answer(200, FRESH, b"page"))
    edge = await start_edge(origin, workers=2)
    await edge.get("/")
    before = edge.pids()
    gone = await edge.kill_worker()
    await edge.logged(rf"worker.*{gone}")
    await edge.ready()
    after = edge.pids()
    assert len(after) == 2
    assert gone not in after
    assert set(before) & set(after)
    for _ in range(20):
        assert (await edge.get("/")).cache_status.get("hit")
    assert (await edge.purge(everything=True, mode="delete"))["matched"] == 1
    for _ in range(20):
        await edge.get("/")
    assert origin.counts["/"] == 2


async def test_sigterm_lets_requests_in_flight_end_and_takes_no_new_ones(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    held = asyncio.Event()
    origin.route("/slow", Answer(200, {"Cache-Control": "no-store"}, b"done", hold=held))
    edge = await start_edge(origin, workers=2)
    waiting = await edge.connect()
    await waiting.request("GET", "/slow")
    idle = await edge.connect()
    await origin.seen("/slow")
    edge.signal(signal.SIGTERM)
    assert await idle.ended() == "closed"
    with pytest.raises(OSError):
        while True:
            await (await edge.connect()).close()
            await asyncio.sleep(0.01)
    held.set()
    response = await waiting.response()
    assert (response.body, response.field("connection")) == (b"done", "close")
    assert await edge.wait() == 0


async def test_who_asks_again_while_the_edge_ends_is_answered(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    """A client may have sent its next request before it can know that there is an end."""
    origin.route("/page", Answer(200, {"Cache-Control": "max-age=60"}, b"page"))
    origin.route("/passed", Answer(200, {"Cache-Control": "no-store"}, b"page"))
    edge = await start_edge(origin)
    await edge.get("/page")
    asking = []
    for first in ("/page", "/passed"):
        for second in ("/page", "/passed"):
            connection = await edge.connect()
            await connection.exchange("GET", first)
            asking.append((connection, second))
    idle = await edge.connect()
    await idle.exchange("GET", "/page")
    edge.signal(signal.SIGTERM)
    with pytest.raises(ConnectionRefusedError):
        while True:
            await (await edge.connect()).close()
            await asyncio.sleep(0.01)
    # All within the second that they have for it.
    responses = await asyncio.gather(*(each.exchange("GET", second) for each, second in asking))
    for response, (connection, _) in zip(responses, asking, strict=True):
        assert (response.body, response.field("connection")) == (b"page", "close")
        await connection.close()
    assert await edge.wait() == 0, "and who asks for nothing is not waited for"
    await idle.close()


async def test_a_worker_without_a_supervisor_takes_nobody_any_more(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin, sabotage="orphans")
    gone = pid_end(edge.pids()[0])

    async def knock() -> None:
        with contextlib.suppress(OSError):
            while True:
                await (await edge.connect()).close()

    knocking = [asyncio.create_task(knock()) for _ in range(8)]
    await asyncio.sleep(0.1)
    edge.signal(signal.SIGKILL)
    await gone
    await asyncio.gather(*knocking)
    await edge.wait()
    assert "Traceback" not in edge.log


async def test_a_shutdown_does_not_wait_for_ever(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin.route("/never", Answer(200, hold=asyncio.Event()))
    edge = await start_edge(origin, config={"limits": {"drain_timeout": "0.3s"}})
    waiting = await edge.connect()
    await waiting.request("GET", "/never")
    await origin.seen("/never")
    edge.signal(signal.SIGTERM)
    assert await edge.wait() == 0


async def test_sighup_takes_a_new_configuration_over_without_dropping_a_connection(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    async with ScriptedOrigin() as second:
        for each, body in ((origin, b"first"), (second, b"second")):
            each.otherwise(Answer(200, {"Cache-Control": "no-store"}, body))
        edge = await start_edge(origin, workers=2)
        connections = [await edge.connect() for _ in range(10)]
        for connection in connections:
            assert (await connection.exchange("GET", "/")).body == b"first"
        workers = edge.pids()
        edge.write_config({"sites": {"default": {"origins": [{"url": second.url}]}}})
        edge.signal(signal.SIGHUP)
        await edge.logged("reload")
        async with asyncio.timeout(10):
            for connection in connections:
                while (await connection.exchange("GET", "/")).body != b"second":
                    pass
        assert edge.pids() == workers


async def test_a_wrong_configuration_is_refused_and_the_old_one_kept(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    edge = await start_edge(origin)
    origin.otherwise(Answer(200, {"Cache-Control": "no-store"}, b"page"))
    edge.config_path.write_text(edge.config_path.read_text() + "\nnonsense = 1\n")
    edge.signal(signal.SIGHUP)
    await edge.logged("nonsense")
    assert (await edge.get("/")).body == b"page"


@pytest.mark.parametrize("to_file", [False, True], ids=["stdout", "file"])
@pytest.mark.parametrize("form", ["common", "json"])
async def test_the_access_log_tells_how_each_request_was_answered(
    origin: ScriptedOrigin, start_edge: StartEdge, tmp_path: Path, form: str, to_file: bool
) -> None:
    origin.route("/page?x=1", Answer(200, FRESH, b"page"))
    path = tmp_path / "access.log"
    log = {"access": str(path) if to_file else "stdout", "format": form}
    edge = await start_edge(origin, config={"log": log})
    for _ in range(2):
        await edge.get("/page?x=1", fields={"User-Agent": 'a "quoted" one\\'})
    if not to_file:
        await edge.logged("page.x=1", count=2, stream="out")
    await edge.stop()
    text = path.read_text() if to_file else edge.stdout
    lines = [line for line in text.splitlines() if "/page" in line]
    assert len(lines) == 2
    if form == "json":
        records = [json.loads(line) for line in lines]
        assert [record["result"] for record in records] == ["miss", "hit"]
        assert {record["status"] for record in records} == {200}
        assert {record["user_agent"] for record in records} == {'a "quoted" one\\'}
    else:
        assert all('"GET /page?x=1 HTTP/1.1" 200 4 ' in line for line in lines)
        assert ["hit" in line for line in lines] == [False, True]


async def test_tls_with_a_certificate_for_each_name_reloaded_with_the_configuration(
    origin: ScriptedOrigin, start_edge: StartEdge, tmp_path: Path
) -> None:
    origin.otherwise(Answer(200, FRESH, b"page"))
    authority = trustme.CA()

    def issue(name: str) -> dict[str, str]:
        certificate = authority.issue_cert(name)
        cert, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        certificate.private_key_pem.write_to_path(key)
        cert.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        return {"cert": str(cert), "key": str(key)}

    files = [issue("a.example"), issue("b.example")]
    edge = await start_edge(origin)
    address = edge.config["listen"][0]["address"]
    edge.write_config({"listen": [{"address": address, "tls": {"certificates": files}}]})
    await edge.stop()
    await edge.start()
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def served(name: str) -> bytes:
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(
            host, int(port), ssl=context, server_hostname=name
        )
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.write(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).endswith(b"page")
        writer.close()
        assert isinstance(certificate, bytes)
        return certificate

    first = [await served("a.example"), await served("b.example")]
    issue("a.example")
    edge.signal(signal.SIGHUP)
    await edge.logged("reload")
    async with asyncio.timeout(10):
        while await served("a.example") == first[0]:
            pass
    assert await served("b.example") == first[1]


async def test_flags_alone_are_enough(origin: ScriptedOrigin, start_edge: StartEdge) -> None:
    origin.route("/", Answer(200, FRESH, b"page"))
    edge = await start_edge(
        flags=["--origin", origin.url, "--workers", "1", "--store", "memory:"],
    )
    await edge.get("/", fields={"Host": "any.example"})
    response = await edge.get("/", fields={"Host": "any.example"})
    assert response.cache_status.get("hit")
    assert (await edge.purge(tags=["x"]))["position"] == 1


async def test_a_token_is_made_and_printed_once_where_none_is_given(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(
        flags=["--origin", origin.url, "--workers", "2", "--store", "memory:"],
        env={"EDGEPROXY_ADMIN_TOKEN": ""},
    )
    match = await edge.logged(r"admin token.*: (\S{20,})")
    edge.token = match[1]
    assert (await edge.purge(tags=["x"]))["position"] == 1
    assert (edge.log + edge.stdout).count(edge.token) == 1


async def test_readiness_says_what_is_missing(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin, workers=2)
    victim = edge.pids()[0]
    os.kill(victim, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    async with asyncio.timeout(1):
                        response = await fetch(f"{edge.admin_url}/readyz")
                except TimeoutError:
                    continue  # the stopped worker got that connection
                if response.status == 503:
                    break
                await asyncio.sleep(0.1)
        assert response.field("content-type") == "application/problem+json; charset=utf-8"
    finally:
        os.kill(victim, signal.SIGCONT)
    await edge.ready()


async def test_a_slow_reader_holds_nobody_up(start_edge: StartEdge, origin: ScriptedOrigin) -> None:
    edge = await start_edge(origin)
    body = os.urandom(4_000_000)

    def page(_: OriginRequest) -> Answer:
        return Answer(200, FRESH, body)

    origin.route("/", page)
    slow = await edge.connect()
    await slow.request("GET", "/")
    await slow.start_response()
    for _ in range(3):
        assert (await edge.get("/")).body == body
    slow.reset()
