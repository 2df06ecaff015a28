"""RFC 9110 7.6, RFC 7239: what is taken out of messages, and what the origin is told instead."""

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.forwarding import (
    HOP_BY_HOP,
    client_address,
    end_to_end,
    forwarded_request_fields,
    hops_left,
    is_heard,
    may_let_through,
    passed_on,
)
from tests.semantics.build import checked, field_values, fields, lines_of, tokens

TRUSTED: tuple[IPv4Network | IPv6Network, ...] = (
    ip_network("10.0.0.0/8"),
    ip_network("2001:db8:1::/48"),
)


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        pytest.param(["Connection: close", "A: 1"], ["A: 1"], id="7.6.1-Connection"),
        pytest.param(
            ["Connection: X-One, x-two", "X-One: 1", "X-TWO: 2", "A: 1"], ["A: 1"], id="7.6.1-named"
        ),
        pytest.param(["Connection: x-a", "Connection: x-b", "X-B: 1"], [], id="two-lines"),
        pytest.param(["Keep-Alive: timeout=5", "Proxy-Connection: x"], [], id="7.6.1-known"),
        pytest.param(["TE: trailers", "Upgrade: websocket"], [], id="7.6.1-TE-and-Upgrade"),
        pytest.param(["Transfer-Encoding: chunked", "Trailer: a"], [], id="framing"),
        pytest.param(["HTTP2-Settings: x"], [], id="7540-3.2.1"),
        pytest.param(["Proxy-Authorization: x", "Proxy-Authenticate: y"], [], id="11.7"),
        pytest.param(
            ["Connection: Cache-Control, Host, Set-Cookie", "Cache-Control: no-store", "Host: a"],
            ["Cache-Control: no-store", "Host: a"], id="7.6.1-what-is-for-all-is-not-an-option",
        ),
        pytest.param(["B: 1", "a: 2", "B: 3"], ["B: 1", "a: 2", "B: 3"], id="order-and-repeats"),
    ],
)  # fmt: skip
def test_end_to_end(lines: list[str], kept: list[str]) -> None:
    assert lines_of(end_to_end(fields(*lines))) == kept


names = tokens | st.sampled_from([*sorted(HOP_BY_HOP), b"Connection", b"X-A"])


@checked
@given(
    st.lists(st.tuples(names, field_values | st.just(b"x-a")), max_size=8).map(Fields),
)
def test_end_to_end_only_ever_takes_away(message: Fields) -> None:
    once = end_to_end(message)
    remaining = iter(message)
    assert all(pair in remaining for pair in once)
    assert end_to_end(once) == once
    assert not any(name.lower() in HOP_BY_HOP for name, _ in once)


def forward(
    *lines: str,
    client: str = "192.0.2.7",
    trusted: bool = False,
    scheme: str = "https",
    host: str = "shop.example",
    method: bytes = b"GET",
    peer: str | None = None,
    let_through: tuple[bytes, ...] = (),
) -> list[str]:
    return lines_of(
        forwarded_request_fields(
            fields(*lines), client=client, trusted=trusted, scheme=scheme, host=host,
            version="1.1", pseudonym="edge", method=method, peer=peer,
            let_through=frozenset(let_through),
        )
    )  # fmt: skip


OWN = [
    "Via: 1.1 edge",
    "X-Forwarded-For: 192.0.2.7",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: shop.example",
    "Forwarded: for=192.0.2.7;host=shop.example;proto=https",
]


