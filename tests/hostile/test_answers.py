"""Odd answers of an origin, to a fetch and to a validation."""

import asyncio

import pytest

from tests.hostile.answers import ANSWERS, BODY, OK
from tests.kit import CLOSE, Answer, EdgeProcess, MessageCut, ScriptedOrigin

pytestmark = pytest.mark.asyncio(loop_scope="package")

PATIENCE = 10.0


@pytest.mark.parametrize(("steps", "expected"), ANSWERS.values(), ids=ANSWERS)
async def test_no_answer_of_an_origin_spoils_the_next(
    edge: EdgeProcess,
    origin: ScriptedOrigin,
    target: str,
    steps: list[bytes | object],
    expected: int | str,
) -> None:
    """Nothing bad is stored, and nobody else's answer comes over its connection."""
    origin.route(target, steps)  # type: ignore[arg-type]
    origin.route("/next", Answer(200, {"Cache-Control": "no-store"}, b"next"))
    async with asyncio.timeout(PATIENCE), await edge.connect() as connection:
        try:
            response = await connection.exchange("GET", target)
        except MessageCut:
            assert expected == "cut"
        else:
            assert response.status == expected
            if response.status == 200:
                assert (response.body, response.field("set-cookie")) == (b"ok", None)
    asked = origin.requests_for(target)[-1]
    assert (await edge.get("/next")).body == b"next"
    if expected in (502, "cut"):
        assert origin.requests[-1].connection != asked.connection
        origin.route(target, [OK + BODY])
        again = await edge.get(target)
        assert (again.status, again.body, "hit" in again.cache_status) == (200, b"ok", False)


@pytest.mark.parametrize(
    "steps", [steps for steps, expected in ANSWERS.values() if expected == 502],
    ids=[name for name, (_, expected) in ANSWERS.items() if expected == 502],
)  # fmt: skip
async def test_what_is_stored_outlives_an_answer_that_is_none(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, steps: list[bytes | object]
) -> None:
    """RFC 9111 4.2.4: it stands in for an origin that says nothing of sense."""
    stale = {"Cache-Control": "max-age=0", "ETag": '"1"'}
    origin.route(target, Answer(200, stale, b"stored"))
    await edge.get(target)
    origin.route(target, steps)  # type: ignore[arg-type]
    for _ in range(2):
        reader = await edge.get(target)
        assert (reader.status, reader.body) == (200, b"stored")


@pytest.mark.parametrize("chosen", ["h2c", "websocket, h2c", "http/1.1", ""])
async def test_no_origin_chooses_a_protocol_that_was_not_asked_for(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, chosen: str
) -> None:
    """RFC 9110 7.8: what goes through such a tunnel, nobody here looks at."""
    switch = f"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: {chosen}\r\n\r\n"
    origin.route(target, [switch.encode(), CLOSE])
    asked = {"Connection": "Upgrade", "Upgrade": "websocket"}
    async with asyncio.timeout(PATIENCE):
        assert (await edge.get(target, asked)).status == 502


@pytest.mark.parametrize(
    ("fields", "ttl"),
    [
        ("Age: -5", 600),
        ("Age: 1.5", 600),
        ("Age: 99999999999999999999", None),
        ("Age: 100, 0", 500),
        ("Age: 100\r\nAge: 0", 500),
        ("Date: Sat, 01 Jan 0000 00:00:00 GMT", 600),
        ("Date: Mon, 01 Jan 0001 00:00:00 GMT", None),
        ("Date: Fri, 31 Dec 9999 23:59:59 GMT", 600),
        ("Date: yesterday\r\nExpires: 0", 600),
        ("Cache-Control: max-age=99999999999999999999", 600),
        ("Cache-Control: max-age=-1", None),
        ("Cache-Control: max-age=1e3", None),
        ("Cache-Control: s-maxage=0600", 600),
    ],
)
async def test_absurd_times_are_taken_for_what_they_can_be(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str, fields: str, ttl: int | None
) -> None:
    origin.route(target, [OK + fields.encode() + b"\r\n" + BODY])
    await edge.get(target)
    again = await edge.get(target)
    assert again.body == b"ok"
    if ttl is None:
        assert "hit" not in again.cache_status
    else:
        assert ttl - 5 <= int(str(again.cache_status["ttl"])) <= ttl
