"""Eviction: what is least worth goes, in bounded steps."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgeproxy.cache.evict import BATCH, evict, limit_busters, limit_variants, worth
from edgeproxy.cache.index import Index
from edgeproxy.cache.layout import Usage
from edgeproxy.cache.stored import BodyRef, StoredResponse
from tests.cache.samples import JOURNAL_ID, KIB, MIB, copy_of, response

NOW = 10_000.0
REF = BodyRef("inline", bytes(8), 100, 0)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path, MIB, JOURNAL_ID)
    yield index
    index.close()


def insert(index: Index, stored: StoredResponse, used: float, size: int = 100) -> StoredResponse:
    with index.writing() as txn:
        ref = BodyRef("inline", index.new_body_id(txn), size, 0)
        stored = replace(stored, body=ref)
        index.insert(txn, stored, bytes(size), used)
    return stored


def names(index: Index) -> set[str]:
    return {one.target.decode()[1:] for one in index.walk(b"\0", 10_000)[0]}


@pytest.mark.parametrize(
    ("less", "more"),
    [
        pytest.param(Usage(NOW - 100, 5, 1000, REF), Usage(NOW - 10, 5, 1000, REF), id="idle"),
        pytest.param(Usage(NOW - 10, 1, 1000, REF), Usage(NOW - 10, 5, 1000, REF), id="hits"),
        pytest.param(Usage(NOW - 10, 5, 9000, REF), Usage(NOW - 10, 5, 1000, REF), id="size"),
        pytest.param(
            Usage(NOW - 86_400, 500, 1000, REF), Usage(NOW - 1, 0, 1000, REF), id="was-loved-once"
        ),
        pytest.param(Usage(NOW, 0, 1000, REF), Usage(NOW + 5, 1, 1000, REF), id="clock-behind"),
    ],
)
def test_worth(less: Usage, more: Usage) -> None:
    assert worth(less, NOW) < worth(more, NOW)


def test_what_is_used_stays(index: Index) -> None:
    for number in range(600):
        hot = number % 3 == 0
        insert(index, response(f"{'hot' if hot else 'cold'}-{number}"), NOW - (5 if hot else 5000))
    with index.writing() as txn:
        need = index.counter(txn, b"bytes") // 4
        assert evict(index, txn, need, NOW) >= need
    left = names(index)
    assert 400 < len(left) < 455
    assert sum(1 for name in left if name.startswith("hot")) > 195


def test_a_step_is_bounded(index: Index) -> None:
    for number in range(BATCH + 100):
        insert(index, response(str(number)), NOW)
    with index.writing() as txn:
        freed = evict(index, txn, 1 << 40, NOW)
        assert index.entries(txn) == 100
        assert freed > 0
        assert evict(index, txn, 1 << 40, NOW) > 0
        assert index.entries(txn) == 0
        assert evict(index, txn, 1 << 40, NOW) == 0
        assert index.counter(txn, b"bytes") == 0


def test_no_more_goes_than_is_needed(index: Index) -> None:
    for number in range(50):
        insert(index, response(str(number)), NOW - number)
    with index.writing() as txn:
        evict(index, txn, 1, NOW)
        assert index.entries(txn) == 49
        evict(index, txn, 0, NOW)
        assert index.entries(txn) == 49


def test_every_variant_of_a_key_can_be_evicted(index: Index) -> None:
    for variant in range(30):
        insert(index, response("a", variant), NOW - 1000 - variant)
    for number in range(30):
        insert(index, response(str(number)), NOW)
    with index.writing() as txn:
        while index.entries(txn) > 30:
            evict(index, txn, 1, NOW)
    # It samples: 27 of the 30 stay as a rule, and 15 would if it took whatever it met.
    assert len(names(index) - {"a"}) > 20


def test_large_ones_go_before_small_ones_that_are_used_alike(index: Index) -> None:
    for number in range(64):
        large = number % 2 == 0
        name = f"{'large' if large else 'small'}-{number}"
        insert(index, response(name), NOW - 10, 60 * KIB if large else 100)
    with index.writing() as txn:
        evict(index, txn, 10 * 60 * KIB, NOW)
    assert sum(1 for name in names(index) if name.startswith("small")) == 32


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(lambda usage: usage[:-1], id="too short"),
        pytest.param(lambda usage: usage[:20] + b"\xff" + usage[21:], id="no kind of body"),
        pytest.param(lambda usage: usage[:12] + bytes(8) + usage[20:], id="no cost"),
    ],
)
def test_what_is_damaged_goes_first(index: Index, damaged: Callable[[bytes], bytes]) -> None:
    for number in range(4):
        insert(index, response(f"good-{number}"), NOW)
    bad = insert(index, response("bad"), NOW)
    with index.writing() as txn:
        txn.put(bad.id, damaged(txn.get(bad.id, db=index.usage)), db=index.usage)
        evict(index, txn, 1, NOW)
        index.touch(txn, bad.id, NOW, 1)
    assert names(index) == {f"good-{number}" for number in range(4)}


def test_the_new_variant_stays_whatever_the_others_are_like(index: Index) -> None:
    for variant in range(5):
        insert(index, response("a", variant), NOW + variant)
    new = insert(index, response("a", 9), NOW - 1000)
    with index.writing() as txn:
        others = [row_id for row_id in index.ids_of(txn, new.primary) if row_id != new.id]
        limit_variants(index, txn, others, 3, NOW)
        left = [row_id[16:] for row_id in index.ids_of(txn, new.primary)]
    assert left == [bytes(7) + bytes([variant]) for variant in (3, 4, 9)]


def test_copies_count_by_target_not_by_variant(index: Index) -> None:
    chance = random.Random(1)
    for token in "pq":
        for variant in range(5):
            insert(index, copy_of("a", token, variant=variant), NOW + chance.random())
    newest = insert(index, copy_of("a", "r"), NOW + 9)
    with index.writing() as txn:
        limit_busters(index, txn, newest, 3, NOW)
        assert index.entries(txn) == 11
        limit_busters(index, txn, newest, 2, NOW)
        assert index.entries(txn) == 6
        limit_busters(index, txn, response("a"), 1, NOW)
        assert index.entries(txn) == 6
