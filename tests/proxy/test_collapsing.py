"""One fetch and those who follow it, over a real spool."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.cache.spool import Spool
from edgeproxy.cache.stored import UNWRITTEN, StoredResponse
from edgeproxy.invalidation.selectors import Expected
from edgeproxy.proxy import collapsing
from edgeproxy.proxy.collapsing import WINDOW_BYTES, Flight, Shared, Stored, Unshared
from edgeproxy.proxy.errors import EdgeError, OriginBodyCut, OriginUnreachable, ReaderTooSlow
from edgeproxy.semantics.fields import Fields

PATIENCE = 10.0
"""Seconds that a test waits for what has to come."""
LARGE = 64 * 1024 * 1024

RESPONSE = StoredResponse(
    primary=bytes(16),
    variant=bytes(8),
    target_id=bytes(16),
    site="default",
    environment="production",
    scheme="https",
    host="example.com",
    target=b"/",
    buster=b"",
    status=200,
    reason=b"OK",
    fields=(),
    selecting=(),
    tags=(),
    request_time=1.0,
    response_time=2.0,
    position=0,
    invalidated=0,
    body=UNWRITTEN,
)
SHARED = Shared(RESPONSE, None, None)
EXPECTED = Expected("default", "production", "https", "example.com", b"/", bytes(16))

NewFlight = Callable[..., Flight]


@pytest.fixture
async def new_flight(tmp_path: Path) -> AsyncIterator[NewFlight]:
    flights: list[Flight] = []

    def make(keep_bytes: int = LARGE, memory_limit: int = 1000) -> Flight:
        flight = Flight(Spool(tmp_path, memory_limit), keep_bytes, EXPECTED, 0)
        flights.append(flight)
        return flight

    yield make
    for flight in flights:
        await flight.spool.close()


@dataclass
class Reader:
    """A request that follows a flight: it asks for the outcome, and reads when it is let."""

    flight: Flight
    pace: float | None = None
    """Seconds between two chunks; None: without a pause."""
    let: asyncio.Event = field(default_factory=asyncio.Event)
    got: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.let.set()
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> bytes:
        with self.flight.waiting():
            await self.flight.outcome()
            await self.let.wait()
            async for chunk in self.flight.read():
                self.got += chunk
                await self.let.wait()
                if self.pace is not None:
                    await asyncio.sleep(self.pace)
        return bytes(self.got)

    async def whole(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self.task

    async def has(self, count: int) -> None:
        """Wait until it has that many bytes."""
        async with asyncio.timeout(PATIENCE):
            while len(self.got) < count:
                assert not self.task.done()
                await asyncio.sleep(0.001)


async def read(flight: Flight, start: int = 0, stop: int | None = None) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return b"".join([chunk async for chunk in flight.read(start, stop)])


async def settle() -> None:
    """Let all that can go on without anything new do so."""
    for _ in range(20):
        await asyncio.sleep(0)


# -- the outcome


@pytest.mark.parametrize(
    "outcome", [SHARED, Stored(RESPONSE, 304), Unshared(None, 200, "private")], ids=type
)
async def test_all_who_wait_are_told_the_outcome(new_flight: NewFlight, outcome: Any) -> None:
    flight = new_flight()
    waiting = [asyncio.create_task(flight.outcome()) for _ in range(10)]
    await settle()
    assert not any(task.done() for task in waiting)
    flight.announce(outcome)
    assert await asyncio.gather(*waiting) == [outcome] * 10
    assert await flight.outcome() == outcome, "who comes later is told at once"


async def test_a_failure_before_the_outcome_is_everybody_s(new_flight: NewFlight) -> None:
    flight = new_flight()
    waiting = [asyncio.create_task(flight.outcome()) for _ in range(10)]
    await settle()
    error = OriginUnreachable()
    flight.fail(error)
    assert await asyncio.gather(*waiting, return_exceptions=True) == [error] * 10


async def test_one_who_gives_up_takes_nobody_along(new_flight: NewFlight) -> None:
    flight = new_flight()
    leaving, staying = (asyncio.create_task(flight.outcome()) for _ in range(2))
    await settle()
    leaving.cancel()
    await settle()
    flight.announce(SHARED)
    assert await staying == SHARED
    assert leaving.cancelled()


async def test_interim_responses_are_handed_on_in_order(new_flight: NewFlight) -> None:
    flight = new_flight()
    told: list[int] = []

    async def on_interim(status: int, reason: bytes, fields: Fields) -> None:
        told.append(status)
        await asyncio.sleep(0)

    flight.interim(100, b"Continue", Fields())
    waiting = asyncio.create_task(flight.outcome(on_interim))
    await settle()
    assert told == [100]
    flight.interim(102, b"Processing", Fields())
    flight.interim(103, b"Early Hints", Fields([(b"Link", b"</a>")]))
    flight.announce(SHARED)
    assert await waiting == SHARED
    assert told == [100, 102, 103]


@pytest.mark.parametrize(
    ("act", "joinable"),
    [
        pytest.param(lambda flight: None, True, id="in the air"),
        pytest.param(lambda flight: flight.announce(SHARED), True, id="shared"),
        pytest.param(lambda flight: flight.announce(Unshared(None, 200, "")), False, id="unshared"),
        pytest.param(lambda flight: flight.land(), False, id="landed"),
        pytest.param(lambda flight: flight.fail(EdgeError()), False, id="failed"),
    ],
)
async def test_who_may_still_join(
    new_flight: NewFlight, act: Callable[[Flight], None], joinable: bool
) -> None:
    flight = new_flight()
    act(flight)
    assert flight.joinable is joinable


async def test_an_answer_that_nobody_took_is_broken_off(new_flight: NewFlight) -> None:
    class Answer:
        aborted = 0

        @property
        def response(self) -> "Answer":
            return self

        def abort(self) -> None:
            self.aborted += 1

    flight, answer = new_flight(), Answer()
    flight.abandon()
    flight.announce(Unshared(answer, 200, "private"))  # type: ignore[arg-type]
    flight.abandon()
    assert answer.aborted == 1


# -- the body


async def test_readers_follow_at_their_own_pace(new_flight: NewFlight) -> None:
    """From memory and from the file, from the first byte and behind the last."""
    body = os.urandom(300_000)
    flight = new_flight(memory_limit=100_000)
    readers = [Reader(flight, pace) for pace in (None, 0, 0.001, 0.01)]
    flight.announce(SHARED)
    for start in range(0, len(body), 10_000):
        assert await flight.append(body[start : start + 10_000])
        await asyncio.sleep(0)
    late = Reader(flight)
    flight.land()
    for reader in [*readers, late]:
        assert await reader.whole() == body
    assert not flight.outgrown


async def test_bytes_are_handed_out_as_they_come(new_flight: NewFlight) -> None:
    flight = new_flight()
    reader = Reader(flight)
    flight.announce(SHARED)
    for count in range(1, 6):
        await flight.append(b"x" * 100)
        await reader.has(100 * count)
    assert not reader.task.done()
    flight.land()
    assert await reader.whole() == b"x" * 500


async def test_the_last_bytes_may_be_held_back(new_flight: NewFlight) -> None:
    """Until the response is stored: so that a purge that is sent then finds it."""
    flight = new_flight()
    reader = Reader(flight)
    flight.announce(SHARED)
    await flight.append(b"first ")
    await flight.append(b"last", hold_back=True)
    await reader.has(6)
    await settle()
    assert reader.got == b"first "
    flight.land()
    assert await reader.whole() == b"first last"


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (0, 0), (0, 5), (3, 7), (9, None), (10, None), (3, 10)]
)
async def test_a_part_of_it(new_flight: NewFlight, start: int, stop: int | None) -> None:
    body = b"0123456789"
    flight = new_flight()
    reading = asyncio.create_task(read(flight, start, stop))
    for byte in body:
        await flight.append(bytes([byte]))
        await asyncio.sleep(0)
    if stop is None:
        flight.land()
    # With its last byte there, a part needs no end of the whole.
    assert await reading == body[start:stop]


async def test_an_empty_body(new_flight: NewFlight) -> None:
    flight = new_flight()
    reader = Reader(flight)
    flight.announce(SHARED)
    flight.land()
    assert await reader.whole() == b""


async def test_a_fetch_that_breaks_off_is_told_after_what_there_is(new_flight: NewFlight) -> None:
    flight = new_flight()
    reader = Reader(flight)
    flight.announce(SHARED)
    await flight.append(b"half a ")
    await reader.has(7)
    error = OriginBodyCut()
    flight.fail(error)
    with pytest.raises(OriginBodyCut) as caught:
        await reader.whole()
    assert caught.value is error
    assert reader.got == b"half a "


async def test_who_has_begun_with_nothing_need_not_begin(new_flight: NewFlight) -> None:
    """It can still be told of the failure, or try again, where a body that is begun can't."""
    flight = new_flight()
    waiting = Reader(flight)
    flight.announce(SHARED)
    await flight.append(b"half a ")
    flight.fail(OriginBodyCut())
    with pytest.raises(OriginBodyCut):
        await waiting.whole()
    assert waiting.got == b""
    late = Reader(flight)
    with pytest.raises(OriginBodyCut):
        await late.whole()
    assert late.got == b""


