"""A purge is exact, immediate on every worker, and counted."""

import asyncio
from typing import Any

import pytest

from tests.conftest import StartEdge
from tests.kit import Answer, EdgeProcess, OriginRequest, ScriptedOrigin

CACHEABLE = {"Cache-Control": "max-age=3600", "Cache-Tag": "page"}


class Versioned:
    """A page that tells its version; every answer is fresh for an hour."""

    def __init__(self, **fields: str) -> None:
        self.version = 1
        self._fields = CACHEABLE | fields

    def __call__(self, _: OriginRequest) -> Answer:
        return Answer(200, self._fields, b"version %d" % self.version)


async def warm(edge: EdgeProcess, target: str, connections: int = 16) -> None:
    """Ask over so many connections that every worker has the response in its memory."""
    for _ in range(2):
        await asyncio.gather(*(edge.get(target) for _ in range(connections)))


@pytest.mark.parametrize("mode", ["invalidate", "delete"])
async def test_after_a_purge_no_worker_serves_the_old_body_as_fresh(
    origin: ScriptedOrigin, pair: EdgeProcess, mode: str
) -> None:
    """10,000 requests over 50 connections, begun the moment the purge has answered."""
    page = Versioned()
    origin.route("/page", page)
    await warm(pair, "/page", 50)
    readers = [await pair.connect() for _ in range(50)]
    for reader in readers:
        assert (await reader.exchange("GET", "/page")).body == b"version 1"

    page.version = 2
    await pair.purge(tags=["page"], mode=mode)

    async def read(connection: Any) -> list[tuple[bytes, dict[str, str | bool]]]:
        seen = []
        for _ in range(200):
            response = await connection.exchange("GET", "/page")
            seen.append((response.body, response.cache_status))
        return seen

    answers = [each for seen in await asyncio.gather(*map(read, readers)) for each in seen]
    assert len(answers) == 10_000
    old = [status for body, status in answers if body != b"version 2"]
    if mode == "delete":
        assert old == []
    else:
        # RFC 5861: stale while it is revalidated, and said to be so.
        assert [status for status in old if status.get("detail") != "invalidated"] == []
        assert len(old) < 5_000
    for reader in readers:
        await reader.close()


async def test_a_purge_reaches_the_fetch_that_is_in_flight(
    origin: ScriptedOrigin, pair: EdgeProcess
) -> None:
    """The old page is on its way when the purge comes: it is neither kept nor shared."""
    held = asyncio.Event()
    origin.route("/page", Answer(200, CACHEABLE, b"old", hold=held))
    early = asyncio.create_task(pair.get("/page"))
    await origin.seen("/page")

    await pair.purge(tags=["page"], mode="delete")
    origin.route("/page", Answer(200, CACHEABLE, b"new"))
    assert (await pair.get("/page")).body == b"new"
    held.set()

    assert (await early).body == b"old"  # it asked before the purge
    assert {(await pair.get("/page")).body for _ in range(20)} == {b"new"}


async def test_a_purge_in_the_middle_of_a_body_leaves_nothing_old_behind(
    origin: ScriptedOrigin, pair: EdgeProcess
) -> None:
    held = asyncio.Event()
    origin.route("/page", Answer(200, CACHEABLE, b"old", hold_body=held))
    early = asyncio.create_task(pair.get("/page"))
    await origin.seen("/page")
    await pair.purge(urls=["/page"], mode="delete")
    held.set()
    assert (await early).body == b"old"
    origin.route("/page", Answer(200, CACHEABLE, b"new"))
    for _ in range(20):
        assert (await pair.get("/page")).body == b"new"


async def test_what_is_invalidated_is_served_stale_and_refreshed_once(
    origin: ScriptedOrigin, pair: EdgeProcess
) -> None:
    page = Versioned()
    origin.route("/page", page)
    await warm(pair, "/page")
    assert origin.counts["/page"] == 1
    held = asyncio.Event()
    origin.route("/page", Answer(200, CACHEABLE, b"version 2", hold=held))
    await pair.purge(tags=["page"])

    for _ in range(20):
        response = await pair.get("/page")
        assert (response.body, response.cache_status["hit"]) == (b"version 1", True)
        assert response.cache_status["detail"] == "invalidated"
    assert (await origin.seen("/page", 2)).method == "GET"
    held.set()
    while (await pair.get("/page")).body != b"version 2":
        pass
    assert origin.counts["/page"] == 2


@pytest.mark.parametrize(
    ("selection", "purged"),
    [
        ({"tags": ["red"]}, "ab"),
        ({"tags": ["red", "blue"]}, "abc"),
        ({"tags": ["nobody's"]}, ""),
        ({"urls": ["/a"]}, "a"),
        ({"urls": ["/a", "/c"], "tags": ["red"]}, "abc"),
        ({"urls": ["/a?q=1"]}, ""),
        ({"everything": True}, "abcd"),
    ],
    ids=str,
)
async def test_selectors_and_their_counts(
    edge: EdgeProcess, origin: ScriptedOrigin, selection: dict[str, Any], purged: str
) -> None:
    tags = {"/a": "red", "/b": "red, blue", "/c": "blue", "/d": ""}
    for target, value in tags.items():
        fields = {"Cache-Control": "max-age=60"} | ({"Cache-Tag": value} if value else {})
        origin.route(target, Answer(200, fields, target.encode()))
        await edge.get(target)
    dry = await edge.purge(**selection, mode="delete", dry_run=True)
    assert (dry["matched"], dry["dry_run"]) == (len(purged), True)
    assert all([(await edge.get(target)).cache_status.get("hit") for target in tags])

    done = await edge.purge(**selection, mode="delete")
    assert done["matched"] == len(purged)
    assert done["position"] > dry["position"]
    missed = {t for t in tags if not (await edge.get(t)).cache_status.get("hit")}
    assert missed == {f"/{name}" for name in purged}


