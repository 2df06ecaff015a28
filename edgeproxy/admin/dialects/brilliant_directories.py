"""Brilliant Directories: `refreshCache`, area by area.

https://support.brilliantdirectories.com/support/solutions/articles/12000108045; what the areas are
is in the configuration.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from edgeproxy.admin.auth import Credentials, require
from edgeproxy.admin.dialects.base import Dialect, Reply, Route
from edgeproxy.admin.refusals import Refused, Why
from edgeproxy.config.dialects import Areas
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.semantics.key import KeyPolicy, purge_target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import TypeAlias

    from edgeproxy.admin.dialects.call import Call
    from edgeproxy.admin.incoming import Incoming

    Refresh: TypeAlias = Callable[[], Awaitable[object]]

log = logging.getLogger(__name__)

_AREAS = tuple(Areas.model_fields)
_NO_PERMISSION = "API Key does not have permission to access this endpoint"

# The status of an error, and its message where it is not the refusal's own.
_ERRORS: dict[Why, tuple[int, str | None]] = {
    Why.NO_CREDENTIALS: (401, "API Key is missing"),
    Why.UNKNOWN_TOKEN: (401, "API Key is invalid"),
    Why.DISABLED: (403, _NO_PERMISSION),
    Why.EXPIRED: (401, "API Key is invalid"),
    Why.WRONG_NETWORK: (403, _NO_PERMISSION),
    Why.OVER_CALL_LIMIT: (403, _NO_PERMISSION),
    Why.RATE_LIMITED: (429, None),
    Why.FORBIDDEN: (403, _NO_PERMISSION),
    Why.UNKNOWN_SITE: (404, None),
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
    key = incoming.headers.get("X-Api-Key", "").strip()
    return Credentials(key) if key else None


async def _verify(_: Call) -> Reply:
    return Reply(200, {"status": "success", "message": "API Key is valid"})


async def _refresh(call: Call) -> Reply:
    form = await call.incoming.form_or_json()
    scope = _scope(form.get("scope"))
    verbose = _is_set(form.get("verbose"))
    full = scope is None and _is_set(form.get("full"))
    site = call.site()
    require(call.token, "purge-everything" if scope is None else "purge", [site])
    todo = _everything(call, site, full=full) if scope is None else _areas(call, site, scope)
    began = time.monotonic()
    done = {area: await _done(area, refresh) for area, refresh in todo.items()}
    failed = [area for area, (error, _) in done.items() if error is not None]
    if len(failed) == len(done):
        raise next(error for error, _ in done.values() if error is not None)
    message = "Cache refreshed successfully"
    if failed:
        message = f"Cache refreshed in part; failed: {', '.join(failed)}"
    body: dict[str, Any] = {
        "status": "error" if failed else "success",
        "message": message,
        "areas_refreshed": [area for area in done if area not in failed],
        "scope": "full" if scope is None else form["scope"],
    }
    if scope is None:
        body["full"] = full
    if verbose or failed:
        body["details"] = {
            area: {"status": "error" if error else "success", "time_ms": took}
            for area, (error, took) in done.items()
        }
    if verbose:
        body["total_time_ms"] = _milliseconds(began)
    return Reply(200, body)


def _scope(value: object) -> list[str] | None:
    """The areas that are named; None: none, and so all. Raises `Refused`."""
    if value is None or value == "":
        return None
    # What is no text is no area, and named as it is.
    names = [name.strip() for name in str(value).split(",")]
    for name in names:
        if name not in _AREAS:
            detail = f"Invalid scope value: {name}. Valid values: {', '.join(_AREAS)}"
            raise Refused(Why.BAD_REQUEST, detail)
    return list(dict.fromkeys(names))


def _is_set(value: object) -> bool:
    """A form has texts, and JSON what it likes."""
    return value in (1, "true", "1")


def _areas(call: Call, site: str, names: list[str]) -> Mapping[str, Refresh]:
    """The refresh of each area."""
    settings = call.options.areas.get(site, Areas())

    def of(name: str) -> Refresh:
        policy = call.policy(site).key
        selectors = [_selector(pick, site, policy) for pick in getattr(settings, name)]
        return lambda: call.purge(selectors, Mode.DELETE)

    return {name: of(name) for name in names}


def _everything(call: Call, site: str, *, full: bool) -> Mapping[str, Refresh]:
    """A full refresh: all of the site, whatever its areas pick, is cleared once for all of them."""
    cleared = asyncio.ensure_future(call.purge([Selector.by_everything(site)], Mode.DELETE))
    areas: dict[str, Refresh] = dict.fromkeys(_AREAS, lambda: cleared)
    if full:
        # A dry run leaves the store as it is.
        areas["db_optimization"] = _nothing if call.dry_run else call.edge.compact
        areas["file_permissions"] = _nothing if call.dry_run else call.edge.mend_permissions
    return areas


async def _nothing() -> None:
    pass


def _selector(pick: str, site: str, policy: KeyPolicy) -> Selector:
    """What "everything", or KIND:WHAT in the configuration picks."""
    kind, _, what = pick.partition(":")
    match kind:
        case "tag":
            return Selector.by_tag(site, what)
        case "url":
            host, target = purge_target(what, policy)
            return Selector.by_url(site, host, target)
        case "prefix":
            # Half of a query has no order yet, and no parameters to leave out.
            host, prefix = purge_target(what, KeyPolicy())
            return Selector(site, host=host, prefix=prefix)
        case "type":
            return Selector(site, content_type=what.lower())
        case _:
            return Selector.by_everything(site)


async def _done(area: str, refresh: Refresh) -> tuple[Exception | None, int]:
    """What went wrong with the refresh of an area, and how many milliseconds it took."""
    began = time.monotonic()
    try:
        await refresh()
    except Exception as error:
        # Whatever it is, the other areas are still to be done.
        log.warning("%s was not refreshed: %s", area, error)
        return error, _milliseconds(began)
    return None, _milliseconds(began)


def _milliseconds(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _refuse(refused: Refused, _: Incoming) -> Reply:
    status, message = _ERRORS[refused.why]
    return Reply(status, {"status": "error", "message": message or refused.detail})


BRILLIANT_DIRECTORIES = Dialect(
    name="brilliant_directories",
    title="Brilliant Directories",
    routes=(
        Route("POST", "/api/v2/website_settings/refreshCache", _refresh),
        Route("GET", "/api/v2/token/verify", _verify),
    ),
    credentials=_credentials,
    refuse=_refuse,
    prefixes=("/api/v2/website_settings/", "/api/v2/token/"),
)
