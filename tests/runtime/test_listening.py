"""Taking readers' connections."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from edgeproxy.runtime.listening import Listening, Turn
from tests.proxy.parts import running

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("turn", "now", "hits", "taken", "then"),
    [
        pytest.param(Turn(1.0, 7), 5.0, 7, 16, Turn(5.0, 7), id="no hits"),
        pytest.param(Turn(1.0, 7, 9), 5.0, 7, 16, Turn(5.0, 7), id="no hits any more"),
        pytest.param(Turn(1.0, 7), 1.001, 26, 0, Turn(1.0, 26, 19), id="not enough hits yet"),
        pytest.param(Turn(1.0, 7, 19), 1.001, 8, 1, Turn(1.001, 8), id="enough over two looks"),
        pytest.param(Turn(1.0, 7), 1.001, 52, 2, Turn(1.001, 52, 5), id="enough for two"),
        pytest.param(Turn(1.0, 7), 1.003, 8, 1, Turn(1.003, 8, 1), id="one for the time"),
        pytest.param(Turn(1.0, 7), 1.007, 8, 3, Turn(1.007, 8, 1), id="more for more time"),
        pytest.param(Turn(1.0, 7), 9.0, 10**6, 16, Turn(9.0, 10**6, 13), id="no more than so many"),
    ],
)
def test_new_connections_get_a_share_of_what_hits_take(
    turn: Turn, now: float, hits: int, taken: int, then: Turn
) -> None:
    assert turn.next(now, hits, 20) == (taken, then)


@pytest.mark.parametrize(
    ("hits", "taken"),
    [
        pytest.param(0, 16, id="nobody else"),
        pytest.param(100, 5, id="hits of others"),
        pytest.param(1000, 16, id="many hits of others"),
    ],
)
async def test_many_new_connections_leave_time_to_those_that_are(
    tmp_path: Path, hits: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.runtime.listening._LEAST_OFTEN", 1e9)
    async with running(tmp_path) as served:
        server = served.edge.server
        assert server.fast is not None
        with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
            clients = [socket.create_connection(sock.getsockname()) for _ in range(40)]
            listening = Listening(server, served.edge.arrivals, [(sock, {})])
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
