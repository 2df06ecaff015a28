"""`python -m bench.overload`: what is left of the hits while three times too much is asked for.

Hits alone, and beside a flood, in turns: of three times as many clients that ask for hits; of
misses, each of a URL of its own, and of POSTs, by a thousand clients that ask again at once, at an
origin that answers at once and at one that takes 200 ms; of clients that make a connection for each
hit, or for each miss. The edge has one worker and a core; the rest is on another one. The flood is
halted for the hits alone, so that both are measured within seconds of each other: what a processor
does in a second changes with what else the machine has to do. For the same reason the other core is
never left idle: where two share their units, one that idles makes the other quicker. The clients of
the flood have what those of the hits leave of that core: on machines of their own they would take
nothing from them. Told is the median of the turns.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench.processes import BenchError, Running, fast_folder, pinned
from bench.report import machine
from bench.requests import HOST
from bench.servers import (
    ADMIN_TOKEN,
    QUICK_ORIGIN,
    SLOW_ORIGIN,
    Launch,
    Place,
    Server,
    edgeproxy,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGES = 200
HIT_CONNECTIONS = 128
ORIGIN_CONNECTIONS = 4096
SETTLES = 1.0
"""Seconds until a flood and hits have found their shares, or until what a flood has asked for is
over, once it has been halted."""
_LUA = """
local prefix, method, count = "%s", "%s", %d
local seed = %d
init = function() math.randomseed(seed) end
request = function() return wrk.format(method, prefix .. math.random(count)) end
"""
_COUNT = re.compile(r"(\d+) requests in ([\d.]+)(s|m)")
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


_CLOSE = ("Connection: close",)
HITS = Flood("hits", "/page/", urls=PAGES, connections=HIT_CONNECTIONS)
MORE_HITS = Flood("more-hits", "/page/", urls=PAGES, connections=3 * HIT_CONNECTIONS)
FLOODS = (
    Flood("misses", "/miss/"),
    Flood("posts", "/post/", method="POST"),
    Flood("connections", "/page/", urls=PAGES, fields=_CLOSE, connections=200),
    Flood("connections-misses", "/miss/", fields=_CLOSE, connections=200),
    MORE_HITS,
)
SLOW_FLOODS = (
    Flood("slow-misses", "/miss/"),
    Flood("slow-posts", "/post/", method="POST"),
)


@dataclass(frozen=True, slots=True)
class Told:
    """What one load came to, a second."""

    answered: float
    refused: float


@dataclass(frozen=True, slots=True)
class Turn:
    """Hits for a while, and the part of a core that the edge has used meanwhile."""

    hits: float
    """A second."""
    refused: float
    cpu: float

    @property
    def of_processor(self) -> float:
        """Hits for each second of the edge's processor time."""
        return self.hits / self.cpu


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left of the hits beside a flood: the medians of the turns."""

    alone: float
    """Hits a second."""
    beside: float
    kept: float
    """The part of the hits alone that this is."""
    kept_of_processor: float
    """The same of those for each second of the edge's processor time."""
    hits_refused: float
    flood_answered: float
    flood_refused: float
    edge_cpu: float
    """Part of a core, beside the flood."""


