"""Looks into a journal before anybody relies on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.cache.child import in_child
from edgeproxy.invalidation.head import HEAD_BYTES, SharedHead
from edgeproxy.invalidation.journal import JournalDamaged, JournalError, LocalJournal

if TYPE_CHECKING:
    from pathlib import Path

_SOUND, _UNUSABLE, _DAMAGED = b"+", b"!", b"-"


def check_journal(directory: Path, step: float = 0.0) -> bytes:
    """Read the whole journal in a folder, and give its id; an absent one is made.

    The clock that its deadlines go by has been stepped by so many seconds since.

    It is read by a child process, because a damaged file can kill the process that maps it; the
    caller must have no other threads. Raises JournalDamaged, or JournalError.
    """
    report = in_child(lambda: _report(directory, step)).report
    kind, told = report[:1], report[1:]
    if kind == _SOUND:
        return told
    if kind == _UNUSABLE:
        raise JournalError(told.decode())
    message = told.decode() or f"the journal in {directory} is damaged: it can't be read"
    raise JournalDamaged(message)


def _report(directory: Path, step: float) -> bytes:
    try:
        journal = LocalJournal(directory, SharedHead(memoryview(bytearray(HEAD_BYTES))))
        journal.verify()
        if step:
            journal.set_times_right(step)
    except JournalDamaged as error:
        return _DAMAGED + str(error).encode()
    except JournalError as error:
        return _UNUSABLE + str(error).encode()
    return _SOUND + journal.id
