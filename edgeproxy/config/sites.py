"""Which site a request belongs to, and that site's policy, compiled once for the hot path."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, TypeAlias

from edgeproxy.config.addresses import normal_host
from edgeproxy.semantics.environment import Environment
from edgeproxy.semantics.tags import hidden_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.config.addresses import Network
    from edgeproxy.config.failover import Balancing, Breaker, Check, Retries
    from edgeproxy.config.model import Config
    from edgeproxy.config.site import Origin, Pool, RequestCacheControl, Site, Timeouts
    from edgeproxy.semantics.freshness import FreshnessPolicy
    from edgeproxy.semantics.key import KeyPolicy
    from edgeproxy.semantics.storing import StoragePolicy
    from edgeproxy.semantics.tags import TagPolicy


ANSWERING: Final = 1
"""Which way responses are made ready when they are stored (`proxy.rendering.ready`). One more with
each change to what comes of that: what was made ready before is not used then."""


@dataclass(frozen=True, slots=True)
class SitePolicy:
    """A site's settings as a request needs them. Times are in seconds."""

    name: str
    freshness: FreshnessPolicy
    storage: StoragePolicy
    key: KeyPolicy
    forward_ignored: bool
    """The origin gets the query as it was sent."""
    max_target_bytes: int
    """Longest path and query of what is stored."""
    let_through: frozenset[bytes]
    """Request fields that are not withheld from the origin."""
    tags: TagPolicy
    debug_tags: bool
    """Readers may see the tag fields."""
    cache_status: bool
    """Responses bear Cache-Status."""
    vercel_cache: bool
    """And x-vercel-cache."""
    request_cache_control: RequestCacheControl
    store_unframed: bool
    """Bodies that only the connection's close ends may be stored."""
    uncacheable_ttl: float
    max_variants: int
    max_busters: int
    max_waiters: int
    collapse_timeout: float
    origins: tuple[Origin, ...]
    host_header: str
    """ "pass", "origin", or what to send."""
    timeouts: Timeouts
    pool: Pool
    balancing: Balancing
    check: Check
    breaker: Breaker
    retries: Retries
    purge_networks: tuple[Network, ...]
    """Clients that may purge at the public port."""
    purge_tokens: bool
    """Others may with a token."""
    answering: bytes
    """8 bytes that stand for all here by which a response is made ready when it is stored."""

    @classmethod
    def of(cls, name: str, site: Site) -> SitePolicy:
        """The policy of a site of that name."""
        return cls(
            name=name,
            freshness=site.freshness_policy(),
            storage=site.storage_policy(),
            key=site.key_policy(),
            forward_ignored=site.key.forward_ignored,
            max_target_bytes=site.key.max_bytes,
            let_through=frozenset(name.encode() for name in site.let_through),
            tags=site.tag_policy(),
            debug_tags=site.tags.debug,
            cache_status=site.cache_status,
            vercel_cache=site.vercel_cache,
            request_cache_control=site.cache.request_cache_control,
            store_unframed=site.cache.store_unframed,
            uncacheable_ttl=site.cache.uncacheable_ttl,
            max_variants=site.cache.max_variants,
            max_busters=site.cache.max_busters,
            max_waiters=site.cache.max_waiters,
            collapse_timeout=site.cache.collapse_timeout,
            origins=site.origins,
            host_header=site.host_header,
            timeouts=site.timeouts,
            pool=site.pool,
            balancing=site.balancing,
            check=site.check,
            breaker=site.breaker,
            retries=site.retries,
            purge_networks=site.varnish.networks,
            purge_tokens=site.varnish.tokens,
            answering=_answering(site),
        )


def _answering(site: Site) -> bytes:
    hidden = sorted(hidden_fields(site.tag_policy()))
    settings = (ANSWERING, site.freshness_policy(), hidden, site.tags.debug, site.vercel_cache)
    return blake2b(repr(settings).encode(), digest_size=8).digest()


Found: TypeAlias = tuple[SitePolicy, Environment]


class SiteTable:
    """The sites of a configuration by host: exact names, then wildcards, then the default site."""

    def __init__(self, config: Config) -> None:
        self.policies: Mapping[str, SitePolicy] = {
            name: SitePolicy.of(name, site) for name, site in config.sites.items()
        }
        """By the site's name."""
        self._ids = {each: name for name, site in config.sites.items() for each in site.ids}
        self._exact: dict[str, Found] = {}
        self._below: dict[str, Found] = {}
        for name, site in config.sites.items():
            self._add(site.hosts, (self.policies[name], "production"))
            self._add(site.preview_hosts, (self.policies[name], "preview"))
        self._default: Found | None = None
        if config.default_site is not None:
            self._default = (self.policies[config.default_site], "production")

    def _add(self, hosts: tuple[str, ...], found: Found) -> None:
        for host in hosts:
            if host.startswith("*."):
                self._below[host[2:]] = found
            else:
                self._exact[host] = found

    def named(self, name: str) -> str:
        """The site that is called so, by its name or one of its ids; else what was given."""
        return name if name in self.policies else self._ids.get(name, name)

    def find(self, host: str) -> Found | None:
        """The policy and environment for a request's host, with or without a port; "" is no host.

        None: it is nobody's, and there is no default site.
        """
        return self._exact.get(host) or self.find_named(host) or self._default

    def find_named(self, host: str) -> Found | None:
        """The same without the default site: whose host it is by its name."""
        name = normal_host(host)
        return self._exact.get(name) or self._wildcard(name)

    def _wildcard(self, name: str) -> Found | None:
        if not self._below:
            return None
        # The longest name below which it is wins: "a.b.example.com" is *.b.example.com first.
        dot = name.find(".")
        while dot > 0:
            found = self._below.get(name[dot + 1 :])
            if found is not None:
                return found
            dot = name.find(".", dot + 1)
        return None
