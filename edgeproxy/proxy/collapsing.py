"""Many requests for one key wait on, and are streamed, one fetch.

A `Flight` is one fetch in the air. What it brings is told as a frozen `Outcome`; if that is a
response that may be shared, its bytes go into a spool, and any number of readers follow it there,
each at its own pace. The fetch belongs to no reader: one that leaves doesn't end it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from edgeproxy.cache.disk import warn
from edgeproxy.cache.errors import StoreError
from edgeproxy.proxy.errors import EdgeError, ReaderTooSlow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from edgeproxy.cache.spool import Spool
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.selectors import Expected
    from edgeproxy.proxy.lookup import Found
    from edgeproxy.proxy.pool import OriginAnswer
    from edgeproxy.semantics.fields import Fields

log = logging.getLogger(__name__)

READ_SIZE = 256 * 1024
# How far a fetch that is too large to keep may run ahead of its slowest reader.
WINDOW_BYTES = 1024 * 1024
# A reader that takes nothing for so long no longer holds the others up.
SLOW_READER_SECONDS = 30.0
# A body that trickles is for those who have begun it; others had better ask once more.
TRICKLING_SECONDS = 30.0
TRICKLING_RATE = 250.0


class Shared(msgspec.Struct, frozen=True):
    """A response for everybody who asked: it follows in the flight's spool."""

    response: StoredResponse
    """As it will be stored; its body reference is not filled in yet."""
    content_length: int | None
    own_fields: Fields | None
    """For the request that caused the fetch: with what may not be stored (`private="..."`). None
    where another worker had it, or only a part of it came."""
    fwd_status: int | None = None
    """The status that the origin answered with, where it is not the response's."""
    judged: Found | None = None
    """The response with its freshness, where that is known."""


class Stored(msgspec.Struct, frozen=True):
    """What is stored now answers: a 304 freshened it (RFC 9111 4.3.4), or it has just come in."""

    response: StoredResponse
    fwd_status: int | None
    """The status that the origin answered with; None where another worker asked it."""


class Unshared(msgspec.Struct, frozen=True):
    """A response for the request alone that caused the fetch; the others go on in parallel."""

    answer: OriginAnswer | None
    """None where another worker had the fetch: it is not this worker's to pass on."""
    status: int
    detail: str
    """Why it may not be stored."""


Outcome: TypeAlias = Shared | Stored | Unshared


