"""Builds that are broken on purpose, to show that whoever looks for such faults finds them.

Each function breaks one promise in the process that calls it, before anything is started there.
"""

from __future__ import annotations

import json
import os
import random
import resource
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy.cache.changes import Changes
from edgeproxy.invalidation.view import JournalView
from edgeproxy.proxy import origin_names
from edgeproxy.proxy.fast import FastPath
from edgeproxy.proxy.keeping import Keeping
from edgeproxy.runtime import worker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.proxy.origin_names import Addresses


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


def names_of_a_file() -> None:
    """No fault of the build's: names are what the JSON in KIT_NAMES says, for a fifth of a second.

    A list of addresses, "hang" for a server that does not answer, "fail" for one that can't say,
    or nothing, for a name that there is not.
    """
    path = Path(os.environ["KIT_NAMES"])

    def look_up(host: str) -> Addresses:
        said = json.loads(path.read_text()).get(host)
        if said == "hang":
            time.sleep(60.0)
        if said == "fail":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if said is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return tuple((socket.AF_INET, 6, address) for address in said)

    origin_names.NAMES._ask = look_up
    origin_names._FRESH_SECONDS = 0.2  # type: ignore[misc]


def costly_hits() -> None:
    """No fault of the build's: a hit takes it a fifth of a millisecond, so that a few clients are
    enough to keep it busy, on a busy machine too."""
    send = FastPath._send

    def at_a_cost(path: FastPath, *arguments: Any, **more: Any) -> None:
        until = time.thread_time() + 0.0002
        while time.thread_time() < until:
            pass
        send(path, *arguments, **more)

    FastPath._send = at_a_cost  # type: ignore[method-assign]


def orphans() -> None:
    """Workers that outlive their supervisor until they notice that it is gone."""
    worker._die_with = lambda parent: None


def few_files() -> None:
    """No fault of the build's: it may have 96 files open, and no more."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))


def low_soft_limit() -> None:
    """No fault of the build's: its limit of open files is lower than it has to be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, most), most))
