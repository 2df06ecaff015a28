"""What a successful unsafe request invalidates (RFC 9111 4.4)."""

from __future__ import annotations

import pytest

from edgeproxy.proxy.unsafe import represents_target, touched_targets
from edgeproxy.semantics.fields import Fields
from tests.proxy.parts import edge_request

HOST = "shop.test"


def test_the_target_of_the_request_itself() -> None:
    request = edge_request(b"/cart?id=1", method=b"POST")
    assert touched_targets(request, Fields()) == ((HOST, b"/cart?id=1"),)


@pytest.mark.parametrize("name", [b"Location", b"content-location"])
@pytest.mark.parametrize(
    ("value", "also"),
    [
        pytest.param(b"/orders/7", b"/orders/7", id="9110-10.2.2: a path"),
        pytest.param(b"http://shop.test/orders/7", b"/orders/7", id="9110-4.2.1: absolute"),
        pytest.param(b"HTTP://SHOP.test/orders/7", b"/orders/7", id="9110-4.2.3: case"),
        pytest.param(b"http://shop.test:80/a", b"/a", id="9110-4.2.3: the default port"),
        pytest.param(b"http://shop.test", b"/", id="9110-4.2.3: an empty path"),
        pytest.param(b"//shop.test/a", b"/a", id="3986-4.2: a network path"),
        pytest.param(b"7", b"/cart/7", id="3986-5.2.3: relative to the folder"),
        pytest.param(b"../a", b"/a", id="3986-5.2.4: dots"),
        pytest.param(b"?page=2", b"/cart/items?page=2", id="3986-5.2.2: a query alone"),
        pytest.param(b"/a?b=c#d", b"/a?b=c", id="3986-3.5: a fragment is no part of it"),
        pytest.param(b"/caf\xc3\xa9", b"/caf%C3%A9", id="3987-3.1: UTF-8 as it is"),
        pytest.param(b"/cb:t1/a", b"/a", id="a copy's URL stands for the page"),
    ],
)
def test_what_location_names_on_the_same_origin(name: bytes, value: bytes, also: bytes) -> None:
    request = edge_request(b"/cart/items", method=b"POST")
    touched = touched_targets(request, Fields([(name, value)]))
    assert touched == tuple(sorted([(HOST, b"/cart/items"), (HOST, also)]))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"http://other.test/a", id="another host"),
        pytest.param(b"//other.test/a", id="another host, by the same scheme"),
        pytest.param(b"https://shop.test/a", id="another scheme"),
        pytest.param(b"http://shop.test:8080/a", id="another port"),
        pytest.param(b"http://www.shop.test/a", id="another host of the same site"),
        pytest.param(b"mailto:a@shop.test", id="no http URL"),
        pytest.param(b"http://shop.test@other.test/a", id="a host that looks the same"),
        pytest.param(b"http://a:b@shop.test/a", id="9110-4.2.4: user information"),
        pytest.param(b"http://[::1/a", id="a bracket left open"),
        pytest.param(b"http://shop.test]/a", id="a bracket too many"),
        pytest.param("http://shop.test\u2100/a".encode(), id="no host once it is normalised"),
        pytest.param(b"http://shop.test:port/a", id="no port"),
        pytest.param(b"/a b", id="a space"),
        pytest.param(b"/\xe9", id="no UTF-8"),
    ],
)
def test_what_is_left_alone(value: bytes) -> None:
    """Another origin's must be, and what is no URL can't be anything else."""
    request = edge_request(b"/cart", method=b"PUT")
    assert touched_targets(request, Fields([(b"Location", value)])) == ((HOST, b"/cart"),)


def test_all_that_is_named_once_each_in_order() -> None:
    request = edge_request(b"/b", method=b"DELETE")
    fields = Fields(
        [
            (b"Location", b"/c"),
            (b"Content-Location", b"/b"),
            (b"Content-Location", b"/a"),
            (b"Link", b"</d>"),
        ]
    )
    assert touched_targets(request, fields) == ((HOST, b"/a"), (HOST, b"/b"), (HOST, b"/c"))


