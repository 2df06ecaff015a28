"""Fastly: purging by URL, by surrogate keys, and of a whole service.

https://www.fastly.com/documentation/reference/api/purging/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.admin.auth import Credentials
from edgeproxy.admin.dialects.base import Dialect, Reply, Route, decoded
from edgeproxy.admin.dialects.call import list_faults, text_fault, texts
from edgeproxy.admin.refusals import Fault, Refused, Why
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.semantics.key import purge_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.admin.dialects.call import Call
    from edgeproxy.admin.incoming import Incoming

_MAX_KEY = 1024
_ENVIRONMENT = "Fastly-Purge-Environment"
_BAD_CREDENTIALS = "Provided credentials are missing or invalid"
_NOT_ALLOWED = "You are not authorized to perform this action"
_NO_RECORD = "Record not found"
_TOO_OFTEN = "API rate limit exceeded"

# The message of an error, and its status.
_MESSAGES: dict[Why, tuple[str, int]] = {
    Why.NO_CREDENTIALS: (_BAD_CREDENTIALS, 401),
    Why.UNKNOWN_TOKEN: (_BAD_CREDENTIALS, 401),
    Why.DISABLED: (_NOT_ALLOWED, 403),
    Why.EXPIRED: (_BAD_CREDENTIALS, 401),
    Why.WRONG_NETWORK: (_NOT_ALLOWED, 403),
    Why.OVER_CALL_LIMIT: (_NOT_ALLOWED, 403),
    Why.RATE_LIMITED: (_TOO_OFTEN, 429),
    Why.FORBIDDEN: (_NOT_ALLOWED, 403),
    Why.UNKNOWN_SITE: (_NO_RECORD, 404),
    Why.BAD_REQUEST: ("Bad request", 400),
    Why.TOO_LARGE: ("Request entity too large", 413),
    Why.TOO_SLOW: ("Request timeout", 408),
    Why.WRONG_CONTENT_TYPE: ("Unsupported media type", 415),
    Why.NOT_FOUND: (_NO_RECORD, 404),
    Why.WRONG_METHOD: ("Method not allowed", 405),
    Why.FAILED: ("Internal server error", 500),
    Why.UNUSABLE: ("Service unavailable", 503),
    Why.TOO_MANY_RULES: ("Service unavailable", 503),
    Why.BUSY: ("Service unavailable", 503),
}


async def _credentials(incoming: Incoming) -> Credentials | None:
    token = incoming.headers.get("Fastly-Key", "").strip()
    return Credentials(token) if token else None


async def _purge_key(call: Call) -> Reply:
    site, key = call.site(call.parts["service"]), decoded(call.parts["key"])
    fault = text_fault(key, "surrogate_key", _MAX_KEY)
    if fault is not None:
        raise Refused.bad_request(fault)
    done = await call.purge([Selector.by_tag(site, key, _environment(call))], _mode(call))
    return Reply(200, {"status": "ok", "id": done.id})


async def _purge_keys(call: Call) -> Reply:
    site, environment = call.site(call.parts["service"]), _environment(call)
    keys = await _keys(call)
    selectors = [Selector.by_tag(site, key, environment) for key in keys]
    done = await call.purge(selectors, _mode(call))
    return Reply(200, dict.fromkeys(keys, done.id))


async def _keys(call: Call) -> Sequence[str]:
    """The keys of the field or the body, or both; raises `Refused`."""
    most = call.options.max_keys
    listed = call.incoming.headers.get("Surrogate-Key", "").split()
    body = await call.incoming.json_object()
    if body.get("surrogate_keys") is not None:
        listed += texts(body["surrogate_keys"], "surrogate_keys", most=most, longest=_MAX_KEY)
    if not listed:
        raise Refused.bad_request(Fault("surrogate_keys", "are required", "required"))
    faults = list_faults(listed, "surrogate_keys", most)
    faults += [
        fault
        for at, key in enumerate(listed)
        if (fault := text_fault(key, f"surrogate_keys[{at}]", _MAX_KEY)) is not None
    ]
    if faults:
        raise Refused.bad_request(*faults)
    return list(dict.fromkeys(listed))


async def _purge_all(call: Call) -> Reply:
    """All of a service, which the vendor never does softly."""
    site = call.site(call.parts["service"])
    await call.purge([Selector.by_everything(site, _environment(call))], Mode.DELETE)
    return Reply(200, {"status": "ok"})


async def _purge_posted(call: Call) -> Reply:
    """`POST /purge/HOST/PATH`; some clients send the URL with its scheme, or escaped as a whole."""
    url = call.parts["url"]
    if "/" not in url:
        url = decoded(url)
    return await _purge_url(call, url if "://" in url else f"http://{url}")


async def _purge_named(call: Call) -> Reply:
    """`PURGE URL`: the host is in Host, as in a request for the page itself."""
    return await _purge_url(
        call, f"http://{call.incoming.headers.get('Host', '')}{call.incoming.path}"
    )


async def _purge_url(call: Call, url: str) -> Reply:
    if call.incoming.query_string:
        url += f"?{call.incoming.query_string}"
    try:
        # Only the target depends on the site, and which site that is on the host.
        any_policy = next(iter(call.edge.sites.policies.values()))
        host, _ = purge_target(url, any_policy.key)
        found = call.edge.sites.find(host or "")
        site = call.site(found[0].name if found else host)
        host, target = purge_target(url, call.policy(site).key)
    except ValueError as error:
        raise Refused.bad_request(Fault("url", str(error))) from error
    done = await call.purge([Selector.by_url(site, host, target, _environment(call))], _mode(call))
    return Reply(200, {"status": "ok", "id": done.id})


def _mode(call: Call) -> Mode:
    """Softly if the field is there: the document says that its value is not important."""
    return Mode.INVALIDATE if "Fastly-Soft-Purge" in call.incoming.headers else Mode.DELETE


def _environment(call: Call) -> str | None:
    """The vendor's staging is what is called preview here."""
    named = call.incoming.headers.get(_ENVIRONMENT)
    if named not in (None, "staging"):
        raise Refused.bad_request(Fault(_ENVIRONMENT, 'must be "staging"'))
    return None if named is None else "preview"


def _refuse(refused: Refused, _: Incoming) -> Reply:
    message, status = _MESSAGES[refused.why]
    body = {"msg": message}
    if message is not _BAD_CREDENTIALS:
        body["detail"] = refused.detail
    headers = {}
    if refused.limit is not None:
        headers = {
            "Fastly-RateLimit-Remaining": "0",
            "Fastly-RateLimit-Reset": str(int(refused.limit.reset)),
        }
    return Reply(status, body, headers)


FASTLY = Dialect(
    name="fastly",
    title="Fastly",
    routes=(
        Route("POST", "/service/{service}/purge", _purge_keys),
        Route("POST", "/service/{service}/purge_all", _purge_all),
        Route("POST", "/service/{service}/purge/{key*}", _purge_key),
        Route("POST", "/purge/{url*}", _purge_posted),
        Route("PURGE", "/{url*}", _purge_named),
    ),
    credentials=_credentials,
    refuse=_refuse,
    prefixes=("/service/", "/purge/"),
)
