"""What the workers of a node share, and where a worker finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker finds what it shares with the others of its node."""

    worker: int
    """Its number, from 0."""
    directory: Path
    """The state directory: journal and store."""
    runtime_dir: Path
    """A folder that this edge alone can enter."""
    journal_id: bytes
    head: memoryview
    """64 bytes: the journal's head."""
    filters: Sequence[memoryview]
    """Each worker's counters of fetches in flight."""
    remembered: memoryview
    """The slots of `RememberedTargets`."""
    tallies: Sequence[memoryview]
    """Each worker's counts of what it did not store, and whom it refused."""
    verdicts: memoryview
    """What checks say of the origins."""
    files: int
    """How many files it may have open."""
    on_damage: Callable[[str], None] | None = None
    """Told, by any thread, what is damaged of what is in `directory`."""
