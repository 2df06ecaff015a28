"""The memory tier: its bookkeeping against a model, and what S3-FIFO promises."""

import gc
import os
import random
import tracemalloc
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeproxy.cache.memory import Entry, MemoryTier
from edgeproxy.cache.stored import BodyRef, StoredResponse, decode, encode, variant_id
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.freshness import Freshness

MIB = 1 << 20


def make_entry(
    number: int,
    variant: int = 0,
    *,
    body: bytes = b"",
    fields: tuple[tuple[bytes, bytes], ...] = (),
    selecting: int = 0,
    tags: int = 0,
) -> Entry:
    chosen = tuple((b"x-%d" % at, b"v%d" % number) for at in range(selecting))
    stored = StoredResponse(
        primary=number.to_bytes(16, "big"),
        variant=variant.to_bytes(8, "big") if not selecting else variant_id(chosen),
        target_id=number.to_bytes(16, "big"),
        site="default",
        environment="production",
        scheme="https",
        host="example.com",
        target=b"/%d" % number,
        buster=b"",
        status=200,
        reason=b"OK",
        fields=fields,
        selecting=chosen,
        tags=tuple(f"tag-{number}-{at}" for at in range(tags)),
        request_time=number + 0.25,
        response_time=number + 0.5,
        position=number,
        invalidated=0,
        body=BodyRef("inline", number.to_bytes(8, "big"), len(body), number),
    )
    # As it comes out of the store: nothing shared with its neighbours.
    stored = decode(encode(stored))
    freshness = Freshness(
        lifetime=number + 60.5,
        source="max-age",
        initial_age=number + 0.125,
        response_time=stored.response_time,
        stale_while_revalidate=number + 30.5,
        stale_if_error=number + 90.5,
        must_validate=False,
        must_revalidate=False,
        no_stale=False,
        immutable=False,
    )
    return Entry.of(stored, body, freshness, stored.position)


def everything(tier: MemoryTier, step: int = 7) -> Iterator[Entry]:
    cursor: int | None = 0
    while cursor is not None:
        entries, cursor = tier.walk(cursor, step)
        yield from entries


def holds(tier: MemoryTier, entry: Entry) -> bool:
    return any(other is entry for other in tier.get(entry.stored.primary))


# -- one entry after the other


def test_a_new_tier_is_empty() -> None:
    tier = MemoryTier(MIB)
    assert (len(tier), tier.bytes_used) == (0, 0)
    assert tier.get(bytes(16)) == ()
    assert tier.walk(0, 10) == ([], None)
    tier.discard(bytes(24))


def test_what_was_put_is_found_with_its_variants() -> None:
    tier = MemoryTier(MIB)
    one, two, other = make_entry(1, 1), make_entry(1, 2), make_entry(2)
    for entry in (one, two, other):
        tier.put(entry)
    assert tier.get(one.stored.primary) == (one, two)
    assert tier.get(other.stored.primary) == (other,)
    assert (len(tier), tier.bytes_used) == (3, one.cost + two.cost + other.cost)


def test_the_same_id_is_replaced() -> None:
    tier = MemoryTier(MIB)
    old, other, new = make_entry(1, body=b"old"), make_entry(1, 2), make_entry(1, body=b"newer")
    tier.put(old)
    tier.put(other)
    tier.touch(old)
    tier.put(new)
    assert tier.get(new.stored.primary) == (new, other)
    assert (len(tier), tier.bytes_used) == (2, new.cost + other.cost)
    assert new.hits == 1, "what is asked for often stays so when it is refreshed"
    assert set(everything(tier)) == {new, other}


def test_the_same_entry_may_be_put_twice() -> None:
    tier = MemoryTier(MIB)
    entry = make_entry(1)
    tier.put(entry)
    tier.put(entry)
    assert tier.get(entry.stored.primary) == (entry,)
    assert (len(tier), tier.bytes_used) == (1, entry.cost)


