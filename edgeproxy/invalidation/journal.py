"""The journal: the ordered, durable list of invalidations of a node."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import lmdb
import msgspec

from edgeproxy.cache.disk import READ_DAMAGE, allocate_lock_file, disk_error
from edgeproxy.cache.errors import UNREADABLE
from edgeproxy.invalidation.record import Buster, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lmdb import _StatDict

    from edgeproxy.invalidation.head import SharedHead

log = logging.getLogger(__name__)

FORMAT = b"edgeproxy journal 2"
KEPT_BUSTERS = 10_000
"""How many of the newest issued cache busters are known; an older one is like any other token."""
KEPT_RECORDS = 100_000
"""How many of the newest records stay readable after they have been dealt with."""

_MAP_BYTES = 4 << 30
"""Address space, not disk: the file grows with what is in it."""
_TRIM_BYTES = _MAP_BYTES // 4
"""Records beyond this many bytes are trimmed, though fewer than are kept stay."""
_TRIM_STEP = 1000
_ROOM_BYTES = 1 << 20
"""Room for records that the file has beforehand: a full disk is no time to refuse a purge."""
_MAX_READERS = 512
_DATABASES = 3
_POSITION = struct.Struct(">Q")
_CRC = struct.Struct(">I")
_ID = b"id"
_FORMAT = b"format"
_ROOM = b"room"


class JournalError(Exception):
    """The journal could not be read or written; the message names its folder."""


class JournalDamaged(JournalError):
    """The folder does not hold a whole journal of this version."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)
_buster_decoder = msgspec.msgpack.Decoder(Buster)


