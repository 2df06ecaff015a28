"""`edgeproxy demo`: a small shop, a real edge in front of it, and five lines to try."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from edgeproxy.cli.demo_lines import Places, lines
from edgeproxy.cli.demo_origin import Shop

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

HOST = "127.0.0.1"
PREFERRED_PORTS = {"edge": 8080, "admin": 8081, "shop": 9000}
WORKERS = 2
READY_WITHIN = 30.0

_DESCRIPTION = """\
Start a small shop and an edge in front of it, on ports of this machine that are free, and print
five lines for a shell that show what the edge does. Ctrl-C ends it all, and nothing is left.
"""


class DemoFailed(Exception):
    """The demo can't go on, or did not end well."""


class NotStarted(DemoFailed):
    """The edge did not start."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command has no flags of its own."""
    parser.description = _DESCRIPTION


def run(_: argparse.Namespace) -> int:
    """Run the demo until Ctrl-C: the exit status."""
    try:
        asyncio.run(_until_told())
    except DemoFailed as error:
        print(f"edgeproxy demo: {error}", file=sys.stderr)
        return 1
    return 0


async def _until_told() -> None:
    """Show the demo until a signal comes, and put it away."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    show = asyncio.create_task(_show())
    end = asyncio.create_task(told.wait())
    await asyncio.wait({show, end}, return_when=asyncio.FIRST_COMPLETED)
    # Another Ctrl-C while it ends finds the event set, and does no harm.
    show.cancel()
    end.cancel()
    try:
        await show
    except asyncio.CancelledError:
        pass
    except NotStarted:
        # Ctrl-C can reach the edge, too, before that has a session of its own.
        if not told.is_set():
            raise
    print("\nThe demo has ended.", flush=True)


async def _show() -> None:
    with tempfile.TemporaryDirectory(prefix="edgeproxy-demo-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            async with _alone():
                shop = await stack.enter_async_context(_shop())
                places, process = await stack.enter_async_context(_edge(shop, Path(folder)))
            print(introduction(places), flush=True)
            await process.wait()


@contextlib.asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    """While no other demo on the machine starts: both would find the same ports free."""
    with socket.socket(socket.AF_UNIX) as lock:
        while True:
            try:
                # An abstract name: it is free again when this process ends, however it does.
                lock.bind("\0edgeproxy-demo-starts")
                break
            except OSError:
                await asyncio.sleep(0.05)
        yield


@contextlib.asynccontextmanager
async def _shop() -> AsyncIterator[str]:
    runner = web.AppRunner(Shop().app(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        port = choose_port(PREFERRED_PORTS["shop"])
        await web.TCPSite(runner, HOST, port).start()
        yield f"http://{HOST}:{port}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _edge(
    shop: str, folder: Path
) -> AsyncIterator[tuple[Places, asyncio.subprocess.Process]]:
    public, admin = (f"{HOST}:{choose_port(PREFERRED_PORTS[name])}" for name in ("edge", "admin"))
    token = secrets.token_hex(8)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgeproxy", "serve", "--origin", shop),
        *("--listen", public, "--admin", admin, "--workers", str(WORKERS)),
        *("--store", f"lmdb:{folder / 'store'}"),
        stdin=asyncio.subprocess.DEVNULL,
        env={
            **os.environ,
            "EDGEPROXY_ADMIN_TOKEN": token,
            "XDG_RUNTIME_DIR": str(folder),  # so that all it leaves goes with the folder
        },
        start_new_session=True,  # Ctrl-C is for this process, which then ends the edge in order
    )
    ready = False
    try:
        await _ready(f"http://{admin}/readyz", process)
        ready = True
        yield Places(f"http://{public}", f"http://{admin}", shop, token), process
    finally:
        asked = process.returncode is None
        if asked:
            process.terminate()
        status = await process.wait()
        if ready and not (asked and status == 0):
            raise DemoFailed(f"the edge ended {'' if asked else 'by itself '}with status {status}")


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
        raise NotStarted(f"the edge is not ready after {READY_WITHIN:.0f} s") from None
    raise NotStarted("the edge did not start; it says why above")


def introduction(places: Places) -> str:
    """What the demo prints once all is up."""
    parts = [
        "A small shop, and edgeproxy in front of it with"
        f" {WORKERS} workers, which log each request here:",
        f"  through the edge  {places.edge}/\n"
        f"  the shop itself   {places.shop}/\n"
        f"  the admin port    {places.admin}/   token {places.token}",
        "Five lines to paste into another terminal, in any order:",
    ]
    for number, line in enumerate(lines(places), 1):
        text = "\n".join(textwrap.wrap(f"{line.look}.", width=92, break_on_hyphens=False))
        parts.append(f"{number}. {line.title}\n{textwrap.indent(text, '   ')}\n\n   {line.command}")
    return "\n" + "\n\n".join([*parts, "Ctrl-C ends it all."]) + "\n"


def choose_port(preferred: int) -> int:
    """That port if nobody has it, else any free one."""
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            chosen: int = probe.getsockname()[1]
            return chosen
    raise DemoFailed("no free port")
