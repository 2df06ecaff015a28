"""The commands that call an edge, against one that runs: what they print, and how they exit."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.cli.main import main
from tests.kit import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import StartEdge
    from tests.kit import EdgeProcess, ScriptedOrigin

HOUR = "max-age=3600, stale-while-revalidate=3600"


@dataclass
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The cells of a table, without its titles."""
        return [line.split() for line in self.out.splitlines()[1:]]


@dataclass
class Shell:
    """Runs commands for one edge, as a shell whose environment names it would."""

    edge: EdgeProcess
    capsys: pytest.CaptureFixture[str]

    async def __call__(self, *words: str) -> Done:
        try:
            status = await asyncio.to_thread(main, words)
        except SystemExit as end:
            status = int(str(end.code))
        return Done(status, *self.capsys.readouterr())

    async def json(self, *words: str) -> Any:
        done = await self(*words, "--json")
        assert (done.status, done.err) == (0, "")
        return json.loads(done.out)


@pytest.fixture
async def shell(
    origin: ScriptedOrigin,
    start_edge: StartEdge,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Shell]:
    """An edge with /a and /b stored, whose tags are home and a, and home."""
    for target, tags in (("/a", "home, a"), ("/b", "home")):
        fields = {"Cache-Control": HOUR, "Content-Type": "text/html", "Cache-Tag": tags}
        origin.route(target, Answer(200, fields, b"x" * 2000))
    edge = await start_edge(origin)
    for target in ("/a", "/b"):
        assert (await edge.get(target)).status == 200
    monkeypatch.setenv("EDGEPROXY_ADMIN_URL", edge.admin_url)
    monkeypatch.setenv("EDGEPROXY_ADMIN_TOKEN", edge.token)
    yield Shell(edge, capsys)


async def test_purging_and_looking(shell: Shell, origin: ScriptedOrigin) -> None:
    url = shell.edge.url
    tags = await shell("tags")
    assert tags.rows == [["2", "default", "home"], ["1", "default", "a"]]
    assert await shell.json("tags", "--prefix", "a") == [
        {"site": "default", "tag": "a", "count": 1}
    ]

    dry = await shell("purge", "--tag", "home", "--dry-run", "--delete")
    assert (dry.status, dry.out) == (0, "would have deleted 2 stored responses\n")
    purged = await shell("purge", "--url", f"{url}/a")
    assert purged.out.startswith("invalidated 1 stored response (position 1, id ")

    entries = await shell("entries", "--tag", "home")
    assert sorted((row[0], row[1], row[-2:]) for row in entries.rows) == [
        ("hit", "200", [f"{url}/b", "home"]),
        ("stale", "200", ["a,", "home"]),
    ]
    assert len(await shell.json("entries", "--limit", "1")) == 1
    (one,) = await shell.json("entries", "--url", "/a")
    assert one["url"] == f"{url}/a"

    told = await shell("explain", f"{url}/a")
    assert told.out.startswith(
        f"GET {url}/a: stale\n"
        "  why: invalidated at position 1, within its grace: served, and refreshed behind it\n"
        "  Cache-Status: edgeproxy; hit; ttl=3"
    )
    missed = await shell.json("explain", f"{url}/c", "--method", "HEAD", "--field", "X-Y: z")
    assert (missed["result"], missed["method"], missed["entry"]) == ("miss", "HEAD", None)

    deleted = await shell.json(
        "purge", "--prefix", "/a", "--glob", "/b*", "--deadline", "60", "--site", "*"
    )
    assert (deleted["mode"], deleted["matched"], deleted["deadline"]) == ("delete", 2, 60)

    journal = await shell("journal")
    assert [(row[0], row[3], row[6], row[7]) for row in journal.rows] == [
        ("2", "kit", "delete", "2"),
        ("1", "kit", "invalidate", "1"),
    ]
    assert journal.rows[0][8:] == ["default:", "prefix=/a;", "default:", r"pattern=^\/b[^/]*$"]
    (newest,) = await shell.json("journal", "--limit", "1")
    assert (newest["position"], newest["dialect"]) == (2, "edgeproxy")

    status = await shell("status")
    assert "store: lmdb, 2 responses" in status.out
    assert "journal: at 2" in status.out
    assert status.rows[-1] == ["default", "preview", "0", "-"]


