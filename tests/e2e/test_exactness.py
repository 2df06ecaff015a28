"""Purges are exact and immediate, nothing wrong is served, and nothing hangs: under a storm."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartEdge
from tests.e2e.storm import SITE, SMALL, Draw, Storm, calm
from tests.e2e.versions import Faults, Site
from tests.kit import EdgeProcess, RedisServer, ScriptedOrigin

SECONDS = float(os.environ.get("STORM_SECONDS", "2"))
"""How long a storm lasts."""


@pytest.mark.parametrize(
    ("store", "memory", "seed", "faults", "killing"),
    [
        ("lmdb", SMALL["memory"], 1, Faults(refused=0.02, dropped=0.02, cut=0.01), True),
        ("lmdb", {"max_bytes": 1}, 5, Faults(), False),
        ("memory:", SMALL["memory"], 2, Faults(), False),
        ("redis", SMALL["memory"], 3, Faults(refused=0.02), False),
    ],
    ids=["lmdb", "lmdb-alone", "memory", "redis"],
)
async def test_nothing_older_than_a_purge_and_nothing_wrong_is_ever_served(
    origin: ScriptedOrigin,
    start_edge: StartEdge,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    store: str,
    memory: dict[str, Any],
    seed: int,
    faults: Faults,
    killing: bool,
) -> None:
    site = Site(Draw(seed), pages=20, faults=faults)
    origin.otherwise(site.answer)
    url, config = None if store == "lmdb" else store, SMALL | {"memory": memory}
    if store == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        url, config = redis.url(), config | {"store": SMALL["store"] | {"state_dir": str(tmp_path)}}
    edge = await start_edge(origin, workers=2, store=url, config=config, site=SITE)
    storm = Storm(edge, site, seed)
    await storm.rage(SECONDS, killing=killing)
    site.faults, site.patience = Faults(), 0.0
    await calm(edge, site)
    if killing:
        # A worker that is killed ends what it has just begun to send.
        origin.complaints[:] = [each for each in origin.complaints if "cut" not in each]


@pytest.mark.parametrize("sabotage", ["deaf_workers", "late_positions", "idle_sweeps"])
async def test_a_build_that_breaks_its_promise_does_not_weather_it(
    origin: ScriptedOrigin, tmp_path: Path, sabotage: str
) -> None:
    site = Site(Draw(4), pages=20, faults=Faults())
    origin.otherwise(site.answer)
    edge = EdgeProcess(
        tmp_path, origin=origin.url, workers=2, config=SMALL, site=SITE, sabotage=sabotage
    )
    await edge.start()
    try:
        with pytest.raises(ExceptionGroup) as caught:
            await Storm(edge, site, 4).rage(20.0)
        _, told = caught.value.split(AssertionError)
        assert told is None
        # An answer from before a purge that had been answered when it was asked for.
        assert re.search(
            r"^(delete|invalidate) (tag|url|everything)", str(caught.value.exceptions[0])
        )
    finally:
        await edge.kill()
        edge.release()
