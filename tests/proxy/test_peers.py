"""One worker follows another's fetch, over the Unix socket between them."""

from __future__ import annotations

import asyncio
import os
import stat
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgeproxy.cache.errors import BodyMissing
from edgeproxy.cache.spool import Spool
from edgeproxy.cache.stored import BodyRef
from edgeproxy.invalidation.selectors import Expected
from edgeproxy.proxy.collapsing import Flight, Shared, Stored, Unshared
from edgeproxy.proxy.errors import (
    EdgeError,
    InternalFailure,
    OriginBodyCut,
    OriginTimedOut,
    OriginUnreachable,
    PeerLost,
)
from edgeproxy.proxy.peers import Followed, PeerServer, RemoteFailure, follow, peer_path
from edgeproxy.semantics.fields import Fields
from tests.invalidation.samples import response
from tests.proxy.parts import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from edgeproxy.cache.bodies import ReadBody
    from edgeproxy.cache.stored import StoredResponse

KEY, OTHER_KEY = b"1" * 16, b"2" * 16
US = os.getpid()
RESPONSE = response(
    tags=("home",), selecting=((b"accept", None), (b"cookie", b"a=b")), buster=b"t1", position=3
)
KEPT = msgspec.structs.replace(RESPONSE, body=BodyRef("external", b"12345678", 10, 0))
SHARED = Shared(RESPONSE, 10, Fields([(b"Set-Cookie", b"own=1")]))
EXPECTED = Expected("shop", "production", "https", "shop.test", b"/", bytes(16))


