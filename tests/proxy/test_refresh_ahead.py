"""Refresh ahead: after a purge that asks for it, no reader waits for the origin."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.invalidation.service import Caller
from tests.kit import Answer

if TYPE_CHECKING:
    from edgeproxy.invalidation.jobs import Job
    from tests.kit import ScriptedOrigin
    from tests.proxy.conftest import Serve
    from tests.proxy.parts import ServedEdge

FRESH = {"Cache-Control": "max-age=600", "Cache-Tag": "t"}
TAGGED = Selector.by_tag("shop", "t")


async def purge(served: ServedEdge, mode: Mode = Mode.DELETE) -> Job:
    result = await served.edge.service.purge(
        [TAGGED], mode, Caller("editor", "192.0.2.1"), refresh=True
    )
    assert result.job is not None
    return result.job


async def ended(served: ServedEdge, job: Job) -> Job:
    def over() -> bool:
        now = served.edge.jobs.get(job.id)
        return now is not None and now.state != "running"

    await served.until(over)
    found = served.edge.jobs.get(job.id)
    assert found is not None
    return found


@pytest.mark.parametrize("mode", Mode)
async def test_what_a_purge_picked_is_fetched_anew(
    served: ServedEdge, origin: ScriptedOrigin, mode: Mode
) -> None:
    for name in "abc":
        origin.route(f"/{name}?x=1", Answer(200, FRESH, b"old"))
        await served.get(f"/{name}?x=1")
        origin.route(f"/{name}?x=1", Answer(200, FRESH, b"new"))
    job = await ended(served, await purge(served, mode))
    assert (job.state, job.total, job.done, job.failed) == ("done", 3, 3, 0)
    assert job.ended == served.clock.now
    assert len(origin.requests) == 6
    for name in "abc":
        response = await served.get(f"/{name}?x=1")
        assert response.body == b"new"
        assert "hit" in response.field("cache-status")
    assert len(origin.requests) == 6


async def test_variants_that_are_fetched_side_by_side_do_not_stand_for_each_other(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    varying = {**FRESH, "Vary": "X-A"}
    origin.route("/a", Answer(200, varying, b"old"))
    for value in "123":
        await served.get("/a", {"X-A": value})
    hold = asyncio.Event()
    origin.requests.clear()
    origin.route("/a", Answer(200, varying, b"new", hold=hold))
    job = await purge(served)
    await served.until(lambda: len(origin.requests) == 3)
    hold.set()
    assert (await ended(served, job)).done == 3


async def test_each_variant_and_copy_is_asked_for_as_it_was(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/a", Answer(200, {**FRESH, "Vary": "X-A"}, b"old"))
    await served.get("/a", {"X-A": "1"}, host="preview.shop.test")
    await served.get("/a", host="preview.shop.test")
    await served.get("/cb:t1/a", {"X-A": "2"})
    before = {stored.id for stored in served.stored()}
    asked = [(one.target, one.field("host"), one.field("x-a")) for one in origin.requests]
    origin.requests.clear()
    origin.route("/a", Answer(200, {**FRESH, "Vary": "X-A"}, b"new"))
    assert (await ended(served, await purge(served))).done == 3
    again = [(one.target, one.field("host"), one.field("x-a")) for one in origin.requests]
    assert sorted(map(str, again)) == sorted(map(str, asked))
    assert {stored.id for stored in served.stored()} == before


async def test_what_fails_is_counted(served: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/a", Answer(200, FRESH, b"old"))
    origin.route("/b", Answer(200, FRESH, b"old"))
    await served.get("/a")
    await served.get("/b")
    origin.route("/b", Answer(500, {}, b"broken"))
    job = await ended(served, await purge(served))
    assert (job.state, job.done, job.failed) == ("done", 1, 1)


async def test_it_keeps_to_its_rate_and_can_be_cancelled(
    serve: Serve, origin: ScriptedOrigin
) -> None:
    served = await serve(config={"admin": {"refresh_rate": 4}})
    for number in range(20):
        origin.route(f"/{number}", Answer(200, FRESH, b"old"))
        await served.get(f"/{number}")
    origin.requests.clear()
    job = await purge(served)
    await served.until(lambda: len(origin.requests) >= 2)
    served.edge.jobs.cancel(job.id)
    after = await ended(served, job)
    assert after.state == "cancelled"
    assert after.done == len(origin.requests) < 6


async def test_a_job_is_interrupted_with_its_worker(serve: Serve, origin: ScriptedOrigin) -> None:
    served = await serve()
    hold = asyncio.Event()
    origin.route("/a", Answer(200, FRESH, b"old"))
    await served.get("/a")
    origin.route("/a", Answer(200, FRESH, b"new", hold=hold))
    job = await purge(served)
    await served.until(lambda: len(origin.requests) == 2)
    await served.edge._ahead.close()
    found = served.edge.jobs.get(job.id)
    assert found == replace(job, state="interrupted", ended=served.clock.now)
    hold.set()


async def test_what_a_trusted_proxy_said_is_said_again(
    serve: Serve, origin: ScriptedOrigin
) -> None:
    """A variant that is there for what only such a proxy may say is fetched as that one."""
    served = await serve(config={"trusted_proxies": ["127.0.0.0/8"]})
    origin.route(
        "/page",
        lambda request: Answer(
            200,
            FRESH | {"Vary": "X-Forwarded-Port"},
            (request.field("x-forwarded-port") or "none").encode(),
        ),
    )
    await served.get("/page", {"X-Forwarded-Port": "8443"})
    job = await ended(served, await purge(served))
    assert (job.done, origin.counts["/page"]) == (1, 2)
    assert (await served.get("/page", {"X-Forwarded-Port": "8443"})).body == b"8443"
    assert origin.counts["/page"] == 2
