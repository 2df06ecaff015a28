"""What happens to a store's folder before the workers start, and after they have ended.

    lock           held by the supervisor and all of its workers
    state.json     format, place of the bodies, boot of the machine, whether it was closed cleanly
    journal/       the invalidations (not of this module, except that they can be damaged)
    responses/     the index
    bodies/        large bodies
    tmp/           bodies on their way in
    worker-<n>/    what a worker has for itself
    damaged-<at>/  what could not be trusted any more, kept for a look

Nothing here opens the index in this process: an LMDB environment must not be carried over a fork,
and a damaged one could kill it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edgeproxy.cache.check import check_in_child
from edgeproxy.cache.errors import UNREADABLE, StoreInUse, StoreUnusable
from edgeproxy.cache.layout import BODIES, FORMAT, RESPONSES, SPOOLS, WORKER
from edgeproxy.cache.store import alive
from edgeproxy.config.urls import AiocacheStore, LmdbStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from edgeproxy.config.model import Config

    CheckJournal: TypeAlias = Callable[[Path, float], bytes | str]

JOURNAL = "journal"
LOCK = "lock"
_STATE = "state.json"
_SET_ASIDE = "damaged-"
_LOCK_SECONDS = 10.0
"""How long to wait for the workers of a supervisor that was killed; they notice, and end."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STEP_SECONDS = 1.0
"""By how much the system's clock may have been stepped without a word of it: ages are whole
seconds."""


class Moment(NamedTuple):
    """A point in time by two clocks, both in seconds."""

    wall: float
    """Since the epoch: a clock that can be set."""
    elapsed: float
    """Since the machine's boot: one that can't."""


class _State(msgspec.Struct, frozen=True):
    """What was written about the store when it was last opened or closed."""

    format: int
    bodies: str
    """Where they are: "files", or which Redis."""
    boot: str
    clean: bool
    wall: float = 0.0
    """The node's clock when this was written; 0 where nobody noted it."""
    elapsed: float = 0.0
    """As in `Moment`, at the same time."""


@dataclass
class Prepared:
    """A store's folder, locked and ready. It stays locked as long as this process or one that it
    forks has `lock` open."""

    directory: Path
    journal_id: bytes
    messages: list[str]
    """What people should know: what was set aside, and why."""
    lock: int
    _state: _State | None = field(repr=False)
    _again: Callable[[str | None], Prepared] = field(repr=False)
    _clock: Callable[[], Moment] = field(repr=False)

    def close(self, *, clean: bool) -> None:
        """Let go of the folder; `clean`: all workers have closed the store.

        What was closed cleanly is good after a crash of the machine too.
        """
        if self.lock < 0:
            return
        if clean and self._state is not None:
            with suppress(OSError):
                _sync(self.directory / RESPONSES / "data.mdb")
                _write_state(self.directory, _at(self._clock(), self._state, clean=True))
        os.close(self.lock)
        self.lock = -1

    def renew(self, distrust: str | None) -> Prepared:
        """What has become of the folder, now that all workers have ended: the same once more.

        `distrust`: why the responses can't be trusted, where that is known already. The caller goes
        on with what this gives. Raises StoreUnusable, and then still has the lock.
        """
        try:
            self._lock_again()
            return self._again(distrust)
        except OSError as error:
            raise _unusable(self.directory, error) from error

    def _lock_again(self) -> None:
        """Have the lock where others look for it, whatever has become of the folder."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self.lock), (self.directory / LOCK).stat()):
                return
        lock = _take_lock(self.directory)
        os.dup2(lock, self.lock, inheritable=False)
        os.close(lock)


def prepare_store(
    config: Config,
    directory: Path,
    check_journal: CheckJournal,
    clock: Callable[[], Moment],
    *,
    distrust: str | None = None,
) -> Prepared:
    """Lock the folder, and see to it that what is in it can be relied on.

    `check_journal` is given the journal's folder, and gives the journal's id, or what is wrong with
    it; where there is none it makes one. It is given as well by how many seconds the clock of the
    times in it was stepped, and sets them right. What can't be trusted is set aside, and a message
    says so: the store begins empty then. Without its journal, no stored response can be trusted.

    `clock` is the node's. Where the system's was stepped since the store was last open, the times
    in it are set right, so that ages go on as if it had not been; where nobody can tell by how much
    it was set back, what is stored can't be trusted. `distrust`: another reason for that.

    The caller must have no other threads: it is forked. Raises StoreInUse and StoreUnusable.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _take_lock(directory)
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        return _prepare(config, directory, check_journal, clock, lock, distrust)
    except OSError as error:
        os.close(lock)
        raise _unusable(directory, error) from error
    except BaseException:
        os.close(lock)
        raise


