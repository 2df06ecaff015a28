"""What may happen to the index: each of these is one write transaction, as a function of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from edgeproxy.cache.errors import StoreFull
from edgeproxy.cache.evict import evict, limit_busters, limit_variants
from edgeproxy.cache.garbage import discard_body
from edgeproxy.cache.removing import remove_all
from edgeproxy.cache.rows import DamagedRow
from edgeproxy.cache.stored import BodyRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from edgeproxy.cache.index import Index, WriteTxn
    from edgeproxy.cache.rows import Ready
    from edgeproxy.cache.stored import BodyKind, StoredResponse

    Admit: TypeAlias = Callable[[StoredResponse], StoredResponse | None]

_WRITING_SECONDS = 3600.0
"""How long a body that no row has is taken to be still on its way in."""


class Sweep(NamedTuple):
    """An invalidation of one stored response."""

    id: bytes
    position: int
    """In the journal: what was asked for at that position or later is left alone."""
    delete: bool
    deleted_from: float = 0.0
    """Of what is not deleted: when it will be, in seconds since the epoch; 0: never."""


class NoRoom(Exception):
    """The store would grow beyond its bound; nothing was changed."""

    def __init__(self, need: int) -> None:
        super().__init__(f"{need} bytes short")
        self.need = need


class Changes:
    """The changes of one index. Each method runs inside the transaction that it is given."""

    def __init__(self, index: Index, max_bytes: int, clock: Callable[[], float]) -> None:
        self._index = index
        self._max_bytes = max_bytes
        self._clock = clock

    def reserve(self, txn: WriteTxn, kind: BodyKind, length: int, crc: int) -> BodyRef:
        """An id for a body that lies elsewhere. Until a row has it, it is garbage to be."""
        ref = BodyRef(kind, self._index.new_body_id(txn), length, crc)
        discard_body(self._index, txn, ref, self._clock() + _WRITING_SECONDS)
        return ref

    def abandon(self, txn: WriteTxn, ref: BodyRef) -> None:
        """Make a reserved body garbage at once, unless a row has it after all."""
        if txn.get(ref.id, db=self._index.bodies) is None:
            discard_body(self._index, txn, ref, 0.0)

    def store(
        self,
        txn: WriteTxn,
        response: StoredResponse,
        body: bytes | None,
        admit: Admit,
        max_variants: int,
        max_busters: int,
        ready: Ready | None = None,
    ) -> StoredResponse | None:
        """Store a response with its body: inline, or None where it lies elsewhere by now.

        Raises NoRoom; StoreFull where no room would do.
        """
        index, now = self._index, self._clock()
        there = self.row(txn, response.id)
        if there is not None and there.position > response.position:
            # It was asked for after a purge that this one came too early for.
            return None
        if body is not None:
            response = replace(response, body=replace(response.body, id=index.new_body_id(txn)))
        stored = admit(response)
        if stored is None:
            return None
        if there is not None:
            index.remove(txn, [stored.id], now)
        cost, others = index.insert(txn, stored, body, now, ready)
        if cost > self._max_bytes:
            raise StoreFull(f"a response takes {cost} bytes, all of them {self._max_bytes}")
        limit_variants(index, txn, others, max_variants, now)
        limit_busters(index, txn, stored, max_busters, now)
        over = index.counter(txn, b"bytes") - self._max_bytes
        if over > 0:
            raise NoRoom(over)
        return stored

    def renew(
        self,
        txn: WriteTxn,
        old: StoredResponse,
        new: StoredResponse,
        admit: Admit,
        ready: Ready | None = None,
    ) -> StoredResponse | None:
        """New metadata for what is stored, if that is still `old`, or `old` as renewed since."""
        there = self.row(txn, old.id)
        if there is None or there.body.id != old.body.id or new.id != old.id:
            return None
        if there.position > new.position:
            # Another worker has validated it later than this one.
            return there
        stored = admit(replace(new, body=there.body))
        if stored is not None:
            self._index.replace(txn, there, stored, ready)
        return stored

    def sweep(self, txn: WriteTxn, actions: Iterable[Sweep]) -> int:
        """Apply invalidations to what was asked for before them; how many of them applied."""
        applied = 0
        gone: dict[bytes, StoredResponse] = {}
        for row_id, position, delete, deleted_from in actions:
            if not delete:
                applied += self._mark(txn, row_id, position, deleted_from)
                continue
            there = self.row(txn, row_id)
            if there is not None and there.position < position:
                applied += 1
                gone[row_id] = there
        remove_all(self._index, txn, gone.values(), self._clock())
        return applied

    def _mark(self, txn: WriteTxn, row_id: bytes, position: int, deleted_from: float) -> bool:
        try:
            return self._index.mark(txn, row_id, position, deleted_from)
        except DamagedRow:
            self._index.remove(txn, [row_id], self._clock())
            return False

    def remove(self, txn: WriteTxn, ids: Iterable[bytes]) -> int:
        now = self._clock()
        return sum(1 for row_id in ids if self._index.remove(txn, [row_id], now))

    def remove_unchanged(self, txn: WriteTxn, responses: Iterable[StoredResponse]) -> int:
        """Remove those that are still just as they were seen."""
        unchanged = [one for one in responses if self.row(txn, one.id) == one]
        remove_all(self._index, txn, unchanged, self._clock())
        return len(unchanged)

    def forget(self, txn: WriteTxn, stored: StoredResponse) -> bool:
        """Remove a response whose body is lost; False if it has that body no longer."""
        there = self.row(txn, stored.id)
        if there is None or there.body.id != stored.body.id:
            return False
        self._index.remove(txn, [stored.id], self._clock())
        return True

    def row(self, txn: WriteTxn, row_id: bytes) -> StoredResponse | None:
        """The row; a damaged one is removed, and absent."""
        try:
            return self._index.row(txn, row_id)
        except DamagedRow:
            self._index.remove(txn, [row_id], self._clock())
            return None

    def evict(self, txn: WriteTxn, need: int, now: float) -> int:
        return evict(self._index, txn, need, now)

    def note_use(self, txn: WriteTxn, touched: Mapping[bytes, tuple[float, int]]) -> None:
        """Write down by id when each was last used, and how often since the last time."""
        for row_id, (used, hits) in touched.items():
            self._index.touch(txn, row_id, used, hits)

    def strike(self, txn: WriteTxn, refs: Sequence[BodyRef]) -> None:
        """Bodies that were garbage are no more."""
        for ref in refs:
            txn.delete(ref.id, db=self._index.garbage)

    def settle(self, txn: WriteTxn, position: int) -> None:
        self._index.set_counter(txn, b"settled", position)
