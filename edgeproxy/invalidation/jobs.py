"""Jobs: work that a call of the admin API left running, for every worker of the node to see.

Each is a small file in a folder that the workers share. Its worker writes it; a second file beside
it is the wish of any worker that it be cancelled.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from edgeproxy.cache.errors import UNREADABLE
from edgeproxy.cache.store import alive

if TYPE_CHECKING:
    from pathlib import Path

KEPT_JOBS = 200
"""How many of the newest jobs are remembered."""

_LONGEST_ID = 100
"""None of ours is that long; no file's name may be much longer."""

State: TypeAlias = Literal["running", "done", "cancelled", "interrupted"]


class Job(msgspec.Struct, frozen=True):
    """The fetching anew of what a purge picked; times are in seconds since the epoch."""

    id: str
    purge_id: str
    """The purge's record in the journal."""
    actor: str
    sites: tuple[str, ...]
    state: State
    """"interrupted": its worker ended before it did."""
    total: int
    """Responses to fetch anew, those used most first."""
    done: int
    failed: int
    started: float
    ended: float | None
    pid: int
    """Its worker's process."""


_decoder = msgspec.json.Decoder(Job)


class Jobs:
    """The jobs of a node, in a folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def begin(
        self, purge_id: str, actor: str, sites: tuple[str, ...], total: int, now: float
    ) -> Job:
        """A new job of this process, which is running."""
        # The time first: names are in the order of beginning.
        identity = f"{int(now * 1000):012x}{secrets.token_hex(6)}"
        job = Job(identity, purge_id, actor, sites, "running", total, 0, 0, now, None, os.getpid())
        self.write(job)
        for old in sorted(self._directory.glob("*.json"))[:-KEPT_JOBS]:
            old.unlink(missing_ok=True)
            old.with_suffix(".cancel").unlink(missing_ok=True)
        return job

    def write(self, job: Job) -> None:
        """Tell how far a job of this process is."""
        path = self._directory / f"{job.id}.json"
        written = path.with_suffix(".new")
        written.write_bytes(msgspec.json.encode(job))
        written.replace(path)

    def list(self) -> list[Job]:
        """All that are remembered, the newest first."""
        names = sorted((path.stem for path in self._directory.glob("*.json")), reverse=True)
        return [job for name in names if (job := self.get(name)) is not None]

    def get(self, identity: str) -> Job | None:
        """The job of that id; None if there is none."""
        if not identity.isalnum() or len(identity) > _LONGEST_ID:
            return None
        try:
            job = _decoder.decode((self._directory / f"{identity}.json").read_bytes())
        except (FileNotFoundError, *UNREADABLE):
            return None
        if job.state == "running" and not alive(job.pid):
            return msgspec.structs.replace(job, state="interrupted")
        return job

    def cancel(self, identity: str) -> Job | None:
        """Ask for a job to be cancelled: it takes a moment. None if there is none of that id."""
        job = self.get(identity)
        if job is not None and job.state == "running":
            (self._directory / f"{identity}.cancel").touch(mode=0o600)
        return job

    def is_cancelled(self, identity: str) -> bool:
        """Whether somebody asked for that."""
        return (self._directory / f"{identity}.cancel").exists()
