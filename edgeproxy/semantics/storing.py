"""Which responses may be stored (RFC 9111 3, 3.5), and which of their fields (3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeproxy.semantics.cache_control import DEFAULT_TARGETS, response_directives
from edgeproxy.semantics.deception import deceptive
from edgeproxy.semantics.forwarding import end_to_end
from edgeproxy.semantics.freshness import has_explicit_expiration, may_guess
from edgeproxy.semantics.vary import vary_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.semantics.cache_control import Directives
    from edgeproxy.semantics.fields import Fields
    from edgeproxy.semantics.freshness import FreshnessPolicy

UNDERSTOOD_STATUS: Final = frozenset(
    {
        *(200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 305, 307, 308),
        *(400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 413, 414, 415),
        *(421, 422, 426, 451, 500, 501, 502, 503, 504, 505),
    }
)
"""The status codes whose rules for caches are kept here (RFC 9111 5.2.2.3)."""

_NEVER_STORED: Final = frozenset(
    {
        # The answer to a range, a precondition or an expectation, none of which is in the key.
        *(206, 304, 412, 416, 417),
        # RFC 6585 3-6: "MUST NOT be stored by a cache".
        *(428, 429, 431, 511),
    }
)

# Errors that say something of the resource, not of a request: that it is not there, is no more, or
# may not be shown.
LASTING_ERRORS: Final = frozenset({404, 410, 451})

_VALIDATORS: Final = (b"etag", b"last-modified")


@dataclass(frozen=True, slots=True)
class StoragePolicy:
    """What a site decides of storing."""

    share_set_cookie: bool = False
    """Store responses with Set-Cookie wherever RFC 9111 allows it.

    If not, only those that say `public`: a cookie is commonly one reader's, and an origin that
    sets it may never have thought of a shared cache.
    """
    targets: tuple[bytes, ...] = DEFAULT_TARGETS
    """The fields that take Cache-Control's place, lower-case, most specific first (RFC 9213)."""
    errors: frozenset[int] = LASTING_ERRORS
    """The status codes from 400 on that are stored where RFC 9111 allows it.

    Most errors can be brought about by what is in no key: a field too long for the origin, one that
    a filter takes for an attack. Stored, one reader's error would be everybody's.
    """
    armour: bool = True
    """Let no response be fresh by guess whose Content-Type its URL's extension contradicts."""


def may_store(
    method: bytes,
    request_fields: Fields,
    status: int,
    fields: Fields,
    policy: StoragePolicy,
    freshness_policy: FreshnessPolicy,
    target: bytes,
) -> str | None:
    """None if the response may be stored, else the reason why not (RFC 9111 3).

    The reason is a token out of a fixed set, fit for the `detail` of Cache-Status. A request's own
    no-store is the caller's to obey: whether readers have a say is the site's choice. `target` is
    the request target.
    """
    if method != b"GET":
        return "method"
    directives, field = response_directives(fields, policy.targets)
    targeted = field != b"cache-control"
    if status < 200 or status in _NEVER_STORED:
        return "status"
    if directives.must_understand and status not in UNDERSTOOD_STATUS:
        return "status"
    # RFC 9111 5.2.2.3: for caches that know the status code, must-understand undoes no-store.
    if directives.no_store and not directives.must_understand:
        return "no-store"
    if directives.private and not directives.private_fields:
        return "private"
    # RFC 9111 3.5
    if b"authorization" in request_fields and not (
        directives.public or directives.must_revalidate or directives.s_maxage is not None
    ):
        return "authorization"
    if vary_names(fields) is None:
        return "vary-star"
    if (
        b"set-cookie" in fields
        and not policy.share_set_cookie
        and not directives.public
        and b"set-cookie" not in _unstored_fields(directives)
    ):
        return "set-cookie"
    if status >= 400 and status not in policy.errors:
        return "error-status"
    useless = _useless(status, fields, directives, targeted, freshness_policy)
    if useless is not None:
        return useless
    # What it says for shared caches is its word that all may have it. A mere max-age is for the
    # reader's own cache as well, and servers send it with any page.
    meant = directives.public or directives.s_maxage is not None
    meant = meant or (targeted and directives.max_age is not None)
    if policy.armour and not meant and deceptive(target, fields):
        return "content-type"
    return None


def posted_for_get(status: int, fields: Fields, policy: StoragePolicy) -> bool:
    """Whether an answer to POST may be stored for GET, if Content-Location names the POST's own
    target: it states how long it is fresh, and is a representation (RFC 9110 8.7, 9.3.3)."""
    directives, field = response_directives(fields, policy.targets)
    return status in (200, 203) and has_explicit_expiration(
        fields, directives, targeted=field != b"cache-control"
    )


def _useless(
    status: int,
    fields: Fields,
    directives: Directives,
    targeted: bool,
    freshness_policy: FreshnessPolicy,
) -> str | None:
    """Why the response could never be used again, if it could not."""
    can_be_validated = any(name in fields for name in _VALIDATORS)
    if directives.no_cache and not directives.no_cache_fields and not can_be_validated:
        return "no-cache"
    if has_explicit_expiration(fields, directives, targeted):
        return None
    if not may_guess(status, directives):
        return "no-freshness"
    if freshness_policy.default_ttl is None and not can_be_validated:
        return "no-freshness"
    return None


def storable_fields(fields: Fields, targets: Sequence[bytes] = DEFAULT_TARGETS) -> Fields:
    """What is stored of a response's fields, in their order (RFC 9111 3.1).

    Fields that `private` or `no-cache` name are left out: they are for one reader, or good for one
    use (RFC 9111 5.2.2.4, 5.2.2.7), and without them the rest may be used again.
    """
    directives, _ = response_directives(fields, targets)
    return end_to_end(fields).without(_unstored_fields(directives))


def _unstored_fields(directives: Directives) -> frozenset[bytes]:
    return directives.private_fields | directives.no_cache_fields
