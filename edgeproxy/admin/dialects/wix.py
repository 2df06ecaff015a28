"""Wix: `invalidateCache`, by tags, and the whole site.

https://dev.wix.com/docs/rest/business-management/cache/invalidate-cache; the vendor's SDK posts to
two more paths.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

from edgeproxy.admin.auth import bearer
from edgeproxy.admin.dialects.base import Dialect, Reply, Route
from edgeproxy.admin.dialects.call import list_faults, text_fault
from edgeproxy.admin.refusals import Fault, Refused, Why
from edgeproxy.invalidation.selectors import Mode, Selector

if TYPE_CHECKING:
    from edgeproxy.admin.auth import Credentials
    from edgeproxy.admin.dialects.call import Call
    from edgeproxy.admin.incoming import Incoming

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

# The code of an `applicationError`, and the status where it is not the refusal's own.
_CODES: dict[Why, tuple[str, int]] = {
    Why.NO_CREDENTIALS: ("UNAUTHENTICATED", 401),
    Why.UNKNOWN_TOKEN: ("UNAUTHENTICATED", 401),
    Why.DISABLED: ("PERMISSION_DENIED", 403),
    Why.EXPIRED: ("UNAUTHENTICATED", 401),
    Why.WRONG_NETWORK: ("PERMISSION_DENIED", 403),
    Why.OVER_CALL_LIMIT: ("PERMISSION_DENIED", 403),
    Why.RATE_LIMITED: ("RESOURCE_EXHAUSTED", 429),
    Why.FORBIDDEN: ("PERMISSION_DENIED", 403),
    Why.UNKNOWN_SITE: ("NOT_FOUND", 404),
    Why.BAD_REQUEST: ("INVALID_ARGUMENT", 400),
    Why.TOO_LARGE: ("PAYLOAD_TOO_LARGE", 413),
    Why.TOO_SLOW: ("REQUEST_TIMEOUT", 408),
    Why.WRONG_CONTENT_TYPE: ("UNSUPPORTED_MEDIA_TYPE", 415),
    Why.NOT_FOUND: ("NOT_FOUND", 404),
    Why.WRONG_METHOD: ("METHOD_NOT_ALLOWED", 405),
    Why.FAILED: ("INTERNAL", 500),
    Why.UNUSABLE: ("UNAVAILABLE", 503),
    Why.TOO_MANY_RULES: ("UNAVAILABLE", 503),
    Why.BUSY: ("UNAVAILABLE", 503),
}

_RULES = {
    "required": "REQUIRED_FIELD",
    "type": "TYPE",
    "min_length": "MIN_LENGTH",
    "max_length": "MAX_LENGTH",
    "min_size": "MIN_SIZE",
    "max_size": "MAX_SIZE",
    "format": "FORMAT",
    "unknown": "OTHER",
}


async def _credentials(incoming: Incoming) -> Credentials | None:
    """The token alone in Authorization, or with `Bearer`."""
    return bearer(incoming, bare=True)


async def _invalidate(call: Call) -> Reply:
    body = await call.incoming.json_object()
    # Absent and null are one in the vendor's JSON, as in that of protocol buffers.
    tags = _tags(body.get("invalidationMethods") or [], call.options)
    site = _site(call)
    await call.purge([Selector.by_tag(site, tag) for tag in tags], Mode.DELETE)
    return Reply(200, {})


async def _purge_site(call: Call) -> Reply:
    await call.incoming.json_object()
    await call.purge([Selector.by_everything(_site(call))], Mode.DELETE)
    return Reply(200, {})


def _site(call: Call) -> str:
    headers = call.incoming.headers
    return call.site(headers.get("wix-site-id") or headers.get("wix-account-id"))


def _tags(methods: object, options: Any) -> list[str]:
    """The tags in a list of invalidation methods; raises `Refused` with all that is wrong."""
    field = "invalidationMethods"
    faults = list_faults(methods, field, options.max_tags)
    tags = []
    if isinstance(methods, list) and not faults:
        for at, method in enumerate(methods):
            fault = _method_fault(method, f"{field}[{at}]", options.max_tag_length)
            if fault is None:
                tags.append(method["tag"])
            else:
                faults.append(fault)
    if faults:
        raise Refused.bad_request(*faults)
    return tags


def _method_fault(method: object, field: str, longest: int) -> Fault | None:
    if not isinstance(method, dict):
        return Fault(field, "must be an object", "type")
    if "tag" not in method:
        return Fault(f"{field}.tag", "is required", "required")
    return text_fault(method["tag"], f"{field}.tag", longest)


def _refuse(refused: Refused, _: Incoming) -> Reply:
    if refused.faults:
        violations = [
            {
                "field": fault.field,
                "description": fault.detail,
                "violatedRule": _RULES[fault.rule],
                "ruleName": _RULES[fault.rule],
            }
            for fault in refused.faults
        ]
        details = {"validationError": {"fieldViolations": violations}}
        return Reply(400, {"message": refused.detail, "details": details})
    code, status = _CODES[refused.why]
    error = {"code": code, "description": refused.detail, "data": {}}
    return Reply(status, {"message": refused.detail, "details": {"applicationError": error}})


def _headers(incoming: Incoming) -> dict[str, str]:
    """The request's id, or one of our own: support asks for it."""
    claimed = incoming.headers.get("X-Wix-Request-Id", "")
    return {
        "X-Wix-Request-Id": claimed if _REQUEST_ID.fullmatch(claimed) else secrets.token_hex(16)
    }


WIX = Dialect(
    name="wix",
    title="Wix",
    routes=(
        Route("POST", "/ssr/v1/invalidate-cache", _invalidate),
        Route("POST", "/v1/invalidate-cache", _invalidate),
        Route("POST", "/wix-public-html-cache-invalidate-webapp/v1/invalidate-cache", _invalidate),
        Route("POST", "/v1/purge-site-cache", _purge_site),
    ),
    credentials=_credentials,
    refuse=_refuse,
    prefixes=("/ssr/v1/", "/wix-public-html-cache-invalidate-webapp/"),
    headers=_headers,
)
