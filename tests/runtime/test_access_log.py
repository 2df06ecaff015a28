"""The access log's thread, with real files and pipes."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgeproxy.runtime.access_format import common, json_line
from edgeproxy.runtime.access_log import AccessLog, AccessLogSettings
from tests.runtime.test_access_format import RECORD

LINE = common(RECORD)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@pytest.fixture
def pipe() -> Iterator[tuple[int, str]]:
    """The reading end of a pipe, and a path that opens the other."""
    read, write = os.pipe()
    yield read, f"/proc/self/fd/{write}"
    os.close(read)
    os.close(write)


def started(target: Path | str, **options: int) -> AccessLog:
    return AccessLog(AccessLogSettings(str(target), "common"), **options)


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_records_are_written_in_order_by_the_time_it_is_closed(path: Path) -> None:
    log = started(path)
    records = [replace(RECORD, status=status) for status in range(100, 600)]
    for record in records:
        log(record)
    log.close()
    assert path.read_bytes() == b"".join(map(common, records))
    assert log.dropped == 0


def test_records_are_written_without_waiting_for_the_end(path: Path) -> None:
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    log = started(path)
    log(RECORD)
    assert os.read(reader, 4096) == LINE
    log.close()
    os.close(reader)


def test_a_file_is_appended_to(path: Path) -> None:
    path.write_bytes(b"before\n")
    log = started(path)
    log(RECORD)
    log.close()
    assert path.read_bytes() == b"before\n" + LINE


def test_a_new_file_is_not_for_everybody_to_read(path: Path) -> None:
    started(path).close()
    assert path.stat().st_mode & 0o007 == 0


def test_a_record_that_cannot_be_written_down_stops_nothing(path: Path) -> None:
    log = AccessLog(AccessLogSettings(str(path), "json"))
    log(replace(RECORD, host="\ud800"))
    until(lambda: log.dropped == 1)
    log(RECORD)
    log.close()
    assert path.read_bytes() == json_line(RECORD)


def test_off_writes_nothing_and_holds_nothing() -> None:
    log = started("off", capacity=1)
    for _ in range(10):
        log(RECORD)
    log.close()
    assert log.dropped == 0


def test_stdout_is_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    log = started("stdout")
    log(RECORD)
    log.close()
    assert capfdbinary.readouterr().out == LINE
    os.fstat(1)


def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        started(tmp_path / "absent" / "access.log")


def test_after_a_rotation_the_new_file_is_written(path: Path) -> None:
    log = started(path)
    log(RECORD)
    until(lambda: path.read_bytes() == LINE)
    rotated = path.rename(path.with_suffix(".1"))
    log.reopen()
    until(path.exists)
    log(RECORD)
    log.close()
    assert rotated.read_bytes() == LINE
    assert path.read_bytes() == LINE


def test_other_settings_are_taken_without_a_loss(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.log"
    log = started(path)
    log.reopen(AccessLogSettings(str(other), "json"))
    log(RECORD)
    log.close()
    assert path.read_bytes() == b""
    assert other.read_bytes().startswith(b'{"time":"2023-11-14T22:13:20.250Z"')


def test_the_old_file_stays_when_the_new_one_cannot_be_opened(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = started(path)
    log.reopen(AccessLogSettings(str(tmp_path / "absent" / "a.log"), "common"))
    log(RECORD)
    log.close()
    assert path.read_bytes() == LINE
    assert "No such file or directory; the old one stays" in caplog.text


def test_when_nobody_takes_the_lines_records_are_dropped_and_counted(
    pipe: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    reader, target = pipe
    log = started(target, capacity=1000)
    for _ in range(20_000):
        log(RECORD)
    dropped = log.dropped
    assert dropped > 20_000 - 1000 - (65536 + 1024 * len(LINE)) // len(LINE)
    received = bytearray()

    def read_all() -> None:
        while data := os.read(reader, 65536):
            received.extend(data)
            if received.count(b"\n") == 20_000 - dropped:
                return

    thread = threading.Thread(target=read_all)
    thread.start()
    log.close()
    thread.join(10)
    assert received == LINE * (20_000 - dropped)
    assert f"{dropped} records lost (written too slowly)" in caplog.text


def test_a_full_disk_loses_records_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    log = started("/dev/full")
    for _ in range(3):
        log(RECORD)
    with caplog.at_level(logging.WARNING):
        log.close()
    assert log.dropped == 3
    assert "access log /dev/full: 3 records lost (No space left on device)" in caplog.text


def test_lines_of_several_workers_in_one_pipe_stay_whole(pipe: tuple[int, str]) -> None:
    reader, target = pipe
    logs = [started(target) for _ in range(4)]
    records = [replace(RECORD, target=b"/%d/" % number * 60) for number in range(4)]
    lines = [common(record) for record in records]
    count = 500
    for log, record in zip(logs, records, strict=True):
        for _ in range(count):
            log(record)
    received = bytearray()
    while received.count(b"\n") < count * len(logs):
        received.extend(os.read(reader, 65536))
    for log in logs:
        log.close()
    got = bytes(received).splitlines(keepends=True)
    assert [got.count(line) for line in lines] == [count] * len(logs)


def test_closing_does_not_wait_for_a_stuck_reader_for_ever(pipe: tuple[int, str]) -> None:
    reader, target = pipe
    log = started(target)
    for _ in range(2000):
        log(RECORD)
    log.close(wait=0.2)
    received = 0
    while received < 2000:
        received += os.read(reader, 65536).count(b"\n")
