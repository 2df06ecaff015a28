"""What the edge makes of a request: its site, its sender, its key; read off a real connection."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from edgeproxy.config.sites import SiteTable
from edgeproxy.proxy.intake import Intake, Misdirected
from edgeproxy.semantics.errors import BadRequest
from edgeproxy.semantics.fields import Fields
from tests.kit import Connection
from tests.proxy.parts import edge_config
from tests.proxy.reader_side import serving, with_writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from edgeproxy.proxy.incoming import Incoming
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.wire import ResponseWriter

LOOPBACK = ("127.0.0.0/8",)
STRANGERS = ("198.51.100.0/24",)


class Reader:
    """Reads requests as the handler does, and keeps what it has made of them."""

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        self._url = url
        self._tls = tls
        self.read: list[EdgeRequest] = []
        self.refused: list[Exception] = []

    async def __call__(self, raw: bytes) -> EdgeRequest:
        """What was read of these bytes."""
        self.read.clear()
        self.refused.clear()
        async with await Connection.open(
            self._url, tls=self._tls, server_name="shop.test"
        ) as connection:
            await connection.send(raw)
            await connection.response()
        if self.refused:
            raise self.refused[0]
        return self.read[0]


@asynccontextmanager
async def intake(
    trusted: tuple[str, ...] = (),
    *,
    site: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    authority: trustme.CA | None = None,
) -> AsyncIterator[Reader]:
    """A server that reads requests as the edge would with that configuration."""
    sites = SiteTable(edge_config(Path("/nowhere"), site=site, config=config))
    reading = Intake(sites, [ip_network(each) for each in trusted])

    @with_writer
    async def answer(raw: Incoming, writer: ResponseWriter) -> None:
        try:
            reader.read.append(reading.read(raw))
        except (BadRequest, Misdirected) as error:
            reader.refused.append(error)
        await writer.start(204, b"", Fields(), None)
        await writer.finish()

    server_side = client_side = None
    if authority is not None:
        server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("shop.test").configure_cert(server_side)
        client_side = ssl.create_default_context()
        authority.configure_trust(client_side)
    async with serving(answer, tls=server_side) as served:
        reader = Reader(served.url, client_side)
        yield reader


def get(
    target: str = "/", *lines: str, host: str | None = "shop.test", method: str = "GET"
) -> bytes:
    """A request's bytes."""
    named = [] if host is None else [f"Host: {host}"]
    head = "\r\n".join([f"{method} {target} HTTP/1.1", *named, *lines])
    return head.encode("latin-1") + b"\r\n\r\n"


# -- which site


@pytest.mark.parametrize(
    ("host", "site", "environment"),
    [
        ("shop.test", "shop", "production"),
        ("SHOP.test", "shop", "production"),
        ("shop.test:8080", "shop", "production"),
        ("preview.shop.test", "shop", "preview"),
        ("a.blog.test", "blog", "production"),
    ],
)
async def test_the_host_tells_the_site(host: str, site: str, environment: str) -> None:
    blog = {"hosts": ["*.blog.test"], "origins": [{"url": "http://127.0.0.1:9"}]}
    async with intake(config={"sites": {"blog": blog}}) as read:
        request = await read(get(host=host))
    assert (request.policy.name, request.environment) == (site, environment)
    assert (request.key.site, request.authority) == (site, host.lower())


async def test_a_host_that_nobody_serves_is_misdirected() -> None:
    async with intake() as read:
        with pytest.raises(Misdirected, match=r"other\.test"):
            await read(get(host="other.test"))
        with pytest.raises(Misdirected, match="without Host"):
            await read(b"GET / HTTP/1.0\r\n\r\n")


async def test_the_default_site_takes_every_host() -> None:
    async with intake(config={"default_site": "shop"}) as read:
        request = await read(get(host="other.test:81"))
        assert (request.policy.name, request.key.host) == ("shop", "other.test:81")
        old = await read(b"GET /a HTTP/1.0\r\n\r\n")
    assert (old.version, old.key.host) == ("1.0", "127.0.0.1:9"), "the name of the origin itself"


# -- what is asked for


