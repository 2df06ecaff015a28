"""Incomplete responses over time, and what their upkeep costs (RFC 9111 3.3, 3.4)."""

import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.cache.stored import StoredResponse
from edgeproxy.proxy.decide import (
    Decision,
    Fetch,
    Hit,
    Pass,
    Refuse,
    Revalidate,
    Stale,
    decide_in_part,
)
from edgeproxy.proxy.incomplete import as_incomplete, as_part
from edgeproxy.semantics.cache_control import parse_cache_control
from edgeproxy.semantics.fields import Fields
from tests.invalidation.samples import response
from tests.kit import Answer, OriginRequest, Response, ScriptedOrigin
from tests.kit.ranged import Ranged
from tests.proxy.parts import ServedEdge, by_url

Serve = Callable[..., Awaitable[ServedEdge]]

TEXT = random.Random(3).randbytes(900)
MIB = 1024 * 1024
NONE = parse_cache_control(())
ONLY_IF_CACHED = parse_cache_control((b"only-if-cached",))
RANGE = Fields(((b"Range", b"bytes=1-2"),))


@pytest.mark.parametrize(
    ("decision", "directives", "fields", "incomplete", "expected"),
    [
        pytest.param(Hit(5), NONE, RANGE, True, Hit(5), id="3.3: within it"),
        pytest.param(
            Fetch("uri-miss"), NONE, RANGE, False, Fetch("uri-miss", b"bytes=1-2"), id="nothing yet"
        ),
        pytest.param(
            Fetch("uri-miss"), NONE, RANGE, True, Fetch("partial", b"bytes=1-2"), id="9211-2.2"
        ),
        pytest.param(
            Fetch("uri-miss"), NONE, Fields(), True, Fetch("partial"), id="9211-2.2: the whole"
        ),
        pytest.param(Fetch("vary-miss"), NONE, Fields(), False, Fetch("vary-miss"), id="no range"),
        pytest.param(
            Stale(-5, refresh=True, detail=""), NONE, RANGE, True, Fetch("stale", b"bytes=1-2"),
            id="4.2.4: stale is asked for again",
        ),
        pytest.param(
            Stale(-5, refresh=True, detail=""), ONLY_IF_CACHED, RANGE, True,
            Refuse(504, "only-if-cached"), id="5.2.1.7",
        ),
        pytest.param(
            Revalidate("request", False, "no-cache"), NONE, RANGE, True,
            Fetch("request", b"bytes=1-2"), id="5.2.1.4",
        ),
        pytest.param(Pass("bypass"), NONE, RANGE, True, Pass("bypass"), id="passed"),
    ],
)  # fmt: skip
def test_what_is_done_where_no_whole_response_matches(
    decision: Decision, directives: object, fields: Fields, incomplete: bool, expected: Decision
) -> None:
    assert decide_in_part(decision, directives, fields, incomplete=incomplete) == expected  # type: ignore[arg-type]


@given(st.integers(0, 1000), st.none() | st.integers(1001, 2000))
def test_the_beginning_of_a_response_is_no_whole_one(size: int, length: int | None) -> None:
    whole = response(
        status=200, fields=((b"Content-Length", b"2000"), (b"Content-Digest", b"x"), (b"A", b"b"))
    )
    part = as_incomplete(whole, length, size)
    if not size:
        assert part is None
        return
    assert part is not None
    assert part.incomplete
    assert part.id != whole.id
    told = b"bytes 0-%d/%b" % (size - 1, b"*" if length is None else b"%d" % length)
    assert part.fields == ((b"A", b"b"), (b"Content-Range", told))
    assert as_incomplete(part, length, size) == part


@pytest.mark.parametrize("status", [203, 404])
def test_only_a_200_may_be_incomplete(status: int) -> None:
    """RFC 9111 3.3."""
    assert as_incomplete(response(status=status), 100, 50) is None


def test_several_ranges_are_no_part() -> None:
    lines = (b"bytes 0-1/9", b"bytes 5-6/9")
    several = response(status=206, fields=tuple((b"Content-Range", line) for line in lines))
    assert as_part(several) is None


async def part(served: ServedEdge, asked: str) -> Response:
    answer = await served.get("/", {"Range": f"bytes={asked}"})
    assert answer.status == 206
    return answer


def incomplete(served: ServedEdge) -> list[StoredResponse]:
    return [stored for stored in served.stored() if stored.incomplete]


