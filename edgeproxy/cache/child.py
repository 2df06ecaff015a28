"""Does in a process of its own what a damaged file may kill."""

from __future__ import annotations

import faulthandler
import os
import resource
import select
import signal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = 300.0


class Told(NamedTuple):
    """What became of it."""

    report: bytes
    """What the work gave; empty where it came to no end."""
    signal: int
    """What killed the process; 0 if nothing did."""
    in_time: bool


def in_child(work: Callable[[], bytes]) -> Told:
    """Have `work` done by a process that is forked for it, in 300 seconds at most.

    The caller must have no other threads, nor an LMDB environment open.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            # To die of what it reads is one of its answers, and nothing to make a noise about.
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.write(writing, work())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        in_time = bool(select.select([pipe], [], [], _SECONDS)[0])
        if not in_time:
            os.kill(child, signal.SIGKILL)
        report = pipe.read()
    _, status = os.waitpid(child, 0)
    return Told(report, os.WTERMSIG(status), in_time)
