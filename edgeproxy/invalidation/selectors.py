"""Selectors and modes: what an invalidation picks among the stored responses of a site, and what it
does to that."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from edgeproxy.semantics.key import target_id

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

KindName = Literal["tag", "url", "everything"]


class Mode(StrEnum):
    """What an invalidation does to what it picks."""

    INVALIDATE = "invalidate"
    """Mark it stale: the next reader gets the stale copy while a refresh runs."""
    DELETE = "delete"
    """Never serve it again."""


class Selectable(Protocol):
    """What selectors look at: a stored response, or one that is still to come."""

    @property
    def site(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def target_id(self) -> bytes: ...
    @property
    def tags(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Expected:
    """A response that is being fetched: all is known of it but its tags."""

    site: str
    environment: str
    host: str
    target_id: bytes
    tags: tuple[str, ...] = ()


class Selector(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing to invalidate; fields that its kind does not use keep their defaults."""

    site: str
    kind: KindName
    environment: str | None = None
    """None: every environment."""
    tag: str = ""
    host: str | None = None
    """The host of a URL, as in `CacheKey`; None: all hosts of the site."""
    target: bytes = b""
    """The canonical target of a URL."""
    target_id: bytes = b""

    @classmethod
    def by_tag(cls, site: str, tag: str, environment: str | None = None) -> Selector:
        """The responses that bear a tag, compared byte for byte."""
        return cls(site, "tag", environment, tag=tag)

    @classmethod
    def by_url(
        cls, site: str, host: str | None, target: bytes, environment: str | None = None
    ) -> Selector:
        """The responses for a target as `purge_target` gives it: all variants, all `cb:` copies,
        whatever the scheme."""
        return cls(
            site, "url", environment, host=host, target=target, target_id=target_id(site, target)
        )

    @classmethod
    def by_everything(cls, site: str, environment: str | None = None) -> Selector:
        """All responses of the site."""
        return cls(site, "everything", environment)

    def matches(self, stored: Selectable) -> bool:
        """Whether it picks this response."""
        kind = KINDS[self.kind]
        return (
            stored.site == self.site
            and self.environment in (None, stored.environment)
            and kind.rule_key(self) in kind.stored_keys(stored)
        )


@dataclass(frozen=True, slots=True)
class Kind:
    """How rules of one kind of selector are filed, and where a stored response looks them up.

    A selector picks a response of its site and environment when its `rule_key` is among the
    response's `stored_keys`.
    """

    rule_key: Callable[[Selector], Hashable]
    stored_keys: Callable[[Selectable], Sequence[Hashable]]
    by_url: bool
    """Whether it is told by the URL alone if a rule picks a response."""


KINDS: dict[KindName, Kind] = {
    "tag": Kind(
        rule_key=lambda selector: selector.tag,
        stored_keys=lambda stored: stored.tags,
        by_url=False,
    ),
    "url": Kind(
        rule_key=lambda selector: (selector.target_id, selector.host),
        stored_keys=lambda stored: (
            (stored.target_id, None),
            (stored.target_id, stored.host),
        ),
        by_url=True,
    ),
    "everything": Kind(
        rule_key=lambda _: None,
        stored_keys=lambda _: (None,),
        by_url=True,
    ),
}
"""All kinds, by name."""
