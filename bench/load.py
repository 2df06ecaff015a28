"""One load on one server: wrk, or pull.py."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.processes import BenchError, Running, pinned

if TYPE_CHECKING:
    from bench.scenarios import Scenario

LUA = Path(__file__).with_name("load.lua")
PULL = Path(__file__).with_name("pull.py")


@dataclass(frozen=True, slots=True)
class Told:
    """What a load tells of itself."""

    requests: int
    seconds: float
    bytes: float
    failed: int
    p50_ms: float
    p99_ms: float
    cpu_seconds: float
    """Its own processor time."""


class Load:
    """A load that runs from here on."""

    def __init__(
        self,
        server: Running,
        scenario: Scenario,
        requests: Path,
        run: str,
        seconds: int,
        core: int | None,
    ) -> None:
        command = _command(server, scenario, requests, run, seconds)
        self._process = subprocess.Popen(
            command if core is None else pinned(command, core),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self) -> Told:
        """Wait until its time is over. Raises BenchError if it failed."""
        try:
            output, errors = self._process.communicate()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return told(output, errors)

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.communicate()


def _command(
    server: Running, scenario: Scenario, requests: Path, run: str, seconds: int
) -> list[str]:
    count = str(scenario.connections)
    if scenario.load == "pull":
        where = ["127.0.0.1", str(server.port)]
        return [sys.executable, str(PULL), *where, count, str(seconds), str(requests)]
    url = f"http://127.0.0.1:{server.port}"
    if scenario.tls:
        url = f"https://127.0.0.1:{server.tls_port}"
    command = ["wrk", "-t1", f"-c{count}", f"-d{seconds}s", "-s", str(LUA), url, "--"]
    return [*command, str(requests), run, str(scenario.pause_ms)]


def told(output: str, errors: str = "") -> Told:
    """From the line of JSON that a load ends with. Raises BenchError if there is none."""
    line = output.rstrip().rpartition("\n")[2]
    if not line.startswith("{"):
        raise BenchError(f"the load failed:\n{output}{errors}")
    found: dict[str, Any] = json.loads(line)
    return Told(
        requests=found["requests"],
        seconds=found["microseconds"] / 1e6,
        bytes=found["bytes"],
        failed=found["failed"],
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
        cpu_seconds=found["cpu"],
    )
