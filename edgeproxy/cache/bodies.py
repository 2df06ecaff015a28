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
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgeproxy.cache.disk import disk_error
from edgeproxy.cache.errors import BodyMissing, BodyUnreachable, StoreUnusable
from edgeproxy.cache.layout import body_path

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import TypeAlias, TypeVar

    from edgeproxy.cache.spool import Spool
    from edgeproxy.cache.stored import BodyKind, BodyRef

    T = TypeVar("T")
    ReadBody: TypeAlias = Callable[[int, int | None], AsyncIterator[bytes]]

READ_SIZE = 256 * 1024
INLINE_LIMIT = 128 * 1024

_OUR_WANT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_NOT_FROM_HERE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What sendfile(2) says of a file system that can't do it."""
_MAX_WHOLE = 10_000


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
        self._whole: dict[bytes, _Stamp] = {}
        self.in_memory = _in_memory(directory)
        """Nothing here is on a disk, so nobody has to wait for one."""

    async def probe(self) -> None:
        if not await self.in_thread(os.access, self._directory.parent, os.W_OK | os.X_OK):
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
        return await self.in_thread(file.read, 0, ref.length)

    async def open(self, ref: BodyRef) -> FileBody:
        return FileBody(self, ref, await self._open(ref))

    async def remove(self, ref: BodyRef) -> None:
        path = body_path(self._directory, ref.id)
        self._whole.pop(ref.id, None)
        try:
            await self.in_thread(path.unlink, True)
        except OSError as error:
            raise StoreUnusable(f"can't remove {path}: {error.strerror}") from error

    async def close(self) -> None:
        self._threads.shutdown()

    def found_whole(self, ref: BodyRef, stamp: _Stamp) -> None:
        """Note that a body's file, as it was then, has what was stored."""
        self._whole.pop(ref.id, None)
        if len(self._whole) >= _MAX_WHOLE:
            del self._whole[next(iter(self._whole))]
        self._whole[ref.id] = stamp

    def is_whole(self, ref: BodyRef, stamp: _Stamp) -> bool:
        """Whether this process has found the file whole, and nobody has changed it since."""
        return self._whole.get(ref.id) == stamp

    async def _open(self, ref: BodyRef) -> _File:
        return await self.in_thread(_File, body_path(self._directory, ref.id), ref.length)

    async def in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Do what may have to wait for the disk."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def send_in_thread(self, file: _File, socket: int, offset: int, size: int) -> int:
        """`file.send`, which may have to wait for the disk."""
        # Its own descriptor: whoever waits for this may give up, and close theirs, meanwhile.
        own = os.dup(socket)
        sending = self._threads.submit(file.send, own, offset, size)
        sending.add_done_callback(lambda _: os.close(own))
        return await asyncio.wrap_future(sending)


def _in_memory(directory: Path) -> bool:
    """Whether files there are in memory alone: they can't be asked, as those on a disk can."""
    try:
        number = directory.parent.stat().st_dev
        mounts = Path("/proc/self/mountinfo").read_text()
    except OSError:
        return False
    device = f"{os.major(number)}:{os.minor(number)}"
    # proc(5): number, parent, device, ... and behind a "-", the kind of file system.
    lines = [line.split() for line in mounts.splitlines()]
    kinds = {line[line.index("-") + 1] for line in lines if line[2] == device}
    return bool(kinds) and kinds <= {"tmpfs", "ramfs"}


class FileBody:
    """A body in an open file, which is closed when nobody has this any more.

    It can be read, as a `ReadBody`, and sent, though it was removed.
    """

    def __init__(self, bodies: FileBodies, ref: BodyRef, file: _File) -> None:
        self._bodies = bodies
        self._ref = ref
        self._file = file

    async def __call__(self, start: int, stop: int | None) -> AsyncIterator[bytes]:
        end = self._ref.length if stop is None else min(stop, self._ref.length)
        while start < end:
            size = min(READ_SIZE, end - start)
            chunk = await self._bodies.in_thread(self._file.read, start, size)
            start += len(chunk)
            yield chunk

    def found_whole(self) -> None:
        """Note that it has been read as a whole, and is what was stored."""
        self._bodies.found_whole(self._ref, self._file.stamp)

    @property
    def is_whole(self) -> bool:
        """Whether this process knows it to be what was stored."""
        return self._bodies.is_whole(self._ref, self._file.stamp)

    async def send(self, socket: int, offset: int, size: int) -> int | None:
        """Send up to `size` bytes of it to a non-blocking socket, without reading them.

        How many the socket took, 0 if it takes none now; None where it can't be done this way.
        Raises BodyMissing if the file is damaged, and OSError where the connection is.
        """
        try:
            if self._bodies.in_memory or self._file.in_memory(offset, size):
                return self._file.send(socket, offset, size)
            return await self._bodies.send_in_thread(self._file, socket, offset, size)
        except OSError as error:
            if error.errno in _NOT_FROM_HERE or error.errno in _OUR_WANT:
                return None
            raise


class _Stamp(NamedTuple):
    """What changes with a file: its number, and when it was last changed."""

    inode: int
    changed: int


class _File:
    """An open file, closed when nobody has it any more. It can be read though it was removed."""

    def __init__(self, path: Path, length: int) -> None:
        try:
            # At once, whatever has come to be in the file's place: a FIFO would wait for a writer.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            self._fd = -1
            # The process's want of descriptors or memory says nothing about the file.
            kind = BodyUnreachable if error.errno in _OUR_WANT else BodyMissing
            raise kind(f"{path}: {error.strerror}") from error
        self._path = path
        found = os.fstat(self._fd)
        self.stamp = _Stamp(found.st_ino, found.st_ctime_ns)
        if found.st_size != length:
            raise BodyMissing(f"{path}: has {found.st_size} bytes instead of {length}")

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

    def in_memory(self, offset: int, size: int) -> bool:
        """Whether that part can be had without waiting for the disk, as far as a look at both of
        its ends tells; False where the system can't tell."""
        byte = bytearray(1)
        try:
            for at in (offset, offset + size - 1):
                if not os.preadv(self._fd, [byte], at, os.RWF_NOWAIT):
                    return False
        except OSError:
            return False
        return True

    def send(self, socket: int, offset: int, size: int) -> int:
        try:
            sent = os.sendfile(socket, self._fd, offset, size)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno == errno.EIO:
                raise BodyMissing(f"{self._path}: {error.strerror}") from error
            raise
        if not sent:
            raise BodyMissing(f"{self._path}: has been cut short")
        return sent


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