class Flight:
    """One fetch that is in the air.

    The producer calls `announce` once, then `append` for each chunk, and at last `land` or `fail`.
    """

    def __init__(
        self,
        spool: Spool,
        keep_bytes: int,
        expected: Expected,
        position: int,
        part: bytes | None = None,
    ) -> None:
        """`expected`: what is known of the response; `position`: the journal's, before it left;
        `part`: the Range that is asked for, None for the whole."""
        self.spool = spool
        self.part = part
        self.expected = expected
        self.position = position
        self.interims: list[tuple[int, bytes, Fields]] = []
        self.joinable = True
        self.left = False
        """The request to the origin is on its way: who joins now came after it."""
        self.followed = False
        """What it brings, another worker fetched."""
        self.detail: str | None = None
        """Which limit it met, for Cache-Status."""
        self.readers = 0
        """How many requests wait on it: the collapsing factor, and what a waiter limit bounds."""
        self._keep_bytes = keep_bytes
        self._outcome: Outcome | None = None
        self._announced_at = 0.0
        self._failure: EdgeError | None = None
        self._visible = 0
        self._landed = False
        # Those who wait for something to change.
        self._waiting: list[asyncio.Future[None]] = []
        self.outgrown = False
        """The body became too large to keep, or found no room; it is streamed, not stored."""
        # Past what the spool has, only the last chunks are there, for those who are reading.
        self._window: deque[bytes] = deque()
        self._window_start = 0
        self._window_bytes = 0
        self._offsets: dict[object, int] = {}
        self._left_behind: set[object] = set()
        self._watchers = 0
        self._hurried = False
        self._taken: asyncio.Event = asyncio.Event()

    # -- the producer's side

    def announce(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._announced_at = asyncio.get_running_loop().time()
        if isinstance(outcome, Unshared):
            self.joinable = False
        self._wake()

    def interim(self, status: int, reason: bytes, fields: Fields) -> None:
        """Hand on a 1xx response to those who wait."""
        self.interims.append((status, reason, fields))
        self._wake()

    async def append(self, chunk: bytes, *, hold_back: bool = False) -> bool:
        """Take a chunk in. False: nobody reads any more what can't be kept; give up.

        `hold_back` keeps the chunk from the readers until `land`: whoever has the last byte of a
        response may rely on its being stored, so that a purge that it sends next finds it.
        """
        if not self.outgrown and self.spool.size + len(chunk) <= self._keep_bytes:
            try:
                await self.spool.append(chunk)
            except StoreError as error:
                warn(log, error, "a response is passed on, and not stored: %s", error)
            else:
                if not hold_back:
                    self._visible = self.spool.size
                    self._wake()
                return True
        if not self.outgrown:
            self.outgrown = True
            self.joinable = False
            self._window_start = self._visible = self.spool.size
        self._window.append(chunk)
        self._window_bytes += len(chunk)
        self._visible += len(chunk)
        self._wake()
        return await self._room()

    def take_whole(self, body: bytes) -> bool:
        """Take all of a body in at once, to be read after `land`; False where it is too large."""
        return len(body) <= self._keep_bytes and self.spool.take_whole(body)

    @property
    def whole(self) -> bytes | None:
        """The body, where it is all there, and in one piece in memory."""
        return self.spool.whole if self._landed and not self.outgrown else None

    def land(self) -> None:
        """The body is whole."""
        if not self.outgrown:
            self._visible = self.spool.size
        self._landed = True
        self.joinable = False
        self._wake()

    def fail(self, error: EdgeError) -> None:
        """The fetch failed: before its outcome, or, worse, in the middle of its body."""
        self._failure = error
        self.joinable = False
        self._wake()

    async def disused(self) -> None:
        """Wait until nobody reads any more, then free what the body took."""
        if isinstance(self._outcome, Shared) and self.whole is not None:
            # It is freed with the flight.
            return
        while self.readers:
            await self._changed()
        await self.spool.close()

    def abandon(self) -> None:
        """Break off what the origin still sends, if nobody has taken it."""
        if isinstance(self._outcome, Unshared) and self._outcome.answer is not None:
            self._outcome.answer.response.abort()

    async def _room(self) -> bool:
        """Wait until the slowest reader is within the window."""
        while self._window_bytes > WINDOW_BYTES:
            self._trim()
            if self._window_bytes <= WINDOW_BYTES:
                break
            if not self._awaited():
                return False
            self._taken.clear()
            try:
                async with asyncio.timeout(SLOW_READER_SECONDS):
                    await self._taken.wait()
            except TimeoutError:
                self._leave_behind()
        return self._awaited()

    def _awaited(self) -> bool:
        return bool(self._offsets) or self._someone_is_to_begin()

    def _someone_is_to_begin(self) -> bool:
        """Whether a request that waits for the body has not begun, or gone on, to read it."""
        others = self._watchers + len(self._offsets) + len(self._left_behind)
        return not self._hurried and self.readers > others

    def _leave_behind(self) -> None:
        """Wait no longer for those who are the farthest behind."""
        if self._someone_is_to_begin():
            self._hurried = True
        else:
            slowest = min(self._offsets, key=lambda reader: self._offsets[reader])
            del self._offsets[slowest]
            self._left_behind.add(slowest)

    def _trim(self) -> None:
        if self._someone_is_to_begin():
            return
        slowest = min(self._offsets.values(), default=self._visible)
        while self._window and self._window_start + len(self._window[0]) <= slowest:
            chunk = self._window.popleft()
            self._window_start += len(chunk)
            self._window_bytes -= len(chunk)

    # -- the readers' side

    @property
    def trickles(self) -> bool:
        """Whether the origin has taken its time over a body for so long that it may never end."""
        if self._outcome is None:
            return False
        seconds = asyncio.get_running_loop().time() - self._announced_at
        return seconds > TRICKLING_SECONDS and self._visible < TRICKLING_RATE * seconds

    def nears(self, offset: int) -> bool:
        """Whether the byte at `offset` has come, or is so near that it can be waited for."""
        return offset <= self._visible + WINDOW_BYTES

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Be counted as one who waits, until the block is left."""
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1
            self._taken.set()
            if not self.readers:
                self._wake()

    async def outcome(
        self, on_interim: Callable[[int, bytes, Fields], Awaitable[None]] | None = None
    ) -> Outcome:
        """What the fetch brought; raises the `EdgeError` that it failed with.

        Even if that was in the middle of its body: who asks here has been sent nothing yet, and
        need not begin with what can't be whole.
        """
        told = 0
        while True:
            if on_interim is not None:
                while told < len(self.interims):
                    await on_interim(*self.interims[told])
                    told += 1
            if self._failure is not None:
                raise self._failure
            if self._outcome is not None:
                return self._outcome
            await self._changed()

    async def ended(self) -> None:
        """Wait for the end of the fetch; raises the `EdgeError` that it failed with.

        Whoever does reads nothing: a body that is too large to keep does not wait for it.
        """
        self._watchers += 1
        self._taken.set()
        try:
            while self._failure is None:
                if self._landed or isinstance(self._outcome, Stored | Unshared):
                    return
                await self._changed()
            raise self._failure
        finally:
            self._watchers -= 1

    async def read(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """The body's bytes from `start` up to `stop` (its end), as they come.

        Raises the `EdgeError` that cut it short: what was handed out is then not whole.
        """
        reader, offset = object(), start
        self._offsets[reader] = offset
        try:
            while stop is None or offset < stop:
                limit = self._visible - offset
                if stop is not None:
                    limit = min(limit, stop - offset)
                if limit > 0:
                    chunk = await self._chunk_at(offset, min(limit, READ_SIZE))
                    offset += len(chunk)
                    yield chunk
                    if reader not in self._offsets:
                        raise ReaderTooSlow
                    self._offsets[reader] = offset
                    self._taken.set()
                elif self._failure is not None:
                    raise self._failure
                elif self._landed:
                    return
                else:
                    await self._changed()
        finally:
            self._offsets.pop(reader, None)
            self._left_behind.discard(reader)
            self._taken.set()

    async def _chunk_at(self, offset: int, limit: int) -> bytes:
        if not self.outgrown or offset < self.spool.size:
            return await self.spool.read(offset, limit)
        start = self._window_start
        for chunk in self._window:
            if start <= offset < start + len(chunk):
                return chunk[offset - start : offset - start + limit]
            start += len(chunk)
        raise ReaderTooSlow

    async def _changed(self) -> None:
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(change)
        await change

    def _wake(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for change in waiting:
                if not change.done():
                    change.set_result(None)
