"""What a node remembers of its callers: calls made, calls in the current window, answers given.

Shared by all workers, and kept over restarts. Nothing waits for the disk: after a power failure it
may begin anew, which no purge depends on.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import struct
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import lmdb
import msgspec

from edgeproxy.cache.child import in_child
from edgeproxy.cache.errors import UNREADABLE
from edgeproxy.invalidation.journal import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgeproxy.config.rates import Rate

log = logging.getLogger(__name__)

LEDGER = "ledger"
"""Its folder's name in the state directory."""
KEPT_SECONDS = 86_400.0
"""How long an answer is kept for its idempotency key."""
KEPT_KEYS = 1000
"""The most idempotency keys of a token; the oldest goes first."""
KEPT_BYTES = 16_384
"""The longest answer that is kept."""
_PENDING_SECONDS = 60.0
"""After so long a call without an answer is taken for one whose worker has died."""

_MAP_BYTES = 256 << 20
_MAX_READERS = 512
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OPEN, _CLOSED = b" open  ", b" closed"
"""Of one length: each is written over the other."""
_TOKEN_BYTES = 16
_COUNT = struct.Struct(">Q")
_WINDOW = struct.Struct(">dQ")
_TIME = struct.Struct(">d")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Full:
    """A window that has no room for another call."""

    rate: Rate
    reset: float
    """When it ends, in seconds since the epoch."""


