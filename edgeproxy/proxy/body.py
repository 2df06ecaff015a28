"""What a handler asks of a request beyond its head: how long its body is, and the body."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp.web_protocol import PayloadAccessError

from edgeproxy.proxy.errors import EdgeError
from edgeproxy.proxy.pace import Pace
from edgeproxy.semantics.fields import decimal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgeproxy.proxy.incoming import Incoming


class RequestBodyLate(EdgeError):
    """The client has paused for too long while it sent a body, or sent it too slowly."""

    status = 408
    detail = "request-body-timeout"


class RequestBodyTooLarge(EdgeError):
    """The body has grown longer than `limits.body_bytes`; where the next request would begin is not
    known."""

    status = 413
    detail = "body-too-large"
    ends_connection = True


def content_length(request: Incoming) -> int | None:
    """The length that the request's Content-Length gives; None where there is none."""
    value = request.fields.get(b"content-length")
    return None if value is None else decimal(value)


async def request_body(request: Incoming) -> AsyncIterator[bytes]:
    """The body as it comes in, no faster than it is taken.

    A client that waits for 100 Continue gets it when the first piece is asked for, unless it has
    begun to send or the answer has. Raises `RequestBodyLate`, `RequestBodyTooLarge`, `BadRequest`
    when the framing is broken, and ConnectionError when the client is gone or has had its answer.
    """
    protocol, content = request.protocol, request.body
    if content is None:
        return
    loop, limits = asyncio.get_running_loop(), protocol.limits
    pace = Pace(limits.body_idle_timeout, limits.min_body_rate)
    if protocol.continue_due and not content.total_bytes:
        protocol.send_continue()
    while True:
        since = loop.time()
        try:
            async with asyncio.timeout(pace.left) as pause:
                chunk = await content.readany()
        except (OSError, PayloadAccessError) as error:
            # TimeoutError is an OSError, and may also be what the connection died of.
            if pause.expired():
                raise RequestBodyLate("the client was too slow") from None
            raise ConnectionResetError("there is no more to come") from error
        if not chunk:
            return
        pace.note(loop.time() - since, len(chunk))
        yield chunk
