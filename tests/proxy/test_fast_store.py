"""The shelf: what the store alone has is answered as it stands there, and when it gets into memory.

That its answers are those of the full path is test_paths.py's; that they end when they have to, is
test_fast.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from edgeproxy.cache.rows import read_row
from edgeproxy.invalidation.selectors import Mode
from tests.kit import Answer
from tests.proxy.parts import Time, Versions, by_tag, by_url, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.kit import ScriptedOrigin
    from tests.proxy.parts import ServedEdge

HOUR = {"Cache-Control": "max-age=3600", "ETag": '"1"', "Cache-Tag": "home"}
ROOM = 10
"""For how many pages there is room in memory, about."""
BODY = b"page" * 1000


class Shelf:
    """Counts what an edge's shelf answers."""

    def __init__(self, shop: ServedEdge, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = 0
        answer = shop.edge._fast._shelf.answer

        def counting(*arguments: Any) -> Any:
            found = answer(*arguments)
            self.answers += found is not None
            return found

        monkeypatch.setattr(shop.edge._fast._shelf, "answer", counting)

    def taken(self) -> int:
        """How many since the last time."""
        answers, self.answers = self.answers, 0
        return answers


@pytest.fixture
async def shop(tmp_path: Path, origin: ScriptedOrigin) -> AsyncIterator[ServedEdge]:
    memory = {"max_bytes": ROOM * 6000}
    async with running(tmp_path, origin, clock=Time(), config={"memory": memory}) as edge:
        yield edge


@pytest.fixture
async def tiny(tmp_path: Path, origin: ScriptedOrigin) -> AsyncIterator[ServedEdge]:
    """An edge whose memory has no room at all."""
    async with running(tmp_path, origin, clock=Time(), config={"memory": {"max_bytes": 1}}) as edge:
        yield edge


async def _fill(shop: ServedEdge, origin: ScriptedOrigin, pages: int) -> None:
    for page in range(pages):
        origin.route(f"/{page}", Answer(200, HOUR, BODY))
        await shop.get(f"/{page}")


async def test_what_there_is_room_for_gets_into_memory_at_once(
    shop: ServedEdge, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fill(shop, origin, 3)
    shop.empty_memory()
    shelf = Shelf(shop, monkeypatch)
    for page in range(3):
        await shop.get(f"/{page}")
        await shop.get(f"/{page}")
    assert shelf.taken() == 3
    assert len(shop.edge._memory) == 3


async def test_a_scan_takes_nothings_place(
    shop: ServedEdge, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fill(shop, origin, 5 * ROOM)
    there = {entry.id for entry in shop.edge._memory._slots if entry is not None}
    shelf = Shelf(shop, monkeypatch)
    for page in range(5 * ROOM):
        assert (await shop.get(f"/{page}")).body == BODY
    assert shelf.taken() > 3 * ROOM
    assert {entry.id for entry in shop.edge._memory._slots if entry is not None} == there


async def test_what_is_asked_for_again_gets_into_memory(
    shop: ServedEdge, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fill(shop, origin, 5 * ROOM)
    shelf = Shelf(shop, monkeypatch)
    for _ in range(6):
        await shop.get("/0")
    assert shelf.taken() == 2
    assert sum(origin.counts.values()) == 5 * ROOM


async def test_what_is_asked_for_again_much_later_does_not(
    shop: ServedEdge, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fill(shop, origin, 5 * ROOM)
    shelf = Shelf(shop, monkeypatch)
    for _ in range(2):
        for page in range(3 * ROOM):
            await shop.get(f"/{page}")
    assert shelf.taken() == 6 * ROOM


@pytest.mark.parametrize("size", [0, 5, 20_000], ids=["none", "in its row", "beside its row"])
async def test_bodies_of_every_size_are_answered(
    tiny: ServedEdge, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    origin.route("/page", Answer(200, HOUR, b"x" * size))
    await tiny.get("/page")
    shelf = Shelf(tiny, monkeypatch)
    for _ in range(3):
        assert (await tiny.get("/page")).body == b"x" * size
    assert shelf.taken() == 3


@pytest.mark.parametrize("again", [False, True], ids=["unseen", "seen"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda row: row[:-1], id="cut off"),
        pytest.param(lambda row: row[:-1] + b"?", id="its body"),
        pytest.param(lambda row: row + b"?", id="more than its body"),
        pytest.param(lambda row: row.replace(b"text/html", b"text/htmL"), id="its head"),
        pytest.param(lambda row: row[:30], id="hardly there"),
    ],
)
async def test_what_is_damaged_is_fetched_anew(
    tiny: ServedEdge,
    origin: ScriptedOrigin,
    damage: Callable[[bytes], bytes],
    again: bool,
) -> None:
    origin.route("/page", Versions(HOUR | {"Content-Type": "text/html"}))
    await tiny.get("/page")
    if again:
        await tiny.get("/page")
    index = tiny.edge.tier._index
    (stored,) = tiny.stored()
    with index.writing() as txn:
        txn.put(stored.id, damage(txn.get(stored.id, db=index.rows)), db=index.rows)
    response = await tiny.get("/page")
    # Of a head that was read before, this worker knows better.
    known = again and b"text/htmL" in damage(b"text/html")
    assert response.body == (b"version 1" if known else b"version 2")
    assert response.field("content-type") == "text/html"


async def test_what_another_worker_stores_is_answered(
    tiny: ServedEdge, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is another one then, whatever was made of the one before."""
    origin.route("/page", Answer(200, HOUR, b"old"))
    for _ in range(3):
        assert (await tiny.get("/page")).body == b"old"
    index = tiny.edge.tier._index
    origin.route("/elsewhere", Answer(200, HOUR, b"new"))
    await tiny.get("/elsewhere")
    by_target = {one.target: one for one in tiny.stored()}
    page, other = by_target[b"/page"], by_target[b"/elsewhere"]
    body = index.inline_body(other)
    with index.writing() as txn:
        index.remove(txn, [page.id], 1.0)
        index.insert(txn, replace(page, body=other.body), body, 1.0, _ready(tiny, other.id))
    shelf = Shelf(tiny, monkeypatch)
    assert (await tiny.get("/page")).body == b"new"
    assert shelf.taken() == 1


def _ready(shop: ServedEdge, row_id: bytes) -> Any:
    from edgeproxy.proxy.rendering import ready

    index = shop.edge.tier._index
    with index.reading() as txn:
        stored = read_row(row_id, txn.get(row_id, db=index.rows))
    judged = shop.lookup.judge(stored, shop.policy, stored.position)
    return ready(stored, shop.policy, judged.freshness)


async def test_a_variant_that_comes_later_is_not_passed_over(
    tiny: ServedEdge, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that answered everybody does so no longer once another one is under its key."""
    origin.route("/page", Answer(200, {"Cache-Control": "max-age=60"}, b"for all"))
    await tiny.get("/page")
    await tiny.get("/page")
    await tiny.purge(by_url("/page"), mode=Mode.INVALIDATE)
    varying = {"Cache-Control": "max-age=60", "Vary": "Cookie"}
    origin.route(
        "/page", lambda request: Answer(200, varying, request.head.field("cookie").encode())
    )
    await tiny.get("/page", {"Cookie": "a"})
    await tiny.until(lambda: origin.counts["/page"] == 2)
    await tiny.until(lambda: not tiny.refreshes)
    shelf = Shelf(tiny, monkeypatch)
    for cookie in ("a", "b", "a", "b"):
        assert (await tiny.get("/page", {"Cookie": cookie})).body == cookie.encode()
    assert shelf.taken() == 0, "one of the key's rows is for everybody still"


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"ttl": {"max": 30}}, id="freshness"),
        pytest.param({"tags": {"debug": True}}, id="fields"),
    ],
)
async def test_what_was_made_ready_by_another_policy_is_not_used(
    tiny: ServedEdge,
    origin: ScriptedOrigin,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
) -> None:
    origin.route("/page", Answer(200, HOUR, b"page"))
    await tiny.get("/page")
    await tiny.get("/page")
    shelf = Shelf(tiny, monkeypatch)
    site = tiny.config.sites["shop"].model_dump() | changed
    tiny.edge.reload(
        type(tiny.config).model_validate(tiny.config.model_dump() | {"sites": {"shop": site}})
    )
    tiny.clock.now += 20
    response = await tiny.get("/page")
    assert (shelf.taken(), response.cache_status["hit"]) == (0, True)
    assert response.cache_status["ttl"] == ("10" if "ttl" in changed else "3580")
    assert response.field("cache-tag") == ("home" if "tags" in changed else None)


async def test_what_no_origin_hears_is_no_part_of_a_variant(
    tiny: ServedEdge, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.route("/page", Answer(200, HOUR | {"Vary": "X-Forwarded-Port, Accept"}, b"page"))
    for _ in range(2):
        await tiny.get("/page")
    shelf = Shelf(tiny, monkeypatch)
    for port in ("1", "2", "3"):
        await tiny.get("/page", {"X-Forwarded-Port": port})
    assert (shelf.taken(), origin.counts["/page"]) == (3, 1)


async def test_rules_that_do_not_concern_it_let_it_be(
    tiny: ServedEdge, origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin.route("/page", Versions(HOUR))
    await tiny.get("/page")
    shelf = Shelf(tiny, monkeypatch)
    for name in ("other", "another"):
        await tiny.purge(by_tag(name))
        assert (await tiny.get("/page")).body == b"version 1"
    assert shelf.taken() == 2
    await tiny.purge(by_tag("home"))
    assert (await tiny.get("/page")).body == b"version 2"
    assert shelf.taken() == 0
