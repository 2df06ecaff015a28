"""Bodies that go from their files to the client's socket without coming through here: sendfile(2).

uvloop has it for none of its transports, and lets nobody else wait for a transport's descriptor. So
once the transport has nothing left to write, the rest goes through a copy of the descriptor. The
loop itself sends what is in the page cache, which costs what it costs nginx: a step in a thread
took half as much again. What is not there yet, a thread sends: the loop would stand still for the
disk, which took up to 16 ms a step.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from edgeproxy.proxy.lingering import unconfirmed
from edgeproxy.proxy.pace import SHORTEST_WAIT, Pace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgeproxy.cache.reading import StoredBody
    from edgeproxy.proxy.protocol import EdgeProtocol

STEP: Final = 1024 * 1024
"""Most bytes that are sent before others have their turn."""


async def send_file(
    protocol: EdgeProtocol, body: StoredBody, start: int, stop: int
) -> AsyncIterator[int]:
    """Send a body from `start` up to `stop`; gives how many bytes each step has sent.

    It may end before its time, or at once: what is left then has to be read and written, as over
    TLS, or where the body has not been found whole yet. Raises ConnectionError as writing does, and
    BodyMissing if the body is damaged.
    """
    transport = protocol.transport
    if transport is None or transport.get_extra_info("sslcontext") is not None or not body.sendable:
        return
    await _wait_until_written(protocol, transport)
    try:
        socket = os.dup(transport.get_extra_info("socket").fileno())
    except OSError:
        return
    try:
        while start < stop:
            if transport.is_closing():
                raise ConnectionResetError("the client is gone")
            size = min(STEP, stop - start)
            sent = await _send(body, socket, start, size)
            if sent is None:
                return
            start += sent
            yield sent
            if sent < size:
                await _wait_for_room(protocol, transport, socket)
            elif start < stop:
                await asyncio.sleep(0)
    finally:
        os.close(socket)


async def _send(body: StoredBody, socket: int, start: int, size: int) -> int | None:
    try:
        return await body.send(socket, start, size)
    except ConnectionError:
        raise
    except OSError as error:
        raise ConnectionResetError("the client is gone") from error


async def _wait_until_written(protocol: EdgeProtocol, transport: asyncio.Transport) -> None:
    """Wait until the system has all that was written so far, the head above all."""
    if transport.get_write_buffer_size():
        # uvloop writes at the end of its turn.
        await asyncio.sleep(0)
    if transport.is_closing() or not transport.get_write_buffer_size():
        return
    transport.set_write_buffer_limits(high=0)
    try:
        await protocol.drain()
    finally:
        if not transport.is_closing():
            transport.set_write_buffer_limits()


async def _wait_for_room(protocol: EdgeProtocol, transport: asyncio.Transport, socket: int) -> None:
    """Wait until the socket takes more, or the connection is gone.

    Raises ConnectionResetError if the client takes nothing or too little for too long.
    """
    loop = asyncio.get_running_loop()
    pace = Pace(protocol.limits.body_idle_timeout, protocol.limits.min_body_rate)
    while not transport.is_closing():
        unsent, seconds = unconfirmed(socket), pace.left
        room = protocol.room = loop.create_future()
        loop.add_writer(socket, protocol.found_room)
        try:
            async with asyncio.timeout(seconds):
                await room
        except TimeoutError:
            # A socket says that it takes more when a good part of its buffer is free.
            pace.note(seconds, unsent - unconfirmed(socket))
            if pace.left < SHORTEST_WAIT:
                protocol.stalled()
                raise ConnectionResetError("the client has stopped reading") from None
        else:
            return
        finally:
            protocol.room = None
            loop.remove_writer(socket)