async def test_what_is_stale_is_fetched_again_and_made_fresh(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9111 4.2, 3.4: the combination has the newer response's fields and age."""
    origin.route("/", Ranged(TEXT))
    await part(served, "0-99")
    served.clock.now += 599
    assert (await part(served, "0-99")).cache_status["hit"] is True
    served.clock.now += 1
    answer = await part(served, "50-149")
    assert answer.cache_status["fwd"] == "partial"
    assert asked(origin)[-1] == ("bytes=100-149", '"v1"', None)
    again = await part(served, "0-149")
    assert (again.body, again.cache_status) == (TEXT[:150], {"hit": True, "ttl": "600"})
    served.clock.now += 600
    assert (await part(served, "0-9")).cache_status["fwd"] == "stale"
    served.clock.now += 600
    whole = await served.get("/")
    assert (whole.body, whole.cache_status["fwd"]) == (TEXT, "partial")
    assert origin.requests[-1].field("if-range") == '"v1"'
    assert incomplete(served) == []


def asked(origin: ScriptedOrigin) -> list[tuple[str | None, str | None, str | None]]:
    """Range, If-Range and If-None-Match of each request that the origin got."""
    names = ("range", "if-range", "if-none-match")
    return [tuple(each.field(name) for name in names) for each in origin.requests]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("tag", "hit"),
    [pytest.param('"v1"', True, id="9111-4.3.4"), pytest.param('"v2"', False, id="9111-4.3.3")],
)
async def test_what_is_stale_is_validated(
    served: ServedEdge, origin: ScriptedOrigin, tag: str, hit: bool
) -> None:
    page = Ranged(TEXT)
    origin.route("/", page)
    await part(served, "0-99")
    served.clock.now += 600
    new = Ranged(TEXT[::-1], page.fields | {"ETag": tag, "X-New": "1"})

    def answer(request: OriginRequest) -> Answer:
        if request.field("if-none-match") == tag:
            return Answer(304, new.fields)
        return new(request)

    origin.route("/", answer)
    again = await part(served, "10-19")
    assert asked(origin)[1:] == [("bytes=10-19", None, '"v1"')]
    assert (again.body, again.field("x-new")) == ((TEXT if hit else TEXT[::-1])[10:20], "1")
    status = {"fwd": "stale", "fwd-status": "304" if hit else "206", "stored": True}
    assert again.cache_status == status
    wider = await part(served, "10-29")
    assert wider.cache_status.get("hit", False) is hit


