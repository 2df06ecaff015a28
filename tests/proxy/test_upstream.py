"""What an origin gets, and what is made of what it answers: bytes in, bytes out."""

import asyncio
import gzip

import pytest

from edgeproxy.proxy.errors import OriginBodyCut, OriginProtocolError, OriginTimedOut
from edgeproxy.semantics.fields import Fields
from tests.kit import CLOSE, RESET, Answer, OriginRequest, ScriptedOrigin
from tests.kit.origin import Step
from tests.proxy.origin_client import (
    HOST,
    Resident,
    body_of,
    client_of,
    fetch,
    get,
    until_steady,
)

pytestmark = pytest.mark.both_loops

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "target",
    ["/%2f//a;b?", "/a/../b/./c", "/%7Ejoe/~joe/%zz", "/[x]?a=[]&a=%5B%5D", "/caf\xe9?\xff", "/?",
     "/a?b?c=/d//e", "/*'()!$&,;=:@", "/cb:1/https://e.example/i.jpg"],
)  # fmt: skip
async def test_a_target_goes_out_byte_for_byte(origin: ScriptedOrigin, target: str) -> None:
    origin.otherwise(Answer(body=b"ok"))
    async with client_of(origin) as client:
        response = await client.send(b"GET", target.encode("latin-1"), HOST)
        assert await body_of(response) == b"ok"
    assert [request.target for request in origin.requests] == [target]


async def test_a_request_is_what_it_was_told_to_be_and_nothing_else(origin: ScriptedOrigin) -> None:
    fields = Fields(
        ((b"hOST", b"x"), (b"B", b"2"), (b"a", b"1"), (b"b", b""), (b"X", b"\xe9"), (b"B", b"1"))
    )
    origin.otherwise(Answer())
    async with client_of(origin) as client:
        await body_of(await client.send(b"PROPFIND", b"/", fields))
    assert origin.requests[0].head.raw == (
        b"PROPFIND / HTTP/1.1\r\nhOST: x\r\nB: 2\r\na: 1\r\nb: \r\nX: \xe9\r\nB: 1\r\n\r\n"
    )


async def test_a_response_is_given_as_it_came(origin: ScriptedOrigin) -> None:
    lines = (b"x-B: 2\r\nSet-Cookie: a=1\r\nX-b: \xc3\xa9\xff\r\nSet-Cookie: b=2\r\nE:\r\n"
             b"cONTENT-lENGTH:3 \t\r\n")  # fmt: skip
    origin.route("/", [b"HTTP/1.1 299 Sch\xc3\xb6n \xe9\r\n" + lines + b"\r\nabc"])
    async with client_of(origin) as client:
        response = await get(client)
        assert (response.status, response.reason, response.version) == (
            299,
            b"Sch\xc3\xb6n \xe9",
            "1.1",
        )
        assert response.fields.raw == (
            (b"x-B", b"2"), (b"Set-Cookie", b"a=1"), (b"X-b", b"\xc3\xa9\xff"),
            (b"Set-Cookie", b"b=2"), (b"E", b""), (b"cONTENT-lENGTH", b"3"),
        )  # fmt: skip
        assert await body_of(response) == b"abc"


async def test_the_answer_to_head_needs_no_framing(origin: ScriptedOrigin) -> None:
    origin.otherwise([b"HTTP/1.1 200 OK\r\n\r\n"])
    async with client_of(origin) as client:
        response = await client.send(b"HEAD", b"/", HOST)
        assert (response.framed, response.at_eof()) == (True, True)


async def test_nothing_is_followed_kept_or_decoded(origin: ScriptedOrigin) -> None:
    packed = gzip.compress(b"page" * 100)
    origin.route("/", Answer(302, {"Location": "/next", "Set-Cookie": "a=1"}))
    origin.route("/next", Answer(200, {"Content-Encoding": "gzip"}, packed))
    async with client_of(origin) as client:
        assert (await get(client)).status == 302
        assert await fetch(client, "/next") == packed
    assert [request.target for request in origin.requests] == ["/", "/next"]
    assert origin.requests[1].field("cookie") is None


