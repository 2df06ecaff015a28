"""What to do with a request now: what is stored for it is looked up, and `decide` asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from edgeproxy.proxy.decide import Candidate, Revalidate, decide, decide_in_part

if TYPE_CHECKING:
    from edgeproxy.proxy.decide import Decision
    from edgeproxy.proxy.incomplete import Incomplete
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.proxy.memo import RefreshBackoff, UncacheableKeys
    from edgeproxy.proxy.request import EdgeRequest


class Decided(msgspec.Struct, frozen=True):
    """What to do with a request, and what that was made from."""

    decision: Decision
    found: Found | None
    """The stored response that answers it, or is to be validated."""
    vary: tuple[bytes, ...]
    """The request field names that responses under its key vary by, as far as is known."""


class Unanswered(msgspec.Struct, frozen=True):
    """A GET or HEAD request of HTTP/1.1, without a body, that has been read and decided about, and
    not answered yet."""

    request: EdgeRequest
    decided: Decided
    position: int
    """The journal's, before it was decided: as long as it has not moved, that is good."""
    target: bytes
    """What it asks for, as it was sent."""
    size: int
    """Bytes of its head: where it ends, the next request begins."""
    closing: bool
    """Whether its client wants no further answer (RFC 9112 9.6)."""


class Deciding:
    """Decides about GET and HEAD requests that `classify` let through. Reads, and does nothing."""

    def __init__(
        self,
        lookup: Lookup,
        incomplete: Incomplete,
        uncacheable: UncacheableKeys,
        backoff: RefreshBackoff,
    ) -> None:
        self._lookup = lookup
        self._incomplete = incomplete
        self._uncacheable = uncacheable
        self._backoff = backoff

    def decide(self, request: EdgeRequest, now: float) -> Decided:
        """How to answer a request at `now`."""
        looked = self._lookup.find(
            request.key.primary, request.fields, request.policy, now, request.not_before
        )
        found = looked.found
        in_part = found is None and request.method == b"GET" and not request.not_before
        may_be = in_part and not looked.nothing
        incomplete = self._incomplete.select(request) if may_be else None
        if incomplete is not None and incomplete.ranges:
            found = incomplete.found
        decision = decide(
            request.directives,
            self._candidate(found, now),
            honour=request.honour_directives,
            other_variants=looked.other_variants,
            uncacheable=self._uncacheable.reason(request.key.primary, now),
            now=now,
        )
        if in_part:
            decision = decide_in_part(
                decision, request.directives, request.fields, incomplete=incomplete is not None
            )
        if request.anew and isinstance(decision, Revalidate):
            # Its client wants to know whether there is something new.
            decision = replace(decision, on_error=False)
        return Decided(decision, found, looked.vary)

    def _candidate(self, found: Found | None, now: float) -> Candidate | None:
        if found is None:
            return None
        backing_off = self._backoff.active(found.stored.id, now)
        return Candidate(found.freshness, found.validity, backing_off)
