"""`python -m bench [--quick]`: hits, misses and passes of edgeproxy beside nginx, in one run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import CONNECTIONS, rounds, warm_up
from bench.processes import BenchError, OriginCount, Running, fast_folder
from bench.report import summary, table, write_json
from bench.scenarios import SCENARIOS
from bench.servers import ORIGIN, SERVERS, program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measure import Sample
    from bench.scenarios import Scenario
    from bench.servers import Server

RESULTS = Path(__file__).with_name("results")
PACKAGES = {"nginx": "nginx-light", "wrk": "wrk", "taskset": "util-linux"}
"""Debian's packages."""


def main() -> int:
    """The exit status: 0 also where nothing could be measured, except in CI."""
    arguments = _arguments()
    servers = [one for one in SERVERS if not arguments.server or one.name in arguments.server]
    scenarios = [
        one for one in SCENARIOS if not arguments.scenario or one.name in arguments.scenario
    ]
    needed = {"wrk", "taskset", *ORIGIN.programs}.union(*(server.programs for server in servers))
    missing = sorted(name for name in needed if program(name) is None)
    if missing:
        packages = " ".join(PACKAGES.get(name, name) for name in missing)
        print(
            f"bench: nothing is measured, for want of {', '.join(missing)}"
            f" (Debian: apt-get install {packages})",
            file=sys.stderr,
        )
        return 1 if os.environ.get("CI") else 0
    count, seconds = (1, 2) if arguments.quick else (arguments.rounds, arguments.seconds)
    cores = sorted(os.sched_getaffinity(0))
    print(
        f"servers on core {cores[0]}, wrk and the origin on core {cores[-1]}; {CONNECTIONS}"
        f" connections, {count} rounds of {seconds} s each, caches in {arguments.folder};"
        f" medians, and ratios to {servers[0].name}",
        flush=True,
    )
    if len(cores) == 1:
        print("there is one core only: the load takes its time from the servers")
    try:
        with tempfile.TemporaryDirectory(prefix="edgeproxy-bench-", dir=arguments.folder) as name:
            samples = _measure(servers, scenarios, Path(name), cores, count, seconds)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(f"\n{table(summary(samples))}", end="")
    result = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}{'-quick' if arguments.quick else ''}.json"
    about = {"rounds": count, "seconds": seconds, "connections": CONNECTIONS}
    write_json(result, samples, {**about, "folder": arguments.folder})
    print(f"\nall samples: {result}")
    return 0


def _measure(
    servers: Sequence[Server],
    scenarios: Sequence[Scenario],
    folder: Path,
    cores: Sequence[int],
    count: int,
    seconds: int,
) -> list[Sample]:
    own, other = cores[0], cores[-1]
    samples = []
    with ExitStack() as stack:
        origin = stack.enter_context(Running(ORIGIN, folder, other))
        origin.wait_until_ready("/page/0")
        running = [
            stack.enter_context(Running(server, folder, own, origin.port)) for server in servers
        ]
        for server in running:
            server.wait_until_ready("/page/0")
        warm_up(running, scenarios, other)
        seen = OriginCount(origin)
        for sample in rounds(running, scenarios, seen, count=count, seconds=seconds, core=other):
            samples.append(sample)
            print(
                f"  {sample.scenario:<6}{sample.server:<12}{sample.per_second:>10,.0f}/s",
                file=sys.stderr,
                flush=True,
            )
    return samples


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round: good for a smoke test, not figures"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default: 5)")
    parser.add_argument("--seconds", type=int, default=6, help="length of each round (default: 6)")
    names = [server.name for server in SERVERS]
    parser.add_argument("--server", action="append", choices=names, help="only this (repeatable)")
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--scenario", action="append", choices=names, help="only this (repeatable)")
    parser.add_argument(
        "--folder",
        default=fast_folder(),
        help="where the caches are (default: memory, so that no disk is measured: %(default)s)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
