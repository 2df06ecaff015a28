"""What checks say of the origins, for all workers of the node to see.

One worker checks (`checks.py`). It writes each verdict into memory that all workers share: one
64-bit word, which is read and written whole, in the place that a hash of the checked origin gives.
The word bears the rest of that hash, so that of two origins in one place only the one that was
checked last has a verdict; the other one counts as not checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgeproxy.config.failover import Check
    from edgeproxy.config.site import Origin

_WELL, _UNWELL = 1, 2
_VERDICT: Final = 0xFF


@dataclass(frozen=True, slots=True)
class Health:
    """What the checks of an origin add up to."""

    well: bool | None = None
    """None: not known yet."""
    against: int = 0
    """Results in a row that say otherwise."""

    def after(self, passed: bool, check: Check) -> Health:
        """The same after one more check.

        A first one that passes is believed at once; one that fails may be a passing trouble.
        """
        if passed is self.well or (passed and self.well is None):
            return Health(passed)
        enough = check.healthy_after if passed else check.unhealthy_after
        if self.against + 1 >= enough:
            return Health(passed)
        return Health(self.well, self.against + 1)


def checked_as(site: str, origin: Origin, check: Check) -> int:
    """What an origin's verdict is found by: 64 bits, the lowest eight of them 0."""
    what = f"{site}\n{origin.model_dump_json()}\n{check.model_dump_json()}".encode()
    return int.from_bytes(blake2b(what, digest_size=8).digest(), "big") & ~_VERDICT


class Verdicts:
    """The node's verdicts."""

    def __init__(self, area: memoryview) -> None:
        """`area`: shared by all workers, as many 64-bit words as there may be verdicts."""
        self._words = area.cast("Q")

    def read(self, checked: int) -> bool | None:
        """Whether an origin is well, by its `checked_as`; None: not known."""
        word = self._words[(checked >> 8) % len(self._words)]
        return word & _VERDICT == _WELL if word & ~_VERDICT == checked else None

    def write(self, checked: int, well: bool) -> None:
        """Let all know. For the worker that checks."""
        words = self._words
        words[(checked >> 8) % len(words)] = checked | (_WELL if well else _UNWELL)