async def test_jobs(shell: Shell, origin: ScriptedOrigin) -> None:
    assert (await shell("jobs")).rows == []
    purged = await shell("purge", "--everything", "--refresh")
    job = purged.out.split()[-1]
    while (found := await shell.json("jobs", job))["state"] == "running":
        await asyncio.sleep(0.02)
    assert (found["done"], found["total"], found["actor"]) == (2, 2, "kit")
    (row,) = (await shell("jobs")).rows
    assert row[:5] == [job, "done", "2", "0", "2"]
    assert (await shell("jobs", job, "--cancel")).status == 0
    missing = await shell("jobs", "nothing")
    assert (missing.status, missing.err) == (1, "edgeproxy: 404: there is no such job\n")


async def test_following_the_journal(shell: Shell) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    follower = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgeproxy", "journal", "--follow", "--json"),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert follower.stdout is not None
    try:
        async with asyncio.timeout(30):
            while (await shell.json("status"))["streams"] == 0:
                await asyncio.sleep(0.05)
            await shell.edge.purge(tags=["first"])
            await shell.edge.purge(tags=["second"], mode="delete")
            lines = [json.loads(await follower.stdout.readline()) for _ in range(2)]
    finally:
        follower.kill()
        await follower.wait()
    assert [(line["position"], line["selectors"][0]["tag"]) for line in lines] == [
        (1, "first"),
        (2, "second"),
    ]


async def test_what_goes_wrong_is_told_with_a_status_of_its_own(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = await shell("purge", "--pattern", "(", "--tag", "a")
    assert wrong.status == 1
    assert wrong.err.splitlines()[0] == "edgeproxy: 400: invalid: patterns[0]"
    assert wrong.err.splitlines()[1].startswith("  patterns[0]: '(' is not an RE2 expression")
    assert (wrong.out, (await shell.json("journal"))) == ("", [])

    secret = tmp_path / "token"
    secret.write_text("somebody-else's\n")
    stranger = await shell("status", "--token-file", str(secret))
    assert stranger.status == 1
    assert stranger.err == ("edgeproxy: 401: the token is not known (is the token right?)\n")
    secret.write_text(f"{shell.edge.token}\n")
    monkeypatch.delenv("EDGEPROXY_ADMIN_TOKEN")
    assert (await shell("status", "--token-file", str(secret))).status == 0
    none = await shell("status")
    assert (none.status, none.err) == (
        2,
        "edgeproxy: there is no token: set EDGEPROXY_ADMIN_TOKEN, or give --token-file FILE\n",
    )
    options = ("--token-file", str(secret), "--admin")
    refused = await shell("status", *options, "http://127.0.0.1:1")
    assert (refused.status, refused.err) == (
        3,
        "edgeproxy: no edge answers at http://127.0.0.1:1: Connection refused\n",
    )
    other = await shell("status", *options, shell.edge.url)
    assert other.status == 3
    assert "is no edgeproxy" in other.err
    assert (await shell("status", *options, "ftp://x")).status == 2
    for told in (wrong, stranger, none, refused, other):
        assert shell.edge.token not in told.out + told.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["purge"], "say what to purge"),
        (["purge", "--site", "shop"], "say what to purge"),
        (["purge", "--tag", "a", "--mode", "invalidate", "--delete"], "do not go with"),
        (["purge", "--tag", "a", "--mode", "soft"], "invalid choice"),
        (["purge", "--tag", "a", "--token", "secret"], "unrecognized arguments"),
        (["explain"], "URL"),
        (["explain", "http://e.test/", "--field", "x"], "'NAME: VALUE'"),
        (["jobs", "--cancel"], "needs the ID"),
        (["entries", "--limit", "many"], "invalid int"),
    ],
)
def test_a_wrong_command_line_calls_nobody(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err