def test_what_was_discarded_is_gone() -> None:
    tier = MemoryTier(MIB)
    one, two = make_entry(1, 1), make_entry(1, 2)
    tier.put(one)
    tier.put(two)
    tier.discard(one.stored.id)
    assert tier.get(one.stored.primary) == (two,)
    assert (len(tier), tier.bytes_used) == (1, two.cost)
    tier.discard(two.stored.id)
    assert (len(tier), tier.bytes_used) == (0, 0)
    assert tier.get(one.stored.primary) == ()


def test_clear_drops_everything() -> None:
    tier = MemoryTier(40_000)
    for number in range(100):
        tier.put(make_entry(number))
    tier.clear()
    assert (len(tier), tier.bytes_used) == (0, 0)
    assert list(everything(tier)) == []
    entry = make_entry(1)
    tier.put(entry)
    assert tier.get(entry.stored.primary) == (entry,)
    assert tier.bytes_used == entry.cost


def test_one_that_is_too_large_is_not_kept_nor_what_it_replaces() -> None:
    tier = MemoryTier(10_000)
    small, other = make_entry(1), make_entry(2)
    tier.put(small)
    tier.put(other)
    tier.put(make_entry(1, body=bytes(10_000)))
    assert tier.get(small.stored.primary) == ()
    assert holds(tier, other)
    assert tier.bytes_used == other.cost


def test_one_may_take_it_all() -> None:
    entry = make_entry(1, body=bytes(10_000))
    tier = MemoryTier(entry.cost)
    tier.put(make_entry(2))
    tier.put(entry)
    assert holds(tier, entry)
    assert (len(tier), tier.bytes_used) == (1, entry.cost)


def test_a_rendered_head_is_paid_for() -> None:
    tier = MemoryTier(MIB)
    entry = make_entry(1)
    tier.put(entry)
    before = tier.bytes_used
    tier.set_head(entry, bytes(1000))
    assert entry.head == bytes(1000)
    assert tier.bytes_used == before + 1000 == entry.cost
    tier.set_head(entry, bytes(10))
    assert tier.bytes_used == before + 10
    tier.discard(entry.stored.id)
    assert tier.bytes_used == 0
    tier.set_head(entry, bytes(1000))
    assert tier.bytes_used == 0, "it is not here any more"


def test_a_rendered_head_makes_room_for_itself() -> None:
    one, two = make_entry(1), make_entry(2)
    tier = MemoryTier(one.cost + two.cost + 50)
    tier.put(one)
    tier.put(two)
    tier.set_head(two, bytes(100))
    assert list(everything(tier)) == [two]
    assert tier.bytes_used == two.cost


def test_a_key_has_no_more_entries_than_a_look_may_read() -> None:
    tier = MemoryTier(MIB)
    entries = [make_entry(1, variant) for variant in range(70)]
    for entry in entries:
        tier.put(entry)
    assert tier.get(entries[0].stored.primary) == tuple(entries[-64:])
    assert len(tier) == 64
    assert tier.bytes_used == sum(entry.cost for entry in entries[-64:])


def test_an_entry_says_what_it_was_made_of() -> None:
    entry = make_entry(7, 3, fields=((b"X-Name", b"value"),), selecting=2, tags=1)
    assert entry.id == entry.stored.id == entry.primary + entry.stored.variant
    assert entry.fields == Fields(((b"X-Name", b"value"),))
    assert entry.freshness.lifetime == 67.5
    marked = msgspec.structs.replace(entry.stored, invalidated=9)
    entry.head = b"head"
    again = entry.marked(marked, 10)
    assert (again.stored, again.freshness) == (marked, entry.freshness)
    assert (again.body, again.head, again.checked) == (entry.body, b"head", 10)


# -- S3-FIFO


def fill(tier: MemoryTier, numbers: range) -> list[Entry]:
    entries = [make_entry(number, body=bytes(1000)) for number in numbers]
    for entry in entries:
        tier.put(entry)
    return entries


