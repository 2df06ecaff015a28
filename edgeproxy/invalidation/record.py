"""A record of the journal: an invalidation as it was asked for, or a cache buster."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from edgeproxy.invalidation.selectors import Mode, Selector


class Buster(msgspec.Struct, frozen=True, omit_defaults=True):
    """An issued cache buster: with it, a URL's response is only good if its fetch began later."""

    token: str
    site: str
    host: str | None = None
    """None: good for all hosts of the site."""
    target_id: bytes = b""
    """Empty: good for all targets."""

    def covers(self, site: str, host: str, target_id: bytes) -> bool:
        """Whether it has been issued for a URL."""
        return (
            self.site == site and self.host in (None, host) and self.target_id in (b"", target_id)
        )


class Effect(NamedTuple):
    """What an invalidation does to what it picks, from its place in the journal on."""

    mode: Mode
    deleted_from: float
    """When an INVALIDATE turns into a DELETE, in seconds since the epoch; 0: never."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One invalidation, as it was asked for."""

    id: str
    """Random, 32 hexadecimal digits."""
    time: float
    """When it was asked for, in seconds since the epoch; nothing but its deadline goes by it."""
    mode: Mode
    selectors: tuple[Selector, ...]
    """What it picks; nothing where it issues a cache buster."""
    actor: str
    """Who asked: the name of a token, or "origin" for what RFC 9111 4.4 asks."""
    source: str
    """From where: an address."""
    dialect: str = "edgeproxy"
    matched: int | None = None
    """How many stored responses it picked; None: so many that it took effect before the count."""
    deadline: float = 0.0
    """Of a DELETE: so many seconds stale may still be served while it is refreshed."""
    buster: Buster | None = None
    """The cache buster that it issues."""
    position: int = 0
    """Its place in the journal, 1 for the first; 0 while it is in none."""

    @property
    def effect(self) -> Effect:
        """What it does to what it picks."""
        if self.mode is Mode.DELETE and self.deadline:
            return Effect(Mode.INVALIDATE, self.time + self.deadline)
        return Effect(self.mode, 0.0)
