"""`cb:` segments: `/cb:TOKEN/rest` names a copy of `/rest`; the origin is asked for `/rest` alone.

Optimole's URLs have this form: `/cb:TOKEN/w:100/https://example.com/image.jpg`.
"""

import re

MAX_TOKEN = 128
"""The most characters a token may have; what is longer is an ordinary path segment."""

# The first segment alone, and only where a rest follows: "/cb:T" itself is an ordinary path.
# Tokens are URI-unreserved characters (RFC 3986 2.3), so none of them has a second spelling.
_SEGMENT = re.compile(rb"/cb:([A-Za-z0-9._~-]{1,%d})(?=/)" % MAX_TOKEN)


def split_cache_buster(target: bytes) -> tuple[bytes, bytes]:
    """The cache-buster token of a request target (b"" when there is none), and the rest of it.

    The rest begins with "/" and is kept byte for byte: "/cb:T/w:100/https://e.com/i.jpg" gives
    b"T" and b"/w:100/https://e.com/i.jpg". Only the first segment counts, so that splitting and
    putting together again gives the same bytes.
    """
    segment = _SEGMENT.match(target)
    if segment is None:
        return b"", target
    return segment[1], target[segment.end() :]