@pytest.mark.parametrize(
    ("raw", "target", "url"),
    [
        pytest.param(get("/a?b=c"), b"/a?b=c", "http://shop.test/a?b=c", id="9112-3.2.1: origin"),
        pytest.param(
            get("http://shop.test/a?b", host="other.test"),
            b"/a?b",
            "http://shop.test/a?b",
            id="9112-3.2.2: absolute",
        ),
        pytest.param(
            get("http://shop.test", host="shop.test"),
            b"/",
            "http://shop.test/",
            id="9110-4.2.3: an empty path",
        ),
        pytest.param(
            get("*", method="OPTIONS"), b"*", "http://shop.test*", id="9112-3.2.4: asterisk"
        ),
        pytest.param(
            get("/cb:t1/a?b"), b"/a?b", "http://shop.test/cb:t1/a?b", id="a copy of its own"
        ),
        pytest.param(get("/%7Ea"), b"/%7Ea", "http://shop.test/%7Ea", id="no byte is changed"),
        pytest.param(
            get(host="shop.test:80"), b"/", "http://shop.test/", id="9110-4.2.3: default port"
        ),
        pytest.param(
            get("/a\xff"), b"/a\xff", "http://shop.test/a%FF", id="bytes beyond ASCII, as they are"
        ),
    ],
)
async def test_target_and_key(raw: bytes, target: bytes, url: str) -> None:
    async with intake() as read:
        request = await read(raw)
    assert (request.target, request.key.url) == (target, url)


@pytest.mark.parametrize(
    ("method", "key", "asked"),
    [
        ("GET", {}, b"/a?c=d"),
        ("HEAD", {}, b"/a?c=d"),
        ("GET", {"sort_query": True}, b"/a?b=e&c=d"),
        ("GET", {"forward_ignored": True}, b"/a?utm_source=b&c=d"),
        ("OPTIONS", {}, b"/a?utm_source=b&c=d"),
    ],
)
async def test_the_origin_is_not_told_what_the_key_leaves_out(
    method: str, key: dict[str, bool], asked: bytes
) -> None:
    """A page may show any of it, and is served to those who said something else."""
    sent = "/a?utm_source=b&c=d" + ("&b=e" if "sort_query" in key else "")
    async with intake(site={"key": {"ignore_tracking": True, **key}}) as read:
        request = await read(get(sent, method=method))
    assert request.target == asked


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(get(host="a b"), "host-invalid", id="9112-3.2: no host"),
        pytest.param(get(host="shop.test:99999"), "host-invalid", id="9110-4.2: no port"),
        pytest.param(get("http://u@shop.test/"), "target-userinfo", id="9110-4.2.4: userinfo"),
        pytest.param(get("/#a"), "target-fragment", id="9110-7.1: a fragment"),
    ],
)
async def test_what_is_no_good_request(raw: bytes, reason: str) -> None:
    """As far as the server's own checks let it come."""
    async with intake() as read:
        with pytest.raises(BadRequest) as caught:
            await read(raw)
    assert caught.value.reason == reason


# -- who sent it


@pytest.mark.parametrize(
    ("trusted", "lines", "client", "is_trusted"),
    [
        pytest.param((), (), "127.0.0.1", False, id="the other end"),
        pytest.param(
            STRANGERS, ("X-Forwarded-For: 192.0.2.1",), "127.0.0.1", False, id="not believed"
        ),
        pytest.param(LOOPBACK, (), "127.0.0.1", True, id="a proxy itself"),
        pytest.param(LOOPBACK, ("X-Forwarded-For: 192.0.2.1",), "192.0.2.1", True, id="believed"),
        pytest.param(
            LOOPBACK,
            ("X-Forwarded-For: 203.0.113.9, 192.0.2.1",),
            "192.0.2.1",
            True,
            id="the right-most that is not trusted",
        ),
        pytest.param(
            LOOPBACK, ('Forwarded: for="[2001:db8::1]"',), "2001:db8::1", True, id="7239-4"
        ),
    ],
)
async def test_the_client_is_whom_trusted_proxies_name(
    trusted: tuple[str, ...], lines: tuple[str, ...], client: str, is_trusted: bool
) -> None:
    async with intake(trusted) as read:
        request = await read(get("/", *lines))
    assert (request.client, request.peer, request.trusted) == (client, "127.0.0.1", is_trusted)


@pytest.mark.parametrize(
    ("trusted", "said", "scheme"),
    [
        pytest.param((), "https", "http", id="a stranger is not believed"),
        pytest.param(LOOPBACK, "https", "https", id="a trusted proxy is"),
        pytest.param(LOOPBACK, "HTTPS, http", "https", id="the first one in a chain, in any case"),
        pytest.param(LOOPBACK, "ftp", "http", id="but only of HTTP's schemes"),
        pytest.param(LOOPBACK, "", "http", id="and if it says one"),
    ],
)
async def test_the_scheme_that_the_reader_spoke(
    trusted: tuple[str, ...], said: str, scheme: str
) -> None:
    async with intake(trusted) as read:
        request = await read(get("/", f"X-Forwarded-Proto: {said}"))
    assert (request.scheme, request.key.scheme) == (scheme, scheme)


async def test_tls_is_https() -> None:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    async with intake(LOOPBACK, authority=authority) as read:
        assert (await read(get())).key.url == "https://shop.test/"
        behind = await read(get("/", "X-Forwarded-Proto: http"))
        assert behind.key.url == "http://shop.test/", "a proxy that speaks TLS to us, only"


