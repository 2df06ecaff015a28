"""Fixtures for tests over real sockets, and CI's rule that nothing is skipped."""

import asyncio
import gc
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import settings

from tests.kit import EdgeProcess, RedisServer, ScriptedOrigin

StartEdge = Callable[..., Awaitable[EdgeProcess]]

IN_MEMORY = Path("/dev/shm")
ROOM = 4 << 30
"""Bytes that have to be free there: what tests write is small, and sparse where it isn't."""

if IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free >= ROOM:
    # Thousands of stores are made, synced and removed: on a disk that is half of the time.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))

# What is looked for at random in each run; `--hypothesis-profile=thorough` looks for long. How long
# an example takes says more of the machine than of what is tested.
settings.register_profile("suite", max_examples=50, deadline=None)
settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.load_profile("suite")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests stay until the end: they are not looked through for garbage, ever."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run in asyncio's own loop; those marked `both_loops` in the workers' uvloop, too."""
    marked = item.get_closest_marker("both_loops") is not None
    return {name: make for name, make in LOOPS.items() if marked or name == "asyncio"}


@pytest.fixture
async def origin() -> AsyncIterator[ScriptedOrigin]:
    """A scripted origin; the test fails at its end if a request was malformed."""
    async with ScriptedOrigin() as server:
        yield server


@pytest.fixture
async def start_edge(tmp_path: Path) -> AsyncIterator[StartEdge]:
    """Starts edges: `edge = await start_edge(origin, workers=2)`; arguments as `EdgeProcess`.

    Those still running at the end of the test are stopped, and must exit 0 without a traceback.
    """
    started: list[EdgeProcess] = []

    async def start(origin: ScriptedOrigin | str | None = None, **arguments: Any) -> EdgeProcess:
        url = origin.url if isinstance(origin, ScriptedOrigin) else origin
        wait = arguments.pop("wait", True)
        edge = EdgeProcess(tmp_path / f"edge-{len(started)}", origin=url, **arguments)
        started.append(edge)
        await edge.start(wait=wait)
        return edge

    yield start
    async with AsyncExitStack() as ending:
        for edge in started:
            ending.push_async_exit(edge)


@pytest.fixture
async def edge(origin: ScriptedOrigin, start_edge: StartEdge) -> EdgeProcess:
    """An edge with one worker and a store on disk, in front of `origin`."""
    return await start_edge(origin)


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One redis-server for the run (for each process of a distributed one)."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(redis_process: RedisServer) -> RedisServer:
    """A redis-server with nothing in it."""
    redis_process.command("FLUSHALL")
    return redis_process


def _skipped_in_ci(config: pytest.Config) -> list[Any]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI"):
        return []
    return list(reporter.stats.get("skipped", []))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test fails the run: what was not tried is not known to work."""
    if _skipped_in_ci(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say why such a run failed."""
    for report in _skipped_in_ci(config):
        terminalreporter.write_line(f"skipped, which CI does not allow: {report.nodeid}")
