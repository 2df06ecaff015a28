"""Socket addresses, host names and networks as a configuration writes them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.config.sizes import shown, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_ADDRESS_FORMS = '"HOST:PORT", "[::1]:8080", or ":8080" for every interface'

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `host` is "" for every interface, and without brackets when it is IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def overlaps(self, other: Address) -> bool:
        """Whether some connection could be meant for both; port 0 (any free one) never clashes."""
        if self.port != other.port or self.port == 0:
            return False
        return self.host == other.host or self._covers(other) or other._covers(self)

    def _covers(self, other: Address) -> bool:
        # "::" takes IPv6 alone: the sockets are made with IPV6_V6ONLY.
        family = {"0.0.0.0": 4, "::": 6}.get(self.host)  # noqa: S104 - compared, not bound
        literal = _ip(other.host)
        return self.host == "" or (literal is not None and literal.version == family)


def parse_address(value: object) -> Address:
    """An address to listen on. Raises ValueError, with what would be right."""
    if isinstance(value, Address):
        return value
    text = text_of(value, _ADDRESS_FORMS)
    if "/" in text:
        raise ValueError(f"{shown(value)} is a URL or a path; give {_ADDRESS_FORMS}")
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        if _ip(text) is not None or ":" not in text:
            raise ValueError(f"{shown(value)} has no port; give {_ADDRESS_FORMS}")
        raise ValueError(f"{shown(value)} is not an address; give {_ADDRESS_FORMS}")
    if len(port) > 5 or int(port) > 65535:
        raise ValueError(f"{shown(value)}: the port must be between 0 (any free one) and 65535")
    if host.startswith("[") and host.endswith("]"):
        literal = _ip(host[1:-1])
        if not isinstance(literal, ipaddress.IPv6Address):
            raise ValueError(f"{shown(value)}: {shown(host)} is not an IPv6 address")
        return Address(str(literal), int(port))
    if ":" in host:
        raise ValueError(f"{shown(value)}: an IPv6 address stands in brackets: {_bracketed(host)}")
    if host and _ip(host) is None and not is_host_name(host.lower()):
        raise ValueError(f"{shown(value)}: {shown(host)} is neither a host name nor an IP address")
    return Address(host.lower(), int(port))


def _bracketed(host: str) -> str:
    return f'"[{host}]:PORT"' if _ip(host) else '"[::1]:8080"'


def parse_host(value: object) -> str:
    """A host name that readers use, in the form that `normal_host` gives.

    "*.example.com" stands for every name below example.com. Raises ValueError, with what
    would be right.
    """
    text = text_of(value, 'a host name such as "www.example.com"')
    if text == "*":
        raise ValueError('"*" is not a host name; to answer every host, make it the default_site')
    if "/" in text:
        raise ValueError(f"{shown(value)} is a URL; give the host name alone")
    wildcard, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    literal = _ip(name.removeprefix("[").removesuffix("]"))
    if literal is not None and not wildcard:
        return _literal(literal)
    if ":" in name:
        raise ValueError(f"{shown(value)} has a port; give the name alone, it is good on any port")
    name = name.lower().removesuffix(".")
    if not name.isascii():
        raise ValueError(f"{shown(value)} is not ASCII; {_punycode(wildcard, name)}")
    if not is_host_name(name) or _ip(name) is not None:
        raise ValueError(
            f"{shown(value)} is not a host name; "
            'give a name such as "www.example.com", or "*.example.com" for all below it'
        )
    return wildcard + name


def _punycode(wildcard: str, name: str) -> str:
    try:
        return f'write "{wildcard}{name.encode("idna").decode()}"'
    except UnicodeError:
        return "write its xn-- form"


def is_host_name(name: str) -> bool:
    """Whether this is a lower-case DNS name; an underscore is let through, as resolvers do."""
    return len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))


def normal_host(host: str) -> str:
    """A request's host, as `parse_host` writes it: lower-case, no port, no trailing dot.

    What isn't a host at all comes back in some form that equals no configured name.
    """
    host = host.lower()
    if host.startswith("["):
        literal = _ip(host[1:].partition("]")[0])
        return host if literal is None else _literal(literal)
    if host.count(":") > 1:
        literal = _ip(host)
        return host if literal is None else _literal(literal)
    return host.partition(":")[0].removesuffix(".")


def is_ip_address(host: str) -> bool:
    """Whether a host as `normal_host` gives it is an IP address, not a name."""
    return _ip(host.removeprefix("[").removesuffix("]")) is not None


def parse_network(value: object) -> Network:
    """An IP network or single address. Raises ValueError, with what would be right."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    if isinstance(value, str):
        try:
            return ipaddress.ip_network(value)
        except ValueError:
            pass
        try:
            network = ipaddress.ip_network(value, strict=False)
        except ValueError:
            pass
        else:
            raise ValueError(f'{shown(value)} is not the first address of its network: "{network}"')
    raise ValueError(f'{shown(value)} is not a network; give one such as "10.0.0.0/8", "::1"')


def within(client: str, networks: Iterable[Network]) -> bool:
    """Whether an IP address is in any of the networks; what is no address is in none."""
    address = _ip(client)
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped is not None and any(mapped in network for network in networks)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _literal(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)
