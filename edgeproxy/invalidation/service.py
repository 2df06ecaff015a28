"""What the admin side and the proxy call: invalidate this, and tell how much it was."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.cache.errors import StoreError as StoreError  # what a count may raise
from edgeproxy.invalidation.counting import ENOUGH, Count
from edgeproxy.invalidation.ranking import most_used
from edgeproxy.invalidation.record import Buster, Record
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.semantics.key import target_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgeproxy.cache.store import SharedTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.jobs import Job
    from edgeproxy.invalidation.journal import LocalJournal
    from edgeproxy.invalidation.view import JournalView

MAX_CONDITIONAL = 1000
"""Rules with conditions or deadlines that may wait in one place to be swept for: each look-up there
goes through them."""
MAX_DEADLINE = 365 * 86_400.0
"""Seconds for which a deletion may be put off."""
MAX_REFRESHED = 10_000
"""Most responses that one purge has fetched anew."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_BUSTER_LENGTH = 20
"""As many as nobody guesses."""
_COUNTS = 64
"""Purges that are counted at a time: each has a read transaction open meanwhile, and LMDB has room
for so many on the whole node."""


class TooManyRules(Exception):
    """There are too many rules of its kind already that have yet to be swept for: try again."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for something, for the record."""

    actor: str
    """The name of a token, or of what else let them in."""
    source: str
    """From where: an address."""
    dialect: str = "edgeproxy"
    """In which API's words."""


@dataclass(frozen=True, slots=True)
class PurgeResult:
    """What became of a purge."""

    id: str | None
    """The record's; None for a dry run, which leaves none."""
    position: int
    """The record's place in the journal; of a dry run: the head that it was counted at."""
    mode: Mode
    matched: int
    """Stored responses of the node that it picked, without those that were deleted before."""
    dry_run: bool
    job: Job | None = None
    """What fetches it anew, if that was asked for."""


@dataclass(frozen=True, slots=True)
class IssuedBuster:
    """A cache buster that was issued."""

    token: str
    site: str
    position: int


