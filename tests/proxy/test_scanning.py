"""The heads that the fast path reads: strictly, and alike by both of its readers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.proxy.scanning import all_fields
from edgeproxy.semantics.fields import TCHAR
from tests.proxy.twins import BOTH, COMPILED, SLOW, Twin, needs_compiled

LINE = b"GET /a?b HTTP/1.1"
KEY = LINE + b"\nshop.test\n"
ANY = 1_000_000


def head(*lines: bytes, line: bytes = LINE, host: bytes = b"Host: shop.test") -> bytes:
    return b"\r\n".join([line, host, *lines, b"", b""])


@BOTH
@pytest.mark.parametrize(
    ("sent", "key", "closing", "conditions"),
    [
        pytest.param(head(), KEY, False, None, id="plain"),
        pytest.param(
            head(line=b"HEAD / HTTP/1.1"), b"HEAD / HTTP/1.1\nshop.test\n", False, None, id="HEAD"
        ),
        pytest.param(head(host=b"hOST:\t A:81 \t"), LINE + b"\nA:81\n", False, None, id="host"),
        pytest.param(head(host=b"Host:"), LINE + b"\n\n", False, None, id="empty-host"),
        pytest.param(head(b"X-Forwarded-Proto: https"), KEY + b"https", False, None, id="proto"),
        pytest.param(head(b"Connection: Close"), KEY, True, None, id="close"),
        pytest.param(head(b"Connection:keep-Alive \t"), KEY, False, None, id="keep-alive"),
        pytest.param(head(b'If-None-Match: W/"a" '), KEY, False, (b'W/"a"', None), id="match"),
        pytest.param(head(b"if-modified-since: never"), KEY, False, (None, b"never"), id="since"),
        pytest.param(
            head(b"If-Modified-Since:", b"IF-NONE-MATCH: *"), KEY, False, (b"*", b""), id="both"
        ),
        pytest.param(head(b"X: \t\x20\x7e!", b"Y: \t ", b"Z:"), KEY, False, None, id="values"),
        pytest.param(head(TCHAR + b":x"), KEY, False, None, id="tchars"),
        pytest.param(head(b"Proxy: a", b"Tea: b", b"I: c"), KEY, False, None, id="like-others"),
    ],
)
def test_what_is_usual_is_read(
    twin: Twin, sent: bytes, key: bytes, closing: bool, conditions: object
) -> None:
    assert twin.scan(sent, 0, ANY, ANY) == (len(sent), key, closing, conditions)
    # Wherever it stands, and whatever is around it.
    read = twin.scan(b"GET " + sent + b"GET / HTTP/1.1\r\n", 4, ANY, ANY)
    assert read == (len(sent) + 4, key, closing, conditions)


@BOTH
@pytest.mark.parametrize(
    "sent",
    [
        *[
            pytest.param(head(line=line), id=repr(line))
            for line in (
                *(b"POST / HTTP/1.1", b"get / HTTP/1.1", b"GET  / HTTP/1.1", b"\r\nGET / HTTP/1.1"),
                *(b"GET /", b"GET / HTTP/1.0", b"GET / HTTP/1.1 ", b"GET / HTTP/1.11"),
                *(b"GET http://a/ HTTP/1.1", b"GET * HTTP/1.1", b"GET /#a HTTP/1.1"),
                *(b"GET /a b HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /\x00 HTTP/1.1"),
                *(b"GET /\xff HTTP/1.1", b"GET /\t HTTP/1.1", b"GET / HTTP/1.1\nX: y", b""),
            )
        ],
        *[
            pytest.param(head(line), id=repr(line))
            for line in (
                *(b" folded", b"\tfolded", b"no colon", b": no name", b"name : x", b"a b: x"),
                *(b"X: a\x00b", b"X: a\rb", b"X: a\nb", b"X: \r", b"X: \x7f", b"X: \x80"),
                *(b"X: \x1f", b"\x00: a", b"\xe4: a", b"(: a", b"X\r\n: a", b"X: a\n"),
                *(b"X: a\r\nx: b", b"host: shop.test", b"If-None-Match: a\r\nif-none-match: a"),
                *(b"Connection: x", b"Connection:", b"Connection: close, x", b"Connection: closed"),
                *(b"Content-Length: 0", b"transfer-ENCODING: chunked", b"TE: a", b"Trailer: a"),
                *(b"Expect: 100-continue", b"Upgrade: h2c", b"Keep-Alive: a", b"Proxy-: a"),
                *(b"proxy-connection: close", b"PROXY-Authorization: a", b"HTTP2-Settings: a"),
                *(b"Max-Forwards: 1", b"Range: bytes=0-1", b"If-Range: a", b"If-Match: a"),
                *(b"If-Unmodified-Since: a", b"Cache-Control: a", b"Pragma: a"),
            )
        ],
        pytest.param(head(host=b"X: y"), id="no-host"),
        pytest.param(LINE + b"\r\n\r\n", id="no-fields"),
        pytest.param(head().replace(b"\r\n", b"\n"), id="no-cr"),
        *[pytest.param(head()[:end], id=f"first-{end}") for end in range(len(head()))],
    ],
)
def test_what_is_unusual_or_not_all_there_is_left(twin: Twin, sent: bytes) -> None:
    assert twin.scan(sent, 0, ANY, ANY) is None


@BOTH
def test_no_more_is_read_than_may_be(twin: Twin) -> None:
    sent = head(*[b"X%d: y" % number for number in range(127)])
    assert twin.scan(sent, 0, len(sent), 128)
    assert twin.scan(sent, 0, len(sent) - 1, 128) is None
    assert twin.scan(sent, 0, ANY, 127) is None
    assert twin.scan(head(*[b"X%d: y" % number for number in range(128)]), 0, ANY, ANY) is None


@BOTH
def test_values_are_found_by_their_names(twin: Twin) -> None:
    sent = b"beginning" + head(b"Accept: \ta, b ", b"ACCEPT-Encoding:br", b"X:") + b"Y: z\r\n"
    names = (b"accept-encoding", b"accept", b"y", b"x", b"accep", b"accept")
    assert twin.values(sent, 9, names) == (b"br", b"a, b", None, b"", None, b"a, b")
    assert twin.values(sent, 9, ()) == ()


@BOTH
@pytest.mark.parametrize("sent", [b"", head()[:-1], head(b"X: \x00")])
def test_no_values_are_found_where_no_head_is(twin: Twin, sent: bytes) -> None:
    with pytest.raises(ValueError, match="no head"):
        twin.values(sent, 0, (b"host",))


@pytest.mark.parametrize("length", [1, 5000])
def test_all_fields_are_those_that_are_passed_on(length: int) -> None:
    sent = head(b"Connection: close", b"X:  y ", b"Long: " + b"z" * length)
    fields = all_fields(sent, KEY)
    assert fields.raw == ((b"Host", b"shop.test"), (b"X", b"y"), (b"Long", b"z" * length))


NAMES = st.sampled_from(
    [
        *(b"Host", b"hOST", b"X-Forwarded-Proto", b"Connection", b"If-None-Match", b"Range", b"TE"),
        *(b"If-Modified-Since", b"Proxy-X", b"Accept", b"accept", b"Accept-Encoding", b"Cookie"),
    ]
)
VALUES = st.sampled_from(
    [b"", b"close", b"Keep-Alive", b"a", b'"a", W/"b"', b"\t a b \t", b"x" * 99]
)
ODD = st.sampled_from(
    [b"", b"\r", b"\n", b"\r\n", b"\0", b" ", b":", b"\xff", b"\x1f", b"\r\n\r\n"]
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Heads of which most are well formed, and some were changed at a place or two."""
    pairs = draw(st.lists(st.tuples(NAMES | st.binary(max_size=3), VALUES), max_size=9))
    lines = [name + b":" + value for name, value in [(b"Host", b"a"), *pairs]]
    whole = head(*lines[1:], line=draw(st.sampled_from([LINE, b"HEAD / HTTP/1.1"])), host=lines[0])
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(whole)))
        whole = whole[:at] + draw(ODD | st.binary(max_size=2)) + whole[at + draw(st.booleans()) :]
    return whole


