"""The rules that the journal adds up to, and what they say of a stored response."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.invalidation.selectors import Mode, stored_keys

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from edgeproxy.invalidation.selectors import Expected, KeyName, Selectable, Selector


class Standing(Enum):
    """How a stored response stands with the rules."""

    VALID = "valid"
    INVALIDATED = "invalidated"
    DELETED = "deleted"


class Verdict(NamedTuple):
    """A standing, and the latest position that gave it; 0 for VALID."""

    standing: Standing
    position: int
    deleted_from: float = 0.0
    """Of what is invalidated: when it ends being there at all, in seconds since the epoch; 0 where
    no rule says so."""


VALID = Verdict(Standing.VALID, 0)


class _Rule(NamedTuple):
    """A rule that is more than its key and its mode."""

    position: int
    mode: Mode
    deleted_from: float
    selector: Selector


@dataclass(slots=True)
class _Place:
    """The rules of one environment (None: all of them) and kind of key."""

    environment: str | None
    key_name: KeyName
    plain: dict[Mode, dict[Hashable, list[int]]] = field(
        default_factory=lambda: {mode: {} for mode in Mode}
    )
    """By key, the ascending positions of rules without further conditions or deadline."""
    others: dict[Hashable, deque[_Rule]] = field(default_factory=dict)
    lengths: Counter[int] = field(default_factory=Counter)
    """For prefixes: of which lengths there are how many rules."""

    def forget(self, key: Hashable, mode: Mode | None) -> None:
        """Drop the oldest rule under a key: a plain one of a mode, or one of the others."""
        # They were filed in the order of positions, so the first one is the oldest.
        if mode is None:
            rules = self.others[key]
            rules.popleft()
            if not rules:
                del self.others[key]
        else:
            positions = self.plain[mode][key]
            del positions[0]
            if not positions:
                del self.plain[mode][key]
        if self.key_name == "prefix" and isinstance(key, tuple):
            length = len(key[0])
            self.lengths[length] -= 1
            if not self.lengths[length]:
                del self.lengths[length]


@dataclass(slots=True)
class _SiteRules:
    latest: int = 0
    """The position of the site's newest rule."""
    last_delete: int = 0
    latest_unforeseeable: dict[str | None, int] = field(default_factory=dict)
    """By environment, the newest of which a URL doesn't tell what it picks; dropped or not."""
    places: dict[tuple[str | None, KeyName], _Place] = field(default_factory=dict)


class RuleTable:
    """Rules filed by what they select: a verdict costs one look-up for each tag of a response.

    Those with conditions are filed by one of these, and gone through from there.
    """

    def __init__(self) -> None:
        self._sites: dict[str, _SiteRules] = {}
        # Each rule's position, where it is filed, and its mode if that is among the plain ones.
        self._order: deque[tuple[int, _Place, Hashable, Mode | None]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    @property
    def newest(self) -> int:
        """The position of the newest rule; 0 if there is none."""
        return self._order[-1][0] if self._order else 0

    def add(
        self,
        position: int,
        mode: Mode,
        selectors: Iterable[Selector],
        deleted_from: float = 0.0,
    ) -> None:
        """File the rules of a record; positions must come in ascending order.

        With `deleted_from` the mode is INVALIDATE until then, in seconds since the epoch.
        """
        for selector in selectors:
            site = self._sites.get(selector.site)
            if site is None:
                site = self._sites[selector.site] = _SiteRules()
            site.latest = position
            if mode is Mode.DELETE:
                site.last_delete = position
            if not selector.foreseeable:
                site.latest_unforeseeable[selector.environment] = position
            name = selector.key_name
            place = site.places.get((selector.environment, name))
            if place is None:
                place = _Place(selector.environment, name)
                site.places[selector.environment, name] = place
            if name == "prefix":
                place.lengths[len(selector.prefix)] += 1
            key = selector.key()
            if selector.conditional or deleted_from:
                rule = _Rule(position, mode, deleted_from, selector)
                place.others.setdefault(key, deque()).append(rule)
                self._order.append((position, place, key, None))
            else:
                place.plain[mode].setdefault(key, []).append(position)
                self._order.append((position, place, key, mode))

    def note_issue(self, position: int, site: str) -> None:
        """Note that a cache buster of a site was issued: who asks with it must not be given what
        had been asked for by then."""
        rules = self._sites.setdefault(site, _SiteRules())
        rules.latest = position
        rules.latest_unforeseeable[None] = position

    def drop(self, up_to: int, limit: int) -> bool:
        """Forget the rules at positions up to `up_to`, at most `limit` of them; True when done.

        Verdicts since a position below `up_to` are not to be relied on from then on.
        """
        order = self._order
        for _ in range(limit):
            if not order or order[0][0] > up_to:
                return True
            _, place, key, plain = order.popleft()
            place.forget(key, plain)
        return not order or order[0][0] > up_to

    def verdict(self, stored: Selectable, since: int, until: int | None = None) -> Verdict:
        """How a response stands that was good at position `since`.

        Only rules at positions after `since`, and up to `until` if that is given, count; DELETE
        outweighs INVALIDATE, whichever came last, and of several deadlines the first one counts.
        """
        site = self._sites.get(stored.site)
        if site is None or site.latest <= since:
            return VALID
        deleted = invalidated = since
        deleted_from = 0.0
        for place in site.places.values():
            if place.environment not in (None, stored.environment):
                continue
            for key in stored_keys(place.key_name, stored, place.lengths):
                deleted = max(deleted, _newest(place.plain[Mode.DELETE].get(key), until))
                invalidated = max(
                    invalidated, _newest(place.plain[Mode.INVALIDATE].get(key), until)
                )
                for rule in reversed(place.others.get(key, ())):
                    if rule.position <= since:
                        break
                    if until is not None and rule.position > until:
                        continue
                    if not rule.selector.matches(stored):
                        continue
                    if rule.mode is Mode.DELETE:
                        deleted = max(deleted, rule.position)
                        continue
                    invalidated = max(invalidated, rule.position)
                    deleted_from = earlier(deleted_from, rule.deleted_from)
        if deleted > since:
            return Verdict(Standing.DELETED, deleted)
        if invalidated > since:
            return Verdict(Standing.INVALIDATED, invalidated, deleted_from)
        return VALID

    def may_concern(self, expected: Expected, since: int) -> bool:
        """Whether a rule after `since` may pick a response of which its URL alone is known."""
        site = self._sites.get(expected.site)
        if site is None or site.latest <= since:
            return False
        for environment in (None, expected.environment):
            if site.latest_unforeseeable.get(environment, 0) > since:
                return True
        return self.verdict(expected, since).standing is not Standing.VALID

    def conditional(self, selector: Selector) -> int:
        """How many rules with conditions or a deadline are filed where that of `selector` would
        be: every look-up of a response there goes through them."""
        site = self._sites.get(selector.site)
        place = site and site.places.get((selector.environment, selector.key_name))
        return len(place.others.get(selector.key(), ())) if place else 0

    def last_delete(self, site: str) -> int:
        """The position of the newest DELETE that was filed for a site; 0 if there was none."""
        rules = self._sites.get(site)
        return 0 if rules is None else rules.last_delete


def earlier(one: float, other: float) -> float:
    """The earlier of two deadlines, of which 0 is none."""
    return min(one, other) if one and other else one or other


def _newest(positions: list[int] | None, until: int | None) -> int:
    """The newest position up to `until`; 0 if there is none."""
    if positions is None:
        return 0
    if until is None or positions[-1] <= until:
        return positions[-1]
    index = bisect_right(positions, until)
    return positions[index - 1] if index else 0