class Wrk:
    """One that runs; `beside`: on what others leave of its core."""

    def __init__(
        self,
        edge: Running,
        folder: Path,
        flood: Flood,
        seconds: float,
        core: int,
        *,
        beside: bool = False,
    ) -> None:
        script = folder / f"{flood.name}.lua"
        seed = time.monotonic_ns() % 2**31
        script.write_text(_LUA % (flood.prefix, flood.method, flood.urls, seed))
        command = [
            *(("nice", "-n", "19") if beside else ()),
            "wrk",
            "-t1",
            f"-c{flood.connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout=9s",
        ]
        for field in (f"Host: {HOST}", *flood.fields):
            command += ["-H", field]
        command += ["-s", str(script), f"http://127.0.0.1:{edge.port}"]
        self._process = subprocess.Popen(
            pinned(command, core), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def halt(self) -> None:
        """Ask for nothing more, and read nothing, until told to `go_on`."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Ask again."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> Told:
        """Wait for its end."""
        output, errors = self._process.communicate()
        count = _COUNT.search(output)
        if count is None:
            raise BenchError(f"wrk failed:\n{output}{errors}")
        requests, seconds = int(count[1]), float(count[2]) * (60 if count[3] == "m" else 1)
        failed = _FAILED.search(output)
        refused = int(failed[1]) if failed else 0
        return Told((requests - refused) / seconds, refused / seconds)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="of hits in each half of a turn")
    parser.add_argument("--turns", type=int, default=9, help="how many for each flood")
    parser.add_argument("--only", help="the floods with these names, separated by commas")
    parser.add_argument("--folder", default=fast_folder(), help="where the store is put")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="edgeproxy-bench-", dir=arguments.folder) as name:
            bench = Bench(Path(name), arguments.seconds, arguments.turns)
            only = arguments.only.split(",") if arguments.only else None
            found = [
                bench.measure(origin, chosen)
                for origin, floods in ((QUICK_ORIGIN, FLOODS), (SLOW_ORIGIN, SLOW_FLOODS))
                if (chosen := [flood for flood in floods if not only or flood.name in only])
            ]
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"machine": machine(), "load": os.getloadavg(), "found": found}, indent=1))
    return 0


def _launch(place: Place) -> Launch:
    launch = edgeproxy(place)
    with (place.folder / "edgeproxy.toml").open("a") as config:
        # The origin takes all that comes: what is short is the edge's own time.
        config.write(f"[sites.shop.pool]\nmax_connections = {ORIGIN_CONNECTIONS}\n")
    return launch


EDGE = Server("edgeproxy", (), _launch)


class Bench:
    """A kind of flood after the other."""

    def __init__(self, folder: Path, seconds: int, turns: int) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self._core, self._other = cores[0], cores[-1]
        self._folder, self._seconds, self._turns = folder, seconds, turns

    @contextmanager
    def _never_idle(self) -> Iterator[None]:
        """Use what time nobody else wants of the core that has not got the edge."""
        loop = subprocess.Popen(pinned([sys.executable, "-c", "while True: pass"], self._other))
        try:
            os.sched_setscheduler(loop.pid, os.SCHED_IDLE, os.sched_param(0))
            yield
        finally:
            loop.kill()
            loop.wait()

    def measure(self, origin: Server, floods: Sequence[Flood]) -> dict[str, object]:
        """What an edge in front of that origin keeps of its hits."""
        folder = self._folder / f"before-{origin.name}"
        folder.mkdir()
        with ExitStack() as stack:
            stack.enter_context(self._never_idle())
            behind = stack.enter_context(Running(origin, folder, self._other))
            behind.wait_until_ready("/")
            edge = stack.enter_context(Running(EDGE, folder, self._core, behind.port))
            edge.wait_until_ready("/page/1")
            edge.get_all(f"/page/{page}" for page in range(1, PAGES + 1))
            Wrk(edge, folder, HITS, SETTLES, self._other).end()
            floods_kept = {}
            for flood in floods:
                kept = self._beside(edge, folder, flood)
                print(f"{flood.name}: {kept.kept:.2f} of the hits are left", file=sys.stderr)
                floods_kept[flood.name] = asdict(kept)
            return {"origin": origin.name, "floods": floods_kept, "refused": _refused(edge)}

    def _beside(self, edge: Running, folder: Path, flood: Flood) -> Kept:
        if flood is MORE_HITS:
            return self._more(edge, folder)
        turns = []
        seconds = self._turns * 2 * (self._seconds + 2 * SETTLES)
        running = Wrk(edge, folder, flood, seconds, self._other, beside=True)
        for _ in range(self._turns):
            # The flood is at its height soon, and what it brought in while there were no hits is
            # over.
            Wrk(edge, folder, HITS, SETTLES, self._other).end()
            beside = self._hits(edge, folder, HITS)
            running.halt()
            # What it has asked for is answered, until nobody reads the answers.
            time.sleep(2 * SETTLES)
            turns.append((self._hits(edge, folder, HITS), beside))
            running.go_on()
        return _medians(turns, running.end())

    def _more(self, edge: Running, folder: Path) -> Kept:
        turns = [
            (self._hits(edge, folder, HITS), self._hits(edge, folder, MORE_HITS))
            for _ in range(self._turns)
        ]
        return _medians(turns, Told(0.0, 0.0))

    def _hits(self, edge: Running, folder: Path, hits: Flood) -> Turn:
        before, since = edge.cpu_seconds(), time.monotonic()
        told = Wrk(edge, folder, hits, self._seconds, self._other).end()
        cpu = (edge.cpu_seconds() - before) / (time.monotonic() - since)
        if not told.answered or not cpu:
            raise BenchError(f"there were no hits, with {cpu:.2f} of a core used: {told}")
        return Turn(told.answered, told.refused, cpu)


def _medians(turns: list[tuple[Turn, Turn]], flood: Told) -> Kept:
    return Kept(
        alone=median(alone.hits for alone, _ in turns),
        beside=median(beside.hits for _, beside in turns),
        kept=median(beside.hits / alone.hits for alone, beside in turns),
        kept_of_processor=median(
            beside.of_processor / alone.of_processor for alone, beside in turns
        ),
        hits_refused=median(beside.refused for _, beside in turns),
        flood_answered=flood.answered,
        flood_refused=flood.refused,
        edge_cpu=median(beside.cpu for _, beside in turns),
    )


def _refused(edge: Running) -> dict[str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", edge.spare_port, timeout=10)
    connection.request("GET", "/v1/status", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
    answer = json.load(connection.getresponse())
    connection.close()
    return {name: count for name, count in answer["refused"].items() if count}


if __name__ == "__main__":
    sys.exit(main())