@pytest.mark.parametrize("size", [50_000, 0])
async def test_a_purge_counts_what_a_reader_has_just_received_whole(
    edge: EdgeProcess, origin: ScriptedOrigin, size: int
) -> None:
    origin.otherwise(Answer(200, CACHEABLE, b"x" * size))
    for number in range(50):
        await edge.get(f"/{number}")
        assert (await edge.purge(urls=[f"/{number}"], dry_run=True))["matched"] == 1


async def test_positions_grow_by_one_and_survive_a_restart(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    edge = await start_edge(origin)
    first = [(await edge.purge(tags=["a"]))["position"] for _ in range(3)]
    await edge.stop()
    await edge.start()
    second = [(await edge.purge(tags=["a"]))["position"] for _ in range(3)]
    assert first + second == [1, 2, 3, 4, 5, 6]


async def test_an_unsafe_request_that_succeeds_invalidates_its_url(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """RFC 9111 4.4."""

    def product(request: OriginRequest) -> Answer:
        if request.method == "POST":
            return Answer(200, {"Content-Location": "/other"}, b"changed")
        return Answer(200, CACHEABLE | {"Cache-Control": "max-age=60, must-revalidate"}, b"page")

    for target in ("/product", "/other"):
        origin.route(target, product)
        await edge.get(target)
        assert (await edge.get(target)).cache_status.get("hit")
    async with await edge.connect() as connection:
        assert (await connection.exchange("POST", "/product", body=b"x")).body == b"changed"
        for target in ("/product", "/other"):
            response = await connection.exchange("GET", target)
            assert response.cache_status.get("fwd") == "uri-miss", target


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b"{}", 400, ""),
        (b'{"tags": "red"}', 400, "tags"),
        (b'{"tags": ["red", ""]}', 400, "tags[1]"),
        (b'{"tags": ["red"], "mode": "soft"}', 400, "mode"),
        (b'{"tags": ["red"], "site": "nobody"}', 400, "site"),
        (b'{"urls": ["relative"]}', 400, "urls[0]"),
        (b'{"urls": ["/ok", "ftp://e.com/"]}', 400, "urls[1]"),
        (b'{"tag": ["red"]}', 400, "tag"),
    ],
    ids=str,
)
async def test_a_wrong_purge_is_told_what_is_wrong(
    edge: EdgeProcess, body: bytes, status: int, field: str | None
) -> None:
    """RFC 9457."""
    before = await edge.purge(tags=["red"], dry_run=True)
    response = await edge.admin("POST", "/v1/purge", body=body)
    assert response.status == status
    assert response.field("content-type") == "application/problem+json; charset=utf-8"
    problem = response.json()
    assert (problem["status"], problem["type"]) == (status, "about:blank")
    if field is not None:
        assert [each["field"] for each in problem["errors"]] == [field]
    assert await edge.purge(tags=["red"], dry_run=True) == before


async def test_a_purge_is_recorded_before_it_is_answered(
    start_edge: StartEdge, origin: ScriptedOrigin
) -> None:
    """Everything is killed the moment the answer is there; the purge still counts."""
    edge = await start_edge(origin)
    origin.route("/page", Answer(200, CACHEABLE, b"old"))
    await edge.get("/page")
    await edge.purge(tags=["page"], mode="delete")
    await edge.kill()
    origin.route("/page", Answer(200, CACHEABLE, b"new"))
    await edge.start()
    assert (await edge.get("/page")).body == b"new"


async def test_concurrent_purges_over_all_workers_are_all_counted(
    origin: ScriptedOrigin, pair: EdgeProcess
) -> None:
    before = (await pair.purge(tags=["t"], dry_run=True))["position"]
    answers = await asyncio.gather(*(pair.purge(tags=[f"t{n}"]) for n in range(100)))
    positions = sorted(answer["position"] - before for answer in answers)
    assert positions == list(range(1, 101))
    assert len({answer["id"] for answer in answers}) == 100


async def test_an_answer_to_head_does_not_revive_what_was_invalidated(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """RFC 9111 4.3.5 lets an equal length do where there is no validator, which proves nothing."""
    fields = CACHEABLE | {"Cache-Control": "max-age=60, must-revalidate"}
    origin.route("/page", Answer(200, fields, b"old"))
    await edge.get("/page")
    origin.route("/page", Answer(200, fields, b"new"))
    await edge.purge(tags=["page"])
    async with await edge.connect() as connection:
        head = await connection.exchange("HEAD", "/page")
        assert (head.status, head.field("content-length")) == (200, "3")
        assert (await connection.exchange("GET", "/page")).body == b"new"