@pytest.mark.parametrize(
    ("method", "head", "framed", "length"),
    [
        pytest.param(b"GET", b"200 OK\r\nContent-Length: 0", True, 0, id="empty"),
        pytest.param(b"HEAD", b"200 OK\r\nContent-Length: 5", True, 5, id="HEAD with a length"),
        pytest.param(b"HEAD", b"200 OK\r\nTransfer-Encoding: chunked", True, None, id="HEAD"),
        pytest.param(b"GET", b"204 No Content", True, None, id="204"),
        pytest.param(b"GET", b"304 Not Modified\r\nContent-Length: 5", True, 5, id="304"),
    ],
)
async def test_a_response_without_a_body_leaves_its_connection_for_the_next(
    origin: ScriptedOrigin, method: bytes, head: bytes, framed: bool, length: int | None
) -> None:
    origin.otherwise([b"HTTP/1.1 " + head + b"\r\n\r\n"])
    async with client_of(origin) as client:
        for _ in range(3):
            response = await client.send(method, b"/", HOST)
            assert (response.framed, response.content_length) == (framed, length)
            assert response.at_eof()
            assert await response.read_chunk() == b""
    assert origin.connections == 1


@pytest.mark.parametrize(
    ("answer", "framed", "length", "connections"),
    [
        pytest.param(Answer(body=b"abc"), True, 3, 1, id="length"),
        pytest.param(Answer(chunks=(b"a", b"bc"), framing="chunked"), True, None, 1, id="chunks"),
        pytest.param(
            Answer(chunks=(b"abc",), framing="chunked", trailers={"X-T": "1"}),
            True, None, 1, id="trailers",
        ),
        pytest.param(Answer(body=b"abc", framing="close"), False, None, 2, id="close"),
    ],
)  # fmt: skip
async def test_a_body_ends_as_its_framing_says(
    origin: ScriptedOrigin, answer: Answer, framed: bool, length: int | None, connections: int
) -> None:
    origin.otherwise(answer)
    async with client_of(origin) as client:
        for _ in range(2):
            response = await get(client)
            assert (response.framed, response.content_length) == (framed, length)
            assert await body_of(response) == b"abc"
            assert response.at_eof()
    assert origin.connections == connections


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")], id="close"),
        pytest.param([OK.replace(b"1.1", b"1.0")], id="HTTP/1.0"),
        pytest.param([OK + OK], id="two responses"),
        pytest.param([OK + HINTS], id="an interim response behind it"),
        pytest.param([OK + b"HTTP/1.1 2"], id="the beginning of another"),
    ],
)
async def test_a_connection_on_which_something_is_odd_serves_no_other_request(
    origin: ScriptedOrigin, script: list[Step]
) -> None:
    origin.route("/odd", script)
    origin.route("/", Answer(body=b"right"))
    async with client_of(origin) as client:
        assert await fetch(client, "/odd") == b"ok"
        assert await fetch(client) == b"right"
    assert origin.connections == 2


