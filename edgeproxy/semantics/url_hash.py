"""The short name that every URL has here: 32 characters, for APIs that name what they purge so."""

import re
from base64 import b32decode, b32encode
from binascii import Error
from hashlib import blake2b

_HASH = re.compile(r"[0-9a-z]{32}")


def url_hash(host: str, target: bytes) -> str:
    """The hash of a URL as cache keys have it: host, and canonical target without `cb:` segment.

    The same for both schemes, all variants and all `cb:` copies, and from release to release:
    BLAKE2b, 20 bytes, in lower-case base 32 (RFC 4648 6).
    """
    return b32encode(url_digest(host, target)).decode().lower()


def url_digest(host: str, target: bytes) -> bytes:
    """The 20 bytes that `url_hash` writes out."""
    return value_digest(b"%b\0%b" % (host.encode(), target))


def value_digest(value: bytes) -> bytes:
    """The same of a host, NUL and a target."""
    return blake2b(value, digest_size=20, person=b"url").digest()


def digest_of(text: str) -> bytes:
    """The bytes that a hash writes out; none for what is no URL's hash."""
    try:
        return b32decode(text.upper())
    except (Error, ValueError):
        return b""


def is_url_hash(text: str) -> bool:
    """Whether a text looks like a hash: 32 of digits and lower-case letters."""
    return _HASH.fullmatch(text) is not None
