"""Regular expressions over the tags of a response, joined by commas, as Varnish's users ban by.

Those that only spell out a list of tags become the tags, which are found by an index.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeproxy.invalidation.patterns import MAX_PATTERN

if TYPE_CHECKING:
    from collections.abc import Sequence

_LITERAL = r"(?:[^\\.^$|?*+()\[\]{},]|\\[^A-Za-z0-9])+"
_LITERALS = rf"{_LITERAL}(?:\|{_LITERAL})*"
# FOSHttpCache: (^|,)(a|b)(,|$); Magento: ((^|,)a(,|$))|((^|,)b(,|$)).
_WHOLE = re.compile(rf"(\()?\(\^\|,\)(?:\(({_LITERALS})\)|({_LITERAL}))\(,\|\$\)(?(1)\))")
# Drupal: a|b; the first FOSHttpCache: (a|b)(,.+)?$.
_ANYWHERE = re.compile(rf"(\()?({_LITERALS})(?(1)\)(\(,\.\+\)\?\$))")


def whole_tags(pattern: str) -> Sequence[str] | None:
    """The tags, where the pattern is a list of tags and of nothing else."""
    tags: list[str] = []
    at = 0
    while found := _WHOLE.match(pattern, at):
        tags.extend(re.sub(r"\\(.)", r"\1", each) for each in _names(found[2] or found[3]))
        at = found.end()
        if at == len(pattern):
            return list(dict.fromkeys(tags))
        if pattern[at] != "|":
            return None
        at += 1
    return None


def pieces(pattern: str) -> Sequence[str]:
    """Patterns that together find what this one does, none too long if it is a list of names."""
    listed = _ANYWHERE.fullmatch(pattern)
    if len(pattern) <= MAX_PATTERN or listed is None:
        return [pattern]
    rest = listed[3] or ""
    room = MAX_PATTERN - len(rest) - 2
    made: list[str] = []
    for name in _names(listed[2]):
        if made and len(made[-1]) + 1 + len(name) <= room:
            made[-1] += f"|{name}"
        else:
            made.append(name)
    return [f"({each}){rest}" for each in made]


def _names(literals: str) -> list[str]:
    return re.findall(_LITERAL, literals)
