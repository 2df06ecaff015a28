"""Which resource a request is for (RFC 9112 3.2, 3.3; RFC 9110 4.2, 7.2): target and Host."""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import Literal

import msgspec

from edgeproxy.semantics.errors import BadRequest

Form = Literal["origin", "absolute", "asterisk"]


class RequestTarget(msgspec.Struct, frozen=True):
    """Where a request goes."""

    host: str | None
    """Lower-case host without port ("[::1]" with brackets); None in HTTP/1.0 without Host."""
    authority: str | None
    """Lower-case host with the port as sent, if one was sent; None with `host`."""
    path_and_query: bytes
    """What the origin is asked for, byte for byte: begins with "/", or is "*"."""
    form: Form
    """How the target was written (RFC 9112 3.2)."""


# RFC 9110 4.2 takes host from RFC 3986 3.2.2: IP-literal / IPv4address / reg-name. The reg-names
# accepted here are those that can be the name of a host (RFC 1123 2.1, and "_"): the delimiters
# and percent-encodings that the grammar also has name no site, and would mean something else in
# the lists that a host is later written into (Forwarded, X-Forwarded-Host).
_AUTHORITY = re.compile(
    r"(?P<host>[a-z0-9_-][a-z0-9._-]*|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{0,5}))?"
)
_MAX_HOST = 255
_MAX_PORT = 65535

# Never part of a URI (RFC 3986 2), and each of them is where two parsers of one request line can
# come to differ. What is not ASCII is no URI either, but means one thing only and is sent as is.
_FORBIDDEN = re.compile(rb"[\x00-\x20\x7f]")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)", re.IGNORECASE)


def split_authority(authority: str) -> tuple[str, int | None] | None:
    """The lower-case host and the port of `host[:port]`, or None where it is not valid.

    An empty port ("host:") is no port (RFC 3986 6.2.3).
    """
    return _split(authority) if len(authority) <= _MAX_HOST + len(":65535") else None


@lru_cache(maxsize=1024)
def _split(authority: str) -> tuple[str, int | None] | None:
    # Some letters beyond ASCII have a lower case within it: U+212A becomes "k".
    parts = _AUTHORITY.fullmatch(authority.lower()) if authority.isascii() else None
    if parts is None or len(parts["host"]) > _MAX_HOST:
        return None
    host, port = parts["host"], int(parts["port"]) if parts["port"] else None
    if port is not None and port > _MAX_PORT:
        return None
    if host.startswith("["):
        try:
            IPv6Address(host[1:-1])
        except AddressValueError:
            return None
    return host, port


def split_absolute(target: str) -> tuple[str, str]:
    """The authority and the origin form of a target in absolute form (RFC 9112 3.2.2), both of them
    as they stand there."""
    authority, _, rest = target.partition("://")[2].partition("/")
    return authority, "/" + rest


def read_target(
    method: bytes, target: bytes, host_fields: tuple[bytes, ...], *, host_required: bool = True
) -> RequestTarget:
    """Read the request target together with Host.

    `host_fields` are all lines of Host; `host_required` is False for HTTP/1.0, where Host may be
    absent (RFC 9112 3.2). Raises `BadRequest` for what RFC 9112 3.2 wants answered with 400.
    """
    host, authority = _read_host(host_fields, required=host_required)
    if not target:
        raise BadRequest("target-empty")
    if _FORBIDDEN.search(target):
        raise BadRequest("target-characters")
    if b"#" in target:
        raise BadRequest("target-fragment")
    if method == b"CONNECT":
        # RFC 9112 3.2.3: the one method whose target is an authority; an edge is no tunnel.
        raise BadRequest("target-authority-form")
    if target.startswith(b"/"):
        return RequestTarget(host, authority, target, "origin")
    if target == b"*":
        if method != b"OPTIONS":  # RFC 9112 3.2.4
            raise BadRequest("target-asterisk")
        return RequestTarget(host, authority, target, "asterisk")
    return _read_absolute_form(method, target)


def _read_host(lines: tuple[bytes, ...], *, required: bool) -> tuple[str | None, str | None]:
    # RFC 9112 3.2: absent in HTTP/1.1, more than one line, or an invalid value: 400. This holds
    # for the absolute form too, though the target's own authority then counts.
    if not lines:
        if required:
            raise BadRequest("host-missing")
        return None, None
    if len(lines) > 1:
        raise BadRequest("host-repeated")
    return _read_authority(lines[0], "host-invalid")


def _read_authority(value: bytes, reason: str) -> tuple[str, str]:
    authority = value.decode("ascii").lower() if value.isascii() else ""
    parts = split_authority(authority)
    if parts is None:
        raise BadRequest(reason)
    return parts[0], authority


def _read_absolute_form(method: bytes, target: bytes) -> RequestTarget:
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise BadRequest("target-form")
    if b"@" in absolute[1]:
        # RFC 9110 4.2.4: userinfo in an http(s) URI from an untrusted source is an error.
        raise BadRequest("target-userinfo")
    # RFC 9112 3.2.2: the target's authority replaces whatever Host says.
    host, authority = _read_authority(absolute[1], "target-authority")
    path_and_query = target[absolute.end() :]
    if method == b"OPTIONS" and not path_and_query:
        return RequestTarget(host, authority, b"*", "asterisk")  # RFC 9112 3.2.4
    if not path_and_query.startswith(b"/"):
        path_and_query = b"/" + path_and_query  # RFC 9110 4.2.3: an empty path means "/"
    return RequestTarget(host, authority, path_and_query, "absolute")
