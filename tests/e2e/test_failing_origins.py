"""Origins that fail in every way: readers get something stale, or an error in time, or another's.

Answers that break HTTP are in `tests/hostile/`, an origin that is down or late for a whole process
in `test_proxying.py`, each failure against what is stored in `test_stale.py`, those that wait for
another's fetch in `test_collapsing.py`; here they fail for many readers at a time, with and without
something stored, and with another origin beside them.
"""

import asyncio
import datetime
import json
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme

from tests.kit import CLOSE, RESET, Answer, EdgeProcess, MessageCut, OriginRequest, ScriptedOrigin
from tests.kit.http import FieldsLike
from tests.kit.ports import free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

IN_TIME = 8.0
"""Seconds in which all answers have to be there: the time-outs below, and a busy machine."""
TIMEOUTS = {"connect": "0.6s", "first_byte": "0.6s", "between_bytes": "0.6s", "total": "1.2s"}
NEVER_OPEN = {"failures": 100_000, "failure_share": 1.0, "min_requests": 100_000}
READERS = 4

ON_ERROR = {"Cache-Control": "max-age=0, stale-if-error=600"}
AT_ONCE = {"Cache-Control": "max-age=0, stale-while-revalidate=600"}
FRESH = {"Cache-Control": "max-age=600"}
OK = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n"
SIZED = OK + b"Content-Length: 8\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

Steps = list[Any] | Callable[[OriginRequest], AsyncIterator[Any]]


def dribbling(head: bytes, piece: bytes, pause: float = 0.02) -> Steps:
    async def script(_: OriginRequest) -> AsyncIterator[Any]:
        yield head
        while True:
            yield piece
            yield pause

    return script


