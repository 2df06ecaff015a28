"""How long a response is fresh, and how long past that it may serve (RFC 9111 4.2, RFC 5861)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias, get_args

import msgspec

from edgeproxy.semantics.age import corrected_initial_age, current_age, date_value
from edgeproxy.semantics.cache_control import DEFAULT_TARGETS, response_directives
from edgeproxy.semantics.dates import parse_http_date

if TYPE_CHECKING:
    from edgeproxy.semantics.cache_control import Directives
    from edgeproxy.semantics.fields import Fields

HEURISTICALLY_CACHEABLE: Final = frozenset(
    {200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501}
)
"""The status codes whose responses may be fresh though nothing says so (RFC 9110 15.1)."""

Source: TypeAlias = Literal["s-maxage", "max-age", "expires", "heuristic", "default", "none"]
"""Where a freshness lifetime comes from; "default" is the policy's, "none" leaves it 0."""

_SOURCES: Final[tuple[Source, ...]] = get_args(Source)
_PACKED: Final = Struct("!5dB4?")


@dataclass(frozen=True, slots=True)
class FreshnessPolicy:
    """What a site adds to the origin's word. Times are in seconds."""

    default_ttl: float | None = None
    """The lifetime where the origin states none but one may be guessed; None: RFC 9111 4.2.2's."""
    max_ttl: float | None = None
    """The longest lifetime, whoever states it."""
    heuristic_fraction: float = 0.1
    """The share of the time since Last-Modified that is taken for a lifetime."""
    heuristic_max: float = 86_400.0
    """The longest lifetime that is guessed so."""
    grace: float = 0.0
    """stale-while-revalidate where the origin says nothing: RFC 9111 4.2.4 wants somebody's
    express word for it."""
    error_grace: float = 86_400.0
    """stale-if-error where the origin says nothing: RFC 9111 4.2.4 allows it to a cache that is
    disconnected, and 4.3.3 to take a 5xx for that."""
    targets: tuple[bytes, ...] = DEFAULT_TARGETS
    """The fields that take Cache-Control's place, lower-case, most specific first (RFC 9213)."""


class Freshness(msgspec.Struct, frozen=True, gc=False):
    """All that is to be known of a response to tell at any time whether it may be used.

    Durations are in seconds, `response_time` in seconds since the epoch.
    """

    lifetime: float
    source: Source
    initial_age: float
    response_time: float
    stale_while_revalidate: float
    """How long past freshness it may be used at once, while it is refreshed (RFC 5861 3)."""
    stale_if_error: float
    """How long past freshness it may be used because the origin fails (RFC 5861 4)."""
    must_validate: bool
    """No use without validation, fresh or not: an unqualified no-cache (RFC 9111 5.2.2.4)."""
    must_revalidate: bool
    """The origin forbids in so many words to use it when it is stale (RFC 9111 4.2.4)."""
    no_stale: bool
    """So it does, or s-maxage implies it (RFC 9111 5.2.2.10); no request may ask for it then."""
    immutable: bool
    """While fresh, a reader's reload is no reason to validate it (RFC 8246 2)."""

    PACKED: ClassVar[int] = _PACKED.size
    """How many bytes `pack` gives."""

    def pack(self) -> bytes:
        """The same in few bytes, for where there are many."""
        lifetime, source, *others = msgspec.structs.astuple(self)
        return _PACKED.pack(lifetime, *others[:4], _SOURCES.index(source), *others[4:])

    @classmethod
    def unpack(cls, packed: bytes, at: int = 0) -> Freshness:
        """The freshness that `pack` was asked for; what it gave is in `packed` from `at` on."""
        lifetime, aged, came, revalidating, on_error, source, *flags = _PACKED.unpack_from(
            packed, at
        )
        return cls(lifetime, _SOURCES[source], aged, came, revalidating, on_error, *flags)

    def age(self, now: float) -> float:
        """How old it is (RFC 9111 4.2.3)."""
        return current_age(self.initial_age, self.response_time, now)

    def ttl(self, now: float) -> float:
        """How long it stays fresh; not positive once it is stale."""
        return self.lifetime - self.age(now)

    def is_fresh(self, now: float) -> bool:
        """RFC 9111 4.2: `response_is_fresh = (freshness_lifetime > current_age)`."""
        return self.lifetime > self.age(now)


