"""The memory tier of a worker: bounded in bytes, and not emptied by a scan (S3-FIFO).

Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction", SOSP 2023. What
comes in goes through a small queue first, and only what is asked for again there gets into the main
one; ids that left the small queue are remembered for a while, and get into the main one directly.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.semantics.fields import Fields
    from edgeproxy.semantics.freshness import Freshness

_SMALL_SHARE = 0.1
_MAX_HITS = 3
_PROMOTING_HITS = 2
_CHANCES = 256
"""How many entries that were hit one put passes over, so that no put takes long."""

_MAX_VARIANTS = 64
"""How many entries a key may have: every look at the key reads them all."""

# What things take besides the bytes that they hold, as `tracemalloc` sees them in CPython.
_ENTRY_BYTES = 1900
"""The entry, its stored response and freshness, its places in the tables, and one ghost."""
_FIELD_BYTES = 240
_SELECTING_BYTES = 150
_TAG_BYTES = 60


class Entry:
    """A response in memory, ready to be judged and sent.

    `checked` is the journal position up to which it has been held against the invalidations.
    """

    __slots__ = (
        "_cost",
        "_slot",
        "body",
        "checked",
        "fields",
        "freshness",
        "head",
        "hits",
        "stored",
    )

    def __init__(
        self,
        stored: StoredResponse,
        fields: Fields,
        body: bytes,
        freshness: Freshness,
        checked: int,
        head: bytes | None = None,
    ) -> None:
        self.stored = stored
        self.fields = fields
        self.body = body
        self.freshness = freshness
        self.checked = checked
        self.head = head
        """What of the response's head can be rendered beforehand; see `MemoryTier.set_head`."""
        self.hits = 0
        """How often it was used of late, up to 3."""
        self._cost = 0
        self._slot = -1

    @property
    def cost(self) -> int:
        """What it takes in bytes, with everything that is kept for its sake."""
        stored = self.stored
        cost = _ENTRY_BYTES + len(self.body)
        cost += len(stored.target) + len(stored.buster) + len(stored.host) + len(stored.reason)
        if self.head is not None:
            cost += len(self.head)
        for name, value in stored.fields:
            # The name is there twice: as it came, and in lower case to be found by.
            cost += _FIELD_BYTES + 2 * len(name) + len(value)
        for name, chosen in stored.selecting:
            cost += _SELECTING_BYTES + len(name) + len(chosen or b"")
        for tag in stored.tags:
            cost += _TAG_BYTES + len(tag)
        return cost


