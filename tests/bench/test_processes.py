"""Processes that the benchmark starts: what they cost, and that they end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from bench.processes import BenchError, Running
from bench.servers import Launch, Place, Server, program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(program("setpriv") is None, reason="setpriv is not installed")

SERVE = """
import os, sys, time, http.server
if os.fork() == 0:
    while time.process_time() < 0.2: pass
    os._exit(0)
os.wait()
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""


def serve(place: Place) -> Launch:
    return Launch([sys.executable, "-c", SERVE, str(place.port)])


def fail(place: Place) -> Launch:
    return Launch([sys.executable, "-c", "raise SystemExit('no, thanks')"])


def test_the_processor_time_of_children_that_have_ended_counts(tmp_path: Path) -> None:
    with Running(Server("one", (), serve), tmp_path, None) as server:
        server.wait_until_ready("/")
        assert server.cpu_seconds() >= 0.2


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        Running(Server("one", (), fail), tmp_path, None) as server,
        pytest.raises(BenchError, match="one does not start:\nno, thanks"),
    ):
        server.wait_until_ready("/")


def test_nothing_answers_once_it_has_ended(tmp_path: Path) -> None:
    with Running(Server("one", (), serve), tmp_path, None) as server:
        server.wait_until_ready("/")
    with pytest.raises(ConnectionRefusedError):
        server.get("/")
