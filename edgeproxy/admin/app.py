"""The admin port's application: who may call it by which name, health, and the APIs under it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from edgeproxy.admin.api.routing import build_api
from edgeproxy.admin.auth import Authenticator
from edgeproxy.admin.browsers import add_headers, own_pages_only
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


def build_admin(
    edge: Edge,
    config: Config,
    tokens: Sequence[AdminToken],
    ready: Callable[[], Awaitable[list[str]]],
    workers: Callable[[], Sequence[WorkerState]],
    warnings: Sequence[str] = (),
) -> web.Application:
    """The admin application of one worker.

    `ready()` names what is not ready yet, nothing when all is; `workers()` tells how each worker of
    the node is; `warnings` say what it can't do, though it serves. The workers answer alike:
    whichever takes the connection, an invalidation is the node's.
    """
    state = AdminState(
        edge, config, Authenticator(tokens), ready, workers, edge.now(), tuple(warnings)
    )
    app = web.Application(
        middlewares=[own_pages_only, problems, dialects], client_max_size=MAX_BODY
    )
    app[STATE] = state
    app.on_response_prepare.append(add_headers)
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


async def _health(_: web.Request) -> web.Response:
    """The process answers."""
    return web.json_response({"status": "ok"})


async def _readiness(request: web.Request) -> web.Response:
    """Every worker accepts, and the store is usable."""
    state = request.app[STATE]
    missing = await state.ready()
    if missing:
        return Problem(503, "; ".join(missing)).response()
    if state.warnings:
        # Readers are served, so whoever balances load goes on sending them.
        return web.json_response({"status": "degraded", "warnings": state.warnings})
    return web.json_response({"status": "ready"})
