"""The admin port's application: who may call it by which name, health, and the APIs under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from edgeproxy.admin.api.routing import build_api
from edgeproxy.admin.auth import Authenticator
from edgeproxy.admin.dialects.frame import dialects
from edgeproxy.admin.dialects.varnish import purger
from edgeproxy.admin.incoming import MAX_BODY
from edgeproxy.admin.problems import Problem, problems
from edgeproxy.admin.state import STATE, AdminState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from edgeproxy.admin.state import WorkerState
    from edgeproxy.config.model import Config
    from edgeproxy.config.server import AdminToken
    from edgeproxy.proxy.edge import Edge

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def build_admin(
    edge: Edge,
    config: Config,
    tokens: Sequence[AdminToken],
    ready: Callable[[], Awaitable[list[str]]],
    workers: Callable[[], Sequence[WorkerState]],
) -> web.Application:
    """The admin application of one worker.

    `ready()` names what is not ready yet, nothing when all is; `workers()` tells how each worker of
    the node is. The workers answer alike: whichever
    takes the connection, an invalidation is the node's.
    """
    state = AdminState(edge, config, Authenticator(tokens), ready, workers, edge.now())
    app = web.Application(middlewares=[_outer, problems, dialects], client_max_size=MAX_BODY)
    app[STATE] = state
    edge.purge_by(purger(state))
    app.router.add_get("/healthz", _health)
    app.router.add_get("/readyz", _readiness)
    app.add_subapp("/v1", build_api(state))
    return app


def reload_admin(app: web.Application, config: Config, tokens: Sequence[AdminToken]) -> None:
    """Take a new configuration over: its tokens, sites and host names count from now on."""
    state = app[STATE]
    state.config = config
    state.authenticator = Authenticator(tokens)


@web.middleware
async def _outer(request: web.Request, handler: Any) -> web.StreamResponse:
    state = request.config_dict[STATE]
    response: web.StreamResponse
    # Not `request.host`: where there is none (HTTP/1.0), that looks this machine up in the DNS.
    host = request.headers.get("Host")
    # Fastly's `PURGE URL` has the host of the page that it is about; it takes a token, as all do.
    purges = request.method == "PURGE" and state.edge.sites.find(host or "") is not None
    if host is None or purges or state.config.admin.allows_host(host):
        response = await handler(request)
    else:
        # A page whose name was made to point here (DNS rebinding) calls by that name.
        detail = f"{host!r} is not a name of the admin port: see admin.allowed_hosts"
        response = Problem(421, detail).response()
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def _health(_: web.Request) -> web.Response:
    """The process answers."""
    return web.json_response({"status": "ok"})


async def _readiness(request: web.Request) -> web.Response:
    """Every worker accepts, and the store is usable."""
    missing = await request.app[STATE].ready()
    if missing:
        return Problem(503, "; ".join(missing)).response()
    return web.json_response({"status": "ready"})
