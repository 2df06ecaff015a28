"""The bytes of a request's head, and what may not become one."""

import pytest

from edgeproxy.proxy.origin_head import request_head
from edgeproxy.semantics.errors import BadRequest
from edgeproxy.semantics.fields import Fields

HOST = (b"Host", b"a.example")


def test_a_head_is_written_as_it_was_given() -> None:
    fields = Fields((HOST, (b"x-A", b"1"), (b"X-a", b""), (b"Accept", b"*/*"), (b"x-A", b"\xff")))
    assert request_head(b"GET", b"/%2f//a;b?", fields, None) == (
        b"GET /%2f//a;b? HTTP/1.1\r\nHost: a.example\r\n"
        b"x-A: 1\r\nX-a: \r\nAccept: */*\r\nx-A: \xff\r\n\r\n"
    )


@pytest.mark.parametrize(
    "framing", [None, (b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked")]
)
def test_the_body_is_framed_once_whatever_the_fields_say(
    framing: tuple[bytes, bytes] | None,
) -> None:
    given = Fields(
        (
            (b"content-LENGTH", b"7"),
            HOST,
            (b"Transfer-Encoding", b"gzip, chunked"),
            (b"Content-Length", b"8"),
        )
    )
    line = b"%b: %b\r\n" % framing if framing else b""
    expected = b"POST / HTTP/1.1\r\nHost: a.example\r\n" + line + b"\r\n"
    assert request_head(b"POST", b"/", given, framing) == expected


@pytest.mark.parametrize(
    ("method", "target", "field"),
    [
        pytest.param(b"GET", b"/a b", HOST, id="space in the target"),
        pytest.param(b"GET", b"/a\r\nX: y", HOST, id="line end in the target"),
        pytest.param(b"GET", b"/a\n", HOST, id="LF in the target"),
        pytest.param(b"GET", b"/\0", HOST, id="NUL in the target"),
        pytest.param(b"GE T", b"/", HOST, id="space in the method"),
        pytest.param(b"", b"/", HOST, id="no method"),
        pytest.param(b"GET", b"/", (b"A", b"b\r\nX: y"), id="line end in a value"),
        pytest.param(b"GET", b"/", (b"A", b"b\r"), id="CR in a value"),
        pytest.param(b"GET", b"/", (b"A\nB", b"b"), id="LF in a name"),
        pytest.param(b"GET", b"/", (b"A", b"\0"), id="NUL in a value"),
    ],
)
def test_what_would_be_read_otherwise_is_not_sent(
    method: bytes, target: bytes, field: tuple[bytes, bytes]
) -> None:
    with pytest.raises(BadRequest):
        request_head(method, target, Fields((field,)), None)
