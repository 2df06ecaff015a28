"""Taking readers' connections."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from edgeproxy.runtime.listening import Listening
from tests.proxy.parts import running

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("hits", "taken"),
    [
        pytest.param(0, 16, id="nobody else"),
        pytest.param(20, 16, id="few others"),
        pytest.param(500, 4, id="many hits of others"),
    ],
)
async def test_many_new_connections_leave_time_to_those_that_are(
    tmp_path: Path, hits: int, taken: int
) -> None:
    async with running(tmp_path) as served:
        server = served.edge.server
        assert server.fast is not None
        with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
            clients = [socket.create_connection(sock.getsockname()) for _ in range(40)]
            listening = Listening(server, [(sock, {})])
            listening.start()
            server.fast.hits += hits
            counts: list[int] = []
            # In each round of the event loop.
            while server.open_connections < len(clients):
                counts.append(server.open_connections)
                await asyncio.sleep(0)
            listening.close()
            for client in clients:
                client.close()
            first = next(count for count in counts if count)
            assert first == taken
