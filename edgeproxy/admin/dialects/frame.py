"""The frame of all dialects: which one a call is for, who may call, and errors in its words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from edgeproxy.admin.auth import admit
from edgeproxy.admin.dialects.base import Reply
from edgeproxy.admin.dialects.call import Call
from edgeproxy.admin.dialects.table import DIALECTS
from edgeproxy.admin.incoming import Incoming
from edgeproxy.admin.refusals import Refused, Why, refusal_of
from edgeproxy.admin.state import STATE
from edgeproxy.config.addresses import normal_host
from edgeproxy.semantics.target import split_absolute

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from edgeproxy.admin.auth import Authenticator
    from edgeproxy.admin.dialects.base import Dialect
    from edgeproxy.config.model import Config
    from edgeproxy.proxy.edge import Edge


@web.middleware
async def dialects(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer what is for a dialect; all else goes on to the own API, and never comes back here."""
    state = request.config_dict[STATE]
    incoming = incoming_of(request)
    dialect = spoken(state.config, request.headers.get("Host", ""), incoming)
    if dialect is None:
        response: web.StreamResponse = await handler(request)
        return response
    reply = await answer(dialect, incoming, state.edge, state.config, state.authenticator)
    body = b"" if request.method == "HEAD" else reply.content()
    headers = dict(reply.headers)
    if body and "Content-Type" not in headers:
        headers["Content-Type"] = "application/json"
    return web.Response(status=reply.status, body=body or None, headers=headers)


def incoming_of(request: web.Request) -> Incoming:
    """A call as the dialects read it."""
    patience = request.config_dict[STATE].config.limits.body_idle_timeout

    async def read(most: int) -> bytes:
        coding = request.headers.get("Content-Encoding", "identity")
        if coding.lower() != "identity":
            # Nothing is decompressed, least of all what may be a thousand times as large.
            raise Refused(Why.WRONG_CONTENT_TYPE, f"Content-Encoding must not be {coding}")
        content = bytearray()
        try:
            async with asyncio.timeout(patience):
                async for chunk in request.content.iter_any():
                    content += chunk
                    if len(content) > most:
                        raise Refused(Why.TOO_LARGE, f"the body has more than {most} bytes")
        except TimeoutError as error:
            raise Refused(Why.TOO_SLOW, f"the body took more than {patience:g} s") from error
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
            raise Refused(Why.BAD_REQUEST, "the body broke off") from error
        return bytes(content)

    target = request.raw_path
    if not target.startswith("/"):
        target = split_absolute(target)[1]
    path, _, query = target.partition("?")
    return Incoming(request.method, path, query, request.headers, request.remote or "", read)


def spoken(
    config: Config, host: str, incoming: Incoming, table: Sequence[Dialect] = DIALECTS
) -> Dialect | None:
    """The dialect that a call is for; None: it is the own API's."""
    name = normal_host(host)
    settings = {dialect.name: getattr(config.admin.dialects, dialect.name) for dialect in table}
    enabled = [dialect for dialect in table if settings[dialect.name].enabled]
    for dialect in enabled:
        if settings[dialect.name].host == name:
            return dialect
    open_to_all = [dialect for dialect in enabled if settings[dialect.name].host is None]
    return next((each for each in open_to_all if each.speaks(incoming.method, incoming.path)), None)


async def answer(
    dialect: Dialect, incoming: Incoming, edge: Edge, config: Config, authenticator: Authenticator
) -> Reply:
    """The answer to a call, whatever happens."""
    called = _called(dialect, incoming, edge, config, authenticator)
    return await settled(dialect, incoming, called)


async def settled(
    dialect: Dialect, incoming: Incoming, called: Awaitable[tuple[Reply, Call]]
) -> Reply:
    """The answer that a handler's becomes, or an error in the dialect's words."""
    try:
        reply, call = await called
        extra = {"Edge-Dry-Run": "1"} if call.dry_run else {}
        if call.matched is not None:
            extra["Edge-Matched"] = str(call.matched)
    except Exception as error:
        refused = refusal_of(error, f"{incoming.method} {incoming.path}")
        reply = dialect.refuse(refused, incoming)
        extra = refused.headers(reply.status)
    return Reply(reply.status, reply.body, {**dialect.headers(incoming), **extra, **reply.headers})


async def _called(
    dialect: Dialect, incoming: Incoming, edge: Edge, config: Config, authenticator: Authenticator
) -> tuple[Reply, Call]:
    """The answer of a dialect's handler, and the call that it was to."""
    options = getattr(config.admin.dialects, dialect.name)
    route, parts = dialect.find(incoming.method, incoming.path)
    token = await admit(
        await dialect.credentials(incoming),
        authenticator,
        edge.ledger,
        client=incoming.client,
        dialect=dialect.name,
        rate=options.rate,
        now=edge.now(),
    )
    call = Call(incoming, token, dialect.name, parts, options, edge, incoming.dry_run)
    return await route.handler(call), call
