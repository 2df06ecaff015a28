"""A real redis-server for the tests of the redis:// store."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from .ports import free_port

START_WITHIN = 10.0
OPTIONS = ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
MISSING = (
    "redis-server is not installed: the tests of the redis:// store are left out"
    " (`make test` as root installs it where there is apt-get)"
)


class RedisServer:
    """A redis-server without persistence on a free port. `url(db)` is what the edge is given."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def url(self, db: int = 0) -> str:
        """The store URL of that database."""
        return f"redis://127.0.0.1:{self.port}/{db}"

    def start(self) -> None:
        """Start and wait until it answers; on its old port if it had one.

        Skips the test where Redis is not installed; in CI, where nothing may be left out, fails it.
        """
        program = shutil.which("redis-server")
        if program is None:
            if os.environ.get("CI"):
                pytest.fail(MISSING)
            pytest.skip(MISSING)
        self.port = self.port or free_port()
        self._process = subprocess.Popen(
            [program, "--port", str(self.port), *OPTIONS, "--dir", str(self._folder)],
            stdout=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + START_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                raise RuntimeError(f"redis-server does not start on port {self.port}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return self.command("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def command(self, *words: str) -> bytes:
        """Send one command, give the first line of its answer."""
        parts = [b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words]
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(b"*%d\r\n%b" % (len(words), b"".join(parts)))
            with connection.makefile("rb") as answer:
                return answer.readline()

    def stop(self) -> None:
        """End it; what it held is gone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
