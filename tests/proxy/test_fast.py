"""The fast path: which requests it answers, and when what it has learnt no longer holds.

That its answers are those of the full path, byte for byte, is test_paths.py's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.invalidation.selectors import Mode
from edgeproxy.invalidation.service import Caller
from tests.kit import Answer
from tests.proxy.parts import Time, Versions, by_tag, by_url, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from tests.kit import OriginRequest, ScriptedOrigin
    from tests.proxy.parts import ServedEdge

MINUTE = {"Cache-Control": "max-age=60", "ETag": '"1"', "Cache-Tag": "home"}


class Watch:
    """Counts the answers of an edge's fast path, as what lets requests in beside them does."""

    def __init__(self, shop: ServedEdge) -> None:
        self._count = shop.edge._admission._count_hits
        self._seen = 0

    def taken(self) -> int:
        """How many since the last time."""
        before, self._seen = self._seen, self._count()
        return self._seen - before


@pytest.fixture(
    params=[pytest.param({}, id="memory"), pytest.param({"max_bytes": 1}, id="store-alone")]
)
async def shop(
    tmp_path: Path, origin: ScriptedOrigin, request: pytest.FixtureRequest
) -> AsyncIterator[ServedEdge]:
    clock = Time()
    clock.now += 0.25
    async with running(tmp_path, origin, clock=clock, config={"memory": request.param}) as edge:
        yield edge


@pytest.fixture
def fast(shop: ServedEdge) -> Watch:
    return Watch(shop)


@pytest.mark.parametrize(
    ("fields", "method", "answers"),
    [
        pytest.param({}, "GET", 1, id="GET"),
        pytest.param({}, "HEAD", 1, id="HEAD"),
        pytest.param({"If-None-Match": '"1"'}, "GET", 1, id="condition"),
        pytest.param({"Cookie": "a=b", "Authorization": "Basic eA=="}, "GET", 1, id="credentials"),
        pytest.param({"Connection": "close"}, "GET", 1, id="last"),
        pytest.param({"Range": "bytes=0-1"}, "GET", 0, id="range"),
        pytest.param({"If-Match": '"1"'}, "GET", 0, id="precondition"),
        pytest.param({"Cache-Control": "max-age=0"}, "GET", 0, id="directive"),
        pytest.param({"Pragma": "no-cache"}, "GET", 0, id="pragma"),
        pytest.param({"Content-Length": "0"}, "GET", 0, id="framing"),
        pytest.param({"Connection": "x-own"}, "GET", 0, id="connection"),
        pytest.param({"Upgrade": "websocket", "Connection": "upgrade"}, "GET", 0, id="upgrade"),
        pytest.param({}, "OPTIONS", 0, id="method"),
    ],
)
async def test_what_is_nothing_but_a_hit_is_answered_at_once(
    shop: ServedEdge,
    origin: ScriptedOrigin,
    fast: Watch,
    fields: Mapping[str, str],
    method: str,
    answers: int,
) -> None:
    origin.route("/page", Answer(200, MINUTE, b"page"))
    await shop.get("/page")
    fast.taken()
    for _ in range(2):
        await shop.get("/page", fields, method=method)
        assert fast.taken() == answers


async def test_what_the_store_alone_has_is_a_hit(
    shop: ServedEdge, origin: ScriptedOrigin, fast: Watch
) -> None:
    origin.route("/page", Answer(200, MINUTE, b"page"))
    await shop.get("/page")
    shop.empty_memory()
    assert (await shop.get("/page")).body == b"page"
    assert fast.taken() == 1
    assert origin.counts["/page"] == 1


@pytest.mark.parametrize("mode", [Mode.DELETE, Mode.INVALIDATE])
async def test_a_purge_is_seen_at_once(
    shop: ServedEdge, origin: ScriptedOrigin, fast: Watch, mode: Mode
) -> None:
    origin.route("/page", Versions(MINUTE))
    origin.route("/other", Answer(200, {"Cache-Control": "max-age=60"}, b"other"))
    for _ in range(2):
        await shop.get("/page")
        await shop.get("/other")
    assert fast.taken() == 2
    await shop.purge(by_tag("home"), mode=mode)
    response = await shop.get("/page")
    assert fast.taken() == 0
    assert response.cache_status.get("hit") == (True if mode is Mode.INVALIDATE else None)
    assert response.body == (b"version 1" if mode is Mode.INVALIDATE else b"version 2")
    await shop.get("/other")
    assert fast.taken() == 1, "what it does not concern stays a hit"


