"""`edgeproxy demo`: a small shop, a real edge in front of it, and five lines to try."""

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import aiohttp
from aiohttp import web

from .demo_lines import Attempt, Places, attempts
from .demo_origin import Shop

HOST = "127.0.0.1"
PREFERRED_PORTS = {"edge": 8080, "admin": 8081, "shop": 9000}
WORKERS = 2
READY_WITHIN = 30.0


class DemoFailed(Exception):
    """The edge of the demo did not start, or ended by itself."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own flags."""
    parser.add_argument(
        "--check",
        action="store_true",
        help="run the five lines, say whether each does what it says, and end (0 if all do)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo until Ctrl-C, or its check. The exit status."""
    try:
        return asyncio.run(_demo(check=arguments.check))
    except DemoFailed as error:
        print(f"edgeproxy demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


async def _demo(*, check: bool) -> int:
    ended = asyncio.Event()
    if not check:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
    with tempfile.TemporaryDirectory(prefix="edgeproxy-demo-") as folder:
        async with _shop() as shop, _edge(shop, Path(folder), quiet=check) as (places, process):
            lines = attempts(places)
            if check:
                return await _check(lines)
            print(introduction(places, lines), flush=True)
            await _first(ended.wait(), process.wait())
            if process.returncode is not None:
                raise DemoFailed("the edge has ended by itself")
            print("\nending ...", flush=True)
    return 0


@contextlib.asynccontextmanager
async def _shop() -> AsyncIterator[str]:
    runner = web.AppRunner(Shop().app(), access_log=None)
    await runner.setup()
    try:
        port = choose_port(PREFERRED_PORTS["shop"])
        await web.TCPSite(runner, HOST, port).start()
        yield f"http://{HOST}:{port}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _edge(
    shop: str, folder: Path, *, quiet: bool
) -> AsyncIterator[tuple[Places, asyncio.subprocess.Process]]:
    public, admin = (f"{HOST}:{choose_port(PREFERRED_PORTS[name])}" for name in ("edge", "admin"))
    token = secrets.token_hex(8)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgeproxy", "serve", "--origin", shop),
        *("--listen", public, "--admin", admin, "--workers", str(WORKERS)),
        *("--store", f"lmdb:{folder / 'store'}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL if quiet else None,
        env={**os.environ, "EDGEPROXY_ADMIN_TOKEN": token},
        start_new_session=True,  # Ctrl-C is for this process, which then ends the edge in order
    )
    try:
        await _ready(f"http://{admin}/readyz", process)
        yield Places(f"http://{public}", f"http://{admin}", shop, token), process
    finally:
        if process.returncode is None:
            process.terminate()
        status = await process.wait()
    if status != 0:
        raise DemoFailed(f"the edge ended with status {status}")


async def _ready(url: str, process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(READY_WITHIN), aiohttp.ClientSession() as session:
            while process.returncode is None:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(url) as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise DemoFailed(f"the edge is not ready after {READY_WITHIN:.0f} s") from None
    raise DemoFailed("the edge did not start; its own words are above")


async def _check(lines: list[Attempt]) -> int:
    failures = 0
    for number, line in enumerate(lines, 1):
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", line.command, stdout=asyncio.subprocess.PIPE
        )
        output = (await shell.communicate())[0].decode(errors="replace")
        faults = line.faults(output)
        failures += bool(faults)
        print(f"{'FAILED' if faults else 'ok':7}{number}. {line.title}", flush=True)
        if faults:
            print(f"       $ {line.command}\n{output}")
            print("".join(f"       not so: {fault}\n" for fault in faults), flush=True)
    return 1 if failures else 0


async def _first(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def introduction(places: Places, lines: list[Attempt]) -> str:
    """What the demo prints once all is up."""
    head = f"""
A small shop, and edgeproxy in front of it with {WORKERS} workers:

  through the edge  {places.edge}/
  the shop itself   {places.shop}/
  admin port        {places.admin}/  (token {places.token})

Five lines to paste into another terminal:
"""
    parts = [
        f"\n{number}. {line.title}: {line.look}\n\n  {line.command}\n"
        for number, line in enumerate(lines, 1)
    ]
    return head + "".join(parts) + "\nCtrl-C ends it all."


def choose_port(preferred: int) -> int:
    """That port if nobody has it, else any free one."""
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            chosen: int = probe.getsockname()[1]
            return chosen
    raise DemoFailed("no free port")
