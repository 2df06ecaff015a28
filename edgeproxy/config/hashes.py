"""What a token's secret is known by: its SHA-256 if it is long and random, scrypt if people chose.

sha256:HEX                              64 hex digits
scrypt:ln=15,r=8,p=1:SALT:HEX           RFC 7914, N = 2^ln; salt and key (32 bytes) in hex
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

_SHA256 = re.compile(r"sha256:([0-9a-f]{64})")
_SCRYPT = re.compile(
    r"scrypt:ln=(\d{1,2}),r=(\d{1,2}),p=(\d):((?:[0-9a-f]{2}){16,64}):([0-9a-f]{64})"
)

# About 0.15 s and 32 MiB: bearable once, hopeless a million times.
_LN, _R, _P = 15, 8, 1
_LEAST_LN, _MOST_LN = 12, 17
_MOST_BYTES = 128 << 20
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class SecretHash:
    """The hash of a secret; neither it nor a secret that it is compared with is ever shown."""

    text: str = field(repr=False)
    """As the configuration has it, in lower case."""
    digest: bytes = field(repr=False)
    salt: bytes = field(default=b"", repr=False)
    ln: int = 0
    """log2 of scrypt's cost N; 0: SHA-256."""
    r: int = 0
    p: int = 0

    @property
    def slow(self) -> bool:
        """Whether comparing takes so long that it must not be done in the event loop."""
        return self.ln > 0

    def matches(self, secret: bytes) -> bool:
        """Whether it is the hash of that, in constant time."""
        if self.slow:
            found = _scrypt(secret, self.salt, self.ln, self.r, self.p)
        else:
            found = hashlib.sha256(secret).digest()
        return hmac.compare_digest(found, self.digest)


def parse_hash(text: str) -> SecretHash:
    """The hash in a setting. Raises ValueError, whose message does not quote it."""
    text = text.strip().lower()
    if match := _SHA256.fullmatch(text):
        return SecretHash(text, bytes.fromhex(match[1]))
    if not (match := _SCRYPT.fullmatch(text)):
        # Never quoted: whoever pastes the token itself here must not find it in a log.
        raise ValueError(
            'is not the hash of a token; write "sha256:" and the 64 hex digits that '
            "`printf %s TOKEN | sha256sum` prints, or what `edgeproxy token new` does"
        )
    ln, r, p = int(match[1]), int(match[2]), int(match[3])
    if not (
        _LEAST_LN <= ln <= _MOST_LN and r >= 1 and 1 <= p <= 4 and _memory(ln, r) <= _MOST_BYTES
    ):
        raise ValueError(
            f"has scrypt parameters out of bounds: ln is {_LEAST_LN} to {_MOST_LN}, p 1 to 4, and "
            f"128 * 2^ln * r at most {_MOST_BYTES >> 20} MiB"
        )
    return SecretHash(text, bytes.fromhex(match[5]), bytes.fromhex(match[4]), ln, r, p)


def sha256_hash(secret: bytes) -> str:
    """The hash of a long random secret, as a setting has it."""
    return f"sha256:{hashlib.sha256(secret).hexdigest()}"


def scrypt_hash(secret: bytes) -> str:
    """The hash of a secret that people chose, with a salt of its own; takes about 0.15 s."""
    salt = secrets.token_bytes(16)
    key = _scrypt(secret, salt, _LN, _R, _P)
    return f"scrypt:ln={_LN},r={_R},p={_P}:{salt.hex()}:{key.hex()}"


def _scrypt(secret: bytes, salt: bytes, ln: int, r: int, p: int) -> bytes:
    # What OpenSSL counts is a little more than the 128 * N * r of RFC 7914.
    return hashlib.scrypt(
        secret, salt=salt, n=1 << ln, r=r, p=p, dklen=_KEY_BYTES, maxmem=_memory(ln, r) + (4 << 20)
    )


def _memory(ln: int, r: int) -> int:
    return 128 * r << ln
