"""Vercel: its edge cache by tags and by source images, whole projects, and what its CLI asks first.

https://vercel.com/docs/rest-api/edge-cache; a project is a site here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgeproxy.admin.auth import bearer
from edgeproxy.admin.dialects.base import Dialect, Reply, Route
from edgeproxy.admin.dialects.call import text_fault, texts
from edgeproxy.admin.refusals import Fault, Refused, Why
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.invalidation.service import MAX_DEADLINE
from edgeproxy.semantics.environment import ENVIRONMENTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from edgeproxy.admin.auth import Credentials
    from edgeproxy.admin.dialects.call import Call
    from edgeproxy.admin.incoming import Incoming

_LONGEST_TAGS = 8196
"""Most characters of tags in one text, as the vendor's document has it."""
_LONGEST_IMAGE = 8192

# The code of an error, its status, and what else its object holds.
_ERRORS: dict[Why, tuple[str, int, Mapping[str, bool]]] = {
    Why.NO_CREDENTIALS: ("forbidden", 403, {"missingToken": True}),
    Why.UNKNOWN_TOKEN: ("forbidden", 403, {"invalidToken": True}),
    Why.DISABLED: ("forbidden", 403, {"invalidToken": True}),
    Why.EXPIRED: ("forbidden", 403, {"invalidToken": True}),
    Why.WRONG_NETWORK: ("forbidden", 403, {}),
    Why.OVER_CALL_LIMIT: ("forbidden", 403, {}),
    Why.RATE_LIMITED: ("rate_limited", 429, {}),
    Why.FORBIDDEN: ("forbidden", 403, {}),
    Why.UNKNOWN_SITE: ("not_found", 404, {}),
    Why.BAD_REQUEST: ("bad_request", 400, {}),
    Why.TOO_LARGE: ("request_too_large", 413, {}),
    Why.TOO_SLOW: ("request_timeout", 408, {}),
    Why.WRONG_CONTENT_TYPE: ("unsupported_media_type", 415, {}),
    Why.NOT_FOUND: ("not_found", 404, {}),
    Why.WRONG_METHOD: ("method_unknown", 405, {}),
    Why.FAILED: ("internal_server_error", 500, {}),
    Why.UNUSABLE: ("service_unavailable", 503, {}),
    Why.TOO_MANY_RULES: ("service_unavailable", 503, {}),
    Why.BUSY: ("service_unavailable", 503, {}),
}


async def _credentials(incoming: Incoming) -> Credentials | None:
    return bearer(incoming)


# -- by tags and by source images


def _by(
    read: Callable[[Mapping[str, Any], str, Any], Sequence[Selector]],
    names: frozenset[str],
    mode: Mode,
) -> Callable[[Call], Awaitable[Reply]]:
    """What answers a call whose body has those keys; `read(body, site, options)` is what it
    picks."""
    if mode is Mode.DELETE:
        names |= {"revalidationDeadlineSeconds"}

    async def answer(call: Call) -> Reply:
        body = await call.incoming.json_object()
        unknown = [Fault(name, "is not a known key", "unknown") for name in body.keys() - names]
        if unknown:
            raise Refused.bad_request(*unknown)
        deadline = _deadline(body.get("revalidationDeadlineSeconds", 0))
        selectors = read(body, _project(call), call.options)
        await call.purge(selectors, mode, deadline=deadline)
        return Reply(200)

    return answer


def _tags(body: Mapping[str, Any], site: str, options: Any) -> Sequence[Selector]:
    target = body.get("target")
    if "target" in body and target not in ENVIRONMENTS:
        raise Refused.bad_request(Fault("target", f"must be one of {', '.join(ENVIRONMENTS)}"))
    tags = body.get("tags")
    if "tags" not in body:
        raise Refused.bad_request(Fault("tags", "is required", "required"))
    if isinstance(tags, str):
        fault = text_fault(tags, "tags", _LONGEST_TAGS)
        if fault is not None:
            raise Refused.bad_request(fault)
        tags = [tag for part in tags.split(",") if (tag := part.strip())]
        if not tags:
            raise Refused.bad_request(Fault("tags", "must not be empty", "min_length"))
    else:
        tags = texts(tags, "tags", most=options.max_tags, longest=options.max_tag_length, least=1)
    return [Selector.by_tag(site, tag, target) for tag in tags]


