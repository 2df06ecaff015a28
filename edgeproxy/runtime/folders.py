"""Folders of one run: locked while any of its processes lives, and removed at its end."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path

from edgeproxy.runtime.whereabouts import Whereabouts


class FolderRefused(OSError):
    """A folder can't be used; the text names it, and says why."""

    def __str__(self) -> str:
        return str(self.strerror)


class RunFolder:
    """A new folder below `parent` that only this user can enter.

    Processes that are forked hold its lock too, so that it outlives a supervisor that was killed
    for as long as a worker does. Whoever comes next removes those that nobody holds.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        """Raises FolderRefused."""
        _make_parent(parent)
        _sweep(parent, prefix)
        while True:
            try:
                self.real_path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            except OSError as error:
                raise _refused(parent, error) from None
            fd = _lock(self.real_path)
            if fd is not None and _is_at(fd, self.real_path):
                break
            # Another edge took it for one left over, before it was locked.
            if fd is not None:
                os.close(fd)
        self._fd = fd
        self.whereabouts = Whereabouts.of([self.real_path])
        self.path = Path(f"/proc/self/fd/{fd}")
        """The same folder by a short name, for this process and those that it forks: the path of a
        Unix socket must not be longer than 107 bytes, wherever the folder is."""

    def restore(self) -> None:
        """Make it again, if somebody has removed it. No other process may use it meanwhile.

        Raises FolderRefused.
        """
        if self.whereabouts.lost() is None:
            return
        try:
            _make_parent(self.real_path.parent)
            self.real_path.mkdir(mode=0o700)
        except OSError as error:
            raise _refused(self.real_path, error) from None
        fd = _lock(self.real_path)
        if fd is None or not _is_at(fd, self.real_path):
            raise FolderRefused(0, f"{self.real_path} can't be used: somebody else has it")
        # Its short name stays what it was.
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)
        self.whereabouts = Whereabouts.of([self.real_path])

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.real_path, ignore_errors=True)
        os.close(self._fd)


def make_private(directory: Path) -> None:
    """Make a folder and what is missing above it; for this user alone where it is new.

    Raises FolderRefused.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        refused = refusal(directory)
    except OSError as error:
        raise _refused(directory, error) from None
    if refused is not None:
        raise FolderRefused(0, refused)


def refusal(directory: Path) -> str | None:
    """Why this user can't use a folder, or can't make it where it is missing; None if he can."""
    nearest = directory
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        return f"{directory} can't be used: {nearest} is no folder"
    if os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        return None
    if os.statvfs(nearest).f_flag & os.ST_RDONLY:
        return f"{directory} can't be used: {os.strerror(errno.EROFS)}"
    return f"{directory} can't be used: {nearest} can't be read and written by this user"


def _make_parent(parent: Path) -> None:
    make_private(parent)
    found = parent.stat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    # Whoever may rename what is in it could put a folder of his own in its place.
    if found.st_uid not in (0, os.geteuid()) or (others_write and not found.st_mode & stat.S_ISVTX):
        raise FolderRefused(0, f"{parent} belongs to others, or others may write to it")


def _sweep(parent: Path, prefix: str) -> None:
    for left in parent.glob(f"{prefix}*"):
        fd = _lock(left)
        if fd is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(fd)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None if it isn't ours, or somebody holds it."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(fd).st_uid == os.geteuid():
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False


def _refused(path: Path, error: OSError) -> FolderRefused:
    where = error.filename or path
    return FolderRefused(error.errno, f"{path} can't be used: {where}: {error.strerror}")