@pytest.mark.parametrize("hits", [2, 3, 10])
def test_a_scan_does_not_evict_what_is_asked_for(hits: int) -> None:
    tier = MemoryTier(MIB)
    hot = fill(tier, range(100))
    for _ in range(hits):
        for entry in hot:
            tier.touch(entry)
    fill(tier, range(1000, 6000))
    assert all(holds(tier, entry) for entry in hot)


def test_what_was_not_asked_for_again_goes_first() -> None:
    tier = MemoryTier(MIB)
    cold = fill(tier, range(100))
    fill(tier, range(1000, 2000))
    assert not any(holds(tier, entry) for entry in cold)


def test_what_comes_back_soon_stays() -> None:
    """The ghosts: an id that left the small queue a moment ago gets into the main one."""
    tier = MemoryTier(MIB)
    fill(tier, range(1000, 2000))
    early = fill(tier, range(100))
    fill(tier, range(2000, 2000 + len(tier)))
    assert not any(holds(tier, entry) for entry in early)
    again = fill(tier, range(100))
    fill(tier, range(4000, 6000))
    assert all(holds(tier, entry) for entry in again)


def test_what_is_asked_for_no_more_goes_at_last() -> None:
    tier = MemoryTier(MIB)
    once_hot = fill(tier, range(50))
    for entry in once_hot * 3:
        tier.touch(entry)
    for start in range(1000, 30_000, 1000):
        for entry in fill(tier, range(start, start + 200)) * 3:
            tier.touch(entry)
    assert not any(holds(tier, entry) for entry in once_hot)


def test_no_ghost_stays_forever() -> None:
    tier = MemoryTier(MIB)
    early = fill(tier, range(10))
    fill(tier, range(1000, 5000))
    fill(tier, range(10))
    fill(tier, range(6000, 8000))
    assert not any(tier.get(entry.stored.primary) for entry in early)