@pytest.mark.parametrize(
    ("method", "status"),
    [
        pytest.param(b"HEAD", b"200 OK", id="HEAD"),
        pytest.param(b"HEAD", b"404 Not Found", id="HEAD of nothing"),
        pytest.param(b"GET", b"304 Not Modified", id="304"),
    ],
)
@pytest.mark.parametrize("body", [b"hello", OK], ids=["body", "like a response"])
async def test_a_body_where_there_is_none_is_left_out_and_ends_the_connection(
    origin: ScriptedOrigin, method: bytes, status: bytes, body: bytes
) -> None:
    """9112-6.3: such a response ends at its head, whatever its fields say."""
    origin.route("/odd", [b"HTTP/1.1 %b\r\nContent-Length: 5\r\n\r\n%b" % (status, body)])
    origin.route("/", Answer(body=b"right"))
    async with client_of(origin) as client:
        response = await client.send(method, b"/odd", HOST)
        assert b"%d" % response.status == status[:3]
        assert await body_of(response) == b""
        assert await fetch(client) == b"right"
    assert origin.connections == 2


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_connection_that_was_to_be_upgraded_serves_no_other_request(
    origin: ScriptedOrigin, framing: str
) -> None:
    """9110 7.8: whatever it answers, the origin may go over to the other protocol."""
    origin.route("/", Answer(426, body=b"ok", framing=framing))
    asking = HOST.plus((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
    async with client_of(origin) as client:
        for upgrade in (True, False, False):
            fields = asking if upgrade else HOST
            response = await client.send(b"GET", b"/", fields, upgrade=upgrade)
            assert await body_of(response) == b"ok"
    assert [each.connection for each in origin.requests] == [0, 1, 1]


async def test_bytes_that_come_unasked_are_no_answer_to_the_next_request(
    origin: ScriptedOrigin,
) -> None:
    asked = asyncio.Event()
    late = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
    origin.route("/odd", [OK, asked, late])
    origin.route("/", Answer(body=b"right"))
    origin.route("/meanwhile", Answer(body=b"yes"))
    async with client_of(origin) as client:
        assert await fetch(client, "/odd") == b"ok"
        asked.set()
        # At once, not when it has idled for long enough.
        async with asyncio.timeout(5):
            await origin.quiet()
        assert await fetch(client) == b"right"
    origin.complaints.clear()


async def test_a_body_left_unread_costs_the_connection(origin: ScriptedOrigin) -> None:
    origin.otherwise(Answer(body=b"x" * 4_000_000))
    async with client_of(origin) as client:
        for _ in range(2):
            (await get(client)).release()
    assert origin.connections == 2
    origin.complaints.clear()


async def test_a_body_that_has_come_whole_costs_no_connection(origin: ScriptedOrigin) -> None:
    origin.otherwise(Answer(body=b"x" * 1000))
    async with client_of(origin) as client:
        for _ in range(2):
            (await get(client)).release()
    assert origin.connections == 1


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", CLOSE], id="length"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", 0.05, RESET], id="reset"),
        pytest.param([CHUNKED + b"3\r\nabc\r\n", CLOSE], id="no last chunk"),
        pytest.param([CHUNKED + b"5\r\nabc", CLOSE], id="half a chunk"),
        pytest.param([CHUNKED + b"3\r\nabc\r\n0\r\n", CLOSE], id="no end of the trailers"),
        pytest.param([CHUNKED, CLOSE], id="no chunk"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\nabc", 0.05, RESET], id="reset instead of a close"),
    ],
)
async def test_a_cut_body_never_ends_like_a_whole_one(
    origin: ScriptedOrigin, script: list[Step]
) -> None:
    origin.route("/", script)
    async with client_of(origin) as client:
        response = await get(client)
        with pytest.raises(OriginBodyCut) as raised:
            await body_of(response)
        assert (raised.value.status, raised.value.detail) == (502, "origin-body-cut")
        with pytest.raises(OriginBodyCut):
            await response.read_chunk()
        assert not response.at_eof()


async def test_a_body_that_is_not_http_any_more_is_no_body(origin: ScriptedOrigin) -> None:
    go_on = asyncio.Event()
    origin.route("/", [CHUNKED + b"3\r\nabc\r\n", go_on, b"zz\r\n"])
    async with client_of(origin) as client:
        response = await get(client)
        assert await response.read_chunk() == b"abc"
        go_on.set()
        with pytest.raises(OriginProtocolError):
            await response.read_chunk()
    origin.complaints.clear()


