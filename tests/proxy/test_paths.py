"""The two ways to a hit answer alike: generated requests, down the fast path and around it.

`PATHS_REQUESTS=100000 pytest tests/proxy/test_paths.py` for a long run, `PATHS_SEED` for another
one.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.proxy import fast
from edgeproxy.proxy.server import EdgeServer
from tests.kit import Answer
from tests.proxy.parts import Time, running
from tests.proxy.twins import BOTH

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit import ScriptedOrigin
    from tests.proxy.twins import Twin

REQUESTS = int(os.environ.get("PATHS_REQUESTS", "500"))
SEED = int(os.environ.get("PATHS_SEED", "1"))
AT_ONCE = 32
ALONE = 2
"""How often what came out different is tried again by itself."""
PATIENCE = 30.0

LAST = b"GET /last HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n"

PAGES = {
    "/": Answer(200, {"Cache-Control": "max-age=60", "ETag": '"a"', "Cache-Tag": "t"}, b"home"),
    "/last": Answer(200, {"Cache-Control": "max-age=60"}, b"last"),
    "/dated": Answer(
        200,
        {"Cache-Control": "max-age=60", "Last-Modified": "Tue, 14 Nov 2023 22:00:00 GMT"},
        b"dated" * 100,
    ),
    "/large": Answer(200, {"Cache-Control": "max-age=60", "Age": "7"}, b"large" * 20_000),
    "/gone": Answer(404, {"Cache-Control": "max-age=60"}, b"gone"),
    "/moved": Answer(301, {"Cache-Control": "max-age=60", "Location": "/"}),
    "/nothing": Answer(204, {"Cache-Control": "max-age=60"}),
    "/private": Answer(200, {"Cache-Control": "private", "Set-Cookie": "a=b"}, b"private"),
    "/no-cache": Answer(200, {"Cache-Control": "no-cache", "ETag": '"n"'}, b"no-cache"),
    "/p?a=1&b=2": Answer(200, {"Cache-Control": "max-age=60"}, b"query"),
    "/%2e%2e/x": Answer(200, {"Cache-Control": "max-age=60"}, b"dots"),
    "//two": Answer(200, {"Cache-Control": "max-age=60"}, b"slashes"),
    "/status": Answer(
        200, {"Cache-Control": "max-age=60", "Cache-Status": "inner; hit", "Via": "1.1 inner"}
    ),
}


def varying(request: object) -> Answer:
    head = request.head  # type: ignore[attr-defined]
    coding = (head.field("accept-encoding") or "").replace(",", "")
    fields = {"Cache-Control": "max-age=60", "Vary": "Accept-Encoding", "ETag": f'"{coding}"'}
    return Answer(200, fields, f"coded {coding}".encode())


TARGETS = [
    *(target.encode() for target in [*PAGES] * 3),
    *(b"/vary", b"/vary", b"/cb:1/", b"/cb:2/dated", b"/cb:/", b"/cb:bad token/"),
    *(b"http://shop.test/", b"http://other.test/", b"//shop.test/", b"*", b"", b"shop.test:80"),
    *(b"/#fragment", b"/a\x00b", b"/\xff", b"/a\tb", b"/%00", b"/%zz", b"/" + b"x" * 9000),
    *(b"/p?b=2&a=1", b"/?", b"/;a", b"/dated?utm_source=x", b'/"', b"/{}|\\^`"),
]
METHODS = [*[b"GET"] * 24, b"HEAD", b"HEAD", b"POST", b"OPTIONS", b"PURGE", b"get", b"TRACE", b"G("]
VERSIONS = [
    *[b"HTTP/1.1"] * 40,
    b"HTTP/1.0",
    b"HTTP/1.2",
    b"HTTP/2.0",
    b"http/1.1",
    b"",
    b"HTTP/1.1 ",
]
HOSTS = [
    *[b"Host: shop.test"] * 40,
    *(
        b"host:shop.test",
        b"HOST: \t www.shop.test \t",
        b"Host: SHOP.test:80",
        b"Host: shop.test:81",
    ),
    *(b"Host: preview.shop.test", b"Host: other.test", b"Host:", b"Host: a b", b"Host : shop.test"),
    *(b"Host: shop.test\r\nHost: shop.test", b"", b"Host: shop.test,www.shop.test", b"Host: [::1]"),
]
USUAL = [
    *(
        b"User-Agent: browser/1",
        b"Accept: */*",
        b"Accept-Language: de, en;q=0.5",
        b"Cookie: a=b; c=d",
    ),
    *(b"Accept-Encoding: gzip", b"accept-encoding: br, gzip", b"Accept-Encoding:gzip ,br"),
    *(b"Referer: http://shop.test/", b"Connection: keep-alive", b"Connection: Keep-Alive"),
    *(
        b'If-None-Match: "a"',
        b'If-None-Match: W/"a", "b"',
        b"If-None-Match: *",
        b"If-None-Match: x",
    ),
    *(b"If-Modified-Since: Tue, 14 Nov 2023 22:00:00 GMT", b"If-Modified-Since: never"),
    *(b"X-Forwarded-For: 192.0.2.9", b"X-Forwarded-Proto: https", b"Authorization: Basic YTpi"),
    *(
        b"X-Empty:",
        b"X-Blank: \t ",
        b"DNT: 1",
        b"Purpose: prefetch",
        b"Upgrade-Insecure-Requests: 1",
    ),
]
ODD = [
    *(b"Cache-Control: no-cache", b"Cache-Control: only-if-cached", b"Cache-Control: max-age=0"),
    *(
        b"Pragma: no-cache",
        b"Range: bytes=0-1",
        b"Range: bytes=5-2",
        b'If-Range: "a"',
        b'If-Match: "z"',
    ),
    *(
        b"If-Unmodified-Since: Tue, 14 Nov 2000 22:00:00 GMT",
        b"Connection: close",
        b"Connection: x-a",
    ),
    *(b"Connection: keep-alive, X-Forwarded-For", b"Content-Length: 0", b"Content-Length: 3"),
    *(
        b"Content-Length: +0",
        b"Content-Length: 0\r\nContent-Length: 0",
        b"Transfer-Encoding: chunked",
    ),
    *(
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding : chunked",
        b"Expect: 100-continue",
        b"TE: trailers",
    ),
    *(
        b"Upgrade: websocket",
        b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings",
        b"Max-Forwards: 0",
    ),
    *(
        b" folded",
        b"\tfolded",
        b"no colon",
        b": no name",
        b"bad name: x",
        b"X-A: a\x00b",
        b"X-A: a\rb",
    ),
    *(b"X-A: a\nb", b"X-A: \x7f", b"X-A: \xc3\xa4", b"X-\xc3\xa4: a", b"X-(A): b", b"X-A: a\x0bb"),
    *(
        b"User-Agent: one\r\nUser-Agent: two",
        b"Cookie: a=b\r\nCookie: c=d",
        b"Keep-Alive: timeout=5",
    ),
    *(
        b"Accept-Encoding: gzip\r\nAccept-Encoding: br",
        b"Proxy-Connection: keep-alive",
        b"X-A: " + b"v" * 9000,
    ),
    *(b"X-Original-URL: /private", b"X-HTTP-Method-Override: POST", b"Forwarded: host=other.test"),
]
ENDS = [*[b"\r\n\r\n"] * 60, b"\n\n", b"\r\n\n", b"\n\r\n", b"\r\n", b"\r\n\r\nbody "]


def request(chance: random.Random) -> bytes:
    """A request: most are such as browsers send, some are odd, some are none at all."""
    lines = [chance.choice(HOSTS), *chance.sample(USUAL, chance.randrange(6))]
    if chance.random() < 0.2:
        lines += chance.sample(ODD, chance.choice([1, 1, 2]))
    chance.shuffle(lines)
    method, target = chance.choice(METHODS), chance.choice(TARGETS)
    if method not in (b"GET", b"HEAD", b"OPTIONS"):
        # What changes what is stored must not meet another task's comparison.
        target = b"/unsafe"
    start = b" ".join([method, target, chance.choice(VERSIONS)])
    whole = b"\r\n".join([start, *filter(None, lines)]) + chance.choice(ENDS)
    if chance.random() < 0.08:
        # Of a method that is unknown the edge must think that it changes what is stored.
        at = chance.randrange(len(method), len(whole))
        mutation = chance.choice([b"", b"\r", b"\n", b"\0", b" ", b":", b"\r\n", b"\xff", b"\x1f"])
        whole = whole[:at] + mutation + whole[at + chance.randrange(2) :]
    return whole


def _connection(chance: random.Random) -> tuple[bytes, tuple[int, ...]]:
    """What is sent over one connection, and where it is cut into pieces."""
    sent = request(chance) * chance.choice([1, 2]) + LAST
    return sent, tuple(sorted(chance.sample(range(1, len(sent)), chance.choice([0, 0, 1, 2]))))


def _as_get(batch: list[tuple[bytes, tuple[int, ...]]]) -> list[tuple[bytes, tuple[int, ...]]]:
    return [(b"GET" + sent.removeprefix(b"HEAD"), ()) for sent, _ in batch if sent[:4] == b"HEAD"]


async def answered(port: int, sent: bytes, cuts: tuple[int, ...]) -> bytes:
    """All that comes back until the edge closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE):
            try:
                for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True):
                    writer.write(sent[start:stop])
                    await writer.drain()
                    if stop < len(sent):
                        await asyncio.sleep(0)
                return await reader.read()
            except ConnectionError:
                return b"reset"
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "memory", [pytest.param({}, id="memory"), pytest.param({"max_bytes": 1}, id="store")]
)
@BOTH
async def test_both_ways_answer_alike(
    tmp_path: Path,
    origin: ScriptedOrigin,
    monkeypatch: pytest.MonkeyPatch,
    twin: Twin,
    memory: dict[str, int],
) -> None:
    """Byte for byte: whatever a client sends, alone, twice, in pieces, before something else;
    out of memory, and out of the store where memory has no room."""
    chance = random.Random(SEED)
    limits = {"header_timeout": 1.0, "body_idle_timeout": 0.5, "keepalive_timeout": 2.0}
    for target, answer in PAGES.items():
        origin.route(target, answer)
    origin.route("/vary", varying)
    site = {"varnish": {"networks": []}, "cache": {"request_cache_control": "honour"}}
    seen: Counter[str] = Counter()
    async with running(
        tmp_path,
        origin,
        clock=Time(),
        site=site,
        config={"limits": limits, "memory": memory},
    ) as shop:
        full = EdgeServer(shop.edge._handler.handle, shop.config.limits, clock=shop.clock)
        listener = await asyncio.get_running_loop().create_server(full, "127.0.0.1", 0)
        around = listener.sockets[0].getsockname()[1]
        through = int(shop.url.rpartition(":")[2])
        send, take = shop.edge._fast._send, shop.edge._fast._shelf.answer
        sent_fast, taken = Counter[bool](), Counter[bool]()

        def counting(*arguments: Any, **options: Any) -> None:
            sent_fast[True] += 1
            send(*arguments, **options)

        def taking(*arguments: Any) -> Any:
            answer = take(*arguments)
            taken[answer is not None] += 1
            return answer

        monkeypatch.setattr(shop.edge._fast, "_send", counting)
        monkeypatch.setattr(shop.edge._fast._shelf, "answer", taking)
        monkeypatch.setattr(fast, "scan", twin.scan)
        monkeypatch.setattr(fast, "values", twin.values)

        try:
            for _ in range(0, REQUESTS, AT_ONCE):
                batch = [_connection(chance) for _ in range(AT_ONCE)]
                # What they leave in the cache is there for both ways.
                for sent in (batch, _as_get(batch)):
                    await asyncio.gather(*(answered(around, *each) for each in sent))
                await shop.until(lambda: not shop.fetching._tasks)
                one, other = [
                    await asyncio.gather(*(answered(port, *each) for each in batch))
                    for port in (around, through)
                ]
                for (whole, cuts), expected, got in zip(batch, one, other, strict=True):
                    seen[expected[9:12].decode("latin-1")] += 1
                    for _ in range(ALONE):
                        if got == expected:
                            break
                        # Another of the batch may have changed what is stored in between.
                        expected, got = [
                            await answered(port, whole, cuts) for port in (around, through)
                        ]
                    assert got == expected, whole
        finally:
            listener.close()
            await full.shutdown()
    # Clients that cut their bodies off.
    origin.complaints.clear()
    assert {"200", "304", "400", "404", "421"} <= set(seen), seen
    assert sent_fast[True] > REQUESTS / 4, "the fast path is what is tested"
    if memory:
        assert taken[True] > REQUESTS / 4, "and so is the store"
