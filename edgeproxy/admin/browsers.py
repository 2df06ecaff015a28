"""What keeps browsers from being made use of: by which name pages may call, and of which origin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from edgeproxy.admin.problems import Problem
from edgeproxy.admin.state import STATE
from edgeproxy.semantics.target import split_absolute, split_authority

if TYPE_CHECKING:
    from edgeproxy.admin.state import AdminState

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer of the admin port bears, unless it says otherwise itself."""

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Before a head is sent, be it that of a stream."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


@web.middleware
async def own_pages_only(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer nobody who calls by a foreign name, and no change that a foreign page asks for."""
    refused = _refusal(request, request.config_dict[STATE])
    if refused is not None:
        return refused.response()
    response: web.StreamResponse = await handler(request)
    return response


def _refusal(request: web.Request, state: AdminState) -> Problem | None:
    # Not `request.host`: where there is none (HTTP/1.0), that looks this machine up in the DNS.
    host = request.headers.get("Host")
    # Fastly's `PURGE URL` has the host of the page that it is about; it takes a token, as all do.
    purges = request.method == "PURGE" and state.edge.sites.find(host or "") is not None
    named = [] if host is None or purges else [host]
    if not request.raw_path.startswith(("/", "*")) and not purges:
        named.append(split_absolute(request.raw_path)[0])
    for name in named:
        if split_authority(name) is None or not state.config.admin.allows_host(name):
            # A page whose name was made to point here (DNS rebinding) calls by that name.
            detail = f"{name!r} is not a name of the admin port: see admin.allowed_hosts"
            return Problem(421, detail)
    if request.method not in _SAFE and _from_elsewhere(request, host):
        # Tokens are in no cookie, so that a foreign page has none to send. This is for those
        # that a browser has learnt in another way.
        return Problem(403, "a page of another origin may change nothing here")
    return None


def _from_elsewhere(request: web.Request, host: str | None) -> bool:
    """Whether a browser says that the page which calls is not of this port (Fetch 3.1)."""
    sites = request.headers.getall("Sec-Fetch-Site", ())
    origins = request.headers.getall("Origin", ())
    return not {"none", "same-origin"}.issuperset(sites) or any(
        origin.partition("://")[2] != host for origin in origins
    )
