"""Reading a request: which site it is for, who sent it, which key it has."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edgeproxy.config.addresses import within
from edgeproxy.proxy.decide import LOOKED_UP
from edgeproxy.proxy.request import EdgeRequest
from edgeproxy.proxy.tunnel import upgrade_requested
from edgeproxy.semantics.cache_buster import split_cache_buster
from edgeproxy.semantics.cache_control import request_directives
from edgeproxy.semantics.errors import BadRequest
from edgeproxy.semantics.fields import list_members
from edgeproxy.semantics.forwarding import client_address, end_to_end, heard
from edgeproxy.semantics.key import cache_key
from edgeproxy.semantics.target import read_target

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    from edgeproxy.config.sites import SitePolicy, SiteTable
    from edgeproxy.proxy.incoming import Incoming
    from edgeproxy.semantics.environment import Environment
    from edgeproxy.semantics.fields import Fields
    from edgeproxy.semantics.key import CacheKey

_LONGEST_REMEMBERED: Final = 512
"""Bytes of a request target that is."""


class Misdirected(Exception):
    """The request is for a host that no site serves (RFC 9110 15.5.20)."""


class Asked(NamedTuple):
    """What a request asks for, and of which site."""

    policy: SitePolicy
    environment: Environment
    key: CacheKey
    target: bytes
    """What the origin is asked for: path and query."""


class Intake:
    """Turns what the parser read into an `EdgeRequest`. Pure but for its settings."""

    def __init__(
        self, sites: SiteTable, trusted_proxies: Sequence[IPv4Network | IPv6Network]
    ) -> None:
        self._sites = sites
        self.trusted = tuple(trusted_proxies)
        """The networks of proxies whose X-Forwarded-* fields are believed."""
        # Most of what is asked for is asked for again.
        self._remembered = lru_cache(maxsize=2048)(self._find)

    def read(self, incoming: Incoming) -> EdgeRequest:
        """The request; raises `BadRequest` (400) or `Misdirected` (421)."""
        return self.request(
            incoming.method,
            incoming.target,
            incoming.fields,
            version=incoming.version,
            secure=incoming.secure,
            peer=peer_address(incoming.remote),
            has_body=incoming.body is not None,
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
        policy, environment, key, target = asked
        if method in LOOKED_UP:
            fields = heard(fields, trusted=trusted, let_through=policy.let_through)
        directives = request_directives(fields)
        anew = method == b"GET" and directives.no_cache and within(client, policy.purge_networks)
        return EdgeRequest(
            method=method,
            target=target,
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
        find = self._remembered if len(target_sent) <= _LONGEST_REMEMBERED else self._find
        return find(method, target_sent, hosts, scheme, host_required=host_required)

    def _find(
        self,
        method: bytes,
        target_sent: bytes,
        hosts: tuple[bytes, ...],
        scheme: str,
        *,
        host_required: bool,
    ) -> Asked:
        target = read_target(method, target_sent, hosts, host_required=host_required)
        place = self._sites.find(target.host or "")
        if place is None:
            raise Misdirected(f"no site here is {target.host or 'for requests without Host'}")
        policy, environment = place
        # HTTP/1.0 without Host: for the name that the origin itself goes by.
        authority = target.authority or policy.origins[0].url.authority
        try:
            key = cache_key(policy.name, scheme, authority, target.path_and_query, policy.key)
        except ValueError as error:
            raise BadRequest("host-invalid") from error
        if method in LOOKED_UP and not policy.forward_ignored:
            return Asked(policy, environment, key, key.target)
        return Asked(policy, environment, key, split_cache_buster(target.path_and_query)[1])


def _upgrade(sent: Fields, version: str) -> bytes:
    if not upgrade_requested(sent, version):
        return b""
    return b", ".join(list_members(sent.get_all(b"upgrade")))


def address_of(peername: Any) -> str:
    """The address in what a socket gives as the name of its peer; a Unix socket's has none."""
    return peer_address(str(peername[0]) if isinstance(peername, tuple) else None)


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
