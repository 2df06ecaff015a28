"""What the benchmark makes of its samples. Nothing is timed here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.measure import Sample, told_by_wrk
from bench.processes import BenchError
from bench.report import summary, table, write_json

if TYPE_CHECKING:
    from pathlib import Path


def sample(server: str, per_second: float, cpu_us: float, scenario: str = "hit") -> Sample:
    return Sample(scenario, server, 1000, per_second, cpu_us, 1.0, 2.0, 0.0)


SAMPLES = [
    sample("nginx", 100.0, 10.0),
    sample("edgeproxy", 40.0, 30.0),
    sample("edgeproxy", 50.0, 20.0),
    sample("nginx", 300.0, 12.0),
    sample("nginx", 200.0, 11.0),
    sample("edgeproxy", 60.0, 22.0),
    sample("edgeproxy", 80.0, 44.0, "pass"),
]


def test_rows_are_medians_with_ratios_to_the_first_server() -> None:
    nginx, edge, passes = summary(SAMPLES)
    assert (nginx.server, nginx.per_second, nginx.cpu_us, nginx.spread) == ("nginx", 200, 11, 1.0)
    assert (nginx.per_second_ratio, nginx.cpu_ratio) == (1.0, 1.0)
    assert (edge.server, edge.per_second, edge.cpu_us) == ("edgeproxy", 50, 22)
    assert (edge.per_second_ratio, edge.cpu_ratio) == (0.25, 2.0)
    assert (passes.scenario, passes.per_second_ratio) == ("pass", 1.0)


def test_the_table_has_a_line_for_each_row_under_its_scenario() -> None:
    lines = table(summary(SAMPLES)).splitlines()
    assert lines[0].split()[:2] == ["requests/s", "ratio"]
    hit = next(number for number, line in enumerate(lines) if line.startswith("hit: hits"))
    assert lines[hit + 1].split() == [
        "nginx",
        "200",
        "1.00",
        "11.0",
        "1.00",
        "1.00",
        "2.00",
        "100%",
    ]
    assert lines[hit + 2].split()[:3] == ["edgeproxy", "50", "0.25"]
    assert any(line.startswith("pass: ") for line in lines[hit + 3 :])


def test_the_json_has_all_samples_the_summary_and_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "results" / "x.json"
    write_json(path, SAMPLES, {"rounds": 3})
    found = json.loads(path.read_text())
    assert found["rounds"] == 3
    assert len(found["samples"]) == len(SAMPLES)
    assert found["summary"][1]["per_second_ratio"] == 0.25
    assert found["machine"]["python"]


def test_wrk_s_last_line_is_read() -> None:
    assert told_by_wrk('Running 1s test\n\n{"requests":5}\n') == {"requests": 5}
    with pytest.raises(BenchError, match="unable to connect"):
        told_by_wrk("", "unable to connect to 127.0.0.1\n")
