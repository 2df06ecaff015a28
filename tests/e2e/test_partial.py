"""Incomplete responses: stored, reused, combined, completed (RFC 9111 3.3, 3.4; 9110 15.3.7.3)."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.conftest import StartEdge
from tests.kit import CLOSE, Answer, EdgeProcess, OriginRequest, ScriptedOrigin
from tests.kit.ranged import Ranged
from tests.kit.wire import MessageCut

FRESH = {"Cache-Control": "max-age=600"}
ETAG = {"ETag": '"v1"'}
LARGE = random.Random(1).randbytes(3_000_000)
TEXT = random.Random(2).randbytes(900)


def ranges_asked(origin: ScriptedOrigin) -> list[tuple[str | None, str | None]]:
    """Range and If-Range of each request that the origin got."""
    return [(each.field("range"), each.field("if-range")) for each in origin.requests]


async def part(edge: EdgeProcess, asked: str, **more: str) -> tuple[bytes, dict[str, str | bool]]:
    """The body of the 206 that a Range gets, and Cache-Status."""
    fields = {name.replace("_", "-"): value for name, value in more.items()}
    response = await edge.get("/", fields={"Range": f"bytes={asked}"} | fields)
    assert response.status == 206
    return response.body, response.cache_status


async def test_a_range_of_a_cold_object_does_not_wait_for_what_is_before_it(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    page, never = Ranged(LARGE), asyncio.Event()

    def answer(request: OriginRequest) -> Answer:
        if request.field("range"):
            return page(request)
        return Answer(200, page.fields, LARGE, hold_body=never)

    origin.route("/", answer)
    response = await edge.get("/", fields={"Range": "bytes=2900000-2900099"})
    assert (response.status, response.body) == (206, LARGE[2_900_000:2_900_100])
    assert response.field("content-range") == "bytes 2900000-2900099/3000000"
    assert response.cache_status == {"fwd": "uri-miss", "fwd-status": "206", "stored": True}

    # Nor one for which the whole is on its way, but not yet near.
    async with await edge.connect() as reader:
        await reader.request("GET", "/")
        await origin.seen("/", 2)
        body, status = await part(edge, "1500000-1500009")
        assert body == LARGE[1_500_000:1_500_010]
        assert status == {"fwd": "partial", "fwd-status": "206", "stored": True}
        never.set()
        assert (await reader.response()).body == LARGE


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("body", [TEXT, LARGE], ids=["small", "large"])
async def test_ranges_within_what_is_stored_are_hits(
    edge: EdgeProcess, origin: ScriptedOrigin, body: bytes, framing: str
) -> None:
    """RFC 9111 3.3."""
    origin.route("/", Ranged(body, framing=framing))
    size, start = len(body), len(body) // 3
    await part(edge, f"{start}-{size - 101}")
    await part(edge, "-50")
    for asked, first, last in [
        (f"{start}-{size - 101}", start, size - 101),
        (f"{start + 5}-{start + 9}", start + 5, start + 9),
        ("-50", size - 50, size - 1),
        ("-1", size - 1, size - 1),
        (f"{size - 20}-", size - 20, size - 1),
    ]:
        response = await edge.get("/", fields={"Range": f"bytes={asked}"})
        assert (response.status, response.body) == (206, body[first : last + 1])
        assert response.lines("content-range") == [f"bytes {first}-{last}/{size}"]
        assert response.cache_status["hit"] is True
        assert response.field("age") is not None
        assert response.field("etag") == '"v1"'
    several = await edge.get("/", fields={"Range": f"bytes={start}-{start + 1},-2"})
    assert several.status == 206
    assert several.cache_status["hit"] is True
    assert body[start : start + 2] in several.body
    assert body[-2:] in several.body
    assert origin.counts["/"] == 2


@pytest.mark.parametrize("body", [TEXT, LARGE], ids=["small", "large"])
async def test_ranges_are_combined_and_completed_to_the_original(
    edge: EdgeProcess, origin: ScriptedOrigin, body: bytes
) -> None:
    """RFC 9111 3.4, 9110 15.3.7.3."""
    origin.route("/", Ranged(body))
    third = len(body) // 3
    for asked in (f"{third}-{third + 99}", "0-99", f"50-{third + 9}", f"-{third}"):
        await part(edge, asked)
    response = await edge.get("/")
    assert (response.status, response.body) == (200, body)
    assert response.field("content-length") == str(len(body))
    assert response.field("content-range") is None
    assert response.cache_status == {"fwd": "partial", "fwd-status": "206", "stored": True}
    assert ranges_asked(origin)[4:] == [(f"bytes={third + 100}-{len(body) - third - 1}", '"v1"')]

    again = await edge.get("/")
    assert (again.status, again.body) == (200, body)
    assert again.cache_status["hit"] is True
    assert (await part(edge, "10-19"))[0] == body[10:20]
    assert origin.counts["/"] == 5
    assert (await edge.purge(urls=["/"]))["matched"] == 1, "the incomplete response is gone"


async def test_parts_that_are_all_of_it_are_the_whole(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """RFC 9110 15.3.7.3."""
    origin.route("/", Ranged(TEXT))
    await part(edge, "0-449")
    await part(edge, "450-899")
    response = await edge.get("/")
    assert (response.status, response.body, response.cache_status["hit"]) == (200, TEXT, True)
    assert response.field("content-length") == "900"
    assert response.field("content-range") is None
    assert (await edge.purge(urls=["/"]))["matched"] == 1


async def test_what_has_changed_is_not_completed_but_replaced(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """RFC 9110 13.1.5."""
    origin.route("/", Ranged(TEXT))
    await part(edge, "0-99")
    origin.route("/", Ranged(TEXT[::-1], FRESH | {"ETag": '"v2"'}))
    response = await edge.get("/")
    assert (response.status, response.body) == (200, TEXT[::-1])
    assert ranges_asked(origin)[1:] == [("bytes=100-", '"v1"')]
    body, status = await part(edge, "0-9")
    assert body == TEXT[::-1][:10]
    assert status["hit"] is True


async def test_an_origin_that_ignores_if_range_mixes_nothing(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.route("/", Ranged(TEXT))
    await part(edge, "0-99")
    origin.route("/", Ranged(TEXT[::-1], FRESH | {"ETag": '"v2"'}, careless=True))
    response = await edge.get("/")
    assert (response.status, response.body) == (200, TEXT[::-1])
    body, _ = await part(edge, "0-9")
    assert body == TEXT[::-1][:10]


@pytest.mark.parametrize(
    "fields",
    [
        {"ETag": 'W/"v1"'},
        {},
        {"Last-Modified": "Mon, 13 Nov 2023 22:13:20 GMT", "Date": "Mon, 13 Nov 2023 22:13:20 GMT"},
    ],
    ids=["weak", "none", "date-that-is-not-strong"],
)
async def test_nothing_is_combined_without_a_strong_validator(
    edge: EdgeProcess, origin: ScriptedOrigin, fields: dict[str, str]
) -> None:
    """RFC 9111 3.4: the newer part takes the older one's place."""
    fields = {"Cache-Control": "max-age=999999999"} | fields
    origin.route("/", Ranged(TEXT, fields))
    await part(edge, "0-99")
    await part(edge, "100-199")
    assert (await part(edge, "100-199"))[1]["hit"] is True
    assert (await part(edge, "0-99"))[1]["fwd"] == "partial"
    response = await edge.get("/")
    assert (response.status, response.body) == (200, TEXT)
    assert all(condition is None for _, condition in ranges_asked(origin))