def test_a_plain_request() -> None:
    lines = ["Host: shop.example", "Cookie: a=b", "Connection: keep-alive", "accept: */*"]
    assert forward(*lines) == ["Host: shop.example", "Cookie: a=b", "accept: */*", *OWN]


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-For: 1.2.3.4",
        "x-forwarded-host: evil.example",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Scheme: http",
        "X-Forwarded-Port: 1",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Server: evil.example",
        "X-Forwarded-Anything: x",
        "X_Forwarded_Host: evil.example",
        "Forwarded: for=1.2.3.4;host=evil.example",
        "X-Host: evil.example",
        "X-Original-Host: evil.example",
        "X-HTTP-Host-Override: evil.example",
        "X-Original-URL: /admin",
        "X_Original_URL: /admin",
        "X-Rewrite-URL: /admin",
        "X-HTTP-Method-Override: DELETE",
        "X-HTTP-Method: DELETE",
        "X-Method-Override: DELETE",
        "X-Method: DELETE",
        "X-Forwarded: evil.example",
        "Forwarded-Host: evil.example",
        "Proxy-Host: evil.example",
        "Fastly-Orig-Host: evil.example",
        "Host-Override: evil.example",
        "X-Orig-Host: evil.example",
        "X-Rewritten-URL: /admin",
        "X-URL: /admin",
        "X-Original-URI: /admin",
        "X-Override-URL: /admin",
        "X-Original-Scheme: http",
        "X-Envoy-Original-Path: /admin",
        "X-Middleware-Subrequest: middleware",
        "X-Invoke-Status: 500",
        "X-Invoke-Error: {}",
        "X-Middleware-Override-Headers: host",
        "X-Accel-Mapping: /=/etc/",
        "X-Sendfile-Type: X-Accel-Redirect",
        "X-Forward-Host: evil.example",
        "X-Azure-Ref: evil",
        "Disguised-Host: evil.example",
        "Max-Forwards: 0",
        "CF-Connecting-IP: 1.2.3.4",
        'CF-Visitor: {"scheme":"http"}',
        "CloudFront-Forwarded-Proto: http",
        "X-Real-IP: 1.2.3.4",
        "True-Client-IP: 1.2.3.4",
        "Front-End-Https: on",
        'Surrogate-Capability: evil="ESI/1.0"',
        "Proxy: evil.example:80",
        "Transfer_Encoding: chunked",
        "Content_Length: 3",
        "Content.Length: 3",
    ],
)
def test_what_a_stranger_says_in_a_proxys_place_is_not_passed_on(line: str) -> None:
    assert forward(line, "A: 1") == ["A: 1", *OWN]


@pytest.mark.parametrize(
    "line",
    [
        "X-Original-URL: /admin",
        "X-Rewrite-URL: /admin",
        "X-Method-Override: DELETE",
        "X-Forwarded-Host: other.example",
        "X-Forwarded-Proto: http",
        "X_Forwarded_Prefix: /evil",
        "Proxy: x",
    ],
)
def test_what_no_proxy_vouches_for_or_the_key_says_otherwise(line: str) -> None:
    assert forward(line, trusted=True) == OWN


@pytest.mark.parametrize(
    "line", ["X-Forwarded-Prefix: /shop", "True-Client-IP: 1.2.3.4", "X-HTTP-Method: DELETE"]
)
def test_a_site_may_have_fields_let_through(line: str) -> None:
    named = line.partition(":")[0].lower().encode()
    assert forward(line, let_through=(named,)) == [line, *OWN]
    assert forward(line, let_through=(b"x-other",)) == OWN
    assert may_let_through(named)


@pytest.mark.parametrize(
    "name", ["proxy", "x-purge-token", "forwarded", "x-forwarded-for", "x_forwarded_host"]
)
def test_what_nobody_can_have_let_through(name: str) -> None:
    assert not may_let_through(name.encode())


def test_trusted_proxies_are_otherwise_believed() -> None:
    lines = ["X-Forwarded-Prefix: /shop", "X-Forwarded-Port: 8443", "X-Real-IP: 192.0.2.7"]
    assert forward(*lines, trusted=True) == [*lines, *OWN]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
def test_methods_may_be_overridden_where_nothing_is_cached(method: bytes) -> None:
    sent = forward("X-HTTP-Method-Override: PATCH", method=method)
    assert ("X-HTTP-Method-Override: PATCH" in sent) is (method == b"POST")


@pytest.mark.parametrize(
    ("lines", "peer", "chain", "forwarded"),
    [
        pytest.param(
            ["X-Forwarded-For: 1.1.1.1, 192.0.2.7"], "10.0.0.1",
            "1.1.1.1, 192.0.2.7, 10.0.0.1", "for=192.0.2.7", id="X-Forwarded-For",
        ),
        pytest.param(
            ["X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 192.0.2.7"], None,
            "1.1.1.1, 192.0.2.7", "for=192.0.2.7", id="X-Forwarded-For-twice",
        ),
        pytest.param(
            ["Forwarded: for=192.0.2.7"], "10.0.0.1",
            "192.0.2.7, 10.0.0.1", "for=192.0.2.7, for=10.0.0.1", id="7239-Forwarded",
        ),
        pytest.param(
            ["X-Forwarded-For: 192.0.2.7", "Forwarded: for=6.6.6.6"], "10.0.0.1",
            "192.0.2.7, 10.0.0.1", "for=192.0.2.7", id="both-of-which-one-may-be-the-clients-own",
        ),
        pytest.param([], None, "192.0.2.7", "for=192.0.2.7", id="neither"),
        pytest.param(["X-Forwarded-For:"], None, "192.0.2.7", "for=192.0.2.7", id="empty"),
    ],
)  # fmt: skip
def test_what_came_through_a_trusted_proxy_is_added_to(
    lines: list[str], peer: str | None, chain: str, forwarded: str
) -> None:
    sent = forward(*lines, trusted=True, peer=peer)
    assert f"X-Forwarded-For: {chain}" in sent
    assert f"Forwarded: {forwarded};host=shop.example;proto=https" in sent
    assert len(sent) == len(OWN)


