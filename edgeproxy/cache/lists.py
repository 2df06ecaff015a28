"""The lists that stored responses are filed in, and the parts of them that a selection reads.

All lists are in one database whose keys are, in this order:

    what the list is of    1 byte: a site, URLs, tags, ...
    site                   16 bytes, a hash of its name
    environment            1 byte
    value                  a host, NUL and a target; a tag; ...; hashed from where it is too long

and whose values are the ids of the responses, so that what is asked for lies side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from edgeproxy.semantics.environment import ENVIRONMENTS
from edgeproxy.semantics.source_image import source_host, source_images
from edgeproxy.semantics.url_hash import value_digest

if TYPE_CHECKING:
    from edgeproxy.cache.stored import StoredResponse

# LMDB's keys have at most 511 bytes.
_MAX_VALUE: Final = 480
_HASH: Final = 16
WHOLE: Final = _MAX_VALUE - _HASH
"""So many bytes of a value are always there as they are."""
WHOLE_TARGET: Final = WHOLE - 262
"""And so many of a target, behind the longest host."""
_ENVIRONMENTS: Final[tuple[str, ...]] = ENVIRONMENTS
HEAD_SIZE: Final = 1 + _HASH + 1
"""What stands before the value in a key."""


class List(IntEnum):
    """What a list is of."""

    SITE = 1
    URL = 2
    """Host, NUL, target."""
    TAG = 3
    FOLDED_TAG = 4
    """The tag in lower case, where no tag of the response is just that."""
    SOURCE = 5
    """The image that it was made from."""
    SOURCE_HOST = 6
    HASH = 7
    """Of the URL, as `url_digest` makes it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A run of keys: one key, or all that begin like it."""

    list: List
    site: str
    environment: str | None
    """None: every environment."""
    value: bytes
    open: bool = False
    """Whether all values that begin with `value` are meant."""
    any_host: bool = False
    """For URLs: `value` is the target alone, for whatever host."""


def heads(span: Span) -> list[bytes]:
    """What the keys of a span begin with before the value, in order."""
    chosen = _ENVIRONMENTS if span.environment is None else (span.environment,)
    return sorted(_head(span.list, span.site, environment) for environment in chosen)


def shortened(value: bytes, *, is_open: bool = False) -> bytes:
    """A value as keys have it; of an open one, what the keys of all that begin so begin with."""
    if is_open:
        return value[:WHOLE]
    if len(value) <= _MAX_VALUE:
        return value
    return value[:WHOLE] + blake2b(value, digest_size=_HASH).digest()


def may_be_shortened(value: bytes) -> bool:
    """Whether a value in a key may stand for a longer one."""
    return len(value) == _MAX_VALUE


def keys_of(stored: StoredResponse) -> list[bytes]:
    """The keys of the lists that a response is in; each once."""
    # A purge may come here for millions of them: hence no more steps than have to be.
    site, url, tagged, folded_tagged, source, host_of, hashed = _heads(
        stored.site, stored.environment
    )
    tags, value = stored.tags, url_value(stored.host, stored.target)
    keys = [site, url + shortened(value), hashed + value_digest(value)]
    keys += [tagged + shortened(tag.encode()) for tag in tags]
    folded = {lower for tag in tags if (lower := tag.lower()) != tag}
    if folded:
        folded.difference_update(tags)
        keys += [folded_tagged + shortened(tag.encode()) for tag in folded]
    sources = source_images(stored.scheme, stored.host, stored.target)
    if sources:
        keys += [source + shortened(name.encode()) for name in sources]
        hosts = {host for name in sources if (host := source_host(name)) is not None}
        keys += [host_of + shortened(host.encode()) for host in hosts]
    return keys


def url_value(host: str, target: bytes) -> bytes:
    """What stands for a URL; the scheme makes no difference."""
    return b"%b\0%b" % (host.encode(), target)


@lru_cache(maxsize=128)
def _heads(site: str, environment: str) -> tuple[bytes, ...]:
    return tuple(_head(of, site, environment) for of in List)


@lru_cache(maxsize=1024)
def _head(of: List, site: str, environment: str) -> bytes:
    digest = blake2b(site.encode(), digest_size=_HASH, person=b"site").digest()
    return bytes((of, *digest, _ENVIRONMENTS.index(environment)))
