"""Measuring: that a scenario is what it says, and the rounds of it on all servers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.load import Load
from bench.processes import Answer, BenchError, OriginCount, Running
from bench.requests import ENCODINGS, HOST, fresh_url, read_requests, write_requests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.scenarios import Scenario

TOLERANCE = 0.02
"""How far the origin's share of the requests may be from the scenario's."""
CHECKED = 30
"""How many requests' answers are compared with the origin's."""
ATTEMPTS = 3
"""What a load leaves behind it may reach the origin late, and be taken for something else."""
SETTLES = 1.0
"""How long a load that is beside another one runs before that: seconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A round of a scenario on a server. Latencies are in milliseconds, as the load sees them."""

    scenario: str
    server: str
    requests: int
    per_second: float
    cpu_us: float
    """Processor time of the server's processes for a request, in microseconds."""
    p50_ms: float
    p99_ms: float
    origin_share: float
    origin_per_second: float = 0.0
    megabytes_per_second: float = 0.0
    load_core: float = 0.0
    """How busy load and origin had their core: near 1, only the processor time tells something."""


class Bench:
    """What is asked, and what is behind the servers.

    `requests`: how many are made beforehand where the fields of each are its own; a fourth of that
    elsewhere.
    """

    def __init__(self, origins: Sequence[Running], folder: Path, core: int, requests: int) -> None:
        self._origins = origins
        self._origin = origins[0]
        self._seen = OriginCount(self._origin)
        self._folder = folder
        self._core = core
        self._requests = requests
        self._etags: dict[str, str] = {}
        self._warm: set[tuple[Running, str, bool]] = set()

    def warm_up(self, server: Running, scenario: Scenario) -> None:
        """Let it see every page: what is to be a hit is then one."""
        for each in (scenario, scenario.beside):
            if each and not each.fresh_urls and (server, each.path, each.tls) not in self._warm:
                for encoding in ENCODINGS if each.varies else ENCODINGS[:1]:
                    paths = (f"{each.path}{page}" for page in range(each.pages))
                    server.get_all(paths, encoding, tls=each.tls)
                self._warm.add((server, each.path, each.tls))

    def check(self, server: Running, scenario: Scenario) -> None:
        """Raise BenchError if it doesn't answer as the origin does, or asks it when it should not.

        What is to be a hit must be one by now.
        """
        read = read_requests(self._file(scenario), CHECKED)
        chosen = list({request.partition(b"\r\n")[0]: request for request in read}.values())
        if scenario.fresh_urls:
            chosen = [fresh_url(request, f"check-{at}") for at, request in enumerate(chosen)]
        wanted = [self._origin.ask(request) for request in chosen]
        for _ in range(ATTEMPTS):
            seen = self._seen.settled()
            for request, want in zip(chosen, wanted, strict=True):
                self._compare(server.ask(request, tls=scenario.tls), want, request, scenario)
            asked = self._seen.settled() - seen
            # More than that are late ones of a load before this.
            if asked >= len(chosen) if scenario.origin_share else not asked:
                return
        raise BenchError(f"{len(chosen)} requests made {asked} at the origin")

    def _compare(self, got: Answer, want: Answer, request: bytes, scenario: Scenario) -> None:
        line = request.partition(b"\r\n")[0].decode()
        if got.status != scenario.status or want.status != scenario.status:
            raise BenchError(f"{line} is answered with {got.status}")
        if got.body != want.body or (scenario.method == "HEAD" and got.length != want.length):
            raise BenchError(f"{line} is not answered as the origin does")

    def try_out(self, server: Running, scenario: Scenario) -> None:
        """Let it have a second of this load."""
        self._load(server, scenario, "first", 1).end()

    def measure(self, server: Running, scenario: Scenario, run: str, seconds: int) -> Sample:
        """One round of a scenario on a server. Raises BenchError if it was not what it says."""
        if scenario.beside is None:
            sample = self._measure(server, scenario, run, seconds, settled=True)
            self._check_share(sample, scenario)
        else:
            beside = self._load(server, scenario.beside, run, seconds + 2 * round(SETTLES))
            try:
                time.sleep(SETTLES)
                sample = self._measure(server, scenario, run, seconds, settled=False)
            except BaseException:
                beside.kill()
                raise
            _check_failures(beside.end().failed)
        if scenario.fresh_urls:
            self._check_stored(server, scenario, run)
        return sample

    def _measure(
        self, server: Running, scenario: Scenario, run: str, seconds: int, *, settled: bool
    ) -> Sample:
        count = self._seen.settled if settled else self._seen.now
        seen, behind, cpu = count(), self._origins_cpu(), server.cpu_seconds()
        told = self._load(server, scenario, run, seconds).end()
        cpu, behind = server.cpu_seconds() - cpu, self._origins_cpu() - behind
        fetched = count() - seen
        _check_failures(told.failed if told.requests else 1)
        return Sample(
            scenario=scenario.name,
            server=server.server.name,
            requests=told.requests,
            per_second=told.requests / told.seconds,
            cpu_us=cpu / told.requests * 1e6,
            p50_ms=told.p50_ms,
            p99_ms=told.p99_ms,
            origin_share=fetched / told.requests,
            origin_per_second=fetched / told.seconds,
            megabytes_per_second=told.bytes / told.seconds / 1e6,
            load_core=(told.cpu_seconds + behind) / told.seconds,
        )

    def _check_share(self, sample: Sample, scenario: Scenario) -> None:
        # wrk's connections end with their last requests unanswered: the origin sees a few more.
        allowed = TOLERANCE + 2 * scenario.connections / sample.requests
        if abs(sample.origin_share - scenario.origin_share) > allowed:
            raise BenchError(
                f"the origin saw {sample.origin_share:.1%} of the requests, not"
                f" {scenario.origin_share:.0%}: that is not what was to be measured"
            )

    def _check_stored(self, server: Running, scenario: Scenario, run: str) -> None:
        """Raise BenchError if none of the early URLs that load.lua made is a hit by now."""
        read = read_requests(self._file(scenario), 2 * scenario.connections + ATTEMPTS)
        for number in range(2 * scenario.connections, len(read)):
            seen = self._seen.settled()
            server.ask(fresh_url(read[number], f"{run}-{number}"))
            if self._seen.settled() == seen:
                return
        raise BenchError("what was fetched is not stored")

    def _load(self, server: Running, scenario: Scenario, run: str, seconds: int) -> Load:
        requests = self._file(scenario)
        core = self._core if scenario.pinned else None
        return Load(server, scenario, requests, run if scenario.fresh_urls else "", seconds, core)

    def _file(self, scenario: Scenario) -> Path:
        path = self._folder / f"{scenario.name}.requests"
        if not path.exists():
            count = self._requests if scenario.distinct else self._requests // 4
            write_requests(scenario, path, count, self._validator)
        return path

    def _validator(self, target: str) -> str:
        if target not in self._etags:
            request = f"HEAD {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
            self._etags[target] = self._origin.ask(request).etag
        return self._etags[target]

    def _origins_cpu(self) -> float:
        return sum(origin.cpu_seconds() for origin in self._origins)


def _check_failures(failed: int) -> None:
    if failed:
        raise BenchError(f"{failed} requests failed")