class Kept(msgspec.Struct, frozen=True):
    """A call that was made with an idempotency key."""

    time: float
    digest: bytes
    """What was asked for."""
    answer: bytes | None = None
    """What was answered; None: it is still being worked on."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Kept)


class Ledger:
    """The node's memory of its callers, in a folder of its own; every call takes microseconds.

    All methods raise JournalError where the folder can't be read or written.
    """

    def __init__(self, directory: Path) -> None:
        """Open or make it; one that the machine's end may have torn is put away first."""
        self.directory = directory
        with self._errors(), ExitStack() as opened:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_fd = os.open(directory / "open.lock", os.O_RDWR | os.O_CREAT, 0o600)
            opened.callback(os.close, self._lock_fd)
            self._claim()
            self._env = self._open()
            opened.callback(self._env.close)
            self._calls = self._env.open_db(b"calls")
            self._windows = self._env.open_db(b"windows")
            self._keys = self._env.open_db(b"keys")
            self._order = self._env.open_db(b"order")
            self._opened = opened.pop_all()

    # -- how often

    def count_call(self, token: str, limit: int) -> bool:
        """Count a call of a token; False, and it is not counted, if it has made `limit` already."""

        def count(transaction: lmdb.Transaction) -> bool:
            made = self._made(transaction, token)
            if made >= limit:
                return False
            transaction.put(_name(token), _COUNT.pack(made + 1), db=self._calls)
            return True

        return self._write(count)

    def calls(self, token: str) -> int:
        """How many calls of a token were counted."""
        with self._errors(), self._env.begin() as transaction:
            return self._made(transaction, token)

    def take(self, windows: Sequence[tuple[str, Rate]], now: float) -> Full | None:
        """Count a call in the window of each subject; the first that is full, and none counts it.

        A window begins with its first call, and with the next one after its end.
        """
        if not windows:
            return None

        def take(transaction: lmdb.Transaction) -> Full | None:
            rows = []
            for subject, rate in windows:
                row = transaction.get(_name(subject), db=self._windows)
                start, count = _WINDOW.unpack(row) if row else (now, 0)
                # A clock that was set back must not close a window for longer than it lasts.
                if not start <= now < start + rate.seconds:
                    start, count = now, 0
                if count >= rate.calls:
                    return Full(rate, start + rate.seconds)
                rows.append((_name(subject), _WINDOW.pack(start, count + 1)))
            for key, row in rows:
                transaction.put(key, row, db=self._windows)
            return None

        return self._write(take)

    # -- once only

    def begin(self, token: str, key: str, digest: bytes, now: float) -> Kept | None:
        """What is known of a call with that idempotency key; None: it is new, and now begun."""
        row_key = _call_key(token, key)

        def begin(transaction: lmdb.Transaction) -> Kept | None:
            kept = self._kept(transaction, row_key)
            if kept is not None:
                lasts = _PENDING_SECONDS if kept.answer is None else KEPT_SECONDS
                if 0 <= now - kept.time < lasts:
                    return kept
                transaction.delete(_order_key(row_key, kept.time), db=self._order)
            self._make_room(transaction, row_key[:_TOKEN_BYTES], now)
            transaction.put(row_key, _encoder.encode(Kept(now, digest)), db=self._keys)
            transaction.put(_order_key(row_key, now), b"", db=self._order)
            return None

        return self._write(begin)

    def finish(self, token: str, key: str, answer: bytes) -> None:
        """Keep the answer to a call that was begun; one that is too long is not kept."""
        row_key = _call_key(token, key)

        def finish(transaction: lmdb.Transaction) -> None:
            kept = self._kept(transaction, row_key)
            if kept is not None:
                kept = msgspec.structs.replace(kept, answer=answer)
                transaction.put(row_key, _encoder.encode(kept), db=self._keys)

        if len(answer) > KEPT_BYTES:
            self.forget(token, key)
        else:
            self._write(finish)

    def forget(self, token: str, key: str) -> None:
        """A call that was begun has failed, and may be made again."""
        row_key = _call_key(token, key)

        def forget(transaction: lmdb.Transaction) -> None:
            kept = self._kept(transaction, row_key)
            if kept is not None:
                transaction.delete(row_key, db=self._keys)
                transaction.delete(_order_key(row_key, kept.time), db=self._order)

        self._write(forget)

    def read_through(self) -> None:
        """Read all of it."""
        with self._errors(), self._env.begin() as transaction:
            for db in (self._calls, self._windows, self._keys, self._order):
                for _ in transaction.cursor(db):
                    pass

    def close(self) -> None:
        """Close; the last worker to do so leaves all of it on the disk."""
        with self._errors():
            self._env.sync(True)
        if _locked(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB):
            self._mark(_CLOSED)
        self._opened.close()

    # -- inside

    def _made(self, transaction: lmdb.Transaction, token: str) -> int:
        row = transaction.get(_name(token), db=self._calls)
        count: int = _COUNT.unpack(row)[0] if row else 0
        return count

    def _kept(self, transaction: lmdb.Transaction, row_key: bytes) -> Kept | None:
        row = transaction.get(row_key, db=self._keys)
        return _decoder.decode(row) if row else None

    def _make_room(self, transaction: lmdb.Transaction, token: bytes, now: float) -> None:
        """Drop a token's oldest keys: those that have had their time, and what is too many."""
        cursor = transaction.cursor(self._order)
        old: list[bytes] = []
        if cursor.set_range(token):
            keys = map(bytes, cursor.iternext(keys=True, values=False))
            old.extend(takewhile(lambda key: key.startswith(token), keys))
        surplus = len(old) - KEPT_KEYS + 1
        for place, key in enumerate(old):
            (time,) = _TIME.unpack_from(key, _TOKEN_BYTES)
            if place >= surplus and now - time < KEPT_SECONDS:
                break
            transaction.delete(key, db=self._order)
            transaction.delete(token + key[_TOKEN_BYTES + _TIME.size :], db=self._keys)

    def _write(self, change: Callable[[lmdb.Transaction], _T]) -> _T:
        with self._errors():
            try:
                with self._env.begin(write=True) as transaction:
                    return change(transaction)
            except lmdb.MapFullError:
                # So many tokens keep so long answers: those are what can be spared.
                with self._env.begin(write=True) as transaction:
                    transaction.drop(self._keys, delete=False)
                    transaction.drop(self._order, delete=False)
                with self._env.begin(write=True) as transaction:
                    return change(transaction)

    def _claim(self) -> None:
        """Hold the folder with the others; the first to come looks whether it is whole.

        LMDB that waits for no disk is whole while the machine runs, and after it was closed; what
        the machine's sudden end left of it can't be trusted, and can kill who maps it.
        """
        if _locked(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB):
            marked = os.pread(self._lock_fd, 128, 0)
            if marked.endswith(_OPEN) and marked != _boot() + _OPEN:
                log.warning("the machine ended before %s was closed: it is empty now", self)
                shutil.rmtree(self._data, ignore_errors=True)
        _locked(self._lock_fd, fcntl.LOCK_SH)
        self._mark(_OPEN)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _open(self) -> lmdb.Environment:
        def attempt() -> lmdb.Environment:
            # LMDB would make the folder with the files' mode, and nobody but root could enter it.
            self._data.mkdir(mode=0o700, exist_ok=True)
            return lmdb.open(
                str(self._data),
                map_size=_MAP_BYTES,
                max_dbs=4,
                max_readers=_MAX_READERS,
                sync=False,
                mode=0o600,
            )

        try:
            return attempt()
        except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError) as error:
            log.warning("%s is damaged, and empty now: %s", self, error)
            shutil.rmtree(self._data, ignore_errors=True)
            return attempt()

    def _mark(self, state: bytes) -> None:
        os.pwrite(self._lock_fd, _boot() + state, 0)
        os.fsync(self._lock_fd)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, OSError, struct.error, *UNREADABLE) as error:
            raise JournalError(f"{self}: {error}") from error

    def __str__(self) -> str:
        return f"the ledger in {self.directory}"


def check_ledger(directory: Path) -> None:
    """Empty a ledger that can't be read to its end; for when nobody has it open.

    The caller must have no other threads.
    """

    def read() -> bytes:
        ledger = Ledger(directory)
        ledger.read_through()
        ledger.close()
        return b"whole"

    if directory.exists() and not in_child(read).report:
        log.warning("the ledger in %s is damaged, and empty now", directory)
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.is_dir():
            directory.unlink(missing_ok=True)


def _boot() -> bytes:
    """What tells this run of the machine from others: 36 bytes, always."""
    return _BOOT_ID.read_bytes().strip()


def _name(subject: str) -> bytes:
    return subject.encode()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _call_key(token: str, key: str) -> bytes:
    return _digest(token) + _digest(key)


def _order_key(row_key: bytes, time: float) -> bytes:
    """Sorted by token and time; times are after 1970, so their bytes sort as they do."""
    return row_key[:_TOKEN_BYTES] + _TIME.pack(time) + row_key[_TOKEN_BYTES:]


def _locked(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        return False
    return True
