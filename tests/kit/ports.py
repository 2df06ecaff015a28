"""Free ports that stay free: a lease keeps others off until the server under test has it."""

import socket
from typing import Self


class PortLease:
    """A loopback port that nobody else is given while the lease is held.

    The socket is bound with SO_REUSEPORT and never listens, so that a server that sets
    SO_REUSEPORT too can take the port and gets every connection.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(("127.0.0.1", 0))
        # To a server that sets it too, the port is free: it needn't ask who has it.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the port back."""
        self._socket.close()


def free_port() -> int:
    """A port that is free now, for servers that do not set SO_REUSEPORT."""
    with PortLease() as lease:
        return lease.port
