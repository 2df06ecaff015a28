"""The access log: formatted and written by a thread, so that no request waits for a disk."""

from __future__ import annotations

import logging
import os
import select
import stat
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.runtime.access_format import FORMATS

if TYPE_CHECKING:
    from edgeproxy.proxy.access import AccessRecord

log = logging.getLogger(__name__)

QUEUE_RECORDS = 65536
# The thread gathers for so long before it writes: one system call for many lines.
_GATHER_SECONDS = 0.05
# Small enough not to keep the interpreter's lock from the event loop for longer than about 1 ms.
_BATCH_RECORDS = 256
_REPORT_SECONDS = 60.0
_TOO_SLOW = "written too slowly"
_STDOUT = 1


@dataclass(frozen=True, slots=True)
class AccessLogSettings:
    target: str
    """`stdout`, `off`, or the path of a file."""
    format: str
    """A key of `FORMATS`."""


class AccessLog:
    """Takes records from the event loop; a bounded number wait, those beyond are dropped.

    Files are appended to, a batch by one call, so that all workers can share one.
    """

    def __init__(
        self,
        settings: AccessLogSettings,
        *,
        capacity: int = QUEUE_RECORDS,
        patient: bool = False,
    ) -> None:
        """Raises OSError when the file cannot be opened; `patient`: it is tried again instead, and
        records are lost until then."""
        self._capacity = capacity
        self._records: deque[AccessRecord] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._settings = settings
        self._reopen: AccessLogSettings | None = None
        self._fd: int | None = None
        try:
            self._fd = _open(settings.target)
        except OSError as error:
            if not patient:
                raise
            log.warning("access log %s: %s; it is tried again", settings.target, error.strerror)
        # Each is counted by one thread only.
        self._overflowed = 0
        self._unwritten = 0
        self._reported = 0
        self._reason = _TOO_SLOW
        self._next_report = 0.0
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def __call__(self, record: AccessRecord) -> None:
        """Log a request; never blocks. This is the AccessSink of a worker."""
        if self._settings.target == "off":
            return
        if len(self._records) >= self._capacity:
            self._overflowed += 1
            return
        self._records.append(record)
        if not self._wake.is_set():
            self._wake.set()

    @property
    def dropped(self) -> int:
        """Records lost so far, because the queue was full or because writing failed."""
        return self._overflowed + self._unwritten

    def reopen(self, settings: AccessLogSettings | None = None) -> None:
        """Open the file anew, after a rotation or with other settings; soon, by the thread.

        A file that cannot be opened is logged, and the old one goes on being written.
        """
        self._reopen = settings or self._settings
        self._wake.set()

    def close(self, wait: float = 5.0) -> None:
        """Write what waits, for at most `wait` seconds, and stop."""
        self._closing.set()
        self._wake.set()
        self._thread.join(wait)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._closing.wait(_GATHER_SECONDS)
            self._wake.clear()
            # After that, or a closing in between would wake nobody.
            last = self._closing.is_set()
            self._take_settings()
            while self._records:
                self._write_batch()
            self._report(at_once=last)
            if last:
                return

    def _take_settings(self) -> None:
        settings, self._reopen = self._reopen, None
        if settings is None:
            return
        try:
            fd = _open(settings.target)
        except OSError as error:
            log.warning("access log %s: %s; the old one stays", settings.target, error.strerror)
            return
        if self._fd is not None and self._fd != _STDOUT:
            os.close(self._fd)
        self._fd, self._settings = fd, settings

    def _write_batch(self) -> None:
        count = min(len(self._records), _BATCH_RECORDS)
        records = [self._records.popleft() for _ in range(count)]
        format_record = FORMATS[self._settings.format]
        try:
            if self._fd is None:
                self._fd = _open(self._settings.target)
            if self._fd is not None:
                _write(self._fd, [format_record(record) for record in records])
        except (OSError, ValueError) as error:
            # ValueError: text that cannot be encoded. Whatever it was, the thread must live.
            self._unwritten += count
            self._reason = getattr(error, "strerror", None) or str(error)

    def _report(self, *, at_once: bool) -> None:
        """Say what was lost, at most once a minute."""
        dropped = self.dropped
        now = time.monotonic()
        if dropped > self._reported and (at_once or now >= self._next_report):
            target, lost = self._settings.target, dropped - self._reported
            log.warning("access log %s: %d records lost (%s)", target, lost, self._reason)
            self._reported, self._next_report = dropped, now + _REPORT_SECONDS
            self._reason = _TOO_SLOW


def _open(target: str) -> int | None:
    if target == "off":
        return None
    if target == "stdout":
        return _STDOUT
    return os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _write(fd: int, lines: list[bytes]) -> None:
    if stat.S_ISREG(os.fstat(fd).st_mode):
        _write_all(fd, b"".join(lines))
        return
    # The workers' writes to a pipe stay whole up to PIPE_BUF (POSIX write()).
    chunk = b""
    for line in lines:
        if chunk and len(chunk) + len(line) > select.PIPE_BUF:
            _write_all(fd, chunk)
            chunk = b""
        chunk += line
    _write_all(fd, chunk)


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            # Standard output may be shared with a process that made it non-blocking.
            select.select([], [fd], [])
