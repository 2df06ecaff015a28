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
    from collections.abc import Mapping, Sequence

    from bench.measure import Sample
    from bench.scenarios import Scenario

_SCENARIOS = {scenario.name: scenario for scenario in SCENARIOS}
_ORDER = list(_SCENARIOS)

_COLUMNS = (
    *("requests/s", "/nginx", "/varnish"),
    *("CPU us", "nginx/", "varnish/"),
    *("MB/s", "p50 ms", "p99 ms", "origin/s", "load core", "spread", "compared"),
)
_LEGEND = """\
Medians. Ratios are above 1 where a server is faster than nginx or Varnish: its requests/s by
theirs, their processor time for a request by its own (of all its processes). load core: how busy
the load and the origin have their core; near 100 % it is them that requests/s tell of, and
processor time is what counts. spread: between the rounds, of requests/s. compared: with the same
server in another scenario, the one that is named: processor time, or the 99th percentile.
"""
BASES = ("nginx", "varnish")


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of one scenario's rounds on one server."""

    scenario: str
    server: str
    per_second: float
    per_second_ratios: dict[str, float]
    """Its rate by that of each of `BASES` that was measured."""
    cpu_us: float
    cpu_ratios: dict[str, float]
    """The processor time that they take, by its own."""
    compared: float | None
    """Its cost by that in the scenario that this one is compared with."""
    megabytes_per_second: float
    p50_ms: float
    p99_ms: float
    origin_per_second: float
    load_core: float
    spread: float
    """How far apart the rounds' requests/s are: (most - least) / median."""


def summary(samples: Sequence[Sample]) -> list[Row]:
    """A row for each scenario and server, in the order of the scenarios and of the samples."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in sorted(samples, key=lambda each: _ORDER.index(each.scenario)):
        groups.setdefault((sample.scenario, sample.server), []).append(sample)

    def middle(key: tuple[str, str], what: str) -> float:
        return float(median(getattr(sample, what) for sample in groups[key]))

    rows: list[Row] = []
    for key in groups:
        scenario, server = key
        bases = {name: (scenario, name) for name in BASES if (scenario, name) in groups}
        rate, cpu = middle(key, "per_second"), middle(key, "cpu_us")
        rates = [sample.per_second for sample in groups[key]]
        by = "p99_ms" if _SCENARIOS[scenario].by == "p99" else "cpu_us"
        other = (_SCENARIOS[scenario].against, server)
        rows.append(
            Row(
                scenario=scenario,
                server=server,
                per_second=rate,
                per_second_ratios={
                    name: _ratio(rate, middle(base, "per_second")) for name, base in bases.items()
                },
                cpu_us=cpu,
                cpu_ratios={
                    name: _ratio(middle(base, "cpu_us"), cpu) for name, base in bases.items()
                },
                compared=_ratio(middle(key, by), middle(other, by)) if other in groups else None,
                megabytes_per_second=middle(key, "megabytes_per_second"),
                p50_ms=middle(key, "p50_ms"),
                p99_ms=middle(key, "p99_ms"),
                origin_per_second=middle(key, "origin_per_second"),
                load_core=middle(key, "load_core"),
                spread=_ratio(max(rates) - min(rates), rate),
            )
        )
    return rows


def _ratio(one: float, other: float) -> float:
    return one / other if other else 0.0


def table(samples: Sequence[Sample], left_out: Mapping[tuple[str, str], str]) -> str:
    """The rows, below a line for each scenario; after them what is left out, and why."""
    lines = [_LEGEND, _line("", _COLUMNS)]
    rows = summary(samples)
    for scenario in SCENARIOS:
        own = [row for row in rows if row.scenario == scenario.name]
        without = {at[1]: why for at, why in left_out.items() if at[0] == scenario.name}
        if not own and not without:
            continue
        compared = f" (compared: {scenario.by} of {scenario.against})" if scenario.against else ""
        lines += ["", f"{scenario.name}: {scenario.title}{compared}"]
        lines += [_line(f"  {row.server}", _cells(row, scenario)) for row in own]
        lines += [f"  {server:<14}not measured: {why}" for server, why in without.items()]
    return "\n".join(lines) + "\n"


def _cells(row: Row, scenario: Scenario) -> list[str]:
    # Beside another load, the server's processor time is that of both.
    cpu = ["-"] * 3
    if scenario.beside is None:
        ratios = [_shown(row.cpu_ratios.get(base)) for base in BASES]
        cpu = [f"{row.cpu_us:,.1f}", *ratios]
    return [
        f"{row.per_second:,.0f}",
        *(_shown(row.per_second_ratios.get(base)) for base in BASES),
        *cpu,
        f"{row.megabytes_per_second:,.0f}",
        f"{row.p50_ms:.2f}",
        f"{row.p99_ms:.2f}",
        f"{row.origin_per_second:,.0f}",
        f"{row.load_core:.0%}",
        f"{row.spread:.0%}",
        _shown(row.compared),
    ]


def _shown(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:<16}" + "".join(f"{cell:>11}" for cell in cells)


def machine() -> dict[str, Any]:
    """What the figures hang on."""
    found = {"python": platform.python_version(), "kernel": platform.release(), "cpu": ""}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            found["cpu"] = line.partition(":")[2].strip()
            break
    return found


def write_json(
    path: Path,
    samples: Sequence[Sample],
    left_out: Mapping[tuple[str, str], str],
    about: dict[str, Any],
) -> None:
    """All samples, the summary, and what was left out and why."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {
        **about,
        "machine": machine(),
        "summary": [asdict(row) for row in summary(samples)],
        "left_out": [
            {"scenario": scenario, "server": server, "why": why}
            for (scenario, server), why in left_out.items()
        ],
        "samples": [asdict(sample) for sample in samples],
    }
    path.write_text(json.dumps(whole, indent=1) + "\n")
