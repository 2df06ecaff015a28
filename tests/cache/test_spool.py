"""A body on its way in, with real files: order, offsets, limits, and what stays behind."""

import asyncio
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.cache.errors import StoreError, StoreFull, StoreUnusable
from edgeproxy.cache.spool import Spool
from tests.cache.samples import open_files
from tests.kit.disk import full_disk


async def test_a_new_spool_is_empty(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert (spool.size, spool.crc, spool.in_memory, spool.path) == (0, 0, True, None)
    assert await spool.read(0, 10) == b""
    await spool.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0, 5, 6, 100], ids=["file", "mixed", "edge", "memory"])
@pytest.mark.parametrize(
    ("offset", "count", "expected"),
    [
        (0, 6, b"abcdef"),
        (0, 100, b"abcdef"),
        (0, 2, b"ab"),
        (2, 2, b"cd"),
        (1, 100, b"bcdef"),
        (5, 1, b"f"),
        (6, 1, b""),
        (100, 1, b""),
        (0, 0, b""),
    ],
)
async def test_reads(limit: int, offset: int, count: int, expected: bytes, tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit)
    for chunk in (b"abc", b"", b"de", b"f"):
        await spool.append(chunk)
    assert await spool.read(offset, count) == expected
    assert (spool.size, spool.crc) == (6, zlib.crc32(b"abcdef"))
    assert spool.in_memory == (limit >= 6)
    await spool.close()


async def test_a_large_body_is_in_a_file_that_bears_the_process_id(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10)
    await spool.append(b"0123456789")
    assert spool.in_memory
    assert list(tmp_path.iterdir()) == []
    await spool.append(b"A")
    assert not spool.in_memory
    assert spool.path is not None
    assert spool.path.parent == tmp_path
    assert spool.path.name.startswith(f"{os.getpid()}-")
    assert spool.path.read_bytes() == b"0123456789A"
    assert spool.path.stat().st_mode & 0o777 == 0o600
    await spool.close()


async def test_without_a_directory_all_stays_in_memory() -> None:
    spool = Spool(None, 4)
    for _ in range(3):
        await spool.append(b"0123456789")
    assert spool.in_memory
    assert await spool.read(8, 4) == b"8901"
    await spool.close()


@pytest.mark.parametrize("limit", [0, 100])
async def test_no_mutable_buffer_is_kept(limit: int, tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit)
    buffer = bytearray(b"abc")
    await spool.append(buffer)
    buffer[:] = b"xyz"
    await spool.append(memoryview(buffer)[1:])
    buffer[:] = b"---"
    assert await spool.read(0, 10) == b"abcyz"
    await spool.close()


async def test_what_was_read_does_not_change_as_more_comes(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 100)
    await spool.append(b"abc")
    first = await spool.read(0, 10)
    await spool.append(b"def")
    second = await spool.read(0, 10)
    await spool.append(b"ghi")
    assert (first, second) == (b"abc", b"abcdef")
    await spool.close()


