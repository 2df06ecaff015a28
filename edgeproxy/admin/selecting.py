"""From what a caller names to selectors: which sites, which URLs, and whether it may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.admin.auth import environment_of, permitted, require
from edgeproxy.admin.problems import Problem
from edgeproxy.invalidation.selectors import Selector
from edgeproxy.semantics.key import purge_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.admin.models import PurgeRequest
    from edgeproxy.config.server import Action, AdminToken
    from edgeproxy.config.sites import SiteTable

ALL_SITES = "*"


def purge_selectors(
    body: PurgeRequest, sites: SiteTable, token: AdminToken
) -> tuple[Selector, ...]:
    """The selectors of a purge; raises `Problem` 400 or 403 that names the field that is wrong."""
    selectors: dict[Selector, None] = {}
    environment = environment_of(token, body.environment)
    if body.tags or body.everything:
        action: Action = "purge-everything" if body.everything else "purge"
        for site in named_sites(body.site, sites, token, action):
            if body.everything:
                selectors[Selector.by_everything(site, environment)] = None
                continue
            for tag in body.tags:
                selectors[Selector.by_tag(site, tag, environment)] = None
    for at, url in enumerate(body.urls):
        for selector in url_selectors(
            url, body.site, sites, token, "purge", field=f"urls[{at}]", environment=environment
        ):
            selectors[selector] = None
    return tuple(selectors)


def named_sites(
    site: str | None, sites: SiteTable, token: AdminToken, action: Action
) -> Sequence[str]:
    """The names of the sites that a call is about."""
    names = sorted(sites.policies)
    if site == ALL_SITES:
        return permitted(token, action, names)
    if site is None:
        if len(names) > 1:
            listed = ", ".join(permitted(token, action, names))
            detail = f'name one of {listed}, or "*" for all of them'
            raise Problem(400, "missing: site", errors=[{"field": "site", "detail": detail}])
        (site,) = names
    require(token, action, [site])
    if site not in sites.policies:
        detail = f"there is no site {site!r}"
        raise Problem(400, "invalid: site", errors=[{"field": "site", "detail": detail}])
    return [site]


def url_selectors(
    url: str,
    site: str | None,
    sites: SiteTable,
    token: AdminToken,
    action: Action,
    *,
    field: str,
    environment: str | None = None,
) -> Sequence[Selector]:
    """The selectors of a URL: absolute, for the site that serves its host; or a path of a site."""
    try:
        if url.startswith("/"):
            names = named_sites(site, sites, token, action)
        else:
            names = [_site_of(url, site, sites)]
            require(token, action, names)
        selectors = []
        for name in names:
            # What a site leaves out of its keys, a purge leaves out too.
            host, target = purge_target(url, sites.policies[name].key)
            selectors.append(Selector.by_url(name, host, target, environment))
    except ValueError as error:
        errors = [{"field": field, "detail": str(error)}]
        raise Problem(400, f"invalid: {field}", errors=errors) from error
    return selectors


def _site_of(url: str, site: str | None, sites: SiteTable) -> str:
    """The site that serves an absolute URL's host; raises ValueError."""
    any_policy = next(iter(sites.policies.values()))
    host, _ = purge_target(url, any_policy.key)
    found = sites.find(host or "")
    if found is None:
        raise ValueError(f"no site here serves {host}")
    name = found[0].name
    if site not in (None, ALL_SITES, name):
        raise ValueError(f"{host} belongs to site {name!r}, not to {site!r}")
    return name