async def test_a_304_that_matches_nothing_brings_no_part(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    page = Ranged(TEXT)
    origin.route("/", page)
    await part(served, "0-99")
    served.clock.now += 600

    def answer(request: OriginRequest) -> Answer:
        other = Answer(304, {"ETag": '"other"'})
        return other if request.field("if-none-match") else page(request)

    origin.route("/", answer)
    assert (await part(served, "10-19")).body == TEXT[10:20]
    assert len(origin.requests) == 3


@pytest.mark.parametrize(
    ("stored", "wanted", "missing"),
    [
        pytest.param(["0-99"], "50-149", "100-149", id="its end"),
        pytest.param(["100-199"], "50-149", "50-99", id="its beginning"),
        pytest.param(["100-109"], "50-149", "50-149", id="both"),
        pytest.param(["0-59", "140-199"], "50-149", "60-139", id="its middle"),
        pytest.param(["0-59", "100-109"], "50-149", "60-149", id="more than one gap"),
        pytest.param(["300-399"], "50-149", "50-149", id="all of it"),
        pytest.param(["800-849"], "-100", "850-899", id="the end of a suffix"),
        pytest.param(["0-799"], "700-", "800-899", id="up to the end"),
    ],
)
async def test_only_what_is_missing_of_a_range_is_asked_for(
    served: ServedEdge, origin: ScriptedOrigin, stored: list[str], wanted: str, missing: str
) -> None:
    """RFC 9111 3.3."""
    page = Ranged(TEXT)
    origin.route("/", page)
    for each in stored:
        await part(served, each)
    answer = await part(served, wanted)
    first, _, last = wanted.partition("-")
    expected = TEXT[int(first) if first else -int(last) : int(last) + 1 if first and last else None]
    assert (answer.body, answer.field("content-length")) == (expected, str(len(expected)))
    start = int(first) if first else len(TEXT) - int(last)
    assert answer.field("content-range") == f"bytes {start}-{start + len(expected) - 1}/{len(TEXT)}"
    condition = None if missing == wanted else '"v1"'
    assert asked(origin)[len(stored) :] == [(f"bytes={missing}", condition, None)]
    assert (await part(served, wanted)).cache_status["hit"] is True


async def test_what_can_not_be_put_to_a_part_is_asked_for_whole(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9110 15.3.7.3: not under another validator, whatever If-Range was to do."""
    origin.route("/", Ranged(TEXT))
    await part(served, "0-99")
    new = Ranged(TEXT[::-1], {"Cache-Control": "max-age=600", "ETag": '"v2"'}, careless=True)
    origin.route("/", new)
    assert (await part(served, "50-149")).body == TEXT[::-1][50:150]
    assert [each[0] for each in asked(origin)[1:]] == ["bytes=100-149", "bytes=50-149"]


async def test_without_a_validator_nothing_is_completed(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/", Ranged(TEXT, {"Cache-Control": "max-age=600"}))
    await part(served, "0-99")
    await part(served, "50-149")
    assert (await served.get("/")).body == TEXT
    ranges = [each.field("range") for each in origin.requests]
    assert ranges == ["bytes=0-99", "bytes=50-149", None]


async def test_a_new_response_s_fields_are_everybody_s(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9111 3.4."""
    fields = {"Cache-Control": "max-age=600", "ETag": '"v1"'}
    origin.route("/", Ranged(TEXT, fields | {"A": "1", "B": "1", "Content-Digest": "x"}))
    await part(served, "0-99")
    origin.route("/", Ranged(TEXT, fields | {"A": "2"}))
    for answer in (await part(served, "100-199"), await part(served, "0-9"), await served.get("/")):
        assert answer.field("a") == "2"
        assert answer.field("content-digest") is None
    assert (await served.get("/")).field("b") == "1"


async def test_tags_that_differ_keep_parts_apart(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """A purge by one of them must not hit half of a response, or miss it."""
    fields = {"Cache-Control": "max-age=600", "ETag": '"v1"'}
    origin.route("/", Ranged(TEXT, fields | {"Cache-Tag": "a"}))
    await part(served, "0-99")
    origin.route("/", Ranged(TEXT, fields | {"Cache-Tag": "b"}))
    await part(served, "100-199")
    (stored,) = incomplete(served)
    assert (stored.tags, stored.body.length) == (("b",), 100)
    assert (await served.get("/")).body == TEXT


async def test_there_is_one_incomplete_response_for_each_variant(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    origin.route("/", Ranged(TEXT))
    for first in range(0, 800, 40):
        await part(served, f"{first}-{first + 9}")
    (stored,) = incomplete(served)
    assert stored.body.length <= 160, "too many parts are not kept"


async def test_a_whole_response_is_not_shadowed(serve: Serve, origin: ScriptedOrigin) -> None:
    served = await serve(site={"cache": {"max_variants": 1}})
    origin.route("/", Ranged(TEXT))
    assert (await served.get("/")).body == TEXT
    served.empty_memory()
    assert (await part(served, "0-9")).cache_status["hit"] is True
    assert origin.counts["/"] == 1
    assert incomplete(served) == []


async def test_much_in_small_parts_is_fetched_as_a_whole_behind_them(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """Each part is written with all the others: so that no stranger can make that cost much."""
    body = random.Random(4).randbytes(4 * MIB)
    origin.route("/", Ranged(body))
    await part(served, f"0-{3 * MIB}")
    answer = await part(served, f"{3 * MIB + 1}-{3 * MIB + 1000}")
    assert answer.body == body[3 * MIB + 1 : 3 * MIB + 1001]
    await origin.seen("/", 3)
    await served.until(lambda: not incomplete(served))
    whole = await served.get("/")
    assert (whole.body, whole.cache_status["hit"]) == (body, True)
    assert [each.field("range") for each in origin.requests][2:] == [f"bytes={3 * MIB + 1}-"]


async def test_a_part_of_what_is_too_large_to_store(serve: Serve, origin: ScriptedOrigin) -> None:
    served = await serve(config={"store": {"max_object_bytes": 300_000}})
    body = random.Random(5).randbytes(MIB)
    origin.route("/", Ranged(body))
    await part(served, "0-199999")
    assert (await part(served, "-199999")).body == body[-199_999:]
    assert (await part(served, "0-99")).cache_status["hit"] is True
    answer = await served.get("/")
    assert (answer.status, answer.body) == (200, body)
    assert origin.counts["/"] == 3


async def test_it_is_explained(served: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/", Ranged(TEXT))
    await part(served, "0-99")
    (explanation,) = served.explain(by_url("/"))
    assert explanation.served == "no"
    assert explanation.why == (
        "incomplete (bytes 0-99/900): it answers ranges within that, and the rest is asked for"
    )


async def test_a_lost_body_is_fetched_again(served: ServedEdge, origin: ScriptedOrigin) -> None:
    origin.route("/", Ranged(random.Random(6).randbytes(MIB)))
    for _ in range(2):
        await part(served, "0-499999")
        for file in served.place.directory.glob("**/bodies/*/*"):
            file.unlink()
    assert origin.counts["/"] == 2
    assert (await served.get("/")).status == 200


async def test_credentials_keep_parts_to_themselves(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    """RFC 9111 3.5."""
    origin.route("/", Ranged(TEXT))
    fields = {"Range": "bytes=0-9", "Authorization": "Basic YTpi"}
    answer = await served.get("/", fields)
    assert (answer.body, answer.cache_status["detail"]) == (TEXT[:10], "authorization")
    assert served.stored() == []


async def test_a_206_that_nobody_asked_for_is_passed_on_alone(
    served: ServedEdge, origin: ScriptedOrigin
) -> None:
    fields = {"Cache-Control": "max-age=600", "Content-Range": "bytes 0-9/900"}
    origin.route("/", Answer(206, fields, TEXT[:10]))
    assert (await served.get("/")).cache_status["detail"] == "status"
    assert served.stored() == []
