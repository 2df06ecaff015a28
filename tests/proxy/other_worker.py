"""Another worker of the node, as this process' worker meets it.

Its claims are a real process', because the kernel tells those apart; its flights are this one's,
where a test can act on them, behind a socket that has the other process' name.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from edgeproxy.cache.spool import Spool
from edgeproxy.invalidation.selectors import Expected
from edgeproxy.proxy.collapsing import Flight
from edgeproxy.proxy.errors import InternalFailure
from edgeproxy.proxy.peers import PeerServer, peer_path
from edgeproxy.semantics.key import KeyPolicy, cache_key
from tests.proxy.parts import PATIENCE, ServedEdge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from edgeproxy.cache.bodies import ReadBody
    from edgeproxy.cache.stored import StoredResponse

_CLAIM = """
import sys
from pathlib import Path
from edgeproxy.proxy.claims import Claims

claims = Claims(Path(sys.argv[1]))
print(claims.acquire(bytes.fromhex(sys.argv[2])), flush=True)
sys.stdin.read()
"""


def primary_of(target: str) -> bytes:
    """The key of a page of the shop, which is that of its flight as long as nothing varies."""
    return cache_key("shop", "http", "shop.test", target.encode(), KeyPolicy()).primary


class OtherWorker:
    """A worker that has claimed a page."""

    def __init__(self, process: asyncio.subprocess.Process, target: str, path: Path) -> None:
        self.path = path
        """The socket where others look for it."""
        self.key = primary_of(target)
        self.flights: dict[bytes, Flight] = {}
        """Those in the air, by key; empty: it has the claim, and no fetch (any more)."""
        self._process = process

    def takes_off(self) -> Flight:
        """Its fetch of the page."""
        flight = Flight(
            Spool(None),
            1 << 20,
            Expected("shop", "production", "https", "shop.test", b"/", bytes(16)),
            0,
        )
        self.flights[self.key] = flight
        return flight

    async def dies(self) -> None:
        """It is killed, and its claim is free."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def other_worker(
    served: ServedEdge,
    target: str,
    open_body: Callable[[StoredResponse], Awaitable[ReadBody]] | None = None,
) -> AsyncIterator[OtherWorker]:
    """Another worker that has a claim on that page of the shop.

    `open_body`: reads what it has stored, where nobody else can.
    """
    run = served.place.runtime_dir
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", _CLAIM, str(run / "claims"), primary_of(target).hex()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readline() == b"True\n"
    worker = OtherWorker(process, target, peer_path(run, process.pid))
    folder = run / f"of-{process.pid}"
    folder.mkdir()
    server = PeerServer(folder, worker.flights.get, open_body)
    await server.start()
    worker.path.symlink_to(peer_path(folder, os.getpid()))
    try:
        yield worker
    finally:
        await worker.dies()
        for flight in worker.flights.values():
            flight.fail(InternalFailure("shutting-down"))
        await asyncio.wait_for(server.close(), PATIENCE)
        for flight in worker.flights.values():
            await flight.spool.close()


def readers(served: ServedEdge, target: str) -> int:
    """How many wait for the fetch of a page."""
    flight = served.fetching.find_flight(primary_of(target))
    return flight.readers if flight is not None else 0
