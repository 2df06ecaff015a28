"""A request as its connection hands it to the handler, whoever has read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec

from edgeproxy.semantics.fields import Fields

if TYPE_CHECKING:
    from aiohttp import StreamReader, web

    from edgeproxy.proxy.deciding import Unanswered
    from edgeproxy.proxy.protocol import EdgeProtocol


class Incoming(msgspec.Struct, frozen=True, eq=False):
    """What a connection has read of one request, and the connection itself."""

    protocol: EdgeProtocol
    method: bytes
    """As it was sent."""
    target: bytes
    """As it was sent."""
    fields: Fields
    """All that came; of a request that is known, those that are not for the connection alone."""
    version: str
    """"1.0" or "1.1"."""
    keep_alive: bool
    """Whether the client may want another answer on this connection."""
    body: StreamReader | None = None
    """What comes behind the head; None where nothing can."""
    known: Unanswered | None = None
    """What the fast path has made of it already."""

    @classmethod
    def parsed(cls, request: web.BaseRequest) -> Incoming:
        """What aiohttp's parser has read."""
        return cls(
            protocol=cast("EdgeProtocol", request.protocol),
            method=request.method.encode(),
            target=request.raw_path.encode("utf-8", "surrogateescape"),
            fields=Fields(request.raw_headers),
            version="1.0" if request.version.minor == 0 else "1.1",
            keep_alive=request.keep_alive,
            body=request.content if request.body_exists else None,
        )

    @classmethod
    def read(cls, protocol: EdgeProtocol, known: Unanswered) -> Incoming:
        """What the fast path has read."""
        request = known.request
        return cls(
            protocol=protocol,
            method=request.method,
            target=known.target,
            fields=request.fields,
            version=request.version,
            keep_alive=not known.closing,
            known=known,
        )

    @property
    def head_only(self) -> bool:
        """Whether the answer has no body, whatever it is (RFC 9110 9.3.2)."""
        return self.method == b"HEAD"

    @property
    def secure(self) -> bool:
        """Whether it came over TLS to this edge itself."""
        transport = self.protocol.transport
        return transport is not None and transport.get_extra_info("sslcontext") is not None

    @property
    def remote(self) -> str | None:
        """The address at the other end; None where it has none."""
        name = self.protocol.peername
        return str(name[0]) if isinstance(name, list | tuple) else name
