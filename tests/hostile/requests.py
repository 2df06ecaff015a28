"""The table of requests: raw bytes, the section that they break or stretch, the required outcome.

In each of them TARGET stands for a URL of the row's own. `GET /last` is sent behind each: it is
answered where the connection goes on, and not seen at all where it does not.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

HOST = b"Host: shop.example\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HIDDEN = b"GET /hidden HTTP/1.1\r\n" + HOST + b"\r\n"
"""What is smuggled: no origin may ever see it."""


@dataclass(frozen=True)
class Row:
    """A request and what must come of it."""

    name: str
    section: str
    """Of RFC 9112, unless another is named."""
    raw: bytes
    statuses: tuple[int, ...] = (400,)
    """Of each answer, that to `GET /last` with them; with one, the connection ends behind it."""
    seen: tuple[str, ...] = ()
    """What reaches the origin of it, but `GET /last`."""
    hit: bool = False
    """It is answered from what is stored, and then does not reach the origin."""

    @property
    def closed(self) -> bool:
        return len(self.statuses) == 1

    @property
    def refused(self) -> bool:
        return self.statuses[-1] >= 400

    def __str__(self) -> str:
        return f"{self.section}: {self.name}"


def request(
    fields: bytes = b"",
    body: bytes = b"",
    *,
    method: bytes = b"GET",
    target: bytes = b"TARGET",
    version: bytes = b"HTTP/1.1",
) -> bytes:
    return b"%b %b %b\r\n%b%b\r\n%b" % (method, target, version, HOST, fields, body)


def post(fields: bytes = b"", body: bytes = b"") -> bytes:
    return request(fields, body, method=b"POST")


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


def chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def sized(value: bytes) -> bytes:
    return b"Content-Length:%b\r\n" % value


def coded(value: bytes) -> bytes:
    return b"Transfer-Encoding:%b\r\n" % value


# -- field blocks that are refused whatever the method, with what may follow them

FRAMINGS: tuple[tuple[str, str, bytes, bytes], ...] = (
    ("CL.TE", "6.1", length(HIDDEN) + CHUNKED, b"0\r\n\r\n" + HIDDEN),
    ("CL.TE with 0", "6.1", sized(b" 0") + CHUNKED, b"0\r\n\r\n" + HIDDEN),
    ("TE.CL", "6.1", CHUNKED + sized(b" 4"), chunks(HIDDEN)),
    ("TE.0", "6.1", CHUNKED + sized(b" 0"), chunks(HIDDEN)),
    ("TE.TE", "6.1", CHUNKED * 2, b"0\r\n\r\n" + HIDDEN),
    ("TE and identity", "6.1", CHUNKED + coded(b" identity"), HIDDEN),
    ("identity and TE", "6.1", coded(b" identity") + CHUNKED, HIDDEN),
    ("chunked not last", "6.1", coded(b" chunked, identity"), HIDDEN),
    ("chunked twice", "6.1", coded(b" chunked, chunked"), HIDDEN),
    ("coding with VT before", "5.5 of 9110", coded(b"\x0bchunked"), HIDDEN),
    ("coding with FF behind", "5.5 of 9110", coded(b" chunked\x0c"), HIDDEN),
    ("coding with NUL", "5.5 of 9110", coded(b" chunked\0"), HIDDEN),
    ("coding with a Kelvin sign", "6.1", coded(" chun\u212aed".encode()), HIDDEN),
    ("coding behind a comma", "6.1", coded(b" , chunked"), b"0\r\n\r\n"),
    ("coding before a comma", "6.1", coded(b" chunked,"), b"0\r\n\r\n"),
    ("coding with a parameter", "6.1", coded(b" chunked;a=b"), b"0\r\n\r\n"),
    ("coding quoted", "6.1", coded(b' "chunked"'), b"0\r\n\r\n"),
    ("gzip alone", "6.1", coded(b" gzip"), HIDDEN),
    ("identity alone", "6.1", coded(b" identity"), HIDDEN),
    ("coding misspelt", "6.1", coded(b" xchunked"), HIDDEN),
    ("coding cut", "6.1", coded(b" chunke"), HIDDEN),
    ("TE before a space", "5.1", b"Transfer-Encoding : chunked\r\n", HIDDEN),
    ("TE before a tab", "5.1", b"Transfer-Encoding\t: chunked\r\n", HIDDEN),
    ("TE behind a space", "5.2", b" Transfer-Encoding: chunked\r\n", HIDDEN),
    ("TE folded", "5.2", b"Transfer-Encoding:\r\n chunked\r\n", HIDDEN),
    ("TE folded by a tab", "5.2", b"Transfer-Encoding:\r\n\tchunked\r\n", HIDDEN),
    ("TE behind a bare LF", "2.2", b"X: y\n" + CHUNKED, HIDDEN),
    ("TE behind a bare CR", "2.2", b"X: y\r" + CHUNKED, HIDDEN),
    ("TE behind CR CR LF", "2.2", b"X: y\r\r\n" + CHUNKED, HIDDEN),
    ("TE with a name of NUL", "5.1", b"Transfer-Encoding\0: chunked\r\n", HIDDEN),
    ("CL twice, differing", "6.3", sized(b" 0") + length(HIDDEN), HIDDEN),
    ("CL twice, the same", "6.3", length(HIDDEN) * 2, HIDDEN),
    ("CL twice, in two cases", "6.3", sized(b" 0") + b"content-length: 5\r\n", HIDDEN),
    ("CL list of equals", "6.3", sized(b" 0, 0"), HIDDEN),
    ("CL list that differs", "6.3", sized(b" 0, 5"), HIDDEN),
    ("CL list with a gap", "6.3", sized(b" 0,"), HIDDEN),
    ("CL with plus", "8.6 of 9110", sized(b" +0"), HIDDEN),
    ("CL negative", "8.6 of 9110", sized(b" -1"), HIDDEN),
    ("CL minus zero", "8.6 of 9110", sized(b" -0"), HIDDEN),
    ("CL empty", "8.6 of 9110", sized(b""), HIDDEN),
    ("CL of spaces", "8.6 of 9110", sized(b"   "), HIDDEN),
    ("CL hexadecimal", "8.6 of 9110", sized(b" 0x0"), HIDDEN),
    ("CL octal", "8.6 of 9110", sized(b" 0o0"), HIDDEN),
    ("CL with a letter", "8.6 of 9110", sized(b" 0a"), HIDDEN),
    ("CL with a space within", "8.6 of 9110", sized(b" 0 0"), HIDDEN),
    ("CL with a tab within", "8.6 of 9110", sized(b" 0\t0"), HIDDEN),
    ("CL with an underscore", "8.6 of 9110", sized(b" 1_0"), HIDDEN),
    ("CL with a fraction", "8.6 of 9110", sized(b" 0.0"), HIDDEN),
    ("CL with an exponent", "8.6 of 9110", sized(b" 1e0"), HIDDEN),
    ("CL with a semicolon", "8.6 of 9110", sized(b" 0;"), HIDDEN),
    ("CL quoted", "8.6 of 9110", sized(b' "0"'), HIDDEN),
    ("CL in Arabic digits", "8.6 of 9110", sized(" \u0660".encode()), HIDDEN),
    ("CL in Latin-1 digits", "8.6 of 9110", sized(b" \xb2"), HIDDEN),
    ("CL with VT", "5.5 of 9110", sized(b"\x0b0"), HIDDEN),
    ("CL with NUL", "5.5 of 9110", sized(b" 0\0"), HIDDEN),
    ("CL folded", "5.2", b"Content-Length: 0\r\n 9\r\n", HIDDEN),
    ("CL before a space", "5.1", b"Content-Length : 9\r\n", HIDDEN),
    ("CL beyond 64 bits", "8.6 of 9110", sized(b" 18446744073709551616"), HIDDEN),
    ("CL of a thousand digits", "8.6 of 9110", sized(b" " + b"1" * 1000), HIDDEN),
    ("CL and TE named by Connection", "6.1",
     b"Connection: Content-Length\r\n" + length(HIDDEN) + CHUNKED, HIDDEN),
)  # fmt: skip

# Bodies that are longer than any may be, 1 MiB here (15.5.14 of RFC 9110).
TOO_LARGE: tuple[tuple[str, bytes, bytes], ...] = (
    ("CL a byte too much", sized(b" 1048577"), HIDDEN),
    ("CL behind zeros", sized(b" 0001048577"), HIDDEN),
    ("CL of 32 bits", sized(b" 4294967296"), HIDDEN),
    ("CL beyond 53 bits", sized(b" 9007199254740993"), HIDDEN),
    ("CL of 63 bits", sized(b" 9223372036854775807"), HIDDEN),
    ("CL of 64 bits", sized(b" 18446744073709551615"), HIDDEN),
    ("CL and Expect", b"Expect: 100-continue\r\n" + sized(b" 1048577"), HIDDEN),
    ("chunk", CHUNKED, b"100001\r\n" + HIDDEN),
    ("chunk of 60 bits", CHUNKED, b"f" * 15 + b"\r\n" + HIDDEN),
    ("chunks together", CHUNKED, chunks(b"x" * 2**20)[:-5] + b"1\r\nx\r\n0\r\n\r\n" + HIDDEN),
)

# Expectations that nobody can meet, or that two may read as two (10.1.1 of RFC 9110).
EXPECTATIONS: tuple[tuple[str, bytes], ...] = (
    ("of unknown kind", b"Expect: the-unexpected\r\n"),
    ("of two kinds", b"Expect: 100-continue, the-unexpected\r\n"),
    ("misspelt", b"Expect: y 100-continue\r\n"),
    ("with a parameter", b"Expect: 100-continue;a=b\r\n"),
    ("of nothing", b"Expect:\r\n"),
    ("twice", b"Expect: 100-continue\r\n" * 2),
    ("list", b"Expect: 100-continue, 100-continue\r\n"),
)

UNKNOWN_CODINGS = (b" gzip, chunked", b" identity, chunked", b"")

# Bodies of `Transfer-Encoding: chunked` that are none (7.1).
BODIES: tuple[tuple[str, bytes], ...] = (
    ("bare LF behind the size", b"1\nx\r\n0\r\n\r\n"),
    ("bare LF behind the data", b"1\r\nx\n0\r\n\r\n"),
    ("bare LF throughout", b"1\nx\n0\n\n"),
    ("bare CR behind the size", b"1\rx\r\n0\r\n\r\n"),
    ("LF in an extension", b"1;a\nx\r\n0\r\n\r\n"),
    ("CR in an extension", b"1;a\rb\r\nx\r\n0\r\n\r\n"),
    ("extension of NUL", b"1;a\0\r\nx\r\n0\r\n\r\n"),
    ("extension without a name", b"1;=a\r\nx\r\n0\r\n\r\n"),
    ("extension without its value", b"1;a=\r\nx\r\n0\r\n\r\n"),
    ("extensions of 18 KB", (b"1;" + b"a" * 900 + b"\r\nx\r\n") * 20 + b"0\r\n\r\n"),
    ("extension of 5000 bytes", b"1;" + b"a" * 5000 + b"\r\nx\r\n0\r\n\r\n"),
    ("longer than it says", b"1\r\nxy\r\n0\r\n\r\n"),
    ("shorter than it says", b"5\r\nx\r\n0\r\n\r\n" + b"y\r\n"),
    ("no line end behind the data", b"1\r\nx0\r\n\r\n"),
    ("size with plus", b"+1\r\nx\r\n0\r\n\r\n"),
    ("size negative", b"-1\r\nx\r\n0\r\n\r\n"),
    ("size with 0x", b"0x1\r\nx\r\n0\r\n\r\n"),
    ("size no hex", b"g\r\nx\r\n0\r\n\r\n"),
    ("size with h", b"1h\r\nx\r\n0\r\n\r\n"),
    ("size with an underscore", b"1_0\r\nx\r\n0\r\n\r\n"),
    ("size behind a space", b" 1\r\nx\r\n0\r\n\r\n"),
    ("size missing", b"\r\nx\r\n0\r\n\r\n"),
    ("size missing before an extension", b";a\r\nx\r\n0\r\n\r\n"),
    ("size of 16 digits", b"1000000000000000\r\nx\r\n"),
    ("size of 17 digits", b"1" + b"0" * 16 + b"\r\nx\r\n"),
    ("size of 17 digits, most of them 0", b"0" * 16 + b"1\r\nx\r\n0\r\n\r\n"),
    ("size of 64 bits", b"ffffffffffffffff\r\nx\r\n"),
    ("trailer with a bare LF", b"0\r\nX: y\n\r\n\r\n"),
    ("trailer with a bare CR", b"0\r\nX: y\rZ: a\r\n\r\n"),
    ("trailer without a name", b"0\r\n: y\r\n\r\n"),
    ("trailer with NUL", b"0\r\nX: \0\r\n\r\n"),
    ("trailers of 30 KB", b"0\r\n" + b"X: y\r\n" * 5000 + b"\r\n"),
    ("end with a bare LF", b"0\r\n\n"),
)

# Field lines that are none (5, 2.2; 5.1, 5.5 and 5.6.2 of RFC 9110).
LINES: tuple[tuple[str, str, bytes], ...] = (
    ("no colon", "5", b"X\r\n"),
    ("no name", "5.1", b": y\r\n"),
    ("a space for a name", "5.1", b" : y\r\n"),
    ("space before the colon", "5.1", b"X : y\r\n"),
    ("tab before the colon", "5.1", b"X\t: y\r\n"),
    ("space in the name", "5.1", b"X Y: y\r\n"),
    ("folded", "5.2", b"X: y\r\n z\r\n"),
    ("folded by a tab", "5.2", b"X: y\r\n\tz\r\n"),
    ("folded to nothing", "5.2", b"X: y\r\n \r\n"),
    ("bare LF", "2.2", b"X: y\nZ: a\r\n"),
    ("bare CR", "2.2", b"X: y\rZ: a\r\n"),
    ("CR CR LF", "2.2", b"X: y\r\r\n"),
    ("LF CR", "2.2", b"X: y\n\rZ: a\r\n"),
    ("name in brackets", "5.6.2 of 9110", b"X(Y): z\r\n"),
    ("name with a slash", "5.6.2 of 9110", b"X/Y: z\r\n"),
    ("name quoted", "5.6.2 of 9110", b'"X": z\r\n'),
    ("name beyond ASCII", "5.6.2 of 9110", b"X\xe4: z\r\n"),
    ("name in UTF-8", "5.6.2 of 9110", b"X\xc3\xa4: z\r\n"),
)

HOSTS: tuple[tuple[str, str, bytes], ...] = (
    ("missing", "3.2", b""),
    ("empty", "3.2", b"Host:\r\n"),
    ("of spaces", "3.2", b"Host:   \r\n"),
    ("twice, the same", "3.2", HOST * 2),
    ("twice, differing", "3.2", HOST + b"Host: evil.example\r\n"),
    ("twice, in two cases", "3.2", HOST + b"hOST: evil.example\r\n"),
    ("and an empty one", "3.2", HOST + b"Host:\r\n"),
    ("list", "3.2", b"Host: shop.example, evil.example\r\n"),
    ("two words", "3.2", b"Host: shop.example evil.example\r\n"),
    ("userinfo", "7.2 of 9110", b"Host: a@shop.example\r\n"),
    ("path", "7.2 of 9110", b"Host: shop.example/x\r\n"),
    ("query", "7.2 of 9110", b"Host: shop.example?x\r\n"),
    ("fragment", "7.2 of 9110", b"Host: shop.example#x\r\n"),
    ("scheme", "7.2 of 9110", b"Host: http://shop.example\r\n"),
    ("backslash", "7.2 of 9110", b"Host: shop.example\\x\r\n"),
    ("percent", "7.2 of 9110", b"Host: shop%2eexample\r\n"),
    ("beyond ASCII", "7.2 of 9110", b"Host: sh\xf6p.example\r\n"),
    ("a Kelvin sign", "7.2 of 9110", "Host: \u212a.example\r\n".encode()),
    ("port no number", "7.2 of 9110", b"Host: shop.example:http\r\n"),
    ("port negative", "7.2 of 9110", b"Host: shop.example:-1\r\n"),
    ("port with plus", "7.2 of 9110", b"Host: shop.example:+80\r\n"),
    ("port too large", "7.2 of 9110", b"Host: shop.example:65536\r\n"),
    ("port of six digits", "7.2 of 9110", b"Host: shop.example:000080\r\n"),
    ("two ports", "7.2 of 9110", b"Host: shop.example:80:80\r\n"),
    ("only a port", "7.2 of 9110", b"Host: :80\r\n"),
    ("IPv6 open", "7.2 of 9110", b"Host: [::1\r\n"),
    ("IPv6 wrong", "7.2 of 9110", b"Host: [::g]\r\n"),
    ("256 characters", "7.2 of 9110", b"Host: " + b"a" * 256 + b"\r\n"),
    ("folded", "5.2", b"Host:\r\n shop.example\r\n"),
    ("space before the colon", "5.1", b"Host : shop.example\r\n"),
)

TARGETS: tuple[tuple[str, str, bytes], ...] = (
    ("empty", "3", b""),
    ("two", "3", b"TARGET /hidden"),
    ("no slash", "3.2", b"hidden"),
    ("tab", "3", b"TARGET\tx"),
    ("fragment", "3.2.1", b"TARGET#x"),
    ("asterisk", "3.2.4", b"*"),
    ("authority", "3.2.3", b"shop.example:80"),
    ("userinfo", "4.2.4 of 9110", b"http://a@shop.exampleTARGET"),
    ("userinfo with a password", "4.2.4 of 9110", b"http://a:b@shop.exampleTARGET"),
    ("another scheme", "3.2.2", b"file://TARGET"),
    ("another protocol", "3.2.2", b"gopher://shop.exampleTARGET"),
    ("absolute without a host", "3.2.2", b"http://TARGET"),
    ("absolute with one slash", "3.2.2", b"http:/shop.exampleTARGET"),
    ("absolute with a bad port", "3.2.2", b"http://shop.example:xTARGET"),
    ("absolute with a list", "3.2.2", b"http://shop.example,evilTARGET"),
    ("backslashes", "3.2.2", b"http:\\\\shop.example\\x"),
)

LINE_STARTS: tuple[tuple[str, bytes, int], ...] = (
    ("HTTP/0.9", b"GET TARGET\r\n", 400),
    ("version 0.9", b"GET TARGET HTTP/0.9\r\n", 505),
    ("version 1.2", b"GET TARGET HTTP/1.2\r\n", 505),
    ("version 2.0", b"GET TARGET HTTP/2.0\r\n", 505),
    ("version 3.0", b"GET TARGET HTTP/3.0\r\n", 505),
    ("version 1.10", b"GET TARGET HTTP/1.10\r\n", 400),
    ("version 11.1", b"GET TARGET HTTP/11.1\r\n", 400),
    ("version 1", b"GET TARGET HTTP/1\r\n", 400),
    ("version 1,1", b"GET TARGET HTTP/1,1\r\n", 400),
    ("version in lower case", b"GET TARGET http/1.1\r\n", 400),
    ("version in other digits", "GET TARGET HTTP/1.\u0661\r\n".encode(), 400),
    ("another protocol", b"GET TARGET ICAP/1.1\r\n", 400),
    ("two spaces before the target", b"GET  TARGET HTTP/1.1\r\n", 400),
    ("two spaces behind it", b"GET TARGET  HTTP/1.1\r\n", 400),
    ("tabs for spaces", b"GET\tTARGET\tHTTP/1.1\r\n", 400),
    ("space first", b" GET TARGET HTTP/1.1\r\n", 400),
    ("space last", b"GET TARGET HTTP/1.1 \r\n", 400),
    ("more behind", b"GET TARGET HTTP/1.1 x\r\n", 400),
    ("bare LF", b"GET TARGET HTTP/1.1\n", 400),
    ("bare CR", b"GET TARGET HTTP/1.1\r", 400),
    ("CR CR LF", b"GET TARGET HTTP/1.1\r\r\n", 400),
    ("method no token", b"G@T TARGET HTTP/1.1\r\n", 400),
    ("method beyond ASCII", b"G\xcbT TARGET HTTP/1.1\r\n", 400),
    ("method with NUL", b"GET\0 TARGET HTTP/1.1\r\n", 400),
    ("no method", b" TARGET HTTP/1.1\r\n", 400),
    ("CONNECT", b"CONNECT shop.example:80 HTTP/1.1\r\n", 405),
    ("TRACE", b"TRACE TARGET HTTP/1.1\r\n", 405),
    ("PURGE", b"PURGE TARGET HTTP/1.1\r\n", 405),
    ("BAN", b"BAN TARGET HTTP/1.1\r\n", 405),
)

SIZES: tuple[tuple[str, str, bytes, int], ...] = (
    ("target too long", "15.5.15 of 9110", request(target=b"TARGET?" + b"x" * 70_000), 414),
    ("target that does not end", "15.5.15 of 9110", b"GET TARGET?" + b"x" * 70_000, 414),
    ("method that does not end", "3", b"G" * 70_000, 414),
    ("field too long", "5 of 6585", request(b"X: " + b"y" * 70_000 + b"\r\n"), 431),
    ("field that does not end", "5 of 6585", request()[:-2] + b"X: " + b"y" * 70_000, 431),
    ("name too long", "5 of 6585", request(b"y" * 70_000 + b": x\r\n"), 431),
    ("too many fields", "5 of 6585", request(b"X: y\r\n" * 200), 431),
    ("too many empty fields", "5 of 6585", request(b"X:\r\n" * 1000), 431),
    ("all together too long", "5 of 6585", request((b"X: " + b"y" * 7000 + b"\r\n") * 10), 431),
)

# -- what is taken, and must mean the same to the edge and to the origin

UPGRADE = b"Connection: Upgrade\r\nUpgrade: %b\r\n"
WEBSOCKET = UPGRADE % b"websocket" + (
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)

TAKEN: tuple[tuple[str, str, bytes, str], ...] = (
    ("request in a body", "6", post(length(HIDDEN), HIDDEN), "POST TARGET"),
    ("request in chunks", "7.1", post(CHUNKED, chunks(b"x", HIDDEN)), "POST TARGET"),
    ("chunks in capitals", "7.1", post(coded(b" ChUnKeD"), chunks(HIDDEN)), "POST TARGET"),
    ("chunked among spaces", "5", post(coded(b"  chunked  "), chunks(HIDDEN)), "POST TARGET"),
    ("zeros before a chunk size", "7.1", post(CHUNKED, b"0001\r\nx\r\n0\r\n\r\n"), "POST TARGET"),
    ("zeros before a length", "8.6 of 9110", post(sized(b" 000"), b""), "POST TARGET"),
    ("5000 zeros before a length", "8.6 of 9110", post(sized(b" " + b"0" * 5000 + b"1"), b"x"),
     "POST TARGET"),
    ("framing by look-alikes", "5.1",
     post(b"Transfer_Encoding: chunked\r\nContent_Length: 3\r\n" + length(HIDDEN), HIDDEN),
     "POST TARGET"),
    ("request in an extension", "7.1.1",
     post(CHUNKED, b'1;a="GET /hidden HTTP/1.1"\r\nx\r\n0\r\n\r\n'), "POST TARGET"),
    ("unknown method", "9 of 9110", request(CHUNKED, chunks(HIDDEN), method=b"BREW"),
     "BREW TARGET"),
    ("lower-case method", "9.1 of 9110", request(length(HIDDEN), HIDDEN, method=b"get"),
     "get TARGET"),
    ("framing named by Connection", "7.6.1 of 9110",
     post(b"Connection: Content-Length, Host\r\n" + length(HIDDEN), HIDDEN), "POST TARGET"),
    ("TE.0 by OPTIONS", "6.1", request(CHUNKED, chunks(HIDDEN), method=b"OPTIONS"),
     "OPTIONS TARGET"),
    ("body on GET", "9.3.1 of 9110", request(length(HIDDEN), HIDDEN), "GET TARGET"),
    ("chunks on GET", "9.3.1 of 9110", request(CHUNKED, chunks(HIDDEN)), "GET TARGET"),
    ("no chunks on GET", "9.3.1 of 9110", request(CHUNKED, chunks()), "GET TARGET"),
    ("WebSocket refused by the origin", "7.8 of 9110", request(WEBSOCKET), "GET TARGET"),
    ("WebSocket of version 777", "4.4 of 6455", request(WEBSOCKET.replace(b"13", b"777")),
     "GET TARGET"),
    ("WebSocket with a body", "7.8 of 9110", request(WEBSOCKET + length(HIDDEN), HIDDEN),
     "GET TARGET"),
    ("WebSocket with chunks", "7.8 of 9110", request(WEBSOCKET + CHUNKED, chunks(HIDDEN)),
     "GET TARGET"),
    ("WebSocket by POST", "7.8 of 9110", post(WEBSOCKET + sized(b" 0")), "POST TARGET"),
    ("h2c by POST", "7.8 of 9110",
     post(b"HTTP2-Settings: AAMAAABkAARAAAAA\r\n" + UPGRADE % b"h2c, HTTP2-Settings"),
     "POST TARGET"),
    ("Expect with the body at once", "10.1.1 of 9110",
     post(b"Expect: 100-continue\r\n" + length(HIDDEN), HIDDEN), "POST TARGET"),
    ("Expect without a body", "10.1.1 of 9110",
     request(b"Expect: 100-continue\r\n", method=b"DELETE"), "DELETE TARGET"),
    ("If-Match", "13.1.1 of 9110", request(b'If-Match: "x"\r\n'), "GET TARGET"),
)  # fmt: skip

# Trailers are no fields of what comes behind: the connection ends with the answer.
TRAILERS = (
    *(b"X: GET /hidden HTTP/1.1", b"Host: evil.example", b"X-Odd: 1", b"X-Forwarded-For: 10.0.0.1"),
    *(b"Content-Length: 50", b"Transfer-Encoding: chunked", b"Authorization: Basic eDp5"),
)

# GETs that any path of the edge may answer from what is stored, and then has to.
PLAIN: tuple[tuple[str, str, bytes], ...] = (
    ("plain", "3", request()),
    ("empty lines first", "2.2", b"\r\n\r\n" + request()),
    ("length of 0", "8.6 of 9110", request(sized(b" 0"))),
    ("spaces around a value", "5.1", request(b"X:  y\t\r\n")),
    ("no space before a value", "5.1", request(b"X:y\r\n")),
    ("bytes beyond ASCII in a value", "5.5 of 9110", request(b"User-Agent: \xe4\xff\r\n")),
    ("Host in capitals", "4.2.3 of 9110", request().replace(b"shop.", b"SHOP.")),
    ("Host with the default port", "4.2.3 of 9110", request().replace(b"mple", b"mple:80")),
    ("absolute form", "3.2.2", request(target=b"http://shop.exampleTARGET")),
    ("absolute form in capitals", "3.2.2", request(target=b"HTTP://SHOP.exampleTARGET")),
    ("absolute form against Host", "3.2.2",
     request(target=b"http://shop.exampleTARGET").replace(b"Host: shop", b"Host: evil")),
    ("keep-alive", "9.3", request(b"Connection: keep-alive\r\n")),
    ("h2c", "7.8 of 9110",
     request(b"HTTP2-Settings: AAMAAABkAARAAAAA\r\n" + UPGRADE % b"h2c, HTTP2-Settings")),
    ("Upgrade without Connection", "7.8 of 9110", request(b"Upgrade: websocket\r\n")),
    ("Expect on GET", "10.1.1 of 9110", request(b"Expect: 100-continue\r\n")),
    ("Host named by Connection", "7.6.1 of 9110", request(b"Connection: Host\r\n")),
    ("Range that is none", "14.2 of 9110", request(b"Range: lines=1-2\r\n")),
    ("no-cache of a stranger", "5.2.1.4 of 9111", request(b"Cache-Control: no-cache\r\n")),
)  # fmt: skip

CONTROLS = tuple(byte for byte in (*range(0x20), 0x7F) if byte != 0x09)


def _refused() -> Iterator[Row]:
    for name, section, fields, body in FRAMINGS:
        for method in (b"GET", b"POST"):
            yield Row(
                f"{name}, {method.decode()}", section, request(fields, body, method=method),
                (501,) if name == "coding behind a comma" else (400,),
            )  # fmt: skip
    for name, fields, body in TOO_LARGE:
        for method in (b"GET", b"HEAD", b"POST", b"OPTIONS", b"BREW"):
            raw = request(fields, body, method=method)
            yield Row(f"{name}, {method.decode()}", "15.5.14 of 9110", raw, (413,))
        if fields != CHUNKED:
            old = request(b"Connection: keep-alive\r\n" + fields, body, version=b"HTTP/1.0")
            yield Row(f"{name}, HTTP/1.0", "15.5.14 of 9110", old, (413,))
    for value in UNKNOWN_CODINGS:
        for method in (b"GET", b"POST"):
            name = f"coding{value.decode() or ' empty'}, {method.decode()}"
            yield Row(name, "6.1", request(coded(value), HIDDEN, method=method), (501,))
    for method in (b"GET", b"POST"):
        old = request(
            b"Connection: keep-alive\r\n" + CHUNKED, b"0\r\n\r\n" + HIDDEN,
            method=method, version=b"HTTP/1.0",
        )  # fmt: skip
        yield Row(f"TE in HTTP/1.0, {method.decode()}", "6.1", old)
    for name, body in BODIES:
        yield Row(f"chunks, {name}", "7.1", post(CHUNKED, body + HIDDEN))
        yield Row(f"chunks, {name}, GET", "7.1", request(CHUNKED, body + HIDDEN))
    for name, section, line in LINES:
        yield Row(f"field, {name}", section, request(line))
        yield Row(f"field, {name}, first", section, request().replace(HOST, line + HOST))
    for byte in CONTROLS:
        control = bytes((byte,))
        yield Row(f"{byte:#04x} in a name", "5.1", request(b"X%b: y\r\n" % control))
        yield Row(f"{byte:#04x} in a value", "5.5 of 9110", request(b"X: y%bz\r\n" % control))
        yield Row(f"{byte:#04x} in the target", "3", request(target=b"TARGET" + control))
        yield Row(f"{byte:#04x} in Host", "3.2", request().replace(b"mple", b"mple" + control))
    for name, section, lines in HOSTS:
        yield Row(f"Host, {name}", section, request().replace(HOST, lines))
        absolute = request(target=b"http://shop.exampleTARGET").replace(HOST, lines)
        yield Row(f"Host, {name}, against absolute form", section, absolute)
    for name, section, target in TARGETS:
        yield Row(f"target, {name}", section, request(target=target))
    for name, line, status in LINE_STARTS:
        yield Row(name, "3", line + HOST + b"\r\n", (status,))
    for name, line in EXPECTATIONS:
        for method in (b"GET", b"POST"):
            yield Row(
                f"Expect {name}, {method.decode()}", "10.1.1 of 9110",
                request(line + length(HIDDEN), HIDDEN, method=method), (417,),
            )  # fmt: skip
    yield Row("HTTP/0.9 alone", "3", b"GET TARGET\r\n\r\n")
    yield Row("HTTP/2 preface", "3.4 of 9113", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505,))
    yield Row("TLS", "3", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    yield Row("request in the target", "3", b"GET TARGET HTTP/1.1\r\nX: y HTTP/1.1\r\n\r\n")
    yield Row("head that ends in bare LF", "2.2", b"GET TARGET HTTP/1.1\n" + HOST + b"\n" + HIDDEN)
    for name, start in (("LF", b"\n"), ("CR", b"\r"), ("LF CR", b"\n\r"), ("CR CR LF", b"\r\r\n")):
        yield Row(f"bare {name} first", "2.2", start + request())
        yield Row(f"empty line and bare {name} first", "2.2", b"\r\n" + start + request())
    yield Row("head that ends in LF LF", "2.2", request()[:-4] + b"\n\n")
    yield Row("head that ends in LF CR LF", "2.2", request()[:-4] + b"\n\r\n")
    for name, section, raw, status in SIZES:
        yield Row(name, section, raw, (status,))


def _taken() -> Iterator[Row]:
    for name, section, raw, seen in TAKEN:
        yield Row(name, section, raw, (200, 200), (seen,))
    for trailer in TRAILERS:
        for method in (b"GET", b"POST"):
            body = b"1;a=b\r\nx\r\n0\r\n%b\r\n\r\n" % trailer
            refused = trailer.startswith((b"Content-Length", b"Transfer-Encoding"))
            yield Row(
                f"trailer {trailer.decode()}, {method.decode()}", "7.1.2",
                request(CHUNKED, body, method=method),
                (400,) if refused else (200,), () if refused else (f"{method.decode()} TARGET",),
            )  # fmt: skip
    for name, section, raw in PLAIN:
        yield Row(name, section, raw, (200, 200), ("GET TARGET",), hit=True)
        yield Row(f"{name}, twice", section, raw + raw, (200, 200, 200), ("GET TARGET",), hit=True)
    close = request(b"Connection: %b\r\n")
    for options in (b"close", b"Close", b"keep-alive, close", b"close, keep-alive", b"x,close"):
        raw = close % options
        yield Row(options.decode(), "9.3", raw, (200,), ("GET TARGET",), hit=True)


def _old() -> Iterable[Row]:
    """HTTP/1.0 (9.3, C.2.2)."""
    old = request(version=b"HTTP/1.0")
    kept = request(b"Connection: keep-alive\r\n", version=b"HTTP/1.0")
    both = request(b"Connection: keep-alive, close\r\n", version=b"HTTP/1.0")
    return (
        Row("HTTP/1.0 ends its connection", "9.3", old, (200,), ("GET TARGET",), hit=True),
        Row("HTTP/1.0 keeps it", "9.3", kept, (200, 200), ("GET TARGET",), hit=True),
        Row("HTTP/1.0 does both", "9.3", both, (200,), ("GET TARGET",), hit=True),
    )


def _unkeyed() -> Iterator[Row]:
    """What is answered for another URL, or for none of the site's own."""
    other = "GET TARGET"
    for name, raw in (
        ("absolute form to another host", request(target=b"http://evil.exampleTARGET")),
        ("another Host", request().replace(b"shop.", b"evil.")),
        ("another port", request().replace(b"mple", b"mple:81")),
        ("a dot behind Host", request().replace(b"mple", b"mple.")),
    ):
        yield Row(name, "7.2 of 9110", raw, (200, 200), (other,))


REQUESTS: tuple[Row, ...] = (*_refused(), *_taken(), *_old(), *_unkeyed())
SECTIONS = tuple(sorted({row.section for row in REQUESTS}))
