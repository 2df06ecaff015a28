"""Measuring: one load on one server, and the rounds of all."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.processes import BenchError, OriginCount, Running, pinned
from bench.scenarios import PAGES, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOAD = Path(__file__).with_name("load.lua")
CONNECTIONS = 64
STRIDE = 7919
"""How load.lua goes through the pages: by steps of this length."""
TOLERANCE = 0.02
"""How far the origin's share of the requests may be from the scenario's."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one scenario on one server. Latencies are in milliseconds, as wrk sees them."""

    scenario: str
    server: str
    requests: int
    per_second: float
    cpu_us: float
    """Processor time of the server's processes for a request, in microseconds."""
    p50_ms: float
    p99_ms: float
    origin_share: float


def rounds(
    servers: Sequence[Running],
    scenarios: Sequence[Scenario],
    origin: OriginCount,
    *,
    count: int,
    seconds: int,
    core: int,
) -> Iterator[Sample]:
    """`count` rounds of each scenario, in each all servers in turn; every second one backward.

    What slows the machine down for a while so slows all servers down alike.
    """
    for scenario in scenarios:
        for number in range(count):
            for server in servers if number % 2 == 0 else reversed(servers):
                yield measure(server, scenario, origin, f"{number}", seconds=seconds, core=core)


def warm_up(servers: Sequence[Running], scenarios: Sequence[Scenario], core: int) -> None:
    """Let every server see every page and every kind of load: what is to be a hit is then one."""
    for server in servers:
        for scenario in scenarios:
            if not scenario.fresh_urls:
                server.get_all(f"{scenario.path}{page}" for page in range(PAGES))
            load(server, scenario, "warm" if scenario.fresh_urls else "", 1, core)


def measure(
    server: Running, scenario: Scenario, origin: OriginCount, run: str, *, seconds: int, core: int
) -> Sample:
    """One round of a scenario on a server. Raises BenchError if it was not what it says."""
    seen, cpu = origin.settled(), server.cpu_seconds()
    told = load(server, scenario, run if scenario.fresh_urls else "", seconds, core)
    cpu = server.cpu_seconds() - cpu
    requests = told["requests"]
    share = (origin.settled() - seen) / max(requests, 1)
    what = f"{scenario.name} on {server.server.name}"
    if not requests or told["failed"]:
        raise BenchError(f"{what}: {told['failed']} of {requests} requests failed")
    # wrk's connections end with their last requests unanswered: the origin sees a few more.
    if abs(share - scenario.origin_share) > TOLERANCE + CONNECTIONS / requests:
        raise BenchError(
            f"{what}: the origin saw {share:.1%} of the requests, not {scenario.origin_share:.0%}: "
            "that is not what was to be measured"
        )
    if scenario.fresh_urls:
        _check_stored(server, scenario, origin, run)
    return Sample(
        scenario=scenario.name,
        server=server.server.name,
        requests=requests,
        per_second=requests / told["microseconds"] * 1e6,
        cpu_us=cpu / requests * 1e6,
        p50_ms=told["p50_us"] / 1000,
        p99_ms=told["p99_us"] / 1000,
        origin_share=share,
    )


def _check_stored(server: Running, scenario: Scenario, origin: OriginCount, run: str) -> None:
    """Whether an early URL of those that load.lua made for this run is a hit by now."""
    seen, number = origin.settled(), 2 * CONNECTIONS
    server.get(f"{scenario.path}{number * STRIDE % PAGES}?{run}-{number}")
    if origin.settled() > seen:
        raise BenchError(f"{scenario.name} on {server.server.name}: what was fetched is not stored")


def load(
    server: Running,
    scenario: Scenario,
    run: str,
    seconds: int,
    core: int,
    connections: int = CONNECTIONS,
    pause_ms: int = 0,
) -> dict[str, Any]:
    """What wrk tells of one round: load.lua says what that is. Raises BenchError.

    `pause_ms`: how long each connection waits before each request.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(LOAD)]
    command += [
        f"http://127.0.0.1:{server.port}",
        "--",
        scenario.path,
        str(PAGES),
        str(STRIDE),
        run,
        str(pause_ms),
    ]
    done = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False)
    return told_by_wrk(done.stdout, done.stderr)


def told_by_wrk(output: str, errors: str = "") -> dict[str, Any]:
    """The line of JSON that load.lua ends with."""
    line = output.rstrip().rpartition("\n")[2]
    if not line.startswith("{"):
        raise BenchError(f"wrk failed:\n{output}{errors}")
    found: dict[str, Any] = json.loads(line)
    return found
