"""What is made ready when a response is stored, and by what it is told that it still serves."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.cache.stored import UNWRITTEN, StoredResponse
from edgeproxy.config.model import Config
from edgeproxy.config.sites import ANSWERING, SitePolicy
from edgeproxy.proxy.rendering import ready
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.freshness import assess_freshness
from tests.cache.samples import response

FIELDS = (
    (b"Date", b"Thu, 01 Jan 1970 00:16:40 GMT"),
    (b"Cache-Control", b"max-age=60, stale-while-revalidate=30"),
    (b"Content-Type", b"text/html"),
    (b"Cache-Tag", b"home"),
    (b"Age", b"5"),
    (b"Content-Length", b"3"),
)


def policy(**settings: Any) -> SitePolicy:
    site = {"hosts": ["shop.test"], "origins": [{"url": "http://origin.test"}], **settings}
    config = Config.model_validate({"sites": {"shop": site}})
    return SitePolicy.of("shop", config.sites["shop"])


def made(stored: StoredResponse, by: SitePolicy) -> Any:
    freshness = assess_freshness(
        stored.status,
        Fields(stored.fields),
        stored.request_time,
        stored.response_time,
        by.freshness,
    )
    return ready(stored, by, freshness)


PAGE = response("page", fields=FIELDS, body=UNWRITTEN)


def test_what_is_made_ready_is_what_its_number_says() -> None:
    """Who changes what comes of this has to change `ANSWERING`: stores have such rows."""
    found = made(PAGE, policy())
    assert (ANSWERING, found.head, found.freshness.pack().hex()) == (
        1,
        b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:16:40 GMT\r\n"
        b"Cache-Control: max-age=60, stale-while-revalidate=30\r\nContent-Type: text/html\r\n",
        "404e0000000000004016000000000000408f440000000000403e00000000000040f51800000000000100000000",
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"fields": ((b"Cache-Control", b"no-cache, max-age=60"),)}, id="no-cache"),
        pytest.param({"fields": ((b"Cache-Control", b"max-age=0"),)}, id="stale as it comes"),
        pytest.param({"status": 206}, id="incomplete"),
        pytest.param({"fields": (*FIELDS, (b"X", b"a\r\nb"))}, id="unsafe"),
    ],
)
def test_what_is_no_plain_hit_is_not_made_ready(changes: dict[str, Any]) -> None:
    assert made(response("page", **{"fields": FIELDS, **changes}), policy()) is None


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        pytest.param({"ttl": {"max": 30}}, False, id="freshness"),
        pytest.param({"tags": {"debug": True}}, False, id="fields that are shown"),
        pytest.param({"vercel_cache": True}, False, id="fields that are added"),
        pytest.param({"cache_status": False}, True, id="told at each answer"),
    ],
)
def test_settings_that_change_it_are_told_apart(settings: dict[str, Any], same: bool) -> None:
    assert (policy(**settings).answering == policy().answering) == same
