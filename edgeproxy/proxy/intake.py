"""Reading a request: which site it is for, who sent it, which key it has."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.config.addresses import within
from edgeproxy.proxy.decide import LOOKED_UP
from edgeproxy.proxy.request import EdgeRequest
from edgeproxy.proxy.tunnel import upgrade_requested
from edgeproxy.semantics.cache_buster import split_cache_buster
from edgeproxy.semantics.cache_control import request_directives
from edgeproxy.semantics.errors import BadRequest
from edgeproxy.semantics.fields import Fields, list_members
from edgeproxy.semantics.forwarding import client_address, end_to_end
from edgeproxy.semantics.key import cache_key
from edgeproxy.semantics.target import read_target

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    from aiohttp import web

    from edgeproxy.config.sites import SitePolicy, SiteTable
    from edgeproxy.semantics.environment import Environment
    from edgeproxy.semantics.key import CacheKey
    from edgeproxy.semantics.target import RequestTarget


class Misdirected(Exception):
    """The request is for a host that no site serves (RFC 9110 15.5.20)."""


class Asked(NamedTuple):
    """What a request asks for, and of which site."""

    target: RequestTarget
    policy: SitePolicy
    environment: Environment
    key: CacheKey


class Intake:
    """Turns what the parser read into an `EdgeRequest`. Pure but for its settings."""

    def __init__(
        self, sites: SiteTable, trusted_proxies: Sequence[IPv4Network | IPv6Network]
    ) -> None:
        self._sites = sites
        self.trusted = tuple(trusted_proxies)
        """The networks of proxies whose X-Forwarded-* fields are believed."""

    def read(self, raw: web.BaseRequest, method: bytes, *, secure: bool) -> EdgeRequest:
        """The request; raises `BadRequest` (400) or `Misdirected` (421)."""
        return self.request(
            method,
            raw.raw_path.encode("utf-8", "surrogateescape"),
            Fields(raw.raw_headers),
            version="1.0" if raw.version.minor == 0 else "1.1",
            secure=secure,
            peer=peer_address(raw.remote),
            has_body=raw.body_exists,
        )

    def request(
        self,
        method: bytes,
        target_sent: bytes,
        sent: Fields,
        *,
        version: str,
        secure: bool,
        peer: str,
        has_body: bool,
        asked: Asked | None = None,
    ) -> EdgeRequest:
        """The same of what a request says, whoever sent it; `asked`: what `asked` gave for it."""
        fields = end_to_end(sent)
        client, trusted = client_address(fields, peer, self.trusted)
        proto = fields.get(b"x-forwarded-proto") if trusted else None
        scheme = scheme_of(proto, secure=secure)
        if asked is None:
            hosts = fields.get_all(b"host")
            asked = self.asked(method, target_sent, hosts, scheme, host_required=version != "1.0")
        target, policy, environment, key = asked
        directives = request_directives(fields)
        anew = method == b"GET" and directives.no_cache and within(client, policy.purge_networks)
        _, forwarded_target = split_cache_buster(target.path_and_query)
        keyed = method in LOOKED_UP and not policy.forward_ignored
        return EdgeRequest(
            method=method,
            target=key.target if keyed else forwarded_target,
            version=version,
            fields=fields,
            upgrade=_upgrade(sent, version),
            authority=key.host,
            scheme=scheme,
            client=client,
            peer=peer,
            trusted=trusted,
            policy=policy,
            environment=environment,
            key=key,
            directives=directives,
            honour_directives=anew
            or policy.request_cache_control == "honour"
            or (policy.request_cache_control == "trusted" and trusted),
            has_body=has_body,
            anew=anew,
        )

    def asked(
        self,
        method: bytes,
        target_sent: bytes,
        hosts: tuple[bytes, ...],
        scheme: str,
        *,
        host_required: bool = True,
    ) -> Asked:
        """What a request with these Host lines asks for; raises `BadRequest` or `Misdirected`."""
        target = read_target(method, target_sent, hosts, host_required=host_required)
        place = self._sites.find(target.host or "")
        if place is None:
            raise Misdirected(f"no site here is {target.host}")
        policy, environment = place
        # HTTP/1.0 without Host: for the name that the origin itself goes by.
        authority = target.authority or policy.origins[0].url.authority
        try:
            key = cache_key(policy.name, scheme, authority, target.path_and_query, policy.key)
        except ValueError as error:
            raise BadRequest("host-invalid") from error
        return Asked(target, policy, environment, key)


def _upgrade(sent: Fields, version: str) -> bytes:
    if not upgrade_requested(sent, version):
        return b""
    return b", ".join(list_members(sent.get_all(b"upgrade")))


# Connections come in numbers from the same clients, and reading an address takes its time.
@lru_cache(maxsize=4096)
def peer_address(remote: str | None) -> str:
    """The address at the other end of a connection; a Unix socket's has none."""
    if remote is None:
        return "unknown"
    try:
        return str(ip_address(remote.partition("%")[0]))
    except ValueError:
        return "unknown"


def scheme_of(proto: bytes | None, *, secure: bool) -> str:
    """What the reader spoke: as a trusted proxy says (X-Forwarded-Proto, None where there is no
    such proxy), or by the connection, if that is over TLS."""
    value = (proto or b"").partition(b",")[0].strip().lower()
    if value in (b"http", b"https"):
        return value.decode()
    return "https" if secure else "http"
