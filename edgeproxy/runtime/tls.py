"""TLS towards readers: certificates from files, selected by server name, replaceable in place."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from edgeproxy.config.model import Config

_NO_CHECK_TIME = ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL


class CertificateRefused(ValueError):
    """A certificate and key cannot be used; the text names the files and says why."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was loaded and has been seen to work with its key."""

    context: ssl.SSLContext
    names: tuple[str, ...]
    """The DNS names that it is for, lower-case, some beginning with `*.`."""
    expires: int
    """Seconds since the epoch."""


def load_certificate(cert: Path, key: Path) -> Certificate:
    """Load a chain and its key, both PEM. Raises CertificateRefused."""
    context = _server_context()
    try:
        # A key with a pass phrase would ask at the terminal.
        context.load_cert_chain(cert, key, password=_refuse_password)
        peer = _certificate_in_use(context, cert)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise CertificateRefused(f"certificate {cert} with key {key}: {reason}") from error
    names = tuple(name.lower() for kind, name in peer.get("subjectAltName", ()) if kind == "DNS")
    return Certificate(context, names, ssl.cert_time_to_seconds(peer["notAfter"]))


def load_certificates(config: Config) -> list[list[Certificate]]:
    """The certificates of each listener, in the configuration's order; none where it has no TLS.

    Raises CertificateRefused.
    """
    loaded: list[list[Certificate]] = []
    for number, listener in enumerate(config.listen):
        named = listener.tls.certificates if listener.tls else ()
        loaded.append([])
        for place, one in enumerate(named):
            try:
                loaded[number].append(load_certificate(one.cert, one.key))
            except CertificateRefused as error:
                key = f"listen[{number}].tls.certificates[{place}]"
                raise CertificateRefused(f"{key}: {error}") from error
    return loaded


class CertificateSelector:
    """The TLS context of a listener, whose certificates can be replaced while it is in use.

    The first certificate answers for clients that send no server name, or one that no certificate
    has (RFC 6066 section 3 allows to go on; the reader then decides).
    """

    def __init__(self, certificates: Sequence[Certificate]) -> None:
        self.context = _server_context()
        self.context.sni_callback = self._select
        self.replace(certificates)

    def replace(self, certificates: Sequence[Certificate]) -> None:
        """New connections get these from now on; those in place keep theirs."""
        self._first = certificates[0].context
        self._by_name = _by_name(certificates)

    def _select(
        self, connection: ssl.SSLObject, server_name: str | None, _: ssl.SSLContext
    ) -> None:
        connection.context = find(self._by_name, server_name) or self._first


def _by_name(certificates: Iterable[Certificate]) -> dict[str, ssl.SSLContext]:
    by_name: dict[str, ssl.SSLContext] = {}
    for certificate in certificates:
        for name in certificate.names:
            by_name.setdefault(name, certificate.context)
    return by_name


def find(by_name: Mapping[str, ssl.SSLContext], server_name: str | None) -> ssl.SSLContext | None:
    """The exact name first, then the wildcard for its left-most label (RFC 6125 section 6.4.3)."""
    if server_name is None:
        return None
    name = server_name.lower().rstrip(".")
    return by_name.get(name) or by_name.get("*." + name.partition(".")[2])


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _refuse_password() -> str:
    raise ValueError("the key is encrypted; a key without pass phrase is needed")


def _certificate_in_use(context: ssl.SSLContext, cert: Path) -> dict[str, Any]:
    """What a client sees of the certificate, after a handshake in memory.

    It shows that the chain and the key work before any reader finds out, and lets OpenSSL decode
    the names. An expired certificate passes: it is served until somebody renews it.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    client.load_verify_locations(cafile=cert)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server),
        context.wrap_bio(to_server, to_client, server_side=True),
    )
    for side in sides * 2:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return sides[0].getpeercert() or {}
