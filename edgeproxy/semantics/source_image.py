"""The image that an optimised one was made from, as the URL of the optimised one names it.

Two forms are known: the `url` parameter of the image components of Vercel and Next.js, and the
last part of an optimiser's path, `/w:100/https://example.com/image.jpg` (Optimole, imgproxy).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from edgeproxy.semantics.key import canonical_host

_COMPONENTS: Final = (b"/_vercel/image", b"/_next/image")
_OPTIMISED: Final = re.compile(rb"/(?=https?://[^/?#]+)", re.IGNORECASE)
_ABSOLUTE: Final = re.compile(r"(https?)://([^/?#]+)([^#]*)", re.IGNORECASE | re.DOTALL)


def source_images(scheme: str, host: str, target: bytes) -> tuple[str, ...]:
    """The names of the source image of a request target (without `cb:` segment); () if it has none.

    An absolute URL, with and without its query: who changes the image need not know which queries
    it was asked for with. One that is a path of the site itself is named by its path, too.
    """
    source = _source(target)
    if source is None:
        return ()
    names = [source]
    if source.startswith("/"):
        names.append(f"{scheme}://{host}{source}")
    names.extend([name.partition("?")[0] for name in names])
    names = [canonical for name in names if (canonical := canonical_source(name))]
    return tuple(dict.fromkeys(names))


def source_host(source: str) -> str | None:
    """The host of a source image, with its port unless that is the scheme's default; None for a
    path."""
    url = _ABSOLUTE.fullmatch(canonical_source(source))
    return None if url is None else url[2]


def canonical_source(source: str) -> str:
    """A source image's URL or path as it is compared: scheme and host in lower case, without a
    default port, a fragment, and the "//" that may stand for "https://"."""
    if source.startswith("//"):
        source = f"https:{source}"
    url = _ABSOLUTE.match(source)
    if url is None:
        return source.partition("#")[0]
    scheme, host = url[1].lower(), url[2]
    try:
        host = canonical_host(scheme, host)
    except ValueError:
        # An image of that name can be asked for all the same, and purged.
        host = host.lower()
    rest = url[3] if url[3].startswith("/") else f"/{url[3]}"  # RFC 9110 4.2.3
    return f"{scheme}://{host}{rest}"


def purge_source(source: str) -> str:
    """The same of one that a purge names. Raises ValueError where that is no image's, as "#top":
    with nothing to compare, a selector would pick all there is."""
    canonical = canonical_source(source)
    if not canonical:
        raise ValueError(f"{source!r} names no image")
    return canonical


def _source(target: bytes) -> str | None:
    path, _, query = target.partition(b"?")
    if path in _COMPONENTS:
        for parameter in query.split(b"&"):
            name, _, value = parameter.partition(b"=")
            if name == b"url" and value:
                return _text(unquote_to_bytes(value.replace(b"+", b" ")))
        return None
    optimised = _OPTIMISED.search(target)
    return None if optimised is None else _text(target[optimised.end() :])


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
