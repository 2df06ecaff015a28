"""What is found in the lists is what is picked, whatever the selector and however many indexes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgeproxy.cache.index import Index
from edgeproxy.cache.snapshot import Snapshot
from edgeproxy.cache.stored import BodyRef, StoredResponse
from edgeproxy.invalidation.picking import Walk, picked, upper_bound
from edgeproxy.invalidation.selectors import Selector
from tests.invalidation.samples import picks, response, responses, selectors

MIB = 1 << 20


def insert(index: Index, stored: StoredResponse) -> StoredResponse:
    with index.writing() as txn:
        kept = replace(stored, body=BodyRef("inline", index.new_body_id(txn), 1, 0))
        index.remove(txn, [kept.id], 1.0)
        index.insert(txn, kept, b"x", 1.0)
    return kept


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 1), responses()), max_size=12),
    st.lists(selectors(), min_size=1, max_size=5),
    st.integers(1, 3),
)
def test_what_a_selector_picks_is_found_once(
    drafts: list[tuple[int, StoredResponse]], chosen: list[Selector], step: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        indexes = [Index(Path(folder) / str(number), MIB, b"journal") for number in range(2)]
        stored: list[dict[bytes, StoredResponse]] = [{}, {}]
        for number, draft in drafts:
            stored[number][draft.id] = insert(indexes[number], draft)
        for used in (1, 2):
            there = [one for each in stored[:used] for one in each.values()]
            with Snapshot(indexes[:used]) as snapshot:
                for selector in chosen:
                    expected = sorted(one.id for one in there if picks(selector, one))
                    found = list(picked(snapshot, selector))
                    assert {one.id for one in found} == set(expected)
                    walk, ids = Walk(selector), []
                    while not walk.done:
                        ids += walk.step(snapshot, step)
                    # Two workers' responses of one id may have tags that differ in case alone.
                    if not selector.any_case or used == 1:
                        assert sorted(ids) == sorted(set(expected))
                    bound = upper_bound(snapshot, selector)
                    assert bound == len(ids) if selector.exact else bound >= len(ids)
        for index in indexes:
            index.close()


def test_a_prefix_longer_than_a_key_can_be(tmp_path: Path) -> None:
    index = Index(tmp_path, MIB, b"journal")
    long = b"/" + b"x" * 2000
    for name, target in (("a", long + b"a"), ("b", long + b"b"), ("c", long)):
        insert(index, response(name, target=target))
    with Snapshot([index]) as snapshot:
        for prefix, count in ((long, 3), (long + b"a", 1), (b"/x", 3), (long + b"z", 0)):
            selector = Selector("shop", prefix=prefix)
            assert len(list(picked(snapshot, selector))) == count
        one = Selector.by_url("shop", "shop.test", long + b"b")
        assert upper_bound(snapshot, one) == 1
    index.close()
