"""What can go wrong on a request's way, and the status that a reader gets for it.

EdgeError
├── OriginFailed
│   ├── OriginUnreachable     502  no connection: refused, no such name, TLS not good
│   ├── CircuitOpen           502  or 504: it has failed too often a moment ago to be asked now
│   ├── OriginBusy            503  too many requests wait for a connection
│   ├── OutOfFiles            503  the edge has no file descriptor left for a connection
│   ├── OriginTimedOut        504  too late: a free connection, connecting, first byte, ...
│   ├── OriginDisconnected    502  the connection ended before the response's head did
│   ├── OriginProtocolError   502  what came is not HTTP, or breaks a limit
│   ├── NotValidated          504  unreachable, while what is stored must be validated
│   └── OriginBodyCut         502  the connection ended before the body did
├── ReaderTooSlow             502  fell behind a response that is too large to keep
├── Unkept                    502  nobody reads any more what is too large to keep
├── PeerLost                  502  the worker that fetched it is gone
└── InternalFailure           500  the edge itself
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Stage: TypeAlias = Literal["queue", "connect", "first-byte", "between-bytes", "total"]


class EdgeError(Exception):
    """A request that can't be answered as asked."""

    status: int = 502
    """The status that the reader gets if nothing has been sent yet."""
    detail: str = "failed"
    """The token that Cache-Status bears."""
    ends_connection: bool = False
    """Whether the reader's connection is closed behind the answer."""

    @property
    def disconnected(self) -> bool:
        """Whether the edge is what RFC 9111 4.2.4 calls disconnected."""
        return self.detail in _DISCONNECTED


class OriginFailed(EdgeError):
    """The origin did not answer as HTTP asks."""


class OriginUnreachable(OriginFailed):
    """No connection to the origin."""

    detail = "origin-unreachable"


class CircuitOpen(OriginFailed):
    """All origins have failed too often a moment ago: the reader is spared the wait."""

    detail = "origin-circuit-open"

    def __init__(self, *, late: bool) -> None:
        super().__init__("the origin has failed too often; it will be tried again in a moment")
        if late:
            self.status = 504


class OriginBusy(OriginFailed):
    """Too many requests wait for a connection to the origin."""

    status = 503
    detail = "origin-queue-full"


class OutOfFiles(OriginFailed):
    """The edge itself has no file descriptor left for a connection to the origin."""

    status = 503
    detail = "out-of-files"


class OriginTimedOut(OriginFailed):
    """The origin took too long over one stage of a request."""

    status = 504

    def __init__(self, stage: Stage, seconds: float) -> None:
        super().__init__(f"the origin took longer than {seconds:g} s ({stage})")
        self.stage = stage
        self.detail = f"origin-timeout-{stage}"


class OriginDisconnected(OriginFailed):
    """The connection ended before the response's head did."""

    detail = "origin-disconnected"


_DISCONNECTED = (OriginUnreachable.detail, CircuitOpen.detail, OriginDisconnected.detail)


class OriginProtocolError(OriginFailed):
    """What the origin sent is not HTTP, or breaks a limit."""

    detail = "origin-protocol-error"


class NotValidated(OriginFailed):
    """The origin can't be asked about a response that may not be used without (RFC 9111 5.2.2.2).

    `detail` says what kept it from being asked.
    """

    status = 504

    def __init__(self, failure: EdgeError) -> None:
        super().__init__(f"what is stored has to be validated, but {failure}")
        self.detail = failure.detail


class OriginBodyCut(OriginFailed):
    """The connection ended before the body did."""

    detail = "origin-body-cut"


class ReaderTooSlow(EdgeError):
    """The reader fell behind a response that is too large to keep."""

    detail = "reader-too-slow"


class Unkept(EdgeError):
    """Nobody reads any more what is too large to keep: there is no reason to fetch the rest."""

    detail = "too-large"


class PeerLost(EdgeError):
    """The worker that fetched a response for this one is gone."""

    detail = "peer-lost"


class InternalFailure(EdgeError):
    """The edge itself failed; the log says how."""

    status = 500

    def __init__(self, detail: str = "internal-error") -> None:
        super().__init__("the edge failed")
        self.detail = detail
