"""The URLs of origins and of stores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeproxy.config.urls import (
    AiocacheStore,
    LmdbStore,
    MemoryStore,
    OriginUrl,
    StoreUrl,
    cache_folder,
    parse_origin_url,
    parse_store_url,
)

FOLDER = Path("/etc/edgeproxy")


@pytest.mark.parametrize(
    ("text", "origin", "authority"),
    [
        ("http://127.0.0.1:3000", OriginUrl("http", "127.0.0.1", 3000), "127.0.0.1:3000"),
        ("http://Shop.test/", OriginUrl("http", "shop.test", 80), "shop.test"),
        ("HTTPS://shop.test:443", OriginUrl("https", "shop.test", 443), "shop.test"),
        ("https://shop.test:80", OriginUrl("https", "shop.test", 80), "shop.test:80"),
        ("http://[0::1]:81", OriginUrl("http", "::1", 81), "[::1]:81"),
    ],
)
def test_origins(text: str, origin: OriginUrl, authority: str) -> None:
    parsed = parse_origin_url(text)
    assert parsed == origin
    assert parsed.authority == authority  # RFC 9110 7.2
    assert parse_origin_url(str(parsed)) == origin


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3000, 'expected a URL such as "http://127.0.0.1:3000", got 3000'),
        ("shop.test", 'has no scheme; write "http://..." or "https://..."'),
        ("ftp://shop.test", 'the scheme must be http or https, got "ftp"'),
        ("http://", 'has no valid host; write "http://HOST:PORT"'),
        ("http://a b", "has no valid host"),
        ("http://h:0", "the port must be between 1 and 65535"),
        ("http://h:70000", "the port must be between 1 and 65535"),
        ("http://h:x", "the port must be between 1 and 65535"),
        ("http://u:p@h", "has a user name or password in it"),
        ("http://h/path", "has a path; the reader's own target is forwarded as it is, so give"),
        ("http://h?a", "has a query"),
        ("http://h?", "has a query"),
        ("http://h#a", "has a fragment"),
    ],
)
def test_what_is_no_origin(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_origin_url(value)


@pytest.mark.parametrize(
    ("text", "store"),
    [
        ("lmdb:/var/cache/x", LmdbStore(Path("/var/cache/x"))),
        ("lmdb:x/../y", LmdbStore(FOLDER / "y")),
        ("lmdb:~/x", LmdbStore(Path("~/x").expanduser())),
        ("memory:", MemoryStore()),
        ("memory://", MemoryStore()),
        ("redis://h", AiocacheStore("h")),
        ("redis://h:1/2", AiocacheStore("h", 1, 2)),
        ("redis://[::1]:1/2", AiocacheStore("::1", 1, 2)),
        ("REDISS://u:p%40ss@h", AiocacheStore("h", username="u", password="p@ss", tls=True)),
        ("redis://:secret@h", AiocacheStore("h", password="secret")),
    ],
)
def test_stores(text: str, store: StoreUrl) -> None:
    parsed = parse_store_url(text, FOLDER)
    assert parsed == store
    assert parse_store_url(parsed.url(), FOLDER) == store


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, 'expected "lmdb:FOLDER", "memory:" or "redis://HOST:PORT/DB", got 5'),
        ("lmdb:", 'names no folder; write "lmdb:/var/cache/edgeproxy"'),
        ("lmdb:/", "names no folder"),
        ("lmdb://var/x", 'a folder follows "lmdb:" directly; write "lmdb:/var/x"'),
        ("/var/x", '"/var/x" does not name the kind of store; write "lmdb:/var/x"'),
        ("~/x", 'write "lmdb:~/x"'),
        ("memory:shared", 'the memory store has no name and no options; write "memory:"'),
        ("reddis://h", '"reddis:" is not a kind of store; did you mean "redis:"? Write'),
        ("file:/x", '"file:" is not a kind of store; write "lmdb:FOLDER", "memory:" or'),
        ("", "is not the URL of a store; write"),
        ("redis://", 'names no host; write "redis://HOST:PORT/DB"'),
        ("redis://h:0", "the port must be between 1 and 65535"),
        ("redis://h:99999", "the port must be between 1 and 65535"),
        ("redis://h/x", "the database must be a number"),
        ("redis://h/0?a=b", "has a query or fragment"),
    ],
)
def test_what_is_no_store(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_store_url(value, FOLDER)


def test_a_store_s_text_hides_the_password() -> None:
    store = parse_store_url("redis://u:secret@h:1/2", FOLDER)
    assert str(store) == "redis://u:***@h:1/2"
    assert "secret" not in repr(store)


@pytest.mark.parametrize(
    ("configured", "folder"),
    [
        ("/data/cache", Path("/data/cache/edgeproxy")),
        ("relative", Path("~/.cache/edgeproxy").expanduser()),
        ("", Path("~/.cache/edgeproxy").expanduser()),
    ],
)
def test_the_user_s_cache_folder(
    monkeypatch: pytest.MonkeyPatch, configured: str, folder: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", configured)
    assert cache_folder() == folder