@pytest.mark.parametrize(
    ("client", "host", "element"),
    [
        pytest.param("192.0.2.7", "a.b", "for=192.0.2.7;host=a.b;proto=http", id="7239-4"),
        pytest.param("2001:db8::7", "a.b", 'for="[2001:db8::7]";host=a.b;proto=http', id="7239-6"),
        pytest.param("192.0.2.7", "a.b:81", 'for=192.0.2.7;host="a.b:81";proto=http', id="port"),
        pytest.param("192.0.2.7", "[::1]", 'for=192.0.2.7;host="[::1]";proto=http', id="IPv6-host"),
        pytest.param("unknown", "a.b", "for=unknown;host=a.b;proto=http", id="7239-6.2"),
        pytest.param("192.0.2.7", "", "for=192.0.2.7;proto=http", id="no-host"),
    ],
)
def test_forwarded_elements(client: str, host: str, element: str) -> None:
    sent = forward(client=client, host=host, scheme="http")
    assert sent[-1] == f"Forwarded: {element}"
    assert any(line.startswith("X-Forwarded-Host") for line in sent) is bool(host)


def test_via_is_appended_to() -> None:  # RFC 9110 7.6.3
    sent = forward("Via: 1.0 a", "B: 1", "Via: 2 b (x)")
    assert sent[:2] == ["Via: 1.0 a, 2 b (x), 1.1 edge", "B: 1"]
    response = passed_on(fields("Via: 1.1 x", "A: 1"), "1.0", "edge")
    assert lines_of(response) == ["Via: 1.1 x, 1.0 edge", "A: 1"]
    assert lines_of(passed_on(fields("A: 1"), "1.1", "edge")) == ["A: 1", "Via: 1.1 edge"]
    hidden = fields("Connection: via, a", "Via: 1.1 x", "A: 1", "B: 2", "Keep-Alive: 3")
    assert lines_of(passed_on(hidden, "1.1", "edge")) == ["B: 2", "Via: 1.1 edge"]


def test_connection_cannot_take_out_what_is_added() -> None:
    assert forward("Connection: Via, X-Forwarded-For, Forwarded") == OWN


@pytest.mark.parametrize(
    ("lines", "peer", "client", "trusted"),
    [
        pytest.param([], "192.0.2.7", "192.0.2.7", False, id="direct"),
        pytest.param(
            ["X-Forwarded-For: 1.1.1.1"], "192.0.2.7", "192.0.2.7", False, id="an-untrusted-word"
        ),
        pytest.param([], "10.0.0.1", "10.0.0.1", True, id="a-proxys-own-request"),
        pytest.param(["X-Forwarded-For: 1.1.1.1"], "10.0.0.1", "1.1.1.1", True, id="through-one"),
        pytest.param(
            ["X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.2"], "10.0.0.1", "1.1.1.1", True,
            id="right-most-untrusted",
        ),
        pytest.param(
            ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 1.1.1.1"], "10.0.0.1", "1.1.1.1", True,
            id="several-lines",
        ),
        pytest.param(
            ["X-Forwarded-For: 10.0.0.3, 10.0.0.2"], "10.0.0.1", "10.0.0.3", True, id="all-trusted"
        ),
        pytest.param(
            ["X-Forwarded-For: 1.1.1.1, unknown, 10.0.0.2"], "10.0.0.1", "10.0.0.2", True,
            id="a-node-without-address-ends-the-search",
        ),
        pytest.param(
            ["X-Forwarded-For: 1.1.1.1,"], "10.0.0.1", "10.0.0.1", True, id="an-empty-node"
        ),
        pytest.param(
            ["X-Forwarded-For: 1.1.1.1:4711"], "10.0.0.1", "1.1.1.1", True, id="with-port"
        ),
        pytest.param(
            ["X-Forwarded-For: [2001:db8::9]:4711"], "10.0.0.1", "2001:db8::9", True, id="v6-port"
        ),
        pytest.param(
            ["X-Forwarded-For: 2001:db8::9"], "2001:db8:1::1", "2001:db8::9", True, id="v6"
        ),
        pytest.param(
            ["Forwarded: for=6.6.6.6, for=1.1.1.1;by=x, For=10.0.0.2"], "10.0.0.1", "1.1.1.1", True,
            id="7239",
        ),
        pytest.param(
            ['Forwarded: proto=http;FOR="[2001:db8::9]:47"'], "10.0.0.1", "2001:db8::9", True,
            id="7239-6-quoted",
        ),
        pytest.param(
            ["Forwarded: for=1.1.1.1, for=_hidden"], "10.0.0.1", "10.0.0.1", True, id="7239-6.3"
        ),
        pytest.param(["Forwarded: proto=http"], "10.0.0.1", "10.0.0.1", True, id="7239-no-for"),
        pytest.param(
            ["Forwarded: for=6.6.6.6", "X-Forwarded-For: 1.1.1.1"], "10.0.0.1", "1.1.1.1", True,
            id="X-Forwarded-For-counts",
        ),
        pytest.param(
            ["X-Forwarded-For: 1.1.1.1"], "::ffff:10.0.0.1", "1.1.1.1", True, id="mapped-peer"
        ),
        pytest.param([], "::ffff:192.0.2.7", "192.0.2.7", False, id="mapped-client"),
        pytest.param(["X-Forwarded-For: 1.1.1.1"], "unknown", "unknown", False, id="unix-socket"),
    ],
)  # fmt: skip
def test_client_address(lines: list[str], peer: str, client: str, trusted: bool) -> None:
    assert client_address(fields(*lines), peer, TRUSTED) == (client, trusted)


