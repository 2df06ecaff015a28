"""The supervisor: it holds the sockets, forks the workers, replaces those that die, ends them all.

It runs no event loop, no thread, and opens no database, so that it can fork at any time.
"""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.cache.errors import StoreError
from edgeproxy.invalidation.journal import JournalError
from edgeproxy.proxy.peers import peer_path
from edgeproxy.runtime import control, logs, worker
from edgeproxy.runtime.folders import FolderRefused
from edgeproxy.runtime.posts import Post, Reload, Renewal
from edgeproxy.runtime.process import SIGNALS, Crashes, WorkerProcess, end_in_words, fork_worker
from edgeproxy.runtime.settings import reloaded, tell_refused
from edgeproxy.runtime.shared import SharedBlock
from edgeproxy.runtime.tls import load_certificates
from edgeproxy.runtime.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.config.model import Config
    from edgeproxy.runtime.clock import Clock
    from edgeproxy.runtime.folders import RunFolder
    from edgeproxy.runtime.sockets import ListeningSockets
    from edgeproxy.runtime.state import NodeState

log = logging.getLogger(__name__)

# So many in a row, before any worker has ever been ready: it never worked, and won't.
_HOPELESS_STARTS = 3
# What a worker gets, beyond the drain time, for closing its store and writing its logs.
_CLOSE_SECONDS = 5.0
# What it gets for that where its store is set aside, so that it closes nothing.
_KILL_AFTER_SECONDS = 1.0
_RENEWAL_PAUSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Premises:
    """What a run has, all of it made before the first worker."""

    public: tuple[ListeningSockets, ...]
    """In the order of the configuration's listeners."""
    admin: ListeningSockets
    state: NodeState
    run_folder: RunFolder
    clock: Clock