def _prepare(
    config: Config,
    directory: Path,
    check_journal: CheckJournal,
    clock: Callable[[], Moment],
    lock: int,
    distrust: str | None,
) -> Prepared:
    again = partial(_prepare, config, directory, check_journal, clock, lock)
    messages = []
    journal = check_journal(directory / JOURNAL, 0.0)
    if isinstance(journal, str):
        messages.append(_set_aside(directory, journal, (JOURNAL, RESPONSES, BODIES)))
        journal = check_journal(directory / JOURNAL, 0.0)
        if isinstance(journal, str):
            raise StoreUnusable(journal)
    for leftover in (directory / SPOOLS, *directory.glob(f"{WORKER}*")):
        shutil.rmtree(leftover, ignore_errors=True)
        if leftover.exists() and not leftover.is_dir():
            leftover.unlink()
    place = _place(config)
    if place is None:
        return Prepared(directory, journal, messages, lock, None, again, clock)
    # What LMDB knows of readers and writers is of no use without them, and may be damaged too. On a
    # disk that is full, what follows can have its blocks.
    with suppress(FileNotFoundError, NotADirectoryError):
        (directory / RESPONSES / "lock.mdb").unlink()
    state = _at(clock(), _State(FORMAT, place, _boot(), clean=False))
    known = _known(directory, state)
    reason = known if isinstance(known, str) else distrust if known else None
    if reason is None:
        step = _stepped(known, state) if isinstance(known, _State) else 0.0
        # Nobody can rely on times of which only some have been set right.
        _write_state(directory, msgspec.structs.replace(state, boot="") if step else state)
        told = check_journal(directory / JOURNAL, step) if step else b""
        # Deadlines that could not be set right don't matter where nothing is stored.
        reason = (
            told
            if isinstance(told, str)
            else _check(directory, config.store.max_bytes, journal, step)
        )
        if step and reason is None:
            messages.append(_told_of_step(directory, step))
            _write_state(directory, state)
    if reason is not None:
        messages.append(_set_aside(directory, reason, (RESPONSES, BODIES)))
        _write_state(directory, state)
        reason = _check(directory, config.store.max_bytes, journal)
        if reason is not None:
            raise StoreUnusable(f"can't make an index in {directory}: {reason}")
    return Prepared(directory, journal, messages, lock, state, again, clock)


def _place(config: Config) -> str | None:
    """Which bodies an index speaks of; None where it does not outlive the run."""
    match config.store.url:
        case LmdbStore():
            return "files"
        case AiocacheStore(host=host, port=port, db=db):
            return f"{host}:{port}/{db}"
    return None


def _known(directory: Path, now: _State) -> _State | str | None:
    """What is known of what is in the folder, or why that can't be relied on, as far as that shows
    without a look; None where there is nothing."""
    for name in (RESPONSES, BODIES):
        if (directory / name).exists() and not (directory / name).is_dir():
            return f"{name} is no folder"
    if not (directory / RESPONSES).exists():
        return None
    try:
        was = msgspec.json.decode((directory / _STATE).read_bytes(), type=_State)
    except FileNotFoundError:
        return "it has no state.json"
    except UNREADABLE as error:
        return f"its state.json can't be read: {error}"
    if was.format != now.format:
        return f"it has format {was.format}, and this version knows {now.format}"
    if was.bodies != now.bodies:
        return f"its bodies are in {was.bodies}, not in {now.bodies}"
    if not was.clean and (was.boot != now.boot or not now.boot):
        return "the machine went down while it was open"
    if was.boot != now.boot and now.wall < was.wall - _STEP_SECONDS:
        return "the system's clock is behind the time when it was closed: nothing has an age"
    return was


def _stepped(was: _State, now: _State) -> float:
    """By how many seconds the system's clock was stepped in between, forward or (negative) back.

    0 where it wasn't, or nobody can tell.
    """
    if not was.wall or was.boot != now.boot:
        return 0.0
    step = (now.wall - was.wall) - (now.elapsed - was.elapsed)
    return step if abs(step) > _STEP_SECONDS else 0.0


def _told_of_step(directory: Path, step: float) -> str:
    where = "back" if step < 0 else "forward"
    return (
        f"the system's clock was set {where} by {abs(step):.0f} s since the store in {directory} "
        "was last opened: ages go on as if it had not been"
    )


def _at(moment: Moment, state: _State, **changes: bool) -> _State:
    return msgspec.structs.replace(state, wall=moment.wall, elapsed=moment.elapsed, **changes)


def _check(directory: Path, max_bytes: int, journal_id: bytes, step: float = 0.0) -> str | None:
    """What is wrong with the index; raises StoreUnusable where nobody can tell."""
    finding = check_in_child(directory / RESPONSES, directory / BODIES, max_bytes, journal_id, step)
    if finding.verdict == "unusable":
        raise StoreUnusable(f"can't use {directory / RESPONSES}: {finding.reason}")
    return finding.reason if finding.verdict == "damaged" else None


def _set_aside(directory: Path, reason: str, names: Iterable[str]) -> str:
    """Move what can't be trusted out of the way; the message about it."""
    for older in directory.glob(f"{_SET_ASIDE}*"):
        shutil.rmtree(older, ignore_errors=True)
    target = directory / f"{_SET_ASIDE}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    target.mkdir(mode=0o700)
    moved = []
    for name in names:
        with suppress(FileNotFoundError):
            (directory / name).rename(target / name)
            moved.append(name)
    what = ", ".join(moved)
    return f"the store in {directory} can't be trusted: {reason}; {what} set aside in {target}"


def _unusable(directory: Path, error: OSError) -> StoreUnusable:
    return StoreUnusable(f"can't use the folder {directory}: {error.strerror}")


def _take_lock(directory: Path) -> int:
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                os.close(fd)
                raise
        else:
            # Always as long: on a disk that is full it can be written over, and not anew.
            os.pwrite(fd, b"%-20d\n" % os.getpid(), 0)
            return fd
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
        gone = holder.isdigit() and not alive(int(holder))
        if not gone or time.monotonic() > give_up:
            os.close(fd)
            raise StoreInUse(f"another edgeproxy (process {holder or 'unknown'}) has {directory}")
        time.sleep(0.05)


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _write_state(directory: Path, state: _State) -> None:
    new = directory / f"{_STATE}.new"
    new.touch(0o600)
    new.write_bytes(msgspec.json.encode(state))
    _sync(new)
    new.rename(directory / _STATE)
    _sync(directory)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
