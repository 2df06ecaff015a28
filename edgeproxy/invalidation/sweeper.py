"""The sweep: in the background, in small steps, the store comes to say what the rules say.

What was deleted gives its space back, what was invalidated is marked, and the rules that said so
can then be dropped.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from edgeproxy.cache.disk import warn
from edgeproxy.cache.errors import StoreError
from edgeproxy.invalidation.applying import Application, Place, due_of, since_boot
from edgeproxy.invalidation.compaction import make_room
from edgeproxy.invalidation.elsewhere import apply_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgeproxy.cache.memory import MemoryTier
    from edgeproxy.cache.store import SharedTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.head import SharedHead
    from edgeproxy.invalidation.journal import LocalJournal
    from edgeproxy.invalidation.view import JournalView

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

_INTERVAL = 0.25
"""Seconds between looks at the journal's head."""
_UPKEEP_INTERVAL = 1.0
_FAILURE_PAUSE = 5.0
_RECORDS = 1000
"""Records that are swept for together."""
_ROWS = 200
"""Rows that one step of a sweep changes here at most."""
_OWN_STEPS = 10
"""Steps that a sweep takes here; what takes longer is left to a process of its own."""
_PATIENCE = 10
"""Steps that find nothing dead, after which the next one waits for the next upkeep."""


class Sweeper:
    """Sweeps a worker's shared tier, and keeps the worker's rules few.

    Of the workers that share a tier, the one that holds `lock_path` sweeps; when it goes, another
    takes over. A tier that a worker has for itself is swept by that worker.
    """

    def __init__(
        self,
        tier: SharedTier,
        journal: LocalJournal,
        view: JournalView,
        memory: MemoryTier,
        lock_path: Path,
        *,
        clock: Callable[[], float],
        is_dead: Callable[[StoredResponse], bool],
    ) -> None:
        """`is_dead`: whether a response can never be served again, by its age alone."""
        self._tier = tier
        self._journal = journal
        self._view = view
        self._memory = memory
        self._lock_path = lock_path
        self._lock_fd: int | None = None
        self._clock = clock
        self._is_dead = is_dead
        self._expiry_cursor: bytes | None = None
        self._barren = _PATIENCE

    async def run(self) -> None:
        """Work until cancelled; what goes wrong is logged and tried again."""
        upkeep_at = 0.0
        try:
            while True:
                try:
                    elected = self._elect()
                    if elected:
                        await self.sweep()
                    await self.drop_rules()
                    if time.monotonic() >= upkeep_at:
                        await self._tier.flush()
                        if elected:
                            await self._make_room()
                        upkeep_at = time.monotonic() + _UPKEEP_INTERVAL
                    await asyncio.sleep(_INTERVAL)
                except StoreError as error:
                    # Such as a full disk: the rules do until there is room again.
                    self._tier.look_at(error)
                    warn(log, error, "the sweep failed, and is tried again: %s", error)
                    await asyncio.sleep(_FAILURE_PAUSE)
                except OSError as error:
                    log.warning("the sweep failed, and is tried again: %s", error)
                    await asyncio.sleep(_FAILURE_PAUSE)
                except Exception:
                    log.exception("the sweep failed; next try in %d s", _FAILURE_PAUSE)
                    await asyncio.sleep(_FAILURE_PAUSE)
        finally:
            if self._lock_fd is not None:
                os.close(self._lock_fd)
                self._lock_fd = None

    async def sweep(self) -> None:
        """Bring the store up to the journal's head."""
        settled, head = self._tier.settled, self._view.catch_up()
        if settled >= head:
            return
        # What was admitted before the head was where it is now is in the store from here on; what
        # is admitted later is judged by these rules.
        await _in_thread(self._pass_through)
        while settled < head:
            records = await _in_thread(self._journal.since, settled, head, _RECORDS)
            if not records or records[0].position != settled + 1:
                # Records that nobody can read any more: what is older may be anything.
                settled = records[0].position - 1 if records else head
                await self._remove_older(settled)
            if records:
                settled = records[-1].position
            await self._apply(Application(due_of(records)))
            await _in_thread(self._tier.settle, settled)

    async def drop_rules(self) -> None:
        """Drop the rules that nothing stored needs any more, in whatever worker's store."""
        with self._tier.snapshot() as snapshot:
            settled = snapshot.settled
        await self._view.drop_settled(settled, self._memory)

    async def _apply(self, application: Application) -> None:
        for _ in range(_OWN_STEPS):
            if application.done:
                return
            began = time.monotonic()
            await _in_thread(self._step, application)
            # Readers' requests come first: no more than half of the time.
            await asyncio.sleep(time.monotonic() - began)
        if not application.done:
            await apply_elsewhere(
                Place(
                    str(self._tier.index_directory),
                    self._tier.max_bytes,
                    self._journal.id,
                    self._clock() - since_boot(),
                    application.left(),
                )
            )

    def _step(self, application: Application) -> None:
        with self._tier.snapshot(node=False) as snapshot:
            actions = application.step(snapshot, _ROWS)
        if actions:
            self._tier.sweep(actions)

    def _pass_through(self) -> None:
        with self._tier.quiet():
            pass

    async def _remove_older(self, position: int) -> None:
        def older(stored: StoredResponse) -> bool:
            return stored.position < position

        cursor: bytes | None = None
        while True:
            cursor, _ = await self._tier.expire_step(cursor, older)
            if cursor is None:
                return

    async def _make_room(self) -> None:
        """Space: what is dead goes, then what is least worth its bytes, then what they leave."""
        await self._expire()
        await make_room(self._tier, self._clock)
        trimmed = False
        while not trimmed:
            trimmed = await _in_thread(self._journal.trim, self._tier.settled)
        await _in_thread(self._journal.make_room)

    async def _expire(self) -> None:
        """A few rows if none of them is dead; as long as some are, one step after the other."""
        until = time.monotonic() + _UPKEEP_INTERVAL
        while time.monotonic() < until:
            began = time.monotonic()
            self._expiry_cursor, gone = await self._tier.expire_step(
                self._expiry_cursor, self._is_dead
            )
            self._barren = 0 if gone else self._barren + 1
            if self._expiry_cursor is None or self._barren >= _PATIENCE:
                return
            # Readers' requests come first: no more than half of the time.
            await asyncio.sleep(time.monotonic() - began)

    def _elect(self) -> bool:
        if self._lock_fd is None:
            fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return False
            self._lock_fd = fd
        return True


def settle_if_empty(tier: SharedTier, head: SharedHead) -> None:
    """Spare a tier that has nothing in it the rules of the past; before a view is made for it."""
    position = head.get()
    # What is put from here on is judged by the rules up to that position.
    with tier.quiet():
        empty = tier.entries == 0
    if empty and tier.settled < position:
        # A disk that is full is no reason not to start: what is spared is only time.
        with suppress(StoreError):
            tier.settle(position)


async def _in_thread(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function that blocks; on cancellation, wait for its end: the store is closed next."""
    call = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **named))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait([call])
        raise
