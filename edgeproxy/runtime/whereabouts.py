"""Tells whether the files that all workers of a run share are still where they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Files by their paths, and what was there when somebody looked.

    Who has them open does not notice that they were removed, or moved away with the folder that
    they are in. But whoever opens them next makes others in their place, and goes by what is, or
    isn't, in those.
    """

    found: tuple[tuple[Path, int, int], ...]
    """A path, the device that it is on, and the number that it has there."""

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Whereabouts:
        """As they are now; those that are not there are nobody's."""
        found = []
        for path in paths:
            try:
                there = path.stat()
            except OSError:
                continue
            found.append((path, there.st_dev, there.st_ino))
        return cls(tuple(found))

    def lost(self) -> str | None:
        """The first that is gone, or not what it was, in words; None if all are there."""
        for path, device, number in self.found:
            try:
                there = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return f"{path} is gone"
            except OSError:
                # A disk that fails, or a folder that was closed to this user, took nothing away.
                continue
            if (there.st_dev, there.st_ino) != (device, number):
                return f"{path} is not what it was"
        return None
