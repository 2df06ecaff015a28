"""What an intermediary takes out of messages and adds to them (RFC 9110 7.6, RFC 7239)."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, TypeAlias

from edgeproxy.semantics.cache_control import delta_seconds
from edgeproxy.semantics.fields import (
    OWS,
    Fields,
    is_token,
    list_members,
    split_unquoted,
    unquote,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Network

    Address: TypeAlias = IPv4Address | IPv6Address

HOP_BY_HOP: Final = frozenset(
    {
        # RFC 9110 7.6.1, and Transfer-Encoding and Trailer, which belong to a message's framing
        *(b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer"),
        *(b"transfer-encoding", b"upgrade", b"http2-settings"),
        # RFC 9111 3.1, RFC 9110 11.7: between a client and the next proxy
        *(b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization"),
    }
)
"""The fields that are for the next recipient alone."""

# RFC 9110 7.6.1: fields for all recipients must not be named by Connection. Taking these out at
# a sender's word would change what a message is for, or whether it may be stored.
_FOR_ALL: Final = frozenset(
    {
        *(b"host", b"content-length", b"content-type", b"content-encoding", b"date", b"age"),
        *(b"cache-control", b"expires", b"pragma", b"vary", b"set-cookie", b"authorization"),
        *(b"surrogate-control", b"cdn-cache-control", b"vercel-cdn-cache-control"),
    }
)

# What a proxy says of the client and its request. Origins build links, redirects and whole pages
# from these, and none of them is in the cache key: from a stranger, one such field would be served
# to everybody. All that begin with one of `_SAID_BY_PROXIES_BEGIN` belong here too.
_SAID_BY_PROXIES: Final = frozenset(
    {
        *(b"forwarded", b"x-forwarded", b"x-forwarder-for", b"proxy-host", b"proxy-client-ip"),
        *(b"x-host", b"x-http-host", b"x-http-host-override", b"x-host-override", b"x-hostname"),
        *(b"x-server-name", b"x-backend-host", b"x-gateway-host", b"x-orig-host", b"x-host-name"),
        *(b"host-override", b"http-host", b"fastly-host", b"fastly-orig-host"),
        *(b"x-scheme", b"x-url-scheme", b"x-proto", b"x-protocol", b"x-https", b"x-ssl"),
        *(b"front-end-https", b"x-arr-ssl", b"x-script-name"),
        *(b"x-client-ip", b"client-ip", b"x-cluster-client-ip", b"cluster-client-ip"),
        *(b"true-client-ip", b"x-true-client-ip", b"x-true-ip", b"x-custom-ip-authorization"),
        *(b"x-remote-ip", b"x-remote-addr", b"remote-addr", b"x-originating-ip", b"x-proxyuser-ip"),
        *(b"cdn-src-ip", b"cdn-real-ip", b"ali-cdn-real-ip", b"real-ip"),
        *(b"x-nf-client-connection-ip", b"disguised-host", b"x-waws-unencoded-url"),
        *(b"fastly-client-ip", b"fastly-ssl", b"x-vercel-forwarded-for", b"x-vercel-proxied-for"),
        # It makes origins send what only such a surrogate can make a page of.
        b"surrogate-capability",
    }
)
_SAID_BY_PROXIES_BEGIN: Final = (
    *(b"x-forwarded-", b"forwarded-", b"x-forward-", b"x-original-", b"x-real-", b"x-envoy-"),
    *(b"wl-proxy-", b"cf-", b"cloudfront-", b"fly-", b"x-appengine-", b"x-vercel-ip-", b"x-azure-"),
    # By these a server in front has files sent in an answer's place (CVE-2025-61780).
    *(b"x-accel-", b"x-sendfile"),
)

# Makes an origin answer for another target than the one that the key is made of, or with an inner
# step of making a page, or (Proxy) turns into an environment variable of CGI programs. Proxies pass
# these on unseen, so that even trusted ones vouch for none of them.
_NEVER_FORWARDED: Final = frozenset(
    {
        *(b"x-original-url", b"x-original-uri", b"x-rewrite-url", b"x-rewrite-uri"),
        *(b"x-override-url", b"x-http-path-override", b"x-http-destinationurl", b"x-proxy-url"),
        *(b"base-url", b"http-url", b"proxy-url", b"request-uri", b"x-request-uri"),
        *(b"x-request-url", b"x-rewritten-url", b"x-url", b"x-uri"),
        # Next.js says these to itself, and all that begin with one of `_NEVER_FORWARDED_BEGIN`.
        *(b"x-matched-path", b"x-now-route-matches"),
        # The same of React Router, Nuxt, Astro and Symfony.
        *(b"x-react-router-spa-mode", b"x-react-router-prerender-data", b"x-nuxt-no-ssr"),
        *(b"x-astro-path", b"x-astro-locals", b"x-php-ob-level"),
        *(b"proxy", b"x-purge-token"),
    }
)

_NEVER_FORWARDED_BEGIN: Final = (b"x-middleware-", b"x-invoke-")

# The same for the method. Beyond GET and HEAD nothing is cached, and clients that can send no
# other method than POST depend on them.
_METHOD_OVERRIDES: Final = frozenset(
    {b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-method"}
)
# RFC 9110 7.6.2 has it for TRACE and OPTIONS. With GET and HEAD it could but bring an error about.
_NOT_OF_PAGES: Final = _METHOD_OVERRIDES | {b"max-forwards"}

# Nobody can have these let through: Proxy (CVE-2016-5385), a secret that is meant for this edge,
# and what the edge writes itself.
_NEVER_LET_THROUGH: Final = frozenset(
    {
        *(b"proxy", b"x-purge-token", b"forwarded"),
        *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"),
    }
)
_KEYED_METHODS: Final = frozenset({b"GET", b"HEAD"})

# Where a message ends is told to the origin by the edge alone.
_ONLY_AS_WRITTEN: Final = frozenset({b"transfer-encoding", b"content-length"})

# CGI, WSGI and their like make one name of all that differ in what is neither letter nor digit.
_ONE_NAME: Final = bytes(byte if bytes((byte,)).isalnum() else ord("-") for byte in range(256))

_COUNTED_METHODS: Final = frozenset({b"OPTIONS", b"TRACE"})

_REPLACED: Final = frozenset(
    {b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"}
)
_KEEP_ALIVE: Final = (b"keep-alive",)
_UNKNOWN: Final = b"unknown"  # RFC 7239 6.2

_LONGEST_NAME: Final = 64
"""Bytes of a field name that is remembered."""

_LONGEST_NODE: Final = 64
"""Bytes of what can be an address, in brackets and with a port, and then some."""


def end_to_end(fields: Fields) -> Fields:
    """The fields that are to be passed on, and may be stored (RFC 9110 7.6.1, RFC 9111 3.1)."""
    return fields.without(_for_the_connection(fields))


def _for_the_connection(fields: Fields) -> frozenset[bytes]:
    connection = fields.get_all(b"connection")
    if not connection or connection == _KEEP_ALIVE:
        return HOP_BY_HOP
    named = {option.lower() for option in list_members(connection)}
    return HOP_BY_HOP | (named - _FOR_ALL)


def forwarded_request_fields(
    fields: Fields,
    *,
    client: str,
    trusted: bool,
    scheme: str,
    host: str,
    version: str,
    pseudonym: str,
    method: bytes = b"GET",
    peer: str | None = None,
    let_through: frozenset[bytes] = frozenset(),
) -> Fields:
    """A request's fields as the origin is to see them, Host as received.

    `client` and `trusted` are what `client_address` gave; `scheme` and `host` (with its port; ""
    if there is none) are those of the cache key, which X-Forwarded-Proto and -Host always repeat.
    `version` is that of the request ("1.1"), `pseudonym` this proxy's name in Via. `peer` is the
    trusted proxy that the request came from, which is then added behind the addresses that it
    named; None if the client itself is at the other end, or the proxy is to stay unnamed.

    What an untrusted client says in such fields is replaced (RFC 7239 8.1), and other well-known
    fields by which it could change a shared response are left out, unless `let_through` (lower-case
    names) has them.
    """
    make = _remembered if fields.repeatable else _forwarded
    return make(
        fields, client, trusted, scheme, host, version, pseudonym, method, peer, let_through
    )


def _forwarded(
    fields: Fields,
    client: str,
    trusted: bool,
    scheme: str,
    host: str,
    version: str,
    pseudonym: str,
    method: bytes,
    peer: str | None,
    let_through: frozenset[bytes],
) -> Fields:
    keyed = method in _KEYED_METHODS
    kept = heard(end_to_end(fields), trusted=trusted, let_through=let_through, keyed=keyed)
    chain, forwarded = kept.joined(b"x-forwarded-for"), kept.joined(b"forwarded")
    if chain:
        # `client_address` has gone by this field: a proxy that sets it commonly hands the client's
        # own Forwarded on, and two stories must not be told.
        forwarded = None
        chain = _appended(chain, peer.encode()) if peer else chain
    else:
        chain = (client if peer in (None, client) else f"{client}, {peer}").encode()
    nearest = peer if forwarded and peer else client
    via = _via_member(version, pseudonym)
    added = [(b"X-Forwarded-For", chain), (b"X-Forwarded-Proto", scheme.encode())]
    if host:
        added.append((b"X-Forwarded-Host", host.encode()))
    added.append((b"Forwarded", _appended(forwarded, _forwarded_element(nearest, host, scheme))))
    existing = kept.joined(b"via")
    kept = kept.without(_REPLACED)
    if existing is None:
        return kept.plus((b"Via", via), *added)
    return kept.replacing(b"via", _appended(existing, via)).plus(*added)


# A reader's requests look alike, and so do all of a browser's kind.
_remembered = lru_cache(maxsize=1024)(_forwarded)


def heard(
    fields: Fields,
    *,
    trusted: bool,
    let_through: frozenset[bytes],
    keyed: bool = True,
) -> Fields:
    """A request's fields but for those that its client has no say in, which are withheld from the
    origin; `keyed`: it is GET or HEAD, whose answers others may get. The rest is as for
    `forwarded_request_fields`."""
    withheld = {
        name
        for name in fields.names()
        if _is_withheld(name, trusted, keyed) and name not in let_through
    }
    return fields.without(withheld) if withheld else fields


def is_heard(name: bytes, trusted: bool, *, let_through: frozenset[bytes]) -> bool:
    """Whether an origin can see what a GET or HEAD request says in the field of that (lower-case)
    name."""
    if name in HOP_BY_HOP:
        return False
    return name in let_through or not _is_withheld(name, trusted, keyed=True)


def may_let_through(name: bytes) -> bool:
    """Whether a site may have a field of clients go on to its origins that is withheld otherwise;
    `name` is in lower case."""
    return name.translate(_ONE_NAME) not in _NEVER_LET_THROUGH


def hops_left(method: bytes, fields: Fields) -> int | None:
    """How many more times a request may be passed on; None where it does not say (RFC 9110 7.6.2).

    Only TRACE and OPTIONS do, and a value that is no number says nothing.
    """
    value = fields.get(b"max-forwards") if method in _COUNTED_METHODS else None
    return delta_seconds(value) if value is not None else None


def passed_on(fields: Fields, version: str, pseudonym: str) -> Fields:
    """A response's fields as they are passed on, and may be stored: what is for the connection
    alone is left out, and this proxy is in Via. `version` is the origin's (RFC 9110 7.6.3)."""
    connection, member = _for_the_connection(fields), _via_member(version, pseudonym)
    existing = fields.joined(b"via")
    if existing is None or b"via" in connection:
        return fields.changed(connection, (b"Via", member))
    return fields.without(connection).replacing(b"via", _appended(existing, member))