async def test_what_was_held_back_of_a_broken_fetch_stays_so(new_flight: NewFlight) -> None:
    flight = new_flight()
    reader = Reader(flight)
    flight.announce(SHARED)
    await flight.append(b"all", hold_back=True)
    flight.fail(OriginBodyCut())
    with pytest.raises(OriginBodyCut):
        await reader.whole()
    assert reader.got == b""


# -- a body that is too large to keep


async def test_an_outgrown_body_reaches_all_who_read(new_flight: NewFlight) -> None:
    body = os.urandom(3 * WINDOW_BYTES)
    flight = new_flight(keep_bytes=200_000)
    readers = [Reader(flight, pace) for pace in (None, 0, 0.001)]
    flight.announce(SHARED)
    for start in range(0, len(body), 50_000):
        assert await flight.append(body[start : start + 50_000])
    flight.land()
    for reader in readers:
        assert await reader.whole() == body
    assert flight.outgrown
    assert flight.spool.size == 200_000


async def test_nobody_joins_what_is_not_kept(new_flight: NewFlight) -> None:
    flight = new_flight(keep_bytes=10)
    reader = Reader(flight)
    await settle()
    flight.announce(SHARED)
    await flight.append(b"0123456789")
    assert flight.joinable
    assert not flight.outgrown
    assert await flight.append(b"A")
    assert flight.outgrown
    assert not flight.joinable
    flight.land()
    assert await reader.whole() == b"0123456789A"


