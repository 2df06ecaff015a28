"""RFC 9111 4.3: asking the origin about all that is stored under a key, and what a 304 says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit import Answer, OriginRequest, ScriptedOrigin
from tests.proxy.parts import ServedEdge, Time, by_url, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.kit.origin import Reply

VARIES = {"Cache-Control": "max-age=60", "Vary": "X-Kind"}
BIG = b"0123456789" * 50_000
"""More than is kept in memory, or in the index."""


@pytest.fixture
async def shop(tmp_path: Path, origin: ScriptedOrigin) -> AsyncIterator[ServedEdge]:
    async with running(tmp_path, origin, clock=Time()) as edge:
        yield edge


def kinds(**tags: str) -> Reply:
    """A page for each X-Kind, with the entity tag given for it; validated by that."""

    def answer(request: OriginRequest) -> Answer:
        tag = tags[request.field("x-kind") or "none"]
        fields = VARIES | {"ETag": tag, "X-Asked": request.field("x-kind") or "none"}
        asked = (request.field("if-none-match") or "").split(", ")
        return Answer(304, fields) if tag in asked else Answer(200, fields, tag.encode())

    return answer


async def ask(shop: ServedEdge, kind: str, **fields: str) -> tuple[int, bytes, str | None]:
    """The status, the body, and what the origin was asked: None if it was not."""
    response = await shop.get("/page", {"X-Kind": kind, **fields})
    fwd = response.cache_status.get("fwd")
    return response.status, response.body, None if fwd is None else str(fwd)


async def test_a_miss_asks_about_all_variants_and_304_selects_one(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/page", kinds(a='"1"', b='"2"', c='"1"'))
    assert await ask(shop, "a") == (200, b'"1"', "uri-miss")
    assert await ask(shop, "b") == (200, b'"2"', "vary-miss")
    response = await shop.get("/page", {"X-Kind": "c"})
    asked = origin.requests[-1].field("if-none-match") or ""
    assert sorted(asked.split(", ")) == ['"1"', '"2"']
    assert origin.requests[-1].field("if-modified-since") is None
    assert (response.status, response.body) == (200, b'"1"')
    assert response.cache_status == {"fwd": "vary-miss", "fwd-status": "304", "stored": True}
    assert response.field("x-asked") == "c", "with the 304's fields"
    count = origin.counts["/page"]
    for kind, body in (("a", b'"1"'), ("b", b'"2"'), ("c", b'"1"')):
        assert await ask(shop, kind) == (200, body, None)
    assert origin.counts["/page"] == count
    assert len(shop.stored()) == 3


async def test_a_variant_in_a_file_is_copied_as_well(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    def answer(request: OriginRequest) -> Answer:
        fields = VARIES | {"ETag": '"big"'}
        return Answer(304, fields) if request.field("if-none-match") else Answer(200, fields, BIG)

    origin.route("/page", answer)
    await ask(shop, "a")
    assert await ask(shop, "b") == (200, BIG, "vary-miss")
    assert await ask(shop, "b") == (200, BIG, None)
    assert len({stored.body.id for stored in shop.stored()}) == 2, "each owns its body"


async def test_a_revalidation_that_selects_another_variant_replaces_the_old_one(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/page", kinds(a='"1"', b='"2"'))
    await ask(shop, "a")
    await ask(shop, "b")
    shop.clock.now += 61
    origin.route("/page", kinds(a='"1"', b='"1"'))
    assert await ask(shop, "b") == (200, b'"1"', "stale")
    asked = origin.requests[-1].field("if-none-match") or ""
    assert asked.split(", ") == ['"2"', '"1"'], "its own first"
    assert await ask(shop, "b") == (200, b'"1"', None)
    assert await ask(shop, "a") == (200, b'"1"', "stale"), "that one was not validated"


@pytest.mark.parametrize(
    ("stored", "update"),
    [
        pytest.param({"ETag": '"1"'}, {"ETag": '"2"'}, id="4.3.4-another-strong-tag"),
        pytest.param({"ETag": 'W/"1"'}, {"ETag": '"1"'}, id="4.3.4-weak-is-not-strong"),
        pytest.param({"ETag": 'W/"1"'}, {"ETag": 'W/"2"'}, id="4.3.4-another-weak-tag"),
        pytest.param(
            {"Last-Modified": "Tue, 14 Nov 2023 20:00:00 GMT"}, {"ETag": '"1"'}, id="4.3.4-no-tag"
        ),
    ],
)
async def test_a_304_that_matches_nothing_is_not_used(
    shop: ServedEdge, origin: ScriptedOrigin, stored: Mapping[str, str], update: Mapping[str, str]
) -> None:
    fresh = {"Cache-Control": "max-age=60"}

    def answer(request: OriginRequest) -> Answer:
        if request.field("if-none-match") or request.field("if-modified-since"):
            return Answer(304, fresh | dict(update))
        return Answer(200, fresh | dict(stored), b"%d" % origin.counts["/page"])

    origin.route("/page", answer)
    assert (await shop.get("/page")).body == b"1"
    shop.clock.now += 61
    response = await shop.get("/page")
    assert (response.status, response.body) == (200, b"3"), "asked once more, for the whole"
    assert origin.requests[-1].field("if-none-match") is None
    assert origin.requests[-1].field("if-modified-since") is None


@pytest.mark.parametrize(
    "update",
    [
        pytest.param({"ETag": '"1"'}, id="4.3.4-strong"),
        pytest.param({"Last-Modified": "Tue, 14 Nov 2023 20:00:00 GMT"}, id="4.3.4-date"),
        pytest.param({}, id="no-validator-to-one-question"),
    ],
)
async def test_a_304_that_matches_freshens(
    shop: ServedEdge, origin: ScriptedOrigin, update: Mapping[str, str]
) -> None:
    fields = {"Cache-Control": "max-age=60", "ETag": '"1"'}
    fields["Last-Modified"] = "Tue, 14 Nov 2023 20:00:00 GMT"
    origin.route("/page", Answer(200, fields | {"X": "old"}, b"page"))
    await shop.get("/page")
    shop.clock.now += 61
    origin.route("/page", Answer(304, {"Cache-Control": "max-age=60", "X": "new", **update}))
    response = await shop.get("/page")
    assert (response.status, response.body, response.field("x")) == (200, b"page", "new")
    request = origin.requests[-1]
    assert request.field("if-none-match") == '"1"'
    assert request.field("if-modified-since") == fields["Last-Modified"]
    assert (await shop.get("/page")).cache_status["hit"] is True


@pytest.mark.parametrize(
    ("tag", "coding", "accepted", "asked"),
    [
        pytest.param('"1"', "", "", True, id="no-coding"),
        pytest.param('"1"', "gzip", "gzip", True, id="accepted"),
        pytest.param('"1"', "x-gzip", "GZIP;q=0.5", True, id="by-another-name"),
        pytest.param('"1"', "br", "gzip, *;q=0.1", True, id="any"),
        pytest.param('"1"', "gzip", "", False, id="not-named"),
        pytest.param('"1"', "gzip", "gzip;q=0, *", False, id="refused"),
        pytest.param('"1"', "gzip", "gzip;q=x", False, id="malformed"),
        pytest.param('W/"1"', "", "", False, id="weak"),
    ],
)
async def test_only_what_could_be_the_answer_is_asked_about(
    shop: ServedEdge, origin: ScriptedOrigin, tag: str, coding: str, accepted: str, asked: bool
) -> None:
    """Some origins give all codings of a file one entity tag."""
    fields = VARIES | {"ETag": tag} | ({"Content-Encoding": coding} if coding else {})
    origin.route("/page", Answer(200, fields, b"page"))
    await ask(shop, "a")
    await ask(shop, "b", **({"Accept-Encoding": accepted} if accepted else {}))
    assert (origin.requests[-1].field("if-none-match") is not None) is asked


async def test_what_has_only_a_date_is_asked_about_alone(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9110 13.1.3: If-None-Match would hide If-Modified-Since."""
    date = "Tue, 14 Nov 2023 20:00:00 GMT"
    origin.route("/page", Answer(200, VARIES | {"ETag": '"1"'}, b"a"))
    await ask(shop, "a")
    origin.route("/page", Answer(200, VARIES | {"Last-Modified": date}, b"b"))
    await ask(shop, "b")
    shop.clock.now += 61
    origin.route("/page", Answer(304, VARIES | {"Last-Modified": date}))
    assert await ask(shop, "b") == (200, b"b", "stale")
    assert origin.requests[-1].field("if-none-match") is None
    assert origin.requests[-1].field("if-modified-since") == date


