"""A request's body that can be sent to a second origin from its start, as long as it is short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_KEPT_BYTES: Final = 64 * 1024


class Replay:
    """The body's pieces, kept until there are too many of them.

    What was read in part only can't be sent again: whoever was reading may have been cut off in the
    middle, and taken the rest of the body with it.
    """

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._kept: list[bytes] | None = []
        self._size = 0
        self._begun = False
        self._ended = False

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent from its start: nothing was read, or all is kept."""
        return not self._begun or (self._ended and self._kept is not None)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body from its start. Only if `repeatable`."""
        if self._begun:
            for piece in self._kept or ():
                yield piece
            return
        self._begun = True
        async for piece in self._body:
            self._keep(piece)
            yield piece
        self._ended = True

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > _KEPT_BYTES:
            self._kept = None
        elif self._kept is not None:
            self._kept.append(piece)
