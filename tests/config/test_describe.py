"""What `edgeproxy check` prints: who listens where, each site, and what may surprise."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.config.describe import describe, warnings
from tests.config.configs import HASH, config

ALL: dict[str, Any] = {
    "listen": [
        {"address": "127.0.0.1:80"},
        {"address": ":443", "tls": {"certificates": [{"cert": "/c.pem", "key": "/k.pem"}]}},
    ],
    "admin": {"tokens": [{"name": "editors", "hash": HASH, "sites": ["shop"]}]},
    "workers": 3,
    "store": {"url": "redis://u:secret@h:1/2", "state_dir": "/state", "max_bytes": "1GiB"},
    "log": {"access": "/var/log/a.log", "format": "json"},
    "trusted_proxies": ["10.0.0.0/8"],
    "sites": {
        "shop": {
            "preview_hosts": ["new.test"],
            "origins": [
                {"url": "http://127.0.0.1:3000"},
                {"url": "https://b.test", "tls": {"server_name": "c.test", "ca_file": "/ca.pem"}},
            ],
            "balancing": {"method": "least-connections"},
            "check": {"path": "/up", "host": "b.test", "status": [200, 204]},
            "host_header": "origin",
            "timeouts": {"total": "2m"},
            "ttl": {"default": "5m", "max": "1h"},
            "grace": {"stale_while_revalidate": 0, "stale_if_error": "1h30m"},
            "key": {"ignore_query": ["sid"], "sort_query": True},
            "tags": {"fields": [], "debug": True},
        }
    },
}


def rows(change: dict[str, Any]) -> dict[str, list[str]]:
    """The description by the title of each line."""
    found: dict[str, list[str]] = {}
    for line in describe(config(change)).splitlines():
        if line.startswith("  ") and ": " in line:
            title, _, text = line.strip().partition(":")
            found.setdefault(title, []).append(text.strip())
    return found


@pytest.mark.parametrize(
    ("title", "text"),
    [
        ("listens on", ["127.0.0.1:80, plain HTTP", ":443, TLS with /c.pem"]),
        ("admin on", ["127.0.0.1:8081"]),
        ("admin token", ["editors may purge, purge-everything, read, issue-token on sites shop"]),
        ("workers", ["3"]),
        ("store", ["bodies in redis://u:***@h:1/2, index in /state, 1GiB, bodies of up to 256MiB"]),
        ("memory", ["48MiB a worker, bodies of up to 1MiB"]),
        ("access log", ["/var/log/a.log, json format"]),
        ("trusts", ["10.0.0.0/8"]),
        ("unknown host", ["421"]),
        ("hosts", ["shop.test"]),
        ("preview hosts", ["new.test"]),
        ("origin", ["http://127.0.0.1:3000", "https://b.test, as c.test, trusting /ca.pem"]),
        (
            "origins",
            [
                "the least busy one first; passed over for 1s to 10s after 5 failures; 0.2 of the "
                "requests may be repeated"
            ],
        ),
        ("checks", ["/up of b.test every 5s, 200, 204 within 2s"]),
        ("Host sent on", ["that of the origin's URL"]),
        ("times out", ["connect 5s, first byte 1m, between bytes 1m, whole 2m"]),
        ("fresh", ["as the origin says; where it says nothing, 5m; never more than 1h"]),
        ("key", ["URL without sid, query sorted"]),
        ("tags", ["none are read"]),
    ],
)
def test_a_row(title: str, text: list[str]) -> None:
    assert rows(ALL)[title] == text


def test_one_origin_needs_no_words_on_several() -> None:
    assert not {"origins", "checks"} & rows({}).keys()


def test_grace() -> None:
    (text,) = rows(ALL)["stale"]
    assert text.startswith(
        "served while it is refreshed never, when the origin fails for 1h30m (unless the origin"
    )


def test_tokens_are_told_by_name_alone_and_passwords_not_at_all() -> None:
    text = describe(config(ALL))
    assert "editors" in text
    assert HASH not in text
    assert HASH.removeprefix("sha256:") not in text
    assert "secret" not in text


def test_each_site_has_its_own_part() -> None:
    text = describe(
        config(
            {
                "default_site": "blog",
                "sites": {"blog": {"hosts": [], "origins": [{"url": "http://b.test"}]}},
            }
        )
    )
    assert text.index("Site shop\n") < text.index("Site blog, for any host that no other site nam")


@pytest.mark.parametrize(
    ("change", "title", "text"),
    [
        ({}, "admin token", "EDGEPROXY_ADMIN_TOKEN, else one made and printed at start"),
        ({"default_site": "shop"}, "unknown host", "site shop"),
        ({"log": {"access": "off"}}, "access log", "off"),
        ({"store": {"url": "lmdb:/s"}}, "store", "on disk in /s, 2GiB, bodies of up to 256MiB"),
        (
            {"store": {"url": "memory:"}},
            "store",
            "in each worker's memory, index in a temporary folder, 2GiB, bodies of up to 256MiB",
        ),
        ({"sites": {"shop": {"host_header": "o.test"}}}, "Host sent on", "o.test"),
        (
            {"sites": {"shop": {"cache": {"share_set_cookie": True}}}},
            "Set-Cookie",
            "responses with it are stored like all others",
        ),
    ],
)
def test_other_settings(change: dict[str, Any], title: str, text: str) -> None:
    assert rows(change)[title] == [text]


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({}, "default_site is not set: a host that no site names gets 421"),
        ({"admin": {"address": ":1"}}, "admin.address: :1 can be reached from other machines"),
        ({"trusted_proxies": ["::/0"]}, "trusted_proxies: ::/0 lets every reader say who it is"),
        (
            {"sites": {"shop": {"origins": [{"url": "https://b.test", "tls": {"verify": False}}]}}},
            "sites.shop: the certificate of https://b.test is not verified",
        ),
        (
            {"sites": {"shop": {"cache": {"request_cache_control": "honour"}}}},
            "sites.shop: any reader can make the origin work",
        ),
        (
            {"sites": {"shop": {"cache": {"request_cache_control": "trusted"}}}},
            'sites.shop: request_cache_control is "trusted", but trusted_proxies is empty',
        ),
        (
            {"sites": {"shop": {"varnish": {"networks": ["::/0"]}}}},
            "sites.shop: ::/0 lets every reader purge",
        ),
        (
            {"sites": {"shop": {"varnish": {"tokens": True}}}},
            "sites.shop: tokens can cross the network in clear",
        ),
        (
            {"default_site": "shop", "sites": {"shop": {"hosts": [], "preview_hosts": ["a.test"]}}},
            "sites.shop: every host but its preview hosts is production",
        ),
    ],
)
def test_warnings(change: dict[str, Any], warning: str) -> None:
    one = config(change)
    assert any(found.startswith(warning) for found in warnings(one)), warnings(one)
    assert f"  - {warning}" in describe(one)


def test_nothing_to_warn_of() -> None:
    assert warnings(config({"default_site": "shop"})) == []
    assert "Warnings" not in describe(config({"default_site": "shop"}))
