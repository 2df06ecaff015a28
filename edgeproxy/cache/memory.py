"""The memory tier of a worker: bounded in bytes, and not emptied by a scan (S3-FIFO).

Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction", SOSP 2023. What
comes in goes through a small queue first, and only what is asked for again there gets into the main
one; ids that left the small queue are remembered for a while, and get into the main one directly.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.cache.rows import (
    pack,
    packed_figures,
    packed_freshness,
    packed_id,
    packed_stored,
    repack,
)
from edgeproxy.semantics.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.semantics.freshness import Freshness

_SMALL_SHARE = 0.1
_MAX_HITS = 3
_PROMOTING_HITS = 2
_CHANCES = 256
"""How many entries that were hit one put passes over, so that no put takes long."""

_MAX_VARIANTS = 64
"""How many entries a key may have: every look at the key reads them all."""

_ENTRY_BYTES = 420
"""What an entry, its places in the tables, and one ghost take besides the bytes that it holds, as
`tracemalloc` sees it in CPython."""

# The first places of the tables, where the two queues begin and end.
_SMALL, _MAIN = 0, 1


class Entry(msgspec.Struct, eq=False, gc=False):
    """A response in memory, ready to be judged and sent.

    There may be a million: what the fast path does not ask for is kept encoded, and made anew
    each time it is asked for. No entry refers to another, so none needs to be looked at for cycles.
    """

    body: bytes
    checked: int
    """The journal position up to which it has been held against the invalidations."""
    head: bytes | None
    """What of the response's head can be rendered beforehand; see `MemoryTier.set_head`."""
    packed: bytes
    """The response and its freshness, as its row has them."""
    hits: int = 0
    """How often it was used of late, up to 3."""
    _slot: int = 0

    @classmethod
    def of(cls, stored: StoredResponse, body: bytes, freshness: Freshness, checked: int) -> Entry:
        """The entry of a response, judged up to the position `checked`."""
        return cls(body, checked, None, pack(stored, freshness))

    @property
    def stored(self) -> StoredResponse:
        """The response; takes some microseconds."""
        return packed_stored(self.packed)

    @property
    def fields(self) -> Fields:
        """The response's fields; takes as long as `stored`."""
        return Fields(self.stored.fields)

    @property
    def freshness(self) -> Freshness:
        return packed_freshness(self.packed)

    @property
    def figures(self) -> tuple[int, int, int, float]:
        """The response's status, position, invalidated, and deleted_from."""
        return packed_figures(self.packed)

    @property
    def id(self) -> bytes:
        """The id of the response."""
        return packed_id(self.packed)

    @property
    def primary(self) -> bytes:
        """The cache key of the response."""
        return self.id[:16]

    @property
    def cost(self) -> int:
        """What it takes in bytes, with everything that is kept for its sake."""
        head = 0 if self.head is None else len(self.head)
        return _ENTRY_BYTES + len(self.body) + len(self.packed) + head

    def marked(self, stored: StoredResponse, checked: int) -> Entry:
        """The same entry, of the same response as it stands at the position `checked`."""
        return Entry(self.body, checked, self.head, repack(self.packed, stored))


