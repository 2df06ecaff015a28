"""How a token's secret is known: SHA-256, or scrypt."""

from __future__ import annotations

import hashlib

import pytest

from edgeproxy.config.hashes import parse_hash, scrypt_hash, sha256_hash

SALT, KEY = "ab" * 16, "cd" * 32


def test_a_hash_fits_its_secret_alone() -> None:
    for text in (sha256_hash(b"secret"), scrypt_hash(b"secret")):
        parsed = parse_hash(text)
        assert parsed.text == text
        assert parsed.matches(b"secret")
        assert not parsed.matches(b"Secret")
        assert not parsed.matches(b"")
        assert text not in repr(parsed)


def test_scrypt_is_that_of_the_standard() -> None:
    """RFC 7914 12, with N = 16384: the first 32 bytes of the key."""
    salt = b"SodiumChloride"
    key = hashlib.scrypt(b"pleaseletmein", salt=salt, n=16384, r=8, p=1, dklen=64)
    assert key.hex().startswith("7023bdcb3afd7348461c06cd81fd38eb")
    salt = b"SodiumChloride42"
    key = hashlib.scrypt(b"pleaseletmein", salt=salt, n=16384, r=8, p=1, dklen=32)
    assert parse_hash(f"scrypt:ln=14,r=8,p=1:{salt.hex()}:{key.hex()}").matches(b"pleaseletmein")


def test_equal_secrets_have_hashes_of_their_own() -> None:
    assert scrypt_hash(b"secret") != scrypt_hash(b"secret")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "my-secret-token",
        "sha256:",
        f"sha256:{'a' * 63}",
        f"sha256:{'g' * 64}",
        f"md5:{'a' * 64}",
        f"scrypt:ln=14,r=8,p=1:{SALT}",
        f"scrypt:ln=14,r=8,p=1:ab:{KEY}",
        f"scrypt:ln=14,r=8,p=1:{SALT}:{KEY}00",
        f"scrypt:{SALT}:{KEY}",
    ],
)
def test_what_is_no_hash_is_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="edgeproxy token new") as caught:
        parse_hash(text)
    assert "my-secret-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "allowed"),
    [
        ("ln=12,r=1,p=1", True),
        ("ln=17,r=8,p=1", True),
        ("ln=14,r=8,p=4", True),
        ("ln=11,r=8,p=1", False),
        ("ln=18,r=8,p=1", False),
        ("ln=17,r=9,p=1", False),
        ("ln=14,r=0,p=1", False),
        ("ln=14,r=8,p=0", False),
        ("ln=14,r=8,p=5", False),
        ("ln=0,r=8,p=1", False),
    ],
)
def test_what_a_comparison_may_cost_is_bounded(parameters: str, allowed: bool) -> None:
    text = f"scrypt:{parameters}:{SALT}:{KEY}"
    if allowed:
        assert parse_hash(text).slow
    else:
        with pytest.raises(ValueError, match="out of bounds"):
            parse_hash(text)


def test_letters_and_blanks_do_not_matter() -> None:
    text = sha256_hash(b"secret")
    assert parse_hash(f" {text.upper()} ") == parse_hash(text)