async def test_a_small_body_in_one_piece_is_not_copied(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    body = os.urandom(1000)
    await spool.append(body)
    assert await spool.read(0, 5000) is body
    await spool.close()


async def test_readers_at_their_own_pace_while_it_grows(tmp_path: Path) -> None:
    """Across the move to the file, too; each sees every byte once, in order."""
    body = os.urandom(200_000)
    spool = Spool(tmp_path, 64 * 1024)
    whole = asyncio.Event()

    async def read(step: int) -> bytes:
        got = b""
        while len(got) < len(body):
            chunk = await spool.read(len(got), step)
            got += chunk
            await asyncio.sleep(0)
            assert chunk or not whole.is_set()
        return got

    readers = [asyncio.create_task(read(step)) for step in (999, 4096, 70_000, 1 << 20)]
    for start in range(0, len(body), 3000):
        await spool.append(body[start : start + 3000])
        await asyncio.sleep(0)
    whole.set()
    for got in await asyncio.gather(*readers):
        assert got == body
    assert spool.crc == zlib.crc32(body)
    await spool.close()


# -- who has the file


async def test_closing_leaves_nothing_behind(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 0)
    await spool.append(b"abc")
    assert len(open_files(tmp_path)) == 1
    await spool.close()
    await spool.close()
    assert list(tmp_path.iterdir()) == []
    assert open_files(tmp_path) == []


async def test_what_was_handed_over_stays(tmp_path: Path) -> None:
    target = tmp_path / "bodies" / "ab"
    target.parent.mkdir()
    spool = Spool(tmp_path, 0)
    await spool.append(b"abcdef")
    await spool.hand_over(target)
    assert spool.path is None
    assert not spool.in_memory
    assert target.read_bytes() == b"abcdef"
    assert await spool.read(2, 2) == b"cd"
    target.unlink()
    assert await spool.read(2, 2) == b"cd"
    target.write_bytes(b"another's")
    await spool.close()
    assert target.read_bytes() == b"another's"
    assert [path.name for path in tmp_path.iterdir()] == ["bodies"]
    assert open_files(tmp_path) == []


async def test_a_body_in_memory_has_no_file_to_hand_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    await spool.append(b"abc")
    with pytest.raises(ValueError, match="no temp file"):
        await spool.hand_over(tmp_path / "target")
    await spool.close()


async def test_a_target_that_cannot_be_is_said(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 0)
    await spool.append(b"abc")
    with pytest.raises(StoreUnusable):
        await spool.hand_over(tmp_path / "nowhere" / "target")
    assert await spool.read(0, 3) == b"abc"
    await spool.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_closed_spool_refuses(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    await spool.close()
    with pytest.raises(ValueError, match="closed"):
        await spool.append(b"abc")
    with pytest.raises(ValueError, match="closed"):
        await spool.read(0, 1)
    with pytest.raises(ValueError, match="closed"):
        await spool.hand_over(tmp_path / "target")


async def test_closed_under_a_reader_the_file_goes_when_it_has_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 0)
    body = os.urandom(4 << 20)
    await spool.append(body)
    reading = asyncio.create_task(spool.read(0, len(body)))
    await asyncio.sleep(0)
    await spool.close()
    assert await reading == body
    async with asyncio.timeout(10):
        while list(tmp_path.iterdir()) or open_files(tmp_path):
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("first", [b"", b"abc"], ids=["first", "later"])
async def test_an_append_that_was_cancelled_leaves_nothing_behind(
    first: bytes, tmp_path: Path
) -> None:
    spool = Spool(tmp_path, 0)
    await spool.append(first)
    appending = asyncio.create_task(spool.append(os.urandom(8 << 20)))
    await asyncio.sleep(0)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    assert spool.size == len(first)
    assert await spool.read(0, 100) == first
    await spool.close()
    async with asyncio.timeout(10):
        while list(tmp_path.iterdir()) or open_files(tmp_path):
            await asyncio.sleep(0.001)


async def test_a_thread_that_still_writes_writes_to_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that is closed too early is the next file's, and gets its bytes."""
    spool = Spool(tmp_path, 0)
    await spool.append(b"first")
    began, go_on = threading.Event(), threading.Event()
    write = os.pwrite

    def held_up(fd: int, data: bytes, offset: int) -> int:
        began.set()
        go_on.wait(10)
        return write(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", held_up)
    appending = asyncio.create_task(spool.append(b"second"))
    await asyncio.to_thread(began.wait, 10)
    appending.cancel()
    await asyncio.gather(appending, return_exceptions=True)
    await spool.close()
    others = [(tmp_path / f"other-{number}").open("wb") for number in range(20)]
    go_on.set()
    async with asyncio.timeout(10):
        while len(open_files(tmp_path)) > len(others):
            await asyncio.sleep(0.001)
    assert {Path(other.name).stat().st_size for other in others} == {0}
    for other in others:
        other.close()
    assert len(list(tmp_path.iterdir())) == len(others)


# -- when it can't be written


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file may be larger than that: as a full disk, EFBIG stops a write in the middle."""
    with full_disk(50_000):
        yield 50_000


async def test_no_room_is_said_and_what_was_there_stays(small_files: int, tmp_path: Path) -> None:
    spool = Spool(tmp_path, 0)
    body = os.urandom(30_000)
    await spool.append(body)
    with pytest.raises(StoreFull) as caught:
        await spool.append(os.urandom(30_000))
    assert str(tmp_path) in str(caught.value)
    assert (spool.size, spool.crc) == (len(body), zlib.crc32(body))
    assert await spool.read(0, 100_000) == body
    await spool.close()
    assert list(tmp_path.iterdir()) == []


async def test_no_room_for_what_was_in_memory(small_files: int, tmp_path: Path) -> None:
    spool = Spool(tmp_path, 40_000)
    body = os.urandom(40_000)
    await spool.append(body)
    for _ in range(2):
        with pytest.raises(StoreFull):
            await spool.append(os.urandom(30_000))
    assert spool.in_memory
    assert (spool.size, spool.crc) == (len(body), zlib.crc32(body))
    assert await spool.read(0, 100_000) == body
    await spool.close()
    assert list(tmp_path.iterdir()) == []
    assert open_files(tmp_path) == []


async def test_a_directory_that_is_gone_is_said(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "gone" / "too", 3)
    await spool.append(b"abc")
    with pytest.raises(StoreUnusable) as caught:
        await spool.append(b"d")
    assert isinstance(caught.value, StoreError)
    assert await spool.read(0, 10) == b"abc"
    await spool.close()


async def test_its_folder_is_made_again_if_somebody_cleared_it_away(tmp_path: Path) -> None:
    directory = tmp_path / "tmp"
    spool = Spool(directory, 10)
    await spool.append(b"x" * 20)
    assert await spool.read(0, 30) == b"x" * 20
    await spool.close()


@given(
    limit=st.integers(0, 60),
    chunks=st.lists(st.binary(max_size=20), max_size=8),
    offset=st.integers(0, 200),
    count=st.integers(0, 200),
)
def test_it_reads_as_bytes_would(
    limit: int,
    chunks: list[bytes],
    offset: int,
    count: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.getbasetemp()

    async def check() -> None:
        spool = Spool(directory, limit)
        body = b""
        for chunk in chunks:
            await spool.append(chunk)
            body += chunk
            assert await spool.read(offset, count) == body[offset : offset + count]
        assert (spool.size, spool.crc) == (len(body), zlib.crc32(body))
        assert spool.in_memory == (len(body) <= limit)
        await spool.close()

    asyncio.run(check())
