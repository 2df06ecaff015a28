"""Responses that come in one piece: only plain ones are read so, and as the parser reads them."""

import asyncio
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpResponseParser
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.proxy.errors import OriginProtocolError
from edgeproxy.proxy.origin_head import ResponseHead, response_head
from edgeproxy.proxy.origin_whole import scan_response, scan_response_slowly, whole_response
from tests.proxy.twins import needs_compiled

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: \t b c \r\n\r\nok"


def test_a_plain_response_is_read() -> None:
    read = whole_response(PLAIN, head_only=False)
    assert read is not None
    head, body = read
    assert body == b"ok"
    assert (head.status, head.reason, head.version) == (200, b"OK", "1.1")
    assert head.fields.raw == ((b"Content-Length", b"2"), (b"A", b"b c"))
    assert (head.framed, head.content_length) == (True, 2)


@pytest.mark.parametrize(
    ("data", "head_only"),
    [
        pytest.param(PLAIN.replace(b"ok", b""), True, id="HEAD"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", True, id="HEAD without a length"),
        pytest.param(b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", False, id="304"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False, id="empty"),
        pytest.param(b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", False, id="no reason"),
        pytest.param(
            PLAIN.replace(b"A:", b"Connection: Keep-Alive\r\nA:"), False, id="connection kept"
        ),
    ],
)
def test_a_response_with_nothing_to_come_is_read(data: bytes, head_only: bool) -> None:
    read = whole_response(data, head_only=head_only)
    assert read is not None
    assert read == parsed(data, head_only=head_only)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PLAIN[:-1], id="not all of the body"),
        pytest.param(PLAIN[:30], id="not all of the head"),
        pytest.param(PLAIN + b"H", id="more than the body"),
        pytest.param(PLAIN.replace(b"1.1", b"1.0"), id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n", id="interim"),
        pytest.param(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", id="204"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="until the close"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunked"
        ),
        pytest.param(PLAIN.replace(b"A:", b"Connection: close\r\nA:"), id="the last one"),
        pytest.param(PLAIN.replace(b"A:", b"Content-Length: 2\r\nA:"), id="two lengths"),
        pytest.param(PLAIN.replace(b": 2", b": +2"), id="bad length"),
        pytest.param(PLAIN.replace(b": 2", b": 2, 2"), id="a list of lengths"),
        pytest.param(PLAIN.replace(b"A:", b"A :"), id="space behind a name"),
        pytest.param(PLAIN.replace(b"A:", b":"), id="no name"),
        pytest.param(PLAIN.replace(b"A:", b"A"), id="no colon"),
        pytest.param(PLAIN.replace(b"A:", b" A:"), id="folded"),
        pytest.param(PLAIN.replace(b"b c", b"b\0c"), id="NUL"),
        pytest.param(PLAIN.replace(b"b c", b"b\x1bc"), id="control character"),
        pytest.param(PLAIN.replace(b"b c", b"b\nc: d"), id="bare LF"),
        pytest.param(PLAIN.replace(b"b c", b"b\rc"), id="bare CR"),
        pytest.param(PLAIN.replace(b"OK", b"O\x01K"), id="control character in the reason"),
        pytest.param(PLAIN.replace(b"A:", b"A: b\r\n" * 101 + b"A:"), id="many fields"),
        pytest.param(PLAIN.replace(b"b c", b"b" * 9000), id="a long head"),
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(data: bytes) -> None:
    assert whole_response(data, head_only=False) is None
    _both(data)


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"Content-Length: 2", b"content-length:0", b"Content-Length: 02", b"A: b",
                b"Transfer-Encoding: chunked", b"Connection: close", b"Connection: keep-alive",
                b"A:b\x80", b"A:", b"A : b", b" folded", b"A: b\tc", b"no colon", b"A\x80: b",
                b"Content-Length: -2",
            ]
        ),
        st.binary(max_size=12),
    ),
    max_size=5,
)  # fmt: skip
STARTS = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 404 ", b"HTTP/1.1 304 No", b"HTTP/1.1 999", b"HTTP/1.0 200 OK"]
)


@given(
    start=STARTS,
    lines=LINES,
    body=st.sampled_from([b"", b"ab", b"abc", b"0\r\n\r\n"]),
    head_only=st.booleans(),
)
def test_what_is_read_is_what_the_parser_reads(
    start: bytes, lines: list[bytes], body: bytes, head_only: bool
) -> None:
    data = b"\r\n".join([start, *lines, b"", b""]) + body
    read = whole_response(data, head_only=head_only)
    if read is not None:
        assert read == parsed(data, head_only=head_only)
    _both(data)


def _both(data: bytes) -> None:
    for limits in ((8190, 100), (len(data) - 1, 100), (30, 1), (0, 0)):
        assert scan_response(data, *limits) == scan_response_slowly(data, *limits)


@needs_compiled
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param((PLAIN, 1), TypeError, id="too few"),
        pytest.param((PLAIN.decode(), 1, 1), TypeError, id="no bytes"),
        pytest.param((PLAIN, -1, 1), ValueError, id="negative"),
    ],
)
def test_the_compiled_reader_minds_what_it_is_given(
    arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        scan_response(*arguments)


def parsed(data: bytes, *, head_only: bool) -> tuple[ResponseHead, bytes] | str:
    """The same, by the parser; what is wrong with it."""
    loop = asyncio.new_event_loop()
    try:
        protocol: Any = BaseProtocol(loop)
        parser = HttpResponseParser(
            protocol, loop, 65536, response_with_body=not head_only, auto_decompress=False
        )
        protocol._parser = parser
        messages, _, _ = parser.feed_data(data)
        ((message, payload),) = messages
        if not head_only and not payload.is_eof():
            return "unfinished"
        head = response_head(message, head_only=head_only)
        return head, b"" if payload.at_eof() else payload.read_nowait()
    except (OriginProtocolError, ValueError) as error:
        return repr(error)
    finally:
        loop.close()
