"""The connections to one origin: how many there may be, how they are made, what is kept of them."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections import deque
from functools import cache
from typing import TYPE_CHECKING, Final

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorDNSError,
    ClientError,
    ClientRequest,
    ClientSSLError,
    ClientTimeout,
)
from yarl import URL

from edgeproxy.proxy.errors import OriginBusy, OriginTimedOut, OriginUnreachable, OutOfFiles
from edgeproxy.proxy.origin_protocol import OriginConnector, OriginProtocol

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp.connector import Connection

    from edgeproxy.config.site import Origin, Pool, Timeouts

# Limits are kept here, to the millisecond; the connector has none of its own.
_UNLIMITED: Final = ClientTimeout(total=None)

_OUR_WANT: Final = frozenset({errno.EMFILE, errno.ENFILE})

MAX_QUEUE: Final = 4096
"""Requests that wait for a connection. Those of clients that have left are among them, so that
nothing else would bound them."""


class Places:
    """So many may have one at a time; the others get theirs in the order in which they came."""

    def __init__(self, count: int) -> None:
        self.count = self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        return self.count - self._free

    def take(self) -> bool:
        """Take one, if one is free."""
        if not self._free:
            return False
        self._free -= 1
        return True

    async def wait(self) -> None:
        """Take one, as soon as one is free."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Give one back: to the one who has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Lease:
    """A connection for one exchange."""

    def __init__(self, connections: Connections, connection: Connection, *, upload: bool) -> None:
        assert isinstance(connection.protocol, OriginProtocol)
        self.protocol = connection.protocol
        self.reused = self.protocol.exchanges > 0
        self._uploading = upload
        # An origin that does not read the body takes it for the next request, and its answer to
        # that would be taken for somebody else's.
        self._single_use = upload and not connections.reuse_after_body
        self._connections = connections
        self._connection: Connection | None = connection

    @property
    def active(self) -> bool:
        return self._connection is not None

    def body_over(self) -> None:
        """Note that the request's body was sent, or never will be."""
        if self._uploading:
            self._uploading = False
            self._connections.give_back_upload()

    def end(self, *, keep: bool) -> None:
        """Give the connection back for other requests, or close it; only the first call counts."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self.body_over()
        if not keep:
            self.protocol.abort()
            connection.close()
        elif self.protocol.end() and not self._single_use:
            self._connections.keep(connection)
        else:
            connection.close()
        self._connections.give_back()

    def __del__(self) -> None:
        # The last resort for a response that nobody released: its place must not be lost for good.
        self.end(keep=False)


class Connections:
    """Makes them, bounds them, and lends them out. Make it inside a running loop."""

    def __init__(self, origin: Origin, timeouts: Timeouts, pool: Pool) -> None:
        self.retired = False
        self.reuse_after_body = pool.reuse_after_body
        self._url = origin.url
        self._tls = origin.tls
        self._timeouts = timeouts
        self._keepalive = pool.keepalive
        self._connector = OriginConnector()
        self._loop = asyncio.get_running_loop()
        # Those that wait for a request, with the time since when: the longest first.
        self._kept: deque[tuple[float, Connection]] = deque()
        self._expiry: asyncio.TimerHandle | None = None
        self._free = Places(pool.max_connections)
        # How long an upload takes is its client's choice: some connections are kept for the others.
        reserved = max(1, pool.max_connections // 4)
        self._uploads = Places(max(1, pool.max_connections - reserved))
        self._waiting = 0
        self._request: ClientRequest | None = None

    @property
    def load(self) -> int:
        """Requests that have a connection, or wait for one."""
        return self._free.taken + self._waiting

    async def lease(self, *, upload: bool = False, kept: bool = True) -> Lease:
        """A connection, as soon as there may be one more; `upload`: for a request with a body;
        `kept`: one from earlier will do, although the origin may be closing it just now.

        Raises `OriginBusy`, `OriginTimedOut` ("queue", "connect") or `OriginUnreachable`.
        """
        if upload and not self._uploads.take():
            await self._wait_for_turn(self._uploads)
        try:
            if not self._free.take():
                await self._wait_for_turn(self._free)
            try:
                connection = self._take_kept() if kept else None
                if connection is None:
                    self._make_room()
                    connection = await self._connect()
                return Lease(self, connection, upload=upload)
            except BaseException:
                self.give_back()
                raise
        except BaseException:
            if upload:
                self.give_back_upload()
            raise

    def lease_kept(self) -> Lease | None:
        """A kept connection, where nobody has to wait for it; for a request without a body."""
        if not self._free.take():
            return None
        connection = self._take_kept()
        if connection is None:
            self.give_back()
            return None
        return Lease(self, connection, upload=False)

    async def _wait_for_turn(self, places: Places) -> None:
        if self._waiting >= MAX_QUEUE:
            raise OriginBusy("too many requests wait for the origin")
        # Those before us are waiting for their first byte: no more patience than that.
        seconds = self._timeouts.first_byte
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await places.wait()
        except TimeoutError as error:
            raise OriginTimedOut("queue", seconds) from error
        finally:
            self._waiting -= 1

    def _take_kept(self) -> Connection | None:
        # The one that was used last: the others can be closed the sooner.
        while self._kept:
            since, connection = self._kept.pop()
            protocol = connection.protocol
            late = self._loop.time() - since > self._keepalive
            if protocol is not None and protocol.is_connected() and not late:
                return connection
            connection.close()
        return None

    def _make_room(self) -> None:
        """Close what is kept beyond what there may be, the one that a lease is out for included."""
        while self._kept and self._free.taken + len(self._kept) > self._free.count:
            self._kept.popleft()[1].close()

    def keep(self, connection: Connection) -> None:
        """Keep a connection for the next request, unless none is to be kept."""
        if self.retired or self._keepalive <= 0:
            connection.close()
            return
        self._kept.append((self._loop.time(), connection))
        if self._expiry is None:
            self._expiry = self._loop.call_later(self._keepalive, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        while self._kept:
            due = self._kept[0][0] + self._keepalive
            if due > self._loop.time():
                self._expiry = self._loop.call_at(due, self._expire)
                return
            self._kept.popleft()[1].close()

    async def _connect(self) -> Connection:
        seconds = self._timeouts.connect
        try:
            async with asyncio.timeout(seconds) as limit:
                request = self._request or await self._prepare()
                return await self._connector.connect(request, [], _UNLIMITED)
        except (ClientError, OSError) as error:
            if limit.expired():
                raise OriginTimedOut("connect", seconds) from error
            if isinstance(error, OSError) and error.errno in _OUR_WANT:
                # That says nothing of the origin.
                raise OutOfFiles("the edge has too many files open") from error
            raise OriginUnreachable(f"no connection to the origin: {_reason(error)}") from error

    async def _prepare(self) -> ClientRequest:
        # What the connector asks for where to connect, and how; it never sees a real request.
        url = self._url
        loop = asyncio.get_running_loop()
        verify: ssl.SSLContext | bool = self._tls.verify
        if url.scheme == "https" and verify:
            trusted = _trusting_machine if self._tls.ca_file is None else _trusting
            verify = await loop.run_in_executor(None, trusted, self._tls.ca_file)
        self._request = ClientRequest(
            "GET",
            URL.build(scheme=url.scheme, host=url.host, port=url.port),
            loop=loop,
            ssl=verify,
            server_hostname=self._tls.server_name,
        )
        return self._request

    def give_back(self) -> None:
        """One more may be used."""
        self._free.release()

    def give_back_upload(self) -> None:
        """One more may be used for a request with a body."""
        self._uploads.release()

    def drop_idle(self) -> None:
        """Close those that wait for a request."""
        while self._kept:
            self._kept.pop()[1].close()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def retire(self) -> None:
        """Keep none from now on; those in use are closed as they end."""
        self.retired = True
        self.drop_idle()

    async def close(self) -> None:
        """Close all, those in use too."""
        self.retire()
        await self._connector.close()


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    """Trusts the authorities in that file; those that the machine trusts where there is none."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


_trusting_machine = cache(_trusting)
"""For the authorities that the machine trusts: one context for all origins, for they are many."""


def _reason(error: ClientError | OSError) -> str:
    """Why, in words that a reader may see: no address, no name."""
    match error:
        case ClientConnectorDNSError():
            return "its name is not known"
        case ClientConnectorCertificateError():
            return "its certificate is not to be trusted"
        case ClientSSLError() | ssl.SSLError():
            return "TLS failed"
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
    return "it failed"
