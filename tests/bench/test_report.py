"""What the benchmark makes of its samples. Nothing is timed here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.load import told
from bench.measure import Sample
from bench.processes import BenchError
from bench.report import summary, table, write_json

if TYPE_CHECKING:
    from pathlib import Path


def sample(
    server: str, per_second: float, cpu_us: float, scenario: str = "hit", p99_ms: float = 2.0
) -> Sample:
    return Sample(scenario, server, 1000, per_second, cpu_us, 1.0, p99_ms, 0.0)


SAMPLES = [
    sample("nginx", 100.0, 10.0),
    sample("varnish", 120.0, 22.0),
    sample("edgeproxy", 40.0, 30.0),
    sample("edgeproxy", 50.0, 20.0),
    sample("nginx", 300.0, 12.0),
    sample("edgeproxy", 80.0, 44.0, "tls"),
    sample("nginx", 200.0, 11.0),
    sample("edgeproxy", 60.0, 22.0),
    sample("edgeproxy", 80.0, 44.0, "calm", p99_ms=4.0),
    sample("edgeproxy", 80.0, 99.0, "slow-misses", p99_ms=6.0),
]
LEFT_OUT = {("tls", "varnish"): "it has no TLS", ("vary", "squid"): "for want of squid"}


def test_rows_are_medians_with_ratios_above_1_for_the_faster() -> None:
    nginx, varnish, edge, tls, _, _ = summary(SAMPLES)
    assert (nginx.server, nginx.per_second, nginx.cpu_us, nginx.spread) == ("nginx", 200, 11, 1.0)
    assert (varnish.per_second_ratios["nginx"], varnish.cpu_ratios["nginx"]) == (0.6, 0.5)
    assert (edge.server, edge.per_second, edge.cpu_us) == ("edgeproxy", 50, 22)
    assert edge.per_second_ratios == {"nginx": 0.25, "varnish": pytest.approx(50 / 120)}
    assert edge.cpu_ratios == {"nginx": 0.5, "varnish": 1.0}
    assert (tls.scenario, tls.cpu_ratios) == ("tls", {})


def test_scenarios_are_compared_with_others_of_the_same_server() -> None:
    rows = {(row.scenario, row.server): row.compared for row in summary(SAMPLES)}
    assert rows["tls", "edgeproxy"] == 2.0  # processor time
    assert rows["slow-misses", "edgeproxy"] == 1.5  # the 99th percentile
    assert rows["hit", "edgeproxy"] is None


def test_the_table_has_a_line_for_each_row_under_its_scenario() -> None:
    lines = table(SAMPLES, LEFT_OUT).splitlines()
    hit = next(number for number, line in enumerate(lines) if line.startswith("hit: hits"))
    assert lines[hit + 1].split()[:7] == ["nginx", "200", "1.00", "1.67", "11.0", "1.00", "2.00"]
    assert lines[hit + 3].split()[:7] == ["edgeproxy", "50", "0.25", "0.42", "22.0", "0.50", "1.00"]
    tls = next(number for number, line in enumerate(lines) if line.startswith("tls: "))
    assert tls > hit
    assert lines[tls + 1].split()[:4] == ["edgeproxy", "80", "-", "-"]


def test_the_table_says_what_was_left_out_and_why() -> None:
    text = table(SAMPLES, LEFT_OUT)
    assert "  varnish       not measured: it has no TLS\n" in text
    assert "\nvary: hits that vary by Accept-Encoding" in text
    assert "  squid         not measured: for want of squid\n" in text


def test_beside_another_load_no_processor_time_is_told() -> None:
    line = next(
        line
        for line in table(SAMPLES, {}).partition("slow-misses:")[2].splitlines()
        if line.startswith("  edgeproxy")
    )
    assert line.split()[2:7] == ["-"] * 5


def test_the_json_has_all_samples_the_summary_and_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "results" / "x.json"
    write_json(path, SAMPLES, LEFT_OUT, {"rounds": 3})
    found = json.loads(path.read_text())
    assert found["rounds"] == 3
    assert len(found["samples"]) == len(SAMPLES)
    assert found["summary"][1]["per_second_ratios"]["nginx"] == 0.6
    assert found["left_out"][0] == {"scenario": "tls", "server": "varnish", "why": "it has no TLS"}
    assert found["machine"]["python"]


def test_the_last_line_of_a_load_is_read() -> None:
    line = '{"requests":5,"microseconds":2e6,"bytes":9,"failed":1,"p50_us":7,"p99_us":8,"cpu":0.5}'
    read = told(f"Running 1s test\n\n{line}\n")
    assert (read.requests, read.seconds, read.failed, read.p50_ms) == (5, 2.0, 1, 0.007)
    with pytest.raises(BenchError, match="unable to connect"):
        told("", "unable to connect to 127.0.0.1\n")
