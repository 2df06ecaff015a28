"""What a disk does that has no room, or can't be written."""

import errno
import logging
import os
from pathlib import Path

import lmdb
import pytest

from edgeproxy.cache.disk import WriteWatch, allocate_lock_file, disk_error, warn
from edgeproxy.cache.errors import StoreError, StoreFull, StoreUnusable
from tests.cache.samples import Time
from tests.kit.disk import full_disk

FOLDER = Path("/var/cache/edge")


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(os_error(errno.ENOSPC), StoreFull, id="no space"),
        pytest.param(os_error(errno.EDQUOT), StoreFull, id="a quota"),
        pytest.param(os_error(errno.EFBIG), StoreFull, id="a file's limit"),
        pytest.param(os_error(errno.EROFS), StoreUnusable, id="read-only"),
        pytest.param(
            lmdb.DiskError("mdb_txn_commit: No space left on device"), StoreFull, id="LMDB's"
        ),
        pytest.param(lmdb.Error("mdb_txn_commit: File too large"), StoreFull, id="LMDB's other"),
        pytest.param(lmdb.Error("mdb_put: Permission denied"), StoreUnusable, id="LMDB's unusable"),
    ],
)
def test_an_error_names_the_folder_and_the_reason(
    error: OSError | lmdb.Error, kind: type[StoreError]
) -> None:
    told = disk_error(error, FOLDER)
    assert type(told) is kind
    reason = error.strerror if isinstance(error, OSError) else str(error)
    assert str(told) == f"{FOLDER}: {reason}"


def test_a_write_that_lmdb_could_not_end_may_mean_a_full_disk() -> None:
    told = disk_error(lmdb.Error("mdb_txn_commit: Input/output error"), FOLDER)
    assert type(told) is StoreUnusable
    assert str(told) == f"{FOLDER}: mdb_txn_commit: Input/output error (the disk may be full)"


def test_a_store_that_can_t_be_written_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Time()
    watch = WriteWatch(FOLDER, clock)
    watch.written()
    errors = [StoreFull(f"{FOLDER}/tmp: full") for _ in range(5)]
    for error in errors:
        watch.failed(error)
        clock.now += 9
        watch.written()
    assert [record.message for record in caplog.records] == [
        f"the store in {FOLDER} can't be written ({FOLDER}/tmp: full): "
        "responses are passed on and not stored"
    ]
    assert all(error.told for error in errors)
    caplog.clear()
    clock.now += 1
    for _ in range(2):
        watch.written()
    assert [record.message for record in caplog.records] == [
        f"the store in {FOLDER} can be written again"
    ]
    caplog.clear()
    watch.failed(StoreFull("full"))
    assert len(caplog.records) == 1, "and so from the beginning"


@pytest.mark.parametrize(("told", "level"), [(False, logging.WARNING), (True, logging.DEBUG)])
def test_what_follows_from_it_needs_no_warning(
    caplog: pytest.LogCaptureFixture, told: bool, level: int
) -> None:
    caplog.set_level(logging.DEBUG)
    error = StoreFull("full")
    error.told = told
    warn(logging.getLogger(__name__), error, "%s is not stored: %s", "a", error)
    (record,) = caplog.records
    assert (record.levelno, record.message) == (level, "a is not stored: full")


@pytest.mark.parametrize(
    ("error", "first_read", "damage"),
    [
        pytest.param(lmdb.CorruptedError("m"), False, True, id="damage"),
        pytest.param(lmdb.PageNotFoundError("m"), False, True, id="a page is missing"),
        pytest.param(lmdb.BadTxnError("m"), True, True, id="nothing can be read"),
        pytest.param(lmdb.BadTxnError("m"), False, False, id="something had failed before"),
        pytest.param(lmdb.MapFullError("m"), True, False, id="full"),
        pytest.param(lmdb.ReadersFullError("m"), True, False, id="readers"),
        pytest.param(None, True, False, id="no error of LMDB's"),
    ],
)
def test_damage_is_told_apart_from_what_passes(
    error: lmdb.Error | None, first_read: bool, damage: bool
) -> None:
    told: list[str] = []
    watch = WriteWatch(FOLDER, on_damage=told.append)
    watch.look_at(error, first_read=first_read)
    assert told == [f"the store in {FOLDER} is damaged: m"] * damage


def test_damage_shows_when_it_is_written_to(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    failure = StoreUnusable("damaged")
    failure.__cause__ = lmdb.CorruptedError("m")
    WriteWatch(FOLDER, on_damage=told.append).failed(failure)
    assert told == [f"the store in {FOLDER} is damaged: m"]


# -- LMDB's lock file


def test_the_lock_file_has_all_of_its_blocks_beforehand(tmp_path: Path) -> None:
    allocate_lock_file(tmp_path, 1000)
    found = (tmp_path / "lock.mdb").stat()
    assert found.st_blocks * 512 >= found.st_size >= 1000 * 64
    with lmdb.open(str(tmp_path), max_readers=1000) as env:
        assert env.max_readers() >= 1000
        assert (tmp_path / "lock.mdb").stat().st_size == found.st_size


def test_one_that_is_there_is_not_touched(tmp_path: Path) -> None:
    """To close it would take away the locks that LMDB has on it in this process."""
    allocate_lock_file(tmp_path, 10)
    (tmp_path / "lock.mdb").chmod(0)
    before = (tmp_path / "lock.mdb").stat()
    allocate_lock_file(tmp_path, 10)
    assert (tmp_path / "lock.mdb").stat() == before


def test_no_room_for_it_is_said(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(OSError, match="File too large"):
        allocate_lock_file(tmp_path, 1000)
