"""Which worker is fetching which key: record locks of the kernel, one byte of one file a key.

A worker that dies gives its claims back at once, whatever it was doing, because the kernel does it.
That is why these are locks and not entries in shared memory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# struct flock of 64-bit Linux, native alignment: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = struct.Struct("@hhqqi")
# Offsets stay well inside off_t; two keys that share one merely share a claim, which costs a wait.
_OFFSET_MASK = (1 << 62) - 1


class Claims:
    """The claims of one worker on keys of 16 bytes.

    POSIX record locks belong to a process and are dropped when it closes *any* descriptor of the
    file, so a process opens the file once, here, and keeps it open.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._held: set[int] = set()

    def acquire(self, key: bytes) -> bool:
        """Claim `key`; False when another worker, or a fetch of this one, holds it."""
        offset = _offset(key)
        if offset in self._held:
            return False
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        self._held.add(offset)
        return True

    def release(self, key: bytes) -> None:
        """Give a claim back that `acquire` granted."""
        offset = _offset(key)
        self._held.remove(offset)
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, offset)

    def holder(self, key: bytes) -> int | None:
        """The process id of the other worker that holds `key`, or None when nobody does."""
        request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _offset(key), 1, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_GETLK, request))
        return None if kind == fcntl.F_UNLCK else pid

    def close(self) -> None:
        os.close(self._fd)
        self._held.clear()


def _offset(key: bytes) -> int:
    return int.from_bytes(key[:8], "big") & _OFFSET_MASK
