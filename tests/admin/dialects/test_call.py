"""A call in any dialect: sites, environments, actions, and what is checked in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.admin.dialects.call import Call, text_fault, texts
from edgeproxy.admin.refusals import Refused, Why
from edgeproxy.config.server import AdminToken
from edgeproxy.invalidation.selectors import Mode, Selector
from tests.admin.dialects.conftest import store
from tests.admin.dialects.test_frame import incoming
from tests.config.configs import HASH

if TYPE_CHECKING:
    from tests.admin.conftest import AdminPort


def call(port: AdminPort, *, dry_run: bool = False, **token: Any) -> Call:
    """A call by a token with these settings."""
    holder = AdminToken(name="x", hash=HASH, **token)
    return Call(incoming(), holder, "wix", {}, None, port.served.edge, dry_run)


@pytest.mark.parametrize(
    ("sites", "named", "site"),
    [
        (["shop"], None, "shop"),
        (["shop"], "", "shop"),
        (["shop"], "shop", "shop"),
        (["shop"], "blog", Why.FORBIDDEN),
        (["shop"], "none", Why.FORBIDDEN),
        (["*"], "blog", "blog"),
        (["*"], "none", Why.UNKNOWN_SITE),
        (["*"], None, Why.BAD_REQUEST),
        (["shop", "blog"], None, Why.BAD_REQUEST),
        (["shop", "gone"], None, "shop"),
        (["gone"], "gone", Why.UNKNOWN_SITE),
    ],
)
async def test_the_site(
    speaking: AdminPort, sites: list[str], named: str | None, site: str | Why
) -> None:
    made = call(speaking, sites=sites)
    if isinstance(site, str):
        assert made.site(named) == site
        assert made.policy(site).name == site
        return
    with pytest.raises(Refused) as caught:
        made.site(named)
    assert caught.value.why is site


@pytest.mark.parametrize(
    ("environments", "asked", "left"),
    [
        (["production", "preview"], None, []),
        (["production"], None, ["preview.shop.test/a"]),
        (["production", "preview"], "preview", ["shop.test/a"]),
        (["production"], "preview", Why.FORBIDDEN),
    ],
)
async def test_no_purge_goes_beyond_the_token_s_environments(
    speaking: AdminPort, environments: list[str], asked: str | None, left: list[str] | Why
) -> None:
    pages = await store(speaking, {}, [("shop.test", "/a"), ("preview.shop.test", "/a")])
    made = call(speaking, environments=environments)
    purge = made.purge([Selector.by_everything("shop", asked)], Mode.DELETE)
    if isinstance(left, Why):
        with pytest.raises(Refused) as caught:
            await purge
        assert caught.value.why is left
    else:
        await purge
        assert await pages.left() == left


@pytest.mark.parametrize(
    ("actions", "selectors", "allowed"),
    [
        (["purge"], [Selector.by_tag("shop", "a")], True),
        (["purge"], [Selector.by_tag("shop", "a"), Selector.by_everything("shop")], False),
        (["purge"], [Selector("shop", environment="preview")], False),
        (["purge-everything"], [Selector.by_everything("shop")], True),
        (["purge-everything"], [Selector.by_tag("shop", "a")], False),
        (["purge"], [Selector.by_tag("blog", "a")], False),
        (["read"], [], True),
    ],
)
async def test_actions(
    speaking: AdminPort, actions: list[str], selectors: list[Selector], allowed: bool
) -> None:
    made = call(speaking, actions=actions, sites=["shop"])
    if allowed:
        await made.purge(selectors, Mode.INVALIDATE)
        return
    with pytest.raises(Refused) as caught:
        await made.purge(selectors, Mode.INVALIDATE)
    assert caught.value.why is Why.FORBIDDEN
    assert speaking.served.edge.view.catch_up() == 0


async def test_what_several_purges_match_is_added_up(speaking: AdminPort) -> None:
    await store(speaking, {"/a": "Cache-Tag: a", "/b": "Cache-Tag: b"})
    made = call(speaking)
    assert made.matched is None
    ids = set()
    for tag in ("a", "b", "nothing"):
        done = await made.purge([Selector.by_tag("shop", tag)], Mode.DELETE)
        ids.add(done.id)
    assert (made.matched, len(ids)) == (3, 3)


async def test_a_deletion_may_be_put_off(speaking: AdminPort) -> None:
    pages = await store(speaking, {"/a": "Cache-Tag: a"}, [("shop.test", "/a")])
    await call(speaking).purge([Selector.by_tag("shop", "a")], Mode.DELETE, deadline=60.0)
    assert await pages.how("/a") == "stale"


async def test_cache_busters_are_issued_to_who_may(speaking: AdminPort) -> None:
    issued = await call(speaking, actions=["issue-token"]).issue_buster("shop")
    assert (issued.site, issued.position) == ("shop", 1)
    with pytest.raises(Refused) as caught:
        await call(speaking, actions=["purge"]).issue_buster("shop")
    assert caught.value.why is Why.FORBIDDEN
    with pytest.raises(Refused, match="Edge-Dry-Run"):
        await call(speaking, dry_run=True).issue_buster("shop")
    assert speaking.served.edge.view.catch_up() == 1


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("a", None),
        ("grün 日本", None),
        ("x" * 5, None),
        ("x" * 9, "max_length"),
        ("", "min_length"),
        (7, "type"),
        (None, "type"),
        ("a\x00", "format"),
        ("a\x7f", "format"),
        ("a\u0085", "format"),
        ("a\ud800", "format"),
    ],
)
def test_a_text(value: object, rule: str | None) -> None:
    fault = text_fault(value, "tags[0]", 8)
    assert (fault and fault.rule) == rule
    assert fault is None or fault.field == "tags[0]"


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (["a", "b"], []),
        ([], [("tags", "min_size")]),
        (["a"] * 4, [("tags", "max_size")]),
        ("a", [("tags", "type")]),
        (["", "a", 7], [("tags[0]", "min_length"), ("tags[2]", "type")]),
    ],
)
def test_a_list_of_texts(value: object, wrong: list[tuple[str, str]]) -> None:
    if not wrong:
        assert texts(value, "tags", most=3, longest=8, least=1) == value
        return
    with pytest.raises(Refused) as caught:
        texts(value, "tags", most=3, longest=8, least=1)
    assert [(fault.field, fault.rule) for fault in caught.value.faults] == wrong