async def test_a_purge_is_seen_after_its_rules_are_dropped(
    shop: ServedEdge, origin: ScriptedOrigin, fast: Watch
) -> None:
    """The sweep marks what is in memory, and nobody is told but by that."""
    origin.route("/page", Versions(MINUTE))
    await shop.get("/page")
    await shop.get("/page")
    await shop.purge(by_tag("home"), mode=Mode.INVALIDATE)
    await shop.until(lambda: len(shop.edge.view) == 0)
    fast.taken()
    assert (await shop.get("/page")).cache_status["detail"] == "invalidated"
    assert fast.taken() == 0


async def test_what_has_a_deadline_is_no_fresh_hit(
    shop: ServedEdge, origin: ScriptedOrigin, fast: Watch
) -> None:
    origin.route("/page", Versions(MINUTE))
    await shop.get("/page")
    await shop.get("/page")
    caller = Caller("editor", "192.0.2.1")
    await shop.edge.service.purge([by_url("/page")], Mode.DELETE, caller, deadline=5.0)
    fast.taken()
    await shop.get("/page")
    assert fast.taken() == 0
    await shop.until(lambda: origin.counts["/page"] == 2)
    await shop.until(lambda: not shop.refreshes)
    assert (await shop.get("/page")).body == b"version 2"


async def test_age_and_freshness_go_on(
    shop: ServedEdge, origin: ScriptedOrigin, fast: Watch
) -> None:
    origin.route("/page", Versions({"Cache-Control": "max-age=3"}))
    seen = []
    await shop.get("/page")
    for _ in range(7):
        shop.clock.now += 0.5
        response = await shop.get("/page")
        seen.append((response.field("age"), response.cache_status.get("ttl"), response.body))
    assert [each[0] for each in seen] == ["0", "1", "1", "2", "2", None, "0"]
    assert [each[1] for each in seen] == ["2", "2", "1", "1", "0", None, "2"]
    assert fast.taken() == 6


async def test_variants_are_told_apart(
    shop: ServedEdge, origin: ScriptedOrigin, fast: Watch
) -> None:
    def coded(request: Any) -> Answer:
        coding = request.head.field("accept-encoding") or "none"
        return Answer(200, MINUTE | {"Vary": "Accept-Encoding"}, coding.encode())

    origin.route("/page", coded)
    codings = ["gzip", "br", "gzip, br"]
    for _ in range(3):
        for coding in codings:
            assert (await shop.get("/page", {"Accept-Encoding": coding})).body == coding.encode()
        assert (await shop.get("/page")).body == b"none"
    assert fast.taken() == 8


