"""What was measured, as a table for people and as JSON for later."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.scenarios import SCENARIOS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.measure import Sample

_HEAD = ("", "requests/s", "ratio", "CPU us/request", "ratio", "p50 ms", "p99 ms", "spread")


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of one scenario's rounds on one server; ratios are to the first server's."""

    scenario: str
    server: str
    per_second: float
    per_second_ratio: float
    cpu_us: float
    cpu_ratio: float
    p50_ms: float
    p99_ms: float
    spread: float
    """How far apart the rounds' requests/s are: (most - least) / median."""


def summary(samples: Sequence[Sample]) -> list[Row]:
    """A row for each scenario and server, in the order of the samples."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.scenario, sample.server), []).append(sample)
    rows: list[Row] = []
    first: dict[str, tuple[float, float]] = {}
    for (scenario, server), group in groups.items():
        rates = [sample.per_second for sample in group]
        rate, cpu = median(rates), median(sample.cpu_us for sample in group)
        first_rate, first_cpu = first.setdefault(scenario, (rate, cpu))
        rows.append(
            Row(
                scenario=scenario,
                server=server,
                per_second=rate,
                per_second_ratio=rate / first_rate,
                cpu_us=cpu,
                cpu_ratio=cpu / first_cpu if first_cpu else 0.0,
                p50_ms=median(sample.p50_ms for sample in group),
                p99_ms=median(sample.p99_ms for sample in group),
                spread=(max(rates) - min(rates)) / rate,
            )
        )
    return rows


def table(rows: Iterable[Row]) -> str:
    """The rows, below a line for each scenario."""
    titles = {scenario.name: scenario.title for scenario in SCENARIOS}
    lines: list[Sequence[str]] = [_HEAD]
    last = ""
    for row in rows:
        if row.scenario != last:
            last = row.scenario
            lines += [(), (f"{row.scenario}: {titles.get(row.scenario, '')}",)]
        lines.append(
            (
                f"  {row.server}",
                f"{row.per_second:,.0f}",
                f"{row.per_second_ratio:.2f}",
                f"{row.cpu_us:.1f}",
                f"{row.cpu_ratio:.2f}",
                f"{row.p50_ms:.2f}",
                f"{row.p99_ms:.2f}",
                f"{row.spread:.0%}",
            )
        )
    return "\n".join(map(_line, lines)) + "\n"


def _line(cells: Sequence[str]) -> str:
    if len(cells) < 2:
        return "".join(cells)
    name, *numbers = cells
    return f"{name:<14}" + "".join(f"{number:>16}" for number in numbers)


def machine() -> dict[str, Any]:
    """What the figures hang on."""
    found = {"python": platform.python_version(), "kernel": platform.release(), "cpu": ""}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            found["cpu"] = line.partition(":")[2].strip()
            break
    return found


def write_json(path: Path, samples: Sequence[Sample], about: dict[str, Any]) -> None:
    """All samples, and the summary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {
        **about,
        "machine": machine(),
        "summary": [asdict(row) for row in summary(samples)],
        "samples": [asdict(sample) for sample in samples],
    }
    path.write_text(json.dumps(whole, indent=1) + "\n")
