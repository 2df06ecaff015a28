"""One edge for all tests that ask for nothing special, and one with two workers."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.kit import EdgeProcess, ScriptedOrigin
from tests.kit.sharing import SharedEdge, shared_edge


@pytest.fixture(scope="session")
def edge_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedEdge]:
    with shared_edge(tmp_path_factory.mktemp("edge"), workers=1) as shared:
        yield shared


@pytest.fixture(scope="session")
def pair_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedEdge]:
    with shared_edge(tmp_path_factory.mktemp("pair"), workers=2) as shared:
        yield shared


@pytest.fixture
async def origin(request: pytest.FixtureRequest) -> AsyncIterator[ScriptedOrigin]:
    """A scripted origin, at the port where a shared edge looks for it if the test has one."""
    port = 0
    for name, shared in (("edge", "edge_of_all"), ("pair", "pair_of_all")):
        if name in request.fixturenames:
            port = request.getfixturevalue(shared).origin_port
    async with ScriptedOrigin(port=port) as server:
        yield server


@pytest.fixture
async def edge(origin: ScriptedOrigin, edge_of_all: SharedEdge) -> EdgeProcess:
    """An edge with one worker and a store on disk, in front of `origin`."""
    return await edge_of_all.visit()


@pytest.fixture
async def pair(origin: ScriptedOrigin, pair_of_all: SharedEdge) -> EdgeProcess:
    """The same with two workers."""
    return await pair_of_all.visit()