@pytest.mark.parametrize("head", ["Content-Length: 900", "Transfer-Encoding: chunked"])
async def test_a_response_that_was_cut_short_is_gone_on_with(
    edge: EdgeProcess, origin: ScriptedOrigin, head: str
) -> None:
    """RFC 9111 3.3."""

    def cut() -> Iterator[object]:
        lines = ("HTTP/1.1 200 OK", "Cache-Control: max-age=600", 'ETag: "v1"', head, "", "")
        yield "\r\n".join(lines).encode()
        yield TEXT[:500] if "Length" in head else b"1f4\r\n%b\r\n" % TEXT[:500]
        yield CLOSE

    origin.route("/", lambda _: cut())  # type: ignore[arg-type, return-value]
    with pytest.raises(MessageCut):
        await edge.get("/")
    body, status = await part(edge, "100-499")
    assert (body, status["hit"]) == (TEXT[100:500], True)
    assert (await edge.get("/", fields={"Range": "bytes=100-499"})).field("content-range") == (
        "bytes 100-499/900" if "Length" in head else "bytes 100-499/*"
    )

    origin.route("/", Ranged(TEXT))
    response = await edge.get("/")
    assert (response.status, response.body) == (200, TEXT)
    assert ranges_asked(origin)[1:] == [("bytes=500-", '"v1"')]
    assert (await edge.get("/")).cache_status["hit"] is True


