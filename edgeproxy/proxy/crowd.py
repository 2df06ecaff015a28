"""How many connections there may be, in all and of each client."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from edgeproxy.config.addresses import within

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Network, IPv6Network

    from edgeproxy.config.server import Limits

MOST_BY_DEFAULT: Final = 50_000
_LEAST_SPARE: Final = 32


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a worker can take, and what it grants."""

    connections: int
    """Most readers' connections."""
    per_client: int
    """Most of one client; 0: no limit."""
    local_too: bool
    """Whether that goes for clients on this machine."""
    files: int
    """A connection whose descriptor is this number or a higher one is the last for now: the rest is
    for origins, and for files."""


def capacity(limits: Limits, files: int) -> Capacity:
    """What these limits come to where a process may have so many files open."""
    most = limits.max_connections
    if most is None:
        most = min(files * 3 // 4, MOST_BY_DEFAULT)
    each = limits.max_connections_per_client
    return Capacity(
        connections=most,
        per_client=max(1, most // 2) if each is None else each,
        local_too=each is not None,
        files=files - max(_LEAST_SPARE, files // 8),
    )


class Crowd:
    """The clients that are connected, and how often each."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.exempt: Sequence[IPv4Network | IPv6Network] = ()
        """Networks of clients that bring many others, and may have as many as they like."""
        self._counts: dict[str, int] = {}

    def enter(self, address: str) -> bool:
        """Count one more of that client; whether it may have it."""
        client = client_of(address)
        self._counts[client] = count = self._counts.get(client, 0) + 1
        most = self.capacity.per_client
        return not most or count <= most or self._exempt(address)

    def has_room(self, address: str) -> bool:
        """Whether that client may have one more."""
        most = self.capacity.per_client
        return not most or self._counts.get(client_of(address), 0) < most or self._exempt(address)

    def leave(self, address: str) -> None:
        """One of that client is gone."""
        client = client_of(address)
        count = self._counts[client] - 1
        if count:
            self._counts[client] = count
        else:
            del self._counts[client]

    def _exempt(self, address: str) -> bool:
        try:
            local = ip_address(address).is_loopback
        except ValueError:
            # A socket in the file system.
            local = True
        if local and not self.capacity.local_too:
            return True
        return bool(self.exempt) and within(address, self.exempt)


@lru_cache(maxsize=4096)
def client_of(address: str) -> str:
    """Who an address is: whoever has an IPv6 address has the 2^64 beside it, too (RFC 6177)."""
    if ":" not in address:
        return address
    return str(ip_network((ip_address(address).packed[:8] + bytes(8), 64)))
