"""`python -m bench.overload`: what is left of the hits while far too much else is asked for.

Hits alone at their peak; then beside floods: of misses, each of a URL of its own, at an origin that
takes 200 ms, by a thousand clients that ask again at once, which is more than three times what the
edge can serve; of POSTs there; of clients that make a connection for each request. The edge has one
worker and a core; the rest is on another one. What is kept is told for each second of the edge's
processor time, too, for on a machine with other work it is not the edge alone that decides.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.processes import BenchError, Running, fast_folder, pinned
from bench.report import machine
from bench.requests import HOST
from bench.servers import ADMIN_TOKEN, SLOW_ORIGIN, Launch, Place, Server, edgeproxy

PAGES = 200
HIT_CONNECTIONS = 128
ORIGIN_CONNECTIONS = 4096
SETTLES = 2.0
_LUA = """
local prefix, method, count = "%s", "%s", %d
local seed = %d
init = function() math.randomseed(seed) end
request = function() return wrk.format(method, prefix .. math.random(count)) end
"""
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_COUNT = re.compile(r"(\d+) requests in ([\d.]+)s")
_FAILED = re.compile(r"Non-2xx or 3xx responses: (\d+)")


@dataclass(frozen=True, slots=True)
class Flood:
    """A load beside the hits."""

    name: str
    prefix: str
    method: str = "GET"
    urls: int = 2**31 - 1
    fields: tuple[str, ...] = ()
    connections: int = 1000


FLOODS = (
    Flood("misses", "/miss/"),
    Flood("posts", "/post/", method="POST"),
    Flood("connections", "/page/", urls=PAGES, fields=("Connection: close",), connections=200),
)


@dataclass(frozen=True, slots=True)
class Told:
    """What one load came to, a second."""

    answered: float
    refused: float


@dataclass(frozen=True, slots=True)
class Beside:
    """Hits beside a flood, and that flood."""

    hits_per_second: float
    kept: float
    """The part of the peak rate that this is."""
    kept_of_processor: float
    """The same for each second of the edge's processor time."""
    hits_refused: float
    flood_alone: float
    """What it was answered a second before, with nothing else."""
    flood: Told
    edge_cpu: float
    """Part of a core."""


class Wrk:
    """One that runs."""

    def __init__(
        self, edge: Running, folder: Path, flood: Flood, connections: int, seconds: float, core: int
    ) -> None:
        script = folder / f"{flood.name}.lua"
        seed = time.monotonic_ns() % 2**31
        script.write_text(_LUA % (flood.prefix, flood.method, flood.urls, seed))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout=9s"]
        for field in (f"Host: {HOST}", *flood.fields):
            command += ["-H", field]
        command += ["-s", str(script), f"http://127.0.0.1:{edge.port}"]
        self._process = subprocess.Popen(
            pinned(command, core), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self) -> Told:
        """Wait for its end."""
        output, errors = self._process.communicate()
        count = _COUNT.search(output)
        if count is None:
            raise BenchError(f"wrk failed:\n{output}{errors}")
        requests, seconds = int(count[1]), float(count[2])
        failed = _FAILED.search(output)
        refused = int(failed[1]) if failed else 0
        return Told((requests - refused) / seconds, refused / seconds)


HITS = Flood("hits", "/page/", urls=PAGES)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=int, default=8, help="of each measurement")
    parser.add_argument("--folder", default=fast_folder(), help="where the store is put")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="edgeproxy-bench-", dir=arguments.folder) as name:
            found = _measure(Path(name), sorted(os.sched_getaffinity(0)), arguments.seconds)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"machine": machine(), **found}, indent=1))
    return 0


def _launch(place: Place) -> Launch:
    launch = edgeproxy(place)
    with (place.folder / "edgeproxy.toml").open("a") as config:
        # The origin takes all that comes: what is short is the edge's own time.
        config.write(f"[sites.shop.pool]\nmax_connections = {ORIGIN_CONNECTIONS}\n")
    return launch


EDGE = Server("edgeproxy", (), _launch)


def _measure(folder: Path, cores: list[int], seconds: int) -> dict[str, object]:
    core, other = cores[0], cores[-1]
    with ExitStack() as stack:
        origin = stack.enter_context(Running(SLOW_ORIGIN, folder, other))
        origin.wait_until_ready("/")
        edge = stack.enter_context(Running(EDGE, folder, core, origin.port))
        edge.wait_until_ready("/page/1")
        edge.get_all(f"/page/{page}" for page in range(1, PAGES + 1))
        Wrk(edge, folder, HITS, HIT_CONNECTIONS, SETTLES, other).end()
        peak, cpu = _hits(edge, folder, seconds, other)
        beside = {}
        for flood in FLOODS:
            beside[flood.name] = _beside(edge, folder, flood, (peak.answered, cpu), seconds, other)
        return {
            "hits_per_second": peak.answered,
            "edge_cpu": cpu,
            "beside": {name: asdict(each) for name, each in beside.items()},
            "refused": _refused(edge),
        }


def _hits(edge: Running, folder: Path, seconds: int, core: int) -> tuple[Told, float]:
    """What hits come to, and the part of a core that the edge has used meanwhile."""
    before, since = edge.cpu_seconds(), time.monotonic()
    told = Wrk(edge, folder, HITS, HIT_CONNECTIONS, seconds, core).end()
    return told, (edge.cpu_seconds() - before) / (time.monotonic() - since)


def _beside(
    edge: Running,
    folder: Path,
    flood: Flood,
    peak: tuple[float, float],
    seconds: int,
    core: int,
) -> Beside:
    alone = Wrk(edge, folder, flood, flood.connections, seconds, core).end().answered
    time.sleep(SETTLES)
    running = Wrk(edge, folder, flood, flood.connections, seconds + 2 * SETTLES, core)
    time.sleep(SETTLES)
    hits, cpu = _hits(edge, folder, seconds, core)
    told = running.end()
    time.sleep(SETTLES)
    return Beside(
        hits_per_second=hits.answered,
        kept=hits.answered / peak[0],
        kept_of_processor=hits.answered / cpu / (peak[0] / peak[1]),
        hits_refused=hits.refused,
        flood_alone=alone,
        flood=told,
        edge_cpu=cpu,
    )


def _refused(edge: Running) -> dict[str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", edge.spare_port, timeout=10)
    connection.request("GET", "/v1/status", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
    answer = json.load(connection.getresponse())
    connection.close()
    return {name: count for name, count in answer["refused"].items() if count}


if __name__ == "__main__":
    sys.exit(main())
