"""Web cache deception: a URL that looks like a static file, and brings somebody's own page.

Whoever gets a victim to open `/account/photo.css` has the victim's account in the cache, if the
origin answers it as `/account` and the cache goes by the look of the URL, or by a lifetime of its
own. What the origin says of its content's type shows it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from edgeproxy.semantics.fields import Fields

_SCRIPT: Final = "text/javascript application/javascript application/x-javascript"

# Extensions, and the media types of such files; "image/" and the like: all that begin so.
_FILES: Final = (
    ("css", "text/css"),
    ("js mjs cjs", _SCRIPT),
    ("map", f"application/json text/plain {_SCRIPT}"),
    ("wasm", "application/wasm"),
    ("webmanifest", "application/manifest+json application/json"),
    ("apng avif bmp gif heic ico jpeg jpg jxl pict png svg svgz tif tiff webp", "image/"),
    ("eot otf ttf woff woff2", "font/ application/font- application/x-font- application/vnd.ms-"),
    (
        "aac avi flac m4a m4v mid midi mkv mov mp3 mp4 ogg ogv opus wav webm",
        "audio/ video/ application/ogg application/mp4",
    ),
    (
        "7z apk bin bz2 deb dmg exe gz iso jar msi rar rpm tar tgz xz zip zst",
        "application/zip application/gzip application/zstd application/java-archive "
        "application/x- application/vnd.",
    ),
    ("pdf", "application/pdf"),
    ("ps", "application/postscript"),
    (
        "doc docx odp ods odt ppt pptx rtf xls xlsx",
        "application/vnd. application/msword application/rtf text/rtf",
    ),
    ("csv", "text/csv text/plain application/csv"),
    ("txt", "text/plain"),
    ("swf", "application/x-shockwave-flash"),
)
_OPEN: Final = ("/", "-", ".")
_TYPES: Final = {
    extension.encode(): (
        frozenset(each.encode() for each in types.split() if not each.endswith(_OPEN)),
        tuple(each.encode() for each in types.split() if each.endswith(_OPEN)),
    )
    for extensions, types in _FILES
    for extension in extensions.split()
}

# Servers that know no better type say this one of any file.
_UNKNOWN: Final = frozenset({b"application/octet-stream", b"binary/octet-stream"})

# What some origin takes for the end of a path segment: those that frameworks know as delimiters
# (";" of Java, "," and "!" of others), and what parsers of C strings and of lines end at.
_DELIMITERS: Final = re.compile(rb"[/\\;,!#?&$:|\x00-\x20]")


def extension(target: bytes) -> bytes:
    """The lower-case extension that a request target shows to whoever reads it; b"" if none.

    Escapes are undone first, twice: "/account%252F..%3Bx.css" shows "css" to somebody.
    """
    path = unquote_to_bytes(unquote_to_bytes(target.partition(b"?")[0]))
    name = _DELIMITERS.split(path)[-1]
    _, dot, last = name.rpartition(b".")
    return last.lower() if dot else b""


def deceptive(target: bytes, fields: Fields) -> bool:
    """Whether a response is not of the type that its URL's extension promises.

    False where the extension promises nothing that is known here, or no type is stated.
    """
    promised = _TYPES.get(extension(target))
    stated = fields.get(b"content-type")
    if promised is None or stated is None:
        return False
    media_type = stated.partition(b";")[0].strip().lower()
    exact, beginnings = promised
    return media_type not in exact | _UNKNOWN and not media_type.startswith(beginnings)