@needs_compiled
@given(heads() | st.binary(max_size=60), st.sampled_from([0, 0, 0, 1, 20]), st.data())
def test_both_read_alike(sent: bytes, start: int, data: st.DataObject) -> None:
    sent = b"G" * start + sent
    max_bytes = data.draw(st.sampled_from([ANY, len(sent) - start, 30]))
    max_fields = data.draw(st.sampled_from([ANY, 128, 3]))
    read = SLOW.scan(sent, start, max_bytes, max_fields)
    assert COMPILED.scan(sent, start, max_bytes, max_fields) == read
    if read is not None:
        names = (b"accept", b"host", b"cookie")
        assert COMPILED.values(sent, start, names) == SLOW.values(sent, start, names)


@needs_compiled
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param(("", 0, 1, 1), TypeError, id="no-bytes"),
        pytest.param((b"", b"", 1, 1), TypeError, id="no-number"),
        pytest.param((b"", -1, 1, 1), ValueError, id="before"),
        pytest.param((b"", 0, -1, 1), ValueError, id="less-than-nothing"),
        pytest.param((b"", 0, 2**70, 1), OverflowError, id="too-large"),
        pytest.param((b"", 0, 1), TypeError, id="too-few"),
    ],
)
def test_the_compiled_one_minds_what_it_is_given(
    arguments: tuple[object, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        COMPILED.scan(*arguments)  # type: ignore[arg-type]


@needs_compiled
@pytest.mark.parametrize("names", [[b"host"], ("host",), b"host", None])
def test_names_are_a_tuple_of_bytes(names: object) -> None:
    with pytest.raises(TypeError):
        COMPILED.values(head(), 0, names)  # type: ignore[arg-type]