class Leader:
    """The worker that fetches: its flights, and the socket where others find them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.flights: dict[bytes, Flight] = {}
        self.server = PeerServer(folder, self.flights.get)
        self.bodies: dict[bytes, list[bytes]] = {}
        """What it has in its own memory by id, once `keeps_to_itself`;
        an empty chunk: it turns out to be damaged there."""

    async def keeps_to_itself(self) -> None:
        """From now on nobody else can read what it stores."""
        await self.server.close()
        self.server = PeerServer(self.folder, self.flights.get, self._open)
        await self.server.start()

    async def _open(self, stored: StoredResponse) -> ReadBody:
        if stored.id not in self.bodies:
            raise BodyMissing("evicted")

        async def read(start: int, stop: int | None) -> AsyncIterator[bytes]:
            assert (start, stop) == (0, None)
            for chunk in self.bodies[stored.id]:
                if not chunk:
                    raise BodyMissing("damaged")
                yield chunk

        return read

    def takes_off(self, keep_bytes: int = 1 << 20) -> Flight:
        """A flight for KEY."""
        flight = Flight(Spool(self.folder, 1000), keep_bytes, EXPECTED, 0)
        self.flights[KEY] = flight
        return flight

    async def followed(self) -> Followed | None:
        """The flight for KEY, as another worker sees it."""
        return await asyncio.wait_for(follow(self.folder, US, KEY), PATIENCE)


@pytest.fixture
async def leader(tmp_path: Path) -> AsyncIterator[Leader]:
    leader = Leader(tmp_path)
    await leader.server.start()
    yield leader
    for flight in leader.flights.values():
        flight.fail(InternalFailure())
    await asyncio.wait_for(leader.server.close(), PATIENCE)
    for flight in leader.flights.values():
        await flight.spool.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


# -- what a follower is told


async def test_a_response_is_told_and_its_body_follows(leader: Leader) -> None:
    flight = leader.takes_off()
    flight.announce(SHARED)
    followed = await leader.followed()
    assert followed is not None
    assert followed.outcome == Shared(RESPONSE, 10, None), "all but what is not for others"
    assert followed.body is not None
    await flight.append(b"first")
    assert await anext(followed.body) == b"first"
    await flight.append(b"last")
    assert await anext(followed.body) == b"last"
    flight.land()
    assert [chunk async for chunk in followed.body] == []
    await until(lambda: flight.readers == 0)


async def test_who_comes_late_gets_the_body_from_its_beginning(leader: Leader) -> None:
    flight = leader.takes_off()
    flight.announce(SHARED)
    body = os.urandom(3_000_000)
    flight_body = [body[start : start + 50_000] for start in range(0, len(body), 50_000)]
    for chunk in flight_body[:20]:
        await flight.append(chunk)
    followed = [await leader.followed() for _ in range(3)]

    async def read(each: Followed | None) -> bytes:
        assert each is not None and each.body is not None
        return b"".join([chunk async for chunk in each.body])

    reading = [asyncio.create_task(read(each)) for each in followed]
    for chunk in flight_body[20:]:
        await flight.append(chunk)
    flight.land()
    async with asyncio.timeout(PATIENCE):
        assert await asyncio.gather(*reading) == [body] * 3


async def test_a_response_that_was_stored_meanwhile(leader: Leader) -> None:
    leader.takes_off().announce(Stored(RESPONSE, 304))
    followed = await leader.followed()
    # The origin's 304 answered the other worker, not this one.
    assert followed == Followed(Stored(RESPONSE, None), None)


async def test_what_only_its_worker_can_read_is_told_with_its_body(leader: Leader) -> None:
    await leader.keeps_to_itself()
    leader.takes_off().announce(Stored(KEPT, 304))
    leader.bodies[KEPT.id] = [b"01234", b"56789"]
    followed = await leader.followed()
    assert followed is not None and followed.body is not None
    assert followed.outcome == Shared(KEPT, 10, None)
    assert [chunk async for chunk in followed.body] == [b"01234", b"56789"]


async def test_or_not_at_all_if_it_is_gone_by_now(leader: Leader) -> None:
    await leader.keeps_to_itself()
    leader.takes_off().announce(Stored(KEPT, 304))
    assert await leader.followed() is None


async def test_nor_are_parts_that_may_not_be_the_right_ones(leader: Leader) -> None:
    await leader.keeps_to_itself()
    part = msgspec.structs.replace(KEPT, status=206)
    leader.takes_off().announce(Stored(part, None))
    leader.bodies[part.id] = [b"0123456789"]
    assert await leader.followed() is None


async def test_a_damaged_body_is_not_taken_for_whole(leader: Leader) -> None:
    await leader.keeps_to_itself()
    leader.takes_off().announce(Stored(KEPT, None))
    leader.bodies[KEPT.id] = [b"01234", b""]
    followed = await leader.followed()
    assert followed is not None and followed.body is not None
    assert await anext(followed.body) == b"01234"
    with pytest.raises(RemoteFailure) as caught:
        await anext(followed.body)
    assert caught.value.detail == "peer-lost"


async def test_a_response_that_may_not_be_shared(leader: Leader) -> None:
    leader.takes_off().announce(Unshared(None, 403, "no-store"))
    assert await leader.followed() == Followed(Unshared(None, 403, "no-store"), None)


@pytest.mark.parametrize(
    ("failure", "status", "detail"),
    [
        (OriginUnreachable("refused"), 502, "origin-unreachable"),
        (OriginTimedOut("first-byte", 60.0), 504, "origin-timeout-first-byte"),
        (InternalFailure("shutting-down"), 500, "shutting-down"),
    ],
)
async def test_a_fetch_that_failed(
    leader: Leader, failure: EdgeError, status: int, detail: str
) -> None:
    leader.takes_off().fail(failure)
    with pytest.raises(RemoteFailure) as caught:
        await leader.followed()
    assert (caught.value.status, caught.value.detail) == (status, detail)


async def test_a_fetch_that_fails_in_the_middle_of_its_body(leader: Leader) -> None:
    flight = leader.takes_off()
    flight.announce(SHARED)
    followed = await leader.followed()
    assert followed is not None and followed.body is not None
    await flight.append(b"half")
    assert await anext(followed.body) == b"half"
    flight.fail(OriginBodyCut())
    with pytest.raises(RemoteFailure) as caught:
        await anext(followed.body)
    assert caught.value.detail == "origin-body-cut"


async def test_a_follower_waits_for_the_outcome(leader: Leader) -> None:
    flight = leader.takes_off()
    following = asyncio.create_task(leader.followed())
    await until(lambda: flight.readers == 1)
    assert not following.done()
    flight.announce(Stored(RESPONSE, None))
    assert await following == Followed(Stored(RESPONSE, None), None)


async def test_a_fetch_that_is_not_there_any_more(leader: Leader) -> None:
    assert await leader.followed() is None
    leader.takes_off()
    assert await asyncio.wait_for(follow(leader.folder, US, OTHER_KEY), PATIENCE) is None


async def test_a_worker_that_is_not_there_any_more(tmp_path: Path) -> None:
    assert await follow(tmp_path, US, KEY) is None
    await (closed := PeerServer(tmp_path, {}.get)).start()
    await closed.close()
    assert await follow(tmp_path, US, KEY) is None


async def test_a_worker_that_died_and_left_its_socket_behind(tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(lambda *_: None, peer_path(tmp_path, US))
    server.close()
    path = peer_path(tmp_path, US)
    if not path.exists():  # later Pythons remove it
        os.mknod(path, stat.S_IFSOCK | 0o600)
    assert await follow(tmp_path, US, KEY) is None
    again = PeerServer(tmp_path, {}.get)
    await again.start()
    assert await follow(tmp_path, US, KEY) is None, "the worker of that id has no such flight"
    await again.close()


# -- a leader that goes while it is followed


def message(kind: bytes, payload: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("!cI", kind, len(payload) if length is None else length) + payload


@asynccontextmanager
async def saying(folder: Path, *said: bytes, goes: bool = True) -> AsyncIterator[None]:
    """A worker that says this to whoever asks, and is gone; or says no more."""
    end = asyncio.Event()
    if goes:
        end.set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(message(b"A", KEY)))
        writer.writelines(said)
        await writer.drain()
        await end.wait()
        writer.close()

    server = await asyncio.start_unix_server(answer, peer_path(folder, US))
    async with server:
        yield
        end.set()


async def head_of(leader: Leader) -> bytes:
    """What a leader says first of a response that it shares."""
    leader.takes_off().announce(SHARED)
    reader, writer = await asyncio.open_unix_connection(peer_path(leader.folder, US))
    writer.write(message(b"A", KEY))
    head = await reader.readexactly(5)
    head += await reader.readexactly(struct.unpack("!cI", head)[1])
    writer.close()
    return head


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"T", id="half a header"),
        pytest.param(message(b"T", b"abc", 4), id="half a message"),
        pytest.param(message(b"T", b"abc"), id="what is no response"),
        pytest.param(message(b"X", b"\x92\xcd\x01\xf6\xa1\xf7"), id="what is no UTF-8"),
    ],
)
async def test_a_leader_that_dies_before_it_has_told(tmp_path: Path, said: bytes) -> None:
    async with saying(tmp_path, said):
        with pytest.raises(PeerLost):
            await asyncio.wait_for(follow(tmp_path, US, KEY), PATIENCE)


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="between two chunks"),
        pytest.param(message(b"D", b"abc", 4), id="in a chunk"),
        pytest.param(message(b"?"), id="something unheard of"),
    ],
)
async def test_a_leader_that_dies_in_the_middle_of_a_body(
    leader: Leader, tmp_path: Path, said: bytes
) -> None:
    """Never must the end of the connection be taken for the end of the body."""
    head = await head_of(leader)
    other = tmp_path / "other"
    other.mkdir()
    async with saying(other, head, message(b"D", b"half"), said):
        followed = await asyncio.wait_for(follow(other, US, KEY), PATIENCE)
        assert followed is not None and followed.body is not None
        assert await anext(followed.body) == b"half"
        with pytest.raises(PeerLost):
            await anext(followed.body)


BEYOND_MEASURE = (1 << 20) + 1


@pytest.mark.parametrize("kind", [b"S", b"T", b"U", b"X"])
async def test_a_message_beyond_all_measure_is_not_waited_for(tmp_path: Path, kind: bytes) -> None:
    async with saying(tmp_path, message(kind, b"", BEYOND_MEASURE), goes=False):
        with pytest.raises(PeerLost):
            await asyncio.wait_for(follow(tmp_path, US, KEY), PATIENCE)


async def test_nor_is_such_a_chunk(leader: Leader, tmp_path: Path) -> None:
    head = await head_of(leader)
    other = tmp_path / "other"
    other.mkdir()
    async with saying(other, head, message(b"D", b"", BEYOND_MEASURE), goes=False):
        followed = await asyncio.wait_for(follow(other, US, KEY), PATIENCE)
        assert followed is not None and followed.body is not None
        with pytest.raises(PeerLost):
            await asyncio.wait_for(anext(followed.body), PATIENCE)


async def test_nor_is_such_a_key(leader: Leader) -> None:
    reader, writer = await asyncio.open_unix_connection(peer_path(leader.folder, US))
    writer.write(message(b"A", b"", BEYOND_MEASURE))
    assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    writer.close()


async def test_a_leader_that_closes_breaks_its_followers_off(leader: Leader) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
    flight = leader.takes_off()
    flight.announce(SHARED)
    followed = await leader.followed()
    assert followed is not None and followed.body is not None
    await asyncio.wait_for(leader.server.close(), PATIENCE)
    with pytest.raises(PeerLost):
        await anext(followed.body)
    assert flight.readers == 0
    assert not peer_path(leader.folder, US).exists()
    assert not complaints


# -- a follower that goes


async def test_a_follower_that_leaves_is_not_waited_for(leader: Leader) -> None:
    """A body that is too large to keep goes on at its slowest reader's pace."""
    flight = leader.takes_off(keep_bytes=0)
    flight.announce(SHARED)
    followed = await leader.followed()
    assert followed is not None and followed.body is not None
    assert flight.readers == 1
    chunk = bytes(100_000)
    assert await flight.append(chunk)
    assert await anext(followed.body) == chunk
    await followed.body.aclose()  # type: ignore[attr-defined]

    async def until_nobody_reads() -> None:
        while await flight.append(chunk):
            await asyncio.sleep(0)

    await asyncio.wait_for(until_nobody_reads(), PATIENCE)
    await until(lambda: flight.readers == 0)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"A\0\0", id="half a header"),
        pytest.param(message(b"A", KEY[:3], 16), id="half a key"),
        pytest.param(message(b"?", KEY), id="something unheard of"),
    ],
)
async def test_who_does_not_ask_gets_no_answer(leader: Leader, asked: bytes) -> None:
    flight = leader.takes_off()
    reader, writer = await asyncio.open_unix_connection(peer_path(leader.folder, US))
    writer.write(asked)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    writer.close()
    assert flight.readers == 0
    flight.announce(Stored(RESPONSE, None))
    assert await leader.followed() is not None, "and the others are served as before"


# -- the socket


async def test_the_socket_is_nobody_else_s(leader: Leader) -> None:
    mode = peer_path(leader.folder, US).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_each_process_has_a_socket_of_its_own(tmp_path: Path) -> None:
    assert peer_path(tmp_path, 1) != peer_path(tmp_path, 2)
