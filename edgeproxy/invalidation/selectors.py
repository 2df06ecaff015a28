"""Selectors and modes: what an invalidation picks among the stored responses of a site, and what it
does to that."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import msgspec

from edgeproxy.cache.lists import WHOLE_TARGET, List, Span, url_value
from edgeproxy.invalidation.patterns import compiled
from edgeproxy.semantics.key import target_id
from edgeproxy.semantics.source_image import purge_source, source_host, source_images
from edgeproxy.semantics.tags import is_group
from edgeproxy.semantics.url_hash import digest_of, url_hash

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence


class Mode(StrEnum):
    """What an invalidation does to what it picks."""

    INVALIDATE = "invalidate"
    """Mark it stale: the next reader gets the stale copy while a refresh runs."""
    DELETE = "delete"
    """Never serve it again."""


class Expected(msgspec.Struct, frozen=True):
    """A response that is being fetched: all is known of it but what its origin will say."""

    site: str
    environment: str
    scheme: str
    host: str
    target: bytes
    target_id: bytes
    tags: tuple[str, ...] = ()
    status: int = 0
    content_type: str = ""


class Selectable(Protocol):
    """What selectors look at in a stored response; as `StoredResponse` has it."""

    @property
    def site(self) -> str: ...
    @property
    def environment(self) -> str: ...
    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def target(self) -> bytes: ...
    @property
    def target_id(self) -> bytes: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def status(self) -> int: ...
    @property
    def content_type(self) -> str: ...


KeyName: TypeAlias = Literal[
    "url", "hash", "tag", "any_case", "source", "source_host", "prefix", "host", "everything"
]


class Selector(msgspec.Struct, frozen=True, omit_defaults=True):
    """What to invalidate: what meets all the conditions that are given; of a site, everything.

    `tag`, `source` and `source_host` are to be in the form that `by_tag` and the like give them.
    """

    site: str
    environment: str | None = None
    """None: every environment."""
    tag: str = ""
    any_case: bool = False
    """The tag is compared without regard to case, and is in lower case here."""
    host: str | None = None
    """As in `CacheKey`; None: all hosts of the site."""
    target: bytes = b""
    """The canonical target of a URL."""
    target_id: bytes = b""
    prefix: bytes = b""
    """What the canonical target begins with, byte for byte."""
    pattern: str = ""
    """An RE2 expression that is found somewhere in what `pattern_on` says."""
    pattern_on: Literal["path", "url"] = "path"
    """The target with its query, or all of the URL."""
    source: str = ""
    """The URL or path of the image that it was made from."""
    source_host: str = ""
    """The host of that image."""
    hash: str = ""
    """The URL's, as `url_hash` makes it."""
    content_type: str = ""
    """A media type in lower case, or "image/*" for all of a kind."""
    status: int = 0
    host_pattern: str = ""
    """An RE2 expression that is found somewhere in the host."""
    tag_pattern: str = ""
    """The same for the tags in their order, joined by commas; where there are none, it is not
    found."""
    type_pattern: str = ""
    """The same for the media type in lower case."""

    @classmethod
    def by_tag(
        cls, site: str, tag: str, environment: str | None = None, *, any_case: bool = False
    ) -> Selector:
        """The responses that bear a tag, compared character by character unless `any_case`."""
        tag = tag.lower() if any_case else tag
        return cls(site, environment, tag=tag, any_case=any_case)

    @classmethod
    def by_url(
        cls, site: str, host: str | None, target: bytes, environment: str | None = None
    ) -> Selector:
        """The responses for a target as `purge_target` gives it: all variants, all `cb:` copies,
        whatever the scheme."""
        return cls(site, environment, host=host, target=target, target_id=target_id(site, target))

    @classmethod
    def by_source(cls, site: str, source: str, environment: str | None = None) -> Selector:
        """The images that were made from one of that URL or path; ValueError if that is none."""
        return cls(site, environment, source=purge_source(source))

    @classmethod
    def by_everything(cls, site: str, environment: str | None = None) -> Selector:
        """All responses of the site."""
        return cls(site, environment)

    @property
    def everything(self) -> bool:
        """Whether it picks all of its site, or all of one environment of it."""
        return self.key_name == "everything" and not self.conditional

    @property
    def key_name(self) -> KeyName:
        """By which of its conditions rules and lists are looked up."""
        if self.target_id:
            return "url"
        if self.hash:
            return "hash"
        if self.tag:
            return "any_case" if self.any_case else "tag"
        if self.source:
            return "source"
        if self.source_host:
            return "source_host"
        if self.prefix:
            return "prefix"
        return "everything" if self.host is None else "host"

    @property
    def conditional(self) -> bool:
        """Whether it has conditions beside the one that it is looked up by."""
        name = self.key_name
        if self.pattern or self.content_type or self.status:
            return True
        if self.host_pattern or self.tag_pattern or self.type_pattern:
            return True
        return (
            (name != "url" and bool(self.target_id))
            or (name != "hash" and bool(self.hash))
            or (name not in ("tag", "any_case") and bool(self.tag))
            or (name != "source" and bool(self.source))
            or (name != "source_host" and bool(self.source_host))
            or (name != "prefix" and bool(self.prefix))
            or (name not in ("url", "prefix", "host") and self.host is not None)
        )

    @property
    def foreseeable(self) -> bool:
        """Whether a URL tells if what it brings will be picked."""
        unseen = self.tag or self.tag_pattern or self.content_type or self.type_pattern
        return not (unseen or self.status)

    def key(self) -> Hashable:
        """What its rules are filed under, among those of its `key_name`."""
        match self.key_name:
            case "url":
                return self.target_id, self.host
            case "hash":
                return self.hash
            case "tag" | "any_case":
                return self.tag
            case "source":
                return self.source
            case "source_host":
                return self.source_host
            case "prefix":
                return self.prefix, self.host
            case "host":
                return self.host
            case "everything":
                return None

    @property
    def exact(self) -> bool:
        """Whether it picks all that its `spans` list."""
        return not self.conditional and len(self.prefix) <= WHOLE_TARGET

    def spans(self) -> tuple[Span, ...]:
        """The lists in which all is that it picks, each once; if not `exact`, more than that."""
        site, environment = self.site, self.environment
        match self.key_name:
            case "url":
                return (self._urls(self.target, is_open=False),)
            case "hash":
                return (Span(List.HASH, site, environment, digest_of(self.hash)),)
            case "tag":
                return (Span(List.TAG, site, environment, self.tag.encode()),)
            case "any_case":
                folded = self.tag.encode()
                return (
                    Span(List.TAG, site, environment, folded),
                    Span(List.FOLDED_TAG, site, environment, folded),
                )
            case "source":
                return (Span(List.SOURCE, site, environment, self.source.encode()),)
            case "source_host":
                return (Span(List.SOURCE_HOST, site, environment, self.source_host.encode()),)
            case "prefix" | "host":
                return (self._urls(self.prefix, is_open=True),)
            case "everything":
                return (Span(List.SITE, site, environment, b""),)

    def _urls(self, target: bytes, *, is_open: bool) -> Span:
        if self.host is None:
            return Span(List.URL, self.site, self.environment, target, open=is_open, any_host=True)
        value = url_value(self.host, target)
        return Span(List.URL, self.site, self.environment, value, open=is_open)

    def matches(self, stored: Selectable) -> bool:
        """Whether it picks this response."""
        return (
            stored.site == self.site
            and self.environment in (None, stored.environment)
            and self.key() in stored_keys(self.key_name, stored, (len(self.prefix),))
            and (not self.conditional or self._meets(stored))
        )

    def _meets(self, stored: Selectable) -> bool:
        """Whether a response meets the conditions that are not in the key."""
        return (
            self._meets_url(stored)
            and (not self.status or stored.status == self.status)
            and (not self.tag or self._tagged(stored))
            and (not self.content_type or _is_of(stored.content_type, self.content_type))
            and (not self.type_pattern or _has(self.type_pattern, stored.content_type))
            and (not self.tag_pattern or _has(self.tag_pattern, _joined(stored.tags)))
        )

    def _meets_url(self, stored: Selectable) -> bool:
        if self.host not in (None, stored.host) or not stored.target.startswith(self.prefix):
            return False
        if self.host_pattern and not _has(self.host_pattern, stored.host):
            return False
        if self.hash and self.hash != url_hash(stored.host, stored.target):
            return False
        if self.source or self.source_host:
            sources = source_images(stored.scheme, stored.host, stored.target)
            if self.source and self.source not in sources:
                return False
            if self.source_host and self.source_host not in map(source_host, sources):
                return False
        return not self.pattern or self._found(stored)

    def _found(self, stored: Selectable) -> bool:
        text = stored.target
        if self.pattern_on == "url":
            text = f"{stored.scheme}://{stored.host}".encode() + text
        return compiled(self.pattern).search(text) is not None

    def _tagged(self, stored: Selectable) -> bool:
        if self.any_case:
            return any(tag.lower() == self.tag for tag in stored.tags)
        return self.tag in stored.tags


