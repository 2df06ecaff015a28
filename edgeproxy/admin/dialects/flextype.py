"""Flextype: `cache/clear`, with two secrets among the parameters.

https://awilum.github.io/flextype/documentation/endpoints/cache; the released code routes POST
alone and answers 204.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from edgeproxy.admin.auth import Credentials
from edgeproxy.admin.dialects.base import Dialect, Reply, Route
from edgeproxy.admin.refusals import Fault, Refused, Why
from edgeproxy.invalidation.selectors import Mode, Selector

if TYPE_CHECKING:
    from edgeproxy.admin.dialects.call import Call
    from edgeproxy.admin.incoming import Incoming

_INVALID = "Validation for this particular item failed"
_WRONG = "Token is wrong"

# The status of an error, and its message where it is not the refusal's own.
_ERRORS: dict[Why, tuple[int, str | None]] = {
    Why.NO_CREDENTIALS: (400, _INVALID),
    Why.UNKNOWN_TOKEN: (401, _WRONG),
    Why.DISABLED: (400, _INVALID),
    Why.EXPIRED: (401, _WRONG),
    Why.WRONG_NETWORK: (403, None),
    Why.OVER_CALL_LIMIT: (400, _INVALID),
    Why.RATE_LIMITED: (429, None),
    Why.FORBIDDEN: (403, None),
    Why.UNKNOWN_SITE: (404, None),
    Why.BAD_REQUEST: (400, _INVALID),
    Why.TOO_LARGE: (413, None),
    Why.TOO_SLOW: (408, None),
    Why.WRONG_CONTENT_TYPE: (415, None),
    Why.NOT_FOUND: (404, None),
    Why.WRONG_METHOD: (405, None),
    Why.FAILED: (500, None),
    Why.UNUSABLE: (503, None),
    Why.TOO_MANY_RULES: (503, None),
    Why.BUSY: (503, None),
}


async def _credentials(incoming: Incoming) -> Credentials | None:
    """`token` and `access_token`, each out of the body if it is there, else out of the query."""
    given = {**incoming.query, **await incoming.form_or_json()}
    secrets = []
    for name in ("token", "access_token"):
        value = given.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise Refused.bad_request(Fault(name, "must be a text", "type"))
        secrets.append(value)
    return Credentials(*secrets)


async def _clear(call: Call) -> Reply:
    if call.incoming.method == "GET" and not call.options.allow_get:
        raise Refused(Why.WRONG_METHOD, "GET is switched off here", allow=["POST"])
    await call.purge([Selector.by_everything(call.site())], Mode.DELETE)
    status = call.options.status
    return Reply(status, None if status == HTTPStatus.NO_CONTENT else {})


def _refuse(refused: Refused, _: Incoming) -> Reply:
    status, message = _ERRORS[refused.why]
    body = {
        "title": HTTPStatus(status).phrase,
        "message": message or refused.detail,
        "http_status_code": status,
    }
    return Reply(status, body)


FLEXTYPE = Dialect(
    name="flextype",
    title="Flextype",
    routes=(
        Route("POST", "/api/v1/cache/clear", _clear),
        Route("GET", "/api/v1/cache/clear", _clear),
    ),
    credentials=_credentials,
    refuse=_refuse,
    prefixes=("/api/v1/cache/",),
)
