"""What is stored at one moment, as invalidations select it: counted, listed, read."""

from __future__ import annotations

import heapq
from contextlib import ExitStack
from itertools import groupby, islice
from typing import TYPE_CHECKING, Protocol

from edgeproxy.cache.layout import KEY_SIZE, DamagedRow, host_key, site_key, tag_key
from edgeproxy.cache.writer import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Literal, TypeAlias

    import lmdb
    from lmdb import _Database

    from edgeproxy.cache.index import Index
    from edgeproxy.cache.stored import StoredResponse

    ReadTxn: TypeAlias = lmdb.Transaction[memoryview]


class Selects(Protocol):
    """What picks stored responses: all of a site, those with a tag, or those of a target."""

    @property
    def kind(self) -> Literal["tag", "url", "everything"]: ...
    @property
    def site(self) -> str: ...
    @property
    def environment(self) -> str | None:
        """None: whatever the environment."""

    @property
    def tag(self) -> str: ...
    @property
    def host(self) -> str | None:
        """For a URL; None: whatever the host."""

    @property
    def target_id(self) -> bytes: ...


class Snapshot:
    """One read transaction on each of the node's indexes: nothing changes while it is open.

    It may be used in any thread, by one at a time. Left open, it keeps LMDB from using space again,
    so it is for a moment. Where there are several indexes (each worker has its own), what is in
    several of them is one response with one id. What LMDB raises comes as StoreUnusable.
    """

    def __init__(self, indexes: Sequence[Index]) -> None:
        self._indexes = indexes
        self._views: list[tuple[Index, ReadTxn]] = []
        self._stack = ExitStack()

    @translated()
    def __enter__(self) -> Snapshot:
        self._views = [
            (index, self._stack.enter_context(index.reading())) for index in self._indexes
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._views = []
        self._stack.close()

    @property
    @translated()
    def settled(self) -> int:
        """The journal position up to which all of it has been swept."""
        return min(index.counter(txn, b"settled") for index, txn in self._views)

    @translated()
    def count(self, selects: Selects) -> int:
        """How many responses it picks. With one index this costs the same however many they are."""
        if len(self._views) > 1:
            return sum(1 for _ in self._merged(selects, None, None))
        return sum(
            cursor.count() for index, txn in self._views for cursor in _lists(index, txn, selects)
        )

    @translated()
    def ids(self, selects: Selects, after: bytes | None, limit: int) -> list[bytes]:
        """The ids of what it picks, in order, at most `limit` of those that follow `after`."""
        return list(islice(self._merged(selects, after, limit), limit))

    @translated()
    def responses(self, selects: Selects, after: bytes | None, limit: int) -> list[StoredResponse]:
        """What it picks, in the order of ids, as `ids`: at most `limit` ids.

        Several indexes may have different responses of one id: then they all are here, in a row.
        """
        found = []
        for row_id in self.ids(selects, after, limit):
            for index, txn in self._views:
                try:
                    stored = index.row(txn, row_id)
                except DamagedRow:
                    continue
                # Another index need not have the same response under that id.
                if stored is not None and _picks(selects, stored):
                    found.append(stored)
        return found

    def _merged(self, selects: Selects, after: bytes | None, limit: int | None) -> Iterator[bytes]:
        lists = [
            list(islice(_ids(cursor, after), limit))
            for index, txn in self._views
            for cursor in _lists(index, txn, selects)
        ]
        return (row_id for row_id, _ in groupby(heapq.merge(*lists)))


def _lists(index: Index, txn: ReadTxn, selects: Selects) -> Iterator[lmdb.Cursor[memoryview]]:
    """A cursor on each of the lists of ids that make up what is picked."""
    db, prefix = _prefix(index, selects)
    whole = KEY_SIZE if selects.kind != "url" else 2 * KEY_SIZE
    cursor = txn.cursor(db)
    environment = None if selects.environment is None else selects.environment.encode()
    if environment is not None and len(prefix) == whole:
        if cursor.set_key(prefix + environment):
            yield cursor
        return
    more = cursor.set_range(prefix)
    while more:
        key = cursor.key()
        if key[: len(prefix)] != prefix:
            return
        if environment is None or key[whole:] == environment:
            yield cursor
        more = cursor.next_nodup()


def _prefix(index: Index, selects: Selects) -> tuple[_Database, bytes]:
    match selects.kind:
        case "tag":
            return index.tags, tag_key(selects.site, selects.tag)
        case "url":
            host = b"" if selects.host is None else host_key(selects.host)
            return index.targets, selects.target_id + host
        case "everything":
            return index.sites, site_key(selects.site)


def _ids(cursor: lmdb.Cursor[memoryview], after: bytes | None) -> Iterator[bytes]:
    """The ids of the list that the cursor is on, those after `after`; it stays on that list."""
    key = bytes(cursor.key())
    if after is not None:
        more = cursor.set_range_dup(key, after)
        if more and cursor.value() == after:
            more = cursor.next_dup()
        if not more:
            cursor.set_key(key)
            return
    for row_id in cursor.iternext_dup():
        yield bytes(row_id)
    cursor.set_key(key)


def _picks(selects: Selects, stored: StoredResponse) -> bool:
    if selects.environment is not None and stored.environment != selects.environment:
        return False
    if stored.site != selects.site:
        return False
    match selects.kind:
        case "tag":
            return selects.tag in stored.tags
        case "url":
            return stored.target_id == selects.target_id and selects.host in (None, stored.host)
        case "everything":
            return True
