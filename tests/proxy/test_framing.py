"""Where messages end: heads as the parser gets them, and bodies cut out of what comes in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.proxy.framing import (
    BodyTooLarge,
    ChunkedBody,
    LengthBody,
    check_beginning,
    read_head,
)
from edgeproxy.proxy.refused import Refused

REST = b" HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("line", [b"GET /a%2f?b", b"PATCH http://a/"])
def test_a_head_that_the_parser_takes_is_left_as_it_is(line: bytes) -> None:
    head = read_head(line + REST, 1)
    assert (head.parsable, head.method, head.target) == (line + REST, None, None)


@pytest.mark.parametrize(
    ("line", "parsable", "method", "target"),
    [
        (b"PURGE /a", b"POST /a", "PURGE", None),
        (b"get /a", b"POST /a", "get", None),
        (b"GET /\xc3\xa4", b"GET /", None, "/ä"),
        (b"GET /\xff", b"GET /", None, "/\udcff"),
        (b"LINK \xc3\xa4", b"POST /", "LINK", "ä"),
    ],
)
def test_what_the_parser_does_not_take_is_kept_from_it(
    line: bytes, parsable: bytes, method: str | None, target: str | None
) -> None:
    head = read_head(line + REST, 1)
    assert (head.parsable, head.method, head.target) == (parsable + REST, method, target)


@given(st.data())
def test_no_beginning_of_a_good_head_is_refused(data: st.DataObject) -> None:
    head = b"GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\n\r"
    check_beginning(head[: data.draw(st.integers(1, len(head)))])


@given(st.integers(1, 50), st.binary(), st.data())
def test_a_body_of_a_known_length_ends_there(length: int, rest: bytes, data: st.DataObject) -> None:
    body = LengthBody(length)
    assert taken(body, bytes(length) + rest, data) == length
    assert body.done


CHUNK = st.tuples(
    st.binary(min_size=1, max_size=40),
    st.sampled_from([b"", b";a=b", b" ;a", b';a="x;y"']),
    st.booleans(),
)
LINE = st.sampled_from([b"X: y\r\n", b"Trailer-With: 0\r\n"])


@given(st.lists(CHUNK), st.lists(LINE), st.binary(), st.data())
def test_a_chunked_body_ends_where_its_chunks_do(
    chunks: list[tuple[bytes, bytes, bool]],
    trailers: list[bytes],
    rest: bytes,
    data: st.DataObject,
) -> None:
    wire = b"".join(
        b"%b%x%b\r\n%b\r\n" % (b"0" if padded else b"", len(chunk), extension, chunk)
        for chunk, extension, padded in chunks
    )
    wire += b"0\r\n" + b"".join(trailers) + b"\r\n"
    body = ChunkedBody()
    assert taken(body, wire + rest, data) == len(wire)
    assert body.done


def taken(body: LengthBody | ChunkedBody, wire: bytes, data: st.DataObject) -> int:
    """How much a body takes of what comes in, cut into pieces anyhow."""
    total = 0
    while not body.done:
        assert total < len(wire)
        size = data.draw(st.integers(1, len(wire) - total))
        used = body.take(wire[total : total + size])
        assert used == size or body.done
        total += used
    return total


@pytest.mark.parametrize("size", [b"", b"g", b"-1", b"+1", b"0x1", b" 1", b"1" * 16])
def test_a_chunk_without_a_proper_size_is_refused(size: bytes) -> None:
    with pytest.raises(Refused, match="400 bad-chunk"):
        ChunkedBody().take(size + b"\r\n")


def test_a_body_ends_before_the_chunk_that_makes_it_too_large() -> None:
    body = ChunkedBody(10)
    body.take(b"4\r\nabcd\r\n6\r\nabcdef\r\n")
    with pytest.raises(BodyTooLarge, match="413 body-too-large"):
        body.take(b"1\r\n")


def test_extensions_are_bounded_over_the_whole_body() -> None:
    """9112 7.1.1: no further than its data makes up for them."""
    made_up_for = b"200;%b\r\n%b\r\n" % (b"a" * 900, b"x" * 512)
    body = ChunkedBody()
    for _ in range(100):
        body.take(made_up_for)
    with pytest.raises(Refused, match="400 chunk-extensions-too-large"):
        for _ in range(20):
            body.take(b"1;%b\r\nx\r\n" % (b"a" * 900))


def test_trailers_are_bounded() -> None:
    body = ChunkedBody()
    body.take(b"0\r\n")
    with pytest.raises(Refused, match="400 trailers-too-large"):
        for _ in range(5000):
            body.take(b"X: y\r\n")


def test_a_line_that_does_not_end_is_not_collected_for_ever() -> None:
    body = ChunkedBody()
    with pytest.raises(Refused, match="chunk-line-too-long"):
        for _ in range(5000):
            body.take(b"1")
