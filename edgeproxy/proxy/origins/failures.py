"""How a try at an origin fails, and what may then be asked of another one."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from edgeproxy.proxy.decide import SAFE
from edgeproxy.proxy.errors import (
    OriginBusy,
    OriginFailed,
    OriginTimedOut,
    OriginUnreachable,
    OutOfFiles,
)

IDEMPOTENT: Final = SAFE | {b"PUT", b"DELETE"}
"""RFC 9110 9.2.2: a proxy must not repeat others by itself."""


class Failure(StrEnum):
    """What an origin has done wrong."""

    UNREACHABLE = "unreachable"
    """There was no connection: the request never left."""
    BROKEN = "broken"
    """The connection ended, or brought something that is not HTTP."""
    LATE = "late"
    """It was silent for too long."""
    STATUS = "status"
    """It answered with one of `breaker.statuses`."""


def failure_of(error: OriginFailed, *, uploading: bool) -> Failure | None:
    """What an error says of the origin; None: nothing, because it was not asked, or because the
    client may as well have been the slow one. `uploading`: the request has a body."""
    match error:
        case OriginUnreachable():
            return Failure.UNREACHABLE
        case OriginBusy() | OutOfFiles() | OriginTimedOut(stage="queue"):
            return None
        case OriginTimedOut(stage="total") if uploading:
            return None
        case OriginTimedOut():
            return Failure.LATE
    return Failure.BROKEN


def never_left(error: OriginFailed) -> bool:
    """Whether the origin can't have seen anything of the request."""
    match error:
        case OriginUnreachable() | OriginBusy() | OutOfFiles():
            return True
        case OriginTimedOut(stage="queue" | "connect"):
            return True
    return False


def may_ask_another(method: bytes, error: OriginFailed | None, *, repeatable: bool) -> bool:
    """Whether a request that failed so may go to another origin.

    `error` is None for an answer whose status counts as a failure; `repeatable`: its body can be
    sent once more from its start, or it has none. Interim responses that its client has had already
    bind nobody (RFC 9110 15.2): others may follow them, from wherever.
    """
    if error is not None and never_left(error):
        return True
    if not repeatable:
        return False
    if isinstance(error, OriginTimedOut) and error.stage == "total":
        return False
    return method in IDEMPOTENT
