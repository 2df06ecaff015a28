"""Fresh hits out of the store, for the fast path: from a request's key to a row, and its bytes.

What the key of a head came to (the site, the cache key) is remembered apart from what is stored for
it, which is looked up each time; and so is what was made of a row, for as long as the row is the
same. A row says itself what was worked out when it was stored (`ready` in rendering.py), and
whether it is the one that matches (`take_row`); whatever it can't say is left to `Deciding`, by way
of the fast path. Nothing here is a decision of its own:

- the row was read after the journal's head, and no rule since its position concerns it;
- it is not marked, no purge's deadline has come, and it is fresh: a plain request has it then.

It gets into memory at its second use within a while, or if there is room anyway: so a scan of what
is stored does not wash out what is hot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeproxy.cache.memory import Entry
from edgeproxy.cache.rows import vary_digest
from edgeproxy.cache.stored import variant_id
from edgeproxy.invalidation.rules import Standing
from edgeproxy.proxy.fast_answer import CHOICES, Answer
from edgeproxy.proxy.scanning import all_fields, values
from edgeproxy.semantics.forwarding import is_heard
from edgeproxy.semantics.vary import selecting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.cache.memory import MemoryTier
    from edgeproxy.cache.rows import RowMark
    from edgeproxy.cache.store import SharedTier
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.intake import Asked
    from edgeproxy.proxy.lookup import Lookup

_HALF: Final = 4096
"""Keys that are remembered, of one way to come: as many to twice as many of those asked for last.
Each takes some 600 bytes, and 2 KB if the store is asked for it again and again."""
_LONGEST_KEY: Final = 1024
_ALONE: Final = variant_id(()), vary_digest(())


class Known:
    """What is known of the requests with one key, whatever is stored for them."""

    __slots__ = (
        "asked", "head_only", "heard", "last", "names", "primary", "row_id", "shelved", "trusted",
        "variants", "vary",
    )  # fmt: skip

    def __init__(self, asked: Asked, *, head_only: bool, trusted: bool) -> None:
        self.asked = asked
        self.trusted = trusted
        self.primary = asked.key.primary
        self.head_only = head_only
        self.last = -1
        """Which answer of the shelf was the last one for this key; negative: none."""
        self.shelved: Shelved | None = None
        self.names: tuple[bytes, ...] = ()
        """The request fields that choose among its variants, as far as is known."""
        self.heard: tuple[bytes, ...] = ()
        """Those in which its clients have a say."""
        self.vary = _ALONE[1]
        # Of what varies by nothing.
        self.row_id = self.primary + _ALONE[0]
        self.variants: dict[tuple[bytes | None, ...], bytes] = {}
        """By their values, the rows of the variants that are chosen."""

    def learn(self, names: tuple[bytes, ...]) -> None:
        """Note what a response that is stored for it varies by."""
        if names != self.names:
            self.names, self.vary, self.variants = names, vary_digest(names), {}
            self.heard = self.heard_of(names)

    def heard_of(self, names: Iterable[bytes]) -> tuple[bytes, ...]:
        """Those of these fields in which its clients have a say, in their order."""
        trusted, let_through = self.trusted, self.asked.policy.let_through
        return tuple(
            sorted([name for name in names if is_heard(name, trusted, let_through=let_through)])
        )

    def row_for(self, head: bytes, key: bytes) -> bytes:
        """The row that a request is for."""
        if not self.names:
            return self.row_id
        said = values(head, 0, self.heard)
        known = self.variants.get(said)
        if known is None:
            fields = all_fields(head, key)
            if self.heard != self.names:
                fields = fields.without(set(self.names).difference(self.heard))
            known = self.primary + variant_id(selecting(self.names, fields))
            if len(self.variants) < CHOICES:
                self.variants[said] = known
        return known


class Shelved:
    """The answer of a row, and by what to tell that the row is still the same."""

    __slots__ = ("answer", "row", "row_id")

    def __init__(self, row_id: bytes, row: RowMark, answer: Answer) -> None:
        self.row_id = row_id
        self.row = row
        self.answer = answer


class Recent:
    """The keys that were asked for last, by one way to come."""

    __slots__ = ("_newer", "_older")

    def __init__(self) -> None:
        self._newer: dict[bytes, Known] = {}
        self._older: dict[bytes, Known] = {}

    def get(self, key: bytes) -> Known | None:
        known = self._newer.get(key)
        if known is None and (known := self._older.pop(key, None)) is not None:
            self.add(key, known)
        return known

    def add(self, key: bytes, known: Known) -> None:
        if len(key) > _LONGEST_KEY:
            return
        if len(self._newer) >= _HALF:
            self._older, self._newer = self._newer, {}
        self._newer[key] = known

    def clear(self) -> None:
        self._newer, self._older = {}, {}


class Shelf:
    """What the store has ready for the fast path of a worker."""

    def __init__(
        self, *, memory: MemoryTier, tier: SharedTier, view: JournalView, lookup: Lookup
    ) -> None:
        self._memory = memory
        self._tier = tier
        self._view = view
        self._lookup = lookup
        self._answers = 0

    def answer(self, known: Known, head: bytes, key: bytes, now: float) -> Answer | None:
        """What the full path would answer, out of the store; None where it takes more to tell."""
        if self._memory.get(known.primary):
            return None
        position = self._view.catch_up()
        row_id = known.row_for(head, key) if known.names else known.row_id
        answer = self._unshelved(known, row_id) or self._taken(known, row_id)
        if answer is None:
            return None
        entry = answer.entry
        if now >= answer.ends or (entry.checked != position and not self._holds(entry, position)):
            known.shelved = None
            return None
        self._answers = count = self._answers + 1
        again = 0 <= known.last >= count - len(self._memory)
        known.last = count
        if again or self._memory.has_room(entry, len(answer.body)):
            entry.body = answer.body
            self._lookup.keep(entry, known.asked.key.target_id)
            answer.passing, known.shelved = False, None
        return answer

    def _unshelved(self, known: Known, row_id: bytes) -> Answer | None:
        """The answer that was made of the row before, if that is as it was."""
        shelved = known.shelved
        if shelved is None or shelved.row_id != row_id:
            return None
        body = self._tier.take_again(row_id, shelved.row)
        if body is None:
            return None
        shelved.answer.body = body
        return shelved.answer

    def _taken(self, known: Known, row_id: bytes) -> Answer | None:
        """The answer that a row is, if that is all there is to it."""
        key, policy = known.asked.key, known.asked.policy
        known.shelved = None
        # A token may be issued at any time: what it is worth then is for the full path to say.
        taken = None if key.buster else self._tier.take(row_id, known.vary, policy.answering)
        if taken is None or taken.body is None:
            return None
        entry = Entry(b"", 0, taken.head, taken.packed)
        _, entry.checked, invalidated, _ = entry.figures
        if invalidated:
            return None
        answer = Answer(entry, policy, head_only=known.head_only)
        answer.passing, answer.body = True, taken.body
        known.shelved = Shelved(row_id, taken.mark, answer)
        return answer

    def _holds(self, entry: Entry, head: int) -> bool:
        """Whether no invalidation concerns what has just been read."""
        # Of rules that were dropped meanwhile, the store was swept: the row would be another one.
        if not self._view.unmoved_since(entry.checked):
            verdict = self._view.verdict(entry.stored, entry.checked)
            if verdict.standing is not Standing.VALID:
                return False
        entry.checked = head
        return True
