"""What a disk does that has no room, or can't be written: how that is told, and told once."""

from __future__ import annotations

import errno
import logging
import os
import threading
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING

import lmdb

from edgeproxy.cache.errors import StoreError, StoreFull, StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

DAMAGE = (
    lmdb.CorruptedError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)
"""What LMDB raises where a file is not what it wrote."""
READ_DAMAGE = (*DAMAGE, lmdb.BadTxnError, lmdb.CursorFullError)
"""The same for a transaction that only reads, and has done nothing before."""

_CALM = 10.0
"""Seconds without a failure after which a folder that takes something in counts as good again."""
_READER_BYTES = 64
_LOCK_HEADER = 4096


class IndexFull(StoreFull):
    """LMDB has no page left."""


def disk_error(error: OSError | lmdb.Error, where: Path | str | None) -> StoreError:
    """StoreFull where the disk has no room, else StoreUnusable; `where` is named in its message."""
    if isinstance(error, OSError):
        full, reason = error.errno in NO_ROOM, error.strerror
    else:
        reason = str(error)
        # LMDB knows an exception of its own for one of them alone.
        full = any(os.strerror(number) in reason for number in NO_ROOM)
        if os.strerror(errno.EIO) in reason:
            # LMDB's word for a write that came to an end before its time.
            reason += " (the disk may be full)"
    return (StoreFull if full else StoreUnusable)(f"{where}: {reason}")


@contextmanager
def translated(where: Path | str = "the index") -> Iterator[None]:
    """Turns what LMDB raises about the index in that folder into StoreFull or StoreUnusable."""
    try:
        yield
    except lmdb.MapFullError as error:
        raise IndexFull(f"{where}: the index is full") from error
    except lmdb.Error as error:
        raise disk_error(error, where) from error


class WriteWatch:
    """Says once that a store can't be written, however many responses that concerns, and once that
    it can be again. Any thread may call it."""

    def __init__(
        self,
        directory: Path,
        clock: Callable[[], float] = monotonic,
        on_damage: Callable[[str], None] | None = None,
    ) -> None:
        """`on_damage` is told of what a store that is whole would not do, in words."""
        self._directory = directory
        self._clock = clock
        self._on_damage = on_damage
        self._failing = False
        self._failed_at = 0.0
        self._lock = threading.Lock()

    def failed(self, error: StoreError) -> None:
        """Something could not be written: this is told of from here on, so nobody else needs to."""
        error.told = True
        self.look_at(error.__cause__)
        with self._lock:
            self._failed_at = self._clock()
            first, self._failing = not self._failing, True
        if first:
            log.error(
                "the store in %s can't be written (%s): responses are passed on and not stored",
                self._directory, error,
            )  # fmt: skip

    def look_at(self, error: BaseException | None, *, first_read: bool = False) -> None:
        """Something that may be damage has gone wrong; `first_read`: with the first thing that its
        transaction read."""
        damage = READ_DAMAGE if first_read else DAMAGE
        if isinstance(error, damage) and self._on_damage is not None:
            self._on_damage(f"the store in {self._directory} is damaged: {error}")

    def written(self) -> None:
        """Something was stored."""
        if not self._failing:
            return
        with self._lock:
            if not self._failing or self._clock() - self._failed_at < _CALM:
                # What is small may find room where others don't.
                return
            self._failing = False
        log.warning("the store in %s can be written again", self._directory)


def allocate_lock_file(directory: Path, readers: int) -> None:
    """Make LMDB's lock file beforehand, with all of its blocks, for so many readers at once.

    It is mapped into memory, and LMDB itself leaves it sparse: whoever touched a page of it that a
    full disk has no block for would be killed. Call it before the environment is opened, as closing
    the file would take LMDB's locks on it away. Raises OSError where there is no room.
    """
    path, size = directory / "lock.mdb", readers * _READER_BYTES + _LOCK_HEADER
    with suppress(FileNotFoundError):
        if path.stat().st_size >= size:
            return
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        # A file system that can't promise blocks; LMDB makes the file as long as it has to be.
    finally:
        os.close(fd)


def warn(logger: logging.Logger, error: StoreError, message: str, *arguments: object) -> None:
    """Log what a failure of the store's means; where the store has told of it itself, for debugging
    only."""
    logger.log(logging.DEBUG if error.told else logging.WARNING, message, *arguments)
