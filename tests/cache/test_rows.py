"""Rows: what is written is read, by whoever needs all of it and by whoever needs it fast."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgeproxy.cache.rows import (
    FRONT_SIZE,
    IN_ROW,
    MIXED,
    DamagedRow,
    Ready,
    mark_row,
    mixed_row,
    packed_figures,
    packed_freshness,
    packed_stored,
    read_marks,
    read_row,
    row_body,
    row_vary,
    take_row,
    varies,
    vary_digest,
    write_row,
)
from edgeproxy.cache.stored import BodyRef, StoredResponse
from edgeproxy.semantics.freshness import Freshness
from tests.cache.samples import response

POLICY = b"a policy"
BODY = b"hello"
STORED = response("a", position=7, body=BodyRef("inline", b"12345678", 5, 0x3610A686))
FRESHNESS = Freshness(60.5, "max-age", 1.25, 1000.5, 30.0, 90.0, False, True, False, True)
READY = Ready(POLICY, FRESHNESS, b"HTTP/1.1 200 OK\r\n")
ROW = write_row(STORED, READY, BODY, varies(STORED))


def take(row: bytes, stored: StoredResponse = STORED, policy: bytes = POLICY) -> object:
    return take_row(memoryview(row), varies(stored), policy)


def test_a_row_has_what_a_hit_needs_in_reach() -> None:
    assert read_row(STORED.id, ROW) == STORED
    assert row_body(ROW) == BODY
    taken = take_row(memoryview(ROW), varies(STORED), POLICY)
    assert taken is not None
    assert (taken.head, taken.body) == (READY.head, BODY)
    assert packed_stored(taken.packed) == STORED
    assert packed_freshness(taken.packed) == FRESHNESS
    assert packed_figures(taken.packed) == (200, 7, 0, 0.0)
    assert taken.mark.known(memoryview(ROW))


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(write_row(STORED, None, BODY, varies(STORED)), id="nothing is ready"),
        pytest.param(
            write_row(STORED, READY._replace(policy=b"one else"), BODY, varies(STORED)),
            id="another policy",
        ),
        pytest.param(
            write_row(STORED, READY, BODY, vary_digest((b"cookie",))),
            id="it varies by other fields",
        ),
        pytest.param(mixed_row(ROW), id="the key's rows vary by several"),
        pytest.param(ROW[:-1], id="cut off"),
        pytest.param(ROW[: FRONT_SIZE - 1], id="hardly there"),
        pytest.param(b"", id="empty"),
    ],
)
def test_what_is_not_ready_is_not_taken(row: bytes) -> None:
    assert take(row) is None


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(replace(STORED, status=206), id="incomplete"),
        pytest.param(
            replace(STORED, selecting=((b"accept-language", b"de"),)), id="by Accept-Language"
        ),
    ],
)
def test_what_may_match_beside_others_is_never_the_only_one(stored: StoredResponse) -> None:
    assert varies(stored) == MIXED
    assert take(write_row(stored, READY, BODY, varies(stored)), stored) is None


def test_a_mark_leaves_all_else_as_it_is() -> None:
    marked = replace(STORED, invalidated=9, deleted_from=2000.5)
    row = mark_row(ROW, read_marks(STORED.id, ROW)._replace(invalidated=9, deleted_from=2000.5))
    assert read_row(STORED.id, row) == marked
    taken = take_row(memoryview(row), varies(STORED), POLICY)
    assert taken is not None
    assert (taken.head, taken.body) == (READY.head, BODY)
    assert packed_figures(taken.packed) == (200, 7, 9, 2000.5)
    assert packed_freshness(taken.packed) == FRESHNESS
    assert packed_stored(taken.packed) == marked
    before = take_row(memoryview(ROW), varies(STORED), POLICY)
    assert before is not None
    assert not before.mark.known(memoryview(row)), "who has answered from it sees the mark"


def test_a_row_that_is_one_of_several_kinds_is_read_as_before() -> None:
    row = mixed_row(ROW)
    assert (row_vary(ROW), row_vary(row)) == (varies(STORED), MIXED)
    assert read_row(STORED.id, row) == STORED
    assert row_body(row) == BODY


@given(st.integers(0, len(ROW) - 1), st.integers(1, 255))
def test_no_damage_goes_unseen(at: int, flip: int) -> None:
    row = bytearray(ROW)
    row[at] ^= flip
    damaged = bytes(row)
    assert take(damaged) is None
    if at < len(ROW) - len(BODY):
        with pytest.raises(DamagedRow):
            read_row(STORED.id, damaged)
        with pytest.raises(DamagedRow):
            read_marks(STORED.id, damaged)
        with pytest.raises(DamagedRow):
            read_row(STORED.id, mixed_row(damaged) if at >= FRONT_SIZE else damaged)


def test_a_long_body_is_beside_its_row() -> None:
    stored = replace(STORED, body=BodyRef("inline", b"12345678", IN_ROW + 1, 1))
    row = write_row(stored, READY, None, varies(stored))
    assert read_row(stored.id, row) == stored
    taken = take_row(memoryview(row), varies(stored), POLICY)
    assert taken is not None
    assert taken.body is None
