"""What is stored for a request: first in the worker's memory, then in the node's shared tier.

Every answer has been held against the journal: what an invalidation deleted is not found, and what
one invalidated says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeproxy.cache.memory import Entry
from edgeproxy.invalidation.rules import Standing
from edgeproxy.invalidation.view import marked
from edgeproxy.proxy.decide import Validity
from edgeproxy.semantics.age import date_value
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.freshness import assess_freshness
from edgeproxy.semantics.vary import matches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.cache.memory import MemoryTier
    from edgeproxy.cache.store import SharedTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.in_flight import RememberedTargets
    from edgeproxy.semantics.freshness import Freshness


@dataclass(frozen=True, slots=True)
class Found:
    """A stored response that matches a request, and how it stands."""

    stored: StoredResponse
    fields: Fields
    freshness: Freshness
    validity: Validity
    entry: Entry | None
    """Where it is in memory, body and all; None: in the shared tier alone."""
    checked: int
    """The journal position up to which `validity` is known to hold."""

    def stored_as(self, stored: StoredResponse) -> Found:
        """The same response as it was stored: with its body, and marked if it was invalidated."""
        validity = Validity.INVALIDATED if stored.invalidated else Validity.VALID
        return Found(stored, self.fields, self.freshness, validity, None, stored.position)


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look into the cache brought."""

    found: Found | None
    vary: tuple[bytes, ...]
    """The request field names that responses under this key vary by, as far as is known."""
    other_variants: bool
    """Something is stored under the key, though for other requests."""
    nothing: bool = field(default=False, compare=False)
    """The shared tier has nothing at all under the key."""


def newness(stored: StoredResponse) -> tuple[int, float]:
    """What tells the newer of two responses: the journal's position, which was noted before their
    requests left, then the time when they came."""
    return stored.position, stored.response_time


def recency(stored: StoredResponse, fields: Fields) -> tuple[float, int, float]:
    """What tells which of two responses for different requests is to be used, where both could be:
    the most recent one by its Date (RFC 9111 4)."""
    return date_value(fields, stored.response_time), *newness(stored)


def freshness_of(stored: StoredResponse, fields: Fields, policy: SitePolicy) -> Freshness:
    """The freshness of a stored response under the policy of its site; `fields` are its own."""
    return assess_freshness(
        stored.status,
        fields,
        stored.request_time,
        stored.response_time,
        policy.freshness,
        stored.stepped,
    )


