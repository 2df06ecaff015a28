"""What a configuration means, in words: what `edgeproxy check` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.config.sizes import format_duration, format_size
from edgeproxy.config.urls import AiocacheStore, LmdbStore
from edgeproxy.semantics.environment import ENVIRONMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgeproxy.config.model import Config
    from edgeproxy.config.server import AdminToken
    from edgeproxy.config.site import Origin, Site

_DEFAULT_HOST_FIELD = {
    "pass": "the reader's own",
    "origin": "that of the origin's URL",
}

_REQUEST_CACHE_CONTROL = {
    "ignore": "ignored, but for only-if-cached",
    "honour": "honoured",
    "trusted": "honoured from trusted proxies, else ignored but for only-if-cached",
}


def describe(config: Config) -> str:
    """A readable summary: what listens, what is kept where, and what each site does."""
    lines = [*_server(config)]
    for name, site in config.sites.items():
        lines += ["", *_site(name, site, is_default=name == config.default_site)]
    found = warnings(config)
    if found:
        lines += ["", "Warnings", *(f"  - {warning}" for warning in found)]
    return "\n".join(lines) + "\n"


def warnings(config: Config) -> list[str]:
    """What is allowed, but may surprise: a line each."""
    return [*_server_warnings(config), *_site_warnings(config)]


def _server_warnings(config: Config) -> Iterator[str]:
    if not config.admin.address.is_loopback:
        yield (
            f"admin.address: {config.admin.address} can be reached from other machines, without "
            "TLS: tokens cross the network in clear; 127.0.0.1 keeps it to this one"
        )
    for network in config.trusted_proxies:
        if network.prefixlen == 0:
            yield f"trusted_proxies: {network} lets every reader say who it is"
    if config.default_site is None:
        yield "default_site is not set: a host that no site names gets 421"


def _site_warnings(config: Config) -> Iterator[str]:
    for name, site in config.sites.items():
        for origin in site.origins:
            if not origin.tls.verify:
                yield (
                    f"sites.{name}: the certificate of {origin.url} is not verified: whoever is "
                    "in between can change what is stored"
                )
        if config.default_site == name and site.preview_hosts and not site.hosts:
            yield f"sites.{name}: every host but its preview hosts is production"
        if site.cache.request_cache_control == "honour":
            yield f"sites.{name}: any reader can make the origin work (request_cache_control)"
        for network in site.varnish.networks:
            if network.prefixlen == 0:
                yield f"sites.{name}: {network} lets every reader purge (varnish.networks)"
        if site.varnish.tokens and any(listener.tls is None for listener in config.listen):
            yield f"sites.{name}: tokens can cross the network in clear (varnish.tokens)"
        if site.cache.request_cache_control == "trusted" and not config.trusted_proxies:
            yield f'sites.{name}: request_cache_control is "trusted", but trusted_proxies is empty'


def _server(config: Config) -> Iterator[str]:
    yield "Server"
    for listener in config.listen:
        if listener.tls is None:
            yield _row("listens on", f"{listener.address}, plain HTTP")
        else:
            certificates = ", ".join(str(one.cert) for one in listener.tls.certificates)
            yield _row("listens on", f"{listener.address}, TLS with {certificates}")
    yield _row("admin on", str(config.admin.address))
    for token in config.admin.tokens:
        yield _row("admin token", _token(token))
    if not config.admin.tokens:
        yield _row("admin token", "EDGEPROXY_ADMIN_TOKEN, else one made and printed at start")
    yield _row("speaks", _listed(_dialects(config), "its own API alone"))
    workers = config.worker_count()
    yield _row("workers", f"{workers}{', one a core' if config.workers == 'auto' else ''}")
    yield _row("store", _store(config))
    yield _row(
        "memory",
        f"{format_size(config.memory.max_bytes)} a worker, "
        f"bodies of up to {format_size(config.memory.max_object_bytes)}",
    )
    yield _row("access log", _access_log(config))
    yield _row("trusts", _listed(map(str, config.trusted_proxies), "no proxy in front"))
    unknown = "421" if config.default_site is None else f"site {config.default_site}"
    yield _row("unknown host", unknown)
    yield _row("drains for", f"{format_duration(config.limits.drain_timeout)} at a shutdown")


def _row(title: str, text: str) -> str:
    return f"  {title + ':':<19} {text}"


def _listed(items: Iterable[str], nothing: str) -> str:
    return ", ".join(items) or nothing


def _token(token: AdminToken) -> str:
    where = "all sites" if "*" in token.sites else f"sites {', '.join(token.sites)}"
    parts = [f"{token.name} may {', '.join(token.actions)} on {where}"]
    if set(token.environments) != set(ENVIRONMENTS):
        parts.append(f"{' and '.join(token.environments)} alone")
    if token.expires is not None:
        parts.append(f"until {token.expires.isoformat()}")
    if token.max_calls is not None:
        parts.append(f"for {token.max_calls} calls")
    if token.rate is not None:
        parts.append(f"at most {token.rate}")
    if token.networks:
        parts.append(f"from {', '.join(map(str, token.networks))}")
    if not token.enabled:
        parts.append("DISABLED")
    return ", ".join(parts)


def _dialects(config: Config) -> Iterator[str]:
    for name, settings in config.admin.dialects.named():
        if settings.enabled:
            yield name if settings.host is None else f"{name} (as {settings.host} alone)"


def _store(config: Config) -> str:
    store = config.store
    if isinstance(store.url, LmdbStore):
        where = f"on disk in {store.url.directory}"
    elif isinstance(store.url, AiocacheStore):
        where = f"bodies in {store.url}, index in {store.directory}"
    else:
        index = "a temporary folder" if store.directory is None else str(store.directory)
        where = f"in each worker's memory, index in {index}"
    return (
        f"{where}, {format_size(store.max_bytes)}, "
        f"bodies of up to {format_size(store.max_object_bytes)}"
    )


def _access_log(config: Config) -> str:
    log = config.log
    return "off" if log.access == "off" else f"{log.access}, {log.format} format"


def _site(name: str, site: Site, *, is_default: bool) -> Iterator[str]:
    yield f"Site {name}{', for any host that no other site names' if is_default else ''}"
    if site.hosts or not is_default:
        yield _row("hosts", _listed(site.hosts, "none"))
    if site.preview_hosts:
        yield _row("preview hosts", ", ".join(site.preview_hosts))
    for origin in site.origins:
        yield _row("origin", _origin(origin))
    if len(site.origins) > 1:
        yield _row("origins", _origins(site))
    if site.check.path is not None:
        yield _row("checks", _checks(site))
    host = _DEFAULT_HOST_FIELD.get(site.host_header, site.host_header)
    yield _row("Host sent on", host)
    yield _row("times out", _timeouts(site))
    yield _row(
        "connections",
        f"at most {site.pool.max_connections} to each origin from each worker, "
        f"unused ones kept for {format_duration(site.pool.keepalive)}",
    )
    yield _row("fresh", _ttl(site))
    yield _row("stale", _grace(site))
    yield _row("key", _key(site))
    yield _row("tags", _tags(site))
    yield _row("Set-Cookie", _set_cookie(site))
    yield _row("reader's no-cache", _REQUEST_CACHE_CONTROL[site.cache.request_cache_control])
    yield _row(
        "per URL",
        f"{site.cache.max_variants} variants, {site.cache.max_busters} cb: copies; "
        f"uncacheable is remembered for {format_duration(site.cache.uncacheable_ttl)}",
    )


def _origin(origin: Origin) -> str:
    parts = [str(origin.url)]
    if origin.tls.server_name:
        parts.append(f"as {origin.tls.server_name}")
    if origin.tls.ca_file:
        parts.append(f"trusting {origin.tls.ca_file}")
    if not origin.tls.verify:
        parts.append("certificate NOT verified")
    return ", ".join(parts)


def _origins(site: Site) -> str:
    method = {"round-robin": "in turn", "least-connections": "the least busy one first"}
    breaker, retries = site.breaker, site.retries
    return (
        f"{method[site.balancing.method]}; passed over for "
        f"{format_duration(breaker.pause)} to {format_duration(breaker.max_pause)} after "
        f"{breaker.failures} failures; {retries.share:.3g} of the requests may be repeated"
    )


def _checks(site: Site) -> str:
    check = site.check
    host = "" if check.host == "origin" else f" of {check.host}"
    return (
        f"{check.path}{host} every {format_duration(check.interval)}, "
        f"{', '.join(map(str, check.status))} within {format_duration(check.timeout)}"
    )


def _timeouts(site: Site) -> str:
    times = site.timeouts
    total = "no limit" if times.total is None else format_duration(times.total)
    return (
        f"connect {format_duration(times.connect)}, first byte {format_duration(times.first_byte)},"
        f" between bytes {format_duration(times.between_bytes)}, whole {total}"
    )


def _ttl(site: Site) -> str:
    ttl = site.ttl
    if ttl.default is None:
        guess = (
            f"{ttl.heuristic_fraction:.3g} of the time since Last-Modified "
            f"(at most {format_duration(ttl.heuristic_max)})"
        )
    else:
        guess = format_duration(ttl.default)
    bound = "" if ttl.max is None else f"; never more than {format_duration(ttl.max)}"
    return f"as the origin says; where it says nothing, {guess}{bound}"


def _grace(site: Site) -> str:
    def how_long(seconds: float) -> str:
        return f"for {format_duration(seconds)}" if seconds else "never"

    return (
        f"served while it is refreshed {how_long(site.grace.stale_while_revalidate)}, when the "
        f"origin fails {how_long(site.grace.stale_if_error)} (unless the origin says otherwise)"
    )


def _key(site: Site) -> str:
    parts = []
    if site.key.ignore_query:
        parts.append(f"without {', '.join(site.key.ignore_query)}")
    if site.key.ignore_tracking:
        parts.append("without tracking parameters")
    if site.key.sort_query:
        parts.append("query sorted")
    return f"URL {', '.join(parts)}" if parts else "the URL as it is"


def _tags(site: Site) -> str:
    if not site.tags.fields:
        return "none are read"
    seen = "shown to readers" if site.tags.debug else "hidden from readers"
    return f"from {', '.join(site.tags.fields)}; {seen}"


def _set_cookie(site: Site) -> str:
    if site.cache.share_set_cookie:
        return "responses with it are stored like all others"
    return "responses with it are stored only if they say `public`"