def _images(body: Mapping[str, Any], site: str, options: Any) -> Sequence[Selector]:
    if "srcImages" not in body:
        raise Refused.bad_request(Fault("srcImages", "is required", "required"))
    images = texts(
        body["srcImages"], "srcImages", most=options.max_images, longest=_LONGEST_IMAGE, least=1
    )
    selectors = []
    for at, image in enumerate(images):
        try:
            selectors.append(Selector.by_source(site, image))
        except ValueError as error:
            raise Refused.bad_request(Fault(f"srcImages[{at}]", str(error))) from error
    return selectors


def _deadline(value: object) -> float:
    field = "revalidationDeadlineSeconds"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused.bad_request(Fault(field, "must be a number", "type"))
    if math.isnan(value) or value < 0:
        raise Refused.bad_request(Fault(field, "must be 0 or more"))
    # Nothing is served stale for longer than that.
    return float(min(value, MAX_DEADLINE))


# -- whole projects


async def _purge_all(call: Call) -> Reply:
    # The CLI sends Content-Type and no body.
    await call.incoming.json_object()
    await call.purge([Selector.by_everything(_project(call))], Mode.DELETE)
    return Reply(200)


def _project(call: Call) -> str:
    name = call.incoming.query.get("projectIdOrName")
    if not name:
        raise Refused.bad_request(Fault("projectIdOrName", "is required", "required"))
    return _known(call, name)


def _known(call: Call, name: str) -> str:
    try:
        return call.site(name)
    except Refused as refused:
        if refused.why is not Why.FORBIDDEN:
            raise
        # As at Vercel: what is not the token's is not there.
        raise Refused(Why.UNKNOWN_SITE, refused.detail, site=name) from refused


# -- what the CLI asks before it purges


async def _user(call: Call) -> Reply:
    name = call.token.name
    return Reply(200, {"user": {"id": name, "username": name, "name": name, "email": ""}})


async def _team(call: Call) -> Reply:
    name = call.token.name
    return Reply(200, {"id": call.parts["id"], "slug": name, "name": name})


async def _project_named(call: Call) -> Reply:
    site = _known(call, call.parts["idOrName"])
    account = call.incoming.query.get("teamId") or call.token.name
    return Reply(200, {"id": site, "name": site, "accountId": account})


# -- errors


def _refuse(refused: Refused, _: Incoming) -> Reply:
    code, status, more = _ERRORS[refused.why]
    message = refused.detail
    if refused.why is Why.UNKNOWN_SITE:
        message = f"Could not find the Project: {refused.site}"
    error: dict[str, Any] = {"code": code, "message": message, **more}
    if refused.limit is not None:
        reset = refused.limit.reset
        error["limit"] = {
            "remaining": 0,
            "reset": math.ceil(reset),
            "resetMs": math.ceil(reset * 1000),
            "total": refused.limit.total,
        }
    return Reply(status, {"error": error})


_TAG_KEYS = frozenset({"tags", "target"})
_IMAGE_KEYS = frozenset({"srcImages"})

VERCEL = Dialect(
    name="vercel",
    title="Vercel",
    routes=(
        Route(
            "POST",
            "/v1/edge-cache/invalidate-by-tags",
            _by(_tags, _TAG_KEYS, Mode.INVALIDATE),
        ),
        Route(
            "POST",
            "/v1/edge-cache/dangerously-delete-by-tags",
            _by(_tags, _TAG_KEYS, Mode.DELETE),
        ),
        Route(
            "POST",
            "/v1/edge-cache/invalidate-by-src-images",
            _by(_images, _IMAGE_KEYS, Mode.INVALIDATE),
        ),
        Route(
            "POST",
            "/v1/edge-cache/dangerously-delete-by-src-images",
            _by(_images, _IMAGE_KEYS, Mode.DELETE),
        ),
        Route("POST", "/v1/edge-cache/purge-all", _purge_all),
        Route("DELETE", "/v1/data-cache/purge-all", _purge_all),
        Route("GET", "/v2/user", _user),
        Route("GET", "/v9/projects/{idOrName}", _project_named),
        Route("GET", "/teams/{id}", _team),
    ),
    credentials=_credentials,
    refuse=_refuse,
    prefixes=("/v1/edge-cache/", "/v1/data-cache/", "/v9/projects/"),
)