class MemoryTier:
    """What a worker has in memory. Not for use by several threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes_used = 0
        self.variants: dict[bytes, tuple[Entry, ...]] = {}
        """The entries under each cache key. A tuple is never changed, but replaced whenever one of
        its entries comes, goes, or turns out to have been invalidated."""
        # Of stored ids, the oldest first.
        self._small: OrderedDict[bytes, Entry] = OrderedDict()
        self._main: OrderedDict[bytes, Entry] = OrderedDict()
        self._ghosts: OrderedDict[bytes, None] = OrderedDict()
        self._small_bytes = 0
        self._small_limit = int(max_bytes * _SMALL_SHARE)
        # Where an entry stays as long as it is here, whatever queue it is in: for `walk`.
        self._slots: list[Entry | None] = []
        self._free_slots: list[int] = []

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def get(self, primary: bytes) -> tuple[Entry, ...]:
        """The entries under a cache key, its variants."""
        return self.variants.get(primary, ())

    def touch(self, entry: Entry) -> None:
        """Note that an entry has been used."""
        if entry.hits < _MAX_HITS:
            entry.hits += 1

    def put(self, entry: Entry) -> None:
        """Keep an entry, in place of the one of the same id; one that is too large is not kept."""
        entry_id = entry.stored.id
        entry._cost = entry.cost
        old = self._find(entry_id)
        if entry._cost > self.max_bytes:
            if old is not None:
                self._remove(entry_id)
            return
        if old is not None:
            self._replace(entry_id, old, entry)
            self._make_room(0)
            return
        known = entry_id in self._ghosts
        if known:
            del self._ghosts[entry_id]
        self._make_room(entry._cost)
        if known:
            self._main[entry_id] = entry
        else:
            self._small[entry_id] = entry
            self._small_bytes += entry._cost
        self.bytes_used += entry._cost
        primary = entry.stored.primary
        variants = self.variants.get(primary, ())
        if len(variants) >= _MAX_VARIANTS:
            self._remove(variants[0].stored.id)
            variants = variants[1:]
        self.variants[primary] = (*variants, entry)
        if self._free_slots:
            entry._slot = self._free_slots.pop()
            self._slots[entry._slot] = entry
        else:
            entry._slot = len(self._slots)
            self._slots.append(entry)

    def set_head(self, entry: Entry, head: bytes) -> None:
        """Keep an entry's rendered head with it, if it is (still) here."""
        entry_id = entry.stored.id
        if self._find(entry_id) is not entry:
            return
        growth = len(head) - len(entry.head or b"")
        entry.head = head
        entry._cost += growth
        self._charge(entry_id, growth)
        self._make_room(0)

    def mark(self, entry: Entry, stored: StoredResponse, checked: int) -> None:
        """Note an invalidation of an entry: it is as `stored` says, judged up to `checked`."""
        if self._find(entry.stored.id) is entry:
            self.put(Entry(stored, entry.fields, entry.body, entry.freshness, checked, entry.head))

    def discard(self, stored_id: bytes) -> None:
        """Drop the entry of that id, if there is one."""
        if self._find(stored_id) is not None:
            self._remove(stored_id)

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
        for queue in (self.variants, self._small, self._main, self._ghosts):
            queue.clear()
        self._slots.clear()
        self._free_slots.clear()
        self.bytes_used = self._small_bytes = 0

    def _find(self, stored_id: bytes) -> Entry | None:
        return self._small.get(stored_id) or self._main.get(stored_id)

    def _replace(self, stored_id: bytes, old: Entry, new: Entry) -> None:
        new.hits = max(new.hits, old.hits)
        new._slot = old._slot
        self._slots[new._slot] = new
        self._charge(stored_id, new._cost - old._cost)
        (self._small if stored_id in self._small else self._main)[stored_id] = new
        primary = new.stored.primary
        self.variants[primary] = tuple(
            new if entry is old else entry for entry in self.variants[primary]
        )

    def _charge(self, stored_id: bytes, cost: int) -> None:
        self.bytes_used += cost
        if stored_id in self._small:
            self._small_bytes += cost

    def _remove(self, stored_id: bytes) -> None:
        entry = self._small.pop(stored_id, None)
        if entry is not None:
            self._small_bytes -= entry._cost
        else:
            entry = self._main.pop(stored_id)
        self.bytes_used -= entry._cost
        self._slots[entry._slot] = None
        self._free_slots.append(entry._slot)
        primary = entry.stored.primary
        others = tuple(other for other in self.variants[primary] if other is not entry)
        if others:
            self.variants[primary] = others
        else:
            del self.variants[primary]

    def _make_room(self, cost: int) -> None:
        chances = _CHANCES
        while self.bytes_used + cost > self.max_bytes:
            if self._small_bytes > self._small_limit or not self._main:
                self._evict_small()
            elif self._evict_main(spare=chances > 0):
                chances = _CHANCES
            else:
                chances -= 1

    def _evict_small(self) -> None:
        stored_id, entry = next(iter(self._small.items()))
        if entry.hits >= _PROMOTING_HITS:
            del self._small[stored_id]
            self._small_bytes -= entry._cost
            entry.hits = 0
            self._main[stored_id] = entry
            return
        self._remove(stored_id)
        self._ghosts[stored_id] = None
        while len(self._ghosts) > max(1, len(self)):
            self._ghosts.popitem(last=False)

    def _evict_main(self, *, spare: bool) -> bool:
        stored_id, entry = next(iter(self._main.items()))
        if spare and entry.hits:
            entry.hits -= 1
            self._main.move_to_end(stored_id)
            return False
        self._remove(stored_id)
        return True
