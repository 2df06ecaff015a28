"""A reader's request as the proxy sees it: whose it is, what it asks for, under which policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.semantics.cache_control import Directives
    from edgeproxy.semantics.fields import Fields
    from edgeproxy.semantics.key import CacheKey


class EdgeRequest(msgspec.Struct, frozen=True):
    """One request to one site, frozen: what every decision about it is made from."""

    method: bytes
    target: bytes
    """What the origin is asked for: path and query, without a `cb:` segment. Of GET and HEAD it is
    the key's, so that nothing that is in no key makes a stored response; else it is as sent."""
    version: str
    fields: Fields
    """As the client sent them, without those for its connection alone (RFC 9110 7.6.1). GET and
    HEAD also lack those that are withheld from the origin: what it does not see must not select a
    variant either."""
    upgrade: bytes
    """The protocols that the connection is asked to switch to (RFC 9110 7.8); empty: none."""
    authority: str
    """Host and port as the key has them. The origin is told no more: "shop.example:80" and the like
    would get into pages that are served to those who asked for "shop.example"."""
    scheme: str
    client: str
    """The client's address, beyond trusted proxies."""
    peer: str
    """The address at the other end of the connection; "unknown" if it has none."""
    trusted: bool
    """It comes through one of the trusted proxies, so its X-Forwarded-* fields are believed."""
    policy: SitePolicy
    environment: str
    key: CacheKey
    directives: Directives
    honour_directives: bool
    """Whether its Cache-Control may make the edge go to the origin (RFC 9111 5.2.1)."""
    has_body: bool
    anew: bool = False
    """It is to be answered with what the origin sends now, which replaces what is stored: its
    client may say so."""
    not_before: int = 0
    """The journal position of the cache buster that it bears: what was asked for before that can't
    be its answer. 0: it bears none that was issued."""
