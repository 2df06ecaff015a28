"""The one thread that writes to an index for its tier."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import lmdb

from edgeproxy.cache.disk import IndexFull, translated, warn
from edgeproxy.cache.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Concatenate, ParamSpec, TypeVar

    from edgeproxy.cache.disk import WriteWatch
    from edgeproxy.cache.index import Index, WriteTxn

    P = ParamSpec("P")
    T = TypeVar("T")

log = logging.getLogger(__name__)


class Writer:
    """Runs changes, each in a write transaction of its own, in the order in which they came."""

    def __init__(self, index: Index, watch: WriteWatch) -> None:
        self._index = index
        self._watch = watch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")

    def apply(
        self, change: Callable[Concatenate[WriteTxn, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do it here, in the calling thread. It waits for the node's other writers."""
        try:
            with translated(self._index.directory), self._index.writing() as txn:
                return change(txn, *args, **kwargs)
        except StoreError as error:
            if isinstance(error.__cause__, lmdb.Error) and not isinstance(error, IndexFull):
                self._watch.failed(error)
            raise

    async def write(
        self, change: Callable[Concatenate[WriteTxn, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do it in the thread. A caller that is cancelled does not stop it."""
        return await self.run(lambda: self.apply(change, *args, **kwargs))

    def submit(
        self, change: Callable[Concatenate[WriteTxn, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Have it done in the thread, with nobody waiting for it."""

        def run() -> None:
            try:
                self.apply(change, *args, **kwargs)
            except StoreError as error:
                warn(log, error, "the index was not changed: %s", error)

        self._thread.submit(run)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something else with the index in the thread."""

        def run() -> T:
            with translated(self._index.directory):
                return work(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def close(self) -> None:
        """Finish what has been submitted."""
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)
