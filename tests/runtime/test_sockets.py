"""Listening sockets of real workers' kind."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from edgeproxy.runtime.sockets import AddressUnavailable, has_waiting, listen, refuse_new


def test_each_worker_gets_a_socket_of_its_own_on_one_port() -> None:
    listening = listen("127.0.0.1", 0, workers=3)
    try:
        names = {sock.getsockname() for socks in listening.by_worker for sock in socks}
        descriptors = {sock.fileno() for socks in listening.by_worker for sock in socks}
        assert names == {("127.0.0.1", listening.port)}
        assert listening.port != 0
        assert len(descriptors) == 3
    finally:
        listening.close()


def test_the_kernel_spreads_connections_over_the_workers() -> None:
    listening = listen("127.0.0.1", 0, workers=2)
    clients = [socket.create_connection(("127.0.0.1", listening.port)) for _ in range(64)]
    try:
        assert all(has_waiting(sock) for (sock,) in listening.by_worker)
    finally:
        for client in clients:
            client.close()
        listening.close()


def test_a_name_with_several_addresses_is_listened_on_at_each() -> None:
    listening = listen("localhost", 0, workers=2)
    try:
        for socks in listening.by_worker:
            assert {sock.getsockname()[1] for sock in socks} == {listening.port}
            assert len({sock.family for sock in socks}) == len(socks)
    finally:
        listening.close()


def test_accepted_connections_do_not_delay_small_packets() -> None:
    listening = listen("127.0.0.1", 0, workers=1)
    client = socket.create_connection(("127.0.0.1", listening.port))
    try:
        accepted, _ = listening.by_worker[0][0].accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        client.close()
        listening.close()


def test_a_port_that_another_server_has_is_refused_by_its_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(AddressUnavailable) as refusal:
            listen("127.0.0.1", port, workers=2)
    says = str(refusal.value)
    assert says.startswith(f"cannot listen on 127.0.0.1:{port}: address in use by ")
    assert says.endswith(f"(pid {os.getpid()})")


def test_a_port_is_not_shared_with_another_edge() -> None:
    """SO_REUSEPORT alone would let both have it, and each get half of the connections."""
    first = listen("127.0.0.1", 0, workers=1)
    try:
        with pytest.raises(AddressUnavailable, match="address in use by"):
            listen("127.0.0.1", first.port, workers=1)
    finally:
        first.close()


def test_a_port_reserved_by_a_socket_that_does_not_listen_can_be_had() -> None:
    with socket.socket() as lease:
        lease.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        lease.bind(("127.0.0.1", 0))
        listening = listen("127.0.0.1", lease.getsockname()[1], workers=2)
        listening.close()


def test_nothing_stays_open_after_a_failure() -> None:
    before = open_files()
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(AddressUnavailable):
        listen("127.0.0.1", other.getsockname()[1], workers=2)
    assert not open_files() - before


def open_files() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("192.0.2.1", "cannot listen on 192.0.2.1:8080: Cannot assign requested address"),
        ("no-such-host.invalid", "cannot listen on no-such-host.invalid:8080: "),
    ],
)
def test_an_address_that_is_not_ours_is_refused(host: str, says: str) -> None:
    with pytest.raises(AddressUnavailable) as refusal:
        listen(host, 8080, workers=1)
    assert str(refusal.value).startswith(says)


async def test_what_waits_to_be_accepted_outlives_the_end_of_new_connections() -> None:
    listening = listen("127.0.0.1", 0, workers=1)
    (sock,) = listening.by_worker[0]
    loop = asyncio.get_running_loop()
    waiting = [socket.create_connection(("127.0.0.1", listening.port)) for _ in range(5)]
    for client in waiting:
        client.sendall(b"hello")
    late = socket.socket()
    late.setblocking(False)
    try:
        # False where the kernel lets this user attach no filter; what waits is safe all the same.
        if refuse_new(sock):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await loop.sock_connect(late, ("127.0.0.1", listening.port))
        for client in waiting:
            assert has_waiting(sock)
            accepted, _ = sock.accept()
            with accepted:
                accepted.setblocking(True)
                assert accepted.recv(16) == b"hello"
                accepted.sendall(b"bye")
            assert client.recv(16) == b"bye"
        assert not has_waiting(sock)
    finally:
        for client in (*waiting, late):
            client.close()
        listening.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listening.port))


def test_a_socket_that_takes_no_filter_is_no_error() -> None:
    """Some kernels ask for CAP_NET_ADMIN."""
    sock = socket.socket()
    sock.close()
    assert not refuse_new(sock)
