"""Where a run keeps its state: in the configured folder, or where that is of no use, in one that
ends with the run."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from edgeproxy.cache.errors import StoreError, StoreInUse
from edgeproxy.cache.layout import RESPONSES
from edgeproxy.cache.prepare import JOURNAL, LOCK, prepare_store
from edgeproxy.config.sizes import format_size
from edgeproxy.invalidation.journal import JournalDamaged, JournalError
from edgeproxy.invalidation.journal_check import check_journal
from edgeproxy.invalidation.ledger import LEDGER, check_ledger
from edgeproxy.runtime.folders import FolderRefused, make_private
from edgeproxy.runtime.whereabouts import Whereabouts

if TYPE_CHECKING:
    from pathlib import Path

    from edgeproxy.cache.prepare import Prepared
    from edgeproxy.config.model import Config
    from edgeproxy.runtime.clock import Clock

log = logging.getLogger(__name__)

BRIEF_BYTES = 64 * 2**20
"""How much is stored at most in a folder of this run: it may be in memory."""


class NodeState:
    """The folder with journal and store, seen to and locked: what is in it can be relied on.

    Where the configured one can't be read and written, the edge serves on with another one, empty
    and small. Purges that are taken then are not in the configured one's journal: a note beside the
    runs' folders has what is stored there set aside once it can be used again.
    """

    def __init__(self, config: Config, directory: Path, run_folder: Path, clock: Clock) -> None:
        """`run_folder` ends with the run. Raises StoreInUse; and FolderRefused, JournalError or
        StoreError where no folder can be used."""
        self._run_folder = run_folder
        self._clock = clock
        self.config = config
        """The configuration, with the bound of the store that there is."""
        self.directory = directory
        self.unkept: str | None = None
        """Why nothing outlives this run, where that is so."""
        name = hashlib.blake2b(bytes(directory.absolute()), digest_size=8).hexdigest()
        self._note = config.runtime_dir / f"unkept-{name}"
        try:
            make_private(directory)
            self._prepared = self._prepare(self._noted())
        except StoreInUse:
            raise
        except (FolderRefused, JournalError, StoreError) as error:
            self._serve_on(error)
        else:
            self._note.unlink(missing_ok=True)
            self._tell()
        self._look()

    @property
    def journal_id(self) -> bytes:
        return self._prepared.journal_id

    def renew(self, distrust: str | None) -> None:
        """See to the folder once more, all workers having ended; what can't be trusted any more is
        set aside. `distrust`: why that is so of what is stored, where it is known already.

        Raises as `__init__` does.
        """
        gone, journal_id = self.stored.lost() is not None, self.journal_id
        try:
            self._prepared = self._prepared.renew(distrust)
        except (JournalError, StoreError) as error:
            if self.unkept is not None:
                raise
            # The lock stays this process's: nobody else is to come to what we could not see to.
            self._serve_on(error)
        else:
            self._tell()
            if gone and self.journal_id != journal_id:
                # They may come back, and don't know of the purges of the meantime.
                self._leave_note()
        self._look()

    def close(self, *, clean: bool) -> None:
        """Let go of it; `clean`: all workers have closed the store."""
        self._prepared.close(clean=clean)

    def _prepare(self, distrust: str | None = None) -> Prepared:
        return prepare_store(
            self.config, self.directory, _check_journal, self._clock.moment, distrust=distrust
        )

    def _noted(self) -> str | None:
        if not self._note.exists():
            return None
        return "purges were taken while it could not be used"

    def _leave_note(self) -> None:
        if self.config.store.directory is not None:
            self._note.touch(0o600)

    def _look(self) -> None:
        check_ledger(self.directory / LEDGER)
        files = [self.directory / name / "data.mdb" for name in (JOURNAL, RESPONSES)]
        self.stored = Whereabouts.of(files)
        """Where the purges and the responses are that all workers have to go by."""
        self.locked = Whereabouts.of([self.directory / LOCK])
        """What keeps others from the folder."""

    def _serve_on(self, error: Exception) -> None:
        self._leave_note()
        refused = self.directory
        self.unkept = f"{error}: what is stored, and every purge, ends with this run"
        store = self.config.store
        bound = min(store.max_bytes, BRIEF_BYTES)
        self.config = self.config.model_copy(
            update={"store": store.model_copy(update={"max_bytes": bound})}
        )
        self.directory = self._run_folder / "state"
        make_private(self.directory)
        self._prepared = self._prepare()
        log.error(
            "%s; serving on with an empty store of at most %s in %s; make %s readable and writable "
            "for this user, and restart",
            self.unkept, format_size(bound), self.directory, refused,
        )  # fmt: skip

    def _tell(self) -> None:
        for message in self._prepared.messages:
            log.warning("%s", message)


def _check_journal(directory: Path, step: float) -> bytes | str:
    try:
        return check_journal(directory, step)
    except JournalDamaged as error:
        return str(error)
    except JournalError as error:
        if not step:
            raise
        return f"its deadlines can't be set right: {error}"
