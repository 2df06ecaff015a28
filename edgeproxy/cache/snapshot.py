"""What is stored at one moment, as invalidations select it: counted, listed, read."""

from __future__ import annotations

import heapq
from contextlib import ExitStack
from itertools import groupby, islice, repeat
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.cache.disk import translated
from edgeproxy.cache.layout import read_usage
from edgeproxy.cache.lists import HEAD_SIZE, Span, heads, may_be_shortened, shortened
from edgeproxy.cache.rows import DamagedRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import TypeAlias

    import lmdb

    from edgeproxy.cache.index import Index
    from edgeproxy.cache.stored import StoredResponse

    ReadTxn: TypeAlias = lmdb.Transaction[memoryview]


class Mark(NamedTuple):
    """A place in a list: where to go on."""

    key: bytes
    id: bytes


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

    @property
    @translated()
    def deadlines(self) -> int:
        """How many responses have a deadline, past or to come."""
        return sum(index.counter(txn, b"deadlines") for index, txn in self._views)

    @translated()
    def count(self, span: Span, at_most: int | None = None) -> int:
        """How many ids a span lists; more than `at_most` of them need not be counted on.

        With one index, that of one key costs the same however many they are.
        """
        if len(self._views) > 1:
            stop = None if at_most is None else at_most + 1
            return sum(1 for _ in islice(self._merged(span, None, stop), stop))
        total = 0
        for index, txn in self._views:
            cursor = txn.cursor(index.lists)
            for start, is_open in _runs(cursor, span):
                for _ in _keys(cursor, start, is_open=is_open, after=None):
                    total += cursor.count()
                    if at_most is not None and total > at_most:
                        return total
        return total

    @translated()
    def ids(self, span: Span, after: Mark | None, limit: int) -> list[Mark]:
        """The ids that a span lists, in order, at most `limit` of those behind `after`."""
        return list(islice(self._merged(span, after, limit), limit))

    @translated()
    def read(self, row_id: bytes) -> list[StoredResponse]:
        """What is stored under an id: one response, or none; several indexes may each have one."""
        found = []
        for index, txn in self._views:
            try:
                stored = index.row(txn, row_id)
            except DamagedRow:
                continue
            if stored is not None:
                found.append(stored)
        return found

    @translated()
    def hits(self, row_id: bytes) -> int:
        """How often a response has been used, as far as it has been written down."""
        values = (txn.get(row_id, db=index.usage) for index, txn in self._views)
        return sum(read_usage(value).hits for value in values if value is not None)

    @translated()
    def values(
        self, span: Span, after: bytes | None, limit: int
    ) -> list[tuple[bytes, int, StoredResponse | None]]:
        """The different values of an open span of one environment, behind `after`, at most
        `limit`: each as keys have it, with the number of its ids; and where it may have been
        shortened, with one of their responses, which tells the whole."""
        found: dict[bytes, int] = {}
        (head,) = heads(span)
        for index, txn in self._views:
            cursor = txn.cursor(index.lists)
            start = None if after is None else head + after
            keys = _keys(cursor, head + span.value, is_open=True, after=start)
            for key in islice(keys, limit + 1):
                value = key[HEAD_SIZE:]
                if value != after:
                    found[value] = found.get(value, 0) + cursor.count()
        chosen = sorted(found)[:limit]
        return [
            (value, found[value], self._any(head + value) if may_be_shortened(value) else None)
            for value in chosen
        ]

    def _any(self, key: bytes) -> StoredResponse | None:
        for index, txn in self._views:
            row_id = txn.get(key, db=index.lists)
            if row_id is not None:
                try:
                    return index.row(txn, bytes(row_id))
                except DamagedRow:
                    continue
        return None

    def _merged(self, span: Span, after: Mark | None, limit: int | None) -> Iterator[Mark]:
        lists = [
            list(islice(_marks(txn.cursor(index.lists), span, after), limit))
            for index, txn in self._views
        ]
        if len(lists) == 1:
            return iter(lists[0])
        return (mark for mark, _ in groupby(heapq.merge(*lists)))


def _runs(cursor: lmdb.Cursor[memoryview], span: Span) -> Iterator[tuple[bytes, bool]]:
    """The runs of keys that make up a span, in order: what each begins with, and whether that is
    all of the key."""
    value = shortened(span.value, is_open=span.open)
    for head in heads(span):
        if not span.any_host:
            yield head + value, span.open
            continue
        for host in list(_hosts(cursor, head)):
            whole = host + b"\0" + span.value
            yield head + shortened(whole, is_open=span.open), span.open


def _hosts(cursor: lmdb.Cursor[memoryview], head: bytes) -> Iterator[bytes]:
    """The hosts in a list of URLs: one step for each."""
    more = cursor.set_range(head)
    while more:
        key = bytes(cursor.key())
        if not key.startswith(head):
            return
        host = key[HEAD_SIZE:].partition(b"\0")[0]
        yield host
        more = cursor.set_range(head + host + b"\1")


def _keys(
    cursor: lmdb.Cursor[memoryview], start: bytes, *, is_open: bool, after: bytes | None
) -> Iterator[bytes]:
    """The keys of a run, from `after` on; the cursor is on each of them in turn."""
    if not is_open:
        if (after is None or after <= start) and cursor.set_key(start):
            yield start
        return
    more = cursor.set_range(start if after is None else max(start, after))
    while more:
        key = bytes(cursor.key())
        if not key.startswith(start):
            return
        yield key
        more = cursor.set_key(key) and cursor.next_nodup()


def _marks(cursor: lmdb.Cursor[memoryview], span: Span, after: Mark | None) -> Iterator[Mark]:
    key_after = None if after is None else after.key
    for start, is_open in list(_runs(cursor, span)):
        for key in _keys(cursor, start, is_open=is_open, after=key_after):
            if after is not None and key == after.key:
                more = cursor.set_range_dup(key, after.id)
                if more and cursor.value() == after.id:
                    more = cursor.next_dup()
                if not more:
                    continue
            yield from map(Mark, repeat(key), map(bytes, cursor.iternext_dup()))