class Lookup:
    """The two tiers, seen as one."""

    def __init__(
        self,
        memory: MemoryTier,
        tier: SharedTier,
        view: JournalView,
        remembered: RememberedTargets,
        memory_object: int,
    ) -> None:
        """`memory_object`: the longest body that is kept in memory, in bytes."""
        self._memory = memory
        self._tier = tier
        self._view = view
        self._remembered = remembered
        self._memory_object = memory_object
        self.policies: Mapping[str, SitePolicy] = {}
        """By site, as of the last reload."""

    def find(
        self,
        primary: bytes,
        fields: Fields,
        policy: SitePolicy,
        now: float,
        not_before: int = 0,
    ) -> Looked:
        """The stored response for a request with these `fields`, the newest where several match;
        none that was asked for before the journal was at `not_before`.

        Synchronous: between reading a response and judging it nothing else runs, so no rule can be
        dropped in between.
        """
        head = self._view.catch_up()
        found = self._in_memory(primary, fields, head, now)
        if found is not None and found.stored.position < not_before:
            found = None
        if found is not None and found.validity is Validity.VALID and found.freshness.is_fresh(now):
            return Looked(found, (), other_variants=False)
        # Another worker may have refreshed what is stale, purged or missing here.
        return self._in_tier(primary, fields, policy, found, head, not_before)

    def _in_memory(self, primary: bytes, fields: Fields, head: int, now: float) -> Found | None:
        matching: list[tuple[Entry, StoredResponse, Fields]] = []
        for entry in self._memory.get(primary):
            stored = entry.stored
            entry_fields = Fields(stored.fields)
            if matches(stored.selecting, fields, entry_fields):
                matching.append((entry, stored, entry_fields))
        if not matching:
            return None
        best, stored, stored_fields = matching[0]
        if len(matching) > 1:
            best, stored, stored_fields = max(matching, key=lambda match: recency(*match[1:]))
        if stored.deleted_from and stored.deleted_from <= now:
            self._memory.discard(stored.id)
            return None
        invalidated = stored.invalidated != 0
        if best.checked != head:
            if best.checked < self._view.floor:
                # Rules that may concern it are gone, swept through the store: that one knows.
                self._memory.discard(stored.id)
                return None
            verdict = self._view.verdict(stored, best.checked)
            if verdict.standing is Standing.DELETED:
                self._memory.discard(stored.id)
                return None
            if verdict.standing is Standing.INVALIDATED:
                invalidated = True
            else:
                best.checked = head
        self._memory.touch(best)
        validity = Validity.INVALIDATED if invalidated else Validity.VALID
        return Found(stored, stored_fields, best.freshness, validity, best, best.checked)

    def _in_tier(
        self,
        primary: bytes,
        fields: Fields,
        policy: SitePolicy,
        known: Found | None,
        head: int,
        not_before: int,
    ) -> Looked:
        best: tuple[StoredResponse, Fields] | None = None
        vary: tuple[bytes, ...] = ()
        newest: StoredResponse | None = None
        others = False
        rows = self._tier.lookup(primary)
        for stored in rows:
            verdict = self._view.verdict(stored, stored.position)
            if verdict.standing is Standing.DELETED or not self._tier.reachable(stored):
                continue
            if newest is None or newness(stored) > newness(newest):
                newest, vary = stored, tuple(name for name, _ in stored.selecting)
            if stored.incomplete or stored.position < not_before:
                continue
            stored_fields = Fields(stored.fields)
            if not matches(stored.selecting, fields, stored_fields):
                others = True
            elif best is None or recency(stored, stored_fields) > recency(*best):
                if verdict.standing is Standing.INVALIDATED:
                    stored = marked(stored, verdict)
                best = stored, stored_fields
        if best is None:
            if known is None:
                return Looked(None, vary, others, nothing=not rows)
            return Looked(known, tuple(name for name, _ in known.stored.selecting), others)
        if known is not None:
            same = known.stored.id == best[0].id
            if (
                newness(known.stored) >= newness(best[0])
                if same
                else recency(known.stored, known.fields) >= recency(*best)
            ):
                return Looked(known, vary, others)
        return Looked(self.judge(best[0], policy, head), vary, others)

    def all_stored(self, primary: bytes) -> tuple[StoredResponse, ...]:
        """All whole responses stored under a key, whatever request they are for, good or stale."""
        self._view.catch_up()
        return tuple(
            stored
            for stored in self._tier.lookup(primary)
            if not stored.incomplete
            and self._tier.reachable(stored)
            and self._view.verdict(stored, stored.position).standing is not Standing.DELETED
        )

    def deleted(self, found: Found) -> bool:
        """Whether an invalidation has deleted it since it was found; True where nobody can tell."""
        self._view.catch_up()
        if found.checked < self._view.floor:
            return True
        verdict = self._view.verdict(found.stored, found.checked)
        return verdict.standing is Standing.DELETED

    def judge(self, stored: StoredResponse, policy: SitePolicy, checked: int) -> Found:
        """A stored response with its freshness computed under the site's policy.

        `checked`: the journal position up to which `stored.invalidated` is known to be right.
        """
        fields = Fields(stored.fields)
        freshness = freshness_of(stored, fields, policy)
        validity = Validity.INVALIDATED if stored.invalidated else Validity.VALID
        return Found(stored, fields, freshness, validity, None, checked)

    def remember(self, found: Found, body: bytes) -> Entry:
        """Keep a response in memory, unless it is too long for that; a journal that has moved on
        is checked at its next hit."""
        entry = Entry.of(found.stored, body, found.freshness, found.checked)
        self.keep(entry, found.stored.target_id)
        return entry

    def remember_by(self, policy: SitePolicy, found: Found, body: bytes) -> None:
        """The same, unless a reload has put another policy in the place of this one: what was
        judged by it, for a request from before, is not for others."""
        if self.policies.get(policy.name, policy) is policy:
            self.remember(found, body)

    def keep(self, entry: Entry, target_id: bytes) -> None:
        """Keep an entry in memory, unless its body is too long for that."""
        if len(entry.body) <= self._memory_object:
            self._remembered.add(target_id)
            self._memory.put(entry)

    def holds(self, entry: Entry) -> bool:
        """Whether no invalidation since it was last judged concerns what is in memory."""
        head = self._view.catch_up()
        if entry.checked == head:
            return True
        if entry.checked < self._view.floor:
            # Rules that may concern it are gone, swept through the store: that one knows.
            return False
        if self._view.verdict(entry.stored, entry.checked).standing is not Standing.VALID:
            return False
        entry.checked = head
        return True

    def keep_head(self, entry: Entry, head: bytes) -> None:
        """Keep what was rendered of an entry's head with it."""
        self._memory.set_head(entry, head)

    def discard(self, stored_id: bytes) -> None:
        """Drop a response from memory; what the shared tier has of it is not touched."""
        self._memory.discard(stored_id)
