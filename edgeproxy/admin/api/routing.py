"""The own API's sub-application: each call is checked as its endpoint says, then handled."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from edgeproxy.admin.api.endpoint import ApiCall
from edgeproxy.admin.api.once import once
from edgeproxy.admin.api.table import ENDPOINTS
from edgeproxy.admin.auth import admit, bearer
from edgeproxy.admin.dialects.frame import incoming_of
from edgeproxy.admin.incoming import FORM, JSON, read_json_object
from edgeproxy.admin.problems import invalid_fields
from edgeproxy.admin.refusals import Refused, Why
from edgeproxy.admin.state import STATE, AdminState
from edgeproxy.config.server import AdminToken

if TYPE_CHECKING:
    from edgeproxy.admin.api.answers import Answer
    from edgeproxy.admin.api.endpoint import Endpoint
    from edgeproxy.admin.incoming import Incoming

_TOKEN = web.RequestKey("token", AdminToken)
_OPEN = frozenset(f"/v1{each.path}" for each in ENDPOINTS if not each.actions)
_Model = TypeVar("_Model", bound=BaseModel)


def build_api(state: AdminState) -> web.Application:
    """The sub-application under `/v1`; every call of it needs a token, but for its document."""
    app = web.Application(middlewares=[_authenticated])
    app[STATE] = state
    for endpoint in ENDPOINTS:
        # As HTTP asks of whoever knows GET, HEAD is answered, too (RFC 9110 9.1).
        methods = ("GET", "HEAD") if endpoint.method == "GET" else (endpoint.method,)
        for method in methods:
            app.router.add_route(method, endpoint.path, partial(_answer, endpoint))
    app.on_shutdown.append(_end_streams)
    return app


async def _end_streams(app: web.Application) -> None:
    app[STATE].closing.set()


@web.middleware
async def _authenticated(request: web.Request, handler: Any) -> web.StreamResponse:
    """A stranger learns nothing, not even which paths there are."""
    if request.path not in _OPEN:
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


async def _answer(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    token = request.get(_TOKEN)
    if token is not None and endpoint.actions:
        _require_any(token, endpoint)
    incoming = incoming_of(request)
    call = ApiCall(
        state=request.app[STATE],
        token=token,
        request=request,
        incoming=incoming,
        query=_validated(endpoint.query, dict(incoming.query)),
        body=None if endpoint.body is None else await _body(endpoint.body, incoming),
        parts=dict(request.match_info),
    )
    if isinstance(endpoint.answer, str):
        answer = await endpoint.handler(call)
        assert isinstance(answer, web.StreamResponse)
        return answer

    async def rendered() -> bytes:
        answer = await endpoint.handler(call)
        assert not isinstance(answer, web.StreamResponse)
        return render(answer)

    if not endpoint.once:
        content, again = await rendered(), False
    else:
        content, again = await once(call, endpoint.name, rendered)
    headers = {"Idempotency-Replayed": "true"} if again else {}
    return web.Response(body=content, status=endpoint.status, headers=headers, content_type=JSON)


def render(answer: Answer) -> bytes:
    """An answer's JSON."""
    return answer.model_dump_json(exclude_unset=True).encode()


def _require_any(token: AdminToken, endpoint: Endpoint) -> None:
    """Raises `Refused` for a token that may do nothing of that kind, to no site."""
    if not set(endpoint.actions) & set(token.actions):
        needed = " or ".join(endpoint.actions)
        raise Refused(Why.FORBIDDEN, f'the token "{token.name}" may not {needed} on any site')


async def _body(model: type[_Model], incoming: Incoming) -> _Model:
    content = await incoming.body()
    kind = incoming.media_type()
    # A form is what `curl -d` says that it sends where nobody says otherwise.
    if kind not in ("", JSON, FORM) and not kind.endswith("+json"):
        raise Refused(Why.WRONG_CONTENT_TYPE, f"Content-Type must be {JSON}, not {kind}")
    return _validated(model, read_json_object(content))


def _validated(model: type[_Model], given: Any) -> _Model:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid_fields(error) from error
