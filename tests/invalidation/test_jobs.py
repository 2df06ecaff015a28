"""Jobs as every worker sees them."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from edgeproxy.invalidation import jobs as jobs_module
from edgeproxy.invalidation.jobs import Job, Jobs

if TYPE_CHECKING:
    from pathlib import Path


def begin(jobs: Jobs, now: float = 1000.0) -> Job:
    return jobs.begin("purge", "editor", ("shop",), 3, now)


def test_all_see_how_far_a_job_is(tmp_path: Path) -> None:
    one, two = Jobs(tmp_path), Jobs(tmp_path)
    job = begin(one)
    assert two.list() == [job]
    further = replace(job, done=2, failed=1, state="done", ended=1003.5)
    one.write(further)
    assert two.get(job.id) == further


def test_the_newest_come_first_and_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "KEPT_JOBS", 3)
    jobs = Jobs(tmp_path)
    begun = [begin(jobs, 1000.0 + number) for number in range(5)]
    assert jobs.list() == begun[:1:-1]
    assert jobs.get(begun[0].id) is None


def test_any_worker_cancels(tmp_path: Path) -> None:
    one, two = Jobs(tmp_path), Jobs(tmp_path)
    job = begin(one)
    assert not one.is_cancelled(job.id)
    assert two.cancel(job.id) == job
    assert one.is_cancelled(job.id)


def test_what_has_ended_is_not_cancelled_any_more(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = replace(begin(jobs), state="done", ended=1001.0)
    jobs.write(job)
    assert jobs.cancel(job.id) == job
    assert not jobs.is_cancelled(job.id)


@pytest.mark.parametrize("identity", ["", "nobody", "../secret", "a/b"])
def test_there_is_none_of_that_id(tmp_path: Path, identity: str) -> None:
    (tmp_path / "secret.json").write_text("{}")
    jobs = Jobs(tmp_path / "jobs")
    assert jobs.get(identity) is None
    assert jobs.cancel(identity) is None


def test_a_job_whose_worker_is_gone_was_interrupted(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    job = replace(begin(jobs), pid=gone.pid)
    jobs.write(job)
    assert jobs.get(job.id) == replace(job, state="interrupted")


def test_a_file_that_is_no_job_is_none(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path)
    job = begin(jobs)
    (tmp_path / "0damaged.json").write_bytes(b"{")
    assert jobs.list() == [job]
