"""Which site and environment a host belongs to, and what a site's policy is."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.config.sites import SitePolicy, SiteTable
from tests.config.configs import config

ORIGINS = [{"url": "http://127.0.0.1:3000"}]

SITES: dict[str, Any] = {
    "sites": {
        "shop": {"hosts": ["shop.test", "*.shop.test"], "preview_hosts": ["new.shop.test"]},
        "deep": {"hosts": ["*.a.shop.test", "[::1]", "10.0.0.1"], "origins": ORIGINS},
        "blog": {"hosts": ["blog.test"], "preview_hosts": ["*.blog.test"], "origins": ORIGINS},
    }
}


@pytest.mark.parametrize(
    ("host", "site", "environment"),
    [
        ("shop.test", "shop", "production"),
        ("SHOP.test", "shop", "production"),
        ("shop.test:8080", "shop", "production"),
        ("shop.test.", "shop", "production"),
        ("www.shop.test", "shop", "production"),
        ("a.shop.test", "shop", "production"),
        ("b.c.shop.test", "shop", "production"),
        ("new.shop.test", "shop", "preview"),
        ("x.new.shop.test", "shop", "production"),
        ("x.a.shop.test", "deep", "production"),
        ("x.y.a.shop.test:1", "deep", "production"),
        ("[::1]:8080", "deep", "production"),
        ("[0:0::1]", "deep", "production"),
        ("10.0.0.1:8080", "deep", "production"),
        ("blog.test", "blog", "production"),
        ("x.blog.test", "blog", "preview"),
    ],
)
def test_a_host_s_site(host: str, site: str, environment: str) -> None:
    found = SiteTable(config(SITES)).find(host)
    assert found is not None
    assert (found[0].name, found[1]) == (site, environment)


NOBODY_S = ["", "test", "other.test", "xshop.test", ".shop.test", "shop.test.x", "10.0.0.2", "::1x"]


@pytest.mark.parametrize("host", NOBODY_S)
def test_a_host_that_is_nobody_s(host: str) -> None:
    assert SiteTable(config(SITES)).find(host) is None


@pytest.mark.parametrize("host", NOBODY_S)
def test_the_default_site_takes_what_is_nobody_s(host: str) -> None:
    table = SiteTable(config({**SITES, "default_site": "blog"}))
    found = table.find(host)
    assert found is not None
    assert (found[0].name, found[1]) == ("blog", "production")
    assert table.find_named(host) is None


@pytest.mark.parametrize(
    ("named", "site"), [("shop", "shop"), ("0123abcd", "shop"), ("none", "none"), ("SHOP", "SHOP")]
)
def test_a_site_goes_by_its_ids_too(named: str, site: str) -> None:
    assert SiteTable(config({"sites": {"shop": {"ids": ["0123abcd"]}}})).named(named) == site


def policy(**settings: Any) -> SitePolicy:
    return SiteTable(config({"sites": {"shop": settings}})).policies["shop"]


def test_a_policy_has_the_site_s_settings_in_seconds_and_bytes() -> None:
    found = policy(
        ttl={"default": "5m", "max": "1h", "heuristic_fraction": 0.5, "heuristic_max": "2h"},
        grace={"stale_while_revalidate": "10m", "stale_if_error": "1d"},
        tags={"fields": ["XKey"], "max_tags": 5, "debug": True},
        key={"ignore_query": ["sid"], "ignore_tracking": True, "sort_query": True},
        cache={"targets": ["CDN-Cache-Control"], "share_set_cookie": True, "max_variants": 7},
        host_header="origin",
        cache_status=False,
    )
    freshness = found.freshness
    assert (freshness.default_ttl, freshness.max_ttl) == (300, 3600)
    assert (freshness.heuristic_fraction, freshness.heuristic_max) == (0.5, 7200)
    assert (freshness.grace, freshness.error_grace) == (600, 86_400)
    assert freshness.targets == found.storage.targets == (b"cdn-cache-control",)
    assert found.storage.share_set_cookie
    assert (found.tags.fields, found.tags.max_tags, found.debug_tags) == ((b"xkey",), 5, True)
    assert found.key.canonical_target(b"/p?utm_source=x&b=1&sid=2&a=3") == b"/p?a=3&b=1"
    assert (found.max_variants, found.host_header, found.cache_status) == (7, "origin", False)


def test_a_site_that_says_nothing_has_the_defaults() -> None:
    found = policy()
    assert found.freshness.default_ttl is None
    assert (found.freshness.grace, found.freshness.error_grace) == (0, 86_400)
    assert found.key.canonical_target(b"/p?utm_source=x&b=1") == b"/p?utm_source=x&b=1"
    assert (found.host_header, found.cache_status, found.debug_tags) == ("pass", True, False)
    assert b"cache-tag" in found.tags.fields
    assert (found.purge_networks, found.purge_tokens) == ((), False)
    assert [str(origin.url) for origin in found.origins] == ["http://127.0.0.1:3000"]
