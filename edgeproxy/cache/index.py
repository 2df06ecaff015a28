"""The index: what is stored, what selects it, and how it is used, in one LMDB environment.

    rows      id -> response, short body                what is stored, and the truth about it
    usage     id -> last use, hits, cost, body          what eviction goes by
    lists     what invalidations select by -> ids       see lists.py
    busters   target -> keys of its `cb:` copies
    bodies    body id -> a longer body; the row's id where the body lies elsewhere
    garbage   body id -> since when, kind, length       bodies elsewhere that no row has
    meta      format, journal, identity, counters

A row and all that points to it change in one transaction, so they agree whenever a process dies.
Nothing is synced to the disk on the way: what the kernel has outlives every process, and after a
crash of the machine nothing here is trusted.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import lmdb

from edgeproxy.cache.disk import allocate_lock_file
from edgeproxy.cache.errors import StoreUnusable
from edgeproxy.cache.layout import (
    FORMAT,
    PRIMARY_SIZE,
    Usage,
    cost_of,
    map_size,
    read_usage,
    write_usage,
)
from edgeproxy.cache.lists import keys_of
from edgeproxy.cache.removing import remove
from edgeproxy.cache.rows import (
    MIXED,
    DamagedRow,
    in_row,
    mark_row,
    mixed_row,
    read_marks,
    read_row,
    row_body,
    row_vary,
    take_row,
    varies,
    write_row,
)
from edgeproxy.cache.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import TypeAlias

    from edgeproxy.cache.rows import Ready, RowMark, Taken
    from edgeproxy.cache.stored import StoredResponse

    WriteTxn: TypeAlias = lmdb.Transaction[bytes]
    Txn: TypeAlias = lmdb.Transaction[bytes] | lmdb.Transaction[memoryview]

log = logging.getLogger(__name__)

_MAX_READERS = 4096


class Inserted(NamedTuple):
    """What became of a response that was added."""

    cost: int
    others: list[bytes]
    """The ids of what else is stored under its key."""


class Index:
    """One environment. Methods that take a transaction leave committing it to their caller."""

    def __init__(self, directory: Path, max_bytes: int, journal_id: bytes) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self.journal_id = journal_id
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            allocate_lock_file(directory, _MAX_READERS)
            self.env = lmdb.open(
                str(directory),
                map_size=map_size(max_bytes),
                mode=0o600,
                sync=False,
                metasync=False,
                max_dbs=16,
                max_readers=_MAX_READERS,
                max_spare_txns=8,
                readahead=False,
            )
            try:
                self._open_databases()
                self._turn = Turn(directory)
            except BaseException:
                self.env.close()
                raise
        except (lmdb.Error, OSError) as error:
            raise StoreUnusable(f"can't open the index in {directory}: {error}") from error

    def _open_databases(self) -> None:
        open_db = self.env.open_db
        with self.env.begin(write=True) as txn:
            self.meta = open_db(b"meta", txn)
            self.rows = open_db(b"rows", txn)
            self.usage = open_db(b"usage", txn)
            self.bodies = open_db(b"bodies", txn)
            self.garbage = open_db(b"garbage", txn)
            self.lists = open_db(b"lists", txn, dupsort=True, dupfixed=True)
            self.busters = open_db(b"busters", txn, dupsort=True, dupfixed=True)
            if txn.get(b"format", db=self.meta) is None:
                if txn.stat()["entries"] != 7:  # the databases above
                    raise StoreUnusable(f"the index in {self.directory} is another program's")
                txn.put(b"journal", self.journal_id, db=self.meta)
                txn.put(b"identity", os.urandom(8), db=self.meta)
                self.set_counter(txn, b"format", FORMAT)
            found = self.counter(txn, b"format")
            owner = txn.get(b"journal", db=self.meta)
            self.identity = txn.get(b"identity", b"", db=self.meta)
        if found != FORMAT:
            raise StoreUnusable(f"the index in {self.directory} has format {found}, not {FORMAT}")
        if owner != self.journal_id:
            raise StoreUnusable(f"the index in {self.directory} belongs to another journal")

    def close(self) -> None:
        self.env.close()
        self._turn.close()

    def clear(self) -> None:
        """Remove all that is stored. Body ids are still not used again."""
        with self.writing() as txn:
            for db in (self.rows, self.usage, self.bodies, self.garbage):
                txn.drop(db, delete=False)
            for db in (self.lists, self.busters):
                txn.drop(db, delete=False)
            self.set_counter(txn, b"bytes", 0)
            self.set_counter(txn, b"deadlines", 0)

    # -- transactions

    @contextmanager
    def reading(self) -> Iterator[lmdb.Transaction[memoryview]]:
        with self.env.begin(buffers=True) as txn:
            yield txn

    @contextmanager
    def writing(self) -> Iterator[WriteTxn]:
        """A write transaction: committed at the end, given up on an exception.

        It waits for the node's other writers, and belongs to the thread that began it.
        """
        with self._turn.waited_for(), self.env.begin(write=True) as txn:
            yield txn

    @contextmanager
    def writing_at_once(self) -> Iterator[WriteTxn | None]:
        """The same; None where somebody else writes just now."""
        if not self._turn.take():
            yield None
            return
        try:
            with self.env.begin(write=True) as txn:
                yield txn
        finally:
            self._turn.give_back()

    # -- reading

    def row(self, txn: Txn, row_id: bytes) -> StoredResponse | None:
        """The response of that id; raises DamagedRow."""
        value = txn.get(row_id, db=self.rows)
        return None if value is None else read_row(row_id, value)

    def ids_of(self, txn: Txn, primary: bytes) -> list[bytes]:
        """The ids of a key's variants."""
        cursor = txn.cursor(self.rows)
        ids = []
        more = cursor.set_range(primary)
        while more:
            row_id = bytes(cursor.key())
            if not row_id.startswith(primary):
                break
            ids.append(row_id)
            more = cursor.next()
        return ids

    def copies(self, target_id: bytes, *, but: bytes) -> int:
        """How many keys of `cb:` copies a target has, without that one."""
        with self.reading() as txn, txn.cursor(self.busters) as cursor:
            known = cursor.set_key_dup(target_id, but)
            return cursor.count() - known if cursor.set_key(target_id) else 0

    def find(self, primary: bytes) -> tuple[list[StoredResponse], list[bytes]]:
        """The responses under a key, and the ids of its damaged rows."""
        found: list[StoredResponse] = []
        damaged: list[bytes] = []
        with self.env.begin(buffers=True) as txn:
            cursor = txn.cursor(self.rows)
            more = cursor.set_range(primary)
            while more:
                key, value = cursor.item()
                if key[:PRIMARY_SIZE] != primary:
                    break
                try:
                    found.append(read_row(bytes(key), value))
                except DamagedRow:
                    damaged.append(bytes(key))
                more = cursor.next()
        return found, damaged

    def usage_of(self, txn: Txn, row_id: bytes) -> Usage | None:
        value = txn.get(row_id, db=self.usage)
        return None if value is None else read_usage(value)

    def take(self, row_id: bytes, vary: bytes, policy: bytes) -> Taken | None:
        """What `take_row` gives of the row of that id; None where there is none."""
        with self.env.begin(buffers=True) as txn:
            value = txn.get(row_id, None, self.rows)
            return None if value is None else take_row(value, vary, policy)

    def take_again(self, row_id: bytes, mark: RowMark) -> bytes | None:
        """The body in the row of that id, if all else is as `take` found it."""
        with self.env.begin(buffers=True) as txn:
            value = txn.get(row_id, None, self.rows)
            if value is None or not mark.known(value):
                return None
            if not mark.body_id:
                return mark.whole(value[mark.start :])
            body = txn.get(mark.body_id, None, self.bodies)
            return None if body is None else mark.whole(body)

    def inline_body(self, stored: StoredResponse) -> bytes | None:
        """The body of a response, unchecked; None where it is there no more."""
        with self.reading() as txn:
            if not in_row(stored.body):
                body = txn.get(stored.body.id, db=self.bodies)
                return None if body is None else bytes(body)
            value = txn.get(stored.id, db=self.rows)
            with suppress(DamagedRow):
                # What has taken its place since it was looked up has a body of its own.
                if value is not None and read_row(stored.id, value).body.id == stored.body.id:
                    return row_body(value)
            return None

    def has_body(self, txn: Txn, stored: StoredResponse) -> bool:
        """Whether the body of a response that is there is where it should be."""
        return in_row(stored.body) or txn.get(stored.body.id, db=self.bodies) is not None

    def walk(self, start: bytes, limit: int) -> tuple[list[StoredResponse], bytes | None]:
        """The next `limit` rows from `start` on, and where to go on; None at the end."""
        seen: list[StoredResponse] = []
        with self.reading() as txn, txn.cursor(self.rows) as cursor:
            more = cursor.set_range(start)
            for _ in range(limit):
                if not more:
                    return seen, None
                row_id, value = cursor.item()
                # What is damaged is seen to when it is looked up.
                with suppress(DamagedRow):
                    seen.append(read_row(bytes(row_id), value))
                more = cursor.next()
            return seen, bytes(cursor.key()) if more else None

    def entries(self, txn: Txn) -> int:
        return txn.stat(self.rows)["entries"]

    def counter(self, txn: Txn, name: bytes) -> int:
        return int.from_bytes(txn.get(name, b"", db=self.meta), "big")

    # -- writing

    def set_counter(self, txn: WriteTxn, name: bytes, value: int) -> None:
        txn.put(name, value.to_bytes(8, "big"), db=self.meta)

    def add_to_counter(self, txn: WriteTxn, name: bytes, amount: int) -> int:
        value = max(0, self.counter(txn, name) + amount)
        self.set_counter(txn, name, value)
        return value

    def new_body_id(self, txn: WriteTxn) -> bytes:
        return self.add_to_counter(txn, b"last-body", 1).to_bytes(8, "big")

    def insert(
        self,
        txn: WriteTxn,
        stored: StoredResponse,
        body: bytes | None,
        now: float,
        ready: Ready | None = None,
    ) -> Inserted:
        """Add a response that is not there, with its body where that is inline."""
        row_id, ref = stored.id, stored.body
        others = self.ids_of(txn, stored.primary)
        vary = self._common_vary(txn, varies(stored), others)
        within = in_row(ref)
        row = write_row(stored, ready, body if within else None, vary)
        keys = keys_of(stored)
        cost = cost_of(len(row), keys, 0 if within else ref.length)
        txn.put(row_id, row, db=self.rows)
        for key in keys:
            txn.put(key, row_id, db=self.lists)
        if stored.buster:
            txn.put(stored.target_id, stored.primary, db=self.busters)
        if body is None:
            txn.put(ref.id, row_id, db=self.bodies)
            txn.delete(ref.id, db=self.garbage)
        elif not within:
            txn.put(ref.id, body, db=self.bodies)
        self._set_usage(txn, row_id, Usage(now, 0, cost, ref))
        self.add_to_counter(txn, b"bytes", cost)
        if stored.deleted_from:
            self.add_to_counter(txn, b"deadlines", 1)
        return Inserted(cost, others)

    def _common_vary(self, txn: WriteTxn, vary: bytes, others: Iterable[bytes]) -> bytes:
        """What all rows of a key vary by once one that varies by `vary` is added to the others,
        which are told."""
        before = {row_id: txn.get(row_id, b"", self.rows) for row_id in others}
        if all(row_vary(value) == vary for value in before.values()):
            return vary
        for row_id, value in before.items():
            if row_vary(value) != MIXED:
                txn.put(row_id, mixed_row(value), db=self.rows)
        return MIXED

    def replace(
        self,
        txn: WriteTxn,
        old: StoredResponse,
        new: StoredResponse,
        ready: Ready | None = None,
    ) -> None:
        """New metadata for the row `old`, which is there; its body stays, and what it varies by."""
        row_id = old.id
        within = in_row(old.body)
        value = txn.get(row_id, b"", self.rows)
        row = write_row(new, ready, row_body(value) if within else None, row_vary(value))
        txn.put(row_id, row, db=self.rows)
        before, after = set(keys_of(old)), set(keys_of(new))
        for key in before - after:
            txn.delete(key, row_id, db=self.lists)
        for key in after - before:
            txn.put(key, row_id, db=self.lists)
        due = bool(new.deleted_from) - bool(old.deleted_from)
        if due:
            self.add_to_counter(txn, b"deadlines", due)
        usage = self.usage_of(txn, row_id)
        if usage is not None:
            cost = cost_of(len(row), after, 0 if within else new.body.length)
            self._set_usage(txn, row_id, usage._replace(cost=cost))
            self.add_to_counter(txn, b"bytes", cost - usage.cost)

    def mark(self, txn: WriteTxn, row_id: bytes, position: int, deleted_from: float) -> bool:
        """Note an invalidation on a row (`Marks.after`), unless it is newer. Raises DamagedRow."""
        value = txn.get(row_id, b"", self.rows)
        marks = read_marks(row_id, value) if value else None
        if marks is None or marks.position >= position:
            return False
        new = marks.after(position, deleted_from)
        if new != marks:
            txn.put(row_id, mark_row(value, new), db=self.rows)
        if new.deleted_from and not marks.deleted_from:
            self.add_to_counter(txn, b"deadlines", 1)
        return True

    def remove(self, txn: WriteTxn, row_ids: Iterable[bytes], now: float) -> int:
        """Remove rows and free their bodies; gives their cost, 0 where there is none of them."""
        return remove(self, txn, row_ids, now)

    def touch(self, txn: WriteTxn, row_id: bytes, used: float, hits: int) -> None:
        """Note that a response was used."""
        usage = self.usage_of(txn, row_id)
        if usage is not None:
            total = min(usage.hits + hits, 0xFFFF_FFFF)
            self._set_usage(txn, row_id, usage._replace(used=max(used, usage.used), hits=total))

    def _set_usage(self, txn: WriteTxn, row_id: bytes, usage: Usage) -> None:
        txn.put(row_id, write_usage(usage), db=self.usage)
