"""A body that goes to a second origin from its start, or not at all."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from edgeproxy.proxy.origins.replay import Replay
from tests.proxy.origin_client import pieces


async def all_of(replay: Replay) -> list[bytes]:
    return [piece async for piece in replay.pieces()]


@pytest.mark.parametrize("body", [[], [b"a"], [b"a", b"", b"bc"], [b"x" * 65_536]], ids=len)
async def test_a_short_body_can_be_read_again(body: list[bytes]) -> None:
    replay = Replay(pieces(*body))
    for _ in range(3):
        assert replay.repeatable
        assert await all_of(replay) == body


async def test_a_long_one_is_not_kept() -> None:
    body = [b"x" * 65_536, b"y"]
    replay = Replay(pieces(*body))
    assert await all_of(replay) == body
    assert not replay.repeatable


async def test_one_that_was_read_in_part_is_read_on() -> None:
    replay = Replay(pieces(b"a", b"b"))
    for begun in ([], [b"a"], [b"a", b"b"]):
        assert replay.repeatable
        reading = replay.pieces()
        assert [await anext(reading) for _ in begun] == begun
    assert await all_of(replay) == [b"a", b"b"]


async def test_a_piece_that_was_being_waited_for_is_lost() -> None:
    waits = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        waits.set()
        await asyncio.Event().wait()

    replay = Replay(slow())
    reading = asyncio.create_task(all_of(replay))
    await waits.wait()
    assert not replay.repeatable
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert not replay.repeatable
