"""A worker's process as its supervisor sees it: how it begins, what is said of its end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from edgeproxy.runtime.control import SupervisorEnd

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_TOLD_BY_SUPERVISOR = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

SIGNALS = (*_TOLD_BY_SUPERVISOR, signal.SIGCHLD)
"""What a supervisor handles."""


_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
_MANY, _SECONDS = 3, 60.0


class Crashes:
    """Tells which deaths of workers are likely due to what is stored.

    LMDB reads its file as memory. Where that is cut short, or the disk fails, this is SIGBUS; where
    it is something else than LMDB wrote, a crash, but others crash, too, if not so often.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=_MANY)

    def blame_store(self, status: int) -> bool:
        """Whether what is stored is to blame, now that a worker ended with this exit status."""
        if status == -signal.SIGBUS:
            return True
        if -status not in _CRASHES:
            return False
        now = self._clock()
        self._times.append(now)
        return len(self._times) == _MANY and now - self._times[0] < _SECONDS


@dataclass(slots=True)
class WorkerProcess:
    """A worker that runs."""

    number: int
    pid: int
    channel: SupervisorEnd
    started: float
    """On the monotonic clock."""
    ready: bool = False

    def exit_status(self) -> int | None:
        """How it ended, a negative number for a signal; None while it runs. Not to be asked again
        after that."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None


def fork_worker(number: int, become: Callable[[socket.socket], None]) -> WorkerProcess:
    """Fork; the new process runs `become` with its end of the channel, and ends with it.

    Status 0 when it returned, 1 when it failed, which is logged. Raises OSError where there is no
    room for one.
    """
    ours, theirs = socket.socketpair()
    # No handler of the supervisor's may run in the worker.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        ours.close()
        signal.set_wakeup_fd(-1)
        # A terminal's Ctrl-C reaches the whole group: what it means, the supervisor says.
        for signum in _TOLD_BY_SUPERVISOR:
            signal.signal(signum, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _run_to_end(lambda: become(theirs))
    theirs.close()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return WorkerProcess(number, pid, SupervisorEnd(ours), time.monotonic())


def _run_to_end(function: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        function()
        status = 0
    except Exception:
        log.critical("the worker has failed", exc_info=True)
    finally:
        logging.shutdown()
        os._exit(status)


def end_in_words(status: int) -> str:
    """What an exit status means."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
