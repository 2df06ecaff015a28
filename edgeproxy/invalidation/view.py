"""What one worker knows of the journal: the rules, kept up to date before anything is served."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.invalidation.journal import KEPT_BUSTERS
from edgeproxy.invalidation.rules import VALID, RuleTable, Standing, Verdict, earlier

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from edgeproxy.cache.memory import Entry, MemoryTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.head import SharedHead
    from edgeproxy.invalidation.journal import LocalJournal
    from edgeproxy.invalidation.record import Buster
    from edgeproxy.invalidation.selectors import Expected, Selector

MAX_HELD = 100_000
"""How many records a hold may hold back; what is in the air for longer is not stored."""

_READ_STEP = 1000
_CHECK_STEP = 200
_DROP_STEP = 500


class JournalView:
    """The journal as one worker sees it.

    Verdicts and `admit` may be asked for by any thread; everything else belongs to the event
    loop's.
    """

    def __init__(
        self, journal: LocalJournal, head: SharedHead, settled: int, clock: Callable[[], float]
    ) -> None:
        """`settled`: the position up to which the worker's shared tier has been swept."""
        self._journal = journal
        self._clock = clock
        self.head = head.word
        """The journal's head is its first item; what is judged up to there is judged."""
        self._lock = threading.Lock()
        self._table = RuleTable()
        self._holds: Counter[int] = Counter()
        self.floor = settled
        """Rules up to here have been dropped. What was good before it can't be judged any more,
        unless it comes from the tier, which was swept of what they select."""
        self._position = settled
        # Up to here records were trimmed unread: nothing older is known to be good.
        self._unread = 0
        self._busters: dict[str, tuple[int, Buster]] = {
            buster.token: (position, buster) for position, buster in journal.busters()
        }
        self.catch_up()

    def __len__(self) -> int:
        return len(self._table)

    def catch_up(self) -> int:
        """The journal's head, all records up to which are known on return.

        Costs one comparison when the head has not moved. Raises JournalError.
        """
        head = self.head[0]
        if head != self._position:
            with self._lock:
                return self._read_on()
        return head

    def verdict(self, stored: StoredResponse, since: int, until: int | None = None) -> Verdict:
        """How a response stands that was good at position `since`, by the rules known now.

        Rules after position `until`, if it is given, don't count. A response of a position that
        the journal has not reached is another journal's, and one whose deadline has come is as
        good as gone: DELETED.
        """
        with self._lock:
            return self._judge(stored, since, until)

    def unmoved_since(self, position: int) -> bool:
        """Whether what was good at that position is good as things stand, whatever it is: no rule
        that is known came later. What came when the journal was elsewhere, is for `verdict`."""
        if not self._unread <= position <= self._position:
            return False
        return position == self._position or self._table.newest <= position

    def admit(self, stored: StoredResponse) -> StoredResponse | None:
        """The response as it may be stored now: marked, if it is stale already; None: not at all.

        For the store to ask from inside the transaction that makes the response visible: the
        sweep, which waits for such transactions, sees the response, or this sees the rule.
        """
        with self._lock:
            self._read_on()
            if stored.position < self.floor:
                return None
            verdict = self._judge(stored, stored.position, None)
        if verdict.standing is Standing.DELETED:
            return None
        if verdict.standing is Standing.INVALIDATED:
            return marked(stored, verdict)
        return stored

    def may_concern(self, expected: Expected, since: int) -> bool:
        """Whether an invalidation after `since` may pick a response that is being fetched."""
        head = self.catch_up()
        if since >= head:
            return False
        with self._lock:
            return since < self.floor or self._table.may_concern(expected, since)

    def issued_at(self, token: str, site: str, host: str, target_id: bytes) -> int:
        """The position at which a cache buster was issued for a URL; 0 if it was not."""
        self.catch_up()
        position, buster = self._busters.get(token, (0, None))
        return position if buster is not None and buster.covers(site, host, target_id) else 0

    def busters(self) -> list[tuple[int, Buster]]:
        """The issued cache busters that are known, with the positions of their records."""
        self.catch_up()
        with self._lock:
            return list(self._busters.values())

    def _learn(self, position: int, buster: Buster) -> None:
        # Of those with one name, which chance makes none of, the newest one counts.
        self._busters.pop(buster.token, None)
        self._busters[buster.token] = position, buster
        if len(self._busters) > KEPT_BUSTERS:
            del self._busters[next(iter(self._busters))]

    def conditional(self, selector: Selector) -> int:
        """How many rules that are not dropped yet lie in the way of what `selector` concerns."""
        self.catch_up()
        with self._lock:
            return self._table.conditional(selector)

    def last_delete(self, site: str) -> int:
        """The position of the newest DELETE known for a site; 0 if none is."""
        with self._lock:
            return max(self._table.last_delete(site), self._unread)

    def hold(self, position: int | None = None) -> Hold:
        """Keep the rules after `position` (None: the head) until the hold is released."""
        return Hold(self._holds, self.catch_up() if position is None else position)

    async def drop_settled(self, settled: int, memory: MemoryTier) -> None:
        """Drop rules up to `settled` that no hold needs, having checked what is in memory.

        `settled`: the position up to which the shared tier has been swept. In small steps; what
        comes into `memory` meanwhile, and was checked before `floor` is then, is not to be served.
        """
        up_to = self._droppable(settled)
        if up_to <= self.floor:
            return
        cursor: int | None = 0
        while cursor is not None:
            entries, cursor = memory.walk(cursor, _CHECK_STEP)
            head = self.catch_up()
            for entry in entries:
                if entry.checked < up_to:
                    self._check(entry, head, memory)
            await asyncio.sleep(0)
        # Somebody may have taken a hold meanwhile.
        self.floor = max(self.floor, min(up_to, self._droppable(settled)))
        done = False
        while not done:
            with self._lock:
                done = self._table.drop(self.floor, _DROP_STEP)
            await asyncio.sleep(0)

    def _droppable(self, settled: int) -> int:
        if not self._holds:
            return settled
        return min(settled, max(min(self._holds), self.catch_up() - MAX_HELD))

    def _check(self, entry: Entry, head: int, memory: MemoryTier) -> None:
        stored = entry.stored
        verdict = self.verdict(stored, entry.checked)
        if verdict.standing is Standing.DELETED or entry.checked < self.floor:
            memory.discard(stored.id)
            return
        if verdict.standing is Standing.INVALIDATED:
            memory.mark(entry, marked(stored, verdict), head)
        else:
            entry.checked = head

    def _read_on(self) -> int:
        head = self.head[0]
        while self._position < head:
            records = self._journal.since(self._position, head, _READ_STEP)
            following = self._position + 1
            if not records or records[0].position != following:
                # Trimmed before this worker read them.
                self._unread = records[0].position - 1 if records else head
                self._position = self._unread
            for record in records:
                mode, deleted_from = record.effect
                self._table.add(record.position, mode, record.selectors, deleted_from)
                if record.buster is not None:
                    self._table.note_issue(record.position, record.buster.site)
                    self._learn(record.position, record.buster)
                self._position = record.position
        return self._position

    def _judge(self, stored: StoredResponse, since: int, until: int | None) -> Verdict:
        verdict = self._standing(stored, since, until)
        deadline = earlier(stored.deleted_from, verdict.deleted_from)
        if deadline and deadline <= self._clock():
            return Verdict(Standing.DELETED, max(verdict.position, stored.invalidated))
        return verdict

    def _standing(self, stored: StoredResponse, since: int, until: int | None) -> Verdict:
        if stored.position > self._position:
            # Another worker may have stored it after this one looked at the head.
            self._read_on()
            if stored.position > self._position:
                return Verdict(Standing.DELETED, stored.position)
        if since < self._unread:
            return Verdict(Standing.DELETED, self._unread)
        if since >= self._position:
            return VALID
        return self._table.verdict(stored, since, until)


def marked(stored: StoredResponse, verdict: Verdict) -> StoredResponse:
    """The response with a verdict of INVALIDATED written on it."""
    return msgspec.structs.replace(
        stored,
        invalidated=max(stored.invalidated, verdict.position),
        deleted_from=earlier(stored.deleted_from, verdict.deleted_from),
    )


class Hold:
    """Keeps the rules after `position` from being dropped, as long as it is open."""

    __slots__ = ("_holds", "_open", "position")

    def __init__(self, holds: Counter[int], position: int) -> None:
        self.position = position
        """The journal's head when it was taken."""
        self._holds = holds
        self._open = True
        holds[position] += 1

    def release(self) -> None:
        """Give the hold back; once is enough."""
        if not self._open:
            return
        self._open = False
        self._holds[self.position] -= 1
        if not self._holds[self.position]:
            del self._holds[self.position]

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
