"""Optimole: its cache by domain, by asset and as a whole, and cache-buster tokens.

https://docs.optimole.com/article/2238-optimole-cache-invalidation; the answers of `invalidate` are
not documented.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeproxy.admin.auth import bearer
from edgeproxy.admin.dialects.base import Dialect, Reply, Route
from edgeproxy.admin.dialects.call import text_fault, texts
from edgeproxy.admin.refusals import Fault, Refused, Why
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.semantics.key import KeyPolicy, canonical_host, purge_target
from edgeproxy.semantics.source_image import source_host
from edgeproxy.semantics.url_hash import is_url_hash

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from edgeproxy.admin.auth import Credentials
    from edgeproxy.admin.dialects.call import Call
    from edgeproxy.admin.incoming import Incoming

_LONGEST_URL = 8192
_LONGEST_DOMAIN = 300
_TYPES = ("images", "assets")
_URL = re.compile(r"https?://[^/?#]+", re.IGNORECASE)

# The status of an error, and its words where they are not the refusal's own.
_ERRORS: dict[Why, tuple[int, str | None]] = {
    Why.NO_CREDENTIALS: (401, None),
    Why.UNKNOWN_TOKEN: (401, None),
    Why.DISABLED: (403, "User not active"),
    Why.EXPIRED: (401, None),
    Why.WRONG_NETWORK: (403, None),
    Why.OVER_CALL_LIMIT: (403, None),
    Why.RATE_LIMITED: (429, None),
    Why.FORBIDDEN: (403, None),
    Why.UNKNOWN_SITE: (404, "User not found"),
    Why.BAD_REQUEST: (400, None),
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
    return bearer(incoming)


def _site(call: Call) -> str:
    """The site that `Optml-Site` names: by its name, or by the URL of a page of it, as the
    vendor's plugin does; a page that is served elsewhere says nothing."""
    named = call.incoming.headers.get("Optml-Site", "").strip()
    sites = call.edge.sites
    if "." in named and named not in sites.policies:
        host = named.partition("://")[2] or named
        found = sites.find_named(host.partition("/")[0])
        named = "" if found is None else found[0].name
    return call.site(named)


# -- invalidation


async def _all(call: Call) -> Reply:
    await call.incoming.body()
    return await _invalidate(call, [Selector.by_everything(_site(call))])


async def _domain(call: Call) -> Reply:
    body = await call.incoming.json_object()
    host = _host(body, "domain")
    site = _site(call)
    made_from = source_host(f"https://{host}/") or ""
    return await _invalidate(
        call, [Selector(site, host=host), Selector(site, source_host=made_from)]
    )


async def _asset(call: Call) -> Reply:
    body = await call.incoming.json_object()
    assets, most = body.get("assets"), call.options.max_assets
    if isinstance(assets, list) and len(assets) > most:
        raise Refused(Why.BAD_REQUEST, "Too many assets to invalidate")
    given = texts(assets, "assets", most=most, longest=_LONGEST_URL, least=1)
    site = _site(call)
    selectors = []
    for at, asset in enumerate(given):
        selectors += _selectors(asset, f"assets[{at}]", site, call.policy(site).key)
    return await _invalidate(call, selectors)


def _selectors(asset: str, field: str, site: str, policy: KeyPolicy) -> list[Selector]:
    """What an asset picks: what has that hash; or what is served at that URL, and what was made
    from it."""
    if is_url_hash(asset):
        return [Selector(site, hash=asset)]
    if _URL.match(asset) is None:
        fault = "must be an absolute URL, or a hash of 32 characters"
        raise Refused.bad_request(Fault(field, fault))
    try:
        host, target = purge_target(asset, policy)
    except ValueError as error:
        raise Refused.bad_request(Fault(field, str(error))) from error
    return [Selector.by_url(site, host, target), Selector.by_source(site, asset)]


async def _invalidate(call: Call, selectors: list[Selector]) -> Reply:
    done = await call.purge(selectors, Mode.DELETE)
    return Reply(200, {"success": True, "code": 200, "data": {"invalidated": done.matched}})


# -- cache busters


async def _token(call: Call) -> Reply:
    body = await call.incoming.json_object()
    if "url" in body and "domain" in body:
        raise Refused.bad_request(Fault("url", "can't go with a domain"))
    site = _site(call)
    host: str | None = None
    target = b""
    if "url" in body:
        fault = text_fault(body["url"], "url", _LONGEST_URL)
        if fault is not None:
            raise Refused.bad_request(fault)
        try:
            host, target = purge_target(body["url"], call.policy(site).key)
        except ValueError as error:
            raise Refused.bad_request(Fault("url", str(error))) from error
    elif "domain" in body:
        host = _host(body, "domain")
    issued = await call.issue_buster(site, host=host, target=target)
    return Reply(200, {"success": True, "data": {"token": issued.token}, "code": 200})


async def _tokens(call: Call) -> Reply:
    """The plugin says which token it has, and for what; it gets a new one for all of the site."""
    form = await call.incoming.form_or_json()
    kind = form.get("type", _TYPES[0])
    if kind not in _TYPES:
        raise Refused.bad_request(Fault("type", f"must be one of {', '.join(_TYPES)}"))
    issued = await call.issue_buster(_site(call))
    return Reply(200, {"code": 200, "data": {"token": issued.token}})


def _host(body: Mapping[str, Any], field: str) -> str:
    """A host in a body, as keys have it."""
    if field not in body:
        raise Refused.bad_request(Fault(field, "is required", "required"))
    value = body[field]
    fault = text_fault(value, field, _LONGEST_DOMAIN)
    if fault is not None:
        raise Refused.bad_request(fault)
    try:
        return canonical_host("https", value)
    except ValueError as error:
        raise Refused.bad_request(Fault(field, str(error))) from error


def _refuse(refused: Refused, _: Incoming) -> Reply:
    status, words = _ERRORS[refused.why]
    message = words or refused.detail
    return Reply(status, {"success": False, "code": status, "error": message, "message": message})


_BASE = "/api/optml/v2/cache"

OPTIMOLE = Dialect(
    name="optimole",
    title="Optimole",
    routes=(
        Route("POST", f"{_BASE}/invalidate/all", _all),
        Route("POST", f"{_BASE}/invalidate/domain", _domain),
        Route("POST", f"{_BASE}/invalidate/asset", _asset),
        Route("POST", f"{_BASE}/token", _token),
        Route("POST", "/api/optml/v1/cache/tokens", _tokens),
    ),
    credentials=_credentials,
    refuse=_refuse,
    prefixes=("/api/optml/",),
)
