"""Bodies that grow too long while they are passed on: what their reader, the origin and others get.

Those that say so beforehand are rows of the table of requests.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.hostile.conftest import FRESH
from tests.hostile.requests import CHUNKED, chunks, request
from tests.kit import (
    Answer,
    Connection,
    EdgeProcess,
    MessageCut,
    OriginRequest,
    ScriptedOrigin,
)

pytestmark = pytest.mark.asyncio(loop_scope="package")

PATIENCE = 10.0
PIECE = chunks(b"x" * 65_536)[:-5]


async def too_large(edge: EdgeProcess) -> int:
    status = (await edge.admin("GET", "/v1/status")).json()
    count: int = status["refused"]["body-too-large"]
    return count


async def grow(connection: Connection, pieces: int) -> None:
    """Send so much of a body, as far as it is taken."""
    try:
        for _ in range(pieces):
            await connection.send(PIECE)
    except ConnectionError:
        return


async def test_a_body_that_grows_too_large_is_refused(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    """15.5.14 of RFC 9110: of 1 MiB nothing more; the origin is left with a cut body."""
    origin.otherwise(Answer(200, FRESH, b"page"))
    before = await too_large(edge)
    async with asyncio.timeout(PATIENCE), await edge.connect() as connection:
        await connection.send(request(CHUNKED, method=b"POST", target=target.encode()))
        await grow(connection, 16)
        assert await too_large(edge) == before
        await grow(connection, 1)
        answer = await connection.response("POST")
        assert (answer.status, answer.field("connection")) == (413, "close")
        assert answer.cache_status["detail"] == "body-too-large"
        assert await connection.ended() == "closed"
    assert await too_large(edge) == before + 1
    await edge.logged(f"POST {target} HTTP/1.1.* 413 ", stream="out")
    # What comes next is for a connection of its own, and for the origin, which has stored nothing.
    assert "hit" not in (await edge.get(target, {"Host": "shop.example"})).cache_status
    async with asyncio.timeout(PATIENCE):
        await origin.complained("cut")
    assert [each.method for each in origin.requests_for(target)] == ["GET"]
    assert [each for each in origin.complaints if "cut" not in each] == []
    origin.complaints.clear()


async def test_an_answer_that_has_begun_is_broken_off(
    edge: EdgeProcess, origin: ScriptedOrigin, target: str
) -> None:
    """There is no other way left to tell; and nothing is stored of it."""
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Location: %b\r\n"
    cut = asyncio.Event()

    async def early(request: OriginRequest) -> AsyncIterator[bytes]:
        yield head % target.encode() + b"Content-Length: 9\r\n\r\nbegun"
        try:
            await request.content.read()
        except MessageCut:
            cut.set()

    origin.route(target, early, stream=True)
    before = await too_large(edge)
    async with asyncio.timeout(PATIENCE), await edge.connect() as connection:
        await connection.send(request(CHUNKED, PIECE, method=b"POST", target=target.encode()))
        assert b"begun" in await connection.reader.readuntil(b"begun")
        await grow(connection, 16)
        assert await connection.ended() == "reset"
        await cut.wait()
    assert await too_large(edge) == before + 1
    origin.route(target, Answer(200, FRESH, b"page"))
    assert (await edge.get(target, {"Host": "shop.example"})).text == "page"
