"""The channel between supervisor and worker, over real socket pairs."""

import socket

import msgspec
import pytest

from edgeproxy.runtime.control import (
    Drain,
    Ready,
    Reload,
    Reloaded,
    Reopen,
    SupervisorEnd,
    ToSupervisor,
    ToWorker,
    encode,
    to_supervisor,
    to_worker,
)


@pytest.mark.parametrize(
    "message",
    [Reload(3, msgspec.Raw(b'{"listen":["a\\nb"]}')), Reopen(), Drain()],
    ids=lambda message: type(message).__name__,
)
def test_a_message_to_a_worker_is_one_line_and_comes_back(message: ToWorker) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert to_worker.decode(line) == message


@pytest.mark.parametrize(
    "message",
    [Ready(), Reloaded(3), Reloaded(4, "certificate x: no")],
    ids=lambda message: type(message).__name__,
)
def test_a_message_to_the_supervisor_is_one_line_and_comes_back(message: ToSupervisor) -> None:
    line = encode(message)
    assert line.count(b"\n") == 1
    assert to_supervisor.decode(line) == message


def test_messages_are_put_together_from_pieces() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        end = SupervisorEnd(ours)
        assert end.receive() == ([], True)
        line = encode(Ready()) + encode(Reloaded(1))
        theirs.sendall(line[:5])
        assert end.receive() == ([], True)
        theirs.sendall(line[5:-3])
        assert end.receive() == ([Ready()], True)
        theirs.sendall(line[-3:])
        assert end.receive() == ([Reloaded(1)], True)


def test_a_worker_that_does_not_read_never_blocks_the_supervisor() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        end = SupervisorEnd(ours)
        config = msgspec.Raw(b'"' + b"x" * 1_000_000 + b'"')
        end.send(Reload(1, config))
        assert end.wants_write
        end.send(Drain())
        read = b""
        while read.count(b"\n") < 2:
            read += theirs.recv(65536)
            end.flush()
        assert not end.wants_write
        messages = [to_worker.decode(line) for line in read.splitlines()]
        assert messages == [Reload(1, config), Drain()]


def test_a_worker_that_is_gone_is_seen_and_hurts_nobody() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        end = SupervisorEnd(ours)
        theirs.close()
        end.send(Drain())
        assert not end.wants_write
        assert end.receive() == ([], False)
