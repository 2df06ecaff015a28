"""The admin port: what comes in there from those who may not."""

import asyncio
import gzip
import json
from contextlib import AsyncExitStack

import pytest

from edgeproxy.admin.browsers import HEADERS
from tests.kit import Answer, Connection, EdgeProcess, ScriptedOrigin

pytestmark = pytest.mark.asyncio(loop_scope="package")

PATIENCE = 10.0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"null", 400),
        (b"[]", 400),
        (b"[" * 200_000, 400),
        (b'{"a":' * 100_000, 400),
        (b'{"tags": ' + b"9" * 5_000 + b"}", 400),
        (b'{"tags": [' + b"1e9999" + b"]}", 400),
        (b'{"tags": [NaN]}', 400),
        (b'{"tags": "a"}', 400),
        (b'{"tags": ["\\ud800"], "site": "default"}', 400),
        (b'{"tags": ["a"], "site": "\\ud800"}', 400),
        (b'{"urls": ["/\\ud800"], "site": "default"}', 400),
        (b'{"urls": ["http://a:99999999999/"]}', 400),
        (b'{"urls": ["http://[::1/"]}', 400),
        (b'{"urls": ["http://shop.example/\\r\\nX: y"]}', 400),
        (b'{"tags": ["a"], "site": "../default"}', 400),
        (b'{"tags": ["a"], "site": "default", "dry_run": "yes"}', 400),
        (b'{"tags": ["a"], "site": "default", "__class__": 1}', 400),
        (b'{"everything": 1, "site": "default"}', 400),
        (b'{"tags": []}', 400),
        (json.dumps({"tags": ["a"] * 10_001}).encode(), 400),
        (json.dumps({"tags": ["a" * 8193]}).encode(), 400),
        (b" " * (8 * 2**20 + 1), 413),
        (b"\xff\xfe", 400),
    ],
    ids=range(24),
)
async def test_no_body_breaks_the_admin_port(edge: EdgeProcess, body: bytes, status: int) -> None:
    response = await edge.admin("POST", "/v1/purge", body=body)
    assert response.status == status
    assert response.json()["status"] == status


@pytest.mark.parametrize(
    ("request_line", "fields", "status"),
    [
        ("GET /healthz HTTP/1.0", "X: y", 200),
        ("GET /healthz HTTP/1.1", "Host: evil.example", 421),
        ("GET /healthz HTTP/1.1", "Host: localhost.evil.example", 421),
        ("GET /healthz HTTP/1.1", "Host: 127.0.0.1.evil.example", 421),
        ("GET /healthz HTTP/1.1", "Host: ", 421),
        ("GET http://evil.example/healthz HTTP/1.1", "Host: evil.example", 421),
        ("OPTIONS /v1/purge HTTP/1.1", "Host: localhost\r\nOrigin: http://evil.example", 401),
        ("POST /v1/purge HTTP/1.1", "Host: localhost\r\nContent-Length: 0", 401),
        (
            "POST /v1/purge HTTP/1.1",
            "Host: localhost\r\nOrigin: http://localhost\r\nOrigin: null",
            403,
        ),
        ("POST /v1/purge HTTP/1.1", "Host: localhost\r\nAuthorization: Bearer \xff", 401),
        ("GET /v1/entries?url=/&token=TOKEN HTTP/1.1", "Host: localhost", 401),
        ("GET /v1/../healthz HTTP/1.1", "Host: localhost", 401),
        ("GET /%76%31/entries?url=/ HTTP/1.1", "Host: localhost", 401),
        ("GET //v1/entries?url=/ HTTP/1.1", "Host: localhost", 404),
        ("GET /healthz HTTP/1.1", "Host: localhost\r\nAuthorization: Bearer TO\x01KEN", 400),
    ],
)
async def test_the_admin_port_lets_no_stranger_in(
    edge: EdgeProcess, request_line: str, fields: str, status: int
) -> None:
    text = f"{request_line}\r\n{fields}\r\n\r\n".replace("TOKEN", edge.token)
    async with asyncio.timeout(PATIENCE), await Connection.open(edge.admin_url) as connection:
        await connection.send(text.encode("latin-1").replace(b"TO\x01KEN", b"to\x01secret"))
        response = await connection.response()
    assert response.status == status
    assert "access-control-allow-origin" not in response.head.raw.decode("latin-1").lower()


@pytest.mark.parametrize(
    "own",
    ["/v1/purge", "/v1/status", "/v1/entries?url=/", "/healthz", "/readyz", "/client/v4/zones"],
)
async def test_nothing_of_it_is_at_the_public_port(
    edge: EdgeProcess, origin: ScriptedOrigin, own: str
) -> None:
    """Not even with the token, or a name of the admin port: it is the origin's to answer."""
    origin.route(own, Answer(200, {"Cache-Control": "no-store"}, b"the origin's"))
    token = {"Authorization": f"Bearer {edge.token}"}
    for host in ("shop.example", "localhost", edge.admin_url.partition("://")[2]):
        assert (await edge.get(own, {"Host": host, **token})).text == "the origin's"


