"""A body on its way in: small ones in memory, large ones in a temp file, readable as they grow."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgeproxy.cache.disk import disk_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.cache.disk import WriteWatch

T = TypeVar("T")


class Spool:
    """The bytes of one body, in order of arrival.

    One producer appends; any number of readers read what is there, at any offset. Waiting for more
    is not its business. Beyond `memory_limit` bytes everything moves to a temp file in `directory`,
    whose name begins with this process's id; without a directory everything stays in memory.
    """

    def __init__(
        self,
        directory: Path | None,
        memory_limit: int = 128 * 1024,
        watch: WriteWatch | None = None,
    ) -> None:
        """`watch` is told of what can't be written."""
        self.memory_limit = memory_limit
        self.size = 0
        """Bytes so far."""
        self.crc = 0
        """zlib.crc32 of them."""
        self._directory = directory
        self._watch = watch
        self._memory: bytes | bytearray | None = b""
        self._fd = -1
        self._path: Path | None = None
        self._busy = 0
        self._closed = False

    @property
    def in_memory(self) -> bool:
        return self._memory is not None

    @property
    def path(self) -> Path | None:
        """The temp file; None while there is none, and once it was handed over."""
        return self._path

    async def append(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes in; they are copied unless they can't change.

        Raises StoreFull where there is no room for them, StoreUnusable where they can't be written:
        what was there before can still be read. A call that was cancelled has to be the last.
        """
        self._check_open()
        chunk = bytes(chunk)
        if not chunk or self.take_whole(chunk):
            return
        memory = self._memory
        if memory is None:
            self.crc = await self._in_thread(lambda: self._write(chunk, self.size))
        elif self._directory is not None and self.size + len(chunk) > self.memory_limit:
            self.crc = await self._in_thread(lambda: self._move(memory, chunk))
            self._memory = None
        else:
            self.crc = zlib.crc32(chunk, self.crc)
            if isinstance(memory, bytearray):
                memory += chunk
            else:
                self._memory = bytearray(memory) + chunk
        self.size += len(chunk)

    def take_whole(self, body: bytes) -> bool:
        """Take a small body's first bytes in, which are mostly all of them; False: they are not the
        first, or too many. They are not copied."""
        if self.size or len(body) > self.memory_limit or self._memory is None:
            return False
        self.size, self.crc, self._memory = len(body), zlib.crc32(body), body
        return True

    @property
    def whole(self) -> bytes | None:
        """All that is there, where that is in one piece in memory."""
        return self._memory if isinstance(self._memory, bytes) else None

    async def read(self, offset: int, limit: int) -> bytes:
        """The bytes from `offset` on that are there, `limit` at most; empty if there are none yet.

        Raises StoreUnusable where the temp file can't be read.
        """
        self._check_open()
        limit = min(limit, self.size - offset)
        if limit <= 0:
            return b""
        memory = self._memory
        if memory is None:
            return await self._in_thread(lambda: self._read(offset, limit))
        if isinstance(memory, bytes) and limit == len(memory):
            return memory
        return bytes(memoryview(memory)[offset : offset + limit])

    async def hand_over(self, target: Path) -> None:
        """Rename the temp file to `target`, in the same file system; reading goes on.

        What was appended is in the file, though not forced to the disk. Raises ValueError while the
        body is in memory, StoreFull or StoreUnusable where the file can't be renamed.
        """
        self._check_open()
        path = self._path
        if path is None or self.in_memory:
            raise ValueError("the spool has no temp file to hand over")
        await self._in_thread(lambda: path.rename(target))
        self._path = None

    async def close(self) -> None:
        """Free what the body takes. What a thread still reads is freed once it has been read."""
        if self._closed:
            return
        self._closed = True
        self._memory = None
        if not self._busy and self._fd >= 0:
            await asyncio.shield(self._free())

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the spool is closed")

    # -- in a thread

    def _move(self, memory: bytes | bytearray, chunk: bytes) -> int:
        # Kept at once, so that it is found when the caller was cancelled meanwhile.
        if self._fd < 0:
            self._fd, name = self._make_file()
            self._path = Path(name)
        _write_all(self._fd, memory, 0)
        return self._write(chunk, len(memory))

    def _make_file(self) -> tuple[int, str]:
        assert self._directory is not None
        prefix = f"{os.getpid()}-"
        try:
            return tempfile.mkstemp(prefix=prefix, dir=self._directory)
        except FileNotFoundError:
            # Somebody cleared it away; the store around it is another matter.
            self._directory.mkdir(mode=0o700, exist_ok=True)
            return tempfile.mkstemp(prefix=prefix, dir=self._directory)

    def _write(self, chunk: bytes, offset: int) -> int:
        _write_all(self._fd, chunk, offset)
        return zlib.crc32(chunk, self.crc)

    def _read(self, offset: int, limit: int) -> bytes:
        parts: list[bytes] = []
        while limit > 0:
            part = os.pread(self._fd, limit, offset)
            if not part:
                raise OSError(errno.EIO, "the temp file has been cut short")
            parts.append(part)
            offset += len(part)
            limit -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        work = asyncio.get_running_loop().run_in_executor(None, function)
        self._busy += 1
        work.add_done_callback(self._done)
        try:
            # A thread can't be cancelled: until it is done, its file has to stay open.
            return await asyncio.shield(work)
        except OSError as error:
            failure = disk_error(error, self._directory)
            if self._watch is not None:
                self._watch.failed(failure)
            raise failure from error

    def _done(self, work: asyncio.Future[T]) -> None:
        self._busy -= 1
        # Seen here, so that nobody is told of an error that no caller waits for any more.
        if not work.cancelled():
            work.exception()
        if self._closed and not self._busy and self._fd >= 0:
            self._free()

    def _free(self) -> asyncio.Future[None]:
        path, self._path = self._path, None
        fd, self._fd = self._fd, -1
        # To give a large file's blocks back takes the kernel a while.
        return asyncio.get_running_loop().run_in_executor(None, _remove, fd, path)


def _remove(fd: int, path: Path | None) -> None:
    if path is not None:
        with suppress(OSError):
            path.unlink()
    os.close(fd)


def _write_all(fd: int, chunk: bytes | bytearray, offset: int) -> None:
    with memoryview(chunk) as view:
        done = 0
        while done < len(view):
            done += os.pwrite(fd, view[done:], offset + done)
