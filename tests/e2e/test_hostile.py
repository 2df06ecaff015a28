"""What strangers try, and what odd origins send: one edge takes it all, a row of a table each."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count

import pytest
import pytest_asyncio

from tests.kit import (
    CLOSE,
    RESET,
    Answer,
    Connection,
    EdgeProcess,
    MessageCut,
    OriginRequest,
    ScriptedOrigin,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = 10.0
FRESH = {"Cache-Control": "max-age=600"}
SITE = {
    "key": {"ignore_tracking": True},
    "timeouts": {"first_byte": "3s", "between_bytes": "3s"},
}
LIMITS = {"header_timeout": "1s", "body_idle_timeout": "3s", "keepalive_timeout": "1s"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin() -> AsyncIterator[ScriptedOrigin]:
    async with ScriptedOrigin() as server:
        yield server


class HeedlessOrigin:
    """Answers each head as it comes, and takes what follows for the next one: a body, too."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                target = head.split(b" ")[1]
                self.seen.append(target)
                if target.startswith(b"/hidden"):
                    await asyncio.sleep(0.2)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(target), target)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def heedless() -> AsyncIterator[tuple[HeedlessOrigin, str]]:
    """Such an origin and its URL."""
    origin = HeedlessOrigin()
    async with await asyncio.start_server(origin, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield origin, f"http://{host}:{port}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(
    origin: ScriptedOrigin,
    heedless: tuple[HeedlessOrigin, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[EdgeProcess]:
    """One for all: each attack has a target of its own."""
    folder = tmp_path_factory.mktemp("hostile")
    sites = {
        "heedless": {"hosts": ["heedless.example"], "origins": [{"url": heedless[1]}]},
        "small": {
            "hosts": ["small.example"],
            "origins": [{"url": origin.url}],
            "pool": {"max_connections": 4},
        },
    }
    config = {"limits": LIMITS, "sites": sites}
    process = EdgeProcess(folder, origin=origin.url, config=config, site=SITE)
    await process.start()
    try:
        yield process
        # Nothing that was sent may have made it log a traceback.
        await process.stop()
    finally:
        if process.running:
            await process.kill()
        process.release()


NUMBERS = count()


@pytest.fixture
def target() -> str:
    """One that no other attack has."""
    return f"/page/{next(NUMBERS)}"


async def talk(edge: EdgeProcess, data: bytes, methods: tuple[str, ...] = ("GET",)) -> list[int]:
    """Send all at once; the status of each answer until the edge closes, or all are answered."""
    statuses: list[int] = []
    async with asyncio.timeout(PATIENCE), await edge.connect() as connection:
        await connection.send(data)
        for method in methods:
            try:
                statuses.append((await connection.response(method)).status)
            except MessageCut:
                break
    return statuses


# -- smuggling: where one message ends and the next begins

HOST = b"Host: shop.example\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def post(fields: bytes, body: bytes = b"", *, method: bytes = b"POST") -> bytes:
    return method + b" /open HTTP/1.1\r\n" + HOST + fields + b"\r\n" + body


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


UPGRADE = b"Connection: Upgrade\r\nUpgrade: %b\r\n"

# What is sent ahead of `GET /last`; the statuses of the answers; the targets that the origin sees.
SMUGGLED: dict[str, tuple[bytes, list[int], list[str]]] = {
    "CL.TE": (post(length(HIDDEN) + CHUNKED, b"0\r\n\r\n" + HIDDEN), [400], []),
    "TE.CL": (post(CHUNKED + b"Content-Length: 4\r\n", chunks(HIDDEN)), [400], []),
    "TE.TE": (post(CHUNKED * 2, b"0\r\n\r\n" + HIDDEN), [400], []),
    "TE and identity": (post(CHUNKED + b"Transfer-Encoding: identity\r\n", HIDDEN), [400], []),
    "identity and TE": (post(b"Transfer-Encoding: identity\r\n" + CHUNKED, HIDDEN), [400], []),
    "TE not last": (post(b"Transfer-Encoding: chunked, identity\r\n", HIDDEN), [400], []),
    "TE twice in a line": (post(b"Transfer-Encoding: chunked, chunked\r\n", HIDDEN), [400], []),
    "TE unknown": (post(b"Transfer-Encoding: xchunked\r\n", HIDDEN), [400], []),
    "TE with VT": (post(b"Transfer-Encoding:\x0bchunked\r\n", HIDDEN), [400], []),
    "TE with a Kelvin sign": (
        post("Transfer-Encoding: chun\u212aed\r\n".encode(), HIDDEN), [400], [],
    ),
    "TE before a space": (post(b"Transfer-Encoding : chunked\r\n", HIDDEN), [400], []),
    "TE folded": (post(b"Transfer-Encoding:\r\n chunked\r\n", HIDDEN), [400], []),
    "TE behind a bare LF": (post(b"X: y\n" + CHUNKED, HIDDEN), [400], []),
    "TE behind a bare CR": (post(b"X: y\r" + CHUNKED, HIDDEN), [400], []),
    "TE in HTTP/1.0": (
        b"POST /open HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n" + CHUNKED
        + b"\r\n0\r\n\r\n" + HIDDEN, [400], [],
    ),
    "CL twice": (post(b"Content-Length: 0\r\n" + length(HIDDEN), HIDDEN), [400], []),
    "CL list": (post(b"Content-Length: 0, 0\r\n", HIDDEN), [400], []),
    "CL with a sign": (post(b"Content-Length: +0\r\n", HIDDEN), [400], []),
    "CL folded": (post(b"Content-Length: 0\r\n 9\r\n", HIDDEN), [400], []),
    "CL before a space": (post(b"Content-Length : 9\r\n", HIDDEN), [400], []),
    "CL too large": (post(b"Content-Length: 18446744073709551616\r\n", HIDDEN), [400], []),
    "head ends in bare LF": (b"GET /open HTTP/1.1\n" + HOST + b"\n" + HIDDEN, [400], []),
    "chunk with a bare LF": (post(CHUNKED, b"1\nx\n0\n\n" + HIDDEN), [400], []),
    "chunk ext with a bare LF": (post(CHUNKED, b"1;a\nx\r\n0\r\n\r\n" + HIDDEN), [400], []),
    "chunk too long": (post(CHUNKED, b"1\r\nxy\r\n0\r\n\r\n" + HIDDEN), [400], []),
    "chunk with a sign": (post(CHUNKED, b"+1\r\nx\r\n0\r\n\r\n" + HIDDEN), [400], []),
    "chunk size overflows": (post(CHUNKED, b"1" + b"0" * 16 + b"\r\n" + HIDDEN), [400], []),
    "chunk trailers with a bare LF": (post(CHUNKED, b"0\r\nX: y\n\r\n\r\n" + HIDDEN), [400], []),
    "chunk extensions and trailers": (
        post(CHUNKED, b'5;a="\x7f"\r\nGET /\r\n0;b\r\nX: y\r\n\r\n'), [400], [],
    ),
    "request in a trailer": (
        post(CHUNKED, b"1;a=b\r\nx\r\n0\r\nX: GET /hidden HTTP/1.1\r\n\r\n"),
        [200, 200], ["/open", "/last"],
    ),
    "request in a body": (post(length(HIDDEN), HIDDEN), [200, 200], ["/open", "/last"]),
    "request in chunks": (
        post(CHUNKED, chunks(b"x", HIDDEN)), [200, 200], ["/open", "/last"],
    ),
    "fat GET": (
        post(length(HIDDEN), HIDDEN, method=b"GET"), [200, 200], ["/open", "/last"],
    ),
    "unknown method": (
        post(CHUNKED, chunks(HIDDEN), method=b"BREW"), [200, 200], ["/open", "/last"],
    ),
    "lower-case method": (
        post(length(HIDDEN), HIDDEN, method=b"get"), [200, 200], ["/open", "/last"],
    ),
    "framing named by Connection": (
        post(b"Connection: Content-Length, Host\r\n" + length(HIDDEN), HIDDEN),
        [200, 200], ["/open", "/last"],
    ),
    "WebSocket with a body": (
        post(UPGRADE % b"websocket" + length(HIDDEN), HIDDEN, method=b"GET"),
        [200, 200], ["/open", "/last"],
    ),
    "WebSocket with chunks": (
        post(UPGRADE % b"websocket" + CHUNKED, chunks(HIDDEN), method=b"GET"),
        [200, 200], ["/open", "/last"],
    ),
    "h2c": (
        post(b"HTTP2-Settings: AAMAAABkAARAAAAA\r\n" + UPGRADE % b"h2c, HTTP2-Settings"),
        [200, 200], ["/open", "/last"],
    ),
    "Expect with the body at once": (
        post(b"Expect: 100-continue\r\n" + length(HIDDEN), HIDDEN),
        [200, 200], ["/open", "/last"],
    ),
    "Expect without a body": (
        post(b"Expect: 100-continue\r\n", method=b"DELETE"), [200, 200], ["/open", "/last"],
    ),
    "HTTP/1.0 ends its connection": (b"GET /open HTTP/1.0\r\n" + HOST + b"\r\n", [200], ["/open"]),
    "HTTP/1.0 keeps it": (
        b"GET /open HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n",
        [200, 200], ["/open", "/last"],
    ),
    "close": (post(b"Connection: close\r\n", method=b"DELETE"), [200], ["/open"]),
    "two spaces": (b"GET /open  HTTP/1.1\r\n" + HOST + b"\r\n", [400], []),
    "request in the target": (b"GET /open HTTP/1.1\r\nX: y HTTP/1.1\r\n\r\n", [400], []),
    "asterisk": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", [400], []),
    "authority": (b"GET shop.example:80 HTTP/1.1\r\n" + HOST + b"\r\n", [400], []),
    "userinfo": (b"GET http://a@shop.example/open HTTP/1.1\r\n" + HOST + b"\r\n", [400], []),
    "another scheme": (b"GET file:///open HTTP/1.1\r\n" + HOST + b"\r\n", [400], []),
    "Host with userinfo": (b"GET /open HTTP/1.1\r\nHost: a@shop.example\r\n\r\n", [400], []),
    "Host with a path": (b"GET /open HTTP/1.1\r\nHost: shop.example/x\r\n\r\n", [400], []),
    "two Hosts": (b"GET /open HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", [400], []),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "statuses", "targets"), SMUGGLED.values(), ids=SMUGGLED)
async def test_the_origin_sees_the_requests_that_were_sent(
    edge: EdgeProcess, origin: ScriptedOrigin, sent: bytes, statuses: list[int], targets: list[str]
) -> None:
    for target in ("/open", "/last", "/hidden"):
        origin.route(target, Answer(200, {"Cache-Control": "no-store"}, b"ok"))
    before = len(origin.requests)
    answered = await talk(edge, sent + b"GET /last HTTP/1.1\r\n" + HOST + b"\r\n", ("POST", "GET"))
    assert answered == statuses
    assert [request.target for request in origin.requests[before:]] == targets
    # A request whose body broke off in the middle was broken off at the origin, too.
    origin.complaints[:] = [each for each in origin.complaints if "cut" not in each]


@pytest.mark.parametrize("expects", [b"Expect: 100-continue\r\n", b""], ids=["Expect", "late body"])
async def test_an_answer_to_a_body_reaches_nobody(
    edge: EdgeProcess, heedless: tuple[HeedlessOrigin, str], expects: bytes
) -> None:
    """RFC 9110 10.1.1: an origin that answers before the body comes may not be reading that."""
    host = {"Host": "heedless.example"}
    hidden = HIDDEN.replace(b"/hidden", b"/hidden%d" % len(expects))
    async with asyncio.timeout(PATIENCE), await edge.connect() as attacker:
        await attacker.send(
            b"POST /open HTTP/1.1\r\nHost: heedless.example\r\n%b%b\r\n" % (expects, length(hidden))
        )
        assert (await attacker.response("POST")).body == b"/open"
        await attacker.send(hidden)
        while not any(target.startswith(b"/hidden") for target in heedless[0].seen):
            await asyncio.sleep(0.01)
        heedless[0].seen.clear()
        for target in ("/victim", "/other", "/victim"):
            assert (
                await edge.get(f"{target}{len(expects)}", host)
            ).text == f"{target}{len(expects)}"


# -- odd answers of an origin

OK = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n"
BODY = b"Content-Length: 2\r\n\r\nok"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

# What the origin sends, and what the reader gets for it: a status, or a body that is cut off.
ANSWERS: dict[str, tuple[list[bytes | object], int | str]] = {
    "1xx by the hundred": ([EARLY * 500, OK + BODY], 200),
    "1xx without end": ([EARLY.replace(b"/a", b"/" * 1000) * 600, OK + BODY], 502),
    "100 unasked": ([b"HTTP/1.1 100 Continue\r\n\r\n" * 3, OK + BODY], 200),
    "101 unasked": ([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", OK + BODY], 502),
    "101 with Connection": (
        [b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", OK + BODY], 502,
    ),
    "204 with a body": ([OK.replace(b"200 OK", b"204 X") + BODY], 502),
    "204 with a body, later": ([OK.replace(b"200 OK", b"204 X") + BODY[:-2], 0.05, b"ok"], 204),
    "304 unasked": ([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n"], 304),
    "beyond Content-Length": ([OK + BODY + b"more"], 502),
    "a response more": ([OK + BODY + OK + BODY.replace(b"ok", b"no")], 200),
    "two lengths": ([OK + b"Content-Length: 2\r\n" + BODY], 502),
    "two lengths that differ": ([OK + b"Content-Length: 1\r\n" + BODY], 502),
    "length and chunks": ([OK + CHUNKED + BODY], 502),
    "length with a sign": ([OK + b"Content-Length: +2\r\n\r\nok"], 502),
    "length beyond 64 bits": ([OK + b"Content-Length: 18446744073709551616\r\n\r\nok"], 502),
    "length of 64 bits": ([OK + b"Content-Length: 18446744073709551615\r\n\r\nok", CLOSE], "cut"),
    "longer than it is": ([OK + b"Content-Length: 3\r\n\r\nok", CLOSE], "cut"),
    "coding in HTTP/1.0": ([OK.replace(b"1.1", b"1.0", 1) + CHUNKED + b"\r\n0\r\n\r\n"], 502),
    "coding unknown": ([OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"], 502),
    "coding named twice": ([OK + CHUNKED * 2 + b"\r\n0\r\n\r\n"], 502),
    "chunk size overflows": ([OK + CHUNKED + b"\r\n" + b"f" * 17 + b"\r\nok"], 502),
    "chunk cut": ([OK + CHUNKED + b"\r\n5\r\nok", RESET], "cut"),
    "trailers without end": (
        [OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\n", 0.05, *[b"X: y\r\n" * 10_000] * 9], "cut",
    ),
    "control in a field": ([OK + b"X: a\x01b\r\n" + BODY], 502),
    "bare CR in a field": ([OK + b"X: a\rSet-Cookie: b\r\n" + BODY], 502),
    "NUL in a field": ([OK + b"X: a\0b\r\n" + BODY], 502),
    "escape in the reason": ([OK.replace(b"OK", b"\x1b[2J") + BODY], 502),
    "field without a name": ([OK + b": x\r\n" + BODY], 502),
    "space in a name": ([OK + b"X Y: x\r\n" + BODY], 502),
    "field too long": ([OK + b"X: " + b"y" * 70_000 + b"\r\n" + BODY], 502),
    "too many fields": ([OK + b"X: y\r\n" * 600 + BODY], 502),
    "head too long": ([OK + (b"X: " + b"y" * 60_000 + b"\r\n") * 10 + BODY], 502),
    "head without end": ([OK, *[b"X: " + b"y" * 50_000 + b"\r\n"] * 9], 502),
    "another version": ([OK.replace(b"1.1", b"2.0") + BODY], 502),
    "no version": ([b"hello, world", CLOSE], 502),
    "status too small": ([OK.replace(b"200", b"099") + BODY], 502),
    "status too large": ([OK.replace(b"200", b"1000") + BODY], 502),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "expected"), ANSWERS.values(), ids=ANSWERS)
async def test_no_answer_of_an_origin_spoils_the_next(
    edge: EdgeProcess,
    origin: ScriptedOrigin,
    target: str,
    steps: list[bytes | object],
    expected: int | str,
) -> None:
    origin.route(target, steps)  # type: ignore[arg-type]
    origin.route("/next", Answer(200, {"Cache-Control": "no-store"}, b"next"))
    async with asyncio.timeout(PATIENCE), await edge.connect() as connection:
        try:
            response = await connection.exchange("GET", target)
        except MessageCut:
            assert expected == "cut"
        else:
            assert response.status == expected
            if response.status == 200:
                assert (response.body, response.field("set-cookie")) == (b"ok", None)
    assert (await edge.get("/next")).body == b"next"


@pytest.mark.parametrize(
    ("fields", "ttl"),
    [
        ("Age: -5", 600),
        ("Age: 1.5", 600),
        ("Age: 99999999999999999999", None),
        ("Age: 100, 0", 500),
        ("Age: 100\r\nAge: 0", 500),
        ("Date: Sat, 01 Jan 0000 00:00:00 GMT", 600),
        ("Date: Mon, 01 Jan 0001 00:00:00 GMT", None),
        ("Date: Fri, 31 Dec 9999 23:59:59 GMT", 600),
        ("Date: yesterday\r\nExpires: 0", 600),
        ("Cache-Control: max-age=99999999999999999999", 600),
        ("Cache-Control: max-age=-1", None),
        ("Cache-Control: max-age=1e3", None),
        ("Cache-Control: s-maxage=0600", 600),
    ],
)
async def test_absurd_times_are_taken_for_what_they_can_be(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, fields: str, ttl: int | None
) -> None:
    origin.route(target, [OK + fields.encode() + b"\r\n" + BODY])
    await edge.get(target)
    again = await edge.get(target)
    assert again.body == b"ok"
    if ttl is None:
        assert "hit" not in again.cache_status
    else:
        assert ttl - 5 <= int(str(again.cache_status["ttl"])) <= ttl


# -- poisoning: what one request brings must be good for all who get it


NEVER_THE_SAME = (
    "via",
    "forwarded",
    "x-forwarded-for",
    "surrogate-capability",
    "range",
    "if-range",
)


def mirror(request: OriginRequest) -> Answer:
    """A page that shows whatever an origin may go by, besides the target, for ten minutes."""
    shown = {
        name: value.decode("latin-1")
        for name, value in sorted(
            (key.decode().lower(), value) for key, value in request.head.pairs
        )
        if name not in NEVER_THE_SAME
    }
    body = json.dumps([request.method, request.target, shown, request.body.decode()])
    return Answer(200, FRESH, body.encode())


# What an attacker asks, with TARGET for the target. Then a reader asks for it in a plain way.
POISON = {
    "Host with the default port": b"GET TARGET HTTP/1.1\r\nHost: shop.example:80\r\n\r\n",
    "Host with zeros": b"GET TARGET HTTP/1.1\r\nHost: shop.example:00080\r\n\r\n",
    "Host with an empty port": b"GET TARGET HTTP/1.1\r\nHost: shop.example:\r\n\r\n",
    "Host with another port": b"GET TARGET HTTP/1.1\r\nHost: shop.example:81\r\n\r\n",
    "Host with a dot": b"GET TARGET HTTP/1.1\r\nHost: shop.example.\r\n\r\n",
    "Host in capitals": b"GET TARGET HTTP/1.1\r\nHost: SHOP.example\r\n\r\n",
    "another Host": b"GET TARGET HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "absolute form": b"GET http://evil.exampleTARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "absolute form, right": b"GET HTTPS://SHOP.exampleTARGET HTTP/1.1\r\nHost: evil\r\n\r\n",
    "fat GET": post(b"Content-Length: 4\r\n", b"evil", method=b"GET").replace(b"/open", b"TARGET"),
    "slashes": b"GET /TARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "encoded": b"GET /%70%61ge/1 HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "cb: alone": b"GET /cb:TARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "cb:": b"GET /cb:1TARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "cb: and slashes": b"GET /cb:1/TARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "cb: twice": b"GET /cb:1/cb:2TARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "cb: and a URL": b"GET /cb:1/http://evil.exampleTARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "cb: and dots": b"GET /cb:1/../cb:2/..TARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "tracking with a semicolon": (
        b"GET TARGET?utm_source=a;callback=evil HTTP/1.1\r\nHost: shop.example\r\n\r\n"
    ),
} | {
    field: b"GET TARGET HTTP/1.1\r\nHost: shop.example\r\n%b\r\n\r\n" % field.encode()
    for field in (
        "X-Forwarded-Host: evil.example",
        "X_Forwarded_Host: evil.example",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 1337",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Server: evil.example",
        "X-Host: evil.example",
        "X-Original-URL: /evil",
        "X-Rewrite-URL: /evil",
        "X-HTTP-Method-Override: POST",
        "X-Method-Override: DELETE",
        "Proxy: http://evil.example",
        "Range: bytes=0-1",
        "Range: bytes=0-1\r\nIf-Range: x",
        "If-None-Match: *",
        "If-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT",
        "If-Match: nothing",
        "Expect: 100-continue",
        "TE: trailers, gzip",
        "Upgrade: h2c",
        "Connection: Upgrade\r\nUpgrade: websocket",
        "Connection: Host, Via, X-Forwarded-Host",
        "Keep-Alive: timeout=1",
        "Proxy-Authorization: Basic eDp5",
        "Content-Length: 0",
    )
}  # fmt: skip


@pytest.mark.parametrize("attack", POISON.values(), ids=POISON)
async def test_a_reader_gets_what_the_reader_asked_for(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, attack: bytes
) -> None:
    origin.otherwise(mirror)
    async with asyncio.timeout(PATIENCE), await edge.connect() as attacker:
        await attacker.send(attack.replace(b"TARGET", target.encode()))
        await attacker.start_response()
    reader = await edge.get(f"{target}?utm_source=b", {"Host": "shop.example"})
    plain = {
        "host": "shop.example",
        "x-forwarded-host": "shop.example",
        "x-forwarded-proto": "http",
    }
    method, seen, fields, body = reader.json()
    assert (reader.status, method, fields, body) == (200, "GET", plain, "")
    assert seen.partition("?")[0] == target
    assert "evil" not in reader.text


async def test_a_request_without_host_is_for_the_origin_s_own_name(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.otherwise(mirror)
    for host in ("default", "shop.example", "evil.example"):
        await edge.get("/hostless", {"Host": host})
    async with await edge.connect() as old:
        await old.send(b"GET /hostless HTTP/1.0\r\n\r\n")
        assert (await old.response()).json()[2]["host"] == origin.authority


@pytest.mark.parametrize("named", ["Accept-Language", "Accept-Language, close"])
async def test_what_is_not_passed_on_selects_no_variant(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, named: str
) -> None:
    """RFC 9110 7.6.1: Connection takes a field out of the request, so the answer is not for it."""

    def page(request: OriginRequest) -> Answer:
        fields = FRESH | {"Vary": "Accept-Language"}
        return Answer(200, fields, (request.field("accept-language") or "none").encode())

    origin.route(target, page)
    assert (await edge.get(target, {"Accept-Language": "de", "Connection": named})).text == "none"
    assert (await edge.get(target, {"Accept-Language": "de"})).text == "de"


# -- what is one reader's


PRIVATE = [
    "private",
    "PRIVATE",
    "max-age=600, Private",
    "public, private, s-maxage=600",
    "max-age=600; private",
    "max-age=600 private",
    "private; max-age=600",
    "private max-age=600",
    "private: max-age=600",
    '"private", max-age=600',
    'private="', 'private="set-cookie, max-age=600',
    "private=, max-age=600",
    'max-age="600; private',
    "no-store, max-age=600",
    "max-age=600;no-store",
    "max-age=600, no-store=0",
    "max-age=600\r\nCache-Control: private",
    "max-age=600\r\ncache-control: No-Store",
    "max-age=600\r\nSet-Cookie: session=alice",
    "max-age=600\r\nVary: *",
    "max-age=600\r\nVary: Accept, *",
    "max-age=600\r\nVary: X-Forwarded-For",
    "max-age=600\r\nVary: Accept, FORWARDED",
    "max-age=600\r\nSurrogate-Control: no-store",
    "max-age=600\r\nCDN-Cache-Control: private",
]  # fmt: skip


@pytest.mark.parametrize("directives", PRIVATE)
async def test_one_reader_s_page_is_no_other_s(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, directives: str
) -> None:
    head = f'HTTP/1.1 200 OK\r\nCache-Control: {directives}\r\nETag: "1"\r\n'
    origin.route(target, [head.encode() + BODY])
    for asked in (1, 2):
        assert (await edge.get(target)).status == 200
        assert origin.counts[target] == asked
    origin.route(target, [CLOSE])
    assert (await edge.get(target)).status == 502


@pytest.mark.parametrize(
    "update",
    [
        {"Set-Cookie": "session=alice"},
        {"Cache-Control": "private"},
        {"Cache-Control": "no-store"},
        {"Vary": "Cookie"},
        {"Vary": "*"},
    ],
    ids=str,
)
async def test_a_304_for_one_reader_changes_nothing_for_the_others(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, update: dict[str, str]
) -> None:
    """RFC 9111 3.2, 4.3.4: its fields become those of the stored response."""

    def page(request: OriginRequest) -> Answer:
        own = update if request.field("cookie") else {}
        fields = {"Cache-Control": "max-age=600", "ETag": '"1"'} | own
        if '"1"' in (request.field("if-none-match") or ""):
            return Answer(304, fields)
        return Answer(200, fields, b"alice's" if own else b"everybody's")

    stale = {"Cache-Control": "max-age=0", "ETag": '"1"'}
    origin.route(target, Answer(200, stale, b"everybody's"))
    await edge.get(target)
    origin.route(target, page)
    alice = await edge.get(target, {"Cookie": "session=alice"})
    assert alice.text == "alice's"
    for name, value in update.items():
        assert alice.field(name) == value
    for _ in range(2):
        bob = await edge.get(target)
        assert (bob.text, bob.field("cache-control")) == ("everybody's", "max-age=600")
        assert (bob.field("set-cookie"), bob.field("vary")) == (None, None)


# -- taking a page away from the others


@pytest.mark.parametrize(
    ("sent", "brings"),
    [
        ({"Cookie": "session=alice"}, Answer(200, {"Cache-Control": "private"}, b"alice's")),
        ({"X-Odd": "1"}, Answer(400, {}, b"bad")),
        ({"User-Agent": "scanner"}, Answer(403, {}, b"go away")),
        ({"Authorization": "Basic eDp5"}, Answer(200, FRESH, b"secret")),
    ],
    ids=["private", "400", "403", "authorization"],
)
async def test_one_reader_keeps_no_page_out_of_the_cache(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, sent: dict[str, str], brings: Answer
) -> None:
    (name,) = sent
    origin.route(
        target, lambda request: brings if request.field(name) else Answer(200, FRESH, b"page")
    )
    await edge.get(target, sent)
    results = [await edge.get(target) for _ in range(3)]
    assert [result.text for result in results] == ["page"] * 3
    assert "hit" in results[-1].cache_status


@pytest.mark.parametrize("past", [{"If-Match": "*"}, {"If-Unmodified-Since": "x"}], ids=str)
async def test_a_head_changes_nothing_that_is_fresh(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, past: dict[str, str]
) -> None:
    """RFC 9111 4.3.5, of a request that the cache may not answer itself."""
    for etag in ('"1"', '"2"'):
        origin.route(target, Answer(200, FRESH | {"ETag": '"1"', "X-Seen": "first"}, b"page"))
        await edge.get(target)
        origin.route(target, Answer(200, FRESH | {"ETag": etag, "X-Seen": "evil"}, b"page"))
        async with await edge.connect() as attacker:
            await attacker.exchange("HEAD", target, past)
        page = await edge.get(target)
        assert ("hit" in page.cache_status, page.field("x-seen")) == (True, "first")


@pytest.mark.parametrize("status", [400, 408, 417, 431, 500, 503])
async def test_one_reader_s_bad_request_takes_no_page_from_the_others(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, status: int
) -> None:
    """RFC 5861 3: the refresh is made of the request of whoever happens to come."""
    fields = {"Cache-Control": "max-age=0, stale-while-revalidate=600"}
    origin.route(target, Answer(200, fields, b"page"))
    await edge.get(target)
    origin.route(target, Answer(status, FRESH, b"bad"))
    assert (await edge.get(target)).text == "page"
    await origin.seen(target, 2)
    for _ in range(5):
        await asyncio.sleep(0.02)
        assert (await edge.get(target)).text == "page"


# -- exhaustion


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_who_does_not_ask_is_not_kept(edge: EdgeProcess, sent: bytes) -> None:
    async def outstay(url: str) -> bytes:
        async with await Connection.open(url) as connection:
            await connection.send(sent)
            return await connection.reader.read()

    async with asyncio.timeout(PATIENCE):
        public, admin = await asyncio.gather(outstay(edge.url), outstay(edge.admin_url))
    assert public[:12] == (b"HTTP/1.1 408" if sent else b"")
    assert admin == b""


async def test_slow_uploads_leave_connections_to_the_others(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.otherwise(Answer(200, FRESH, b"page"))
    slow = [await edge.connect() for _ in range(12)]
    for connection in slow:
        head = post(b"Content-Length: 100\r\n", b"x").replace(b"shop.", b"small.")
        await connection.send(head)
    await asyncio.sleep(0.1)
    for number in range(5):
        async with asyncio.timeout(1):
            page = await edge.get(f"/while-uploading/{number}", {"Host": "small.example"})
            assert page.text == "page"
    for connection in slow:
        connection.reset()
    await asyncio.sleep(0.1)
    # What was given up here was broken off there.
    assert all("cut" in complaint for complaint in origin.complaints)
    origin.complaints.clear()


async def test_random_variants_and_busters_stay_few(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.route("/many", Answer(200, FRESH | {"Vary": "X-Random", "Cache-Tag": "many"}, b"page"))
    async with await edge.connect() as connection:
        for number in range(120):
            fields = {"Host": "shop.example", "X-Random": str(number)}
            await connection.exchange("GET", f"/cb:{number % 60}/many", fields)
    answer = await edge.purge(tags=["many"], site="default", dry_run=True)
    assert answer["matched"] <= 2 * 33


async def test_long_fields_cost_little(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    """Each is read for each variant of the page."""
    vary = {"Vary": "Accept-Language, Accept, Accept-Encoding", "Content-Language": "de"}
    origin.route("/long", Answer(200, FRESH | vary, b"page"))
    async with await edge.connect() as connection:
        for number in range(32):
            fields = {"Host": "shop.example", "Accept-Language": f"x-{number}"}
            await connection.exchange("GET", "/long", fields)
        longest = {"Host": "shop.example", "Accept-Language": ",".join(['"x"'] * 15_000)}
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            assert (await connection.exchange("GET", "/long", longest)).text == "page"
        assert asyncio.get_running_loop().time() - began < 3


async def test_a_purge_of_all_that_may_be_named_is_quick(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.route("/tagged", Answer(200, FRESH | {"Cache-Tag": "t1 t2, t9"}, b"page"))
    await edge.get("/tagged")
    began = asyncio.get_running_loop().time()
    answer = await edge.purge(tags=[f"t{n}" for n in range(10_000)], site="default", mode="delete")
    assert answer["matched"] == 1
    assert asyncio.get_running_loop().time() - began < 2
    assert "hit" not in (await edge.get("/tagged")).cache_status


# -- the admin port


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
