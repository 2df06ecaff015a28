"""Looks into a journal before anybody relies on it."""

from __future__ import annotations

import faulthandler
import os
import resource
from typing import TYPE_CHECKING

from edgeproxy.invalidation.head import HEAD_BYTES, SharedHead
from edgeproxy.invalidation.journal import JournalDamaged, JournalError, LocalJournal

if TYPE_CHECKING:
    from pathlib import Path

_SOUND, _UNUSABLE, _DAMAGED = b"+", b"!", b"-"


def check_journal(directory: Path) -> bytes:
    """Read the whole journal in a folder, and give its id; an absent one is made.

    It is read by a child process, because a damaged file can kill the process that maps it; the
    caller must have no other threads. Raises JournalDamaged, or JournalError.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # It may well die of a signal, and need not make a fuss.
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            os.write(writing, _report(directory))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        report = pipe.read()
    os.waitpid(child, 0)
    kind, told = report[:1], report[1:]
    if kind == _SOUND:
        return told
    if kind == _UNUSABLE:
        raise JournalError(told.decode())
    message = told.decode() or f"the journal in {directory} is damaged: it can't be read"
    raise JournalDamaged(message)


def _report(directory: Path) -> bytes:
    try:
        journal = LocalJournal(directory, SharedHead(memoryview(bytearray(HEAD_BYTES))))
        journal.verify()
    except JournalDamaged as error:
        return _DAMAGED + str(error).encode()
    except JournalError as error:
        return _UNUSABLE + str(error).encode()
    return _SOUND + journal.id