async def test_a_variant_that_comes_later_is_found(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    """What answered everybody does so no longer once the origin says that it varies."""
    origin.route("/page", Answer(200, {"Cache-Control": "max-age=60"}, b"for all"))
    await shop.get("/page")
    await shop.get("/page")
    await shop.purge(by_url("/page"))
    origin.route(
        "/page", Answer(200, {"Cache-Control": "max-age=60", "Vary": "Cookie"}, b"for some")
    )
    for cookie in ("a", "a", "b", "b"):
        await shop.get("/page", {"Cookie": cookie})
    assert origin.counts["/page"] == 3


UNHEARD = [
    *("X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Anything"),
    *("X_Forwarded_Server", "X-Host", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override"),
    *("CF-Visitor", "X-Real-IP", "True-Client-IP", "X-Middleware-Subrequest", "If-None-Match"),
]


def _shows(name: str) -> Callable[[OriginRequest], Answer]:
    return lambda request: Answer(
        200, MINUTE | {"Vary": f"{name}, Accept-Encoding"}, (request.field(name) or "none").encode()
    )


@pytest.mark.parametrize("name", UNHEARD)
async def test_what_no_origin_hears_of_a_stranger_selects_nothing(
    shop: ServedEdge, origin: ScriptedOrigin, fast: Watch, name: str
) -> None:
    """However many values strangers send, there is one variant; others, one after the other."""
    origin.route("/page", _shows(name))
    await shop.get("/page")
    fast.taken()
    for number in range(3):
        await shop.get("/page", {name: f'"evil{number}"'})
    assert origin.counts["/page"] == 1
    assert len(shop.stored()) == 1
    assert fast.taken() == 3
    # And those that there are otherwise keep apart.
    await shop.get("/page", {name: "evil", "Accept-Encoding": "gzip"})
    await shop.get("/page", {name: "other", "Accept-Encoding": "gzip"})
    await shop.get("/page", {name: "other"})
    assert origin.counts["/page"] == len(shop.stored()) == 2


async def test_what_no_origin_hears_is_not_even_looked_at(
    served: ServedEdge, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the answers that are remembered are good for whatever strangers send."""
    origin.route("/page", _shows("X-Forwarded-Port"))
    await served.get("/page")
    await served.get("/page")

    def found(*_: Any) -> None:
        raise AssertionError("it was not remembered")

    monkeypatch.setattr(served.edge._fast, "_find", found)
    fast = Watch(served)
    fast.taken()
    for port in ("1", "2", "3"):
        await served.get("/page", {"X-Forwarded-Port": port})
    assert fast.taken() == 3


async def test_the_host_as_it_is_written_selects_nothing(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/page", _shows("Host"))
    for host in ("shop.test", "SHOP.test", "shop.test:80", "Shop.Test:"):
        assert (await shop.get("/page", host=host)).body == b"shop.test"
    assert origin.counts["/page"] == 1


@pytest.mark.parametrize(
    ("trusted", "let_through", "name", "heard"),
    [
        pytest.param(True, [], "X-Forwarded-Port", True, id="of a proxy"),
        pytest.param(True, [], "X_Forwarded_Port", False, id="of a proxy, which did not say it"),
        pytest.param(True, [], "X-Original-URL", False, id="of a proxy, which vouches for none"),
        pytest.param(True, [], "X-Forwarded-Host", False, id="overwritten for a proxy, too"),
        pytest.param(False, ["x-original-url"], "X-Original-URL", True, id="let through"),
        pytest.param(False, ["x-host"], "X-Forwarded-Port", False, id="another let through"),
    ],
)
@pytest.mark.parametrize("memory", [{}, {"max_bytes": 1}], ids=["memory", "store-alone"])
async def test_what_the_origin_hears_selects(
    tmp_path: Path,
    origin: ScriptedOrigin,
    memory: dict[str, int],
    trusted: bool,
    let_through: list[str],
    name: str,
    heard: bool,
) -> None:
    config = {"trusted_proxies": ["127.0.0.0/8"] if trusted else [], "memory": memory}
    site = {"let_through": let_through}
    async with running(tmp_path, origin, config=config, site=site) as shop:
        fast = Watch(shop)
        origin.route("/page", _shows(name))
        for _ in range(2):
            for said in ("one", "two"):
                answer = await shop.get("/page", {name: said})
                assert not heard or answer.text == said
        assert origin.counts["/page"] == len(shop.stored()) == (2 if heard else 1)
        assert fast.taken() == (2 if heard else 3)


async def test_sites_are_told_apart(tmp_path: Path, origin: ScriptedOrigin) -> None:
    config = {"sites": {"two": {"hosts": ["two.test"], "origins": [{"url": origin.url}]}}}
    origin.route("/page", lambda request: Answer(200, MINUTE, request.head.field("host").encode()))
    async with running(tmp_path, origin, config=config) as edge:
        for _ in range(3):
            for host in ("shop.test", "www.shop.test", "two.test", "SHOP.test"):
                response = await edge.get("/page", host=host)
                assert response.body == host.lower().encode()
        assert (await edge.get("/page", host="nobody.test")).status == 421


async def test_a_reload_forgets_what_was_learnt(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/page", Answer(200, MINUTE, b"page"))
    await shop.get("/page")
    assert (await shop.get("/page")).field("cache-status")
    site = shop.config.sites["shop"].model_copy(update={"cache_status": False})
    shop.edge.reload(shop.config.model_copy(update={"sites": {"shop": site}}))
    assert (await shop.get("/page")).field("cache-status") is None


async def test_a_token_that_was_not_issued_names_a_copy(
    shop: ServedEdge, origin: ScriptedOrigin, fast: Watch
) -> None:
    """It is looked up each time: a token may be issued at any."""
    origin.route("/page", Versions(MINUTE))
    for _ in range(3):
        assert (await shop.get("/cb:abc/page")).body == b"version 1"
    assert (await shop.get("/page")).body == b"version 2"
    assert fast.taken() == 2


async def test_an_issued_token_is_for_the_full_path(
    shop: ServedEdge, origin: ScriptedOrigin, fast: Watch
) -> None:
    origin.route("/page", Versions(MINUTE))
    await shop.get("/page")
    issued = await shop.edge.service.issue_buster("shop", Caller("editor", "192.0.2.1"))
    fast.taken()
    for _ in range(3):
        assert (await shop.get(f"/cb:{issued.token}/page")).body == b"version 2"
    assert fast.taken() == 0


async def test_what_comes_from_a_proxy_is_read_as_it_says(
    tmp_path: Path, origin: ScriptedOrigin
) -> None:
    """X-Forwarded-Proto is in the key where a trusted proxy says it, and nowhere else."""
    origin.route(
        "/page",
        lambda request: Answer(200, MINUTE, request.head.field("x-forwarded-proto").encode()),
    )
    for trusted, expected in ((["127.0.0.0/8"], b"https"), ([], b"http")):
        folder = tmp_path / expected.decode()
        folder.mkdir()
        async with running(folder, origin, config={"trusted_proxies": trusted}) as edge:
            for _ in range(3):
                assert (await edge.get("/page", {"X-Forwarded-Proto": "https"})).body == expected
                assert (await edge.get("/page")).body == b"http"


async def test_the_log_is_told(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/page", Answer(200, MINUTE, b"page"))
    fields = {"User-Agent": "browser", "Referer": "/from"}
    for method, extra in (("GET", {}), ("HEAD", {}), ("GET", {"If-None-Match": '"1"'})):
        await shop.get("/page", fields | extra, method=method)
        await shop.get("/page", fields | extra, method=method)
    told = [(one.method, one.status, one.bytes_sent, one.result) for one in shop.records]
    assert told == [
        (b"GET", 200, 4, "miss"),
        (b"GET", 200, 4, "hit"),
        *[(b"HEAD", 200, 0, "hit")] * 2,
        *[(b"GET", 304, 0, "hit")] * 2,
    ]
    last = shop.records[-1]
    assert (last.client, last.site, last.host) == ("127.0.0.1", "shop", "shop.test")
    assert (last.user_agent, last.referer) == (b"browser", b"/from")
    assert last.cache_status == b"edgeproxy; hit; ttl=60"


async def test_requests_at_once_are_answered_in_order(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    """Hits before a miss, and behind it."""
    origin.route("/hit", Answer(200, MINUTE, b"hit"))
    origin.route("/miss", Versions({"Cache-Control": "no-store"}))
    await shop.get("/hit")
    port = int(shop.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = b"GET /%b HTTP/1.1\r\nHost: shop.test\r\n%b\r\n"
    close = b"Connection: close\r\n"
    writer.write(
        b"".join(head % (name, b"") for name in (b"hit", b"hit", b"miss", b"hit", b"miss"))
    )
    writer.write(head % (b"hit", close))
    answers = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    bodies = [part.partition(b"\r\n\r\n")[2] for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert bodies == [b"hit", b"hit", b"version 1", b"hit", b"version 2", b"hit"]


async def test_an_idle_connection_is_closed(tmp_path: Path, origin: ScriptedOrigin) -> None:
    """After its first hit, or without any request at all."""
    limits = {"header_timeout": 0.2, "keepalive_timeout": 0.2}
    origin.route("/page", Answer(200, MINUTE, b"page"))
    async with running(tmp_path, origin, config={"limits": limits}) as edge:
        await edge.get("/page")
        port = int(edge.url.rpartition(":")[2])
        for sent in (b"", b"GET /page HTTP/1.1\r\nHost: shop.test\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            answer = await asyncio.wait_for(reader.read(), 10)
            assert answer.startswith(b"HTTP/1.1 200 OK") == bool(sent)
            writer.close()


async def test_a_reader_that_stops_reading_is_reset(tmp_path: Path, origin: ScriptedOrigin) -> None:
    limits = {"body_idle_timeout": 0.3, "keepalive_timeout": 0.3, "header_timeout": 0.3}
    origin.route("/large", Answer(200, MINUTE, bytes(900_000)))
    async with running(tmp_path, origin, config={"limits": limits}) as edge:
        await edge.get("/large")
        port = int(edge.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /large HTTP/1.1\r\nHost: shop.test\r\n\r\n" * 20)
        await edge.until(lambda: edge.edge.server.open_connections == 0)
        with pytest.raises(ConnectionError):
            while await reader.read(65536):
                pass
        writer.close()


async def test_what_leaves_memory_is_not_remembered(
    tmp_path: Path, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tier's bound is that of the bodies that are kept alive, too."""
    async with running(tmp_path, origin, config={"memory": {"max_bytes": 40_000}}) as shop:
        for number in range(60):
            origin.route(f"/{number}", Answer(200, MINUTE, bytes(1000)))
            for _ in range(2):
                await shop.get(f"/{number}")
        fast, memory = shop.edge._fast, shop.edge._memory
        remembered = sum(len(peers.targets) for peers in fast._peers.values())
        assert 0 < remembered <= len(memory) < 40
