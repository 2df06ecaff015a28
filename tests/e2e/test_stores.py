"""What is stored survives what it should, and nothing else is ever served for it."""

import asyncio
import contextlib
import hashlib
import os
import random
import re
import resource
import signal
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.conftest import StartEdge
from tests.kit import (
    Answer,
    Connection,
    EdgeProcess,
    MessageCut,
    OriginRequest,
    RedisServer,
    ScriptedOrigin,
)
from tests.kit.disk import read_only
from tests.kit.edge import TOKEN, pid_end, token_hash

HOST = {"Host": "a.test"}
CACHEABLE = {"Cache-Control": "max-age=3600", "Cache-Tag": "all"}


def told_body(target: str) -> bytes:
    """A body that can be checked from its target alone: from 1 byte to 1 MiB, by its number."""
    number = int(target.rpartition("/")[2])
    size = (1, 700, 20_000, 200_000, 1_048_576)[number % 5]
    seed = hashlib.sha256(target.encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


def telling(request: OriginRequest) -> Answer:
    return Answer(200, CACHEABLE, told_body(request.target))


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_the_store_on_disk_survives_its_processes(
    start_edge: StartEdge, origin: ScriptedOrigin, kill: bool
) -> None:
    edge = await start_edge(origin)
    origin.otherwise(telling)
    for number in range(20):
        await edge.get(f"/{number}")
    await (edge.kill() if kill else edge.stop())
    await edge.start()
    for number in range(20):
        response = await edge.get(f"/{number}")
        assert response.body == told_body(f"/{number}")
        assert response.cache_status.get("hit")
    assert sum(origin.counts.values()) == 20


async def test_twenty_kills_under_load_never_leave_a_damaged_body(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    """Ten times one worker, ten times all; after each, whatever is answered is whole and right."""
    origin.otherwise(telling)
    edge = await start_edge(origin, workers=2, config={"store": {"max_bytes": "64MB"}})
    picks = random.Random(20)
    served = hits = 0

    async def read(ending: asyncio.Event, answered: asyncio.Semaphore) -> None:
        nonlocal served, hits
        connection: Connection | None = None
        while not ending.is_set():
            target = f"/{picks.randrange(120)}"
            try:
                connection = connection or await edge.connect()
                response = await connection.exchange("GET", target)
            except (OSError, Exception) as error:
                if not isinstance(error, OSError) and "cut" not in str(error):
                    raise
                connection = None
                await asyncio.sleep(0.01)
                continue
            assert response.status in (200, 502), response.status
            if response.status == 200:
                assert response.body == told_body(target), target
                served += 1
                hits += "hit" in response.cache_status
                answered.release()
        if connection is not None:
            await connection.close()

    for number in range(20):
        ending, answered = asyncio.Event(), asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as readers:
            for _ in range(8):
                readers.create_task(read(ending, answered))
            for _ in range(picks.randrange(30, 150)):
                await answered.acquire()
            if number % 2:
                await edge.kill_worker(number // 2 % 2)
                await edge.ready()
            else:
                await edge.kill()
                await edge.start()
            ending.set()
    for number in range(120):
        response = await edge.get(f"/{number}")
        assert response.body == told_body(f"/{number}")
    assert served > 500
    assert hits > 100


async def test_redis_keeps_the_bodies(
    origin: ScriptedOrigin, start_edge: StartEdge, redis_server: RedisServer, tmp_path: Path
) -> None:
    origin.otherwise(telling)
    edge = await start_edge(
        origin,
        workers=2,
        store=redis_server.url(),
        config={"store": {"state_dir": str(tmp_path / "state")}},
    )
    for number in range(10):
        await edge.get(f"/{number}")
    await edge.stop()
    await edge.start()
    for number in range(10):
        response = await edge.get(f"/{number}")
        assert response.body == told_body(f"/{number}")
        assert response.cache_status.get("hit")
    assert (await edge.purge(tags=["all"], mode="delete"))["matched"] == 10
    assert "hit" not in (await edge.get("/1")).cache_status

    # What Redis has lost is fetched anew, not waited for.
    await edge.stop()
    redis_server.command("FLUSHALL")
    await edge.start()
    assert (await edge.get("/1")).body == told_body("/1")


async def test_memory_keeps_nothing_over_a_restart(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin.otherwise(telling)
    edge = await start_edge(origin, workers=2, store="memory:")
    for number in range(10):
        assert (await edge.get(f"/{number}")).body == told_body(f"/{number}")
    for _ in range(10):
        response = await edge.get("/4")
        assert response.body == told_body("/4")
    assert response.cache_status.get("hit")
    await edge.purge(tags=["all"], mode="delete")
    for _ in range(10):
        assert "hit" in (await edge.get("/2")).cache_status or origin.counts["/2"] > 1
    await edge.stop()
    await edge.start()
    before = origin.counts["/4"]
    assert "hit" not in (await edge.get("/4")).cache_status
    assert origin.counts["/4"] == before + 1


@pytest.mark.parametrize("damage", ["noise", "truncated", "foreign"])
async def test_a_damaged_store_is_set_aside_and_the_edge_starts_empty(
    start_edge: StartEdge, origin: ScriptedOrigin, damage: str
) -> None:
    edge = await start_edge(origin)
    origin.otherwise(telling)
    await edge.get("/1")
    await edge.stop()
    data = edge.folder / "store" / "responses" / "data.mdb"
    whole = data.read_bytes()
    if damage == "noise":
        data.write_bytes(random.Random(1).randbytes(len(whole)))
    elif damage == "truncated":
        data.write_bytes(whole[:4096])
    else:
        data.write_bytes(b"SQLite format 3\x00" + bytes(8192))
    await edge.start()
    assert "set aside" in edge.log
    assert list((edge.folder / "store").glob("damaged-*"))
    response = await edge.get("/1")
    assert response.body == told_body("/1")
    assert "hit" not in response.cache_status


async def test_a_store_that_another_edge_has_is_refused(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin)
    second = await start_edge(origin, store=f"lmdb:{edge.folder / 'store'}", wait=False)
    assert await second.wait() != 0
    assert str(edge.folder / "store") in second.log
    assert (await edge.get("/healthy")).status == 404


async def test_the_store_stays_within_its_bound(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    body = random.Random(3).randbytes(100_000)
    origin.otherwise(Answer(200, CACHEABLE, body))
    edge = await start_edge(
        origin, config={"store": {"max_bytes": "4MB"}, "memory": {"max_bytes": "1MB"}}
    )
    async with await edge.connect() as connection:
        for number in range(200):
            assert (await connection.exchange("GET", f"/{number}")).body == body
    stored = (await edge.purge(everything=True, dry_run=True))["matched"]
    assert 5 <= stored <= 60


def limit_files(edge: EdgeProcess, size: int) -> None:
    """No file may be written to beyond that, as on a disk that is full from now on."""
    for pid in (edge.pid, *edge.pids()):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def test_a_full_disk_keeps_nobody_from_an_answer(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    draw = random.Random(4)
    bodies = {f"/{name}": draw.randbytes(100_000) for name in (*range(20), "new")}
    bodies["/large"] = draw.randbytes(4_000_000)
    for target, body in bodies.items():
        origin.route(target, Answer(200, {**CACHEABLE, "Cache-Tag": f"all,{target}"}, body))
    edge = await start_edge(origin, workers=2, config={"memory": {"max_bytes": "1MB"}})

    async def hits(*targets: str) -> list[bool]:
        """Which of these came from the store, all of them right."""
        answers = [await edge.get(target) for target in targets]
        assert [each.body for each in answers] == [bodies[target] for target in targets]
        return ["hit" in each.cache_status for each in answers]

    stored = [f"/{number}" for number in range(20)]
    assert not any(await hits(*stored))
    store = edge.folder / "store"
    limit_files(edge, (store / "responses" / "data.mdb").stat().st_size)
    for _ in range(3):
        assert await hits("/new", "/large") == [False, False]
    assert all(await hits(*stored))
    await edge.logged(rf"the store in {store} can't be written")
    assert edge.log.count("can't be written") <= 2, "once a worker, and not once a response"
    assert "Traceback" not in edge.log

    # What happens to it meanwhile is not forgotten.
    assert (await edge.purge(tags=["/1"], mode="delete"))["matched"] == 1
    assert await hits("/1", "/2") == [False, True]

    limit_files(edge, resource.RLIM_INFINITY)
    await hits("/new", "/large")
    assert await hits("/new", "/large", "/2") == [True] * 3


async def test_a_folder_that_cannot_be_written_keeps_nobody_from_an_answer(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin.otherwise(telling)
    edge = await start_edge(origin, workers=2)
    store = edge.folder / "store"
    await edge.get("/1")
    await edge.stop()
    with read_only(store):
        await edge.start()
        told = await edge.logged(rf"ERROR \[supervisor\] {store} can't .*: what is stored, and .*")
        assert "every purge, ends with this run" in told[0]
        assert f"make {store} readable and writable for this user, and restart" in told[0]
        ready = await edge.admin("GET", "/readyz")
        assert (ready.status, ready.json()["status"]) == (200, "degraded")
        (warning,) = (await edge.admin("GET", "/v1/status")).json()["warnings"]
        assert [warning] == ready.json()["warnings"]
        assert warning in told[0]

        # It stores, and purges are exact, whatever becomes of its workers.
        assert ["hit" in (await edge.get("/1")).cache_status for _ in range(2)] == [False, True]
        await edge.kill_worker()
        await edge.ready()
        assert "hit" in (await edge.get("/1")).cache_status
        assert (await edge.purge(tags=["all"], mode="delete"))["matched"] == 1
        for _ in range(10):
            await edge.get("/1")
        assert origin.counts["/1"] == 3
        await edge.stop()
    # The journal that is there has no word of that purge.
    await edge.start()
    await edge.logged(rf"the store in {store} can't be trusted: purges were taken while it could")
    assert "hit" not in (await edge.get("/1")).cache_status
    assert (await edge.admin("GET", "/readyz")).json() == {"status": "ready"}
    await edge.stop()
    await edge.start()
    assert "hit" in (await edge.get("/1")).cache_status, "and once is enough"


def cut_off(data: Path) -> None:
    os.truncate(data, 2 * 4096)


def scribbled_over(data: Path) -> None:
    with data.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(random.Random(6).randbytes(data.stat().st_size - 2 * 4096))


@pytest.mark.parametrize("harm", [cut_off, scribbled_over])
@pytest.mark.parametrize("what", ["responses", "journal"])
async def test_a_file_that_is_damaged_under_the_edge_is_set_aside(
    origin: ScriptedOrigin, start_edge: StartEdge, what: str, harm: Callable[[Path], None]
) -> None:
    """Whatever LMDB makes of it, and be it the worker's death."""
    origin.otherwise(telling)
    # Nothing of it fits into memory.
    edge = await start_edge(origin, workers=2, config={"memory": {"max_bytes": "1KB"}})
    for number in range(20):
        await edge.get(f"/{number}")
    for _ in range(3):
        position = (await edge.purge(tags=["nothing"]))["position"]
    store = edge.folder / "store"
    harm(store / what / "data.mdb")

    async def call(number: int) -> None:
        """A reader, or one that purges, and who may lose the connection, but nothing else."""
        with contextlib.suppress(MessageCut, OSError):
            if number % 5 == 4:
                answer = await edge.admin("POST", "/v1/purge", body=b'{"tags": ["nothing"]}')
                assert answer.status in (200, 500, 503)
                return
            answer = await edge.get(f"/{number % 20}")
            assert (answer.status, answer.body) in (
                (200, told_body(f"/{number % 20}")),
                (500, answer.body),
            )

    async with asyncio.timeout(20):
        number = 0
        while "set aside in" not in edge.log:
            await call(number)
            number += 1
    await edge.ready()
    assert edge.log.count("all workers end, and begin with an empty store") == 1
    (aside,) = store.glob("damaged-*")
    kept = [] if what == "responses" else ["journal"]
    assert sorted(each.name for each in aside.iterdir()) == ["bodies", *kept, "responses"]
    for number in range(20):
        response = await edge.get(f"/{number}")
        assert (response.status, response.body) == (200, told_body(f"/{number}"))
        assert "hit" in (await edge.get(f"/{number}")).cache_status
    told = await edge.purge(tags=["all"], mode="delete")
    assert told["matched"] == 20
    assert "hit" not in (await edge.get("/1")).cache_status
    # Where it is whole, the journal goes on.
    assert told["position"] > position if what == "responses" else told["position"] == 1
    assert edge.log.count("set aside in") == 1
    # In good order it would have to have logged nothing of requests that met the damage.
    await edge.kill()


async def test_a_worker_that_cannot_open_the_store_any_more_keeps_nobody_waiting(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    """The others have it open, and go on. But what comes to that one's sockets would wait for ever,
    and one that could open another journal would not hear of theirs."""
    origin.otherwise(telling)
    edge = await start_edge(origin, workers=2)
    store = edge.folder / "store"
    await edge.get("/1")
    with read_only(store):
        assert (await edge.purge(tags=["all"], mode="delete"))["matched"] == 1
        old = [pid_end(pid) for pid in edge.pids()]
        await edge.kill_worker()
        await edge.logged(rf"{store}\S*: Read-only file system: all workers end, and begin anew")
        await edge.logged("every purge, ends with this run; serving on")
        await asyncio.gather(*old)
        await edge.ready()
        for _ in range(10):
            assert (await edge.get("/1")).body == told_body("/1")
            assert (await edge.purge(tags=["all"], mode="delete"))["matched"] == 1
        assert edge.log.count("all workers end") == 1
        await edge.stop()
    await edge.start()
    assert "hit" not in (await edge.get("/1")).cache_status


@pytest.mark.parametrize("harm", [cut_off, scribbled_over, None])
async def test_a_ledger_that_is_damaged_at_the_start_is_emptied(
    origin: ScriptedOrigin, start_edge: StartEdge, harm: Callable[[Path], None] | None
) -> None:
    origin.otherwise(telling)
    edge = await start_edge(origin)
    await edge.get("/1")
    await edge.stop()
    ledger = edge.folder / "store" / "ledger"
    if harm is None:
        ledger.rename(edge.folder / "away")
        ledger.write_bytes(b"")
    else:
        harm(ledger / "data" / "data.mdb")
    await edge.start()
    await edge.logged(rf"the ledger in {ledger} is damaged, and empty now")
    assert "hit" in (await edge.get("/1")).cache_status
    await edge.purge(tags=["nothing"])


@pytest.mark.parametrize(
    ("what", "begin"),
    [
        pytest.param("store/journal", "with an empty store", id="journal"),
        pytest.param("store/responses", "with an empty store", id="responses"),
        pytest.param("store", "with an empty store", id="store"),
        pytest.param("store/lock", "anew", id="lock"),
        pytest.param("run", "anew", id="runtime-dir"),
    ],
)
async def test_what_is_taken_away_under_the_edge_is_missed_at_once(
    origin: ScriptedOrigin, start_edge: StartEdge, what: str, begin: str
) -> None:
    """And not when a worker dies: the next one would have files of its own, and the purges in
    them be unknown to the others."""
    origin.otherwise(telling)
    edge = await start_edge(origin, workers=2)
    for number in range(5):
        await edge.get(f"/{number}")
    old = asyncio.gather(*[pid_end(pid) for pid in edge.pids()])
    (edge.folder / what).rename(edge.folder / "away")
    # What a purge says holds, wherever it is written down.
    assert (await edge.purge(tags=["all"], mode="delete"))["matched"] == 5
    await edge.logged(rf"{what}\S* is gone: all workers end, and begin {begin}")
    await old
    await edge.ready()
    await edge.kill_worker()
    await edge.ready()
    for _ in range(10):
        # Each call goes to any of the workers, as do the readers after it.
        assert (await edge.get("/1")).body == told_body("/1")
        assert (await edge.purge(tags=["all"], mode="delete"))["matched"] == 1
        assert "hit" not in (await edge.get("/1")).cache_status
    assert edge.log.count("all workers end") == 1
    second = await start_edge(origin, store=f"lmdb:{edge.folder / 'store'}", wait=False)
    assert await second.wait() != 0, "nobody else can have its place"


async def test_a_store_that_comes_back_knows_of_no_purge_of_the_meantime(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin.otherwise(telling)
    edge = await start_edge(origin)
    store, away = edge.folder / "store", edge.folder / "away"
    await edge.get("/1")
    old = pid_end(edge.pids()[0])
    store.rename(away)
    await edge.logged("is gone: all workers end")
    await old
    await edge.ready()
    await edge.purge(tags=["all"], mode="delete")
    await edge.stop()
    store.rename(edge.folder / "meantime")
    away.rename(store)
    await edge.start()
    assert "hit" not in (await edge.get("/1")).cache_status


async def test_a_ledger_that_is_damaged_under_the_edge_is_emptied(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    """Or the next who is counted would kill his worker again."""
    tokens = [{"name": "kit", "hash": token_hash(TOKEN), "rate": "1000/1m"}]
    edge = await start_edge(origin, workers=2, config={"admin": {"tokens": tokens}})
    await edge.purge(tags=["nothing"])
    cut_off(edge.folder / "store" / "ledger" / "data" / "data.mdb")
    async with asyncio.timeout(20):
        while "the ledger in" not in edge.log:
            with contextlib.suppress(MessageCut, OSError):
                await edge.admin("POST", "/v1/purge", body=b'{"tags": ["nothing"]}')
    await edge.logged("was killed by SIGBUS: all workers end")
    await edge.ready()
    for _ in range(10):
        await edge.purge(tags=["nothing"])
    assert edge.log.count("was killed by SIGBUS: ") == 1


async def test_requests_in_flight_end_before_a_damaged_store_is_set_aside(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    held = asyncio.Event()
    origin.otherwise(telling)
    slow = [f"/slow/{number}" for number in range(8)]
    for target in slow:
        origin.route(target, Answer(200, {"Cache-Control": "no-store"}, b"whole", hold=held))
    edge = await start_edge(origin, workers=2, config={"memory": {"max_bytes": "1KB"}})
    for number in range(20):
        await edge.get(f"/{number}")
    waiting = [await edge.connect() for _ in slow]
    for connection, target in zip(waiting, slow, strict=True):
        await connection.request("GET", target)
        await origin.seen(target)
    workers = edge.pids()
    scribbled_over(edge.folder / "store" / "responses" / "data.mdb")
    seen = asyncio.create_task(edge.logged("all workers end"))
    number = 0
    while not seen.done():
        asking = asyncio.create_task(edge.get(f"/{number % 20}"))
        await asyncio.wait((asking, seen), return_when=asyncio.FIRST_COMPLETED)
        number += 1
    await seen
    # The supervisor logs that before its word has come to the workers.
    both = "worker 0 does not accept connections; worker 1 does not"
    while both not in (await edge.admin("GET", "/readyz")).text:
        await asyncio.sleep(0.01)
    held.set()
    for connection in waiting:
        response = await connection.response()
        assert (response.body, response.field("connection")) == (b"whole", "close")
        await connection.close()
    # Who came in between has waited for the next worker.
    assert (await asking).status == 200
    await edge.ready()
    assert set(workers).isdisjoint(edge.pids())
    assert "was killed" not in edge.log


async def test_a_store_that_cannot_be_seen_to_any_more_keeps_nobody_from_an_answer(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin.otherwise(telling)
    edge = await start_edge(origin, workers=2)
    await edge.get("/1")
    with read_only(edge.folder / "store"):
        os.kill(edge.pids()[0], signal.SIGBUS)
        await edge.logged("was killed by SIGBUS: all workers end")
        await edge.logged("serving on with an empty store of at most 64MiB")
        await edge.ready()
        assert ["hit" in (await edge.get("/1")).cache_status for _ in range(2)] == [False, True]
        assert (await edge.admin("GET", "/readyz")).json()["status"] == "degraded"
        assert (await edge.purge(tags=["all"]))["matched"] == 1
        await edge.stop()


async def test_a_row_that_is_damaged_under_the_edge_is_removed(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    def told_twice(request: OriginRequest) -> Answer:
        return Answer(200, {**CACHEABLE, "X-Row": f"{request.target}."}, b"page")

    origin.otherwise(told_twice)
    edge = await start_edge(origin, workers=2, config={"memory": {"max_bytes": "1KB"}})
    targets = [f"/row/{number}" for number in range(20)]
    for target in targets:
        await edge.get(target)
    data = edge.folder / "store" / "responses" / "data.mdb"
    with data.open("r+b") as file:
        # LMDB may have copies of it that are not in use any more.
        for found in re.finditer(rb"/row/7\.", data.read_bytes()):
            file.seek(found.start())
            file.write(b"/row/8.")
    answers = [await edge.get(target) for target in targets]
    assert [each.field("x-row") for each in answers] == [f"{target}." for target in targets]
    assert ["hit" in each.cache_status for each in answers].count(False) == 1
    await edge.logged("the row [0-9a-f]{48} is damaged and is removed")
    assert "hit" in (await edge.get(targets[7])).cache_status
    assert "set aside" not in edge.log


def truncated(body: Path) -> None:
    os.truncate(body, body.stat().st_size // 2)


def flipped(body: Path) -> None:
    content = bytearray(body.read_bytes())
    content[len(content) // 2] ^= 1
    body.write_bytes(content)


def unreadable(body: Path) -> None:
    body.unlink()
    body.mkdir()


@pytest.mark.parametrize("harm", [truncated, flipped, unreadable, Path.unlink])
async def test_a_damaged_body_is_never_taken_for_a_whole_one(
    origin: ScriptedOrigin, start_edge: StartEdge, harm: Callable[[Path], None]
) -> None:
    origin.otherwise(telling)
    edge = await start_edge(origin, config={"memory": {"max_bytes": "64KB"}})
    large = [f"/{number}" for number in range(3, 30, 5)]
    for target in large:
        await edge.get(target)
    bodies = [path for path in (edge.folder / "store" / "bodies").rglob("*") if path.is_file()]
    assert len(bodies) == len(large)
    for body in bodies:
        harm(body)
    for target in large:
        with contextlib.suppress(MessageCut):
            assert (await edge.get(target)).body == told_body(target)
        # Who has got no end knows that something was wrong; the next one gets it whole.
        assert (await edge.get(target)).body == told_body(target)
    assert [origin.counts[target] for target in large] == [2] * len(large)


async def test_steps_of_the_clock_while_it_runs_make_nothing_younger_or_older(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin.route("/", Answer(200, {"Cache-Control": "max-age=600"}, b"page"))
    origin.route("/brief", Answer(200, {"Cache-Control": "max-age=1"}, b"page"))
    edge = await start_edge(origin, workers=2, sabotage="restless_clock")
    for target in ("/", "/brief"):
        await edge.get(target)
    stored = time.monotonic()
    await edge.kill_worker()
    await edge.ready()
    await asyncio.sleep(max(0.0, stored + 1.0 - time.monotonic()))
    for _ in range(10):
        response = await edge.get("/")
        assert "hit" in response.cache_status
        assert 1 <= int(response.field("age") or 0) < 60
    assert "hit" not in (await edge.get("/brief")).cache_status


@pytest.mark.parametrize("step", ["an_hour_back", "an_hour_ahead"])
async def test_over_a_restart_a_step_of_the_clock_makes_nothing_younger(
    origin: ScriptedOrigin, start_edge: StartEdge, tmp_path: Path, step: str
) -> None:
    origin.route("/", Answer(200, {"Cache-Control": "max-age=600"}, b"page"))
    origin.route("/brief", Answer(200, {"Cache-Control": "max-age=1"}, b"page"))
    dated = {"Date": formatdate(time.time() - 500.0, usegmt=True)}
    origin.route("/dated", Answer(200, {"Cache-Control": "max-age=600", **dated}, b"page"))
    store = f"lmdb:{tmp_path / 'store'}"
    before = await start_edge(origin, store=store)
    for target in ("/", "/brief", "/dated"):
        await before.get(target, HOST)
    stored = time.monotonic()
    await before.stop()
    after = await start_edge(origin, store=store, sabotage=step)
    await after.logged(rf"clock was set (back|forward) by 3600 s since the store in {tmp_path}")
    await asyncio.sleep(max(0.0, stored + 1.0 - time.monotonic()))
    for target, age in (("/", 0), ("/dated", 500)):
        response = await after.get(target, HOST)
        assert "hit" in response.cache_status
        assert age + 1 <= int(response.field("age") or 0) < age + 60
    assert "hit" not in (await after.get("/brief", HOST)).cache_status
    assert (await after.purge(everything=True, mode="delete"))["matched"] == 3
    assert "hit" not in (await after.get("/", HOST)).cache_status
    # Back again, what was stored meanwhile is neither fresh for longer nor from the future.
    stored = time.monotonic()
    await after.kill()
    again = await start_edge(origin, store=store)
    await asyncio.sleep(max(0.0, stored + 1.0 - time.monotonic()))
    response = await again.get("/", HOST)
    assert 0 <= int(response.field("age") or 0) < 60
    assert response.body == b"page"
    assert "hit" not in (await again.get("/brief", HOST)).cache_status


@pytest.mark.parametrize("step", ["an_hour_back", "an_hour_ahead"])
async def test_over_a_restart_a_step_of_the_clock_moves_no_deadline(
    origin: ScriptedOrigin, start_edge: StartEdge, tmp_path: Path, step: str
) -> None:
    """That of a purge which nothing stored has been marked by when its edge is killed."""
    fields = {"Cache-Control": "max-age=600, stale-while-revalidate=600", "Cache-Tag": "all"}
    origin.route("/", Answer(200, fields, b"page"))
    store = f"lmdb:{tmp_path / 'store'}"
    before = await start_edge(origin, store=store)
    await before.get("/", HOST)
    purged = time.monotonic()
    await before.purge(tags=["all"], mode="delete", deadline=3)
    await before.kill()
    held = asyncio.Event()
    origin.route("/", Answer(200, fields, b"page", hold=held))
    after = await start_edge(origin, store=store, sabotage=step)
    response = await after.get("/", HOST)
    assert time.monotonic() < purged + 3.0, "the machine is too slow for this test"
    assert response.cache_status.get("detail") == "invalidated"
    await asyncio.sleep(max(0.0, purged + 3.1 - time.monotonic()))
    late = asyncio.create_task(after.get("/", HOST))
    assert not (await asyncio.wait([late], timeout=0.2))[0], "what was to be deleted is served"
    held.set()
    assert (await late).body == b"page"
