"""How many connections there may be, and of whom."""

from ipaddress import ip_network
from typing import Any

import pytest

from edgeproxy.config.server import Limits
from edgeproxy.proxy.crowd import Capacity, Crowd, capacity


@pytest.mark.parametrize(
    ("limits", "files", "expected"),
    [
        pytest.param({}, 20_000, (15_000, 7500, False, 17_500), id="by the files"),
        pytest.param({}, 1 << 20, (50_000, 25_000, False, 917_504), id="no more than that"),
        pytest.param({}, 96, (72, 36, False, 64), id="few files"),
        pytest.param({"max_connections": 10}, 1024, (10, 5, False, 896), id="set"),
        pytest.param({"max_connections_per_client": 7}, 1024, (768, 7, True, 896), id="each"),
        pytest.param({"max_connections_per_client": 0}, 1024, (768, 0, True, 896), id="no limit"),
    ],
)
def test_capacity(limits: dict[str, Any], files: int, expected: tuple[int, int, bool, int]) -> None:
    assert capacity(Limits(**limits), files) == Capacity(*expected)


def crowd(per_client: int, *, local_too: bool = True) -> Crowd:
    return Crowd(Capacity(1000, per_client, local_too, 1000))


def test_each_client_has_so_many() -> None:
    two = crowd(2)
    assert [two.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert two.enter("192.0.2.2")
    for _ in range(2):
        two.leave("192.0.2.1")
    assert two.enter("192.0.2.1")


def test_an_ipv6_client_is_all_of_its_64_bits() -> None:
    one = crowd(1)
    assert one.enter("2001:db8:0:1::1")
    assert not one.enter("2001:db8:0:1:ffff::2")
    assert one.enter("2001:db8:0:2::1")


def test_proxies_bring_others() -> None:
    one = crowd(1)
    one.exempt = (ip_network("192.0.2.0/24"),)
    assert all(one.enter("192.0.2.9") for _ in range(5))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "unknown"])
def test_this_machine_is_let_be_unless_a_limit_was_set(address: str) -> None:
    by_default, set_ = crowd(1, local_too=False), crowd(1)
    assert all(by_default.enter(address) for _ in range(5))
    assert [set_.enter(address) for _ in range(2)] == [True, False]


def test_nothing_is_kept_of_those_who_left() -> None:
    many = crowd(0)
    for number in range(100):
        many.enter(f"192.0.2.{number}")
    for number in range(100):
        many.leave(f"192.0.2.{number}")
    assert not many._counts
