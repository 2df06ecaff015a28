"""The rules that the journal adds up to, and what they say of a stored response."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.invalidation.selectors import KINDS, Mode

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from edgeproxy.invalidation.selectors import Expected, KindName, Selectable, Selector


class Standing(Enum):
    """How a stored response stands with the rules."""

    VALID = "valid"
    INVALIDATED = "invalidated"
    DELETED = "deleted"


class Verdict(NamedTuple):
    """A standing, and the latest position that gave it; 0 for VALID."""

    standing: Standing
    position: int


VALID = Verdict(Standing.VALID, 0)

# Ascending journal positions of the rules with one key.
_Rules = dict["Hashable", list[int]]


@dataclass(slots=True)
class _SiteRules:
    latest: int = 0
    """The position of the site's newest rule."""
    last_delete: int = 0
    by_kind: dict[tuple[str | None, KindName], dict[Mode, _Rules]] = field(default_factory=dict)
    """By environment (None: all of them) and kind of selector."""
    latest_by_kind: dict[tuple[str | None, KindName], int] = field(default_factory=dict)
    """The positions of the newest rules of each, dropped or not."""


class RuleTable:
    """Rules filed by what they select: a verdict costs one look-up for each tag of a response."""

    def __init__(self) -> None:
        self._sites: dict[str, _SiteRules] = {}
        self._order: deque[tuple[int, _Rules, Hashable]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, position: int, mode: Mode, selectors: Iterable[Selector]) -> None:
        """File the rules of a record; positions must come in ascending order."""
        for selector in selectors:
            site = self._sites.get(selector.site)
            if site is None:
                site = self._sites[selector.site] = _SiteRules()
            site.latest = position
            if mode is Mode.DELETE:
                site.last_delete = position
            place = (selector.environment, selector.kind)
            site.latest_by_kind[place] = position
            by_mode = site.by_kind.get(place)
            if by_mode is None:
                by_mode = site.by_kind[place] = {mode: {} for mode in Mode}
            rules = by_mode[mode]
            key = KINDS[selector.kind].rule_key(selector)
            rules.setdefault(key, []).append(position)
            self._order.append((position, rules, key))

    def drop(self, up_to: int, limit: int) -> bool:
        """Forget the rules at positions up to `up_to`, at most `limit` of them; True when done.

        Verdicts since a position below `up_to` are not to be relied on from then on.
        """
        order = self._order
        for _ in range(limit):
            if not order or order[0][0] > up_to:
                return True
            _, rules, key = order.popleft()
            positions = rules[key]
            # They were filed in the order of positions, so this one is the first.
            del positions[0]
            if not positions:
                del rules[key]
        return not order or order[0][0] > up_to

    def verdict(self, stored: Selectable, since: int, until: int | None = None) -> Verdict:
        """How a response stands that was good at position `since`.

        Only rules at positions after `since`, and up to `until` if that is given, count; DELETE
        outweighs INVALIDATE, whichever came last.
        """
        site = self._sites.get(stored.site)
        if site is None or site.latest <= since:
            return VALID
        deleted = invalidated = since
        for (environment, kind), by_mode in site.by_kind.items():
            if environment is not None and environment != stored.environment:
                continue
            keys = KINDS[kind].stored_keys(stored)
            deleted = max(deleted, _newest(by_mode[Mode.DELETE], keys, until))
            invalidated = max(invalidated, _newest(by_mode[Mode.INVALIDATE], keys, until))
        if deleted > since:
            return Verdict(Standing.DELETED, deleted)
        if invalidated > since:
            return Verdict(Standing.INVALIDATED, invalidated)
        return VALID

    def may_concern(self, expected: Expected, since: int) -> bool:
        """Whether a rule after `since` may pick a response of which the tags are not known yet."""
        site = self._sites.get(expected.site)
        if site is None or site.latest <= since:
            return False
        for (environment, kind), latest in site.latest_by_kind.items():
            if (
                latest > since
                and environment in (None, expected.environment)
                and not KINDS[kind].by_url
            ):
                return True
        return self.verdict(expected, since).standing is not Standing.VALID

    def last_delete(self, site: str) -> int:
        """The position of the newest DELETE that was filed for a site; 0 if there was none."""
        rules = self._sites.get(site)
        return 0 if rules is None else rules.last_delete


def _newest(rules: _Rules, keys: Sequence[Hashable], until: int | None) -> int:
    """The newest position, up to `until`, of the rules with any of the keys; 0 if there is none."""
    if not rules:
        return 0
    newest = 0
    for key in keys:
        positions = rules.get(key)
        if positions is None:
            continue
        if until is None or positions[-1] <= until:
            newest = max(newest, positions[-1])
        elif index := bisect_right(positions, until):
            newest = max(newest, positions[index - 1])
    return newest