def stored_keys(
    name: KeyName, stored: Selectable, prefix_lengths: Iterable[int]
) -> Sequence[Hashable]:
    """The keys of all selectors with that `key_name` that may pick a response.

    Selectors by prefix have those lengths.
    """
    match name:
        case "url":
            return (stored.target_id, None), (stored.target_id, stored.host)
        case "hash":
            return (url_hash(stored.host, stored.target),)
        case "tag":
            return stored.tags
        case "any_case":
            return tuple({tag.lower() for tag in stored.tags})
        case "source":
            return source_images(stored.scheme, stored.host, stored.target)
        case "source_host":
            sources = source_images(stored.scheme, stored.host, stored.target)
            return tuple({source_host(source) for source in sources})
        case "prefix":
            target = stored.target
            starts = [target[:length] for length in prefix_lengths if length <= len(target)]
            return tuple((start, host) for start in starts for host in (None, stored.host))
        case "host":
            return (stored.host,)
        case "everything":
            return (None,)


def _has(pattern: str, text: str) -> bool:
    return bool(text) and compiled(pattern).search(text.encode()) is not None


def _joined(tags: Iterable[str]) -> str:
    return ",".join(tag for tag in tags if not is_group(tag))


def _is_of(content_type: str, wanted: str) -> bool:
    if wanted.endswith("/*"):
        return content_type.startswith(wanted[:-1])
    return content_type == wanted
