"""A request's body on its way to an origin, beside the response that may come meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from edgeproxy.proxy.errors import OriginTimedOut

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from edgeproxy.proxy.origin_protocol import OriginProtocol

_CONTINUE_WAIT: Final = 1.0
"""Seconds to wait for 100 (Continue): RFC 9110 10.1.1 says not to wait for ever."""


class Upload:
    """Sends the body in a task of its own, no faster than the origin takes it."""

    def __init__(
        self,
        protocol: OriginProtocol,
        body: AsyncIterator[bytes],
        length: int | None,
        *,
        expects: bool,
        stall: float,
        on_end: Callable[[], None],
    ) -> None:
        """`length` in bytes, None for chunks; `expects` to wait for 100 (Continue) first; `stall`:
        seconds that the origin may take to accept a piece; `on_end` is called once it is over, for
        whatever reason.
        """
        self._protocol = protocol
        self._body = body
        self._length = length
        self._stall = stall
        self._on_end = on_end
        self._may_begin = asyncio.Event()
        if not expects:
            self._may_begin.set()
        self.failure: Exception | None = None
        """Why it ended early, where that was not the origin's doing."""
        self._complete = False
        self._callback: Callable[[], None] | None = None
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)

    @property
    def done(self) -> bool:
        return self._task.done()

    @property
    def complete(self) -> bool:
        """Whether all of it has been handed to the connection."""
        return self._complete

    def go_on(self) -> None:
        """The origin wants the body."""
        self._may_begin.set()

    def when_done(self, callback: Callable[[], None] | None) -> None:
        """Call that back, and nothing else, once it is over, for whatever reason."""
        self._callback = callback

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._on_end()
        if self._callback is not None:
            self._callback()

    async def finished(self) -> None:
        """Wait until it is over; raises what made it fail."""
        await asyncio.wait((self._task,))
        if self.failure is not None:
            raise self.failure

    def cancel(self) -> None:
        """Send no more."""
        self._task.cancel()

    async def stop(self) -> None:
        """Send no more; the body is let go of when this returns."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _run(self) -> None:
        try:
            await self._wait_for_continue()
            await self._send()
        except Exception as error:
            # Whoever waits for the response finds this failure there, and the origin a cut body.
            self.failure = error
            self._protocol.fail(error)

    async def _wait_for_continue(self) -> None:
        if self._may_begin.is_set():
            return
        try:
            async with asyncio.timeout(_CONTINUE_WAIT):
                await self._may_begin.wait()
        except TimeoutError:
            return

    async def _send(self) -> None:
        sent = 0
        async for piece in self._body:
            transport = self._protocol.transport
            if transport is None or transport.is_closing():
                return
            if not piece:
                continue
            sent += len(piece)
            if self._length is None:
                transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
            elif sent <= self._length:
                transport.write(piece)
            else:
                raise ConnectionError("the request's body is longer than it said")
            self._complete = sent == self._length
            if self._protocol.writing_paused:
                await self._drain()
        if self._length is None:
            if self._protocol.transport is not None:
                self._protocol.transport.write(b"0\r\n\r\n")
        elif sent < self._length:
            raise ConnectionError("the request's body is shorter than it said")
        self._complete = True

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._stall):
                await self._protocol.drain()
        except TimeoutError as error:
            raise OriginTimedOut("between-bytes", self._stall) from error
        except ConnectionError:
            # The connection is gone, which the response's reader is told as well.
            return
