"""Gives memory back to the system that a flood has taken and left.

The C library (glibc) keeps what is freed between blocks that are in use, and would keep it for
good: after a thousand slow readers, as much as they had. malloc_trim(3) gives it back.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS: Final = 2.0
"""How often it is worth a look."""
_WORTH: Final = 16 * 1024 * 1024
"""Free bytes beyond the fewest that there were since, for which giving back is worth its time."""


class _Info(ctypes.Structure):
    """`struct mallinfo2`, all of it in bytes or numbers of blocks."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip

    fordblks: int


class Trimmer:
    """Looks now and then whether there is memory to be given back."""

    def __init__(self, free: Callable[[], int], give_back: Callable[[], None]) -> None:
        """`free` tells how many bytes the C library has that nobody uses, those given back too."""
        self._free = free
        self._give_back = give_back
        self._least = free()

    def look(self) -> bool:
        """Give memory back if much has become free since the last look; whether it has."""
        free = self._free()
        self._least = min(self._least, free)
        if free - self._least < _WORTH:
            return False
        self._give_back()
        self._least = self._free()
        return True


def trimmer() -> Trimmer | None:
    """One for this process; None where the C library can't give back (it is not glibc 2.33)."""
    library = ctypes.CDLL(None)
    try:
        mallinfo, trim = library.mallinfo2, library.malloc_trim
    except AttributeError:
        return None
    mallinfo.restype = _Info

    def free() -> int:
        return int(mallinfo().fordblks)

    def give_back() -> None:
        trim(0)

    return Trimmer(free, give_back)
