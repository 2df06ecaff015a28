"""What can go wrong with the store.

StoreError
├── StoreInUse      another edgeproxy has the folder
├── StoreUnusable   the folder can't be made, read or written
├── StoreFull       no room, though eviction made what it could
└── BodyMissing     a stored response's body is gone, or is not what was stored
    └── BodyUnreachable   it can't be had just now
"""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)
"""What decoding raises where bytes are not what was written: msgspec lets bad UTF-8 through."""


class StoreError(Exception):
    """The store could not do what was asked; the message names what and where."""

    told = False
    """The log has it already, as one of many of its kind."""


class StoreInUse(StoreError):
    """Another edgeproxy has the folder."""


class StoreUnusable(StoreError):
    """The folder can't be made, read or written."""


class StoreFull(StoreError):
    """No room for a response."""


class BodyMissing(StoreError):
    """A stored response's body is gone or damaged; its row has been removed."""


class BodyUnreachable(BodyMissing):
    """Where bodies are kept does not answer; the row stays, and may be good again later."""