# What the origin does, and what comes of it for readers of a page that is not stored.
FAILURES: dict[str, tuple[Steps, int | str]] = {
    "closes": ([CLOSE], 502),
    "resets": ([RESET], 502),
    "resets in the status line": ([b"HTTP/1.1 2", RESET], 502),
    "closes in the head": ([OK, CLOSE], 502),
    "resets in the head": ([OK, RESET], 502),
    "resets after the head": ([SIZED, 0.02, RESET], "cut"),
    "resets in the body": ([SIZED + b"half", 0.02, RESET], "cut"),
    "resets in the chunks": ([CHUNKED + b"4\r\nhalf\r\n", 0.02, RESET], "cut"),
    "silent": ([9.0], 504),
    "silent in the head": ([OK, 9.0], 504),
    "silent after the head": ([SIZED, 9.0], "cut"),
    "silent in the body": ([SIZED + b"half", 9.0], "cut"),
    "silent at the last chunk": ([CHUNKED + b"4\r\nhalf\r\n", 9.0], "cut"),
    "dribbles the head": (dribbling(OK, b"X: y\r\n"), 504),
    "dribbles interim responses": (dribbling(b"", b"HTTP/1.1 103 E\r\n\r\n"), 504),
    "is silent after one": ([b"HTTP/1.1 103 E\r\n\r\n", 9.0], 504),
    "resets after one": ([b"HTTP/1.1 103 E\r\n\r\n", 0.02, RESET], 502),
    "resets in the trailer": ([CHUNKED + b"4\r\nhalf\r\n0\r\nX-T", 0.02, RESET], "cut"),
    "silent in the trailer": ([CHUNKED + b"4\r\nhalf\r\n0\r\n", 9.0], "cut"),
    "dribbles the body": (dribbling(OK + b"Content-Length: 99999\r\n\r\n", b"x"), "cut"),
    "never ends its body": (dribbling(CHUNKED, b"8000\r\n%b\r\n" % (b"x" * 0x8000)), "cut"),
    "head without end": ([OK, *[b"X: " + b"y" * 50_000 + b"\r\n"] * 9], 502),
    "body too short": ([SIZED + b"half", CLOSE], "cut"),
    "body too long": ([SIZED + b"too long!"], 502),
    "chunk of no size": ([CHUNKED + b"4\r\nhalf\r\n", 0.02, b"xyz\r\n"], "cut"),
    "chunk without an end": ([CHUNKED + b"4\r\nhalf\r\n", 0.02, b"4\r\nmore!!"], "cut"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin() -> AsyncIterator[ScriptedOrigin]:
    async with ScriptedOrigin() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bad() -> AsyncIterator[ScriptedOrigin]:
    """The one of two that fails."""
    async with ScriptedOrigin() as server:
        yield server
        server.complaints.clear()


@pytest.fixture(scope="module")
def mute() -> Iterator[str]:
    """An origin that neither accepts nor refuses: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for one in waiting:
            one.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def expired() -> AsyncIterator[tuple[ScriptedOrigin, bytes]]:
    """One whose certificate was good until yesterday, and the authority that gave it that."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    authority.issue_cert("127.0.0.1", not_after=yesterday).configure_cert(context)
    async with ScriptedOrigin(tls=context) as server:
        yield server, authority.cert_pem.bytes()


UNREACHABLE = ("refused", "mute", "nameless", "expired")
"""Sites that lose their origin, by how."""

PAIRS: dict[str, Steps | Answer | None] = {
    "refuses": None,
    "closes": [CLOSE],
    "resets": [RESET],
    "resets in the status line": [b"HTTP/1.1 2", RESET],
    "resets in the head": [OK, RESET],
    "is silent": [9.0],
    "is silent in the head": [OK, 9.0],
    "dribbles the head": dribbling(OK, b"X: y\r\n"),
    "speaks no HTTP": [b"220 ready\r\n"],
    "answers 502": Answer(502, {}, b"bad"),
    "answers 503": Answer(503, {"Retry-After": "60"}, b"bad"),
    "answers 504": Answer(504, {}, b"bad"),
}

SLOW = ("is silent", "is silent in the head", "dribbles the head")
WAITED_FOR = ("silent", "dribbles", "never ends")
"""What the names of those FAILURES have in them that end by a time-out."""


def host(name: str) -> dict[str, str]:
    return {"Host": f"{name.replace(' ', '-')}.example"}


def pair(name: str) -> str:
    return "pair-" + name.replace(" ", "-")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(
    origin: ScriptedOrigin, bad: ScriptedOrigin, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EdgeProcess]:
    """One for all: each failure has a target or a site of its own."""
    base = {"timeouts": TIMEOUTS}
    sites: dict[str, Any] = {
        name: base | {"hosts": [f"{name}.example"], "origins": [{"url": origin.url}]}
        for name in UNREACHABLE
    }
    closed = f"http://127.0.0.1:{free_port()}"
    for name, reply in PAIRS.items():
        first = closed if reply is None else bad.url
        sites[pair(name)] = {
            "timeouts": {"first_byte": "0.6s"} if name in SLOW else {},
            "hosts": [f"{pair(name)}.example"],
            "origins": [{"url": first}, {"url": origin.url}],
            "breaker": {"failures": 2},
        }
    sites["silent"] = base | {
        "hosts": ["silent.example"],
        "origins": [{"url": bad.url}, {"url": origin.url}],
        "breaker": {"failures": 2, "pause": "0.4s", "max_pause": "0.4s"},
    }
    sites["patient"] = {
        "hosts": ["patient.example"],
        "origins": [{"url": origin.url}],
        "breaker": NEVER_OPEN,
    }
    folder = tmp_path_factory.mktemp("failing")
    settings = {"sites": sites, "store": {"max_object_bytes": "256KiB"}}
    plain = {"timeouts": TIMEOUTS, "breaker": NEVER_OPEN}
    async with EdgeProcess(folder, origin=origin.url, config=settings, site=plain) as process:
        yield process


NUMBERS = count()


@pytest.fixture
def target() -> str:
    """One that nothing else asks for."""
    return f"/page/{next(NUMBERS)}"


async def outcome(edge: EdgeProcess, target: str, fields: FieldsLike) -> int | str:
    try:
        return (await edge.get(target, fields)).status
    except MessageCut:
        return "cut"


async def outcomes(edge: EdgeProcess, target: str, fields: FieldsLike = ()) -> list[int | str]:
    """What readers get who ask at once; all of them, and in time."""
    async with asyncio.timeout(IN_TIME):
        return await asyncio.gather(*(outcome(edge, target, fields) for _ in range(READERS)))


async def store(edge: EdgeProcess, target: str, fields: FieldsLike = ()) -> None:
    """Ask until it is stored: to a busy machine the time-outs are short."""
    async with asyncio.timeout(IN_TIME):
        while await outcome(edge, target, fields) != 200:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("failure", FAILURES)
async def test_readers_get_what_is_stale_or_are_told_in_time(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, failure: str
) -> None:
    """Stale at once, where that is allowed; where it is if the origin fails, as soon as it has."""
    steps, expected = FAILURES[failure]
    if not any(word in failure for word in WAITED_FOR):
        edge = edge.at("patient.example")
    cold, kept = f"{target}/cold", f"{target}/kept"
    origin.route(kept, Answer(200, AT_ONCE if expected == "cut" else ON_ERROR, b"kept"))
    await store(edge, kept)
    for each in (cold, kept):
        origin.route(each, steps)
    told, served = await asyncio.gather(outcomes(edge, cold), outcomes(edge, kept))
    assert (told, served) == ([expected] * READERS, [200] * READERS)
    # It is still what was stored before, and of what failed nothing is.
    assert (await edge.get(kept)).body == b"kept"
    origin.route(cold, Answer(200, FRESH, b"good"))
    page = await edge.get(cold)
    assert (page.status, page.body) == (200, b"good")
    assert page.cache_status["fwd"] in ("uri-miss", "partial", "miss")


# -- origins that can't be reached any more


def gone(
    name: str, mute: str, expired: tuple[ScriptedOrigin, bytes], folder: Path
) -> dict[str, Any]:
    """The settings of an origin that can't be reached."""
    match name:
        case "refused":
            return {"url": f"http://127.0.0.1:{free_port()}"}
        case "mute":
            return {"url": mute}
        case "nameless":
            return {"url": "http://gone.invalid:8080"}
    (folder / "ca.pem").write_bytes(expired[1])
    return {"url": expired[0].url, "tls": {"ca_file": str(folder / "ca.pem")}}


async def test_without_an_origin_there_is_what_is_stored(
    edge: EdgeProcess,
    origin: ScriptedOrigin,
    mute: str,
    expired: tuple[ScriptedOrigin, bytes],
    tmp_path: Path,
) -> None:
    origin.route("/kept", Answer(200, ON_ERROR, b"good"))
    for name in UNREACHABLE:
        await store(edge, "/kept", host(name))
    lost = {name: {"origins": [gone(name, mute, expired, tmp_path)]} for name in UNREACHABLE}
    edge.write_config({"sites": lost})
    edge.signal(signal.SIGHUP)
    await edge.logged("reload")
    for name, status in zip(UNREACHABLE, (502, 504, 502, 502), strict=True):
        async with asyncio.timeout(IN_TIME):
            while (await edge.get("/else", host(name))).status == 404:
                """The reload is on its way."""
        assert await outcomes(edge, "/cold", host(name)) == [status] * READERS
        assert await outcomes(edge, "/kept", host(name)) == [200] * READERS
        stale = await edge.get("/kept", host(name))
        assert (stale.body, stale.cache_status["detail"]) == (b"good", "stale-if-error")
    assert not expired[0].requests


# -- one origin out of two


@pytest.mark.parametrize(("name", "reply"), PAIRS.items(), ids=PAIRS)
async def test_a_failing_origin_out_of_two_costs_readers_no_error(
    edge: EdgeProcess, origin: ScriptedOrigin, bad: ScriptedOrigin, name: str, reply: Any
) -> None:
    origin.otherwise(Answer(200, FRESH, b"good"))
    bad.otherwise(reply or Answer(500))
    before = len(bad.requests)
    async with asyncio.timeout(IN_TIME):
        pages = await asyncio.gather(
            *(edge.get(f"/{pair(name)}/{number}", host(pair(name))) for number in range(8))
        )
        pages += [await edge.get(f"/{pair(name)}/{n}", host(pair(name))) for n in range(8, 20)]
    assert {(page.status, page.body) for page in pages} == {(200, b"good")}
    assert len(bad.requests) - before <= 6
    sites = (await edge.admin("GET", "/v1/sites?limit=100")).json()["sites"]
    (site,) = [each for each in sites if each["name"] == pair(name)]
    first, second = site["origins"]["each"]
    assert (first["circuit"] != "closed", second["circuit"]) == (True, "closed")
    assert site["origins"]["repeated"] == sum(first["failures"].values()) >= 2


async def test_where_all_are_silent_readers_are_told_at_once_until_one_answers(
    edge: EdgeProcess, origin: ScriptedOrigin, bad: ScriptedOrigin
) -> None:
    fields = host("silent")
    for each in (origin, bad):
        each.otherwise(Answer(200, ON_ERROR, b"good"))
    await store(edge, "/silent/kept", fields)
    for each in (origin, bad):
        each.otherwise([9.0])
    async with asyncio.timeout(2 * IN_TIME):
        number = count()
        while True:
            pages = await asyncio.gather(
                *(edge.get(f"/silent/{next(number)}", fields) for _ in range(READERS))
            )
            assert {page.status for page in pages} == {504}
            if {page.cache_status["detail"] for page in pages} == {"origin-circuit-open"}:
                break
        stale = await edge.get("/silent/kept", fields)
        assert (stale.status, stale.body) == (200, b"good")
        for each in (origin, bad):
            each.otherwise(Answer(200, FRESH, b"back"))
        while (page := await edge.get(f"/silent/{next(number)}", fields)).status != 200:
            assert page.status == 504
            await asyncio.sleep(0.02)
        assert page.body == b"back"


async def test_checks_keep_readers_from_an_origin_that_is_not_well(
    origin: ScriptedOrigin, bad: ScriptedOrigin, tmp_path: Path
) -> None:
    """One worker checks, and all go by it."""
    origin.otherwise(Answer(200, FRESH, b"good"))
    bad.otherwise(Answer(200, FRESH, b"bad"))
    bad.route("/healthz", Answer(500))
    often = {"path": "/healthz", "interval": "0.2s", "timeout": "20s"}
    running = EdgeProcess(
        tmp_path,
        workers=2,
        origin=bad.url,
        site={
            "origins": [{"url": bad.url}, {"url": origin.url}],
            "check": often | {"unhealthy_after": 1, "healthy_after": 1},
            "balancing": {"slow_start": "0s"},
        },
    )
    async with running as edge:
        await edge.logged("does not pass its checks: it answered 500")
        pages = await asyncio.gather(*(edge.get(f"/checked/{number}") for number in range(20)))
        assert {page.body for page in pages} == {b"good"}
        held = asyncio.Event()
        bad.route("/healthz", Answer(500, hold=held))
        before = len(bad.requests_for("/healthz"))
        await bad.seen("/healthz", before + 1)
        # The one that checks waits for the answer: a second worker would ask meanwhile.
        await asyncio.sleep(0.5)
        assert len(bad.requests_for("/healthz")) == before + 1
        bad.route("/healthz", Answer(200))
        held.set()
        await edge.logged("passes its checks again")
        pages = await asyncio.gather(*(edge.get(f"/again/{number}") for number in range(20)))
        assert {page.body for page in pages} == {b"good", b"bad"}


@pytest.mark.parametrize(("slow_start", "least", "most"), [("60s", 1, 9), ("0s", 20, 40)])
async def test_an_origin_that_comes_back_comes_back_slowly(
    origin: ScriptedOrigin,
    bad: ScriptedOrigin,
    tmp_path: Path,
    slow_start: str,
    least: int,
    most: int,
) -> None:
    origin.otherwise(Answer(200, FRESH, b"good"))
    bad.otherwise([RESET])
    site = {
        "origins": [{"url": bad.url}, {"url": origin.url}],
        "breaker": {"failures": 1, "pause": "0.1s", "max_pause": "0.1s"},
        "balancing": {"slow_start": slow_start},
    }
    async with EdgeProcess(tmp_path, origin=bad.url, site=site) as edge:
        await asyncio.gather(*(edge.get(f"/away/{number}") for number in range(4)))
        bad.otherwise(Answer(200, FRESH, b"back"))
        number = count()
        while (await edge.get(f"/trial/{next(number)}")).body != b"back":
            await asyncio.sleep(0.02)
        pages = [await edge.get(f"/again/{n}") for n in range(60)]
        assert {page.status for page in pages} == {200}
        assert least <= sum(page.body == b"back" for page in pages) <= most


async def test_names_that_nobody_can_tell_take_no_site_away(
    origin: ScriptedOrigin, tmp_path: Path
) -> None:
    """Where an address is known, it does; where none is, only that site's readers are told."""
    file = tmp_path / "names.json"
    asked = ("answers", "silent", "failing", "gone")
    silent = [f"silent{number}" for number in range(8)]
    file.write_text(json.dumps({f"{name}.test": ["127.0.0.1"] for name in asked}))
    origin.otherwise(Answer(200, ON_ERROR, b"good"))
    sites = {
        name: {
            "hosts": [f"{name}.example"],
            "origins": [{"url": f"http://{name}.test:{origin.port}"}],
            "timeouts": TIMEOUTS,
            "pool": {"keepalive": "0s"},
        }
        for name in (*asked, *silent)
    }
    running = EdgeProcess(
        tmp_path,
        origin=origin.url,
        config={"sites": sites},
        env={"KIT_NAMES": str(file)},
        sabotage="names_of_a_file",
    )
    async with running as edge:
        for name in asked:
            await store(edge, "/kept", host(name))
        hanging = {f"{name}.test": "hang" for name in ("silent", *silent)}
        told = {"answers.test": ["127.0.0.1"], "failing.test": "fail"}
        file.write_text(json.dumps(told | hanging))
        await asyncio.sleep(0.25)
        async with asyncio.timeout(IN_TIME):
            lost = asyncio.gather(*(edge.get("/cold", host(name)) for name in silent))
            for name in ("answers", "failing", "silent"):
                for number in range(3):
                    page = await edge.get(f"/{name}/{number}", host(name))
                    assert (page.status, page.body) == (200, b"good")
            assert {page.status for page in await lost} == {504}
            await edge.get("/to-be-told", host("gone"))
            assert (await edge.get("/cold", host("gone"))).status == 502
            kept = await edge.get("/kept", host("gone"))
            assert (kept.body, kept.cache_status["detail"]) == (
                b"good",
                "stale-if-error; origin-unreachable",
            )
        assert "gone.test can't be looked up ([Errno -2] Name or service not known)" in edge.log
        began = asyncio.get_running_loop().time()
        await edge.stop()
        assert asyncio.get_running_loop().time() - began < IN_TIME


# -- what is no failure of the edge's to judge


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_storm_of_errors_is_passed_on_and_not_kept(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, status: int
) -> None:
    """An origin's own words for it are better than the edge's, as long as they come at once."""
    origin.route(target, Answer(status, {}, b"sorry"))
    for _ in range(3):
        assert await outcomes(edge, target) == [status] * READERS
    assert (await edge.get(target)).body == b"sorry"
    origin.route(target, Answer(200, FRESH, b"good"))
    assert (await edge.get(target)).body == b"good"


async def test_redirects_are_not_followed_into_a_loop(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    origin.route(target, Answer(302, {"Location": target, "Cache-Control": "no-store"}))
    for asked in (1, 2, 3):
        page = await edge.get(target)
        assert (page.status, page.field("location")) == (302, target)
        assert origin.counts[target] == asked


async def test_a_coding_that_is_none_is_for_the_reader_to_find_out(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    """Nothing is decoded here, so there is nothing to fail or to blow up."""
    garbage = b"\x1f\x8b\x08\x00not gzip at all"
    origin.route(target, Answer(200, FRESH | {"Content-Encoding": "gzip"}, garbage))
    for _ in range(2):
        page = await edge.get(target)
        assert (page.status, page.body, page.field("content-encoding")) == (200, garbage, "gzip")