async def test_nothing_is_held_back_of_what_is_not_kept(new_flight: NewFlight) -> None:
    flight = new_flight(keep_bytes=10)
    reader = Reader(flight)
    flight.announce(SHARED)
    await flight.append(b"0123456789")
    await flight.append(b"A", hold_back=True)
    await reader.has(11)
    flight.land()
    assert await reader.whole() == b"0123456789A"


@pytest.mark.parametrize("readers", [0, 1], ids=["never", "no longer"])
async def test_what_nobody_reads_and_nobody_keeps_is_given_up(
    new_flight: NewFlight, readers: int
) -> None:
    flight = new_flight(keep_bytes=10)
    following = [Reader(flight) for _ in range(readers)]
    flight.announce(SHARED)
    assert await flight.append(b"0123456789")
    for reader in following:
        await reader.has(10)
        reader.task.cancel()
        await asyncio.gather(reader.task, return_exceptions=True)
    assert not await flight.append(b"A")


async def test_the_origin_waits_for_the_slowest_reader(new_flight: NewFlight) -> None:
    chunk = os.urandom(WINDOW_BYTES // 4)
    flight = new_flight(keep_bytes=len(chunk))
    slow, fast = Reader(flight), Reader(flight)
    flight.announce(SHARED)
    await flight.append(chunk)
    await slow.has(len(chunk))
    slow.let.clear()
    appended = 1

    async def produce() -> None:
        nonlocal appended
        for _ in range(20):
            assert await flight.append(chunk)
            appended += 1

    producing = asyncio.create_task(produce())
    await fast.has(5 * len(chunk))
    for _ in range(5):
        await settle()
        assert appended <= 7, "the window, and what the slow one has taken"
    assert not producing.done()
    slow.let.set()
    async with asyncio.timeout(PATIENCE):
        await producing
    flight.land()
    assert await slow.whole() == await fast.whole() == chunk * 21


async def test_the_origin_waits_for_one_who_has_yet_to_begin(new_flight: NewFlight) -> None:
    """Between the outcome and the body there is a head to be sent, which takes its time."""
    body = os.urandom(3 * WINDOW_BYTES)
    flight = new_flight(keep_bytes=100_000)
    reader = Reader(flight)
    reader.let.clear()
    flight.announce(SHARED)

    async def produce() -> None:
        for start in range(0, len(body), 50_000):
            assert await flight.append(body[start : start + 50_000])
        flight.land()

    producing = asyncio.create_task(produce())
    await asyncio.sleep(0.05)
    assert not producing.done()
    reader.let.set()
    assert await reader.whole() == body
    await producing


async def test_one_who_left_without_reading_is_not_waited_for(new_flight: NewFlight) -> None:
    flight = new_flight(keep_bytes=10)
    reader = Reader(flight)
    reader.let.clear()
    flight.announce(SHARED)
    producing = asyncio.create_task(flight.append(bytes(2 * WINDOW_BYTES)))
    await settle()
    assert not producing.done()
    reader.task.cancel()
    async with asyncio.timeout(PATIENCE):
        assert not await producing


async def test_a_reader_that_takes_nothing_is_left_behind(
    new_flight: NewFlight, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collapsing, "SLOW_READER_SECONDS", 0.05)
    chunk = os.urandom(WINDOW_BYTES // 2)
    flight = new_flight(keep_bytes=len(chunk))
    slow, fast = Reader(flight), Reader(flight)
    flight.announce(SHARED)
    await flight.append(chunk)
    await slow.has(1)
    slow.let.clear()
    for _ in range(10):
        async with asyncio.timeout(PATIENCE):
            assert await flight.append(chunk)
    flight.land()
    assert await fast.whole() == chunk * 11
    slow.let.set()
    with pytest.raises(ReaderTooSlow):
        await slow.whole()
    assert (chunk * 11).startswith(slow.got)
    assert len(slow.got) < 11 * len(chunk)


async def test_one_who_begins_too_late_gets_no_wrong_bytes(
    new_flight: NewFlight, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no longer there can't be told from what is but by its place."""
    monkeypatch.setattr(collapsing, "SLOW_READER_SECONDS", 0.05)
    body = os.urandom(5 * WINDOW_BYTES)
    flight = new_flight(keep_bytes=100_000)
    late, fast = Reader(flight), Reader(flight)
    late.let.clear()
    flight.announce(SHARED)
    for start in range(0, len(body), 50_000):
        async with asyncio.timeout(PATIENCE):
            assert await flight.append(body[start : start + 50_000])
    late.let.set()
    flight.land()
    assert await fast.whole() == body
    with pytest.raises(ReaderTooSlow):
        await late.whole()
    assert body.startswith(late.got)


async def test_when_the_only_reader_is_left_behind_it_is_given_up(
    new_flight: NewFlight, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collapsing, "SLOW_READER_SECONDS", 0.05)
    flight = new_flight(keep_bytes=10)
    reader = Reader(flight)
    flight.announce(SHARED)
    await flight.append(b"0123456789")
    await reader.has(10)
    reader.let.clear()
    async with asyncio.timeout(PATIENCE):
        while await flight.append(bytes(WINDOW_BYTES // 2)):
            pass
    reader.let.set()
    with pytest.raises(ReaderTooSlow):
        await reader.whole()


async def test_a_body_that_finds_no_room_is_passed_on_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    flight = Flight(Spool(tmp_path / "file" / "none", 10), LARGE, EXPECTED, 0)
    reader = Reader(flight)
    flight.announce(SHARED)
    for chunk in (b"0123456789", b"ABC", b"DEF"):
        assert await flight.append(chunk, hold_back=chunk == b"DEF")
    assert flight.outgrown
    flight.land()
    assert await reader.whole() == b"0123456789ABCDEF"
    assert [str(tmp_path) in record.getMessage() for record in caplog.records] == [True]


@given(
    chunks=st.lists(st.integers(1, 60), max_size=12),
    keep_bytes=st.integers(0, 200),
    memory_limit=st.integers(0, 200),
    paces=st.lists(st.sampled_from([None, 0, 0.0001]), min_size=1, max_size=4),
)
def test_whoever_reads_from_the_start_gets_every_byte(
    chunks: list[int],
    keep_bytes: int,
    memory_limit: int,
    paces: list[float | None],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async def check() -> None:
        spool = Spool(tmp_path_factory.getbasetemp(), memory_limit)
        flight = Flight(spool, keep_bytes, EXPECTED, 0)
        readers = [Reader(flight, pace) for pace in paces]
        await settle()
        flight.announce(SHARED)
        body = b""
        for number, count in enumerate(chunks):
            chunk = bytes([number]) * count
            body += chunk
            assert await flight.append(chunk, hold_back=number == len(chunks) - 1)
        flight.land()
        for reader in readers:
            assert await reader.whole() == body
        await flight.disused()

    with patch.object(collapsing, "WINDOW_BYTES", 100), patch.object(collapsing, "READ_SIZE", 7):
        asyncio.run(check())


# -- its end


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda flight: flight.land(), id="landed"),
        pytest.param(lambda flight: flight.announce(Stored(RESPONSE, 304)), id="stored"),
        pytest.param(lambda flight: flight.announce(Unshared(None, 500, "status")), id="unshared"),
    ],
)
async def test_the_end_can_be_waited_for(
    new_flight: NewFlight, act: Callable[[Flight], None]
) -> None:
    flight = new_flight()
    ended = asyncio.create_task(flight.ended())
    await settle()
    flight.interim(103, b"Early Hints", Fields())
    await settle()
    assert not ended.done()
    act(flight)
    await ended


async def test_the_end_comes_after_the_body(new_flight: NewFlight) -> None:
    flight = new_flight()
    ended = asyncio.create_task(flight.ended())
    flight.announce(SHARED)
    await flight.append(b"abc")
    await settle()
    assert not ended.done()
    error = OriginBodyCut()
    flight.fail(error)
    with pytest.raises(OriginBodyCut) as caught:
        await ended
    assert caught.value is error


async def test_whoever_waits_for_the_end_alone_reads_nothing(new_flight: NewFlight) -> None:
    flight = new_flight(keep_bytes=10)

    async def refresh() -> None:
        with flight.waiting():
            await flight.outcome()
            await flight.ended()

    refreshing = asyncio.create_task(refresh())
    flight.announce(SHARED)
    await settle()
    async with asyncio.timeout(PATIENCE):
        assert not await flight.append(bytes(2 * WINDOW_BYTES))
    flight.fail(EdgeError())
    with pytest.raises(EdgeError):
        await refreshing


async def test_what_the_body_took_is_freed_when_nobody_reads_it(
    new_flight: NewFlight, tmp_path: Path
) -> None:
    flight = new_flight(memory_limit=0)
    first, second = Reader(flight), Reader(flight)
    await settle()
    assert flight.readers == 2
    second.let.clear()
    flight.announce(SHARED)
    await flight.append(b"abc")
    disused = asyncio.create_task(flight.disused())
    flight.land()
    await first.has(3)
    first.task.cancel()
    await settle()
    assert flight.readers == 1
    assert not disused.done()
    second.let.set()
    assert await second.whole() == b"abc"
    async with asyncio.timeout(PATIENCE):
        await disused
    assert flight.readers == 0
    assert list(tmp_path.iterdir()) == []


async def test_a_flight_that_nobody_joined_is_freed_at_once(
    new_flight: NewFlight, tmp_path: Path
) -> None:
    flight = new_flight(memory_limit=0)
    await flight.append(b"abc")
    flight.land()
    async with asyncio.timeout(PATIENCE):
        await flight.disused()
    assert list(tmp_path.iterdir()) == []
