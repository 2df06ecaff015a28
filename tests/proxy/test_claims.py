"""Claims across processes: real ones, because the kernel gives them back."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeproxy.proxy.claims import Claims

ONE, OTHER = b"1" * 16, b"2" * 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "claims"


@pytest.fixture
def claims(path: Path) -> Iterator[Claims]:
    opened = Claims(path)
    yield opened
    opened.close()


@contextmanager
def worker(path: Path, act: Callable[[Claims], bool]) -> Iterator[tuple[int, bool]]:
    """Another worker: its process id and what `act` returned; it stays until the block is left."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(tell, b"1" if act(Claims(path)) else b"0")
            signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    try:
        yield pid, os.read(told, 1) == b"1"
    finally:
        os.close(told)
        kill(pid)


def kill(pid: int) -> None:
    """Kill a worker, and return when it is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def test_a_key_is_claimed_once(claims: Claims) -> None:
    assert claims.acquire(ONE)
    assert not claims.acquire(ONE), "nor by another fetch of the same worker"
    assert claims.acquire(OTHER)
    claims.release(ONE)
    assert claims.acquire(ONE)


def test_only_what_was_granted_can_be_given_back(claims: Claims) -> None:
    with pytest.raises(KeyError):
        claims.release(ONE)


def test_one_s_own_claim_has_no_other_holder(claims: Claims) -> None:
    assert claims.holder(ONE) is None
    assert claims.acquire(ONE)
    assert claims.holder(ONE) is None


def test_the_file_is_nobody_else_s(claims: Claims, path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_worker_s_claim_is_seen(claims: Claims, path: Path) -> None:
    with worker(path, lambda theirs: theirs.acquire(ONE)) as (pid, granted):
        assert granted
        assert not claims.acquire(ONE)
        assert claims.holder(ONE) == pid
        assert claims.holder(OTHER) is None
        assert claims.acquire(OTHER)


def test_another_worker_sees_ours(claims: Claims, path: Path) -> None:
    us = os.getpid()
    assert claims.acquire(ONE)

    def look(theirs: Claims) -> bool:
        return not theirs.acquire(ONE) and theirs.holder(ONE) == us and theirs.acquire(OTHER)

    with worker(path, look) as (_, as_expected):
        assert as_expected


def test_what_was_given_back_is_free_for_all(claims: Claims, path: Path) -> None:
    def take_and_release(theirs: Claims) -> bool:
        granted = theirs.acquire(ONE) and theirs.acquire(OTHER)
        theirs.release(ONE)
        return granted

    with worker(path, take_and_release) as (pid, granted):
        assert granted
        assert claims.holder(ONE) is None
        assert claims.acquire(ONE)
        assert claims.holder(OTHER) == pid
        assert not claims.acquire(OTHER)


def test_a_worker_that_is_killed_gives_its_claims_back(claims: Claims, path: Path) -> None:
    with worker(path, lambda theirs: theirs.acquire(ONE)) as (pid, granted):
        assert granted
        assert not claims.acquire(ONE)
        kill(pid)
        assert claims.holder(ONE) is None
        assert claims.acquire(ONE)


def test_a_worker_that_closes_gives_all_back(claims: Claims, path: Path) -> None:
    def take_and_close(theirs: Claims) -> bool:
        granted = theirs.acquire(ONE) and theirs.acquire(OTHER)
        theirs.close()
        return granted

    with worker(path, take_and_close) as (_, granted):
        assert granted
        assert claims.acquire(ONE)
        assert claims.acquire(OTHER)


@pytest.mark.parametrize("key", [b"\x00" * 16, b"\xff" * 16, b"\x80" + b"\x00" * 15])
def test_every_key_can_be_claimed(key: bytes, claims: Claims, path: Path) -> None:
    with worker(path, lambda theirs: theirs.acquire(key)) as (pid, granted):
        assert granted
        assert claims.holder(key) == pid