class LocalJournal:
    """A journal in a folder of its own, shared by all workers of the node.

    A record is durable first (its transaction is on the disk), then visible (the shared head has
    its position), under one lock of the node: positions become visible in the order in which they
    were given. What a killed process left durable and not visible, the next to open the journal or
    to append makes visible.
    """

    def __init__(
        self,
        directory: Path,
        head: SharedHead,
        on_damage: Callable[[str], None] | None = None,
        *,
        kept_records: int = KEPT_RECORDS,
    ) -> None:
        """Open or make it. Raises JournalDamaged, or JournalError where the folder is unusable.

        `on_damage` is told, by any thread, each time that JournalDamaged is raised.
        """
        self._kept_records = kept_records
        self.directory = directory
        self._head = head
        self._on_damage = on_damage
        self._waiting: list[tuple[Record, asyncio.Future[Record]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._cramped = False
        with self._errors(), ExitStack() as opened:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_fd = os.open(directory / "append.lock", os.O_RDWR | os.O_CREAT, 0o600)
            opened.callback(os.close, self._lock_fd)
            allocate_lock_file(directory, _MAX_READERS)
            self._env = lmdb.open(
                str(directory), map_size=_MAP_BYTES, max_dbs=3, max_readers=_MAX_READERS, mode=0o600
            )
            opened.callback(self._env.close)
            self._env.reader_check()
            self._records = self._env.open_db(b"records")
            self._busters = self._env.open_db(b"busters")
            self._meta = self._env.open_db(b"meta")
            self.id = self._identify()
            """16 random bytes that tell this journal from every other."""
            with self._locked():
                first, last = self._ends()
                head.publish(last)
            with self._env.begin() as transaction:
                count = transaction.stat(self._records)["entries"]
            if last and count < last - first + 1:
                raise JournalDamaged(f"the journal in {directory} has lost records")
            self.make_room()
            self._opened = opened.pop_all()
        self._executor = ThreadPoolExecutor(1, "journal")

    async def append(self, record: Record) -> Record:
        """Put a record at the end: it is durable and in effect on the whole node on return.

        Records that wait while others are being written go to the disk together. Cancelling the
        wait does not take the record back.
        """
        # What can't be encoded is its caller's mistake, and not that of those who wait with it.
        _encoder.encode(record)
        done: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, done))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        return await done

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                drafts = [draft for draft, _ in batch]
                try:
                    written = await loop.run_in_executor(self._executor, self.append_all, drafts)
                except Exception as error:
                    for _, done in batch:
                        if not done.cancelled():
                            done.set_exception(error)
                    continue
                for (_, done), record in zip(batch, written, strict=True):
                    if not done.cancelled():
                        done.set_result(record)
        finally:
            self._writing = None

    def append_all(self, drafts: Sequence[Record]) -> list[Record]:
        """Put records at the end, all or none; blocks until they are durable and in effect."""
        written: list[Record] = []
        with self._errors(), self._locked():
            with self._env.begin(self._records, write=True) as transaction:
                position = _last(transaction.cursor())
                for draft in drafts:
                    position += 1
                    record = msgspec.structs.replace(draft, position=position)
                    transaction.put(_POSITION.pack(position), _row(record), append=True)
                    if record.buster is not None:
                        self._keep_buster(transaction, position, record.buster)
                    written.append(record)
            self._head.publish(position)
        return written

    def _keep_buster(
        self, transaction: lmdb.Transaction[bytes], position: int, buster: Buster
    ) -> None:
        row = _encoder.encode(buster)
        transaction.put(_POSITION.pack(position), row, db=self._busters, append=True)
        if transaction.stat(self._busters)["entries"] > KEPT_BUSTERS:
            with transaction.cursor(self._busters) as cursor:
                cursor.first()
                cursor.delete()

    def busters(self) -> list[tuple[int, Buster]]:
        """The issued cache busters that are known, with the positions of their records, in order.

        They outlive their records.
        """
        with self._errors(), self._env.begin(self._busters) as transaction:
            try:
                return [
                    (_position(key), _buster_decoder.decode(value))
                    for key, value in transaction.cursor()
                ]
            except UNREADABLE as error:
                raise JournalDamaged(
                    f"the journal in {self.directory} has a damaged cache buster"
                ) from error

    def since(self, position: int, until: int, limit: int = 1000) -> list[Record]:
        """The records after `position` up to `until`, in order, at most `limit`.

        The first is not the one right after `position` where that has been trimmed.
        """
        records: list[Record] = []
        with self._errors(), self._env.begin(self._records) as transaction:
            cursor = transaction.cursor()
            if not cursor.set_range(_POSITION.pack(position + 1)):
                return records
            for key, value in cursor:
                if len(records) == limit or key > _POSITION.pack(until):
                    break
                records.append(self._decode(key, value))
        return records

    def oldest(self) -> int:
        """The position of the oldest record that is still there; one past the head if none is."""
        with self._errors():
            first, last = self._ends()
        return first if last else 1

    def trim(self, up_to: int) -> bool:
        """Forget some of the oldest records at positions up to `up_to` that need not be kept.

        True when none is left to forget. One small transaction; blocks until it is durable.
        """
        with self._errors():
            with self._env.begin(self._records) as transaction:
                stat = transaction.stat(self._records)
            # Never all of them: positions go on from the last.
            surplus = stat["entries"] - self._kept_records
            if _pages(stat) * stat["psize"] > _TRIM_BYTES:
                surplus = max(surplus, stat["entries"] // 10)
            if surplus <= 0:
                return True
            with self._env.begin(self._records, write=True) as transaction:
                cursor = transaction.cursor()
                for _ in range(min(surplus, _TRIM_STEP)):
                    if not cursor.first() or _position(cursor.key()) > up_to:
                        return True
                    cursor.delete()
        return surplus <= _TRIM_STEP

    def make_room(self) -> None:
        """Let the file grow if there is little room left in it, and the disk has some.

        LMDB gives no page of its file back, so what was written once can be written again.
        """
        with self._errors():
            with self._env.begin() as transaction:
                stats = [
                    transaction.stat(db) for db in (None, self._records, self._busters, self._meta)
                ]
            used = sum(map(_pages, stats))
            free = self._env.info()["last_pgno"] + 1 - used
        if free * stats[0]["psize"] > _ROOM_BYTES // 2:
            return
        try:
            # What the second one frees, LMDB uses from the fourth on.
            for content in (bytes(_ROOM_BYTES), b"", b""):
                with self._env.begin(self._meta, write=True) as transaction:
                    transaction.put(_ROOM, content)
        except lmdb.Error as error:
            if not self._cramped:
                log.warning(
                    "the journal in %s can't grow (%s): purges are taken until the %d KiB that it "
                    "has left are used up",
                    self.directory, error, free * stats[0]["psize"] // 1024,
                )  # fmt: skip
            self._cramped = True
        else:
            if self._cramped:
                log.warning("the journal in %s can grow again", self.directory)
            self._cramped = False

    def set_times_right(self, step: float) -> None:
        """The clock by which deadlines were set has been stepped by so many seconds since."""
        with self._errors(), self._env.begin(self._records, write=True) as transaction:
            for key, value in transaction.cursor():
                record = self._decode(key, value)
                if record.deadline:
                    moved = msgspec.structs.replace(record, time=record.time + step)
                    transaction.put(key, _row(moved))

    def verify(self) -> None:
        """Read every record; raises JournalDamaged if one is missing or not as it was written."""
        with self._errors(), self._env.begin(self._records) as transaction:
            expected: int | None = None
            for key, value in transaction.cursor():
                record = self._decode(key, value)
                if expected not in (None, record.position):
                    raise JournalDamaged(
                        f"the journal in {self.directory} has lost record {expected}"
                    )
                expected = record.position + 1

    async def close(self) -> None:
        """Finish what is being written, and close."""
        while self._writing is not None:
            await asyncio.wait([self._writing])
        self._executor.shutdown()
        self._opened.close()

    def _identify(self) -> bytes:
        with self._env.begin(self._meta, write=True) as transaction:
            known = transaction.get(_FORMAT)
            if known is None:
                if self._env.stat()["entries"] != _DATABASES:
                    raise JournalDamaged(f"the journal in {self.directory} is another program's")
                transaction.put(_FORMAT, FORMAT)
                transaction.put(_ID, secrets.token_bytes(16))
            elif known != FORMAT:
                raise JournalDamaged(
                    f"the journal in {self.directory} is of another version: {bytes(known)!r}"
                )
            identity = transaction.get(_ID)
            if identity is None or len(identity) != 16:
                raise JournalDamaged(f"the journal in {self.directory} has no identity")
            return bytes(identity)

    def _ends(self) -> tuple[int, int]:
        with self._env.begin(self._records) as transaction:
            cursor = transaction.cursor()
            last = _last(cursor)
            return (_position(cursor.key()) if cursor.first() else 0), last

    def _decode(self, key: bytes, value: bytes) -> Record:
        row = value[_CRC.size :]
        try:
            if _CRC.unpack_from(value)[0] == zlib.crc32(row):
                record = _decoder.decode(row)
                if _POSITION.pack(record.position) == key:
                    return record
        except (struct.error, *UNREADABLE):
            pass
        raise JournalDamaged(f"the journal in {self.directory} has a damaged record, {key.hex()}")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except JournalDamaged as error:
            self._tell(error)
            raise
        except _DAMAGE as error:
            damaged = JournalDamaged(f"the journal in {self.directory} is damaged: {error}")
            self._tell(damaged)
            raise damaged from error
        except (lmdb.Error, OSError) as error:
            raise JournalError(f"the journal in {disk_error(error, self.directory)}") from error

    def _tell(self, damaged: JournalDamaged) -> None:
        if self._on_damage is not None:
            self._on_damage(str(damaged))


_DAMAGE = (*READ_DAMAGE, struct.error)


def _row(record: Record) -> bytes:
    row = _encoder.encode(record)
    return _CRC.pack(zlib.crc32(row)) + row


def _pages(stat: _StatDict) -> int:
    return stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]


def _last(cursor: lmdb.Cursor) -> int:
    return _position(cursor.key()) if cursor.last() else 0


def _position(key: bytes | memoryview) -> int:
    position: int = _POSITION.unpack(key)[0]
    return position
