"""Bodies in files: what can be lost, and what goes on all the same."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgeproxy.cache.bodies import FileBodies, checked
from edgeproxy.cache.errors import BodyMissing, StoreUnusable
from edgeproxy.cache.layout import body_path
from edgeproxy.cache.spool import Spool
from edgeproxy.cache.stored import BodyRef
from tests.cache.samples import KIB, drain, some_bytes

BODY = some_bytes(700 * KIB)
REF = BodyRef("file", b"\0\0\0\0\0\0\1\2", len(BODY), zlib.crc32(BODY))


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[FileBodies]:
    bodies = FileBodies(tmp_path / "bodies")
    spool = Spool(tmp_path, 128 * KIB)
    await spool.append(BODY)
    await bodies.write(REF.id, spool)
    await spool.close()
    yield bodies
    await bodies.close()


def the_file(tmp_path: Path) -> Path:
    return body_path(tmp_path / "bodies", REF.id)


async def test_a_body_is_one_file_of_its_bytes(files: FileBodies, tmp_path: Path) -> None:
    assert the_file(tmp_path).read_bytes() == BODY
    assert the_file(tmp_path).relative_to(tmp_path) == Path("bodies/02/0000000000000102")


async def test_an_open_body_can_be_read_though_it_was_removed(files: FileBodies) -> None:
    read = await files.open(REF)
    await files.remove(REF)
    await files.remove(REF)
    assert await drain(read(0, None)) == BODY
    with pytest.raises(BodyMissing):
        await files.open(REF)


@pytest.mark.parametrize("size", [0, len(BODY) - 1, len(BODY) + 1])
async def test_a_file_of_another_length_is_not_the_body(
    files: FileBodies, tmp_path: Path, size: int
) -> None:
    the_file(tmp_path).write_bytes(BODY[:size] if size <= len(BODY) else BODY + b"x")
    for ask in (files.open, files.read):
        with pytest.raises(BodyMissing, match=f"has {size} bytes"):
            await ask(REF)


async def test_a_file_that_is_cut_while_it_is_read_is_missing(
    files: FileBodies, tmp_path: Path
) -> None:
    read = await files.open(REF)
    with the_file(tmp_path).open("r+b") as file:
        file.truncate(300 * KIB)
    with pytest.raises(BodyMissing, match="cut short"):
        await drain(read(0, None))


async def test_a_body_that_cannot_be_removed_is_said_to_be_there(
    files: FileBodies, tmp_path: Path
) -> None:
    the_file(tmp_path).unlink()
    the_file(tmp_path).mkdir()
    with pytest.raises(StoreUnusable):
        await files.remove(REF)


async def test_files_are_closed_when_nobody_reads_them_any_more(files: FileBodies) -> None:
    def open_files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = open_files()
    reads = [await files.open(REF) for _ in range(10)]
    assert open_files() == before + 10
    chunks = reads[0](0, None)
    assert await anext(chunks)
    reads.clear()
    assert open_files() == before + 1
    await chunks.aclose()  # type: ignore[attr-defined]
    del chunks
    # The thread that read from it lets go of it a moment after it has said what it read.
    give_up = time.monotonic() + 5
    while open_files() > before and time.monotonic() < give_up:
        await asyncio.sleep(0.001)
    assert open_files() == before


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.parametrize("chunks", [(), (b"whole",), (b"in ", b"two"), (b"", b"a", b"", b"b")])
async def test_a_checked_body_is_the_body(chunks: tuple[bytes, ...]) -> None:
    ref = BodyRef("file", bytes(8), sum(map(len, chunks)), zlib.crc32(b"".join(chunks)))
    assert await drain(checked(pieces(*chunks), ref)) == b"".join(chunks)


@pytest.mark.parametrize("chunks", [(b"whole",), (b"in ", b"two"), (b"in ", b"th", b"ree")])
async def test_a_damaged_body_has_no_last_chunk(chunks: tuple[bytes, ...]) -> None:
    ref = BodyRef("file", bytes(8), sum(map(len, chunks)), zlib.crc32(b"other"))
    got = b""
    with pytest.raises(BodyMissing):
        async for chunk in checked(pieces(*chunks), ref):
            got += chunk
    assert got == b"".join(chunks[:-1])
