"""The benchmark's servers: that their configurations are good, and what happens without them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.scenarios import SCENARIOS
from bench.servers import ORIGIN, SERVERS, Place, Server, program
from edgeproxy.config.describe import warnings
from edgeproxy.config.load import load_config

(EDGE,) = (server for server in SERVERS if server.name == "edgeproxy")
ROOT = Path(__file__).parents[2]


def place(folder: Path) -> Place:
    return Place(folder, port=18001, origin=18002, spare_port=18003)


def test_edgeproxy_is_given_a_good_configuration(tmp_path: Path) -> None:
    command = EDGE.launch(place(tmp_path)).command
    config = load_config(command[command.index("--config") + 1])
    assert warnings(config) == []
    assert (config.worker_count(), config.log.access) == (1, "off")
    assert str(config.sites["shop"].origins[0].url) == "http://127.0.0.1:18002"


@pytest.mark.parametrize(
    ("setup", "workers", "memory"), [("store-only", 1, 1), ("two-workers", 2, 48 << 20)]
)
def test_edgeproxy_s_other_setups(setup: str, workers: int, memory: int, tmp_path: Path) -> None:
    assert setup in EDGE.setups
    command = EDGE.launch(replace(place(tmp_path), setup=setup)).command
    config = load_config(command[command.index("--config") + 1])
    assert (config.worker_count(), config.memory.max_bytes) == (workers, memory)


@pytest.mark.skipif(program("nginx") is None, reason="nginx is not installed")
@pytest.mark.parametrize("server", [ORIGIN, SERVERS[0]], ids=lambda server: server.name)
def test_nginx_is_given_a_good_configuration(server: Server, tmp_path: Path) -> None:
    launch = server.launch(place(tmp_path))
    done = subprocess.run([*launch.command, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_without_the_programs_it_says_so_and_fails_only_in_ci(ci: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick"],
        cwd=ROOT,
        env={**os.environ, "PATH": "/nowhere", "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert "nothing is measured, for want of" in done.stderr
    assert "apt-get install" in done.stderr
    assert "wrk" in done.stderr


def test_the_origin_has_all_pages_that_scenarios_ask_for(tmp_path: Path) -> None:
    ORIGIN.launch(place(tmp_path))
    loads = [*SCENARIOS, *(scenario.beside for scenario in SCENARIOS if scenario.beside)]
    elsewhere = {"/vary/": "page", "/private/": "small"}
    for load in loads:
        folder = tmp_path / elsewhere.get(load.path, load.path.strip("/"))
        if load.path != "/slow/":
            assert all((folder / str(page)).stat().st_size for page in range(load.pages))
    assert {load.path for load in loads} >= {"/page/", "/slow/", "/second/", "/100mb/"}
