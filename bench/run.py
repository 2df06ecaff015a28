"""A run: the servers that its scenarios need are started, checked, and measured in turn."""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench.measure import Bench
from bench.processes import BenchError, Running, make_certificate
from bench.servers import ORIGIN, SLOW_ORIGIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bench.measure import Sample
    from bench.scenarios import Scenario
    from bench.servers import Server

REQUESTS, QUICK_REQUESTS = 200_000, 20_000
"""Requests with fields of their own that are made beforehand."""


class Run:
    """What was measured, and what failed.

    `left_out`: the scenarios and servers, by name, that are not to be measured. `quick`: nothing
    is run in, and fewer requests differ.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        left_out: Mapping[tuple[str, str], str],
        folder: Path,
        cores: Sequence[int],
        count: int,
        seconds: int,
        *,
        quick: bool,
    ) -> None:
        self.samples: list[Sample] = []
        self.failed: dict[tuple[str, str], str] = {}
        """By names of scenario and server: why it could not be measured."""
        self._servers = servers
        self._left_out = left_out
        self._folder = folder
        self._cores = cores
        self._count = count
        self._seconds = seconds
        self._quick = quick

    def measure(self, scenarios: Sequence[Scenario]) -> None:
        """Measure scenarios that are compared with each other, on servers that start for them.

        In a round all of them have their turn on all servers; every second round goes backward.
        What slows the machine down for a while so slows all of them down alike.
        """
        own, other = self._cores[0], self._cores[-1]
        with ExitStack() as stack:
            at = self._folder / scenarios[0].name
            at.mkdir()
            stack.callback(shutil.rmtree, at)
            slow = stack.enter_context(Running(SLOW_ORIGIN, at, other))
            origin = stack.enter_context(Running(ORIGIN, at, other, slow.port))
            origin.wait_until_ready("/page/0")
            pairs = self._start(stack, scenarios, at, own, origin.port)
            requests = QUICK_REQUESTS if self._quick else REQUESTS
            bench = Bench([origin, slow], at, other, requests)
            for scenario, server in pairs:
                try:
                    server.wait_until_ready("/page/0")
                    bench.warm_up(server, scenario)
                    bench.check(server, scenario)
                    if not self._quick:
                        bench.try_out(server, scenario)
                except BenchError as error:
                    self._fail(scenario, server, error)
            for number in range(self._count):
                self._round(bench, pairs if number % 2 == 0 else reversed(pairs), f"{number}")

    def _start(
        self, stack: ExitStack, scenarios: Sequence[Scenario], at: Path, core: int, origin: int
    ) -> list[tuple[Scenario, Running]]:
        certificate = make_certificate(at)
        running: dict[tuple[str, str], Running] = {}
        pairs = []
        for scenario in scenarios:
            for server in self._servers:
                if (scenario.name, server.name) in self._left_out:
                    continue
                setup = scenario.setup if scenario.setup in server.setups else "plain"
                if (server.name, setup) not in running:
                    pinned_to = core if scenario.pinned else None
                    running[server.name, setup] = stack.enter_context(
                        Running(server, at, pinned_to, origin, setup, certificate)
                    )
                pairs.append((scenario, running[server.name, setup]))
        return pairs

    def _round(self, bench: Bench, pairs: Iterable[tuple[Scenario, Running]], run: str) -> None:
        for scenario, server in pairs:
            if (scenario.name, server.server.name) in self.failed:
                continue
            try:
                sample = bench.measure(server, scenario, run, self._seconds)
            except BenchError as error:
                self._fail(scenario, server, error)
                continue
            self.samples.append(sample)
            print(
                f"  {sample.scenario:<12}{sample.server:<14}{sample.per_second:>10,.0f}/s"
                f"{sample.cpu_us:>12,.1f} us",
                file=sys.stderr,
                flush=True,
            )

    def _fail(self, scenario: Scenario, server: Running, error: BenchError) -> None:
        print(f"bench: {scenario.name} on {server.server.name}: {error}", file=sys.stderr)
        self.failed[scenario.name, server.server.name] = str(error)
