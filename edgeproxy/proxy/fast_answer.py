"""An entry as the fast path's answer: rendered, but for what changes by the second."""

from __future__ import annotations

import math
from sys import intern
from typing import TYPE_CHECKING, Final

from edgeproxy.proxy.rendering import answer_head, told_of_hit, unchanged_head
from edgeproxy.semantics.conditional import not_modified
from edgeproxy.semantics.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.cache.memory import Entry
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.proxy.scanning import Conditions
    from edgeproxy.proxy.serving import Serving
    from edgeproxy.semantics.freshness import Freshness

CHOICES: Final = 64
"""How many choices among variants, and conditions, are remembered of one key."""


class Answer:
    """One entry as an answer to many requests, or to one."""

    __slots__ = (
        "_freshness",
        "_origin",
        "_unchanged_begins",
        "_unmodified",
        "age",
        "body",
        "cache_status",
        "ends",
        "entry",
        "head",
        "head_only",
        "passing", "policy",
        "status",
        "unchanged",
        "until",
        "uses",
        "vercel",
    )  # fmt: skip

    def __init__(self, entry: Entry, policy: SitePolicy, *, head_only: bool) -> None:
        self.entry = entry
        self.policy = policy
        self.head_only = head_only
        self.body = entry.body
        self.status, _, _, deleted_from = entry.figures
        freshness = entry.freshness
        # Until it is rendered for the first time: an entry makes a new one each time.
        self._freshness: Freshness | None = freshness
        stale_from = freshness.response_time + freshness.lifetime - max(0.0, freshness.initial_age)
        self.ends = min(stale_from, deleted_from or math.inf)
        """When it is no fresh hit any more, in seconds since the epoch."""
        self.until = -math.inf
        """When `head` has to be rendered anew."""
        self.head = self.cache_status = self._unchanged_begins = b""
        self.age = 0
        self.vercel: bytes | None = None
        self.unchanged: bytes | None = None
        """The head of a 304, once one was sent; as long as `head` is good."""
        self._unmodified: dict[Conditions, bool] | None = None
        self._origin: tuple[str, str] | None = None
        self.passing = False
        """Whether it is not in memory: its body is there for one request."""
        self.uses = 0
        """How often it was used since the store was told of it."""

    @property
    def origin(self) -> tuple[str, str]:
        """The names of its site and its host."""
        if self._origin is None:
            stored = self.entry.stored
            self._origin = intern(stored.site), intern(stored.host)
        return self._origin

    def render(self, now: float, serving: Serving) -> None:
        """Make its head as it is at `now`."""
        freshness = self._freshness or self.entry.freshness
        self._freshness = None
        age, ttl = freshness.age(now), freshness.ttl(now)
        self.age = int(age)
        self.cache_status, self.vercel = status, vercel = told_of_hit(int(ttl), self.policy)
        begins = self.entry.head or serving.rendered(self.entry, self.policy)
        head = answer_head(begins, self.age, self.status, len(self.body), status, vercel)
        self.head = head + b"\r\n"
        self.unchanged = None
        # Until Age or the remaining freshness is another number of seconds.
        self.until = min(now + 1 - age % 1, now + ttl % 1, self.ends)

    def render_unchanged(self) -> bytes:
        """The head of a 304 that stands for it."""
        if not self._unchanged_begins:
            self._unchanged_begins = unchanged_head(self.entry, self.policy)
        status, vercel = self.cache_status, self.vercel
        head = answer_head(self._unchanged_begins, self.age, 304, 0, status, vercel)
        self.unchanged = head + b"\r\n"
        return self.unchanged

    def unmodified(self, conditions: Conditions) -> bool:
        """Whether a request with these conditions is answered with a 304."""
        if self._unmodified is None:
            self._unmodified = {}
        known = self._unmodified.get(conditions)
        if known is None:
            stored = self.entry.stored
            asked = some_fields((b"if-none-match", b"if-modified-since"), conditions)
            known = not_modified(asked, stored.status, Fields(stored.fields), stored.response_time)
            if len(self._unmodified) < CHOICES:
                self._unmodified[conditions] = known
        return known


def some_fields(names: Sequence[bytes], said: Sequence[bytes | None]) -> Fields:
    """The fields of these names that said something."""
    pairs = zip(names, said, strict=True)
    return Fields([(name, value) for name, value in pairs if value is not None])
