"""Modes and owner of a store's files: nobody but the user of the edge may read or write them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.cache.errors import StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700
_NAMED = 3
"""Most paths that an error names."""


class Mended(NamedTuple):
    """What was found, and what was put right."""

    checked: int
    mended: int


def mend_permissions(directory: Path) -> Mended:
    """See to the modes and the owner of all that is in a store's folder.

    The folder itself is left as it is: who made it may have given it to a group. Symbolic links are
    neither followed nor touched. Files that go meanwhile are no matter. Raises StoreUnusable, with
    the names, for what can't be mended; the rest is mended all the same.
    """
    checked = mended = 0
    failed: list[str] = []
    for path, found in _below(directory, failed):
        checked += 1
        try:
            mended += _mend(path, found)
        except FileNotFoundError:
            continue
        except OSError as error:
            failed.append(f"{path}: {error.strerror}")
    if failed:
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        raise StoreUnusable(f"can't be mended: {'; '.join(failed[:_NAMED])}{more}")
    return Mended(checked, mended)


def _below(directory: Path, failed: list[str]) -> Iterator[tuple[Path, os.stat_result]]:
    """The files and folders below one, each folder before what is in it: it may have to be mended
    to be read."""
    try:
        paths = sorted(directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        failed.append(f"{directory}: {error.strerror}")
        return
    for path in paths:
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(found.st_mode):
            yield path, found
            yield from _below(path, failed)
        elif stat.S_ISREG(found.st_mode):
            yield path, found


def _mend(path: Path, found: os.stat_result) -> bool:
    wrong = False
    if found.st_uid != os.geteuid():
        # Only root may; for anybody else this is the error that names the file.
        os.chown(path, os.geteuid(), -1, follow_symlinks=False)
        wrong = True
    mode = FOLDER_MODE if stat.S_ISDIR(found.st_mode) else FILE_MODE
    if stat.S_IMODE(found.st_mode) != mode:
        path.chmod(mode)
        wrong = True
    return wrong
