"""Addresses to listen on, host names, networks."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.config.addresses import (
    Address,
    is_ip_address,
    normal_host,
    parse_address,
    parse_host,
    parse_network,
)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        (":80", "", 80),
        ("[::1]:8080", "::1", 8080),
        ("[0:0::1]:0", "::1", 0),
        ("LocalHost:65535", "localhost", 65535),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host, port)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (8080, 'expected "HOST:PORT", "[::1]:8080", or ":8080" for every interface, got 8080'),
        ("8080", '"8080" has no port'),
        ("localhost", '"localhost" has no port'),
        ("::1", 'an IPv6 address stands in brackets: "[::1]:8080"'),
        ("h:http", "is not an address"),
        ("h:65536", "the port must be between 0 (any free one) and 65535"),
        ("h:99999999999999999999", "the port must be between 0"),
        ("::1:8080", 'an IPv6 address stands in brackets: "[::1]:PORT"'),
        ("[h]:80", '"[h]" is not an IPv6 address'),
        ("[127.0.0.1]:80", "is not an IPv6 address"),
        ("a b:80", '"a b" is neither a host name nor an IP address'),
        ("http://h:80", '"http://h:80" is a URL or a path; give "HOST:PORT"'),
    ],
)
def test_what_is_no_address(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_address(value)


@pytest.mark.parametrize("text", ["127.0.0.1:8080", ":80", "[::1]:8080", "localhost:1"])
def test_an_address_is_shown_as_it_is_read(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        (":80", "127.0.0.1:80", True),
        (":80", "[::1]:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "[::1]:80", False),
        ("[::]:80", "[::1]:80", True),
        ("[::]:80", "0.0.0.0:80", False),
        (":0", ":0", False),
    ],
)
def test_addresses_that_clash(one: str, other: str, overlap: bool) -> None:
    assert parse_address(one).overlaps(parse_address(other)) is overlap
    assert parse_address(other).overlaps(parse_address(one)) is overlap


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        (":1", False),
        ("0.0.0.0:1", False),
        ("10.0.0.1:1", False),
        ("edge.test:1", False),
    ],
)
def test_loopback(text: str, loopback: bool) -> None:
    assert parse_address(text).is_loopback is loopback


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("www.shop.test", "www.shop.test"),
        ("WWW.Shop.Test.", "www.shop.test"),
        ("*.Shop.test", "*.shop.test"),
        ("a_b.test", "a_b.test"),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "[::1]"),
        ("[0::1]", "[::1]"),
    ],
)
def test_hosts(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, 'expected a host name such as "www.example.com", got 5'),
        ("*", "to answer every host, make it the default_site"),
        ("http://a.test", "is a URL; give the host name alone"),
        ("a.test/x", "is a URL; give the host name alone"),
        ("a.test:80", "has a port; give the name alone"),
        ("münchen.test", 'is not ASCII; write "xn--mnchen-3ya.test"'),
        ("*.münchen.test", 'write "*.xn--mnchen-3ya.test"'),
        ("a..test", "is not a host name"),
        ("-a.test", "is not a host name"),
        ("*.10.0.0.1.", "is not a host name"),
        ("a.*.test", "is not a host name"),
        ("", "is not a host name"),
        (f"{'a' * 64}.test", "is not a host name"),
        (".".join(["a" * 60] * 5), "is not a host name"),
    ],
)
def test_what_is_no_host(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_host(value)


@pytest.mark.parametrize(
    ("host", "normal"),
    [
        ("Shop.Test", "shop.test"),
        ("shop.test:8080", "shop.test"),
        ("shop.test.", "shop.test"),
        ("shop.test.:80", "shop.test"),
        ("[::1]:80", "[::1]"),
        ("[0:0::1]", "[::1]"),
        ("0::1", "[::1]"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("", ""),
    ],
)
def test_the_normal_form_of_a_request_s_host(host: str, normal: str) -> None:
    assert normal_host(host) == normal


@given(st.text())
def test_any_host_has_a_normal_form(host: str) -> None:
    once = normal_host(host)
    assert once == once.lower() or not once.isascii()


@pytest.mark.parametrize(
    ("host", "is_address"), [("10.0.0.1", True), ("[::1]", True), ("a.test", False), ("", False)]
)
def test_ip_addresses(host: str, is_address: bool) -> None:
    assert is_ip_address(host) is is_address


@pytest.mark.parametrize("text", ["10.0.0.0/8", "127.0.0.1/32", "::1/128", "fd00::/8"])
def test_networks(text: str) -> None:
    assert str(parse_network(text)) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10.0.0.1/8", '"10.0.0.1/8" is not the first address of its network: "10.0.0.0/8"'),
        ("local", '"local" is not a network; give one such as "10.0.0.0/8"'),
        (10, "10 is not a network"),
    ],
)
def test_what_is_no_network(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_network(value)