def client_address(
    fields: Fields, peer: str, trusted_networks: Sequence[IPv4Network | IPv6Network]
) -> tuple[str, bool]:
    """The client's address, and whether the connection comes from a trusted proxy.

    `peer` is the address at the other end of the connection. If it is trusted, X-Forwarded-For,
    or in its absence Forwarded, is read from the right, up to the first address that is not
    trusted: what stands to its left, anybody may have written. A node without a valid address
    ends the search at the proxy that named it.
    """
    address = _address(peer.encode())
    if address is None:
        return peer, False
    if not trusted_networks or not _trusts(trusted_networks, address):
        return _text(peer), False
    for node in _nodes(fields):
        claimed = _address(node)
        if claimed is None:
            break
        address = claimed
        if not _trusts(trusted_networks, address):
            break
    return str(address), True


@lru_cache(maxsize=4096)
def _text(peer: str) -> str:
    return str(_address(peer.encode()))


def _is_withheld(name: bytes, trusted: bool, keyed: bool) -> bool:
    # Clients send the same few names. What is no longer than all that matter is remembered.
    if len(name) <= _LONGEST_NAME:
        return _withheld(name, trusted, keyed)
    return _withheld.__wrapped__(name, trusted, keyed)


@lru_cache(maxsize=4096)
def _withheld(name: bytes, trusted: bool, keyed: bool) -> bool:
    # "X_Forwarded_Host" and "X.Forwarded.Host" can be "X-Forwarded-Host" to an origin. A proxy that
    # minds the one lets the others pass, so that they are trusted in no hands.
    folded = name.translate(_ONE_NAME)
    if name != folded and folded in _ONLY_AS_WRITTEN:
        return True
    if folded in _NEVER_FORWARDED or folded.startswith(_NEVER_FORWARDED_BEGIN):
        return True
    if keyed and folded in _NOT_OF_PAGES:
        return True
    said_by_proxy = folded in _SAID_BY_PROXIES or folded.startswith(_SAID_BY_PROXIES_BEGIN)
    return said_by_proxy and (not trusted or name != folded)


