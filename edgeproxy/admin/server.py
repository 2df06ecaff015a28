"""The admin port's connections: how many there may be, and what is told to what is no request."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from edgeproxy.admin.browsers import HEADERS
from edgeproxy.admin.problems import CONTENT_TYPE, Problem
from edgeproxy.admin.state import STATE

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

_SHUTDOWN_SECONDS: Final = 2.0
_BACKLOG: Final = 128
# A URL that is asked about stands, escaped, in the query of another one.
_MAX_LINE: Final = 64 * 1024


class AdminServer:
    """Serves an admin application at some sockets."""

    def __init__(
        self, app: web.Application, sockets: Sequence[socket.socket], keepalive_timeout: float
    ) -> None:
        """`keepalive_timeout`: seconds that a connection may take for each of its heads."""
        self._app = app
        self._sockets = sockets
        self._options: dict[str, Any] = {
            "access_log": None,
            "max_line_size": _MAX_LINE,
            # For a first head, too. aiohttp's own is an hour, for whoever can connect.
            "keepalive_timeout": keepalive_timeout,
            # What is compressed is not read: it may be a thousand times as large as it looks.
            "auto_decompress": False,
        }
        self._runner = web.AppRunner(
            app, handle_signals=False, shutdown_timeout=_SHUTDOWN_SECONDS, **self._options
        )
        self._listening: list[asyncio.Server] = []
        self._open: set[AdminProtocol] = set()

    async def start(self) -> None:
        """Answer from now on."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            self._listening.append(
                await loop.create_server(self._protocol, sock=sock, backlog=_BACKLOG)
            )

    async def close(self) -> None:
        """Answer no more; what is under way has two seconds to end."""
        for listening in self._listening:
            listening.close()
        await self._runner.cleanup()

    def opened(self, protocol: AdminProtocol) -> None:
        self._open.add(protocol)

    def closed(self, protocol: AdminProtocol) -> None:
        self._open.discard(protocol)

    def _protocol(self) -> asyncio.Protocol:
        state = self._app[STATE]
        if len(self._open) >= state.config.admin.max_connections:
            state.edge.tally.note("admin-connections-full")
            return _TurnedAway()
        assert self._runner.server is not None
        return AdminProtocol(self, self._runner.server, self._options)


class AdminProtocol(RequestHandler):
    """One connection."""

    __slots__ = ("_admin",)

    def __init__(self, admin: AdminServer, server: web.Server, options: dict[str, Any]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._admin = admin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._admin.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._admin.closed(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """What aiohttp answers by itself, for want of a request: as all others are answered, and
        without what was sent, in which there may be a token."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.log_exception("a call of the admin port was not answered", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of another answer is sent already")
        detail = "this is no request of HTTP/1.1" if status < 500 else "a fault of the edge"
        response = Problem(status, detail).response()
        response.headers.update(HEADERS)
        response.force_close()
        return response


class _TurnedAway(asyncio.Protocol):
    """A connection for which there is no room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        problem = Problem(503, "as many connections are open as admin.max_connections allows")
        body = problem.response().body
        assert isinstance(body, bytes)
        fields = {
            "Content-Type": CONTENT_TYPE,
            "Content-Length": str(len(body)),
            "Retry-After": "1",
            "Connection": "close",
            **HEADERS,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"HTTP/1.1 503 Service Unavailable\r\n{lines}\r\n"
        sending = cast("asyncio.Transport", transport)
        sending.write(head.encode() + body)
        sending.close()
