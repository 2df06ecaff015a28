"""The own API, version 1: purge, and look at what is stored."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web
from pydantic import ValidationError

from edgeproxy.admin.auth import admit, bearer
from edgeproxy.admin.dialects.frame import incoming_of
from edgeproxy.admin.incoming import read_json_object
from edgeproxy.admin.models import PurgeRequest
from edgeproxy.admin.problems import Problem, invalid_fields
from edgeproxy.admin.selecting import purge_selectors, url_selectors
from edgeproxy.admin.state import STATE, AdminState
from edgeproxy.config.server import AdminToken
from edgeproxy.invalidation.selectors import Mode
from edgeproxy.invalidation.service import Caller

_MAX_ENTRIES = 1000
_TOKEN = web.RequestKey("token", AdminToken)


def build_api(state: AdminState) -> web.Application:
    """The sub-application under `/v1`; every call of it needs a token."""
    app = web.Application(middlewares=[_authenticated])
    app[STATE] = state
    app.router.add_post("/purge", purge)
    app.router.add_get("/entries", entries)
    return app


@web.middleware
async def _authenticated(request: web.Request, handler: Any) -> web.StreamResponse:
    state = request.app[STATE]
    request[_TOKEN] = await admit(
        bearer(incoming_of(request)),
        state.authenticator,
        state.edge.ledger,
        client=request.remote or "",
        dialect="edgeproxy",
        rate=None,
        now=state.edge.now(),
    )
    response: web.StreamResponse = await handler(request)
    return response


async def purge(request: web.Request) -> web.Response:
    """`POST /v1/purge`: answers once the invalidation is durable, and seen by every worker."""
    state, token = request.app[STATE], request[_TOKEN]
    body = await _read_purge(request)
    selectors = purge_selectors(body, state.edge.sites, token)
    result = await state.edge.service.purge(
        selectors,
        Mode(body.mode),
        Caller(token.name, request.remote or ""),
        dry_run=body.dry_run,
    )
    return web.json_response(
        {
            "id": result.id,
            "position": result.position,
            "mode": body.mode,
            "matched": result.matched,
            "dry_run": body.dry_run,
        }
    )


async def _read_purge(request: web.Request) -> PurgeRequest:
    body = read_json_object(await request.read())
    try:
        return PurgeRequest.model_validate(body)
    except ValidationError as error:
        raise invalid_fields(error) from error


async def entries(request: web.Request) -> web.Response:
    """`GET /v1/entries?url=`: all that is stored for a URL, and whether and why it is served."""
    state, token = request.app[STATE], request[_TOKEN]
    unknown = sorted(set(request.query) - {"url", "site"})
    if unknown:
        problems = [{"field": name, "detail": "no such parameter"} for name in unknown]
        raise Problem(400, f"invalid: {', '.join(unknown)}", errors=problems)
    url = request.query.get("url", "")
    if not url:
        missing = {"field": "url", "detail": "an absolute URL, or a path of the site"}
        raise Problem(400, "missing: url", errors=[missing])
    selectors = url_selectors(
        url, request.query.get("site"), state.edge.sites, token, "read", field="url"
    )
    found = [
        msgspec.to_builtins(explanation)
        for selector in selectors
        for explanation in await state.edge.explain(selector, _MAX_ENTRIES)
    ]
    return web.json_response(
        {
            "url": url,
            "position": state.edge.view.catch_up(),
            "entries": found,
            "notes": [note for selector in selectors for note in state.edge.notes(selector)],
        }
    )
