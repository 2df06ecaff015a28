"""Edges that many tests share, each as if it were its own: with an origin and a host of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from .edge import EdgeProcess
from .ports import PortLease

Result = TypeVar("Result")

_VISITS = count()


class SharedEdge:
    """A running edge in front of whatever origin listens at `origin_port`.

    It lives in the event loop of a thread of its own: those of the tests come and go.
    """

    def __init__(self, process: EdgeProcess, origin_port: int) -> None:
        self._process = process
        self.origin_port = origin_port

    async def visit(self) -> EdgeProcess:
        """The edge with nothing stored, and by a host that nobody has asked for. It is to be asked
        only: whoever stops it, or waits for its log, takes one of his own."""
        await self._process.purge(everything=True, mode="delete")
        return self._process.at(f"test-{next(_VISITS)}.example")


@contextmanager
def shared_edge(folder: Path, *, workers: int) -> Iterator[SharedEdge]:
    """Run one until the block is left; it must then exit 0 without a traceback."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(what: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(what, loop).result()

    try:
        with PortLease() as origin:
            process = EdgeProcess(folder, origin=f"http://127.0.0.1:{origin.port}", workers=workers)
            run(process.__aenter__())
            yield SharedEdge(process, origin.port)
            run(process.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
