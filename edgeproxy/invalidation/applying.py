"""Rules applied to what is stored, in steps; as a process of its own where it takes long.

That process reads from its standard input what is due, and ends when that is done, or that input
does. It keeps an event loop's interpreter out of work that may concern a million rows.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.cache.changes import Changes, Sweep
from edgeproxy.cache.disk import translated
from edgeproxy.cache.errors import StoreError
from edgeproxy.cache.index import Index
from edgeproxy.cache.snapshot import Snapshot
from edgeproxy.invalidation.picking import Walk
from edgeproxy.invalidation.record import Effect  # noqa: TC001 - in annotations that are read
from edgeproxy.invalidation.selectors import Mode, Selector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgeproxy.invalidation.record import Record

ROWS = 500
"""Rows that one transaction changes at most: LMDB holds some five pages of 4 KiB for each of them
until it commits."""
_SELECTORS = 300
"""Steps of walks that one step takes at most."""
_NICENESS = 1
LENGTH = 8
"""Bytes of the length that what is due is preceded by."""


class Due(msgspec.Struct, frozen=True):
    """A rule to apply to what was asked for before it."""

    selector: Selector
    effect: Effect
    position: int


class Place(msgspec.Struct, frozen=True):
    """An index, and what is due there."""

    directory: str
    max_bytes: int
    journal_id: bytes
    epoch: float
    """What the node's clock said when the machine was started, seconds since the epoch: it goes on
    from there, whatever is done to the system's."""
    due: list[Due]


def due_of(records: Iterable[Record]) -> list[Due]:
    """What records ask for; of equal selectors, only the latest, which picks all of it."""
    latest: dict[tuple[Selector, Effect], int] = {}
    for record in records:
        for selector in record.selectors:
            latest[selector, record.effect] = record.position
    return [Due(selector, effect, position) for (selector, effect), position in latest.items()]


@dataclass(slots=True)
class _Open:
    due: Due
    walk: Walk


class Application:
    """Applies what is due, step by step."""

    def __init__(self, due: Iterable[Due]) -> None:
        self._open = [_Open(each, Walk(each.selector)) for each in due]

    @property
    def done(self) -> bool:
        return not self._open

    def left(self) -> list[Due]:
        """What is not done yet. To do all of it again does no harm."""
        return [each.due for each in self._open]

    def step(self, snapshot: Snapshot, rows: int) -> list[Sweep]:
        """What to sweep next, by what is in a snapshot; at most so many rows."""
        actions: list[Sweep] = []
        for _ in range(_SELECTORS):
            if not self._open or len(actions) >= rows:
                break
            current = self._open[-1]
            due = current.due
            mode, deleted_from = due.effect
            actions += [
                Sweep(row_id, due.position, mode is Mode.DELETE, deleted_from)
                for row_id in current.walk.step(snapshot, rows - len(actions))
            ]
            if current.walk.done:
                self._open.pop()
        return actions


def since_boot() -> float:
    """Seconds for which the machine has been running, which is the same for all processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def apply_to(place: Place, rest: Callable[[float], None]) -> None:
    """Apply it to that index, resting between steps for so many seconds as each says."""
    index = Index(Path(place.directory), place.max_bytes, place.journal_id)
    try:
        changes = Changes(index, place.max_bytes, lambda: place.epoch + since_boot())
        application = Application(place.due)
        while not application.done:
            began = time.monotonic()
            with Snapshot([index]) as snapshot:
                actions = application.step(snapshot, ROWS)
            if actions:
                with translated(index.directory), index.writing() as txn:
                    changes.sweep(txn, actions)
            rest(time.monotonic() - began)
    finally:
        index.close()


def _end_with_input() -> None:
    # Beneath Python's buffer, whose lock this thread would have at the interpreter's end.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def main() -> int:
    """Apply what standard input says; the exit status."""
    os.nice(_NICENESS)
    length = int.from_bytes(sys.stdin.buffer.read(LENGTH), "big")
    try:
        place = msgspec.msgpack.decode(sys.stdin.buffer.read(length), type=Place)
        threading.Thread(target=_end_with_input, daemon=True).start()
        # Others who write wait no longer than a step.
        apply_to(place, lambda worked: time.sleep(worked / 16))
    except (msgspec.DecodeError, StoreError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