class Supervisor:
    """One run of an edge, from its first worker to the end of its last."""

    def __init__(
        self,
        config: Config,
        premises: Premises,
        *,
        reread: Callable[[], Config] | None,
        on_ready: Callable[[], None],
    ) -> None:
        """`reread` loads the configuration again, raising ConfigError; None: it can't be reloaded.

        `on_ready` is called once, when every worker accepts for the first time.
        """
        self._config = config
        self._premises = premises
        self._reread = reread
        self._on_ready = on_ready
        self._block = SharedBlock(config.worker_count())
        self._posts = [Post() for _ in self._block.slots]
        self._selector = selectors.DefaultSelector()
        self._signals: deque[int] = deque()
        self._wake, self._waker = socket.socketpair()
        self._was_ready = False
        self._reload = Reload()
        self._crashes = Crashes()
        self._watchdog = Watchdog(self._block.slots)
        self._renewal: Renewal | None = None
        self._renewed_at = -_RENEWAL_PAUSE_SECONDS
        self._kill_at: float | None = None
        """Set while the run is ending: when those that have not ended are killed."""
        self._hopeless = False
        self.ended_well = True
        """Whether all workers closed what they had open, as far as they have been told to end."""

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT, then end the workers: the exit status."""
        self._catch_signals()
        # What is there now stays as it is, in pages that the workers share.
        gc.freeze()
        while self._kill_at is None or self._processes:
            self._start_due()
            for key, events in self._selector.select(self._timeout()):
                key.data(events)
            while self._signals:
                self._obey(self._signals.popleft())
            self._reap()
            self._kill_hung()
            self._kill_late()
        return 1 if self._hopeless else 0

    @property
    def _processes(self) -> list[WorkerProcess]:
        return [post.process for post in self._posts if post.process]

    def _timeout(self) -> float:
        """Seconds until something is due, whatever else happens."""
        due = [post.due for post in self._posts if post.due is not None]
        due = [*due, self._watchdog.due] if self._late_at is None else [self._late_at]
        return max(0.0, min(due) - time.monotonic())

    # Signals

    def _catch_signals(self) -> None:
        for end in (self._wake, self._waker):
            end.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ, lambda _: self._wake.recv(4096))
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._signals.append(number))

    def _obey(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._kill_at is None:
                log.info("ending on %s", signal.Signals(number).name)
                self._drain()
            else:
                self._kill_at = time.monotonic()
        elif number == signal.SIGHUP and self._kill_at is None:
            self._reload_config()
        elif number == signal.SIGUSR1:
            self._tell_all(control.Reopen())

    # Workers

    def _start_due(self) -> None:
        now = time.monotonic()
        for number, post in enumerate(self._posts):
            if post.due is not None and post.due <= now:
                post.due = None
                try:
                    post.process = self._start(number)
                except OSError as error:
                    # No process, memory or file is to be had: those that run go on meanwhile.
                    post.put_off()
                    log.critical("worker %d can't be started yet: %s", number, error)
                else:
                    self._watch(post.process)

    def _start(self, number: int) -> WorkerProcess:
        supervisor = os.getpid()

        def become(channel: socket.socket) -> None:
            self._let_go(number)
            seat = worker.Seat(
                number=number,
                config=self._config,
                clock=self._premises.clock,
                state=self._premises.state,
                run_folder=self._premises.run_folder,
                block=self._block,
                channel=channel,
                public=tuple(one.by_worker[number] for one in self._premises.public),
                admin=self._premises.admin.by_worker[number],
            )
            worker.run(seat, supervisor)

        return fork_worker(number, become)

    def _let_go(self, number: int) -> None:
        """In a new worker: close what is the supervisor's, and the other workers'."""
        self._selector.close()
        self._wake.close()
        self._waker.close()
        for process in self._processes:
            process.channel.close()
        others = [other for other in range(len(self._posts)) if other != number]
        for listening in (*self._premises.public, self._premises.admin):
            for other in others:
                listening.close_of(other)

    def _tell_all(self, message: control.ToWorker) -> None:
        for process in self._processes:
            process.channel.send(message)
            self._watch(process)

    def _watch(self, process: WorkerProcess) -> None:
        """Wait for what the worker says, and for room where something could not be sent yet."""
        wanted = selectors.EVENT_READ
        if process.channel.wants_write:
            wanted |= selectors.EVENT_WRITE

        def happened(events: int) -> None:
            if events & selectors.EVENT_WRITE:
                process.channel.flush()
            if events & selectors.EVENT_READ and not self._hear(process):
                self._selector.unregister(process.channel.sock)
            else:
                self._watch(process)

        known = process.channel.sock in self._selector.get_map()
        change = self._selector.modify if known else self._selector.register
        change(process.channel.sock, wanted, happened)

    def _hear(self, process: WorkerProcess) -> bool:
        """Take in what a worker says; False when it will say nothing more."""
        messages, more = process.channel.receive()
        for message in messages:
            match message:
                case control.Ready():
                    process.ready = True
                    self._announce_once()
                case control.Reloaded(generation, refused):
                    self._note_reloaded(process, generation, refused)
                case control.Damaged(reason):
                    self._begin_renewal(reason)
                case control.Astray(reason, stored):
                    self._begin_renewal(reason, distrust=stored)
        return more

    def _announce_once(self) -> None:
        ready = [process for process in self._processes if process.ready]
        if len(ready) == len(self._posts) and not self._was_ready:
            self._was_ready = True
            self._on_ready()

    def _reap(self) -> None:
        for post in self._posts:
            process = post.process
            status = process.exit_status() if process else None
            if process is None or status is None:
                continue
            post.process = None
            self._clear_away(process)
            if self._kill_at is not None:
                self.ended_well = self.ended_well and status == 0
                continue
            if self._renewal is None:
                self._replace(post, process, end_in_words(status))
                if self._crashes.blame_store(status):
                    self._begin_renewal(f"worker {process.number} {end_in_words(status)}")
            self._note_reloaded(process, self._reload.generation, None)
        if self._renewal is not None and not self._processes:
            self._renew(self._renewal)

    def _kill_hung(self) -> None:
        if self._late_at is not None:
            return
        ready = [process for process in self._processes if process.ready]
        for process in self._watchdog.hung(ready, self._config.limits.hang_timeout):
            log.error("worker %d (pid %d) hangs and is killed", process.number, process.pid)
            os.kill(process.pid, signal.SIGKILL)

    def _clear_away(self, process: WorkerProcess) -> None:
        """Whatever a worker that has ended left behind."""
        if process.channel.sock in self._selector.get_map():
            # It may have said something before its end.
            self._hear(process)
            self._selector.unregister(process.channel.sock)
        process.channel.close()
        self._block.slots[process.number].clear()
        # Where nothing can be removed any more, it goes with the run's folder.
        with suppress(OSError):
            peer_path(self._premises.run_folder.path, process.pid).unlink()

    def _replace(self, post: Post, process: WorkerProcess, end: str) -> None:
        post.note_end(process)
        if not self._was_ready and post.short_lives >= _HOPELESS_STARTS:
            log.critical("worker %d %s, as those before it: giving up", process.number, end)
            self._hopeless = True
            self._drain()
            return
        pause = post.wait()
        when = f"in {pause:g} s" if pause else "now"
        log.error(
            "worker %d (pid %d) %s; another one starts %s", process.number, process.pid, end, when
        )

    # Damage

    def _begin_renewal(self, reason: str, *, distrust: bool = True) -> None:
        """Have all workers end, so that what they can't rely on any more can be set aside.

        Not again at once: what is still wrong then was not the store.
        """
        now = time.monotonic()
        ending = self._renewal is not None or self._kill_at is not None
        if ending or now < self._renewed_at + _RENEWAL_PAUSE_SECONDS:
            return
        begin = "with an empty store" if distrust else "anew"
        log.error("%s: all workers end, and begin %s", reason, begin)
        kill_at = now + worker.RETIRE_SECONDS + _KILL_AFTER_SECONDS
        self._renewal = Renewal(reason, distrust, kill_at)
        for post in self._posts:
            post.due = None
        self._tell_all(control.Retire())

    def _renew(self, renewal: Renewal) -> None:
        self._renewal = None
        if self._kill_at is not None:
            self.ended_well = False
            return
        state = self._premises.state
        try:
            self._premises.run_folder.restore()
            state.renew(renewal.reason if renewal.distrust else None)
        except (FolderRefused, JournalError, StoreError) as error:
            log.critical("%s: giving up", error)
            self._hopeless = True
            self._drain()
            return
        self._config = self._config.model_copy(update={"store": state.config.store})
        # It may be another journal.
        self._block.head[:] = bytes(len(self._block.head))
        self._renewed_at = time.monotonic()
        for post in self._posts:
            post.due = self._renewed_at

    # Reloading

    def _reload_config(self) -> None:
        if self._reread is None:
            log.warning("nothing to reload: the configuration came from flags")
            return
        try:
            new = self._reread()
            config = reloaded(self._config, new)
            load_certificates(config)
        except Exception as error:
            # Whatever a file does to its reader, the edge goes on.
            tell_refused(error)
            return
        for difference in self._config.reload_differences(new):
            log.warning("a reload can't change this, a restart can: %s", difference)
        self._config = config
        logs.configure(config.log.level, "supervisor")
        numbers = {process.number for process in self._processes}
        self._reload = Reload(self._reload.generation + 1, numbers)
        raw = msgspec.Raw(config.model_dump_json().encode())
        self._tell_all(control.Reload(self._reload.generation, raw))

    def _note_reloaded(self, process: WorkerProcess, generation: int, refused: str | None) -> None:
        if refused is not None:
            log.error("worker %d keeps its configuration: %s", process.number, refused)
        reload = self._reload
        if generation == reload.generation and process.number in reload.waiting:
            reload.waiting.discard(process.number)
            reload.refused = reload.refused or refused is not None
            if not reload.waiting and reload.refused:
                log.error("the configuration has been reloaded by some workers at most; try again")
            elif not reload.waiting:
                log.info("the configuration has been reloaded")

    # The end

    def _drain(self) -> None:
        self._kill_at = time.monotonic() + self._config.limits.drain_timeout + _CLOSE_SECONDS
        for post in self._posts:
            post.due = None
        # Nobody comes after the workers any more: their own sockets are the last ones, so that
        # nothing can wait at one that its worker has closed.
        for listening in (*self._premises.public, self._premises.admin):
            listening.close()
        self._tell_all(control.Drain())

    @property
    def _late_at(self) -> float | None:
        """When workers that are to end, and haven't, are killed."""
        if self._kill_at is None and self._renewal is not None:
            return self._renewal.kill_at
        return self._kill_at

    def _kill_late(self) -> None:
        if self._late_at is None or time.monotonic() < self._late_at:
            return
        for process in self._processes:
            log.warning("worker %d has not ended in time and is killed", process.number)
            os.kill(process.pid, signal.SIGKILL)
        # Only their deaths are awaited now.
        later = time.monotonic() + _CLOSE_SECONDS
        if self._kill_at is not None:
            self._kill_at = later
        elif self._renewal is not None:
            self._renewal = replace(self._renewal, kill_at=later)
