"""The hash of a URL: stable, and no two URLs' the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.key import KeyPolicy, cache_key
from edgeproxy.semantics.url_hash import digest_of, is_url_hash, url_digest, url_hash
from tests.semantics.build import checked

_HOSTS = st.sampled_from(["a.test", "a.test:81", "b.test"])


def test_it_is_what_it_was_in_earlier_releases() -> None:
    assert url_hash("shop.test", b"/a?b=c") == "svidqsxqky6h4f43ijmbuc4d6nmiwdcu"


@pytest.mark.parametrize(
    "target", [b"/w:100/https://e.com/i.jpg", b"/cb:T/w:100/https://e.com/i.jpg"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_scheme_and_cache_buster_make_no_difference(scheme: str, target: bytes) -> None:
    key = cache_key("shop", scheme, "A.test", target, KeyPolicy())
    assert url_hash(key.host, key.target) == url_hash("a.test", b"/w:100/https://e.com/i.jpg")


@checked
@given(_HOSTS, st.binary(max_size=20), _HOSTS, st.binary(max_size=20))
def test_different_urls_have_different_hashes(
    host: str, target: bytes, other_host: str, other_target: bytes
) -> None:
    one, other = url_hash(host, target), url_hash(other_host, other_target)
    assert is_url_hash(one)
    assert (one == other) == ((host, target) == (other_host, other_target))


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("0123456789abcdefghijklmnopqrstuv", True),
        ("d41d8cd98f00b204e9800998ecf8427e", True),
        ("D41d8cd98f00b204e9800998ecf8427e", False),
        ("d41d8cd98f00b204e9800998ecf8427", False),
        ("d41d8cd98f00b204e9800998ecf8427e0", False),
        ("d41d8cd98f00b204e9800998ecf8427\n", False),
        ("https://e.com/0123456789abcdefgh", False),
        ("", False),
    ],
)
def test_what_looks_like_one(text: str, is_one: bool) -> None:
    assert is_url_hash(text) is is_one


def test_a_hash_can_be_read_back() -> None:
    told = url_hash("shop.test", b"/a")
    assert digest_of(told) == url_digest("shop.test", b"/a")
    assert digest_of("0" * 32) == b""
