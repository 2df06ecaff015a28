"""Issued cache busters: what is asked for with one was fetched after it was issued."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from edgeproxy.invalidation.service import Caller
from tests.kit import Answer

if TYPE_CHECKING:
    from tests.kit import ScriptedOrigin
    from tests.proxy.parts import ServedEdge

FRESH = {"Cache-Control": "max-age=600"}
CALLER = Caller("editor", "192.0.2.1", "optimole")


async def issue(served: ServedEdge, **narrowed: object) -> str:
    issued = await served.edge.service.issue_buster("shop", CALLER, **narrowed)  # type: ignore[arg-type]
    assert issued.position == served.edge.view.catch_up()
    return issued.token


async def test_one_fetch_after_it_serves_all(served: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/w:9/https://img.test//a.jpg", Answer(200, FRESH, b"old"))
    assert (await served.get("/w:9/https://img.test//a.jpg")).body == b"old"
    origin.route("/w:9/https://img.test//a.jpg", Answer(200, FRESH, b"new"))
    token = await issue(served)
    for _ in range(3):
        assert (await served.get(f"/cb:{token}/w:9/https://img.test//a.jpg")).body == b"new"
    assert (await served.get("/w:9/https://img.test//a.jpg")).body == b"new"
    _, asked = origin.requests
    assert asked.target == "/w:9/https://img.test//a.jpg"
    assert asked.field("cache-control") == "no-cache"
    assert len(served.stored()) == 1


async def test_what_was_fetched_since_is_good(served: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/a", Answer(200, FRESH, b"a"))
    token = await issue(served)
    await served.get("/a")
    response = await served.get(f"/cb:{token}/a")
    assert (response.body, len(origin.requests)) == (b"a", 1)


async def test_another_token_names_a_copy(served: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/a", Answer(200, FRESH, b"a"))
    await issue(served)
    await served.get("/a")
    await served.get("/cb:stranger/a")
    assert [asked.field("cache-control") for asked in origin.requests] == [None, None]
    assert len(served.stored()) == 2


@pytest.mark.parametrize(
    ("narrowed", "new"),
    [
        ({"host": "shop.test"}, True),
        ({"host": "other.test"}, False),
        ({"target": b"/a"}, True),
        ({"target": b"/b"}, False),
    ],
)
async def test_it_is_good_for_what_it_was_issued_for(
    served: ServedEdge, origin: ScriptedOrigin, narrowed: dict[str, object], new: bool
) -> None:
    origin.route("/a", Answer(200, FRESH, b"a"))
    token = await issue(served, **narrowed)
    await served.get(f"/cb:{token}/a")
    (stored,) = served.stored()
    assert (stored.buster == b"") is new


async def test_it_does_not_share_a_fetch_that_left_before(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    gate = asyncio.Event()
    origin.route("/a", Answer(200, FRESH, b"old", hold=gate))
    early = asyncio.create_task(served.get("/a"))
    await served.until(lambda: origin.requests)
    origin.route("/a", Answer(200, FRESH, b"new"))
    token = await issue(served)
    assert (await served.get(f"/cb:{token}/a")).body == b"new"
    gate.set()
    assert (await early).body == b"old"
    assert (await served.get(f"/cb:{token}/a")).body == b"new"
    assert (await served.get("/a")).body == b"new"


async def test_it_is_known_after_a_restart_of_the_view(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    token = await issue(served)
    journal = served.edge.view._journal
    ((position, buster),) = journal.busters()
    assert (position, buster.token, buster.site) == (1, token, "shop")


async def test_an_origin_that_fails_is_an_error_not_the_old_page(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/a", Answer(200, FRESH, b"old"))
    await served.get("/a")
    origin.route("/a", Answer(500, {}, b"broken"))
    token = await issue(served)
    assert (await served.get(f"/cb:{token}/a")).status == 500
    assert (await served.get("/a")).body == b"old"
