"""The reading side of the shared tier: what is stored under a key, and the bodies of that.

Bodies are checked as they are read. What can't be read is lost, and so its response is removed.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

import lmdb

from edgeproxy.cache.bodies import FileBody, check, checked
from edgeproxy.cache.errors import BodyMissing, BodyUnreachable, StoreError
from edgeproxy.cache.rows import packed_stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from edgeproxy.cache.bodies import Bodies, ReadBody
    from edgeproxy.cache.changes import Changes
    from edgeproxy.cache.disk import WriteWatch
    from edgeproxy.cache.index import Index
    from edgeproxy.cache.rows import RowMark, Taken
    from edgeproxy.cache.stored import BodyRef, StoredResponse
    from edgeproxy.cache.writer import Writer

log = logging.getLogger(__name__)


class StoredBody:
    """A stored body that is open: it is there to its end, whatever becomes of the response.

    Called with a start and a stop (None: its end) it gives the bytes between them, as a `ReadBody`.
    One that turns out to be damaged while it is read as a whole ends in BodyMissing before its last
    bytes. `lost` is told of it.
    """

    def __init__(
        self, opened: ReadBody, ref: BodyRef, lost: Callable[[BodyMissing], Awaitable[None]]
    ) -> None:
        self._opened = opened
        self._ref = ref
        self._lost = lost

    async def __call__(self, start: int, stop: int | None) -> AsyncIterator[bytes]:
        chunks = self._opened(start, stop)
        whole = start == 0 and (stop is None or stop >= self._ref.length)
        if whole:
            chunks = checked(chunks, self._ref)
        try:
            async for chunk in chunks:
                yield chunk
        except BodyMissing as error:
            await self._lost(error)
            raise
        if whole and isinstance(self._opened, FileBody):
            self._opened.found_whole()

    @property
    def sendable(self) -> bool:
        """Whether it is in a file that this process has found whole."""
        return isinstance(self._opened, FileBody) and self._opened.is_whole

    async def send(self, socket: int, offset: int, size: int) -> int | None:
        """Send up to `size` bytes of it to a non-blocking socket, straight from its file.

        How many the socket took, 0 if it takes none now; None where only reading will do. Raises
        BodyMissing if it is damaged, and OSError where the connection is.
        """
        if not isinstance(self._opened, FileBody):
            return None
        try:
            return await self._opened.send(socket, offset, size)
        except BodyMissing as error:
            await self._lost(error)
            raise


class ReadSide:
    """Looks things up in an index, and reads bodies."""

    def __init__(
        self, index: Index, bodies: Bodies, changes: Changes, writer: Writer, watch: WriteWatch
    ) -> None:
        """What turns out to be lost is removed by `changes`, through the `writer`."""
        self._index = index
        self._bodies = bodies
        self._changes = changes
        self._writer = writer
        self._watch = watch

    def reachable(self, stored: StoredResponse) -> bool:
        """False while its body is known to be out of reach: then it is as good as not stored."""
        return stored.body.kind == "inline" or self._bodies.reachable

    def lookup(self, primary: bytes) -> tuple[StoredResponse, ...]:
        """The responses stored under a key. An index that can't be read has none."""
        try:
            found, damaged = self._index.find(primary)
        except lmdb.Error as error:
            log.warning("%s can't be read: %s", self._index.directory, error)
            self._watch.look_at(error, first_read=True)
            return ()
        for row_id in damaged:
            self._writer.submit(self._changes.row, row_id)
        return tuple(found)

    def copies(self, stored: StoredResponse) -> int:
        """How many `cb:` copies of a response's target are stored under other keys."""
        try:
            return self._index.copies(stored.target_id, but=stored.primary)
        except lmdb.Error as error:
            log.warning("%s can't be read: %s", self._index.directory, error)
            return 0

    def take(self, row_id: bytes, vary: bytes, policy: bytes) -> Taken | None:
        """The whole response of that id, for a hit; see `take_row` for what it has to be. None
        where `lookup` knows more."""
        try:
            taken = self._index.take(row_id, vary, policy)
        except lmdb.Error:
            return None
        if taken is None or taken.body is not None:
            return taken
        stored = packed_stored(taken.packed)
        taken.mark.body_id = stored.body.id
        body = self.read_inline(stored)
        return None if body is None else taken._replace(body=body)

    def take_again(self, row_id: bytes, mark: RowMark) -> bytes | None:
        """The body of what `take` gave, if that is there as it was."""
        try:
            return self._index.take_again(row_id, mark)
        except lmdb.Error:
            return None

    def read_inline(self, stored: StoredResponse) -> bytes | None:
        """The whole body, at once; None where that can't be: `read` knows why."""
        if stored.body.kind != "inline":
            return None
        try:
            body = self._inline(stored)
            check(body, stored.body)
        except BodyMissing:
            return None
        return body

    async def read(self, stored: StoredResponse) -> bytes:
        """The whole body. Raises BodyMissing if it is gone or damaged; the response goes too."""
        ref = stored.body
        try:
            body = self._inline(stored) if ref.kind == "inline" else await self._bodies.read(ref)
            check(body, ref)
        except BodyMissing as error:
            await self._lost(stored, error)
            raise
        return body

    async def open(self, stored: StoredResponse) -> StoredBody:
        """The body, to be read in parts. Raises BodyMissing if it is gone by now; then, and when it
        turns out to be damaged, the response goes too."""
        ref = stored.body

        async def lost(error: BodyMissing) -> None:
            await self._lost(stored, error)

        if ref.kind == "inline":
            return StoredBody(_from_memory(await self.read(stored)), ref, lost)
        try:
            return StoredBody(await self._bodies.open(ref), ref, lost)
        except BodyMissing as error:
            await lost(error)
            raise

    def _inline(self, stored: StoredResponse) -> bytes:
        try:
            body = self._index.inline_body(stored)
        except lmdb.Error as error:
            self._watch.look_at(error, first_read=True)
            raise BodyUnreachable(f"can't read the index: {error}") from error
        if body is None:
            raise BodyMissing(f"body {stored.body.id.hex()} is gone")
        return body

    async def _lost(self, stored: StoredResponse, error: BodyMissing) -> None:
        if isinstance(error, BodyUnreachable):
            return
        with suppress(StoreError):
            # If not, it was removed or replaced meanwhile, as it should be.
            if await self._writer.write(self._changes.forget, stored):
                log.warning("a response of site %s is lost: %s", stored.site, error)


def _from_memory(body: bytes) -> ReadBody:
    async def read(start: int, stop: int | None) -> AsyncIterator[bytes]:
        if part := body[start:stop]:
            yield part

    return read
