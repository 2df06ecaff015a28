"""Opens the shared tier of a worker: which folders, which index, and where its bodies lie."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgeproxy.cache.bodies import FileBodies
from edgeproxy.cache.errors import StoreUnusable
from edgeproxy.cache.layout import BODIES, RESPONSES, SPOOLS, WORKER
from edgeproxy.cache.shared_index import acquire_index
from edgeproxy.cache.tier import SharedTier
from edgeproxy.config.urls import LmdbStore, MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeproxy.cache.bodies import Bodies
    from edgeproxy.cache.index import Index
    from edgeproxy.config.model import Config
    from edgeproxy.config.urls import StoreUrl

__all__ = ["SharedTier", "open_tier"]


def open_tier(
    config: Config,
    directory: Path,
    *,
    worker: int,
    journal_id: bytes,
    clock: Callable[[], float],
    on_damage: Callable[[str], None] | None = None,
) -> SharedTier:
    """The tier of one worker of the node, in a folder that `prepare_store` has seen to.

    Where bodies are in the worker's memory, it may store its share of `max_bytes`. Call this after
    the fork, in the process that uses it. Raises StoreUnusable.
    """
    store = config.store
    per_worker = isinstance(store.url, MemoryStore)
    max_bytes = store.max_bytes
    if per_worker:
        directory = directory / f"{WORKER}{worker}"
        max_bytes //= config.worker_count()
    spools = directory / SPOOLS
    try:
        spools.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_dead_spools(spools)
    except OSError as error:
        raise StoreUnusable(f"can't use the folder {spools}: {error.strerror}") from error
    index = acquire_index(directory / RESPONSES, max_bytes, journal_id)
    if per_worker:
        # A worker's memory begins empty.
        index.clear()
    return SharedTier(
        index,
        _open_bodies(store.url, directory, index),
        spools,
        max_bytes=max_bytes,
        max_object_bytes=min(store.max_object_bytes, max_bytes),
        per_worker=per_worker,
        clock=clock,
        on_damage=on_damage,
    )


def _open_bodies(url: StoreUrl, directory: Path, index: Index) -> Bodies:
    if isinstance(url, LmdbStore):
        return FileBodies(directory / BODIES)
    # Here, because it takes a quarter of a second, and most stores don't need it.
    from edgeproxy.cache.external import MemoryBodies, RedisBodies

    return MemoryBodies() if isinstance(url, MemoryStore) else RedisBodies(url, index.identity)


def _remove_dead_spools(directory: Path) -> None:
    """Remove what workers that were killed had on its way in."""
    for path in directory.iterdir():
        pid = path.name.partition("-")[0]
        if pid.isdigit() and not alive(int(pid)):
            path.unlink(missing_ok=True)


def alive(pid: int) -> bool:
    """Whether there is a process with that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
