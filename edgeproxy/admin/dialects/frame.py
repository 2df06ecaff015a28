"""The frame of all dialects: which one a call is for, who may call, and errors in its words."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.http import HttpProcessingError

from edgeproxy.admin.auth import admit
from edgeproxy.admin.dialects.base import Reply
from edgeproxy.admin.dialects.call import Call
from edgeproxy.admin.dialects.table import DIALECTS
from edgeproxy.admin.incoming import Incoming
from edgeproxy.admin.refusals import Refused, Why
from edgeproxy.admin.state import STATE
from edgeproxy.config.addresses import normal_host
from edgeproxy.invalidation.journal import JournalError
from edgeproxy.invalidation.service import TooManyRules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeproxy.admin.auth import Authenticator
    from edgeproxy.admin.dialects.base import Dialect
    from edgeproxy.config.model import Config
    from edgeproxy.proxy.edge import Edge

log = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0
"""After so long rules that waited have been worked off."""


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

    async def read(most: int) -> bytes:
        content = bytearray()
        try:
            async for chunk in request.content.iter_any():
                content += chunk
                if len(content) > most:
                    raise Refused(Why.TOO_LARGE, f"the body has more than {most} bytes")
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
            raise Refused(Why.BAD_REQUEST, "the body broke off") from error
        return bytes(content)

    path, _, query = request.raw_path.partition("?")
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
    try:
        reply, extra = await _called(dialect, incoming, edge, config, authenticator)
    except Refused as refused:
        return _refusal(dialect, incoming, refused)
    except TooManyRules as error:
        pending = Refused(Why.TOO_MANY_RULES, str(error), retry_after=SWEEP_SECONDS)
        return _refusal(dialect, incoming, pending)
    except JournalError:
        log.exception("%s %s could not be recorded", incoming.method, incoming.path)
        return _refusal(dialect, incoming, Refused(Why.UNUSABLE, "the journal can't be written"))
    except Exception:
        log.exception("%s %s failed", incoming.method, incoming.path)
        return _refusal(dialect, incoming, Refused(Why.FAILED, "the edge failed; its log says how"))
    return _with(reply, dialect.headers(incoming), extra)


async def _called(
    dialect: Dialect, incoming: Incoming, edge: Edge, config: Config, authenticator: Authenticator
) -> tuple[Reply, dict[str, str]]:
    """The answer of a dialect's handler, and the fields that go with it in every dialect."""
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
    reply = await route.handler(call)
    extra = {"Edge-Dry-Run": "1"} if call.dry_run else {}
    if call.matched is not None:
        extra["Edge-Matched"] = str(call.matched)
    return reply, extra


def _refusal(dialect: Dialect, incoming: Incoming, refused: Refused) -> Reply:
    reply = dialect.refuse(refused, incoming)
    return _with(reply, dialect.headers(incoming), refused.headers(reply.status))


def _with(reply: Reply, *more: Mapping[str, str]) -> Reply:
    """The answer with more fields; its own go first."""
    headers: dict[str, str] = {}
    for each in (*more, reply.headers):
        headers.update(each)
    return Reply(reply.status, reply.body, headers)
