"""Certificates and their selection by server name, in real handshakes."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
import uvloop

from edgeproxy.runtime.tls import (
    Certificate,
    CertificateRefused,
    CertificateSelector,
    find,
    load_certificate,
)

AUTHORITY = trustme.CA()


def issue(folder: Path, *names: str, **options: datetime) -> tuple[Path, Path]:
    issued = AUTHORITY.issue_cert(*names, **options)
    stem = names[0].replace("*", "any")
    cert, key = folder / f"{stem}.pem", folder / f"{stem}.key"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return cert, key


def load(folder: Path, *names: str) -> Certificate:
    return load_certificate(*issue(folder, *names))


async def served_names(port: int, server_name: str | None) -> set[str]:
    """Those of the certificate that a client with this server name is shown."""
    context = ssl.create_default_context()
    context.check_hostname = False
    AUTHORITY.configure_trust(context)
    # uvloop and asyncio send no server name when it is empty.
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=server_name or ""
    )
    peer = writer.get_extra_info("peercert")
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() in (None, "http/1.1")
    writer.close()
    return {name for _, name in peer["subjectAltName"]}


async def serve(selector: CertificateSelector) -> tuple[asyncio.Server, int]:
    server = await asyncio.start_server(
        lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=selector.context
    )
    return server, server.sockets[0].getsockname()[1]


def test_names_and_end_are_read_from_the_certificate(tmp_path: Path) -> None:
    end = datetime(2040, 2, 3, 4, 5, 6, tzinfo=UTC)
    names = ("Shop.Example", "*.shop.example", "192.0.2.1")
    certificate = load_certificate(*issue(tmp_path, *names, not_after=end))
    assert certificate.names == ("shop.example", "*.shop.example")
    assert certificate.expires == end.timestamp()


def test_an_expired_certificate_is_loaded(tmp_path: Path) -> None:
    """It is better served than none: nothing else on the listener may suffer."""
    past = datetime.now(UTC) - timedelta(days=1)
    certificate = load_certificate(*issue(tmp_path, "old.example", not_after=past))
    assert certificate.expires < datetime.now(UTC).timestamp()


def test_a_self_signed_certificate_is_loaded(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(authority)
    key = tmp_path / "ca.key"
    AUTHORITY.private_key_pem.write_to_path(key)
    assert load_certificate(authority, key).names == ()


def test_a_certificate_that_cannot_be_used_is_refused_by_its_name(tmp_path: Path) -> None:
    cert, key = issue(tmp_path, "a.example")
    _, other_key = issue(tmp_path, "b.example")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate\n")
    cases = [
        (cert, other_key, "KEY_VALUES_MISMATCH"),
        (garbage, key, "certificate"),
        (tmp_path / "absent.pem", key, "No such file or directory"),
    ]
    for cert_file, key_file, says in cases:
        with pytest.raises(CertificateRefused, match=says) as refusal:
            load_certificate(cert_file, key_file)
        assert f"certificate {cert_file} with key {key_file}: " in str(refusal.value)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    cert, key = issue(tmp_path, "a.example")
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(CertificateRefused, match="the key is encrypted"):
        load_certificate(cert, key)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("shop.example", "exact"),
        ("SHOP.Example", "exact"),
        ("shop.example.", "exact"),
        ("www.shop.example", "wildcard"),
        ("api.shop.example", "own"),
        ("a.www.shop.example", None),
        ("example", None),
        ("", None),
        (None, None),
    ],
)
def test_a_name_finds_its_certificate(asked: str | None, found: str | None) -> None:
    """RFC 6125 6.4.3: a wildcard stands for one whole left-most label."""
    contexts = {
        name: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) for name in ("exact", "wildcard", "own")
    }
    by_name = {
        "shop.example": contexts["exact"],
        "*.shop.example": contexts["wildcard"],
        "api.shop.example": contexts["own"],
    }
    assert find(by_name, asked) is (contexts[found] if found else None)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_readers_are_shown_the_certificate_for_their_server_name(
    tmp_path: Path, new_loop: type[asyncio.AbstractEventLoop]
) -> None:
    async def check() -> None:
        first = load(tmp_path, "first.example")
        selector = CertificateSelector([first, load(tmp_path, "*.second.example")])
        server, port = await serve(selector)
        async with server:
            assert await served_names(port, "first.example") == {"first.example"}
            assert await served_names(port, "www.second.example") == {"*.second.example"}
            assert await served_names(port, "other.example") == {"first.example"}
            assert await served_names(port, None) == {"first.example"}

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(check())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_certificates_are_replaced_while_the_listener_is_in_use(
    tmp_path: Path, new_loop: type[asyncio.AbstractEventLoop]
) -> None:
    async def check() -> None:
        selector = CertificateSelector([load(tmp_path, "old.example", "same.example")])
        server, port = await serve(selector)
        async with server:
            assert await served_names(port, "same.example") == {"old.example", "same.example"}
            selector.replace([load(tmp_path, "new.example", "same.example")])
            assert await served_names(port, "same.example") == {"new.example", "same.example"}
            assert await served_names(port, "old.example") == {"new.example", "same.example"}

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(check())


async def test_old_protocol_versions_are_refused(tmp_path: Path) -> None:
    server, port = await serve(CertificateSelector([load(tmp_path, "a.example")]))
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    client.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    async with server:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.open_connection(
                "127.0.0.1", port, ssl=client, server_hostname="a.example"
            )
