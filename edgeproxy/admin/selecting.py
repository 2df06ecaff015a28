"""From what a caller names to selectors: which sites, which URLs, and whether it may."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import msgspec

from edgeproxy.admin.auth import environment_of, permitted, require
from edgeproxy.admin.problems import Problem
from edgeproxy.invalidation.patterns import check_pattern, glob_pattern
from edgeproxy.invalidation.selectors import Selector
from edgeproxy.semantics.key import canonical_host, purge_prefix, purge_target
from edgeproxy.semantics.source_image import purge_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgeproxy.admin.api.requests import Condition, PurgeRequest
    from edgeproxy.config.server import Action, AdminToken
    from edgeproxy.config.sites import SiteTable
    from edgeproxy.semantics.environment import Environment
    from edgeproxy.semantics.key import KeyPolicy

ALL_SITES = "*"
MAX_SELECTED = 50_000
"""Selectors that one call may come to, over all of its sites."""


def purge_selectors(
    body: PurgeRequest, sites: SiteTable, token: AdminToken
) -> tuple[Selector, ...]:
    """The selectors of a purge; raises `Problem` 400 or `Refused` 403, naming what is wrong."""
    found: dict[Selector, None] = {}
    selecting = Selecting(sites, token, body.site, environment_of(token, body.environment))
    if body.everything:
        found.update(dict.fromkeys(selecting.everything()))
    for selector in _selectors(body, selecting):
        # All of a site has all in it that any condition picks on all of its hosts.
        if not (body.everything and selector.tag and not selector.conditional):
            found[selector] = None
        if len(found) > MAX_SELECTED:
            detail = f"comes to more than {MAX_SELECTED} selectors over all sites"
            raise _wrong("site", detail)
    return tuple(found)


def _selectors(body: PurgeRequest, selecting: Selecting) -> Iterator[Selector]:
    if body.tags and not body.everything:
        for tag in body.tags:
            yield from selecting.tag(tag)
    for at, url in enumerate(body.urls):
        yield from selecting.url(url, f"urls[{at}]")
    for at, prefix in enumerate(body.prefixes):
        yield from selecting.prefix(prefix, f"prefixes[{at}]")
    for at, host in enumerate(body.hosts):
        yield from selecting.host(host, f"hosts[{at}]")
    for at, pattern in enumerate(body.patterns):
        yield from selecting.pattern(pattern, f"patterns[{at}]")
    for at, glob in enumerate(body.globs):
        yield from selecting.glob(glob, f"globs[{at}]")
    for at, source in enumerate(body.sources):
        yield from selecting.source(source, f"sources[{at}]")
    for at, condition in enumerate(body.selectors):
        yield from selecting.condition(condition, f"selectors[{at}]")


class Selecting:
    """Makes selectors in the sites and the environment that a call is about, if its token may.

    `field`, where there is one, is what a `Problem` names.
    """

    def __init__(
        self,
        sites: SiteTable,
        token: AdminToken,
        site: str | None,
        environment: Environment | None,
        action: Action = "purge",
    ) -> None:
        self._sites = sites
        self._token = token
        self._site = site
        self._environment = environment
        self._action = action
        self._named: Sequence[str] | None = None

    def everything(self) -> Iterator[Selector]:
        """All of the sites."""
        for name in named_sites(self._site, self._sites, self._token, "purge-everything"):
            yield Selector.by_everything(name, self._environment)

    def tag(self, tag: str) -> Iterator[Selector]:
        """What bears a tag, in all of the sites."""
        for name in self._names():
            yield Selector.by_tag(name, tag, self._environment)

    def source(self, source: str, field: str) -> Iterator[Selector]:
        """What was made from an image, in all of the sites."""
        for name in self._names():
            with _naming(field):
                selector = Selector.by_source(name, source, self._environment)
            yield selector

    def url(self, url: str, field: str) -> Iterator[Selector]:
        """An absolute URL, of the site that serves its host; or a path of the sites."""
        with _naming(field):
            host, _ = purge_target(url, self._any_policy)
            for name in self._names_for(host):
                yield Selector.by_url(name, host, self._target(url, name), self._environment)

    def prefix(self, prefix: str, field: str) -> Iterator[Selector]:
        """What a URL, or a path, begins with."""
        with _naming(field):
            host, start = purge_prefix(prefix)
            for name in self._names_for(host):
                yield self._allowed(Selector(name, self._environment, host=host, prefix=start))

    def host(self, host: str, field: str) -> Iterator[Selector]:
        """A host, of the site that serves it."""
        with _naming(field):
            host = canonical_host("", host)
            (name,) = self._names_for(host)
            yield Selector(name, self._environment, host=host)

    def pattern(self, pattern: str, field: str) -> Iterator[Selector]:
        """An expression for paths."""
        with _naming(field):
            check_pattern(pattern)
            for name in self._names():
                yield Selector(name, self._environment, pattern=pattern)

    def glob(self, glob: str, field: str) -> Iterator[Selector]:
        """A form of paths, or of URLs."""
        with _naming(field):
            pattern = _checked_glob(glob)
            for name in self._names():
                yield Selector(
                    name, self._environment, pattern=pattern, pattern_on=_matched_on(glob)
                )

    def condition(self, given: Condition, field: str) -> Iterator[Selector]:
        """What meets several conditions, in the sites that its host says, or in all of them."""
        dot = f"{field}." if field else ""
        hosts: dict[str, None] = {}
        prefix = b""
        pattern, on = given.pattern, given.pattern_on
        if given.url:
            with _naming(f"{dot}url"):
                _note(hosts, purge_target(given.url, self._any_policy)[0])
        if given.prefix:
            with _naming(f"{dot}prefix"):
                host, prefix = purge_prefix(given.prefix)
                _note(hosts, host)
        if given.host:
            with _naming(f"{dot}host"):
                _note(hosts, canonical_host("", given.host))
        if given.pattern:
            with _naming(f"{dot}pattern"):
                check_pattern(given.pattern)
        if given.glob:
            with _naming(f"{dot}glob"):
                pattern = _checked_glob(given.glob)
                on = _matched_on(given.glob)
        source = ""
        if given.source:
            with _naming(f"{dot}source"):
                source = purge_source(given.source)
        host = next(iter(hosts), None)
        with _naming(f"{dot}host" if given.host else f"{dot}url" if given.url else f"{dot}prefix"):
            names = self._names_for(host)
        for name in names:
            selector = Selector(
                name,
                self._environment,
                tag=given.tag.lower() if given.any_case else given.tag,
                any_case=given.any_case,
                host=host,
                prefix=prefix,
                pattern=pattern,
                pattern_on=on if pattern else "path",
                source=source,
                source_host=given.source_host.lower(),
                content_type=given.content_type.lower(),
                status=given.status,
            )
            if given.url:
                target = self._target(given.url, name)
                by_url = Selector.by_url(name, host, target)
                selector = msgspec.structs.replace(
                    selector, target=target, target_id=by_url.target_id
                )
            yield self._allowed(selector)

    @property
    def _any_policy(self) -> KeyPolicy:
        return next(iter(self._sites.policies.values())).key

    def _target(self, url: str, site: str) -> bytes:
        # What a site leaves out of its keys, a purge leaves out too.
        return purge_target(url, self._sites.policies[site].key)[1]

    def _allowed(self, selector: Selector) -> Selector:
        """The same; raises `Refused` if it picks all of a site, and the token may not."""
        if self._action == "purge":
            root = selector.prefix == b"/"
            bare = msgspec.structs.replace(selector, prefix=b"") if root else selector
            if bare.everything:
                require(self._token, "purge-everything", [selector.site])
        return selector

    def _names(self) -> Sequence[str]:
        """The sites that the call names."""
        if self._named is None:
            self._named = named_sites(self._site, self._sites, self._token, self._action)
        return self._named

    def _names_for(self, host: str | None) -> Sequence[str]:
        """The site that serves a host; None: the sites that the call names. Raises ValueError."""
        if host is None:
            return self._names()
        found = self._sites.find(host)
        if found is None:
            raise ValueError(f"no site here serves {host}")
        name = found[0].name
        if self._site not in (None, ALL_SITES, name):
            raise ValueError(f"{host} belongs to site {name!r}, not to {self._site!r}")
        require(self._token, self._action, [name])
        return [name]


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
            raise _wrong("site", f'name one of {listed}, or "*" for all of them', "missing")
        (site,) = names
    require(token, action, [site])
    if site not in sites.policies:
        raise _wrong("site", f"there is no site {site!r}")
    return [site]


def readable_sites(site: str | None, sites: SiteTable, token: AdminToken) -> Sequence[str]:
    """The names of the sites that a list is of: None is all that the token may read."""
    return named_sites(site or ALL_SITES, sites, token, "read")


def _note(hosts: dict[str, None], host: str | None) -> None:
    """One more host; raises ValueError if there is another one already."""
    if host is not None:
        hosts[host] = None
        if len(hosts) > 1:
            raise ValueError(f"nothing is of both {' and '.join(hosts)}")


def _matched_on(glob: str) -> Literal["path", "url"]:
    return "url" if glob.startswith("http") else "path"


def _checked_glob(glob: str) -> str:
    """The expression for a glob; raises ValueError where it would be too long."""
    pattern = glob_pattern(glob)
    check_pattern(pattern)
    return pattern


@contextmanager
def _naming(field: str) -> Iterator[None]:
    """What is wrong within is wrong with that field."""
    try:
        yield
    except ValueError as error:
        raise _wrong(field, str(error)) from error


def _wrong(field: str, detail: str, how: str = "invalid") -> Problem:
    return Problem(400, f"{how}: {field}", errors=[{"field": field, "detail": detail}])