async def test_if_none_match_is_bounded(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    def answer(request: OriginRequest) -> Answer:
        return Answer(200, VARIES | {"ETag": '"%s"' % ((request.field("x-kind") or "") * 1500)})

    origin.route("/page", answer)
    for kind in "abcd":
        await ask(shop, kind)
        shop.clock.now += 1
    asked = origin.requests[-1].field("if-none-match") or ""
    assert [tag[1] for tag in asked.split(", ")] == ["c", "b"], (
        "the newest, as far as there is room"
    )


async def test_a_purged_variant_is_not_asked_about(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/page", kinds(a='"1"', b='"1"'))
    await ask(shop, "a")
    await shop.purge(by_url("/page"))
    await ask(shop, "b")
    assert origin.requests[-1].field("if-none-match") is None


# -- RFC 9111 4.1, 4: which of several is used


async def test_the_most_recent_by_its_date_is_used(
    shop: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9111 4."""
    fresh = {"Cache-Control": "max-age=6000"}
    later, earlier = "Tue, 14 Nov 2023 22:13:20 GMT", "Tue, 14 Nov 2023 22:13:00 GMT"
    origin.route("/page", Answer(200, fresh | {"Vary": "X-Kind", "Date": later}, b"later"))
    await ask(shop, "a")
    origin.route("/page", Answer(200, fresh | {"Date": earlier}, b"earlier"))
    await ask(shop, "b")
    assert await ask(shop, "a") == (200, b"later", None)
    assert await ask(shop, "c") == (200, b"earlier", None)
    shop.empty_memory()
    assert await ask(shop, "a") == (200, b"later", None)


async def test_languages_are_chosen_by_preference(shop: ServedEdge, origin: ScriptedOrigin) -> None:
    """RFC 9111 4.1, RFC 9110 12.5.4."""
    fields = {"Cache-Control": "max-age=60", "Vary": "Accept-Language", "Content-Language": "de"}
    origin.route("/page", Answer(200, fields, b"Seite"))
    await shop.get("/page", {"Accept-Language": "en, de"})
    for wanted in ("DE,en", "fr;q=0.5, de;q=1.0"):
        assert "hit" in (await shop.get("/page", {"Accept-Language": wanted})).cache_status
        shop.empty_memory()
        assert "hit" in (await shop.get("/page", {"Accept-Language": wanted})).cache_status
    response = await shop.get("/page", {"Accept-Language": "fr, de;q=0.5"})
    assert response.cache_status["fwd"] == "vary-miss"


# -- RFC 9111 4.3.2: a reader's own validation


@pytest.mark.parametrize(
    ("date", "since", "status"),
    [
        pytest.param(None, "Tue, 14 Nov 2023 22:13:20 GMT", 304, id="received-then"),
        pytest.param(None, "Tue, 14 Nov 2023 22:13:19 GMT", 200, id="received-later"),
        pytest.param(
            "Tue, 14 Nov 2023 22:00:00 GMT", "Tue, 14 Nov 2023 22:00:00 GMT", 304, id="sent-then"
        ),
        pytest.param(
            "Tue, 14 Nov 2023 22:00:00 GMT", "Tue, 14 Nov 2023 21:59:59 GMT", 200, id="sent-later"
        ),
    ],
)
async def test_if_modified_since_without_last_modified(
    shop: ServedEdge, origin: ScriptedOrigin, date: str | None, since: str, status: int
) -> None:
    fields = {"Cache-Control": "max-age=6000"} | ({} if date is None else {"Date": date})
    origin.route("/page", Answer(200, fields, b"page"))
    await shop.get("/page")
    response = await shop.get("/page", {"If-Modified-Since": since})
    assert (response.status, "hit" in response.cache_status) == (status, True)
    assert origin.counts["/page"] == 1