class MemoryTier:
    """What a worker has in memory. Not for use by several threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes_used = 0
        # By cache key.
        self._variants: dict[bytes, tuple[Entry, ...]] = {}
        self.on_change: Callable[[bytes], None] = lambda _: None
        """Told of a cache key whenever one of its entries comes, goes, or turns out to have been
        invalidated; not of `clear`."""
        # Where an entry stays as long as it is here, whatever queue it is in.
        self._slots: list[Entry | None] = [None, None]
        self._free_slots: list[int] = []
        # The queues are rings of slots, each from the oldest entry to the newest.
        self._next = array("I", (_SMALL, _MAIN))
        self._previous = array("I", (_SMALL, _MAIN))
        self._queue = bytearray((_SMALL, _MAIN))
        self._count = 0
        self._small_bytes = 0
        self._small_limit = int(max_bytes * _SMALL_SHARE)
        # Hashes of ids; one set is filled, and the one before it still counts.
        self._ghosts: set[int] = set()
        self._old_ghosts: set[int] = set()

    def __len__(self) -> int:
        return self._count

    def get(self, primary: bytes) -> tuple[Entry, ...]:
        """The entries under a cache key, its variants."""
        return self._variants.get(primary, ())

    def has_room(self, entry: Entry, body: int) -> bool:
        """Whether an entry that is not here would take no other's place, with a body of so many
        bytes more."""
        room = self.max_bytes - self.bytes_used
        return room > body and room >= entry.cost + body

    def touch(self, entry: Entry) -> None:
        """Note that an entry has been used."""
        if entry.hits < _MAX_HITS:
            entry.hits += 1

    def put(self, entry: Entry) -> None:
        """Keep an entry, in place of the one of the same id; one that is too large is not kept."""
        entry_id, cost = entry.id, entry.cost
        old = self._find(entry_id)
        if cost > self.max_bytes:
            if old is not None:
                self._remove(old)
            return
        if old is not None:
            self._replace(old, entry)
            self._make_room(0)
            return
        known = hash(entry_id)
        queue = _MAIN if known in self._ghosts or known in self._old_ghosts else _SMALL
        self._ghosts.discard(known)
        self._old_ghosts.discard(known)
        self._make_room(cost)
        primary = entry_id[:16]
        variants = self._variants.get(primary, ())
        if len(variants) >= _MAX_VARIANTS:
            self._remove(variants[0])
            variants = variants[1:]
        self._variants[primary] = (*variants, entry)
        self.on_change(primary)
        self._count += 1
        self._take_slot(entry)
        self._enqueue(entry._slot, queue)
        self._charge(entry, cost)

    def set_head(self, entry: Entry, head: bytes) -> None:
        """Keep an entry's rendered head with it, if it is (still) here."""
        if self._slots[entry._slot] is entry:
            growth = len(head) - len(entry.head or b"")
            entry.head = head
            self._charge(entry, growth)
            self._make_room(0)

    def mark(self, entry: Entry, stored: StoredResponse, checked: int) -> None:
        """Note an invalidation of an entry: it is as `stored` says, judged up to `checked`."""
        if self._slots[entry._slot] is entry:
            self.put(entry.marked(stored, checked))

    def discard(self, stored_id: bytes) -> None:
        """Drop the entry of that id, if there is one."""
        entry = self._find(stored_id)
        if entry is not None:
            self._remove(entry)

    def walk(self, cursor: int, count: int) -> tuple[list[Entry], int | None]:
        """One step of a walk over everything: `count` entries at most, and the next step's cursor.

        The first step's cursor is 0; None means that the walk is over. Every entry that is here
        from the walk's beginning to its end has then been seen.
        """
        following = cursor + count
        entries = [entry for entry in self._slots[cursor:following] if entry is not None]
        return entries, following if following < len(self._slots) else None

    def clear(self) -> None:
        """Drop everything."""
        self._variants.clear()
        self._ghosts.clear()
        self._old_ghosts.clear()
        for slot, entry in enumerate(self._slots):
            if entry is not None:
                self._dequeue(slot)
                self._give_up_slot(entry)
        self._count = self.bytes_used = self._small_bytes = 0

    def _find(self, stored_id: bytes) -> Entry | None:
        for entry in self._variants.get(stored_id[:16], ()):
            if entry.id == stored_id:
                return entry
        return None

    def _replace(self, old: Entry, new: Entry) -> None:
        new.hits = max(new.hits, old.hits)
        new._slot = old._slot
        self._slots[new._slot] = new
        self._charge(new, new.cost - old.cost)
        primary = new.primary
        self._variants[primary] = tuple(
            new if entry is old else entry for entry in self._variants[primary]
        )
        self.on_change(primary)

    def _charge(self, entry: Entry, cost: int) -> None:
        self.bytes_used += cost
        if self._queue[entry._slot] == _SMALL:
            self._small_bytes += cost

    def _remove(self, entry: Entry) -> None:
        self._charge(entry, -entry.cost)
        self._dequeue(entry._slot)
        self._give_up_slot(entry)
        self._count -= 1
        primary = entry.primary
        others = tuple(other for other in self._variants[primary] if other is not entry)
        if others:
            self._variants[primary] = others
        else:
            del self._variants[primary]
        self.on_change(primary)

    def _make_room(self, cost: int) -> None:
        chances = _CHANCES
        while self.bytes_used + cost > self.max_bytes:
            if self._small_bytes > self._small_limit or self._next[_MAIN] == _MAIN:
                self._evict_small()
            elif self._evict_main(spare=chances > 0):
                chances = _CHANCES
            else:
                chances -= 1

    def _evict_small(self) -> None:
        entry = self._oldest(_SMALL)
        if entry.hits >= _PROMOTING_HITS:
            self._small_bytes -= entry.cost
            entry.hits = 0
            self._dequeue(entry._slot)
            self._enqueue(entry._slot, _MAIN)
            return
        self._remove(entry)
        self._ghosts.add(hash(entry.id))
        if 2 * len(self._ghosts) > self._count:
            self._old_ghosts, self._ghosts = self._ghosts, set()

    def _evict_main(self, *, spare: bool) -> bool:
        entry = self._oldest(_MAIN)
        if spare and entry.hits:
            entry.hits -= 1
            self._dequeue(entry._slot)
            self._enqueue(entry._slot, _MAIN)
            return False
        self._remove(entry)
        return True

    # -- slots and queues

    def _take_slot(self, entry: Entry) -> None:
        if self._free_slots:
            entry._slot = self._free_slots.pop()
            self._slots[entry._slot] = entry
            return
        entry._slot = len(self._slots)
        self._slots.append(entry)
        self._next.append(0)
        self._previous.append(0)
        self._queue.append(0)

    def _give_up_slot(self, entry: Entry) -> None:
        self._slots[entry._slot] = None
        self._free_slots.append(entry._slot)

    def _oldest(self, queue: int) -> Entry:
        entry = self._slots[self._next[queue]]
        assert entry is not None
        return entry

    def _enqueue(self, slot: int, queue: int) -> None:
        last = self._previous[queue]
        self._next[last] = self._previous[queue] = slot
        self._previous[slot], self._next[slot] = last, queue
        self._queue[slot] = queue

    def _dequeue(self, slot: int) -> None:
        before, after = self._previous[slot], self._next[slot]
        self._next[before], self._previous[after] = after, before
