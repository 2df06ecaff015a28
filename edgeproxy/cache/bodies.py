"""Where bodies lie that are not in the index: files here, whatever aiocache reaches in `external`.

Nothing here decides what is stored. A body is written under an id that was never used before, a row
of the index makes it part of the store, and it is removed after its row has gone.
"""

from __future__ import annotations

import asyncio
import errno
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from edgeproxy.cache.disk import disk_error
from edgeproxy.cache.errors import BodyMissing, BodyUnreachable, StoreUnusable
from edgeproxy.cache.layout import body_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from typing import TypeAlias, TypeVar

    from edgeproxy.cache.spool import Spool
    from edgeproxy.cache.stored import BodyKind, BodyRef

    T = TypeVar("T")
    ReadBody: TypeAlias = Callable[[int, int | None], AsyncIterator[bytes]]

READ_SIZE = 256 * 1024
INLINE_LIMIT = 128 * 1024

_OUR_WANT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Bodies(Protocol):
    """A place for bodies. `BodyRef`s that are handed in are of its `kind`."""

    kind: BodyKind
    inline_limit: int
    """Longest body that goes into the index instead, in bytes; -1: none does."""
    linger: float
    """Seconds that a body without a row has to stay, for those who are reading it."""

    @property
    def reachable(self) -> bool:
        """False while it is known not to answer."""

    async def probe(self) -> None:
        """Raises StoreError if bodies can't be read or written just now."""

    async def write(self, body_id: bytes, spool: Spool) -> None:
        """Take a whole body in. Raises StoreError; what is there then is to be removed."""

    async def read(self, ref: BodyRef) -> bytes:
        """The whole body, unchecked. Raises BodyMissing."""

    async def open(self, ref: BodyRef) -> ReadBody:
        """Reads from a start up to a stop. Raises BodyMissing: here if it is gone by now, and from
        the reading if it goes meanwhile, which it need not where it can be held."""

    async def remove(self, ref: BodyRef) -> None:
        """Remove what there is of it. Raises StoreUnusable if it may still be there."""

    async def close(self) -> None: ...


class FileBodies:
    """One file a body, below a folder: small bodies go into the index instead."""

    kind: BodyKind = "file"
    inline_limit = INLINE_LIMIT
    linger = 0.0
    reachable = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="bodies")

    async def probe(self) -> None:
        if not await self._in_thread(os.access, self._directory.parent, os.W_OK | os.X_OK):
            raise StoreUnusable(f"can't write to {self._directory.parent}")

    async def write(self, body_id: bytes, spool: Spool) -> None:
        target = body_path(self._directory, body_id)
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise disk_error(error, target.parent) from error
        await spool.hand_over(target)

    async def read(self, ref: BodyRef) -> bytes:
        file = await self._open(ref)
        return await self._in_thread(file.read, 0, ref.length)

    async def open(self, ref: BodyRef) -> ReadBody:
        file = await self._open(ref)

        async def read(start: int, stop: int | None) -> AsyncIterator[bytes]:
            end = ref.length if stop is None else min(stop, ref.length)
            while start < end:
                chunk = await self._in_thread(file.read, start, min(READ_SIZE, end - start))
                start += len(chunk)
                yield chunk

        return read

    async def remove(self, ref: BodyRef) -> None:
        path = body_path(self._directory, ref.id)
        try:
            await self._in_thread(path.unlink, True)
        except OSError as error:
            raise StoreUnusable(f"can't remove {path}: {error.strerror}") from error

    async def close(self) -> None:
        self._threads.shutdown()

    async def _open(self, ref: BodyRef) -> _File:
        return await self._in_thread(_File, body_path(self._directory, ref.id), ref.length)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


class _File:
    """An open file, closed when nobody has it any more. It can be read though it was removed."""

    def __init__(self, path: Path, length: int) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._fd = -1
            # The process's want of descriptors or memory says nothing about the file.
            kind = BodyUnreachable if error.errno in _OUR_WANT else BodyMissing
            raise kind(f"{path}: {error.strerror}") from error
        self._path = path
        size = os.fstat(self._fd).st_size
        if size != length:
            raise BodyMissing(f"{path}: has {size} bytes instead of {length}")

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def read(self, offset: int, size: int) -> bytes:
        parts = []
        while size > 0:
            try:
                part = os.pread(self._fd, size, offset)
            except OSError as error:
                raise BodyMissing(f"{self._path}: {error.strerror}") from error
            if not part:
                raise BodyMissing(f"{self._path}: has been cut short")
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def check(body: bytes, ref: BodyRef) -> None:
    """Raises BodyMissing if a whole body is not what was stored."""
    if len(body) != ref.length or zlib.crc32(body) != ref.crc:
        raise BodyMissing(f"body {ref.id.hex()} is damaged")


async def checked(chunks: AsyncIterator[bytes], ref: BodyRef) -> AsyncIterator[bytes]:
    """A whole body as it comes; its last bytes only once it is known to be what was stored.

    Raises BodyMissing in place of the last chunk if it isn't.
    """
    crc, held = 0, b""
    async for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
        if held:
            yield held
        held = chunk
    if crc != ref.crc:
        raise BodyMissing(f"body {ref.id.hex()} is damaged")
    if held:
        yield held
