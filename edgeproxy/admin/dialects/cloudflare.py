"""Cloudflare: `purge_cache` and `invalidate_cache`, of a zone or one environment of it.

https://developers.cloudflare.com/api/resources/cache/methods/purge/; the clients' base URL may or
may not end with /client/v4.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from edgeproxy.admin.auth import bearer
from edgeproxy.admin.dialects.base import Dialect, Reply, Route
from edgeproxy.admin.dialects.call import list_faults, text_fault, texts
from edgeproxy.admin.refusals import Fault, Refused, Why
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.semantics.environment import ENVIRONMENTS
from edgeproxy.semantics.key import canonical_host, purge_target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from edgeproxy.admin.auth import Credentials
    from edgeproxy.admin.dialects.call import Call
    from edgeproxy.admin.incoming import Incoming

_KINDS = ("files", "tags", "hosts", "prefixes")
_EVERYTHING = "purge_everything"
_MAX_TAG = 1024
_MAX_URL = 8192
_INDEX = re.compile(r"\[(\d+)\]")

# The code of an error, and its status. Where the vendor is not known to have a number, it is made
# of the status: 10413 and the like.
_CODES: dict[Why, tuple[int, int]] = {
    Why.NO_CREDENTIALS: (9106, 401),
    Why.UNKNOWN_TOKEN: (10000, 401),
    Why.DISABLED: (10000, 403),
    Why.EXPIRED: (10000, 401),
    Why.WRONG_NETWORK: (9109, 403),
    Why.OVER_CALL_LIMIT: (10000, 403),
    Why.RATE_LIMITED: (1134, 429),
    Why.FORBIDDEN: (10000, 403),
    Why.UNKNOWN_SITE: (7003, 404),
    Why.BAD_REQUEST: (6007, 400),
    Why.TOO_LARGE: (10413, 413),
    Why.TOO_SLOW: (10408, 408),
    Why.WRONG_CONTENT_TYPE: (10415, 415),
    Why.NOT_FOUND: (7000, 404),
    Why.WRONG_METHOD: (10405, 405),
    Why.FAILED: (10500, 500),
    Why.UNUSABLE: (10503, 503),
    Why.TOO_MANY_RULES: (10503, 503),
    Why.BUSY: (10503, 503),
}

_NOTHING, _NO_LIST, _NOT_ALLOWED = 1012, 1014, 1092


async def _credentials(incoming: Incoming) -> Credentials | None:
    return bearer(incoming)


def _clearing(mode: Mode) -> Callable[[Call], Awaitable[Reply]]:
    """The handler of an endpoint that does that to what its body picks."""

    async def clear(call: Call) -> Reply:
        body = await call.incoming.json_object()
        site = call.site(call.parts["zone"])
        environment = _environment(call.parts.get("environment"))
        done = await call.purge(_selectors(call, body, site, environment), mode)
        return Reply(200, _envelope(result={"id": done.id}))

    return clear


def _environment(named: str | None) -> Literal["production", "preview"] | None:
    if named is None:
        return None
    for environment in ENVIRONMENTS:
        if named == environment:
            return environment
    raise Refused(Why.NOT_FOUND, f"there is no environment {named!r}")


def _selectors(
    call: Call, body: dict[str, Any], site: str, environment: str | None
) -> Sequence[Selector]:
    """What a body picks. Tags, hosts and prefixes may come together; the others come alone."""
    everything = body.get(_EVERYTHING)
    if not isinstance(everything, bool | None):
        raise Refused.bad_request(Fault(_EVERYTHING, "must be true", "type"))
    given = [kind for kind in _KINDS if body.get(kind) is not None]
    if not everything and not given:
        detail = 'the request must contain one of "purge_everything", "files", "tags", "hosts" '
        raise Refused.bad_request(Fault("", f'{detail}or "prefixes"', "required"))
    for alone in [_EVERYTHING] * (everything is True) + ["files"] * ("files" in given):
        if len(given) + (everything is True) > 1:
            raise Refused.bad_request(Fault(alone, "must be the only field in the request"))
    if everything:
        return [Selector.by_everything(site, environment)]
    selectors: list[Selector] = []
    for kind in given:
        values = _READERS[kind](body[kind], kind, call.options.max_items)
        if kind == "tags":
            tags = [Selector.by_tag(site, tag, environment, any_case=True) for tag in values]
            selectors.extend(tags)
            continue
        faults = []
        for at, value in enumerate(values):
            try:
                selectors.append(_placed(call, kind, value, site, environment))
            except ValueError as error:
                faults.append(Fault(f"{kind}[{at}]", str(error)))
        if faults:
            raise Refused.bad_request(*faults)
    return selectors


def _placed(call: Call, kind: str, value: str, site: str, environment: str | None) -> Selector:
    """The selector of a URL, a host or a prefix in that site; raises ValueError."""
    if kind == "hosts":
        host, target = canonical_host("http", value), b""
    elif kind == "prefixes":
        if "://" in value or "?" in value or "#" in value:
            raise ValueError("a prefix is a host and a path, without scheme, query or fragment")
        placed, target = purge_target(f"http://{value}", call.policy(site).key)
        host = placed or ""
    else:
        placed, target = purge_target(value, call.policy(site).key)
        if placed is None:
            raise ValueError("a file is named by its whole URL")
        host = placed
    found = call.edge.sites.find(host)
    if found is None or found[0].name != site:
        raise ValueError(f"{host} is not a host of {site}")
    if kind == "files":
        return Selector.by_url(site, host, target, environment)
    # All paths begin with a slash.
    prefix = target if kind == "prefixes" and target != b"/" else b""
    return Selector(site, environment, host=host, prefix=prefix)


def _texts(longest: int) -> Callable[[object, str, int], Sequence[str]]:
    return lambda value, field, most: texts(value, field, most=most, longest=longest, least=1)


def _files(value: object, field: str, most: int) -> Sequence[str]:
    """The URLs of a list of URLs, or of objects with one each.

    The header fields beside a URL choose among the variants at the vendor; here all of them go.
    """
    faults = list_faults(value, field, most, 1)
    urls = []
    if isinstance(value, list) and not faults:
        for at, each in enumerate(value):
            name, url = f"{field}[{at}]", each
            if isinstance(each, dict):
                name, url = f"{name}.url", each.get("url")
                if not isinstance(each.get("headers", {}), dict):
                    faults.append(Fault(f"{field}[{at}].headers", "must be an object", "type"))
            fault = text_fault(url, name, _MAX_URL)
            if fault is not None:
                faults.append(fault)
            urls.append(url)
    if faults:
        raise Refused.bad_request(*faults)
    return urls


_READERS: dict[str, Callable[[object, str, int], Sequence[str]]] = {
    "files": _files,
    "tags": _texts(_MAX_TAG),
    "hosts": _texts(_MAX_URL),
    "prefixes": _texts(_MAX_URL),
}


def _envelope(*errors: dict[str, Any], result: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"success": not errors, "errors": list(errors), "messages": [], "result": result}


def _refuse(refused: Refused, incoming: Incoming) -> Reply:
    if refused.faults:
        return Reply(400, _envelope(*map(_fault, refused.faults)))
    code, status = _CODES[refused.why]
    message = refused.detail
    if refused.why is Why.UNKNOWN_SITE:
        message = f"Could not route to {incoming.path}, perhaps your object identifier is invalid?"
    return Reply(status, _envelope({"code": code, "message": message}))


def _fault(fault: Fault) -> dict[str, Any]:
    """The error of a field that is wrong; where it is, as a JSON pointer (RFC 6901)."""
    code = {"required": _NOTHING, "min_size": _NOTHING, "type": _NO_LIST}.get(fault.rule)
    message = f"{fault.field}: {fault.detail}" if fault.field else fault.detail
    error: dict[str, Any] = {"code": code or _NOT_ALLOWED, "message": message}
    if fault.field:
        pointer = _INDEX.sub(r"/\1", fault.field).replace(".", "/")
        error["source"] = {"pointer": f"/{pointer}"}
    return error


_BASES = ("/client/v4/zones/{zone}", "/zones/{zone}")
_OF_ENVIRONMENT = "/environments/{environment}"

CLOUDFLARE = Dialect(
    name="cloudflare",
    title="Cloudflare",
    routes=tuple(
        Route("POST", f"{base}{environment}/{endpoint}", _clearing(mode))
        for base in _BASES
        for environment in ("", _OF_ENVIRONMENT)
        for endpoint, mode in (
            ("purge_cache", Mode.DELETE),
            ("invalidate_cache", Mode.INVALIDATE),
        )
    ),
    credentials=_credentials,
    refuse=_refuse,
    prefixes=("/client/v4/", "/zones/"),
)
