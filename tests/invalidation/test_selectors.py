"""What a selector picks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given

from edgeproxy.invalidation.selectors import Selector
from edgeproxy.semantics.url_hash import url_hash
from tests.invalidation.samples import picks, response, responses, selectors

if TYPE_CHECKING:
    from edgeproxy.cache.stored import StoredResponse

HOME = Selector.by_tag("shop", "home")
PAGE = Selector.by_url("shop", None, b"/page")
HASH = Selector("shop", hash=url_hash("a.test", b"/page"))


@pytest.mark.parametrize(
    ("selector", "stored", "picked"),
    [
        pytest.param(HOME, {"tags": ("home", "p-1")}, True, id="tag"),
        pytest.param(HOME, {"tags": ("Home",)}, False, id="tag: case counts"),
        pytest.param(HOME, {"tags": ("home-2",)}, False, id="tag: the whole of it"),
        pytest.param(HOME, {}, False, id="tag: none"),
        pytest.param(HOME, {"tags": ("home",), "site": "blog"}, False, id="tag: another site"),
        pytest.param(PAGE, {"host": "a.test"}, True, id="url: any host of the site"),
        pytest.param(PAGE, {"scheme": "http"}, True, id="url: any scheme"),
        pytest.param(PAGE, {"buster": b"T"}, True, id="url: cb: copies too"),
        pytest.param(PAGE, {"variant": b"\1" * 8}, True, id="url: all variants"),
        pytest.param(PAGE, {"target": b"/page?"}, False, id="url: an empty query is another"),
        pytest.param(PAGE, {"target": b"/page/"}, False, id="url: not a prefix"),
        pytest.param(PAGE, {"site": "blog"}, False, id="url: another site"),
        pytest.param(
            Selector.by_url("shop", "a.test", b"/page"), {"host": "b.test"}, False, id="url: host"
        ),
        pytest.param(
            Selector.by_url("shop", "a.test", b"/page"), {"host": "a.test"}, True, id="url: its"
        ),
        pytest.param(
            Selector.by_url("shop", "a.test", b"/page"), {"host": "a.test:81"}, False, id="port"
        ),
        pytest.param(HASH, {"host": "a.test", "scheme": "http"}, True, id="hash: any scheme"),
        pytest.param(HASH, {"host": "a.test", "buster": b"T"}, True, id="hash: cb: copies too"),
        pytest.param(HASH, {"host": "b.test"}, False, id="hash: another host"),
        pytest.param(HASH, {"host": "a.test", "target": b"/p"}, False, id="hash: another target"),
        pytest.param(HASH, {"host": "a.test", "site": "blog"}, False, id="hash: another site"),
        pytest.param(Selector.by_everything("shop"), {}, True, id="everything"),
        pytest.param(
            Selector.by_everything("shop"), {"site": "blog"}, False, id="everything: of its site"
        ),
        pytest.param(
            Selector.by_everything("shop", "preview"), {}, False, id="another environment"
        ),
        pytest.param(
            Selector.by_everything("shop", "preview"),
            {"environment": "preview"},
            True,
            id="its own",
        ),
    ],
)
def test_a_selector_picks(selector: Selector, stored: dict[str, object], picked: bool) -> None:
    assert selector.matches(response("page", **stored)) is picked


@given(selectors(), responses())
def test_matching_is_what_the_words_say(selector: Selector, stored: StoredResponse) -> None:
    assert selector.matches(stored) is picks(selector, stored)


@given(selectors())
def test_a_selector_survives_its_encoding(selector: Selector) -> None:
    row = msgspec.msgpack.encode(selector)
    assert msgspec.msgpack.decode(row, type=Selector) == selector
