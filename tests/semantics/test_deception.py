"""Web cache deception: what a URL promises to be, and what its response says that it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.deception import deceptive, extensions
from tests.semantics.build import checked, fields


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (b"/a.css", {b"css"}),
        (b"/a.CSS?x=y.js", {b"css"}),
        (b"/account/a.css", {b"css"}),
        (b"/account", set()),
        (b"/account?a.css", set()),
        (b"/v1.2/account", set()),
        (b"/account/.css", {b"css"}),
        (b"/account;a.css", {b"css"}),
        (b"/account;.css", {b"css"}),
        (b"/account%3Ba.css", {b"css"}),
        (b"/account%253Ba.css", {b"css"}),
        (b"/account%2Fa.css", {b"css"}),
        (b"/account%2f..%2fa.css", {b"css"}),
        (b"/account%23a.css", {b"css"}),
        (b"/account%3fa.css", {b"css"}),
        (b"/account%00a.css", {b"css"}),
        (b"/account%0Aa.css", {b"css"}),
        (b"/account%5Ca.css", {b"css"}),
        (b"/account,a.css", {b"css"}),
        (b"/account!a.css", {b"css"}),
        (b"/account$a.css", {b"css"}),
        (b"/account:a.css", {b"css"}),
        (b"/account%2Ecss", {b"css"}),
        (b"/static/..%2faccount/a.tar.gz", {b"gz"}),
        (b"/account/a.css;jsessionid=1", {b"css"}),
        (b"/account/a.css;v=1.0", {b"css", b"0"}),
        (b"/account/a.css;b.js", {b"css", b"js"}),
        (b"/account/a.css;", {b"css"}),
        (b"/account/a.css.", {b"css"}),
        (b"/account/a.css%20", {b"css"}),
        (b"/account/a.css%00", {b"css"}),
        (b"/account/a.css%23b", {b"css"}),
        (b"/node.js/", set()),
        (b"/a.css/account", set()),
    ],
)
def test_the_extensions_that_a_url_shows(target: bytes, shown: set[bytes]) -> None:
    assert extensions(target) == shown


@pytest.mark.parametrize(
    ("target", "media_type", "deceives"),
    [
        ("/a.css", "text/css", False),
        ("/a.css", "TEXT/CSS; charset=utf-8", False),
        ("/a.css", "text/html", True),
        ("/a.css", "application/json", True),
        ("/a.css", "text/plain", True),
        ("/a.css", "", True),
        ("/a.css", "text/csshtml", True),
        ("/a.css", "application/octet-stream", False),
        ("/a.js", "application/javascript", False),
        ("/a.js", "text/html", True),
        ("/a.png", "image/webp", False),
        ("/a.png", "text/html", True),
        ("/a.woff2", "font/woff2", False),
        ("/a.woff2", "application/font-woff2", False),
        ("/a.pdf", "application/pdf", False),
        ("/a.zip", "application/x-zip-compressed", False),
        ("/a.mp4", "video/mp4", False),
        ("/a.txt", "text/html", True),
        ("/a.css;jsessionid=1", "text/html", True),
        ("/a.css;jsessionid=1", "text/css", False),
        ("/a.css;b.js", "text/css", True),
        ("/a.json", "text/html", True),
        ("/a.json", "application/ld+json", False),
        ("/feed.xml", "text/html", True),
        ("/feed.xml", "application/rss+xml", False),
        ("/feed.rss", "text/xml", False),
        ("/a.m3u8", "text/html", True),
        ("/a.html", "application/json", False),
        ("/a.php", "text/html", False),
        ("/a.unknown", "text/html", False),
        ("/account", "text/html", False),
    ],
)
def test_a_type_that_the_url_does_not_promise(target: str, media_type: str, deceives: bool) -> None:
    assert deceptive(target.encode(), fields(f"Content-Type: {media_type}")) is deceives


def test_what_states_no_type_contradicts_nothing() -> None:
    assert not deceptive(b"/a.css", fields())


@checked
@given(st.binary(max_size=40).map(lambda rest: b"/" + rest))
def test_any_target_shows_something_or_nothing(target: bytes) -> None:
    for shown in extensions(target):
        assert b"/" not in shown
        assert shown == shown.lower()
