"""What was not stored, counted for the whole node."""

from edgeproxy.proxy.tally import DROPPED, REASONS, REFUSALS, WORDS, Tally
from edgeproxy.runtime.shared import TALLY_BYTES, SharedBlock


def test_the_workers_count_as_one_and_beyond_their_end() -> None:
    block = SharedBlock(2)
    areas = [slot.tally for slot in block.slots]
    one, other = Tally(areas, 0), Tally(areas, 1)
    for tally in (one, other, other):
        tally.note("key-too-long")
    one.note("")
    one.note("no-store")
    block.slots[1].clear()
    assert one.counts() == other.counts() == dict.fromkeys(REASONS, 0) | {"key-too-long": 3}
    assert bytes(block.slots[0].filter) == bytes(block.slots[0].filter.nbytes)


def test_there_is_room_for_every_reason() -> None:
    assert len({*REASONS, *REFUSALS, *DROPPED}) <= WORDS
    assert WORDS * 8 == TALLY_BYTES
