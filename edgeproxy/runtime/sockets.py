"""Listening sockets: one for each worker and address, made and held by the supervisor.

The kernel spreads connections over the sockets of an address (SO_REUSEPORT). Because the
supervisor holds them, a connection that waits in the accept queue of a worker that died is not
reset, but taken up by the worker that comes after.
"""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

BACKLOG = 4096
_SO_ATTACH_FILTER = 26


class AddressUnavailable(OSError):
    """An address cannot be listened on; the text says why, and what has it."""

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(frozen=True, slots=True)
class ListeningSockets:
    """The sockets of one configured address, a tuple of them for each worker."""

    host: str
    port: int
    """The real port, also where the configured one was 0."""
    by_worker: tuple[tuple[socket.socket, ...], ...]

    def close(self) -> None:
        for number in range(len(self.by_worker)):
            self.close_of(number)

    def close_of(self, worker: int) -> None:
        """Close that worker's."""
        for sock in self.by_worker[worker]:
            sock.close()


def listen(host: str, port: int, workers: int, *, backlog: int = BACKLOG) -> ListeningSockets:
    """Listen on every address that `host` stands for; port 0 picks a free one, the same for all.

    Raises AddressUnavailable.
    """
    resolved = _resolve(host, port)
    by_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
    try:
        for family, address in resolved:
            if port:
                _refuse_sharing(family, (address, port))
            for sockets in by_worker:
                sock = _bound(family, (address, port), reuse_port=True)
                sockets.append(sock)
                port = sock.getsockname()[1]
                sock.listen(backlog)
    except BaseException:
        for sockets in by_worker:
            for sock in sockets:
                sock.close()
        raise
    return ListeningSockets(host, port, tuple(map(tuple, by_worker)))


def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        reason = f"cannot listen on {_name(host, port)}: {error.strerror}"
        raise AddressUnavailable(error.errno, reason) from None
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _refuse_sharing(family: socket.AddressFamily, address: tuple[str, int]) -> None:
    """Raise if another server listens there: with SO_REUSEPORT its port might be shared quietly.

    A socket that is bound but doesn't listen takes no connection away; it may stay.
    """
    try:
        _bound(family, address, reuse_port=False).close()
    except AddressUnavailable as error:
        if error.errno != errno.EADDRINUSE or _listening_inodes(address[1]):
            raise


def _bound(
    family: socket.AddressFamily, address: tuple[str, int], *, reuse_port: bool
) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _unavailable(address, error) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Connections inherit it: a response's last packet never waits for an acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _unavailable(address, error) from None
    return sock


def _unavailable(address: tuple[str, int], error: OSError) -> AddressUnavailable:
    host, port = address
    if error.errno == errno.EADDRINUSE:
        reason = f"address in use by {_user_of(port) or 'another process'}"
    elif error.errno == errno.EACCES:
        reason = f"not permitted (ports below 1024 need CAP_NET_BIND_SERVICE): {error.strerror}"
    else:
        reason = error.strerror or str(error)
    return AddressUnavailable(error.errno, f"cannot listen on {_name(host, port)}: {reason}")


def _name(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _user_of(port: int) -> str | None:
    """The process that listens on a TCP port, as far as this user may see it."""
    links = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) in links for fd in (process / "fd").iterdir()):
                name = (process / "comm").read_text(errors="replace").strip()
                return f"{name} (pid {process.name})"
        except OSError:
            continue
    return None


def _listening_inodes(port: int) -> list[str]:
    inodes: list[str] = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            # Columns: number, local address, remote address, state (0A is LISTEN), ..., inode.
            if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                inodes.append(columns[9])
    return inodes


# Classic BPF over a TCP segment: drop it when of SYN and ACK only SYN is set, else let it pass.
_DROP_NEW = b"".join(
    struct.pack("HBBI", code, jump_true, jump_false, value)
    for code, jump_true, jump_false, value in (
        (0x30, 0, 0, 13),  # load the byte of flags
        (0x54, 0, 0, 0x12),  # keep SYN and ACK
        (0x15, 0, 1, 0x02),  # only SYN?
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # pass
    )
)


def refuse_new(sock: socket.socket) -> bool:
    """Let no new connection begin, while those in the accept queue stay where they are.

    Closing a listening socket resets what waits in its queue. With this filter first, the queue
    only gets shorter, and once `has_waiting` says no, closing the socket hurts nobody.

    False where the kernel, or the sandbox we are in, does not let us.
    """
    program = ctypes.create_string_buffer(_DROP_NEW, len(_DROP_NEW))
    sock_fprog = struct.pack("HP", len(_DROP_NEW) // 8, ctypes.addressof(program))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, sock_fprog)
    except OSError:
        return False
    return True


def has_waiting(sock: socket.socket) -> bool:
    """True while a connection waits to be accepted."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
