"""Whether what another request's fetch brings can answer a request that waited for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.invalidation.rules import Standing
from edgeproxy.proxy.decide import Candidate, Hit, Stale, decide
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.vary import matches

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.collapsing import Flight
    from edgeproxy.proxy.lookup import Lookup
    from edgeproxy.proxy.request import EdgeRequest


@dataclass(frozen=True, slots=True)
class Sharing:
    """Judges other requests' responses."""

    lookup: Lookup
    view: JournalView
    clock: Callable[[], float]

    def answers(
        self,
        request: EdgeRequest,
        flight: Flight,
        response: StoredResponse,
        asked_at: int,
        *,
        early: bool,
    ) -> bool:
        """Whether a flight's response can answer a request that arrived at position `asked_at`.

        `early`: it came before the flight's own request left. Where another such request could not
        use the response either, nobody joins the flight any more.
        """
        if not matches(response.selecting, request.fields, Fields(response.fields)):
            return False
        # RFC 9111 5.2.2.4: what the origin was asked before this request came is no validation for
        # it. The next fetch is, and all who wait for that share it.
        if self._stands(response, asked_at) and (
            early or self._needs_no_validation(request, response)
        ):
            return True
        flight.joinable = False
        return False

    def _stands(self, response: StoredResponse, asked_at: int) -> bool:
        """An invalidation that was answered before the request came in must be seen by it, though
        the fetch had left before; one that came while the request waited may be."""
        if response.position < self.view.floor:
            return False
        # Rules after `asked_at` don't count: an older one must not hide behind a newer.
        verdict = self.view.verdict(response, response.position, asked_at)
        return verdict.standing is Standing.VALID

    def _needs_no_validation(self, request: EdgeRequest, response: StoredResponse) -> bool:
        found = self.lookup.judge(response, request.policy, response.position)
        decision = decide(
            request.directives,
            Candidate(found.freshness, found.validity),
            honour=request.honour_directives,
            other_variants=False,
            uncacheable=None,
            now=self.clock(),
        )
        return isinstance(decision, Hit | Stale)