def test_a_malformed_location_hides_no_other() -> None:
    request = edge_request(b"/b", method=b"POST")
    fields = Fields([(b"Location", b"http://[x"), (b"Content-Location", b"/a")])
    assert touched_targets(request, fields) == ((HOST, b"/a"), (HOST, b"/b"))


@pytest.mark.parametrize(
    ("scheme", "authority", "location", "also"),
    [
        ("https", "shop.test", b"https://shop.test:443/a", b"/a"),
        ("https", "shop.test", b"http://shop.test/a", None),
        ("http", "shop.test:8080", b"http://shop.test:8080/a", b"/a"),
        ("http", "shop.test:8080", b"/a", b"/a"),
        ("http", "shop.test:8080", b"http://shop.test/a", None),
        ("http", "[::1]:8080", b"http://[::1]:8080/a", b"/a"),
    ],
)
def test_an_origin_is_scheme_host_and_port(
    scheme: str, authority: str, location: bytes, also: bytes | None
) -> None:
    """RFC 9110 4.3.1."""
    request = edge_request(b"/", method=b"POST", scheme=scheme, authority=authority)
    touched = dict.fromkeys(target for _, target in touched_targets(request, _location(location)))
    assert list(touched) == ([b"/"] if also is None else [b"/", also])


def test_the_key_rules_of_the_site_apply() -> None:
    tracking = {"key": {"ignore_tracking": True}}
    request = edge_request(b"/p?utm_source=x", method=b"POST", site=tracking)
    touched = touched_targets(request, _location(b"/q?utm_medium=y&a=b"))
    assert touched == ((HOST, b"/p"), (HOST, b"/q?a=b"))


@pytest.mark.parametrize(
    ("target", "own"),
    [
        pytest.param(b"//a//b", b"//a//b", id="slashes"),
        pytest.param(b"/cb:t1/a", b"/a", id="a copy of its own"),
        pytest.param(
            b"/w:100/https://e.com/i.jpg", b"/w:100/https://e.com/i.jpg", id="a URL in it"
        ),
    ],
)
def test_the_own_target_is_the_one_of_the_key(target: bytes, own: bytes) -> None:
    request = edge_request(target, method=b"POST")
    assert touched_targets(request, Fields()) == ((HOST, own),)


# -- an answer that is what a GET would bring (RFC 9110 8.7)


@pytest.mark.parametrize(
    ("target", "values", "same"),
    [
        pytest.param(b"/a?b", [b"/a?b"], True, id="the path"),
        pytest.param(b"/a?b", [b"http://shop.test/a?b"], True, id="the whole URI"),
        pytest.param(b"/a?b", [b"http://SHOP.test:80/a?b#c"], True, id="9110-4.2.3: normalised"),
        pytest.param(b"/a?b", [b"?b"], True, id="3986-5.2.2: relative"),
        pytest.param(b"/a?b", [], False, id="it does not say"),
        pytest.param(b"/a?b", [b"/a?b", b"/a?b"], False, id="it says it twice"),
        pytest.param(b"/a?b", [b"/a"], False, id="another path"),
        pytest.param(b"/a?b", [b"http://other.test/a?b"], False, id="another host"),
        pytest.param(b"/a?b", [b"https://shop.test/a?b"], False, id="another scheme"),
        pytest.param(b"/a?b", [b"http://[x"], False, id="no URI"),
        pytest.param(b"/a?utm_source=b", [b"/a"], False, id="though the key leaves that out"),
    ],
)
def test_what_a_get_would_bring(target: bytes, values: list[bytes], same: bool) -> None:
    request = edge_request(target, method=b"POST", site={"key": {"ignore_tracking": True}})
    fields = Fields([(b"Content-Location", each) for each in values])
    assert represents_target(request, fields) is same


def _location(value: bytes) -> Fields:
    return Fields([(b"Location", value)])
