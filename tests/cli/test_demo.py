"""`edgeproxy demo` as a user has it: a process, a shell with curl, Ctrl-C."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from edgeproxy.cli.demo import choose_port
from edgeproxy.cli.demo_origin import SLOW_SECONDS
from tests.kit.edge import children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHOWN = "Ctrl-C ends it all."
SHOWN_WITHIN = 60.0
GONE_WITHIN = 30.0

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Demo:
    """A demo in a session of its own, whose output goes to a file; `folder` is its TMPDIR."""

    def __init__(self, folder: Path) -> None:
        # Not below pytest's folder: the paths of Unix sockets must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="demo-"))
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edgeproxy", "demo"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "TMPDIR": str(self.folder)},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for pid in reversed(self.pids()):
            os.kill(pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self.folder)

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def pids(self) -> list[int]:
        """The demo and all below it; none once it has ended."""
        if self._process.poll() is not None:
            return []
        return tree(self._process.pid)

    def wait_for(self, there: Callable[[], object]) -> None:
        give_up = time.monotonic() + SHOWN_WITHIN
        while not there():
            assert self._process.poll() is None, self.output
            assert time.monotonic() < give_up, self.output
            time.sleep(0.02)

    def lines(self) -> dict[str, str]:
        """What it prints to be tried: the commands by their titles."""
        found = re.findall(r"^\d\. (.+)\n(?:.+\n)+\n   (\S.+)$", self.output, re.MULTILINE)
        return dict(found)

    def interrupt(self) -> int:
        """Ctrl-C, as the terminal sends it: to the whole process group. The exit status."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self._process.wait(GONE_WITHIN)


def tree(pid: int) -> list[int]:
    return [pid, *(below for child in children(pid) for below in tree(child))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with Demo(tmp_path_factory.mktemp("demo")) as running:
        running.wait_for(lambda: SHOWN in running.output)
        yield running


@dataclass(frozen=True)
class Answer:
    """A response as `curl -i` prints it."""

    status: int
    fields: dict[str, str]
    text: str
    """The body, and what came after it."""

    @property
    def cache_status(self) -> str:
        return self.fields["cache-status"]

    @property
    def render(self) -> int:
        """Which of the shop's renders it is."""
        found = re.search(r"render (\d+)", self.text)
        assert found, self.text
        return int(found[1])


def answers(output: str) -> list[Answer]:
    """The responses in what one or more `curl -i` printed; what comes before the first is left."""
    found = []
    for part in re.split(r"^(?=HTTP/1\.1 \d{3})", output, flags=re.MULTILINE)[1:]:
        head, _, text = part.replace("\r\n", "\n").partition("\n\n")
        status, *fields = head.split("\n")
        pairs = (line.partition(":") for line in fields)
        by_name = {name.lower(): value.strip() for name, _, value in pairs}
        found.append(Answer(int(status.split()[1]), by_name, text))
    return found


def a_hit(output: str) -> None:
    first, second = answers(output)
    assert (first.status, second.status) == (200, 200)
    assert "; hit" in second.cache_status
    assert first.render == second.render


def a_purge_by_tag(output: str) -> None:
    told = re.search(r"now costs ([0-9.]+)\n", output)
    matched = re.search(r'"matched": ?(\d+)', output)
    (page,) = answers(output)
    assert told
    assert matched
    assert int(matched[1]) > 0
    assert "; hit" not in page.cache_status
    assert f"price: {told[1]}<" in page.text


def stale_while_revalidating(output: str) -> None:
    stale, fresh = answers(output)
    seconds = re.search(r"answered in ([0-9.]+) s", stale.text)
    assert seconds
    assert float(seconds[1]) < SLOW_SECONDS / 2
    assert "; hit" in stale.cache_status
    assert re.search(r"; ttl=-\d", stale.cache_status)
    assert "; hit" in fresh.cache_status
    assert not re.search(r"; ttl=-\d", fresh.cache_status)
    assert fresh.render > stale.render


def a_cb_url(output: str) -> None:
    first, second = answers(output)
    assert "; fwd=uri-miss" in first.cache_status
    assert "; hit" in second.cache_status
    assert first.render == second.render
    assert "asked for /products/3<" in first.text


def why_a_miss(output: str) -> None:
    (account,) = answers(output)
    assert "; fwd=" in account.cache_status
    assert "; stored" not in account.cache_status
    assert re.search(r"; detail=no-store|; fwd=bypass; .*detail=", account.cache_status)
    assert account.fields["cache-control"] == "private, no-store"
    assert '"entries":[]' in account.text


JUDGES = {
    "A hit": a_hit,
    "A purge by tag": a_purge_by_tag,
    "Stale while revalidating": stale_while_revalidating,
    "A cb: URL": a_cb_url,
    "Why a miss": why_a_miss,
}

ORDER = [*JUDGES, *reversed(JUDGES)]
"""Each line twice: once behind the others, once before them."""


@pytest.mark.parametrize("title", ORDER, ids=[f"{n}-{title}" for n, title in enumerate(ORDER, 1)])
def test_a_printed_line_does_what_it_says(demo: Demo, title: str) -> None:
    shell = subprocess.run(
        ["sh", "-c", demo.lines()[title]], capture_output=True, text=True, check=False
    )
    assert shell.stderr == ""
    try:
        JUDGES[title](shell.stdout)
    except AssertionError:
        print(shell.stdout)
        raise


def test_five_lines_are_printed(demo: Demo) -> None:
    assert list(demo.lines()) == list(JUDGES)


def test_a_second_demo_takes_other_ports_and_ctrl_c_leaves_nothing(
    demo: Demo, tmp_path: Path
) -> None:
    with Demo(tmp_path) as other:
        other.wait_for(lambda: SHOWN in other.output)
        pids = other.pids()
        assert len(pids) >= 4  # demo, supervisor, two workers
        assert not urls(demo.output) & urls(other.output)
        ports = [int(url.rpartition(":")[2]) for url in urls(other.output)]
        assert other.interrupt() == 0, other.output
        assert "Traceback" not in other.output
        assert list(other.folder.iterdir()) == []
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_ctrl_c_while_it_starts(tmp_path: Path) -> None:
    with Demo(tmp_path) as starting:
        starting.wait_for(lambda: len(starting.pids()) > 1)
        pids = starting.pids()
        assert starting.interrupt() == 0, starting.output
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def urls(output: str) -> set[str]:
    """Where a demo's three servers are."""
    return set(
        re.findall(
            r"^  (?:through the edge|the shop itself|the admin port) +(\S+)/", output, re.MULTILINE
        )
    )


def test_a_port_that_is_taken_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert choose_port(port) != port
    assert choose_port(port) == port
