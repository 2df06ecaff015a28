"""Builds that are broken on purpose, to show that whoever looks for such faults finds them.

Each function breaks one promise in the process that calls it, before anything is started there.
"""

from __future__ import annotations

import random
import resource
import time
from typing import TYPE_CHECKING, Any

from edgeproxy.cache.changes import Changes
from edgeproxy.invalidation.view import JournalView
from edgeproxy.proxy.keeping import Keeping

if TYPE_CHECKING:
    from collections.abc import Iterable


def deaf_workers() -> None:
    """Workers that read the journal when they start, and never again."""
    catch_up = JournalView.catch_up

    def once(view: JournalView) -> int:
        if not hasattr(view, "_sabotaged"):
            view._sabotaged = catch_up(view)  # type: ignore[attr-defined]
        position: int = view._sabotaged  # type: ignore[attr-defined]
        return position

    JournalView.catch_up = once  # type: ignore[method-assign]


def late_positions() -> None:
    """A response bears the journal's position of when it came, not of when it was asked for."""
    storable = Keeping.storable

    def late(
        keeping: Keeping, request: Any, answer: Any, position: int, *rest: Any, **more: Any
    ) -> Any:
        return storable(keeping, request, answer, keeping._view.catch_up(), *rest, **more)

    Keeping.storable = late  # type: ignore[method-assign]


def an_hour_back() -> None:
    """A system clock that says an hour less than it is."""
    _step(-3600.0)


def an_hour_ahead() -> None:
    """A system clock that says an hour more than it is."""
    _step(3600.0)


def restless_clock() -> None:
    """A system clock that is stepped back and forth an hour, whenever it is read."""
    now, draw = time.time, random.Random(1)
    time.time = lambda: now() + draw.choice((3600.0, -3600.0, 0.0))


def _step(seconds: float) -> None:
    now = time.time
    time.time = lambda: now() + seconds


def idle_sweeps() -> None:
    """Rules are dropped as if they had been applied to what is stored."""

    def sweep(changes: Changes, txn: object, actions: Iterable[object]) -> int:
        return 0

    Changes.sweep = sweep  # type: ignore[method-assign, assignment]


def few_files() -> None:
    """No fault of the build's: it may have 96 files open, and no more."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))


def low_soft_limit() -> None:
    """No fault of the build's: its limit of open files is lower than it has to be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, most), most))
