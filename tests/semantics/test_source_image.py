"""Which source image a URL names, and how it is compared."""

from __future__ import annotations

import pytest

from edgeproxy.semantics.source_image import (
    canonical_source,
    purge_source,
    source_host,
    source_images,
)

IMG = "https://img.test/a.jpg"


@pytest.mark.parametrize(
    ("target", "sources"),
    [
        (b"/_vercel/image?url=https%3A%2F%2Fimg.test%2Fa.jpg&w=640&q=75", (IMG,)),
        (b"/_next/image?w=640&url=https://img.test/a.jpg", (IMG,)),
        (b"/_next/image?url=https%3A%2F%2Fimg.test%2Fa.jpg%3Fv%3D2", (f"{IMG}?v=2", IMG)),
        (b"/_next/image?url=%2Fa.jpg", ("/a.jpg", "https://shop.test/a.jpg")),
        (b"/_next/image?url=%2F%2Fimg.test%2Fa.jpg", (IMG, "https://shop.test//img.test/a.jpg")),
        (b"/_next/image?url=", ()),
        (b"/_next/image", ()),
        (b"/_next/image/x?url=%2Fa.jpg", ()),
        (b"/image?url=%2Fa.jpg", ()),
        (b"/w:100/https://img.test/a.jpg", (IMG,)),
        (b"/w:100/h:50/q:mauto/HTTPS://IMG.test:443/a.jpg", (IMG,)),
        (b"/w:100/https://img.test/a.jpg?v=2", (f"{IMG}?v=2", IMG)),
        (b"/https://img.test/a.jpg", (IMG,)),
        (b"/w:100/https://img.test?v=2", ("https://img.test/?v=2", "https://img.test/")),
        (b"/w:100/https://", ()),
        (b"/a.jpg", ()),
        (b"/_next/image?url=caf%C3%A9.jpg", ("café.jpg",)),
        (b"/_next/image?url=%23top", ()),
    ],
)
def test_the_names_of_a_source(target: bytes, sources: tuple[str, ...]) -> None:
    assert source_images("https", "shop.test", target) == sources


@pytest.mark.parametrize(
    ("source", "canonical", "host"),
    [
        ("HTTPS://Img.Test:443/A.jpg#top", "https://img.test/A.jpg", "img.test"),
        ("http://img.test:80", "http://img.test/", "img.test"),
        ("http://img.test:443/a", "http://img.test:443/a", "img.test:443"),
        ("http://img.test:/a", "http://img.test/a", "img.test"),
        ("https://Img.Test:443:443/a", "https://img.test:443:443/a", "img.test:443:443"),
        ("//img.test/a", "https://img.test/a", "img.test"),
        ("/a.jpg#x", "/a.jpg", None),
        ("a.jpg", "a.jpg", None),
    ],
)
def test_how_a_source_is_compared(source: str, canonical: str, host: str | None) -> None:
    assert canonical_source(source) == canonical
    assert source_host(source) == host


@pytest.mark.parametrize("source", ["", "#", "#top", "#/a.jpg"])
def test_a_purge_names_an_image(source: str) -> None:
    """A selector with an empty source would pick everything."""
    with pytest.raises(ValueError, match="names no image"):
        purge_source(source)
    assert purge_source("HTTP://E.test/i.jpg#top") == canonical_source("http://e.test/i.jpg")
