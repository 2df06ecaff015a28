"""Upgrades (RFC 9110 7.8): when a request asks for one, and the bytes both ways once it has it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edgeproxy.semantics.fields import is_token, list_members

if TYPE_CHECKING:
    from edgeproxy.semantics.fields import Fields

# HTTP itself is not for tunnelling: its requests would reach the origin past the edge's own rules.
_NOT_TUNNELLED = frozenset({b"h2c", b"h2", b"http"})


def upgrade_requested(fields: Fields, version: str) -> bool:
    """Whether a request asks for another protocol that can be tunnelled (RFC 9110 7.8).

    `version` is that of the request, such as "1.1": HTTP/1.0 knows no upgrades.
    """
    if version != "1.1" or b"upgrade" not in fields:
        return False
    options = {option.lower() for option in list_members(fields.get_all(b"connection"))}
    if b"upgrade" not in options:
        return False
    protocols = list_members(fields.get_all(b"upgrade"))
    return bool(protocols) and all(map(_is_tunnelled, protocols))


def _is_tunnelled(protocol: bytes) -> bool:
    name, slash, version = protocol.partition(b"/")
    if not is_token(name) or (slash and not is_token(version)):
        return False
    return name.lower() not in _NOT_TUNNELLED


def switched_as_asked(asked: bytes, chosen: Fields) -> bool:
    """Whether the fields of a 101 name protocols that were asked for, and no other (RFC 9110 7.8).

    `asked`: the request's Upgrade.
    """
    wanted = {each.lower() for each in list_members((asked,))}
    names = {each.lower() for each in list_members(chosen.get_all(b"upgrade"))}
    return bool(names) and names <= wanted


async def splice(
    client: asyncio.Transport,
    origin: asyncio.Transport,
    from_client: bytes,
    from_origin: bytes,
    idle: float,
) -> tuple[int, int]:
    """Copy bytes both ways until both connections are closed, which they are in any case.

    `from_client` and `from_origin` are what has been received already; both connections are taken
    over before anything is waited for, so that nothing gets lost in between. An end is passed on
    where the other connection can be closed in one direction, and closes it where it can't. Without
    a byte moving either way for `idle` seconds the tunnel ends. Returns the bytes that went to the
    origin, and to the client.
    """
    loop = asyncio.get_running_loop()
    client_side, origin_side = _Side(client, loop), _Side(origin, loop)
    client_side.other, origin_side.other = origin_side, client_side
    client.set_protocol(client_side)
    origin.set_protocol(origin_side)
    try:
        if from_client:
            client_side.data_received(from_client)
        if from_origin:
            origin_side.data_received(from_origin)
        client_side.start()
        origin_side.start()
        await _until_closed(client_side, origin_side, idle)
    finally:
        client_side.abort()
        origin_side.abort()
    return client_side.passed_on, origin_side.passed_on


async def _until_closed(one: _Side, other: _Side, idle: float) -> None:
    closed = asyncio.gather(one.closed, other.closed)
    loop = asyncio.get_running_loop()
    waiting = one.waiting() + other.waiting()
    deadline = loop.time() + idle
    while not closed.done() and (left := deadline - loop.time()) > 0:
        await asyncio.wait([closed], timeout=left)
        # What is on its way out to a slow peer moves, too, though nothing new is taken in.
        now_waiting = one.waiting() + other.waiting()
        moved = max(one.moved, other.moved) if now_waiting == waiting else loop.time()
        waiting = now_waiting
        deadline = moved + idle
    closed.cancel()


class _Side(asyncio.Protocol):
    """One of the two connections: what comes from it is written to the other."""

    other: _Side

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.passed_on = 0
        """Bytes."""
        self.moved = loop.time()
        """When something was received last."""
        self.closed: asyncio.Future[None] = loop.create_future()
        self.high_water = transport.get_write_buffer_limits()[1]
        self._transport = transport
        self._loop = loop
        self._ended = False
        self._paused = False
        self._lost = transport.is_closing()
        if self._lost:
            # Whoever closed it has been told so, or will be: this side may never be.
            self.closed.set_result(None)

    def start(self) -> None:
        """Read on, if whoever had the connection before has stopped it."""
        if self._lost:
            self.other.close()
        elif not self._paused and not self._transport.is_reading():
            self._transport.resume_reading()

    def waiting(self) -> int:
        """The bytes that the peer has not taken yet."""
        return 0 if self._lost else self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close the connection once what is on its way has been sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close the connection now, unless it is closed already."""
        if not self._lost:
            self._transport.abort()

    def write(self, data: bytes) -> bool:
        """Send to the peer; False when it is gone."""
        if self._transport.is_closing():
            return False
        self._transport.write(data)
        return True

    def end(self) -> None:
        """Tell the peer that no more comes."""
        if self._ended or not self._transport.can_write_eof():
            self.close()
        elif not self._transport.is_closing():
            self._transport.write_eof()

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self.moved = self._loop.time()
        if self.other.write(data):
            self.passed_on += len(data)
            # Not left to `pause_writing`: whoever had the other connection before may have been
            # told already, and would have been told once. `resume_writing` comes to this one.
            if self.other.waiting() > self.other.high_water:
                self.pause()

    def eof_received(self) -> bool:
        self.moved = self._loop.time()
        self._ended = True
        self.other.end()
        if self.other._ended:
            self.close()
        # Of TLS the event loop closes both directions, whatever is asked of it.
        return self._transport.can_write_eof()

    def resume_writing(self) -> None:
        self.other.resume()

    def connection_lost(self, _: Exception | None) -> None:
        self._lost = True
        if not self.closed.done():
            self.closed.set_result(None)
        self.other.close()

    def pause(self) -> None:
        """Stop reading: the other connection's peer is slower."""
        self._paused = True
        if not self._transport.is_closing() and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()
