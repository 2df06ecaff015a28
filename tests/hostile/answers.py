"""The table of an origin's odd answers: what it sends, and what the reader gets for it."""

from tests.hostile.requests import CHUNKED
from tests.kit import CLOSE, RESET

OK = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\n"
BODY = b"Content-Length: 2\r\n\r\nok"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

# What the origin sends, and what the reader gets for it: a status, or a body that is cut off. What
# is neither 200 nor 304 leaves nothing in the store, and the connection is used for nothing else.
ANSWERS: dict[str, tuple[list[bytes | object], int | str]] = {
    "1xx by the hundred": ([EARLY * 500, OK + BODY], 200),
    "1xx without end": ([EARLY.replace(b"/a", b"/" * 1000) * 600, OK + BODY], 502),
    "100 unasked": ([b"HTTP/1.1 100 Continue\r\n\r\n" * 3, OK + BODY], 200),
    "101 unasked": ([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", OK + BODY], 502),
    "101 with Connection": (
        [b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", OK + BODY], 502,
    ),
    "204 with a body": ([OK.replace(b"200 OK", b"204 X") + BODY], 502),
    "204 with a body, later": ([OK.replace(b"200 OK", b"204 X") + BODY[:-2], 0.05, b"ok"], 204),
    "304 unasked": ([b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n"], 304),
    "beyond Content-Length": ([OK + BODY + b"more"], 502),
    "a response more": ([OK + BODY + OK + BODY.replace(b"ok", b"no")], 200),
    "two lengths": ([OK + b"Content-Length: 2\r\n" + BODY], 502),
    "two lengths that differ": ([OK + b"Content-Length: 1\r\n" + BODY], 502),
    "length and chunks": ([OK + CHUNKED + BODY], 502),
    "length with a sign": ([OK + b"Content-Length: +2\r\n\r\nok"], 502),
    "length beyond 64 bits": ([OK + b"Content-Length: 18446744073709551616\r\n\r\nok"], 502),
    "length of 64 bits": ([OK + b"Content-Length: 18446744073709551615\r\n\r\nok", CLOSE], "cut"),
    "longer than it is": ([OK + b"Content-Length: 3\r\n\r\nok", CLOSE], "cut"),
    "coding in HTTP/1.0": ([OK.replace(b"1.1", b"1.0", 1) + CHUNKED + b"\r\n0\r\n\r\n"], 502),
    "coding unknown": ([OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"], 502),
    "coding named twice": ([OK + CHUNKED * 2 + b"\r\n0\r\n\r\n"], 502),
    "chunk size overflows": ([OK + CHUNKED + b"\r\n" + b"f" * 17 + b"\r\nok"], 502),
    "chunk cut": ([OK + CHUNKED + b"\r\n5\r\nok", RESET], "cut"),
    "trailers without end": (
        [OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\n", 0.05, *[b"X: y\r\n" * 10_000] * 9], "cut",
    ),
    "control in a field": ([OK + b"X: a\x01b\r\n" + BODY], 502),
    "bare CR in a field": ([OK + b"X: a\rSet-Cookie: b\r\n" + BODY], 502),
    "NUL in a field": ([OK + b"X: a\0b\r\n" + BODY], 502),
    "escape in the reason": ([OK.replace(b"OK", b"\x1b[2J") + BODY], 502),
    "field without a name": ([OK + b": x\r\n" + BODY], 502),
    "space in a name": ([OK + b"X Y: x\r\n" + BODY], 502),
    "field too long": ([OK + b"X: " + b"y" * 70_000 + b"\r\n" + BODY], 502),
    "too many fields": ([OK + b"X: y\r\n" * 600 + BODY], 502),
    "head too long": ([OK + (b"X: " + b"y" * 60_000 + b"\r\n") * 10 + BODY], 502),
    "head without end": ([OK, *[b"X: " + b"y" * 50_000 + b"\r\n"] * 9], 502),
    "another version": ([OK.replace(b"1.1", b"2.0") + BODY], 502),
    "length list": ([OK + b"Content-Length: 2, 2\r\n\r\nok"], 502),
    "length empty": ([OK + b"Content-Length:\r\n\r\nok"], 502),
    "length hexadecimal": ([OK + b"Content-Length: 0x2\r\n\r\nok"], 502),
    "length negative": ([OK + b"Content-Length: -2\r\n\r\nok"], 502),
    "length with a space within": ([OK + b"Content-Length: 2 2\r\n\r\nok"], 502),
    "chunk size with 0x": ([OK + CHUNKED + b"\r\n0x2\r\nok\r\n0\r\n\r\n"], 502),
    "chunk size no hex": ([OK + CHUNKED + b"\r\ng\r\nok\r\n0\r\n\r\n"], 502),
    "chunk longer than it says": ([OK + CHUNKED + b"\r\n2\r\nokay\r\n0\r\n\r\n"], 502),
    "chunks without an end": ([OK + CHUNKED + b"\r\n2\r\nok\r\n", CLOSE], "cut"),
    "space before the colon": ([OK + b"X : y\r\n" + BODY], 502),
    "colon forgotten": ([OK + b"X\r\n" + BODY], 502),
    "name beyond ASCII": ([OK + b"X\xe4: y\r\n" + BODY], 502),
    "closed at once": ([CLOSE], 502),
    "reset at once": ([RESET], 502),
    "half a head": ([OK, CLOSE], 502),
    "version 1.10": ([OK.replace(b"1.1", b"1.10") + BODY], 502),
    "another protocol": ([OK.replace(b"HTTP", b"ICAP") + BODY], 502),
    "status of two digits": ([OK.replace(b"200", b"20") + BODY], 502),
    "status negative": ([OK.replace(b"200", b"-200") + BODY], 502),
    "gzip that is none": ([OK + b"Content-Encoding: gzip\r\n" + BODY], 200),
    "no version": ([b"hello, world", CLOSE], 502),
    "status too small": ([OK.replace(b"200", b"099") + BODY], 502),
    "status too large": ([OK.replace(b"200", b"1000") + BODY], 502),
}  # fmt: skip
