"""Bodies in files: what can be lost, and what goes on all the same."""

import asyncio
import errno
import os
import socket
import tempfile
import threading
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edgeproxy.cache.bodies import FileBodies, _File, checked
from edgeproxy.cache.errors import BodyMissing, StoreUnusable
from edgeproxy.cache.layout import body_path
from edgeproxy.cache.spool import Spool
from edgeproxy.cache.stored import BodyRef
from tests.cache.samples import KIB, drain, open_files, some_bytes

BODY = some_bytes(700 * KIB)
RAM = Path("/dev/shm")
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


async def test_what_is_no_file_is_not_waited_for(files: FileBodies, tmp_path: Path) -> None:
    the_file(tmp_path).unlink()
    os.mkfifo(the_file(tmp_path))
    # Who opens a FIFO to read it waits until somebody writes to it: that frees what hangs.
    rescue = threading.Timer(5, lambda: the_file(tmp_path).write_bytes(b"late"))
    rescue.start()
    try:
        for ask in (files.open, files.read):
            with pytest.raises(BodyMissing, match="has 0 bytes"):
                await ask(REF)
            assert rescue.is_alive()
    finally:
        rescue.cancel()


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


async def test_files_are_closed_when_nobody_reads_them_any_more(
    files: FileBodies, tmp_path: Path
) -> None:
    async def open_are(expected: int) -> None:
        """Sooner or later: a thread lets go of a file a moment after it has said what it read."""
        give_up = time.monotonic() + 5
        while (found := open_files(tmp_path / "bodies")) != [the_file(tmp_path)] * expected:
            assert time.monotonic() < give_up, found
            await asyncio.sleep(0.001)

    reads = [await files.open(REF) for _ in range(10)]
    await open_are(10)
    chunks = reads[0](0, None)
    assert await anext(chunks)
    reads.clear()
    await open_are(1)
    await chunks.aclose()  # type: ignore[attr-defined]
    del chunks
    await open_are(0)


# -- sent without being read


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


@pytest.mark.parametrize("in_memory", [True, False], ids=["at-once", "in-a-thread"])
async def test_a_part_of_a_file_is_sent_as_far_as_the_socket_takes_it(
    files: FileBodies,
    sockets: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    *,
    in_memory: bool,
) -> None:
    ours, theirs = sockets
    files.in_memory = False
    monkeypatch.setattr("edgeproxy.cache.bodies._File.in_memory", lambda *_: in_memory)
    body = await files.open(REF)
    assert await body.send(ours.fileno(), 300, 200) == 200
    assert theirs.recv(4096) == BODY[300:500]
    sent = 0
    while more := await body.send(ours.fileno(), sent, len(BODY) - sent):
        sent += more
    assert 0 < sent < len(BODY)
    got = b""
    while len(got) < sent:
        got += theirs.recv(len(BODY))
    assert got == BODY[:sent]


async def test_a_file_that_is_cut_is_not_sent(
    files: FileBodies, tmp_path: Path, sockets: tuple[socket.socket, socket.socket]
) -> None:
    body = await files.open(REF)
    os.truncate(the_file(tmp_path), 100)
    assert await body.send(sockets[0].fileno(), 0, 200) == 100
    with pytest.raises(BodyMissing, match="cut short"):
        await body.send(sockets[0].fileno(), 100, 100)


async def test_a_connection_that_is_gone_says_nothing_of_the_file(
    files: FileBodies, sockets: tuple[socket.socket, socket.socket]
) -> None:
    body = await files.open(REF)
    sockets[1].close()
    with pytest.raises(ConnectionError):
        await body.send(sockets[0].fileno(), 0, 1)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.EMFILE])
async def test_what_the_system_cannot_send_is_left_to_reading(
    files: FileBodies, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    body = await files.open(REF)
    monkeypatch.setattr(os, "sendfile", refuse)
    assert await body.send(-1, 0, 1) is None


async def test_an_unreadable_disk_is_a_missing_body(
    files: FileBodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    body = await files.open(REF)
    monkeypatch.setattr(os, "sendfile", fail)
    with pytest.raises(BodyMissing):
        await body.send(-1, 0, 1)


async def test_what_is_in_memory_is_known_not_to_wait_for_a_disk(tmp_path: Path) -> None:
    in_memory = RAM.is_dir()
    with tempfile.TemporaryDirectory(dir=RAM if in_memory else tmp_path) as folder:
        bodies = FileBodies(Path(folder) / "bodies")
        assert bodies.in_memory is in_memory
        await bodies.close()


async def test_what_is_in_the_page_cache_is_told_from_what_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(BODY)
    file = _File(path, len(BODY))
    tells = file.in_memory(0, len(BODY))
    give_up = time.monotonic() + 1
    with path.open("rb+") as opened:
        os.fsync(opened)
        while file.in_memory(0, len(BODY)) and time.monotonic() < give_up:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            await asyncio.sleep(0.01)
    # The system drops what it can, and some file systems can't tell.
    before = file.in_memory(0, len(BODY))
    file.read(0, len(BODY))
    assert before <= file.in_memory(0, len(BODY)) == tells


async def test_a_file_counts_as_whole_until_it_is_changed(
    files: FileBodies, tmp_path: Path
) -> None:
    first, second = await files.open(REF), await files.open(REF)
    assert not first.is_whole
    first.found_whole()
    assert first.is_whole
    assert second.is_whole
    damaged = bytes([BODY[0] ^ 1]) + BODY[1:]
    before = the_file(tmp_path).stat()
    the_file(tmp_path).write_bytes(damaged)
    os.utime(the_file(tmp_path), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not (await files.open(REF)).is_whole


async def test_so_many_files_are_known_to_be_whole_and_no_more(
    files: FileBodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.cache.bodies._MAX_WHOLE", 2)
    stamp = (await files.open(REF))._file.stamp
    refs = [BodyRef("file", bytes([number] * 8), 1, 0) for number in range(3)]
    for ref in refs:
        files.found_whole(ref, stamp)
    files.found_whole(refs[-1], stamp)
    assert [files.is_whole(ref, stamp) for ref in refs] == [False, True, True]
    await files.remove(refs[1])
    assert not files.is_whole(refs[1], stamp)


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