async def test_a_stream_bears_the_same_fields_as_all_answers(edge: EdgeProcess) -> None:
    async with asyncio.timeout(PATIENCE), await Connection.open(edge.admin_url) as connection:
        token = {"Authorization": f"Bearer {edge.token}", "Accept": "text/event-stream"}
        await connection.request("GET", "/v1/journal/stream", token)
        response = await connection.start_response()
    assert response.status == 200
    assert response.field("x-content-type-options") == "nosniff"
    assert response.field("x-frame-options") == "DENY"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", 400, id="TLS"),
        pytest.param(b"\x00\x01 garbage\r\n\r\n", 400, id="no method"),
        pytest.param(b"FOO / HTTP/1.1\r\n\r\n", 400, id="unknown method"),
        pytest.param(b"GET /healthz HTTP/1.1\r\n\r\n", 400, id="no Host"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", 400, id="two"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400, id="folded"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \x00the-token\r\n\r\n",
            400,
            id="a token with NUL",
        ),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 400, id="too long"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 400, id="too many"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
            id="two lengths",
        ),
    ],
)
async def test_what_is_no_request_gets_the_same_fields_and_nothing_back(
    edge: EdgeProcess, sent: bytes, status: int
) -> None:
    async with asyncio.timeout(PATIENCE), await Connection.open(edge.admin_url) as connection:
        await connection.send(sent)
        response = await connection.response()
        assert await connection.ended() == "closed"
    assert response.status == response.json()["status"] == status
    assert response.field("content-type").startswith("application/problem+json")
    for name, value in HEADERS.items():
        assert response.field(name) == value
    assert b"token" not in response.body
    assert "the-token" not in edge.log


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://evil.example/healthz", "localhost", 421),
        ("http://localhost/healthz", "evil.example", 421),
        ("http://localhost:81/healthz", "localhost", 200),
        ("http://127.0.0.1@evil.example/healthz", "localhost", 421),
        ("/healthz", "127.0.0.1:evil", 421),
        ("/healthz", "[::1", 421),
        ("/healthz", "localhost:99999", 421),
        ("/healthz", "localhost.:8081", 200),
        ("/healthz", "[::1]:8081", 200),
        ("/healthz", "LOCALHOST", 200),
    ],
)
async def test_both_names_that_a_call_may_bear_must_be_the_port_s(
    edge: EdgeProcess, target: str, host: str, status: int
) -> None:
    """RFC 9112 3.2.2: that of an absolute target, which counts, and Host."""
    async with asyncio.timeout(PATIENCE), await Connection.open(edge.admin_url) as connection:
        await connection.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (await connection.response()).status == status


async def test_nothing_that_is_sent_is_decompressed(edge: EdgeProcess) -> None:
    bomb = gzip.compress(b" " * 2**24)
    response = await edge.admin("POST", "/v1/purge", body=bomb, fields={"Content-Encoding": "gzip"})
    assert response.status == 415


async def test_a_body_that_does_not_come_is_not_waited_for(edge: EdgeProcess) -> None:
    """Of one of these the token is in the body: anybody can send it."""

    async def stop_short(path: str) -> int:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
        async with await Connection.open(edge.admin_url) as connection:
            await connection.send(f"{head}Authorization: Bearer {edge.token}\r\n\r\n{{".encode())
            return (await connection.response()).status

    async with asyncio.timeout(PATIENCE):
        paths = ("/v1/purge", "/api/v1/cache/clear")
        assert await asyncio.gather(*map(stop_short, paths)) == [408, 408]


async def test_only_so_many_connections_are_taken(edge: EdgeProcess) -> None:
    async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
        for _ in range(40):
            await stack.enter_async_context(await Connection.open(edge.admin_url))
        one_more = await stack.enter_async_context(await Connection.open(edge.admin_url))
        response = await one_more.response()
        assert await one_more.ended() == "closed"
        assert response.status == 503
        assert "admin.max_connections" in response.json()["detail"]
        for name, value in HEADERS.items():
            assert response.field(name) == value
    while (status := await edge.admin("GET", "/v1/status")).status == 503:
        await asyncio.sleep(0.01)
    assert status.json()["refused"]["admin-connections-full"] >= 1


async def test_nobody_writes_the_logs(edge: EdgeProcess) -> None:
    async with await edge.connect() as connection:
        await connection.send(b"GET / HTTP/1.1\n127.0.0.1\t-\x1b[2J\tforged\r\n\r\n")
        assert (await connection.response()).status == 400
    await edge.logged("forged", stream="out")
    (line,) = [line for line in edge.stdout.splitlines() if "forged" in line]
    assert line.startswith("127.0.0.1 - - [")
    assert "\x1b" not in line
    assert "secret" not in edge.log
    assert edge.token not in edge.log + edge.stdout