def test_when_everything_is_asked_for_a_put_still_finds_room() -> None:
    tier = MemoryTier(MIB)
    for start in range(0, 4000, 100):
        for entry in fill(tier, range(start, start + 100)) * 3:
            tier.touch(entry)
        assert tier.bytes_used <= MIB
    last = make_entry(9999, body=bytes(MIB // 2))
    tier.put(last)
    assert holds(tier, last)
    assert tier.bytes_used <= MIB


# -- the walk


@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_walk_sees_all_that_stay_however_they_move(step: int) -> None:
    """Entries come, go, are asked for and move between the queues while it is under way."""
    chance = random.Random(step)
    tier = MemoryTier(200_000)
    fill(tier, range(60))
    staying = set(everything(tier))
    seen: list[Entry] = []
    cursor: int | None = 0
    number = 1000
    while cursor is not None:
        entries, cursor = tier.walk(cursor, step)
        assert len(entries) <= step
        seen += entries
        for entry in staying:
            tier.touch(entry)
        for _ in range(3):
            number += 1
            tier.put(make_entry(number, body=bytes(chance.randrange(3000))))
        if number % 5 == 0:
            gone = chance.choice(sorted(staying, key=lambda entry: entry.stored.id))
            tier.discard(gone.stored.id)
        staying = {entry for entry in staying if holds(tier, entry)}
    assert staying
    assert staying <= set(seen)
    assert len(seen) == len(set(seen))


# -- the measure


@pytest.mark.parametrize(
    ("fields", "selecting", "tags", "body"),
    [(0, 0, 0, 0), (1, 0, 0, 100), (12, 1, 5, 1000), (30, 0, 0, 0), (10, 6, 0, 0), (5, 0, 90, 0)],
)
def test_the_cost_is_what_it_takes(fields: int, selecting: int, tags: int, body: int) -> None:
    """Within a tenth of what the allocator was asked for, ghosts and all."""
    count = 700

    def entry(number: int) -> Entry:
        lines = tuple((b"X-Name-%d" % at, b"value %d" % number) for at in range(fields))
        return make_entry(
            number, body=os.urandom(body), fields=lines, selecting=selecting, tags=tags
        )

    # Twice as many as have room: each of those that stay has a ghost beside it.
    tier = MemoryTier(entry(1).cost * count)
    tracemalloc.start()
    try:
        for number in range(2 * count):
            tier.put(entry(number))
        # Empties CPython's free lists, too.
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.9 < taken / tier.bytes_used < 1.1


# -- against a model


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done in whatever order: what is found was put, and the books are right."""

    def __init__(self) -> None:
        super().__init__()
        self.bound = 12_000
        self.tier = MemoryTier(self.bound)
        self.last: dict[bytes, Entry] = {}
        """What was put last under each id, and not discarded."""
        self.walk: tuple[int, set[Entry], set[Entry]] | None = None
        """Under way: the cursor, what has been there since its beginning, what it has seen."""

    @rule(number=st.integers(0, 5), variant=st.integers(0, 2), size=st.integers(0, 4000))
    def put(self, number: int, variant: int, size: int) -> None:
        entry = make_entry(number, variant, body=bytes(size))
        replaces = any(old.stored.id == entry.stored.id for old in self.present())
        self.last[entry.stored.id] = entry
        self.tier.put(entry)
        # One that replaces another takes its place in the queue, and that may be the next to go.
        assert holds(self.tier, entry) or replaces

    @rule(number=st.integers(0, 5), variant=st.integers(0, 2))
    def put_one_too_large(self, number: int, variant: int) -> None:
        entry = make_entry(number, variant, body=bytes(self.bound))
        self.last.pop(entry.stored.id, None)
        self.tier.put(entry)

    @precondition(lambda self: self.last)
    @rule(data=st.data(), times=st.integers(1, 4))
    def touch(self, data: st.DataObject, times: int) -> None:
        entry = self.last[data.draw(st.sampled_from(sorted(self.last)))]
        for _ in range(times):
            self.tier.touch(entry)

    @precondition(lambda self: self.last)
    @rule(data=st.data(), size=st.integers(0, 2000))
    def set_head(self, data: st.DataObject, size: int) -> None:
        entry = self.last[data.draw(st.sampled_from(sorted(self.last)))]
        self.tier.set_head(entry, bytes(size))

    @rule(number=st.integers(0, 5), variant=st.integers(0, 2))
    def discard(self, number: int, variant: int) -> None:
        stored_id = make_entry(number, variant).stored.id
        self.last.pop(stored_id, None)
        self.tier.discard(stored_id)
        assert all(entry.stored.id != stored_id for entry in everything(self.tier))

    @rule()
    def clear(self) -> None:
        self.last.clear()
        self.tier.clear()

    @rule(step=st.integers(1, 3))
    def walk_on(self, step: int) -> None:
        cursor, staying, seen = self.walk or (0, self.present(), set())
        entries, following = self.tier.walk(cursor, step)
        seen |= set(entries)
        if following is None:
            assert staying <= seen
            self.walk = None
        else:
            self.walk = (following, staying, seen)

    def present(self) -> set[Entry]:
        return {entry for entry in self.last.values() if holds(self.tier, entry)}

    @invariant()
    def the_books_are_right(self) -> None:
        found = [
            entry for number in range(6) for entry in self.tier.get(number.to_bytes(16, "big"))
        ]
        assert set(found) == self.present(), "nothing but what was put last"
        assert len(self.tier) == len(found)
        assert self.tier.bytes_used == sum(entry.cost for entry in found) <= self.bound
        walked = list(everything(self.tier, 2))
        assert len(walked) == len(found)
        assert set(walked) == set(found)
        if self.walk is not None:
            cursor, staying, seen = self.walk
            self.walk = (cursor, staying & set(found), seen)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=30)
