"""Collapsing across the workers of a node: one follows the fetch that another has in the air.

Each worker listens on a Unix socket named for its process id, in a folder that only this edge can
enter. A follower says which flight it wants; it gets the outcome as the fetch's own worker saw it,
and then the body as it comes. Messages are a kind (one byte), a length (four) and that many bytes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.cache.errors import UNREADABLE, BodyMissing
from edgeproxy.cache.stored import StoredResponse
from edgeproxy.proxy.collapsing import Flight, Shared, Stored, Unshared
from edgeproxy.proxy.errors import EdgeError, PeerLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from edgeproxy.cache.bodies import ReadBody

log = logging.getLogger(__name__)

_HEADER = struct.Struct("!cI")
_MAX_MESSAGE = 1 << 20
_CONNECT_SECONDS = 2.0

_ASK, _GONE, _SHARED, _STORED, _UNSHARED = b"A", b"G", b"S", b"T", b"U"
_DATA, _END, _FAILED = b"D", b"E", b"X"


class _SharedHead(msgspec.Struct, frozen=True, array_like=True):
    response: StoredResponse
    content_length: int | None


class _UnsharedHead(msgspec.Struct, frozen=True, array_like=True):
    status: int
    detail: str


class _Failure(msgspec.Struct, frozen=True, array_like=True):
    status: int
    detail: str


class RemoteFailure(EdgeError):
    """The fetch that another worker made for this one failed, and so it said."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Followed:
    """Another worker's flight: its outcome, and the bytes to come if it is `Shared`."""

    outcome: Shared | Stored | Unshared
    body: AsyncIterator[bytes] | None


class PeerServer:
    """Lets the node's other workers follow this one's flights."""

    def __init__(
        self,
        directory: Path,
        find: Callable[[bytes], Flight | None],
        open_body: Callable[[StoredResponse], Awaitable[ReadBody]] | None = None,
    ) -> None:
        """`open_body` reads what is stored here, where the others have no way to it."""
        self._path = peer_path(directory, os.getpid())
        self._find = find
        self._open_body = open_body
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, self._path)
        self._path.chmod(0o600)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            kind, key = await _receive(reader)
            if kind == _ASK:
                await self._serve(self._find(key), writer)
        except (OSError, asyncio.IncompleteReadError, PeerLost):
            log.debug("a follower went away")
        except asyncio.CancelledError:
            # What the follower has not taken yet, nobody waits for any more. This ends here, for
            # asyncio's streams would log a task that ends as cancelled (Python 3.11).
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, flight: Flight | None, writer: asyncio.StreamWriter) -> None:
        if flight is None:
            await _send(writer, _GONE, b"")
            return
        with flight.waiting():
            try:
                match await flight.outcome():
                    case Shared(response, content_length, _):
                        head = _SharedHead(response, content_length)
                        await _send(writer, _SHARED, msgspec.msgpack.encode(head))
                        async for chunk in flight.read():
                            await _send(writer, _DATA, chunk)
                        await _send(writer, _END, b"")
                    case Stored(response):
                        await self._send_stored(response, writer)
                    case Unshared(_, status, detail):
                        told = _UnsharedHead(status, detail)
                        await _send(writer, _UNSHARED, msgspec.msgpack.encode(told))
            except EdgeError as error:
                failure = _Failure(error.status, error.detail)
                await _send(writer, _FAILED, msgspec.msgpack.encode(failure))

    async def _send_stored(self, response: StoredResponse, writer: asyncio.StreamWriter) -> None:
        if self._open_body is None:
            await _send(writer, _STORED, msgspec.msgpack.encode(response))
            return
        try:
            # What a follower may take out of an incomplete response, its own store has to say.
            read = None if response.incomplete else await self._open_body(response)
        except BodyMissing:
            read = None
        if read is None:
            await _send(writer, _GONE, b"")
            return
        head = _SharedHead(response, response.body.length)
        await _send(writer, _SHARED, msgspec.msgpack.encode(head))
        try:
            async for chunk in read(0, None):
                await _send(writer, _DATA, chunk)
        except BodyMissing as error:
            raise PeerLost from error
        await _send(writer, _END, b"")


async def follow(directory: Path, pid: int, key: bytes) -> Followed | None:
    """Follow the flight for `key` of the worker `pid`.

    None: that worker has no such flight (any more). Raises `RemoteFailure` where the fetch failed,
    `PeerLost` where the worker did.
    """
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(peer_path(directory, pid))
    except (OSError, TimeoutError):
        return None
    body = False
    try:
        await _send(writer, _ASK, key)
        kind, payload = await _receive(reader)
        if kind == _SHARED:
            head = msgspec.msgpack.decode(payload, type=_SharedHead)
            body = True
            return Followed(Shared(head.response, head.content_length, None), _body(reader, writer))
        if kind == _STORED:
            stored = msgspec.msgpack.decode(payload, type=StoredResponse)
            return Followed(Stored(stored, None), None)
        if kind == _UNSHARED:
            told = msgspec.msgpack.decode(payload, type=_UnsharedHead)
            return Followed(Unshared(None, told.status, told.detail), None)
        if kind == _FAILED:
            raise _remote_failure(payload)
    except (OSError, asyncio.IncompleteReadError, *UNREADABLE) as error:
        raise PeerLost from error
    finally:
        if not body:
            writer.close()
    return None


async def _body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> AsyncIterator[bytes]:
    try:
        while True:
            kind, payload = await _receive(reader)
            if kind == _DATA:
                yield payload
            elif kind == _END:
                return
            elif kind == _FAILED:
                raise _remote_failure(payload)
            else:
                raise PeerLost
    except (OSError, asyncio.IncompleteReadError, *UNREADABLE) as error:
        raise PeerLost from error
    finally:
        writer.close()


def _remote_failure(payload: bytes) -> RemoteFailure:
    failure = msgspec.msgpack.decode(payload, type=_Failure)
    return RemoteFailure(failure.status, failure.detail)


def peer_path(directory: Path, pid: int) -> Path:
    """Where the worker `pid` listens."""
    return directory / f"peer-{pid}.sock"


async def _send(writer: asyncio.StreamWriter, kind: bytes, payload: bytes) -> None:
    if writer.is_closing():
        # uvloop's transports raise a RuntimeError where asyncio's drop what is written.
        raise ConnectionResetError("the other worker is gone")
    writer.write(_HEADER.pack(kind, len(payload)))
    writer.write(payload)
    await writer.drain()


async def _receive(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind, length = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if length > _MAX_MESSAGE:
        raise PeerLost
    return kind, await reader.readexactly(length)