@lru_cache(maxsize=64)
def _via_member(version: str, pseudonym: str) -> bytes:
    return f"{version} {pseudonym}".encode()


def _appended(existing: bytes | None, member: bytes) -> bytes:
    return existing + b", " + member if existing else member


@lru_cache(maxsize=4096)
def _forwarded_element(client: str, host: str, scheme: str) -> bytes:
    # RFC 7239 4: forwarded-pair = token "=" ( token / quoted-string ); 6: an IPv6 address has
    # brackets and, as its colons are in no token, quotes.
    address = _address(client.encode())
    if address is None:
        node = _UNKNOWN
    elif isinstance(address, IPv6Address):
        node = f'"[{address}]"'.encode()
    else:
        node = str(address).encode()
    pairs = [b"for=" + node]
    if host:
        name = host.encode()
        pairs.append(b"host=" + (name if is_token(name) else b'"%b"' % name))
    pairs.append(b"proto=" + scheme.encode())
    return b";".join(pairs)


def _nodes(fields: Fields) -> Iterator[bytes]:
    # From the one nearest to this proxy.
    chain = fields.joined(b"x-forwarded-for")
    if chain is not None:
        yield from (node.strip(OWS) for node in reversed(chain.split(b",")))
        return
    for element in reversed(list_members(fields.get_all(b"forwarded"))):
        yield _for_node(element)


def _for_node(element: bytes) -> bytes:
    for pair in split_unquoted(element, b";"):
        name, _, value = pair.partition(b"=")
        if name.lower() == b"for":
            return value if is_token(value) else unquote(value) or b""
    return b""


def _address(node: bytes) -> Address | None:
    return _read_address(node) if len(node) <= _LONGEST_NODE else None


@lru_cache(maxsize=4096)
def _read_address(node: bytes) -> Address | None:
    # An address, "IPv4:port", "[IPv6]" or "[IPv6]:port"; an IPv4 address in IPv6 form is itself.
    text = node.decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _trusts(networks: Sequence[IPv4Network | IPv6Network], address: Address) -> bool:
    return any(address in network for network in networks)
