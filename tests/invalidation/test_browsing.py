"""Pages of what is stored and of the journal: bounded, each thing once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgeproxy.invalidation import browsing
from edgeproxy.invalidation.selectors import Mode
from tests.kit import Answer
from tests.proxy.parts import by_tag, by_url, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgeproxy.invalidation.browsing import Browser
    from edgeproxy.invalidation.record import Record
    from tests.kit import ScriptedOrigin
    from tests.proxy.parts import ServedEdge


@pytest.fixture
async def served(tmp_path: Path, origin: ScriptedOrigin) -> AsyncIterator[ServedEdge]:
    async with running(tmp_path, origin) as edge:
        yield edge


@pytest.fixture
def browser(served: ServedEdge) -> Browser:
    return served.edge.browser


async def store(served: ServedEdge, origin: ScriptedOrigin, number: int, tag: str) -> None:
    """So many responses with that tag, of /TAG-0 and so on."""
    fields = {"Cache-Control": "max-age=60", "Cache-Tag": tag}
    for at in range(number):
        origin.route(f"/{tag}-{at}", Answer(200, fields, b"x"))
        await served.get(f"/{tag}-{at}")


async def test_a_page_looks_at_so_many_and_goes_on_with_the_next(
    served: ServedEdge, origin: ScriptedOrigin, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "MAX_LOOKED_AT", 3)
    await store(served, origin, 7, "a")
    selector = by_tag("a")
    wanted = type(selector)("shop", tag="a", pattern="-[26]$")
    found, after, pages = [], None, 0
    while True:
        page = browser.responses(wanted, after, 10)
        found += [stored.target for stored in page.found]
        pages += 1
        if page.after is None:
            break
        after = page.after
    assert sorted(found) == [b"/a-2", b"/a-6"]
    assert pages == 3


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_pages_of_any_size_have_each_response_once(
    served: ServedEdge, origin: ScriptedOrigin, browser: Browser, limit: int
) -> None:
    await store(served, origin, 6, "a")
    found, after = [], None
    for _ in range(7):
        page = browser.responses(by_tag("a"), after, limit)
        found += [stored.target for stored in page.found]
        after = page.after
        if after is None:
            break
    assert sorted(found) == [f"/a-{at}".encode() for at in range(6)]


async def test_tags_are_found_whatever_the_step(
    served: ServedEdge, origin: ScriptedOrigin, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, tag in enumerate("abcde", 1):
        await store(served, origin, number, tag)
    for step in (1, 2, 5, 500):
        monkeypatch.setattr(browsing, "_STEP", step)
        tags = await browser.tags(["shop"], None, "", None, 3)
        assert [(each.tag, each.count) for each in tags] == [("e", 5), ("d", 4), ("c", 3)]
        rest = await browser.tags(["shop"], None, "", tags[-1], 3)
        assert [(each.tag, each.count) for each in rest] == [("b", 2), ("a", 1)]


async def test_not_all_tags_are_looked_at_where_there_are_too_many(
    served: ServedEdge, origin: ScriptedOrigin, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "MAX_TAGS", 2)
    monkeypatch.setattr(browsing, "_STEP", 1)
    for tag in "abc":
        await store(served, origin, 1, tag)
    tags = await browser.tags(["shop"], "production", "", None, 10)
    assert [each.tag for each in tags] == ["a", "b"]


def positions(browser: Browser, before: int | None, limit: int, **wanted: object) -> list[int]:
    """Of the records of a page, newest first."""

    def is_wanted(record: Record) -> bool:
        return all(getattr(record, name) == value for name, value in wanted.items())

    return [record.position for record in browser.records(before, limit, is_wanted).found]


async def test_records_come_newest_first(served: ServedEdge, browser: Browser) -> None:
    assert browser.records(None, 5, lambda _: True) == ([], None)
    for number in range(6):
        mode = Mode.DELETE if number % 3 == 0 else Mode.INVALIDATE
        await served.purge(by_url(f"/{number}"), mode=mode)
    assert positions(browser, None, 4) == [6, 5, 4, 3]
    assert positions(browser, 3, 4) == [2, 1]
    assert positions(browser, 1, 4) == []
    assert positions(browser, 99, 1) == [6]
    assert positions(browser, None, 4, mode=Mode.DELETE) == [4, 1]
    assert positions(browser, None, 1, mode=Mode.DELETE) == [4]


async def test_a_page_of_records_looks_at_so_many(
    served: ServedEdge, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "MAX_LOOKED_AT", 2)
    for number in range(5):
        await served.purge(by_url(f"/{number}"))
    pages = []
    before: int | None = None
    while True:
        page = browser.records(before, 10, lambda record: record.position == 1)
        pages.append([record.position for record in page.found])
        before = page.before
        if before is None:
            break
    assert pages == [[], [], [1]]