async def test_a_body_may_come_in_the_smallest_of_chunks(origin: ScriptedOrigin) -> None:
    """Their lines are bounded, but these are all that there have to be."""
    origin.route("/", [CHUNKED, b"1\r\nx\r\n" * 100_000, b"0\r\n\r\n"])
    async with client_of(origin) as client:
        response = await client.send(b"GET", b"/", HOST)
        assert await body_of(response) == b"x" * 100_000


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="another protocol"),
        pytest.param(b"HTTP/2.0 200 OK\r\n\r\n", id="another version"),
        pytest.param(b"HTTP/1.1 099 Low\r\n\r\n", id="status 99"),
        pytest.param(b"HTTP/1.1 200 O\x01K\r\n\r\n", id="control character in the reason"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\x1bc\r\n\r\n", id="control character in a value"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\0c\r\n\r\n", id="NUL in a value"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", id="CR in a value"),
        pytest.param(b"HTTP/1.1 103 O\r\nA: b\x1bc\r\n\r\n" + OK, id="in an interim response"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", id="space behind a name"),
        pytest.param(b"HTTP/1.1 200 OK\r\n: b\r\n\r\n", id="no name"),
        pytest.param(OK.replace(b"th: 2", b"th: +2"), id="bad length"),
        pytest.param(b"HTTP/1.1 304 No\r\nContent-Length: -2\r\n\r\n", id="bad length, no body"),
        pytest.param(OK.replace(b"2\r\n", b"2\r\nContent-Length: 3\r\n"), id="two lengths"),
        pytest.param(CHUNKED[:-2] + b"Content-Length: 2\r\n\r\n", id="length and chunks"),
        pytest.param(CHUNKED.replace(b"chunked", b"gzip, chunked"), id="transfer coding"),
        pytest.param(CHUNKED.replace(b"chunked", b"gzip"), id="no chunks at the end"),
        pytest.param(CHUNKED.replace(b"1.1", b"1.0"), id="chunks in HTTP/1.0"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: " + b"a" * 65_537 + b"\r\n\r\n", id="long field"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 501 + b"\r\n", id="many fields"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + (b"A: " + b"a" * 60_000 + b"\r\n") * 9, id="long head"
        ),
        pytest.param(HINTS * 10_000, id="interim responses without end"),
    ],
)
async def test_what_no_recipient_should_see_goes_no_further(
    origin: ScriptedOrigin, head: bytes
) -> None:
    origin.route("/", [head, asyncio.Event()])
    async with client_of(origin) as client:
        with pytest.raises(OriginProtocolError) as raised:
            await get(client)
        assert (raised.value.status, raised.value.detail) == (502, "origin-protocol-error")


async def test_a_long_tag_field_is_no_trouble(origin: ScriptedOrigin) -> None:
    tags = "product-1234 " * 4_000
    origin.route("/", Answer(fields={"Surrogate-Key": tags}, body=b"ok"))
    async with client_of(origin) as client:
        assert (await get(client)).fields.get(b"surrogate-key") == tags.strip().encode()


async def test_a_body_that_stands_still_is_late(origin: ScriptedOrigin) -> None:
    origin.route("/", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", asyncio.Event()])
    async with client_of(origin, between_bytes=0.2) as client:
        response = await get(client)
        assert await response.read_chunk() == b"abc"
        with pytest.raises(OriginTimedOut) as raised:
            await response.read_chunk()
        assert (raised.value.stage, raised.value.status) == ("between-bytes", 504)


async def test_a_body_that_trickles_is_bounded_by_the_whole(origin: ScriptedOrigin) -> None:
    def trickle(_: OriginRequest) -> list[Step]:
        return [CHUNKED, *[b"1\r\nx\r\n", 0.05] * 100]

    origin.route("/", trickle)
    async with client_of(origin, between_bytes=0.2, total=0.6) as client:
        response = await get(client)
        with pytest.raises(OriginTimedOut) as raised:
            await body_of(response)
        assert raised.value.stage == "total"


async def test_the_whole_time_is_over_with_the_response(origin: ScriptedOrigin) -> None:
    origin.otherwise(Answer(body=b"ok"))
    async with client_of(origin, total=0.2) as client:
        assert await fetch(client) == b"ok"
        await asyncio.sleep(0.3)
        assert await fetch(client) == b"ok"
    assert origin.connections == 1


async def test_a_reader_that_pauses_pauses_the_origin_and_is_not_taken_for_a_late_one(
    origin: ScriptedOrigin,
) -> None:
    sent: list[int] = []

    async def blocks() -> object:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1000 << 16)
        for _ in range(1000):
            yield bytes(1 << 16)
            sent.append(1 << 16)

    origin.route("/", lambda _: blocks())
    async with client_of(origin, between_bytes=0.3) as client:
        response = await get(client)
        assert await until_steady(sent) < 500
        size = 0
        while chunk := await response.read_chunk():
            size += len(chunk)
        assert size == 1000 << 16


async def test_a_hundred_megabytes_take_no_memory_on_their_way_down(origin: ScriptedOrigin) -> None:
    async def blocks() -> object:
        yield CHUNKED
        for number in range(1600):
            yield b"10000\r\n" + bytes([number % 256]) * (1 << 16) + b"\r\n"
        yield b"0\r\n\r\n"

    origin.route("/", lambda _: blocks())
    async with client_of(origin) as client:
        response = await get(client)
        resident = Resident()
        size = 0
        while chunk := await response.read_chunk():
            size += len(chunk)
            resident.look()
        assert size == 1600 << 16
    assert resident.growth < 16 << 20
