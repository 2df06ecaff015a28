"""The shared filters: a "no" is always right, a "yes" costs at most a record."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.proxy.in_flight import InFlight, RememberedTargets

WORKERS = 3
SLOTS = 8
FULL = 0xFFFF


def counters() -> list[memoryview]:
    """The counters of each worker, as the shared block has them."""
    return [memoryview(bytearray(2 * SLOTS)).cast("H") for _ in range(WORKERS)]


def node(filters: list[memoryview]) -> list[InFlight]:
    return [InFlight(filters, worker) for worker in range(WORKERS)]


def target(slot: int, rest: bytes = b"") -> bytes:
    """The id of a target that is counted in that slot."""
    return slot.to_bytes(4, "big") + rest.ljust(12, b"\0")


def test_a_fetch_is_seen_by_every_worker_until_it_has_ended() -> None:
    one, two, three = node(counters())
    assert not any(each.may_be(target(1)) for each in (one, two, three))
    two.began(target(1))
    assert all(each.may_be(target(1)) for each in (one, two, three))
    assert not any(each.may_be(target(2)) for each in (one, two, three))
    two.ended(target(1))
    assert not any(each.may_be(target(1)) for each in (one, two, three))


def test_the_fetches_of_a_target_are_counted() -> None:
    one, two, _ = node(counters())
    one.began(target(1))
    one.began(target(1))
    two.began(target(1))
    one.ended(target(1))
    two.ended(target(1))
    assert two.may_be(target(1)), "one of the first worker's is in the air"
    one.ended(target(1))
    assert not two.may_be(target(1))


def test_a_worker_writes_to_its_own_counters_alone() -> None:
    filters = counters()
    node(filters)[1].began(target(5))
    assert [list(each) for each in filters] == [
        [0] * SLOTS,
        [0, 0, 0, 0, 0, 1, 0, 0],
        [0] * SLOTS,
    ]


def test_targets_that_share_a_slot_are_not_told_apart() -> None:
    one, _, _ = node(counters())
    one.began(target(1))
    assert one.may_be(target(1, b"another"))
    assert one.may_be(target(1 + SLOTS))


def test_a_counter_that_was_full_says_yes_for_ever() -> None:
    filters = counters()
    one, two, _ = node(filters)
    filters[0][1] = FULL - 1
    one.began(target(1))
    one.began(target(1))
    assert filters[0][1] == FULL, "it does not begin again at 0"
    for _ in range(FULL + 1):
        one.ended(target(1))
    assert two.may_be(target(1)), "how many there were is not known any more"


TARGETS = st.builds(target, st.integers(0, 2 * SLOTS), st.sampled_from([b"", b"x"]))


@given(st.lists(st.tuples(st.integers(0, WORKERS - 1), TARGETS, st.booleans()), max_size=60))
def test_a_no_is_always_right(steps: list[tuple[int, bytes, bool]]) -> None:
    workers = node(counters())
    flying: Counter[tuple[int, bytes]] = Counter()
    for number, each, begins in steps:
        if begins:
            workers[number].began(each)
            flying[number, each] += 1
        elif flying[number, each]:
            workers[number].ended(each)
            flying[number, each] -= 1
        for (_, known), count in flying.items():
            assert not count or all(worker.may_be(known) for worker in workers)
    for (number, each), count in flying.items():
        for _ in range(count):
            workers[number].ended(each)
    assert not any(workers[0].may_be(target(slot)) for slot in range(SLOTS))


# -- what was in some worker's memory


def test_what_was_in_a_worker_s_memory_is_known_to_all() -> None:
    slots = memoryview(bytearray(SLOTS))
    one, two = RememberedTargets(slots), RememberedTargets(slots)
    assert not two.may_have(target(3))
    one.add(target(3))
    one.add(target(3))
    assert two.may_have(target(3))
    assert not two.may_have(target(4))


@given(st.sets(TARGETS, max_size=20))
def test_no_target_is_forgotten(targets: set[bytes]) -> None:
    remembered = RememberedTargets(memoryview(bytearray(SLOTS)))
    for each in targets:
        remembered.add(each)
    assert all(remembered.may_have(each) for each in targets)
    slots = {each[3] % SLOTS for each in targets}
    assert {slot for slot in range(SLOTS) if remembered.may_have(target(slot))} == slots


@pytest.mark.parametrize("prefix", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x80\0\0\0"])
def test_every_id_has_a_slot(prefix: bytes) -> None:
    each = prefix + bytes(12)
    one, _, _ = node(counters())
    one.began(each)
    assert one.may_be(each)
    remembered = RememberedTargets(memoryview(bytearray(SLOTS)))
    remembered.add(each)
    assert remembered.may_have(each)
