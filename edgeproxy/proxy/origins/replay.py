"""A request's body that can be sent to a second origin from its start, as long as it is short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_KEPT_BYTES: Final = 64 * 1024


class Replay:
    """The body's pieces, kept until there are too many of them.

    Whoever sends them to the next origin goes on reading where the one before has left off, unless
    that was cut off while it waited for a piece: that one went with it.
    """

    def __init__(self, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._kept: list[bytes] | None = []
        self._size = 0
        self._waiting = False
        self._ended = False

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent from its start: all that was read of it is kept."""
        return self._kept is not None and not self._waiting

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body from its start. Only if `repeatable`, and only one at a time."""
        for piece in tuple(self._kept or ()):
            yield piece
        while not self._ended:
            self._waiting = True
            try:
                piece = await anext(self._body)
            except StopAsyncIteration:
                self._ended = True
            self._waiting = False
            if not self._ended:
                self._keep(piece)
                yield piece

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > _KEPT_BYTES:
            self._kept = None
        elif self._kept is not None:
            self._kept.append(piece)