class InvalidationService:
    """Records invalidations, and counts what they pick."""

    def __init__(
        self,
        journal: LocalJournal,
        view: JournalView,
        tier: SharedTier,
        clock: Callable[[], float],
        maybe_in_flight: Callable[[bytes], bool],
        refresh: Callable[[str, str, Sequence[StoredResponse]], Job],
        *,
        max_conditional: int = MAX_CONDITIONAL,
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`maybe_in_flight`: False when no worker of the node fetches a target (by its id).

        `refresh`: begins to fetch responses anew, in that order, after the purge of that id that
        somebody of that name asked for.
        """
        self._journal = journal
        self._view = view
        self._tier = tier
        self._clock = clock
        self._maybe_in_flight = maybe_in_flight
        self._refresh = refresh
        self._max_conditional = max_conditional
        self._on_refused = on_refused
        self._counting = asyncio.Semaphore(_COUNTS)

    async def purge(
        self,
        selectors: Sequence[Selector],
        mode: Mode,
        caller: Caller,
        *,
        deadline: float = 0.0,
        dry_run: bool = False,
        refresh: bool = False,
    ) -> PurgeResult:
        """Invalidate or delete what any of the selectors picks.

        On return no worker of the node serves it as fresh (or at all), whatever was in the air.
        A DELETE with a `deadline` lets the stale copies be served for so many seconds while they
        are refreshed. Costs the same however much it picks. With `refresh` what it picked is then
        fetched anew, what is used most first, by a job. Raises JournalError if it could not be
        recorded, and TooManyRules.
        """
        if not selectors:
            raise ValueError("a purge needs a selector")
        if not 0 <= deadline <= MAX_DEADLINE or (deadline and mode is not Mode.DELETE):
            raise ValueError(f"a deadline of {deadline} seconds for {mode.value}")
        draft = self._draft(selectors, mode, caller, deadline)
        self._check_room(draft)
        record: Record | None = None
        hottest: list[StoredResponse] = []
        # The rules that count are those of now, however long the count takes.
        with self._view.hold(self._view.floor):
            async with self._counting:
                with self._tier.snapshot() as snapshot:
                    position = self._view.catch_up()
                    count = Count(snapshot, self._view, draft.selectors)
                    if count.to_walk > ENOUGH and not dry_run:
                        record = await self._journal.append(draft)
                        position = record.position - 1
                    matched = await count.run(position)
                    if refresh and not dry_run:
                        hottest = await most_used(snapshot, draft.selectors, MAX_REFRESHED)
        if dry_run:
            return PurgeResult(None, position, mode, matched, dry_run=True)
        if record is None:
            record = await self._journal.append(msgspec.structs.replace(draft, matched=matched))
        job = self._refresh(record.id, caller.actor, hottest) if refresh else None
        return PurgeResult(record.id, record.position, mode, matched, dry_run=False, job=job)

    async def issue_buster(
        self, site: str, caller: Caller, *, host: str | None = None, target: bytes = b""
    ) -> IssuedBuster:
        """Issue a cache buster: `/cb:TOKEN/path` is answered by nothing that was asked for before.

        It is good for a site, or for one of its hosts, or for one canonical target. Raises
        JournalError.
        """
        token = "".join(secrets.choice(_LETTERS) for _ in range(_BUSTER_LENGTH))
        at = target_id(site, target) if target else b""
        draft = msgspec.structs.replace(
            self._draft((), Mode.INVALIDATE, caller), buster=Buster(token, site, host, at)
        )
        record = await self._journal.append(draft)
        return IssuedBuster(token, site, record.position)

    async def invalidate_changed(
        self, site: str, targets: Iterable[tuple[str, bytes]], tags: Iterable[str] = ()
    ) -> int | None:
        """Remove what an unsafe request changed (RFC 9111 4.4): (host, canonical target) each, and
        what bears any of the tags. The position of the record; None if there was no need of one.

        Nothing is recorded for what is neither stored nor on its way: most of what is posted to.
        What tags it will bear that is on its way, nobody knows.
        """
        selectors = [
            selector
            for selector in (Selector.by_url(site, host, target) for host, target in targets)
            if self._concerned(selector)
        ]
        selectors.extend(Selector.by_tag(site, tag) for tag in tags)
        if not selectors:
            return None
        draft = self._draft(selectors, Mode.DELETE, Caller("origin", ""))
        record = await self._journal.append(draft)
        return record.position

    def _draft(
        self, selectors: Iterable[Selector], mode: Mode, caller: Caller, deadline: float = 0.0
    ) -> Record:
        return Record(
            id=secrets.token_hex(16),
            time=self._clock(),
            mode=mode,
            selectors=tuple(dict.fromkeys(selectors)),
            actor=caller.actor,
            source=caller.source,
            dialect=caller.dialect,
            deadline=deadline,
        )

    def _check_room(self, draft: Record) -> None:
        """Raises TooManyRules where there is none for the rules of a record."""
        places = Counter(
            (each.site, each.environment, each.key_name, each.key())
            for each in draft.selectors
            if each.conditional or draft.deadline
        )
        for selector in draft.selectors:
            place = (selector.site, selector.environment, selector.key_name, selector.key())
            waiting = self._view.conditional(selector) + places[place]
            if places[place] and waiting > self._max_conditional:
                self._on_refused("too-many-rules")
                raise TooManyRules(
                    f"{self._max_conditional} invalidations with conditions or deadlines wait to "
                    f'be applied to the store of site "{selector.site}": try again in a second'
                )

    def _concerned(self, selector: Selector) -> bool:
        # In this order: what is no longer in the air has been stored by then, if it was at all.
        if self._maybe_in_flight(selector.target_id):
            return True
        with self._tier.snapshot() as snapshot:
            return any(snapshot.ids(span, None, 1) for span in selector.spans())
