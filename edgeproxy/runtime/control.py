"""The channel between the supervisor and one worker: messages as lines of JSON on a socket pair.

Its end means that the other side is gone. Both sides trust each other: they are one program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    import socket


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Worker: I accept connections."""


class Reload(msgspec.Struct, frozen=True, tag="reload"):
    """Supervisor: this is the configuration from now on."""

    generation: int
    config: msgspec.Raw
    """The whole configuration as JSON."""


class Reloaded(msgspec.Struct, frozen=True, tag="reloaded"):
    """Worker: the configuration of that generation is in force, or was refused for that reason."""

    generation: int
    refused: str | None = None


class Reopen(msgspec.Struct, frozen=True, tag="reopen"):
    """Supervisor: open log files anew, they may have been rotated."""


class Damaged(msgspec.Struct, frozen=True, tag="damaged"):
    """Worker: something in the state directory is not what was written."""

    reason: str


class Astray(msgspec.Struct, frozen=True, tag="astray"):
    """Worker: a file that all workers share is gone, or not to be opened by me, or another one."""

    reason: str
    stored: bool
    """Whether it is one of those in which responses and purges are."""


class Retire(msgspec.Struct, frozen=True, tag="retire"):
    """Supervisor: end soon, and rely on nothing that is stored; another worker comes after you."""


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Supervisor: accept nothing more, finish what is in flight, and end."""


ToWorker: TypeAlias = Reload | Reopen | Retire | Drain
ToSupervisor: TypeAlias = Ready | Reloaded | Damaged | Astray

_READ_SIZE = 256 * 1024

to_worker = msgspec.json.Decoder(ToWorker)
to_supervisor = msgspec.json.Decoder(ToSupervisor)


def encode(message: ToWorker | ToSupervisor) -> bytes:
    """One line; JSON has no raw line feed, so the line feed ends the message."""
    return msgspec.json.encode(message) + b"\n"


class SupervisorEnd:
    """The supervisor's side of a channel: never blocks, keeps what could not be sent yet."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._incoming = b""
        self._outgoing = b""

    @property
    def wants_write(self) -> bool:
        """True while something is left; call `flush` when the socket can take it."""
        return bool(self._outgoing)

    def send(self, message: ToWorker) -> None:
        """Send, or keep for `flush`. A worker that is gone is found out by its death, not here."""
        self._outgoing += encode(message)
        self.flush()

    def flush(self) -> None:
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[self.sock.send(self._outgoing) :]
        except BlockingIOError:
            pass
        except OSError:
            self._outgoing = b""

    def receive(self) -> tuple[list[ToSupervisor], bool]:
        """The messages that came, and whether the worker can still send more."""
        try:
            data = self.sock.recv(_READ_SIZE)
        except BlockingIOError:
            return [], True
        except OSError:
            return [], False
        *lines, self._incoming = (self._incoming + data).split(b"\n")
        return [to_supervisor.decode(line) for line in lines], bool(data)

    def close(self) -> None:
        self.sock.close()
