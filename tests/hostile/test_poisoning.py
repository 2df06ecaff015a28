"""Cache poisoning: what one request brings must be good for all who get it."""

import asyncio

import pytest

from tests.hostile.answers import BODY
from tests.hostile.conftest import FRESH, PLAIN, mirror
from tests.hostile.requests import request
from tests.kit import CLOSE, Answer, EdgeProcess, OriginRequest, ScriptedOrigin

pytestmark = pytest.mark.asyncio(loop_scope="package")

PATIENCE = 10.0

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
    "fat GET": request(b"Content-Length: 4\r\n", b"evil"),
    "slashes": b"GET /TARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "encoded": b"GET /%70%61ge/1 HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "cb: alone": b"GET /cb:TARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "cb:": b"GET /cb:1TARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "cb: and slashes": b"GET /cb:1/TARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "cb: twice": b"GET /cb:1/cb:2TARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "cb: and a URL": b"GET /cb:1/http://evil.exampleTARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "cb: and dots": b"GET /cb:1/../cb:2/..TARGET HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "tracking": b"GET TARGET?utm_source=evil HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "tracking twice": (
        b"GET TARGET?utm_source=a&utm_source=evil HTTP/1.1\r\nHost: shop.example\r\n\r\n"
    ),
    "tracking by HEAD": b"HEAD TARGET?utm_source=evil HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "a parameter twice": b"GET TARGET?a=1&a=evil HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    "tracking with a semicolon": (
        b"GET TARGET?utm_source=a;callback=evil HTTP/1.1\r\nHost: shop.example\r\n\r\n"
    ),
} | {
    field: b"GET TARGET HTTP/1.1\r\nHost: shop.example\r\n%b\r\n\r\n" % field.encode()
    for field in (
        "X-Forwarded-Host: evil.example",
        "X_Forwarded_Host: evil.example",
        "X.Forwarded.Host: evil.example",
        "X-Forwarded~Host: evil.example",
        "X-Original-Remote-Addr: evil",
        "X-Real-Port: evil",
        "WL-Proxy-Client-IP: evil",
        "X-Envoy-Original-Host: evil",
        "Base-URL: http://evil.example",
        "Request-URI: /evil",
        "X-Middleware-Prefetch: 1; evil",
        "X-Nuxt-No-SSR: evil",
        "X-React-Router-SPA-Mode: evil",
        "X-Astro-Path: /evil",
        "X-PHP-OB-Level: evil",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 1337",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Server: evil.example",
        "X-Host: evil.example",
        "X-Original-URL: /evil",
        "X-Rewrite-URL: /evil",
        "X-Original-URI: /evil",
        "X-Forwarded-Scheme: nothttps",
        "X-Forwarded: host=evil.example",
        "X-Original-Host: evil.example",
        "X-Real-IP: evil",
        "True-Client-IP: evil",
        "CF-Connecting-IP: evil",
        'CF-Visitor: {"scheme":"evil"}',
        "Forwarded: host=evil.example;proto=https",
        "Forwarded-Host: evil.example",
        "X-Middleware-Subrequest: evil",
        "X-Invoke-Status: 500",
        "X-Invoke-Error: evil",
        "X-Middleware-Next: evil",
        "X-Accel-Mapping: /=evil",
        "X-Sendfile-Type: evil",
        "X-Forward-Host: evil.example",
        "X-Azure-SocketIP: evil",
        "X-WAWS-Unencoded-URL: /evil",
        "Max-Forwards: 0",
        "X-HTTP-Method: POST",
        "Surrogate-Capability: evil=\"ESI/1.0\"",
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
    method, seen, fields, body = reader.json()
    assert (reader.status, method, fields, body) == (200, "GET", PLAIN, "")
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


async def test_what_a_stranger_had_coded_is_not_for_those_who_cannot_read_it(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    """From an origin that chooses a coding and forgets to say so in Vary."""

    def page(request: OriginRequest) -> Answer:
        coding = request.field("accept-encoding")
        own = {"Content-Encoding": coding} if coding else {}
        return Answer(200, FRESH | own, b"coded" if coding else b"page")

    origin.route(target, page)
    assert (await edge.get(target, {"Accept-Encoding": "evil"})).text == "coded"
    reader = await edge.get(target)
    assert (reader.text, reader.field("content-encoding")) == ("page", None)
    assert (await edge.get(target)).cache_status.get("hit")


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


@pytest.mark.parametrize("name", ["a.css", "a.js", "a.png", "a.woff2", "a.html", "robots.txt"])
@pytest.mark.parametrize(
    "directives", ["private", "no-store", "max-age=600\r\nSet-Cookie: a=alice"]
)
async def test_and_so_it_is_whatever_its_url_looks_like(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, name: str, directives: str
) -> None:
    """Where everything has a lifetime by the site's own rule, too."""
    small = {"Host": "small.example"}
    own = f"/{target.rpartition('/')[2]}/{name}"
    kind = "text/css" if name.endswith("css") else "text/plain"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nCache-Control: {directives}\r\n"
    origin.route(own, [head.encode() + BODY])
    for asked in (1, 2):
        assert (await edge.get(own, small)).status == 200
        assert origin.counts[own] == asked


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


ODD_ERRORS = [400, 401, 403, 405, 406, 409, 413, 414, 415, 422, 431, 500, 501, 502, 503, 504]


@pytest.mark.parametrize("status", ODD_ERRORS)
async def test_an_error_that_one_request_brings_about_is_no_other_s(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, status: int
) -> None:
    """Cache-poisoned denial of service: the origin calls the error fresh, and all would get it."""

    def page(request: OriginRequest) -> Answer:
        odd = request.field("x-odd") or request.field("x-long")
        return Answer(status if odd else 200, FRESH, b"error" if odd else b"page")

    origin.route(target, page)
    for odd in ({"X-Odd": "\xff"}, {"X-Long": "a" * 20_000}):
        refused = await edge.get(target, odd)
        assert (refused.status, refused.text) == (status, "error")
        assert refused.cache_status.get("detail") in (
            "error-status", "status", "uncacheable; error-status", "uncacheable; status",
        )  # fmt: skip
    pages = [await edge.get(target) for _ in range(2)]
    assert [page.text for page in pages] == ["page", "page"]
    assert "hit" in pages[1].cache_status


@pytest.mark.parametrize("status", [404, 410, 451, 301, 308])
async def test_what_is_said_of_a_resource_is_for_all(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, status: int
) -> None:
    origin.route(target, Answer(status, FRESH, b"gone"))
    await edge.get(target)
    assert "hit" in (await edge.get(target)).cache_status


# -- deception: a page of one reader's under the name of a file

HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(
    "name",
    ["/a.css", "/a.js?b", ";a.css", "%3Ba.css", "%2Fa.css", "/..%2fa.png", "%00a.css", "%23a.ico"],
)
@pytest.mark.parametrize("fields", [{}, {"Cache-Control": "max-age=60"}], ids=["unsaid", "max-age"])
async def test_a_page_under_the_name_of_a_file_is_not_stored(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, name: str, fields: dict[str, str]
) -> None:
    small = {"Host": "small.example"}  # where all has ten minutes
    bait = f"/{target.rpartition('/')[2]}{name}"
    origin.route(bait, Answer(200, HTML | fields, b"alice's"))
    detail = (await edge.get(bait, small)).cache_status["detail"]
    assert str(detail).partition("; ")[0] == "content-type"
    origin.route(bait, Answer(200, HTML, b"bob's"))
    assert (await edge.get(bait, small)).text == "bob's"


async def test_files_and_pages_by_their_own_names_are(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    small = {"Host": "small.example"}
    for name, media_type in (("a.css", "text/css"), ("account", "text/html"), ("a.png", "image/x")):
        own = f"/{target.rpartition('/')[2]}/{name}"
        origin.route(own, Answer(200, {"Content-Type": media_type}, b"x"))
        await edge.get(own, small)
        assert "hit" in (await edge.get(own, small)).cache_status
