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
    ("atom json rss xml", f"application/ image/svg+xml text/json text/plain text/xml {_SCRIPT}"),
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
    ("m3u m3u8 pls", "application/ audio/ video/ text/plain"),
    ("class", "application/java application/x-"),
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

_SLASHES: Final = re.compile(rb"[/\\]")
# What some origin takes for the end of a path segment: those that frameworks know as delimiters
# (";" of Java, "," and "!" of others), and what parsers of C strings and of lines end at.
_DELIMITERS: Final = re.compile(rb"[;,!#?&$:|\x00-\x20]")


def extensions(target: bytes) -> frozenset[bytes]:
    """The lower-case extensions that a request target shows to whoever reads it.

    Escapes are undone first, twice: "/account%252F..%3Bx.css" shows "css" to somebody. What one
    takes for the end of a name, another takes for a part of it: "/account/x.css;v=1.0" is a style
    sheet to those who know of path parameters. A dot at the end is none to some.
    """
    path = unquote_to_bytes(unquote_to_bytes(target.partition(b"?")[0]))
    names = _DELIMITERS.split(_SLASHES.split(path)[-1])
    parted = [name.rstrip(b".").rpartition(b".") for name in names]
    return frozenset([last.lower() for _, dot, last in parted if dot])


def deceptive(target: bytes, fields: Fields) -> bool:
    """Whether a response is not of the type that an extension of its URL promises.

    False where that promises nothing that is known here, or no type is stated.
    """
    stated = fields.get(b"content-type")
    if stated is None:
        return False
    media_type = stated.partition(b";")[0].strip().lower()
    if media_type in _UNKNOWN:
        return False
    promised = [_TYPES[shown] for shown in extensions(target) if shown in _TYPES]
    return any(
        media_type not in exact and not media_type.startswith(beginnings)
        for exact, beginnings in promised
    )
