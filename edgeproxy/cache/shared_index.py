"""One environment for each index in a process: LMDB must not have it open twice."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from edgeproxy.cache.index import Index

if TYPE_CHECKING:
    from pathlib import Path

_shared: dict[tuple[int, Path], tuple[Index, int]] = {}
_guard = threading.Lock()


def acquire_index(directory: Path, max_bytes: int, journal_id: bytes) -> Index:
    """The process's index of that folder; made where there is none. Raises StoreUnusable."""
    key = (os.getpid(), directory.resolve())
    with _guard:
        index, holders = _shared.get(key) or (Index(directory, max_bytes, journal_id), 0)
        _shared[key] = (index, holders + 1)
        return index


def acquire_sibling(index: Index, directory: Path) -> Index:
    """An index of the same kind in another folder: another worker's."""
    return acquire_index(directory, index.max_bytes, index.journal_id)


def release_index(index: Index) -> None:
    """Give back what was acquired; the last one closes it."""
    key = (os.getpid(), index.directory.resolve())
    with _guard:
        _, holders = _shared[key]
        if holders > 1:
            _shared[key] = (index, holders - 1)
        else:
            del _shared[key]
            index.close()
