"""A server on a real socket, for the tests of what readers see of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from edgeproxy.config.server import Limits
from edgeproxy.proxy.body import request_body
from edgeproxy.proxy.incoming import Incoming
from edgeproxy.proxy.server import EdgeServer
from edgeproxy.proxy.tally import WORDS, Tally
from edgeproxy.proxy.wire import Reply, ResponseWriter
from edgeproxy.semantics.fields import Fields

Handler = Callable[[Incoming], Awaitable[Reply]]

PATIENCE = 10.0
"""Seconds that a test waits for what has to come."""


class Served:
    """A server that is listening."""

    def __init__(self, server: EdgeServer, tally: Tally, url: str) -> None:
        self.server = server
        self.refusals = tally.refusals
        self.url = url


@asynccontextmanager
async def serving(
    handler: Handler, *, tls: ssl.SSLContext | None = None, **limits: Any
) -> AsyncIterator[Served]:
    """Serve on a port of its own; at the end, everything is broken off."""
    tally = Tally([memoryview(bytearray(8 * WORDS)).cast("Q")], 0)
    server = EdgeServer(handler, Limits(**limits), tally=tally)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(server, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield Served(server, tally, f"{'https' if tls else 'http'}://127.0.0.1:{port}")
    finally:
        listener.close()
        await asyncio.wait_for(server.shutdown(), PATIENCE)


def with_writer(answer: Callable[[Incoming, ResponseWriter], Awaitable[None]]) -> Handler:
    """A handler out of a function that answers through a writer."""

    async def handle(request: Incoming) -> Reply:
        writer = ResponseWriter(request)
        await answer(request, writer)
        return writer.reply

    return handle


@with_writer
async def echo(request: Incoming, writer: ResponseWriter) -> None:
    """Answers with the request line, as the handler has it, and the body."""
    body = b"".join([chunk async for chunk in request_body(request)])
    answer = b"%b %b %b" % (request.method, request.target, body)
    await writer.start(200, b"OK", Fields(), len(answer))
    await writer.write(answer)
    await writer.finish()


@with_writer
async def hello(request: Incoming, writer: ResponseWriter) -> None:
    """Answers at once, whatever the body."""
    await writer.start(200, b"OK", Fields([(b"Content-Type", b"text/plain")]), 5)
    await writer.write(b"hello")
    await writer.finish()
