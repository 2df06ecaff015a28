"""Starts `edgeproxy` commands as forks of a process that has imported everything already.

A start takes half a second of imports, and the tests make some hundred of them. What runs is the
command itself, in a process and a session of its own; only its modules were loaded before.

This module is both sides: `spawn` in the tests, and, run as a program, the process that forks.
"""

import asyncio
import atexit
import contextlib
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

_MAX_REQUEST = 1 << 20
_ROOT = Path(__file__).parent.parent.parent

# -- the tests' side

_control: socket.socket | None = None


class Forked:
    """A running command; like `asyncio.subprocess.Process` as far as the kit needs it."""

    def __init__(
        self, pid: int, news: asyncio.StreamReader, closing: asyncio.StreamWriter,
        stdout: asyncio.StreamReader, stderr: asyncio.StreamReader,
    ) -> None:  # fmt: skip
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        """The exit status, negative for a signal; None while it runs, or nobody has waited."""
        self._closing = closing
        self._ended = asyncio.create_task(self._wait(news))

    async def wait(self) -> int:
        """Wait for its end: the exit status."""
        return await asyncio.shield(self._ended)

    async def _wait(self, news: asyncio.StreamReader) -> int:
        self.returncode = int(await news.readline())
        self._closing.close()
        return self.returncode


async def spawn(arguments: Sequence[str], env: Mapping[str, str], limit: int) -> Forked:
    """Run `edgeproxy` with these arguments; `limit` is that of a line of its output, in bytes."""
    mine, its = socket.socketpair()
    pipes = [os.pipe() for _ in range(2)]
    request = json.dumps({"arguments": list(arguments), "env": dict(env)}).encode()
    writing = [write for _, write in pipes]
    socket.send_fds(_forker(), [request], [its.fileno(), *writing])
    its.close()
    for each in writing:
        os.close(each)
    news, closing = await asyncio.open_connection(sock=mine)
    streams = []
    for read, _ in pipes:
        stream = asyncio.StreamReader(limit=limit)
        protocol = asyncio.StreamReaderProtocol(stream)
        await asyncio.get_running_loop().connect_read_pipe(lambda p=protocol: p, os.fdopen(read))
        streams.append(stream)
    return Forked(int(await news.readline()), news, closing, *streams)


def _forker() -> socket.socket:
    """The connection to this test process' forking one, which ends with it."""
    global _control
    if _control is None:
        _control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            command = [sys.executable, "-m", "tests.kit.forking", str(its.fileno())]
            process = subprocess.Popen(command, pass_fds=[its.fileno()], cwd=_ROOT)
        atexit.register(process.wait)
        atexit.register(_control.close)
    return _control


# -- the forking side


def _serve(control: socket.socket) -> None:
    # The command imports what it runs when it runs it: here that is done for all of them.
    import edgeproxy.cli.serve
    import edgeproxy.runtime.run  # noqa: F401
    from edgeproxy.cli.main import main

    children: dict[int, socket.socket] = {}
    waking, woken = socket.socketpair()
    waking.setblocking(False)
    woken.setblocking(False)
    signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is woken:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
                    _reap(children)
                    continue
                request, fds, _, _ = socket.recv_fds(control, _MAX_REQUEST, 3)
                if not request:
                    return
                news = socket.socket(fileno=fds[0])
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    for each in (control, waking, woken, news, *children.values()):
                        each.close()
                    os._exit(_run(main, json.loads(request), fds[1:]))
                for fd in fds[1:]:
                    os.close(fd)
                children[pid] = news
                news.sendall(b"%d\n" % pid)


def _reap(children: dict[int, socket.socket]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        news = children.pop(pid)
        with news, contextlib.suppress(OSError):
            news.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _run(main: object, request: dict[str, object], output: Sequence[int]) -> int:
    """Be the command, in the process just forked: its exit status."""
    assert callable(main)
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, fd in enumerate(output, 1):
        os.dup2(fd, number)
        os.close(fd)
    arguments, env = request["arguments"], request["env"]
    assert isinstance(arguments, list)
    assert isinstance(env, dict)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["edgeproxy", *arguments]
    status = 1
    try:
        if sabotage := env.get("KIT_SABOTAGE"):
            getattr(importlib.import_module("tests.e2e.sabotage"), sabotage)()
        status = main(arguments)
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return status


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
