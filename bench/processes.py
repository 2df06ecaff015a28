"""Servers as processes: started on a core of their own, watched, ended."""

from __future__ import annotations

import http.client
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench.requests import HOST
from bench.servers import Place, Server, program

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOM = 6 * 2**30
READY_WITHIN = 30.0
SETTLES_WITHIN = 10.0
LOOKS_ALIKE = 4
"""So often in a row the origin's count must be the same, to be taken for its last."""
ENDS_WITHIN = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """Nothing can be measured, and this is why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    length: str | None
    """Content-Length."""
    etag: str
    body: bytes


class Running:
    """A server that runs, pinned to one core, or to none."""

    def __init__(
        self,
        server: Server,
        folder: Path,
        core: int | None,
        origin: int = 0,
        setup: str = "plain",
        certificate: Path | None = None,
    ) -> None:
        self.server = server
        self.port, self.spare_port, self.tls_port = free_ports(3)
        name = server.name if setup == "plain" else f"{server.name}-{setup}"
        self._log = folder / f"{name}.log"
        place = Place(
            folder / name, self.port, origin, self.spare_port, self.tls_port, certificate, setup
        )
        place.folder.mkdir(exist_ok=True)
        launch = server.launch(place)
        # A session of its own: Ctrl-C is for this program alone, which then ends all others. If it
        # is killed, they are told by the kernel.
        command = ["setpriv", "--pdeathsig", "TERM"]
        if server.user and os.getuid() == 0:
            shutil.chown(place.folder, server.user)
            user = pwd.getpwnam(server.user)
            command += ["--reuid", f"{user.pw_uid}", "--regid", f"{user.pw_gid}", "--clear-groups"]
        command += launch.command
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command if core is None else pinned(command, core),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **launch.environment},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait_until_ready(self, path: str) -> None:
        """Wait until it answers that path with 200."""
        give_up = time.monotonic() + READY_WITHIN
        while True:
            try:
                if self.get(path)[0] == 200:
                    return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > give_up:
                log = self._log.read_text(errors="replace")
                raise BenchError(f"{self.server.name} does not start:\n{log}")
            time.sleep(0.05)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers={"Host": HOST})
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()

    def get_all(
        self, paths: Iterable[str], encoding: str = "identity", *, tls: bool = False
    ) -> None:
        """GET them one after the other, on one connection. Raises BenchError if one is not 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        if tls:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.tls_port, timeout=10, context=_trusting
            )
        fields = {"Host": HOST, "Accept-Encoding": encoding}
        for path in paths:
            connection.request("GET", path, headers=fields)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise BenchError(f"{self.server.name} answers {path} with {response.status}")
        connection.close()

    def ask(self, request: bytes, *, tls: bool = False) -> Answer:
        """Send these bytes, and take the answer, on a connection of its own."""
        plain = socket.create_connection(("127.0.0.1", self.tls_port if tls else self.port), 10)
        with _trusting.wrap_socket(plain) if tls else plain as connection:
            connection.sendall(request)
            method = request.partition(b" ")[0].decode()
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            return Answer(
                status=response.status,
                length=response.getheader("Content-Length"),
                etag=response.getheader("ETag", ""),
                body=response.read(),
            )

    def memory_bytes(self) -> int:
        """Memory that its processes have for themselves; files that they map don't count."""
        return sum(map(_private_bytes, _tree(self._process.pid)))

    def memory_of_workers(self) -> list[int]:
        """The same of each of the processes below its first one."""
        return list(map(_private_bytes, _tree(self._process.pid)[1:]))

    def cpu_seconds(self) -> float:
        """Processor time that it has used, in user and in kernel mode, of all its processes.

        It only grows, whichever of them end.
        """
        return sum(map(_cpu_seconds, _tree(self._process.pid)))


def _trusting_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_trusting = _trusting_context()
"""The servers' certificate is made for each run."""


def make_certificate(folder: Path) -> Path | None:
    """A file with a certificate and its key (P-256); None where there is no openssl."""
    openssl = program("openssl")
    if openssl is None:
        return None
    key, path = folder / "key.pem", folder / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += [
        "-nodes",
        "-days",
        "30",
        "-subj",
        f"/CN={HOST}",
        "-keyout",
        str(key),
        "-out",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"openssl makes no certificate:\n{done.stderr}")
    path.write_text(path.read_text() + key.read_text())
    return path


def pinned(command: list[str], core: int) -> list[str]:
    """The command, kept on one core."""
    return ["taskset", "-c", str(core), *command]


class OriginCount:
    """How many requests the origin has had; those that ask it for that are left out."""

    def __init__(self, origin: Running) -> None:
        self._origin = origin
        self._looks = 0

    def settled(self) -> int:
        """The number once it grows no more: a load that ends leaves some work behind it."""
        give_up = time.monotonic() + SETTLES_WITHIN
        looks = [self.now()]
        while looks[-LOOKS_ALIKE:] != looks[-1:] * LOOKS_ALIKE:
            if time.monotonic() > give_up:
                raise BenchError(f"the origin goes on getting requests: {looks[-1]} by now")
            time.sleep(0.05)
            looks.append(self.now())
        return looks[-1]

    def now(self) -> int:
        """The number as it is."""
        _, text = self._origin.get("/status")
        self._looks += 1
        found = re.search(r"\n +\d+ +\d+ +(\d+)", text)
        if found is None:
            raise BenchError(f"the origin's status can't be read: {text!r}")
        return int(found[1]) - self._looks


def fast_folder() -> str:
    """Where caches are measured without a disk, if there is room."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free >= ROOM
    return str(memory) if roomy else tempfile.gettempdir()


def free_ports(count: int) -> list[int]:
    """That many ports that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += _tree(child)
    return found


def _private_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _cpu_seconds(pid: int) -> float:
    # The second field, the program's name, may have blanks and brackets of its own.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    # Its own in user and in kernel mode, then that of the children that it has seen end.
    return sum(map(int, fields[11:15])) / TICKS