def assess_freshness(
    status: int,
    fields: Fields,
    request_time: float,
    response_time: float,
    policy: FreshnessPolicy,
    stepped: float = 0.0,
) -> Freshness:
    """The freshness of a response whose request left, and whose head came, at these times.

    `stepped`: by how many seconds the clock that they go by was set forward since then. The dates
    in its fields mean what they meant when it came.
    """
    directives, field = response_directives(fields, policy.targets)
    targeted = field != b"cache-control"
    asked, came = request_time - stepped, response_time - stepped
    lifetime, source = _lifetime(status, fields, came, directives, targeted, policy)
    while_revalidating, on_error = _stale_windows(lifetime, source, directives, policy)
    if policy.max_ttl is not None:
        lifetime = min(lifetime, policy.max_ttl)
    return Freshness(
        lifetime=lifetime,
        source=source,
        initial_age=corrected_initial_age(fields, asked, came),
        response_time=response_time,
        stale_while_revalidate=while_revalidating,
        stale_if_error=on_error,
        must_validate=_unqualified_no_cache(directives),
        must_revalidate=_forbids_stale(directives),
        no_stale=_forbids_stale(directives) or directives.s_maxage is not None,
        immutable=directives.immutable,
    )


def has_explicit_expiration(fields: Fields, directives: Directives, targeted: bool) -> bool:
    """Whether the origin states a freshness lifetime, be it 0 or unreadable (RFC 9111 4.2.1).

    `targeted`: the directives are those of a targeted field, and Expires is ignored (RFC 9213 2.2).
    """
    if directives.s_maxage is not None or directives.max_age is not None:
        return True
    return not targeted and b"expires" in fields


def may_guess(status: int, directives: Directives) -> bool:
    """Whether a lifetime may be assigned where none is stated (RFC 9111 4.2.2)."""
    return status in HEURISTICALLY_CACHEABLE or directives.public


def _lifetime(
    status: int,
    fields: Fields,
    response_time: float,
    directives: Directives,
    targeted: bool,
    policy: FreshnessPolicy,
) -> tuple[float, Source]:
    # RFC 9111 4.2.1: the first of these that is there, for a shared cache.
    if directives.s_maxage is not None:
        return float(directives.s_maxage), "s-maxage"
    if directives.max_age is not None:
        return float(directives.max_age), "max-age"
    if has_explicit_expiration(fields, directives, targeted):
        return _until_expires(fields, response_time), "expires"
    if not may_guess(status, directives):
        return 0.0, "none"
    if policy.default_ttl is not None:
        return policy.default_ttl, "default"
    return _guessed(fields, response_time, policy)


def _until_expires(fields: Fields, response_time: float) -> float:
    # RFC 9111 5.3: an invalid date, and "0" above all, is in the past. 4.2.1: of two lines the
    # first counts, or the response is stale: the latter can't be wrong.
    lines = fields.get_all(b"expires")
    expires = parse_http_date(lines[0], response_time) if len(lines) == 1 else None
    if expires is None:
        return 0.0
    return max(0.0, expires - date_value(fields, response_time))


def _guessed(fields: Fields, response_time: float, policy: FreshnessPolicy) -> tuple[float, Source]:
    # RFC 9111 4.2.2. A date that is not in the past is that of a page made on the spot.
    line = fields.get(b"last-modified")
    modified = parse_http_date(line, response_time) if line is not None else None
    if modified is None:
        return 0.0, "none"
    unchanged = date_value(fields, response_time) - modified
    if unchanged <= 0:
        return 0.0, "none"
    return min(unchanged * policy.heuristic_fraction, policy.heuristic_max), "heuristic"


def _stale_windows(
    lifetime: float, source: Source, directives: Directives, policy: FreshnessPolicy
) -> tuple[float, float]:
    """stale-while-revalidate and stale-if-error: the origin's, else the policy's, if any may be."""
    if _forbids_stale(directives):
        return 0.0, 0.0
    grace, error_grace = policy.grace, policy.error_grace
    if directives.s_maxage is not None or source == "none":
        # RFC 9111 5.2.2.10: s-maxage "incorporates the semantics of proxy-revalidate", so the edge
        # adds nothing of its own. What the origin itself allows next to it is its express word,
        # as RFC 9111 4.2.4 asks for: "s-maxage=1, stale-while-revalidate=59" has no other sense.
        # And what was never said to be fresh has no time past freshness.
        grace = error_grace = 0.0
    elif lifetime <= 0 and source != "default":
        # An origin that says "max-age=0" wants to be asked each time, as long as it can be.
        grace = 0.0
    while_revalidating, on_error = directives.stale_while_revalidate, directives.stale_if_error
    return (
        grace if while_revalidating is None else float(while_revalidating),
        error_grace if on_error is None else float(on_error),
    )


def _forbids_stale(directives: Directives) -> bool:
    # RFC 9111 4.2.4, whatever else the response says.
    return (
        directives.must_revalidate
        or directives.proxy_revalidate
        or _unqualified_no_cache(directives)
    )


def _unqualified_no_cache(directives: Directives) -> bool:
    # The qualified form concerns only the fields it names, which are not stored.
    return directives.no_cache and not directives.no_cache_fields
