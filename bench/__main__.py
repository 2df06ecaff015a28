"""`python -m bench [--quick]`: edgeproxy beside other caching proxies, in one run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.processes import BenchError, fast_folder
from bench.report import table, write_json
from bench.run import Run
from bench.scenarios import SCENARIOS, in_groups
from bench.servers import ORIGIN, SERVERS, program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.scenarios import Scenario
    from bench.servers import Server

RESULTS = Path(__file__).with_name("results")
PACKAGES = {
    "nginx": "nginx-light",
    "varnishd": "varnish",
    "traffic_server": "trafficserver",
    "taskset": "util-linux",
    "setpriv": "util-linux",
}
"""Debian's packages, where they are not called as the program is."""
QUICK_SERVERS = ("nginx", "edgeproxy")
OVERHEAD = 1.2
"""What a round takes besides its load: seconds."""


def main() -> int:
    """The exit status: 0 also where nothing could be measured, except in CI."""
    arguments = _arguments()
    names = arguments.server or (QUICK_SERVERS if arguments.quick else [])
    servers = [one for one in SERVERS if not names or one.name in names]
    scenarios = [
        one
        for one in SCENARIOS
        if (
            one.name in arguments.scenario
            if arguments.scenario
            else one.quick or not arguments.quick
        )
    ]
    if lacking := _missing("wrk", "taskset", "setpriv", *ORIGIN.programs):
        print(f"bench: nothing is measured, {lacking}", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    left_out = _left_out(servers, scenarios)
    count, seconds = (1, 1) if arguments.quick else (arguments.rounds, arguments.seconds)
    pairs = len(scenarios) * len(servers) - len(left_out)
    cores = sorted(os.sched_getaffinity(0))
    print(
        f"servers on core {cores[0]}, load and origin on core {cores[-1]}; {count} rounds of"
        f" {seconds} s each, caches in {arguments.folder}; this takes some"
        f" {pairs * (count * (seconds + OVERHEAD) + 2 * OVERHEAD) / 60:.0f} minutes",
        flush=True,
    )
    if len(cores) == 1:
        print("there is one core only: the load takes its time from the servers")
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="edgeproxy-bench-", dir=arguments.folder) as name:
            # Some servers run as users of their own, and make what they store there.
            Path(name).chmod(0o755)
            run = Run(servers, left_out, Path(name), cores, count, seconds, quick=arguments.quick)
            for group in [scenarios] if arguments.quick else in_groups(scenarios):
                run.measure(group)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    missing = {**left_out, **{at: f"failed: {why}" for at, why in run.failed.items()}}
    print(f"\n{table(run.samples, missing)}", end="")
    result = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}{'-quick' if arguments.quick else ''}.json"
    about = {"rounds": count, "seconds": seconds, "folder": arguments.folder}
    write_json(result, run.samples, missing, about)
    print(f"\nall samples: {result}")
    return 1 if run.failed else 0


def _missing(*programs: str) -> str:
    """For want of what it can't be done, and where that is to be had; empty if all is there."""
    missing = [name for name in programs if program(name) is None]
    if not missing:
        return ""
    packages = " ".join(PACKAGES.get(name, name) for name in missing)
    return f"for want of {', '.join(missing)} (Debian: apt-get install {packages})"


def _left_out(
    servers: Sequence[Server], scenarios: Sequence[Scenario]
) -> dict[tuple[str, str], str]:
    """What is not measured, by names of scenario and server, and why."""
    found = {}
    for server in servers:
        for scenario in scenarios:
            why = _missing(*server.programs) or server.lacks.get(scenario.needs, "")
            if not why and scenario.tls:
                why = _missing("openssl")
            if why:
                found[scenario.name, server.name] = why
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round: good for a smoke test, not figures"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default: 5)")
    parser.add_argument("--seconds", type=int, default=4, help="length of each round (default: 4)")
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