# -- what else it says


@pytest.mark.parametrize(
    ("setting", "trusted", "honoured"),
    [
        ("ignore", LOOPBACK, False),
        ("honour", (), True),
        ("trusted", (), False),
        ("trusted", LOOPBACK, True),
    ],
)
async def test_whose_directives_count(
    setting: str, trusted: tuple[str, ...], honoured: bool
) -> None:
    site = {"cache": {"request_cache_control": setting}}
    async with intake(trusted, site=site) as read:
        request = await read(get("/", "Cache-Control: max-age=0, no-transform"))
    assert request.honour_directives is honoured
    assert (request.directives.max_age, request.directives.no_transform) == (0, True)


async def test_pragma_is_read_as_no_cache() -> None:
    """RFC 9111 5.4."""
    async with intake() as read:
        assert (await read(get("/", "Pragma: no-cache"))).directives.no_cache


@pytest.mark.parametrize(
    ("lines", "has_body"),
    [
        ((), False),
        (("Content-Length: 0",), False),
        (("Content-Length: 1",), True),
        (("Transfer-Encoding: chunked",), True),
    ],
)
async def test_whether_there_is_a_body(lines: tuple[str, ...], has_body: bool) -> None:
    body = {"Content-Length: 1": b"x", "Transfer-Encoding: chunked": b"1\r\nx\r\n0\r\n\r\n"}
    async with intake() as read:
        request = await read(get("/", *lines, method="POST") + body.get("".join(lines), b""))
    assert (request.method, request.has_body) == (b"POST", has_body)


async def test_fields_stay_as_they_were_sent() -> None:
    async with intake() as read:
        request = await read(get("/", "X-a: \xe9", "x-A: 2", "Accept: */*"))
    assert request.fields.raw == (
        (b"Host", b"shop.test"),
        (b"X-a", b"\xe9"),
        (b"x-A", b"2"),
        (b"Accept", b"*/*"),
    )


async def test_fields_for_the_connection_alone_are_not_the_request_s() -> None:
    """RFC 9110 7.6.1: nor can they select a variant, as the origin does not see them."""
    async with intake() as read:
        request = await read(
            get("/", "Connection: close, X-Hop", "X-Hop: 1", "TE: trailers", "X-Stays: 1")
        )
    names = [name for name, _ in request.fields]
    assert names == [b"Host", b"X-Stays"]


@pytest.mark.parametrize(
    ("raw", "upgrade"),
    [
        pytest.param(
            get("/", "Connection: Upgrade", "Upgrade: websocket"), b"websocket", id="asked"
        ),
        pytest.param(
            get("/", "Connection: upgrade", "Upgrade: a/1", "Upgrade: b"), b"a/1, b", id="a choice"
        ),
        pytest.param(get("/", "Upgrade: websocket"), b"", id="9110-7.8: not named by Connection"),
        pytest.param(get("/"), b"", id="not asked"),
        pytest.param(
            get("/", "Connection: Upgrade", "Upgrade: a").replace(b"HTTP/1.1", b"HTTP/1.0"),
            b"",
            id="9110-7.8: HTTP/1.0 has none",
        ),
    ],
)
async def test_what_the_connection_is_asked_to_switch_to(raw: bytes, upgrade: bytes) -> None:
    async with intake() as read:
        request = await read(raw)
    assert request.upgrade == upgrade
    assert b"upgrade" not in request.fields


@pytest.mark.parametrize(
    ("networks", "method", "directives", "anew"),
    [
        pytest.param(["127.0.0.0/8"], "GET", "no-cache", True, id="a neighbour's no-cache"),
        pytest.param(["127.0.0.0/8"], "GET", "max-age=0", False, id="not no-cache"),
        pytest.param(["127.0.0.0/8"], "HEAD", "no-cache", False, id="not GET"),
        pytest.param(["192.0.2.0/24"], "GET", "no-cache", False, id="a stranger's"),
        pytest.param([], "GET", "no-cache", False, id="without neighbours"),
    ],
)
async def test_who_may_have_it_fetched_anew(
    networks: list[str], method: str, directives: str, anew: bool
) -> None:
    async with intake(site={"varnish": {"networks": networks}}) as read:
        request = await read(get("/", f"Cache-Control: {directives}", method=method))
    assert (request.anew, request.honour_directives) == (anew, anew)


@pytest.mark.parametrize(("client", "anew"), [("192.0.2.7", True), ("198.51.100.1", False)])
async def test_a_neighbour_is_known_through_trusted_proxies(client: str, anew: bool) -> None:
    async with intake(LOOPBACK, site={"varnish": {"networks": ["192.0.2.0/24"]}}) as read:
        request = await read(get("/", "Cache-Control: no-cache", f"X-Forwarded-For: {client}"))
    assert request.anew is anew