@pytest.mark.parametrize("tag", ['W/"v1"', None])
async def test_a_cut_response_without_a_strong_validator_is_not_kept(
    edge: EdgeProcess, origin: ScriptedOrigin, tag: str | None
) -> None:
    line = f"ETag: {tag}\r\n" if tag else ""
    head = f"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n{line}Content-Length: 900\r\n\r\n"
    origin.route("/", lambda _: (head.encode(), TEXT[:500], CLOSE))
    with pytest.raises(MessageCut):
        await edge.get("/")
    origin.route("/", Ranged(TEXT))
    assert (await part(edge, "0-9"))[1]["fwd"] == "uri-miss"


async def test_a_completion_that_is_cut_is_gone_on_with_too(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.route("/", Ranged(TEXT))
    await part(edge, "0-99")
    await part(edge, "-100")
    head = (
        'HTTP/1.1 206 Partial Content\r\nETag: "v1"\r\nCache-Control: max-age=600\r\n'
        "Content-Range: bytes 100-799/900\r\nContent-Length: 700\r\n\r\n"
    )
    origin.route("/", lambda _: (head.encode(), TEXT[100:300], CLOSE))
    with pytest.raises(MessageCut):
        await edge.get("/")
    origin.route("/", Ranged(TEXT))
    assert (await edge.get("/")).body == TEXT
    assert ranges_asked(origin)[2:] == [("bytes=100-799", '"v1"'), ("bytes=300-799", '"v1"')]


async def test_a_completion_of_another_length_than_it_says_is_broken_off(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.route("/", Ranged(TEXT))
    await part(edge, "0-99")
    wrong = FRESH | ETAG | {"Content-Range": "bytes 100-899/900"}
    origin.route("/", Answer(206, wrong, TEXT[100:800], framing="chunked"))
    try:
        answer = await edge.get("/")
    except MessageCut:
        pass  # It had begun by the time when that showed.
    else:
        assert (answer.status, answer.cache_status["detail"]) == (502, "origin-protocol-error")
    origin.route("/", Ranged(TEXT))
    assert (await edge.get("/")).body == TEXT


async def test_an_incomplete_response_answers_nothing_else(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """RFC 9111 3.3."""
    origin.route("/", Ranged(TEXT))
    await part(edge, "0-99")
    only = {"Cache-Control": "only-if-cached"}
    for fields, status in [
        ({}, 504),
        ({"Range": "bytes=0-100"}, 504),
        ({"Range": "bytes=900-"}, 504),
        ({"Range": "lines=0-1"}, 504),
        ({"Range": "bytes=0-9", "If-Range": '"v2"'}, 504),
        ({"If-None-Match": '"v1"'}, 504),
        ({"Range": "bytes=0-99"}, 206),
        ({"Range": "bytes=0-9", "If-Range": '"v1"'}, 206),
        ({"Range": "bytes=0-9", "If-None-Match": '"v1"'}, 304),
    ]:
        assert (await edge.get("/", fields=fields | only)).status == status, fields
    assert origin.counts["/"] == 1
    async with await edge.connect() as connection:
        head = await connection.exchange("HEAD", "/", {"Range": "bytes=0-9"})
    assert (head.status, origin.requests[-1].method) == (200, "HEAD")


async def test_if_range_is_held_against_what_comes(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    """RFC 9110 13.1.5."""
    origin.route("/", Ranged(TEXT))
    response = await edge.get("/", fields={"Range": "bytes=0-9", "If-Range": '"v0"'})
    assert (response.status, response.body) == (200, TEXT)
    assert ranges_asked(origin)[0] == ("bytes=0-9", None)

    origin.route("/other", Ranged(TEXT[::-1]))
    fields = {"Range": "bytes=0-9", "If-Range": '"v1"'}
    response = await edge.get("/other", fields=fields)
    assert (response.status, response.body) == (206, TEXT[::-1][:10])


async def test_unsatisfiable_is_the_origin_s_word(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.route("/", Ranged(TEXT))
    for _ in range(2):
        response = await edge.get("/", fields={"Range": "bytes=900-"})
        assert (response.status, response.field("content-range")) == (416, "bytes */900")
    assert (await part(edge, "890-"))[0] == TEXT[890:]
    assert (await part(edge, "890-"))[1]["hit"] is True


async def test_parts_are_of_one_variant(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    """RFC 9111 4.1."""

    def page(request: OriginRequest) -> Answer:
        english = request.field("accept-language") == "en"
        fields = FRESH | ETAG | {"Vary": "Accept-Language"}
        return Ranged(TEXT if english else TEXT[::-1], fields)(request)

    origin.route("/", page)
    await part(edge, "0-99", accept_language="en")
    body, status = await part(edge, "0-99", accept_language="de")
    assert (body, status["fwd"]) == (TEXT[::-1][:100], "uri-miss")
    for language, whole in (("en", TEXT), ("de", TEXT[::-1])):
        body, status = await part(edge, "5-9", accept_language=language)
        assert (body, status["hit"]) == (whole[5:10], True)
        assert (await edge.get("/", fields={"Accept-Language": language})).body == whole


@pytest.mark.parametrize("mode", ["delete", "invalidate"])
@pytest.mark.parametrize("by", [{"tags": ["t"]}, {"urls": ["/"]}], ids=["tag", "url"])
async def test_a_purge_applies_to_parts(
    edge: EdgeProcess, origin: ScriptedOrigin, mode: str, by: dict[str, list[str]]
) -> None:
    tagged = {"Cache-Tag": "t"}
    origin.route("/", Ranged(TEXT, FRESH | ETAG | tagged))
    await part(edge, "0-99")
    assert (await edge.purge(**by, mode=mode))["matched"] == 1
    # The same entity tag: whoever purges knows better.
    origin.route("/", Ranged(TEXT[::-1], FRESH | ETAG | tagged))
    body, status = await part(edge, "0-99")
    assert (body, status.get("hit")) == (TEXT[::-1][:100], None)
    assert (await edge.get("/")).body == TEXT[::-1]


async def test_a_purge_during_a_completion_deletes_what_comes_of_it(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    fields = FRESH | ETAG | {"Cache-Tag": "t"}
    origin.route("/", Ranged(TEXT, fields))
    await part(edge, "0-99")
    page, held = Ranged(TEXT, fields), asyncio.Event()

    async def slow(request: OriginRequest) -> Answer:
        await held.wait()
        return page(request)

    origin.route("/", slow)
    completing = asyncio.create_task(edge.get("/"))
    await origin.seen("/", 2)
    await edge.purge(tags=["t"])
    origin.route("/", Ranged(TEXT[::-1], fields))
    assert (await edge.get("/")).body == TEXT[::-1]
    held.set()
    assert (await completing).body == TEXT
    response = await edge.get("/")
    assert (response.body, response.cache_status["hit"]) == (TEXT[::-1], True)
    assert (await part(edge, "0-9"))[0] == TEXT[::-1][:10]


async def test_a_part_of_before_the_last_purges_can_still_be_completed(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.route("/", Ranged(TEXT))
    await part(edge, "0-99")
    for _ in range(3):
        await edge.purge(tags=["another"])
    assert (await edge.get("/")).body == TEXT
    assert ranges_asked(origin)[1:] == [("bytes=100-", '"v1"')]
    assert (await edge.get("/")).cache_status["hit"] is True


@pytest.mark.parametrize("store", ["lmdb", "memory"])
async def test_requests_for_one_range_are_one_fetch(
    origin: ScriptedOrigin, start_edge: StartEdge, store: str
) -> None:
    edge = await start_edge(
        origin,
        workers=2,
        **({"config": {"store": {"url": "memory:"}}} if store == "memory" else {}),
    )
    page, held = Ranged(LARGE), asyncio.Event()

    async def slow(request: OriginRequest) -> Answer:
        await held.wait()
        return page(request)

    origin.route("/", slow)
    asking = [asyncio.create_task(part(edge, "1000000-1499999")) for _ in range(20)]
    await origin.seen("/")
    await asyncio.sleep(0.3)
    held.set()
    answers = await asyncio.gather(*asking)
    assert {body for body, _ in answers} == {LARGE[1_000_000:1_500_000]}
    assert origin.counts["/"] == 1
    assert sum("collapsed" in status for _, status in answers) >= 17


async def test_requests_for_the_whole_share_its_completion(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    page, held = Ranged(LARGE), asyncio.Event()
    origin.route("/", page)
    await part(edge, "1000000-2999999")

    async def slow(request: OriginRequest) -> AsyncIterator[bytes | asyncio.Event]:
        for step in page(request).script("GET"):
            if isinstance(step, bytes) and len(step) > 1000:
                yield step[:500_000]
                yield held
                yield step[500_000:]
            else:
                assert isinstance(step, bytes)
                yield step

    origin.route("/", slow)
    asking = [asyncio.create_task(edge.get("/")) for _ in range(10)]
    await origin.seen("/", 2)
    # What is near is waited for in the same fetch.
    asking.append(asyncio.create_task(edge.get("/", fields={"Range": "bytes=0-599999"})))
    await asyncio.sleep(0.2)
    held.set()
    *answers, ranged = await asyncio.gather(*asking)
    assert {answer.body for answer in answers} == {LARGE}
    assert (ranged.status, ranged.body) == (206, LARGE[:600_000])
    assert ranges_asked(origin)[1:] == [("bytes=0-999999", '"v1"')]


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (Answer(206, {"Cache-Control": "no-store", "Content-Range": "bytes 0-9/900"}), "no-store"),
        (Answer(206, FRESH, TEXT[:10]), "content-range"),
        (Answer(206, FRESH | {"Content-Range": "bytes 9-0/900"}, TEXT[:10]), "content-range"),
    ],
    ids=["no-store", "no-content-range", "invalid"],
)
async def test_parts_that_may_not_be_stored(
    edge: EdgeProcess, origin: ScriptedOrigin, answer: Answer, detail: str
) -> None:
    origin.route("/", answer)
    for _ in range(2):
        body, status = await part(edge, "0-9")
        assert (body, status["detail"]) == (answer.body, detail)
    assert origin.counts["/"] == 2


async def test_content_that_is_not_the_range_it_says_is_not_reused(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    origin.route("/", Answer(206, FRESH | {"Content-Range": "bytes 0-9/900"}, TEXT[:7]))
    for _ in range(2):
        assert "hit" not in (await part(edge, "0-6"))[1]


@pytest.mark.parametrize("seed", range(3))
async def test_any_ranges_in_any_order_give_the_original_bytes(
    edge: EdgeProcess, origin: ScriptedOrigin, seed: int
) -> None:
    draw = random.Random(seed)
    origin.route("/", Ranged(TEXT, framing=draw.choice(["length", "chunked"])))
    for _ in range(60):
        first = draw.randrange(len(TEXT))
        last = min(first + draw.randrange(60), len(TEXT) - 1)
        body, _ = await part(edge, f"{first}-{last}")
        assert body == TEXT[first : last + 1]
    response = await edge.get("/")
    assert (response.status, response.body) == (200, TEXT)
    assert origin.counts["/"] < 61
