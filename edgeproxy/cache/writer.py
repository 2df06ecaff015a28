"""Who writes to an index for its tier: its one thread, or the event loop.

py-lmdb lets go of the interpreter's lock around each of its calls, and there are some twenty of
them to a stored response: a thread that stores while the loop is busy waits for its turn as often.
So what is stored for a request is stored by the loop, as long as nobody else writes and the disk
takes it at once; if not, by the thread, for which nobody has to wait but who wants it done.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

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


_TOGETHER: Final = 16
"""Most changes that the loop makes at a time: some milliseconds, if all their bodies are long."""
_SLOW: Final = 0.05
"""Seconds: what takes longer, a disk has held up."""
_SHY: Final = 1.0
"""Seconds for which the loop leaves it to the thread then."""


class Writer:
    """Runs changes, each in a write transaction of its own, in the order in which they came."""

    def __init__(self, index: Index, watch: WriteWatch) -> None:
        self._index = index
        self._watch = watch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        # What the thread was given to do, counted by the loop, and has done, counted by itself.
        self._given = 0
        self._done = 0
        self._joined: deque[tuple[Callable[[WriteTxn], Any], asyncio.Future[Any]]] = deque()
        self._shy_until = 0.0

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

    async def join(
        self, change: Callable[Concatenate[WriteTxn, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do it at once, or else in the thread; in one transaction with what others have done so at
        the same time. It has to be small, and may be begun twice, the first time in vain. A caller
        that is cancelled does not stop it."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[T] = loop.create_future()
        if not self._joined:
            loop.call_soon(self._do_joined)
        self._joined.append((lambda txn: change(txn, *args, **kwargs), told))
        return await told

    def _do_joined(self) -> None:
        count = min(len(self._joined), _TOGETHER)
        batch = [self._joined.popleft() for _ in range(count)]
        if self._joined:
            asyncio.get_running_loop().call_soon(self._do_joined)
        # What the thread has been given comes first.
        idle = self._given == self._done and monotonic() >= self._shy_until
        results = self._apply_at_once([work for work, _ in batch]) if idle else None
        if results is None:
            for work, told in batch:
                self._give(work, told)
            return
        for result, (_, told) in zip(results, batch, strict=True):
            if not told.done():
                told.set_result(result)

    def _apply_at_once(self, changes: list[Callable[[WriteTxn], Any]]) -> list[Any] | None:
        """What they give; None where nothing was changed."""
        begun = monotonic()
        try:
            with self._index.writing_at_once() as txn:
                if txn is None:
                    return None
                results = [change(txn) for change in changes]
        except Exception:
            # All of them are undone. In the thread each is made by itself: there it shows which of
            # them can't be, and why.
            return None
        took = monotonic()
        if took - begun > _SLOW:
            self._shy_until = took + _SHY
        return results

    def _give(self, change: Callable[[WriteTxn], Any], told: asyncio.Future[Any]) -> None:
        def tell(done: asyncio.Future[Any]) -> None:
            error = done.exception()
            if told.done():
                return
            if error is not None:
                told.set_exception(error)
            else:
                told.set_result(done.result())

        self._in_thread(lambda: self.apply(change)).add_done_callback(tell)

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, self._counted(work))

    def _counted(self, work: Callable[[], T]) -> Callable[[], T]:
        self._given += 1

        def run() -> T:
            try:
                return work()
            finally:
                self._done += 1

        return run

    def submit(
        self, change: Callable[Concatenate[WriteTxn, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Have it done in the thread, with nobody waiting for it."""

        def run() -> None:
            try:
                self.apply(change, *args, **kwargs)
            except StoreError as error:
                warn(log, error, "the index was not changed: %s", error)

        self._thread.submit(self._counted(run))

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something else with the index in the thread."""

        def run() -> T:
            with translated(self._index.directory):
                return work(*args, **kwargs)

        return await self._in_thread(run)

    async def close(self) -> None:
        """Finish what has been submitted."""
        while self._joined:
            self._do_joined()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)
