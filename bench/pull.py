"""A load for what wrk can't do: HEAD, whose answers have no body; and long bodies, thrown away in
the kernel. `python pull.py HOST PORT CONNECTIONS SECONDS FILE`; FILE: see requests.py.

All connections ask, then all answers are read; it ends with a line of JSON, as load.lua does.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import sys
import time
from pathlib import Path

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ROOM = bytearray(1 << 20)
_GIVE_UP = 20.0


def main() -> None:
    """Ask until the time is over, and tell how it was."""
    host, port, connections, seconds, file = sys.argv[1:]
    requests = _requests(Path(file))
    sockets = [
        socket.create_connection((host, int(port)), _GIVE_UP) for _ in range(int(connections))
    ]
    for one in sockets:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    coming = itertools.cycle(requests)
    took: list[float] = []
    failed = transferred = 0
    cpu, began = time.process_time(), time.perf_counter()
    while time.perf_counter() < began + float(seconds):
        asked = []
        for one, request in zip(sockets, coming, strict=False):
            one.sendall(request)
            asked.append((one, request.startswith(b"HEAD"), time.perf_counter()))
        for one, without_body, at in asked:
            status, size = _answer(one, without_body)
            failed += status > 399
            transferred += size
            took.append(time.perf_counter() - at)
    elapsed = time.perf_counter() - began
    took.sort()
    told = {
        "requests": len(took),
        "microseconds": elapsed * 1e6,
        "bytes": transferred,
        "failed": failed,
        "p50_us": took[len(took) // 2] * 1e6,
        "p99_us": took[len(took) * 99 // 100] * 1e6,
        "cpu": time.process_time() - cpu,
    }
    print(json.dumps(told))


def _answer(one: socket.socket, without_body: bool) -> tuple[int, int]:
    """The status of an answer, and its length in bytes. Its body is not looked at."""
    got = b""
    while (end := got.find(b"\r\n\r\n")) < 0:
        more = one.recv(16384)
        if not more:
            raise ConnectionError("closed before the answer's end")
        got += more
    status = int(got[9:12])
    length = _LENGTH.search(got, 0, end + 2)
    if without_body or status == 304:
        return status, len(got)
    if length is None:
        raise ValueError(f"an answer without Content-Length: {got[:end]!r}")
    whole = end + 4 + int(length[1])
    left = whole - len(got)
    while left > 0:
        size = one.recv_into(_ROOM, min(left, len(_ROOM)), socket.MSG_TRUNC)
        if not size:
            raise ConnectionError("closed before the answer's end")
        left -= size
    return status, whole


def _requests(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return [file.read(int(line)) for line in iter(file.readline, b"")]


if __name__ == "__main__":
    main()