@checked
@given(field_values, st.sampled_from([b"X-Forwarded-For", b"Forwarded"]), st.ip_addresses(v=4))
def test_what_a_client_writes_never_hides_the_address_a_trusted_proxy_saw(
    written: bytes, name: bytes, seen: object
) -> None:
    node = b"for=%b" % str(seen).encode() if name == b"Forwarded" else str(seen).encode()
    # Two lines: what a client leaves open in its own must not swallow what the proxy adds.
    request = Fields([(name, written), (name, node)])
    client, trusted = client_address(request, "10.0.0.1", TRUSTED)
    assert trusted
    if not any(seen in network for network in TRUSTED if network.version == 4):
        assert client == str(seen)


@checked
@given(
    st.lists(st.tuples(names | st.just(b"X-Forwarded-For"), field_values), max_size=6).map(Fields),
    st.booleans(),
)
def test_forwarding_never_raises_and_always_says_the_same_of_itself(
    message: Fields, trusted: bool
) -> None:
    sent = forwarded_request_fields(
        message, client="192.0.2.7", trusted=trusted, scheme="https", host="a.b", version="1.1",
        pseudonym="edge",
    )  # fmt: skip
    for name in (b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"):
        assert len(sent.get_all(name)) == 1
    assert sent.get(b"x-forwarded-host") == b"a.b"
    assert trusted or sent.get(b"x-forwarded-for") == b"192.0.2.7"


@pytest.mark.parametrize(
    ("method", "lines", "hops"),
    [
        pytest.param(b"OPTIONS", ["Max-Forwards: 5"], 5, id="7.6.2"),
        pytest.param(b"TRACE", ["Max-Forwards: 0"], 0, id="7.6.2-no-further"),
        pytest.param(b"OPTIONS", [], None, id="absent"),
        pytest.param(b"OPTIONS", ["Max-Forwards: -1"], None, id="no-number"),
        pytest.param(b"GET", ["Max-Forwards: 0"], None, id="7.6.2-another-method"),
    ],
)
def test_how_far_a_request_may_go(method: bytes, lines: list[str], hops: int | None) -> None:
    assert hops_left(method, fields(*lines)) == hops


@checked
@given(
    tokens
    | st.sampled_from([b"X-Forwarded-Port", b"X_Forwarded_Port", b"X-Original-URL", b"X-Method"])
    | st.sampled_from(sorted(HOP_BY_HOP)),
    st.booleans(),
    st.booleans(),
)
def test_what_is_heard_is_what_the_origin_is_told(name: bytes, trusted: bool, let: bool) -> None:
    let_through = (name.lower(),) if let else ()
    heard = is_heard(name.lower(), trusted, let_through=frozenset(let_through))
    line = f"{name.decode()}: said"
    assert heard == (line in forward(line, trusted=trusted, let_through=let_through))
