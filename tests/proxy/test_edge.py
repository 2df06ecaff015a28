"""One worker's edge as a whole: started, reloaded, looked into, drained and closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.cache.errors import StoreError
from edgeproxy.invalidation.journal import JournalError
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.proxy.edge import Edge
from tests.kit import Answer, MessageCut, ScriptedOrigin
from tests.proxy.parts import PATIENCE, Time, by_tag, by_url, edge_config, place_in, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.proxy.parts import ServedEdge

    Serve = Callable[..., Awaitable[ServedEdge]]

FRESH = {"Cache-Control": "max-age=60, stale-while-revalidate=0, stale-if-error=0"}
GRACE = {"Cache-Control": "max-age=60, stale-while-revalidate=600, stale-if-error=0"}
ON_ERROR = {"Cache-Control": "max-age=60, stale-while-revalidate=0, stale-if-error=600"}
TAGGED = {**FRESH, "Cache-Tag": "home"}


async def is_hit(served: ServedEdge, target: str = "/", host: str = "shop.test") -> bool:
    return "hit" in (await served.get(target, host=host)).cache_status


# -- one run after another


@pytest.mark.parametrize("mode", [None, *Mode])
async def test_what_was_stored_and_purged_outlives_the_edge(
    tmp_path: Path, origin: ScriptedOrigin, mode: Mode | None
) -> None:
    origin.route("/", Answer(200, TAGGED, b"page"))
    clock = Time()
    async with running(tmp_path, origin, clock=clock) as served:
        await served.get("/")
        if mode is not None:
            await served.purge(by_tag("home"), mode=mode)
    async with running(tmp_path, origin, clock=clock) as served:
        assert served.edge.view.catch_up() == (0 if mode is None else 1)
        status = (await served.get("/")).cache_status
    assert ("hit" in status) is (mode is not Mode.DELETE)
    assert status.get("detail") == ("invalidated" if mode is Mode.INVALIDATE else None)


async def test_an_empty_store_needs_none_of_the_rules_of_the_past(
    tmp_path: Path, origin: ScriptedOrigin
) -> None:
    async with running(tmp_path, origin) as served:
        # Not swept yet when the edge closes.
        position = (await served.purge(by_tag("home"))).position
    async with running(tmp_path, origin) as served:
        assert (served.edge.view.floor, len(served.edge.view)) == (position, 0)


async def test_a_store_of_the_worker_s_own_begins_empty(
    tmp_path: Path, origin: ScriptedOrigin
) -> None:
    origin.route("/", Answer(200, FRESH, b"page"))
    config = {"store": {"url": "memory:", "state_dir": str(tmp_path)}}
    for _ in range(2):
        async with running(tmp_path, origin, config=config) as served:
            assert not await is_hit(served)
            assert await is_hit(served)


@pytest.mark.parametrize(
    ("damaged", "error"), [("journal", JournalError), ("responses", StoreError)]
)
async def test_an_edge_that_can_t_start_can_be_closed(
    tmp_path: Path, damaged: str, error: type[Exception]
) -> None:
    place = await place_in(tmp_path)
    folder = tmp_path / damaged
    if folder.exists():
        folder.rename(tmp_path / "elsewhere")
    folder.write_text("no folder")
    edge = Edge(edge_config(tmp_path), place, Time(), lambda _: None)
    with pytest.raises(error):
        await edge.start()
    await edge.close()


async def test_an_edge_that_was_never_started_can_be_closed(tmp_path: Path) -> None:
    place = await place_in(tmp_path)
    await Edge(edge_config(tmp_path), place, Time(), lambda _: None).close()


# -- a new configuration


async def test_a_reload_changes_sites_and_keeps_connections(
    served: ServedEdge, origin: ScriptedOrigin, tmp_path: Path
) -> None:
    origin.route("/", Answer(200, FRESH, b"page"))
    new = edge_config(
        tmp_path,
        origin,
        {"hosts": ["new.test"], "cache_status": False},
        {"trusted_proxies": ["127.0.0.0/8"]},
    )
    async with await served.connect() as connection:
        assert (await connection.exchange("GET", "/")).status == 200
        served.edge.reload(new)
        assert (await connection.exchange("GET", "/")).status == 421
        answer = await connection.exchange(
            "GET", "/", {"Host": "new.test", "X-Forwarded-For": "192.0.2.9"}
        )
    assert (answer.status, answer.field("cache-status")) == (200, None)
    assert served.records[-1].client == "192.0.2.9"


async def test_a_reload_keeps_what_is_stored_and_judges_it_anew(
    served: ServedEdge, origin: ScriptedOrigin, tmp_path: Path
) -> None:
    origin.route("/", Answer(200, TAGGED, b"page"))
    await served.get("/")
    assert (await served.get("/")).field("cache-tag") is None
    served.clock.now += 30
    served.edge.reload(edge_config(tmp_path, origin, {"tags": {"debug": True}}))
    again = await served.get("/")
    assert again.cache_status == {"hit": True, "ttl": "30"}
    assert again.field("cache-tag") == "home", "nothing that was rendered before is sent"
    served.edge.reload(edge_config(tmp_path, origin, {"ttl": {"max": 20}}))
    assert (await served.get("/")).cache_status["fwd"] == "stale"


async def test_a_reload_asks_new_origins(
    served: ServedEdge, origin: ScriptedOrigin, tmp_path: Path
) -> None:
    origin.route("/before", Answer(200, FRESH, b"page"))
    assert (await served.get("/before")).body == b"page"
    async with ScriptedOrigin() as other:
        other.route("/", Answer(200, FRESH, b"other"))
        served.edge.reload(edge_config(tmp_path, other))
        assert (await served.get("/")).body == b"other"


async def test_a_reload_lets_what_is_under_way_come_to_its_end(
    served: ServedEdge, origin: ScriptedOrigin, tmp_path: Path
) -> None:
    go = asyncio.Event()
    origin.route("/", Answer(200, FRESH, b"page", hold=go))
    asking = asyncio.create_task(served.get("/"))
    await origin.seen("/")
    served.edge.reload(edge_config(tmp_path, "http://127.0.0.1:9"))
    go.set()
    assert (await asking).body == b"page"


@pytest.mark.parametrize("status", [200, 304])
async def test_what_comes_for_a_request_from_before_a_reload_is_judged_anew(
    served: ServedEdge, origin: ScriptedOrigin, tmp_path: Path, status: int
) -> None:
    go = asyncio.Event()
    fields = {"Cache-Control": "max-age=60", "ETag": '"v"'}
    if status == 304:
        origin.route("/", Answer(200, fields, b"page"))
        await served.get("/")
        served.clock.now += 61
    origin.route("/", Answer(status, fields, b"" if status == 304 else b"page", hold=go))
    asking = asyncio.create_task(served.get("/"))
    await origin.seen("/", 2 if status == 304 else 1)
    served.edge.reload(edge_config(tmp_path, origin, {"ttl": {"max": 20}}))
    go.set()
    assert (await asking).body == b"page"
    served.clock.now += 30
    assert (await served.get("/")).cache_status["fwd"] == "stale"
    assert (await served.get("/")).cache_status["hit"] is True


async def test_a_reload_changes_limits_for_new_connections(
    served: ServedEdge, tmp_path: Path
) -> None:
    limits = {"limits": {"head_bytes": "1KiB"}}
    served.edge.reload(edge_config(tmp_path, config=limits))
    answer = await served.get("/", {"X-Long": "a" * 1500})
    assert answer.status == 431


# -- the end


async def test_a_drain_ends_each_connection_after_its_answer(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    go = asyncio.Event()
    origin.route("/", Answer(200, FRESH, b"page", hold=go))
    async with await served.connect() as idle, await served.connect() as busy:
        await idle.exchange("GET", "/nothing")
        await busy.request("GET", "/")
        await origin.seen("/")
        await served.until(lambda: served.edge.server.open_connections == 2)
        assert served.edge.in_flight == 1
        served.edge.begin_drain()
        assert await asyncio.wait_for(idle.ended(), PATIENCE) == "closed"
        go.set()
        answer = await busy.response()
        assert (answer.body, answer.field("connection")) == (b"page", "close")
        assert await asyncio.wait_for(busy.ended(), PATIENCE) == "closed"
    await served.until(lambda: served.edge.in_flight == 0)


async def test_a_close_breaks_off_what_is_under_way(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    rest = asyncio.Event()
    origin.route("/", Answer(200, FRESH, b"page", hold_body=rest))
    origin.route("/passed", Answer(200, FRESH, b"page", hold_body=rest))
    async with await served.connect() as one, await served.connect() as other:
        await one.request("GET", "/")
        await other.request("POST", "/passed", body=b"x")
        streams = [await each.start_response() for each in (one, other)]
        await asyncio.wait_for(served.edge.close(), PATIENCE)
        for stream in streams:
            with pytest.raises(MessageCut):
                await stream.whole()
    rest.set()
    await asyncio.wait_for(origin.quiet(), PATIENCE)
    assert list((served.place.directory / "tmp").iterdir()) == []
    assert list(served.place.runtime_dir.glob("peer-*")) == []


# -- the log


@pytest.mark.parametrize(
    ("raw", "status", "method", "target", "version"),
    [
        (b"nonsense\r\n\r\n", 400, b"nonsense", b"", ""),
        (b"GET /\xff HTTP/3.0\r\n\r\n", 505, b"GET", b"/\xff", "3.0"),
        (b"GET /a HTTP/1.1\r\nBad Name: x\r\n\r\n", 400, b"GET", b"/a", "1.1"),
    ],
)
async def test_what_is_no_request_is_in_the_log_too(
    served: ServedEdge, raw: bytes, status: int, method: bytes, target: bytes, version: str
) -> None:
    async with await served.connect() as connection:
        await connection.send(raw)
        answer = await connection.response()
    assert answer.status == status
    (record,) = served.records
    assert (record.status, record.result, record.client) == (status, "refused", "127.0.0.1")
    assert (record.method, record.target, record.version) == (method, target, version)
    assert (record.site, record.duration) == ("", 0)


# -- what the admin side is told


async def test_all_that_is_stored_for_a_selector_is_explained(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/a", lambda request: Answer(200, {**TAGGED, "Vary": "X-A"}, b"a"))
    origin.route("/b", Answer(200, FRESH, b"b"))
    for value in ("1", "2", "3"):
        await served.get("/a", {"X-A": value})
    await served.get("/b")
    found = served.explain(by_url("/a"))
    assert sorted(str(each.variant["x-a"]) for each in found) == ["1", "2", "3"]
    assert {each.served for each in found} == {"hit"}
    assert len(served.explain(by_tag("home"))) == 3
    assert [each.url for each in served.explain(by_url("/b", None))] == ["http://shop.test/b"]
    assert served.explain(by_url("/b", "www.shop.test")) == []
    assert served.explain(Selector.by_everything("shop", "preview")) == []


async def test_an_explanation_knows_the_journal_and_the_failures(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    grace = {"Cache-Control": "max-age=60, stale-while-revalidate=600"}
    origin.route("/", Answer(200, grace, b"page"))
    await served.get("/")
    await served.purge(by_url("/"), mode=Mode.INVALIDATE)
    (told,) = served.explain(by_url("/"))
    assert (told.served, told.invalidated_at) == ("stale", 1)
    assert told.why.endswith("refreshed behind it")
    origin.route("/", Answer(500, {}, b"broken"))
    await served.get("/")
    await served.until(lambda: served.refreshes == 0)
    (told,) = served.explain(by_url("/"))
    assert told.why.endswith("the last refresh failed")
    await served.purge(by_url("/"), mode=Mode.DELETE)
    assert {each.served for each in served.explain(by_url("/"))} <= {"no"}


async def test_notes_say_why_nothing_is_stored(served: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/", Answer(200, {"Cache-Control": "no-store"}, b"x"))
    assert served.edge.notes(by_url("/")) == []
    await served.get("/")
    said = ["http://shop.test/: the last answer was not stored: no-store"]
    assert served.edge.notes(by_url("/")) == said
    assert served.edge.notes(by_url("/a")) == []
    assert served.edge.notes(by_url("/", "www.shop.test")) == []
    assert served.edge.notes(by_url("/", None)) == [], "of every host there is too much to say"
    served.clock.now += 61
    assert served.edge.notes(by_url("/")) == []


# -- what can never answer again


@pytest.mark.parametrize(
    ("fields", "passed", "dead"),
    [
        pytest.param(ON_ERROR, 60 + 599, False, id="5861-4: in its grace"),
        pytest.param(ON_ERROR, 60 + 601, True, id="5861-4: beyond it"),
        pytest.param(FRESH, 59, False, id="fresh"),
        pytest.param(FRESH, 61, True, id="stale, and no grace"),
        pytest.param(
            {**FRESH, "ETag": '"1"'}, 9_000_000, False, id="9111-4.3.1: it can be asked about"
        ),
        pytest.param(
            {**FRESH, "Last-Modified": "Tue, 14 Nov 2023 20:00:00 GMT"},
            9_000_000,
            False,
            id="9111-4.3.1: by its date, too",
        ),
        pytest.param(GRACE, 60 + 599, False, id="5861-3: in its grace"),
        pytest.param(GRACE, 60 + 601, True, id="5861-3: beyond it"),
    ],
)
async def test_what_is_dead_is_removed(
    served: ServedEdge, origin: ScriptedOrigin, fields: dict[str, str], passed: int, dead: bool
) -> None:
    origin.route("/", Answer(200, fields, b"page"))
    await served.get("/")
    served.clock.now += passed
    await served.edge.tier.expire_step(None, served.edge._is_dead)
    assert (served.stored() == []) is dead


async def test_the_edge_itself_sees_to_that(served: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/", Answer(200, FRESH, b"page"))
    await served.get("/")
    served.clock.now += 61
    await served.until(lambda: not served.stored())


async def test_what_a_site_has_left_may_be_of_use_when_it_comes_back(
    serve: Serve, origin: ScriptedOrigin, tmp_path: Path
) -> None:
    other: dict[str, Any] = {"hosts": ["blog.test"], "origins": [{"url": origin.url}]}
    served = await serve(config={"sites": {"blog": other}})
    origin.route("/", Answer(200, FRESH, b"page"))
    await served.get("/", host="blog.test")
    served.edge.reload(edge_config(tmp_path, origin))
    served.clock.now += 61
    await served.edge.tier.expire_step(None, served.edge._is_dead)
    assert len(served.stored("blog")) == 1


# -- upkeep when it is asked for


async def test_who_asks_for_a_compaction_meanwhile_waits_for_that_one(
    tmp_path: Path, origin: ScriptedOrigin
) -> None:
    origin.route("/", Answer(200, TAGGED, b"page"))
    async with running(tmp_path, origin) as served:
        await served.get("/")
        await served.purge(by_tag("home"), mode=Mode.DELETE)
        one, other = await asyncio.gather(served.edge.compact(), served.edge.compact())
        assert one is other
        assert (await served.edge.compact()) == (0, 0)


async def test_closing_ends_a_compaction(tmp_path: Path, origin: ScriptedOrigin) -> None:
    async with running(tmp_path, origin) as served:
        compaction = asyncio.create_task(served.edge.compact())
        await asyncio.sleep(0)
        await served.edge.close()
        with pytest.raises(asyncio.CancelledError):
            await compaction
