"""An edge on a socket, for the tests of the parts that make it up."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.proxy.parts import ServedEdge, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.kit import ScriptedOrigin

    Serve = Callable[..., Awaitable[ServedEdge]]


@pytest.fixture
async def serve(tmp_path: Path, origin: ScriptedOrigin) -> AsyncIterator[Serve]:
    """Serves an edge in front of `origin`; arguments as for `running`."""
    async with AsyncExitStack() as stack:

        async def start(**arguments: Any) -> ServedEdge:
            return await stack.enter_async_context(running(tmp_path, origin, **arguments))

        yield start


@pytest.fixture
async def served(serve: Serve) -> ServedEdge:
    """An edge with the least configuration."""
    return await serve()
