"""Why a call of the admin port is refused, whatever its language: each dialect has its own words.

Code that all dialects share raises `Refused`; what the caller reads of it is made in one place a
dialect (`Dialect.refuse`), and for the own API in `problems`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, TypeAlias

from edgeproxy.invalidation.journal import JournalError
from edgeproxy.invalidation.service import StoreError, TooManyRules

if TYPE_CHECKING:
    from collections.abc import Sequence


log = logging.getLogger(__name__)

_SWEEP_SECONDS = 1.0
"""After so long rules that waited have been worked off."""
_STORE_SECONDS = 5.0
"""After so long a store that was damaged has been set aside."""


class Why(Enum):
    """The kinds of refusal; the value is the HTTP status where a dialect has no other."""

    def __init__(self, status: int, _: str) -> None:
        self.status = status

    NO_CREDENTIALS = 401, "no token was sent, or not in the dialect's way"
    UNKNOWN_TOKEN = 401, "the token is nobody's, or its second secret does not fit"
    DISABLED = 403, "the token is known, and switched off"
    EXPIRED = 401, "the token was good until some time ago"
    WRONG_NETWORK = 403, "the token may not be used from there"
    OVER_CALL_LIMIT = 403, "the token was good for so many calls"
    RATE_LIMITED = 429, "too many calls in too short a time; `limit` is set"
    FORBIDDEN = 403, "the token may not do that, or not to that site"
    UNKNOWN_SITE = 404, "there is no such site; only tokens for all sites learn that"
    BAD_REQUEST = 400, "something is missing or wrong; `faults` says which fields"
    TOO_LARGE = 413, "the body is too large"
    TOO_SLOW = 408, "the body took too long to come"
    WRONG_CONTENT_TYPE = 415, "the body is in no form that is read here"
    NOT_FOUND = 404, "there is nothing at that path"
    WRONG_METHOD = 405, "there is, but not for that method; `allow` is set"
    FAILED = 500, "a fault of the edge; its log says what"
    UNUSABLE = 503, "the journal can't be written: nothing was purged"
    TOO_MANY_RULES = 503, "too many patterns are being worked off; `retry_after` is set"
    BUSY = 503, "too many secrets are being checked; `retry_after` is set"


Rule: TypeAlias = Literal[
    "required", "type", "min_length", "max_length", "min_size", "max_size", "format", "unknown"
]
"""What a field breaks: lengths are those of texts, sizes those of lists."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one field."""

    field: str
    """Its path as the caller wrote it: `tags[2]`."""
    detail: str
    rule: Rule = "format"


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate limit that was reached."""

    total: int
    """The calls that are allowed in the window."""
    reset: float
    """When the window ends, in seconds since the epoch."""


class Refused(Exception):
    """A call that is refused, in words for its caller: no secret, nothing of the inside."""

    def __init__(
        self,
        why: Why,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        allow: Sequence[str] = (),
        limit: Limit | None = None,
        retry_after: float | None = None,
        site: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.why = why
        self.detail = detail
        self.faults = tuple(faults)
        self.allow = tuple(allow)
        """The methods that there are."""
        self.limit = limit
        self.retry_after = retry_after
        """Seconds after which it may be tried again."""
        self.site = site
        """The site that was named, where that is what is wrong."""

    @classmethod
    def bad_request(cls, *faults: Fault) -> Refused:
        """A call some of whose fields are wrong."""
        detail = "; ".join(f"{each.field}: {each.detail}" for each in faults)
        return cls(Why.BAD_REQUEST, detail, faults=faults)

    def headers(self, status: int) -> dict[str, str]:
        """The fields that HTTP asks for with that status, whatever the dialect."""
        headers = {}
        if status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="edgeproxy"'  # RFC 9110 11.6.1
        if self.allow:
            headers["Allow"] = ", ".join(self.allow)  # RFC 9110 10.2.1
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, -int(-self.retry_after // 1)))  # RFC 9110 10.2.3
        return headers


def refusal_of(error: Exception, what: str) -> Refused:
    """What the caller of `what` ("POST /path") is told of an error; our own faults are logged."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, TooManyRules):
        return Refused(Why.TOO_MANY_RULES, str(error), retry_after=_SWEEP_SECONDS)
    if isinstance(error, JournalError):
        # Such as a full disk. Which folder it is, is for the log alone.
        log.error("%s was not done: %s", what, error)
        return Refused(Why.UNUSABLE, "the journal can't be written: nothing was purged")
    if isinstance(error, StoreError):
        log.error("%s may not have been done: %s", what, error)
        detail = "the store can't be used just now: try again"
        return Refused(Why.UNUSABLE, detail, retry_after=_STORE_SECONDS)
    log.error("%s failed", what, exc_info=error)
    return Refused(Why.FAILED, "the edge failed; its log says how")
