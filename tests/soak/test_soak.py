"""Processes that are killed, ended and reloaded at random under load: nothing wrong, nothing lost.

`make soak SECONDS=300` for a long run.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from itertools import count

from tests.conftest import StartEdge
from tests.e2e.storm import SITE, SMALL, Storm, calm
from tests.e2e.versions import Faults, Site
from tests.kit import Answer, Connection, EdgeProcess, MessageCut, OriginRequest, ScriptedOrigin

LONG = "SOAK_SECONDS" in os.environ
SECONDS = float(os.environ.get("SOAK_SECONDS", "4"))
RELOADS = 100
TERMS = 20 if LONG else 1
READERS = 8
PATIENCE = 15.0
SLOW = 0.3

UNSTORED = {"Cache-Control": "no-store"}


async def test_processes_that_are_killed_lose_nothing_and_spoil_nothing(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    site = Site(random.Random(7), pages=20, faults=Faults(cut=0.01))
    origin.otherwise(site.answer)
    edge = await start_edge(origin, workers=2, config=SMALL, site=SITE)
    storm = Storm(edge, site, 7)
    await storm.rage(SECONDS, killing=True, deposing=True)
    assert storm.counts["killed"]
    # Who is killed while it sends a body to the origin sends no more of it.
    origin.complaints[:] = [each for each in origin.complaints if ": cut in" not in each]
    site.faults, site.patience = Faults(), 0.0
    await calm(edge, site)

    # The next one to open the store finds nothing wrong with it.
    position = (await edge.purge(tags=["nothing"]))["position"]
    os.kill(edge.pid, signal.SIGKILL)
    await edge.wait()
    await edge.start()
    assert (await edge.purge(tags=["nothing"]))["position"] == position + 1
    for told in ("set aside", "damaged", "Traceback"):
        assert told not in edge.log


class Load:
    """Readers, each of whose requests the origin is asked for; some on connections of their own."""

    def __init__(self, edge: EdgeProcess, origin: ScriptedOrigin) -> None:
        origin.otherwise(self._answer)
        self.edge = edge
        self.seen: set[str] = set()
        """Targets that the origin was asked for."""
        self.answered: set[str] = set()
        self.failed: Counter[str] = Counter()
        """What was sent over a connection, and not answered."""
        self.refused: Counter[str] = Counter()
        self.over = asyncio.Event()
        self._numbers = count()

    def _answer(self, request: OriginRequest) -> Answer:
        self.seen.add(request.target)
        body = request.target.encode() * 1000
        if len(self.seen) % 16:
            return Answer(200, UNSTORED, body)
        # Some take so long that an end, or a reload, finds them on their way.
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(SLOW, later.set)
        return Answer(200, UNSTORED, body, hold=later)

    async def read(self, draw: random.Random) -> None:
        connection: Connection | None = None
        while not self.over.is_set():
            target = f"/{next(self._numbers)}"
            try:
                async with asyncio.timeout(PATIENCE):
                    connection = connection or await self.edge.connect()
                    response = await connection.exchange("GET", target)
            except ConnectionRefusedError:
                self.refused[target] += 1
                return
            except (MessageCut, OSError):
                self.failed[target] += 1
                connection = None
                continue
            assert response.status == 200, response.head.raw
            assert response.body == target.encode() * 1000
            self.answered.add(target)
            if response.field("connection") == "close" or draw.random() < 0.1:
                await connection.close()
                connection = None
        if connection is not None:
            await connection.close()

    async def until(self, answers: int) -> None:
        """Wait for so many more answers."""
        goal = len(self.answered) + answers
        async with asyncio.timeout(PATIENCE):
            while len(self.answered) < goal:
                await asyncio.sleep(0.01)


async def test_reloads_fail_no_request(origin: ScriptedOrigin, start_edge: StartEdge) -> None:
    edge = await start_edge(origin, workers=2)
    load = Load(edge, origin)
    async with asyncio.TaskGroup() as readers:
        for number in range(READERS):
            readers.create_task(load.read(random.Random(number)))
        for number in range(RELOADS):
            await load.until(2)
            edge.write_config({"sites": {"default": {"cache": {"max_variants": 2 + number % 5}}}})
            edge.signal(signal.SIGHUP)
            await edge.logged("reloaded", count=number + 1)
        await load.until(50)
        load.over.set()
    assert not load.failed + load.refused
    assert load.seen == load.answered


async def test_sigterm_fails_no_request_that_was_taken(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin, workers=2)
    for term in range(TERMS):
        load = Load(edge, origin)
        async with asyncio.TaskGroup() as readers:
            for number in range(READERS):
                readers.create_task(load.read(random.Random(f"{term} {number}")))
            await load.until(50)
            edge.signal(signal.SIGTERM)
            assert await edge.wait() == 0
        assert load.seen == load.answered, f"taken and not answered\n{edge.log}"
        assert not load.failed, f"sent and not answered\n{edge.log}"
        await edge.start()
