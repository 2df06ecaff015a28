"""An edge of its own for a test: `edgeproxy serve` as a process of its own, with its workers."""

import asyncio
import copy
import hashlib
import json
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .forking import Forked, spawn
from .http import Connection, FieldsLike, Response, encode_fields, fetch
from .ports import PortLease
from .toml import merged, to_toml
from .wire import HEAD_LIMIT, MessageCut

TOKEN = "kit-admin-token"
READY_WITHIN = 30.0
GONE_WITHIN = 30.0
POLL = 0.02


class EdgeProcess:
    """A supervisor with its workers, on ports of their own.

    `config` is laid on a configuration with one site, `default`, in front of `origin`; `site` on
    that site. With `flags` there is no configuration file: they follow `--listen` and `--admin`.
    `sabotage` names a function of `tests.e2e.sabotage` that breaks it beforehand.
    The object can be started again after it was stopped or killed, with the same ports and folder.
    As a context manager it is started, and stopped; it must then exit 0 without a traceback.
    """

    def __init__(
        self,
        folder: Path,
        *,
        origin: str | None = None,
        workers: int = 1,
        store: str | None = None,
        config: Mapping[str, Any] | None = None,
        site: Mapping[str, Any] | None = None,
        flags: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        sabotage: str | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.token = TOKEN
        self.host: str | None = None
        """The Host of requests that name none; if None, its address."""
        self._public = PortLease()
        self._admin = PortLease()
        self._env = dict(env or {})
        if sabotage is not None:
            self._env["KIT_SABOTAGE"] = sabotage
        self._flags = flags
        self._process: Forked | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._lines: dict[str, list[str]] = {"out": [], "err": []}
        self._news = asyncio.Condition()
        base: dict[str, Any] = {
            "listen": [{"address": f"127.0.0.1:{self._public.port}"}],
            "admin": {
                "address": f"127.0.0.1:{self._admin.port}",
                "tokens": [{"name": "kit", "hash": token_hash(TOKEN)}],
            },
            "workers": workers,
            "store": {"url": store or f"lmdb:{folder / 'store'}"},
            "runtime_dir": str(folder / "run"),
            "default_site": "default",
        }
        if origin is not None:
            base["sites"] = {"default": {"origins": [{"url": origin}]}}
        self.config = merged(base, config or {})
        if site is not None:
            self.config = merged(self.config, {"sites": {"default": site}})

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self.running and error is None:
                await self.stop()
        finally:
            if self.running:
                await self.kill()
            self.release()

    def at(self, host: str) -> Self:
        """The same edge, as those see it who ask for that host."""
        seen = copy.copy(self)
        seen.host = host
        return seen

    @property
    def url(self) -> str:
        """The public base URL."""
        return f"http://127.0.0.1:{self._public.port}"

    @property
    def admin_url(self) -> str:
        """The admin port's base URL."""
        return f"http://127.0.0.1:{self._admin.port}"

    @property
    def config_path(self) -> Path:
        """Where the configuration is written at start and by `write_config`."""
        return self.folder / "edgeproxy.toml"

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self._process is not None, "the edge is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the supervisor is there."""
        return self._process is not None and self._process.returncode is None

    @property
    def stdout(self) -> str:
        """What it has written to its standard output, over all starts."""
        return "".join(self._lines["out"])

    @property
    def log(self) -> str:
        """What it has written to its standard error, over all starts."""
        return "".join(self._lines["err"])

    def pids(self) -> list[int]:
        """The workers' process ids, oldest first."""
        return children(self.pid)

    def write_config(self, change: Mapping[str, Any] | None = None) -> None:
        """Write the configuration, with `change` laid on it from now on."""
        self.config = merged(self.config, change or {})
        self.config_path.write_text(to_toml(self.config))

    def arguments(self) -> list[str]:
        """What `edgeproxy` is started with."""
        if self._flags is None:
            return ["serve", "--config", str(self.config_path)]
        addresses = ["--listen", f"127.0.0.1:{self._public.port}"]
        addresses += ["--admin", f"127.0.0.1:{self._admin.port}"]
        return ["serve", *addresses, *self._flags]

    async def start(self, *, wait: bool = True) -> None:
        """Start it and, unless told otherwise, wait until it is ready."""
        assert not self.running, "the edge is running already"
        if self._flags is None:
            self.write_config()
        self._process = await spawn(
            self.arguments(),
            {**os.environ, "EDGEPROXY_ADMIN_TOKEN": TOKEN, **self._env},
            HEAD_LIMIT,
        )
        streams = {"out": self._process.stdout, "err": self._process.stderr}
        self._readers = [
            asyncio.create_task(self._collect(name, stream)) for name, stream in streams.items()
        ]
        if wait:
            await self.ready()

    async def ready(self) -> None:
        """Wait until every worker accepts and the store is usable."""
        give_up = asyncio.get_running_loop().time() + READY_WITHIN
        while True:
            try:
                if (await fetch(f"{self.admin_url}/readyz")).status == 200:
                    return
            except (OSError, AssertionError, MessageCut):
                pass
            assert self.running, f"the edge has ended:\n{self.log}"
            late = asyncio.get_running_loop().time() > give_up
            assert not late, f"the edge is not ready:\n{self.log}"
            await asyncio.sleep(POLL)

    async def wait(self) -> int:
        """Wait for the end of the supervisor: its exit status, negative for a signal."""
        assert self._process is not None
        async with asyncio.timeout(GONE_WITHIN):
            status = await self._process.wait()
            await asyncio.gather(*self._readers)
        return status

    async def stop(self, *, expect: int = 0) -> None:
        """End it in good order, and check that it went and lived well."""
        self.signal(signal.SIGTERM)
        status = await self.wait()
        self._process = None
        assert status == expect, f"exit status {status}, not {expect}:\n{self.log}"
        assert "Traceback (most recent call last)" not in self.log, self.log

    async def kill(self) -> None:
        """Kill supervisor and workers at once, as a power cut of the service would."""
        supervisor = self.pid
        os.kill(supervisor, signal.SIGSTOP)  # so that it cannot replace a worker meanwhile
        gone = [pid_end(pid) for pid in (supervisor, *self.pids())]
        for pid in (*self.pids(), supervisor):
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(GONE_WITHIN):
            await asyncio.gather(*gone)
        await self.wait()
        self._process = None

    async def kill_worker(self, number: int = 0) -> int:
        """Kill one worker, wait until it is gone, and give the process id that it had."""
        pid = self.pids()[number]
        gone = pid_end(pid)
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(GONE_WITHIN):
            await gone
        return pid

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        os.kill(self.pid, number)

    async def logged(self, pattern: str, *, count: int = 1, stream: str = "err") -> re.Match[str]:
        """Wait until that many lines of the log ("err") or of stdout ("out") match; the last."""

        def matches() -> list[re.Match[str]]:
            return [match for line in self._lines[stream] if (match := re.search(pattern, line))]

        try:
            async with asyncio.timeout(GONE_WITHIN), self._news:
                await self._news.wait_for(lambda: len(matches()) >= count)
        except TimeoutError:
            raise AssertionError(f"no {count} lines with {pattern!r} in:\n{self.log}") from None
        return matches()[count - 1]

    async def connect(self) -> Connection:
        """A new connection to the public port."""
        connection = await Connection.open(self.url)
        connection.authority = self.host or connection.authority
        return connection

    async def get(self, target: str, fields: FieldsLike = ()) -> Response:
        """GET that target on a connection of its own."""
        async with await self.connect() as connection:
            return await connection.exchange("GET", target, fields)

    async def admin(
        self, method: str, target: str, *, body: bytes | None = None, fields: FieldsLike = ()
    ) -> Response:
        """A request to the admin port, with the token."""
        pairs = [*encode_fields(fields), (b"Authorization", b"Bearer " + self.token.encode())]
        if body is not None:
            pairs.append((b"Content-Type", b"application/json"))
        return await fetch(self.admin_url + target, method=method, fields=pairs, body=body)

    async def purge(self, **selection: Any) -> dict[str, Any]:
        """`POST /v1/purge` with these keys; it must succeed. What it answered."""
        response = await self.admin("POST", "/v1/purge", body=json.dumps(selection).encode())
        assert response.status == 200, (response.status, response.text)
        answer: dict[str, Any] = response.json()
        return answer

    def release(self) -> None:
        """Give its ports back; it can't be started any more."""
        self._public.release()
        self._admin.release()

    async def _collect(self, name: str, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self._lines[name].append(line.decode(errors="replace"))
            async with self._news:
                self._news.notify_all()

    def __repr__(self) -> str:
        return f"<EdgeProcess {self.url}>"


def token_hash(token: str) -> str:
    """How the configuration names a token without telling it."""
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def children(pid: int) -> list[int]:
    """The process ids of that process' children, oldest first; ended ones are left out."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            try:
                state = Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2][0]
            except FileNotFoundError:
                continue
            if state != "Z":
                found.append(child)
    return sorted(found)


def pid_end(pid: int) -> asyncio.Future[None]:
    """A future that is done when that process, of anyone's, has ended."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    handle = os.pidfd_open(pid)

    def ended() -> None:
        loop.remove_reader(handle)
        os.close(handle)
        done.set_result(None)

    loop.add_reader(handle, ended)
    return done
