"""What an error says of an origin, and what may then go to another one (RFC 9110 9.2.2)."""

import pytest

from edgeproxy.proxy.errors import (
    OriginBusy,
    OriginDisconnected,
    OriginFailed,
    OriginProtocolError,
    OriginTimedOut,
    OriginUnreachable,
    OutOfFiles,
)
from edgeproxy.proxy.origins.failures import Failure, failure_of, may_ask_another, never_left


def late(stage: str) -> OriginTimedOut:
    return OriginTimedOut(stage, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "failure", "unseen"),
    [
        (OriginUnreachable("x"), Failure.UNREACHABLE, True),
        (OriginBusy("x"), None, True),
        (OutOfFiles("x"), None, True),
        (late("queue"), None, True),
        (late("connect"), Failure.LATE, True),
        (late("first-byte"), Failure.LATE, False),
        (late("between-bytes"), Failure.LATE, False),
        (late("total"), Failure.LATE, False),
        (OriginDisconnected("x"), Failure.BROKEN, False),
        (OriginProtocolError("x"), Failure.BROKEN, False),
    ],
    ids=str,
)
def test_what_an_error_says(error: OriginFailed, failure: Failure | None, unseen: bool) -> None:
    assert (failure_of(error, uploading=False), never_left(error)) == (failure, unseen)


def test_a_slow_upload_is_not_the_origin_s_failure() -> None:
    assert failure_of(late("total"), uploading=True) is None
    assert failure_of(late("first-byte"), uploading=True) is Failure.LATE


RESET = OriginDisconnected("reset")


@pytest.mark.parametrize(
    ("method", "error", "expected"),
    [
        (b"GET", RESET, True),
        (b"HEAD", RESET, True),
        (b"OPTIONS", RESET, True),
        (b"TRACE", RESET, True),
        (b"PUT", RESET, True),
        (b"DELETE", RESET, True),
        (b"POST", RESET, False),
        (b"PATCH", RESET, False),
        (b"LOCK", RESET, False),
        (b"get", RESET, False),
        (b"POST", OriginUnreachable("x"), True),
        (b"POST", OriginBusy("x"), True),
        (b"POST", late("connect"), True),
        (b"POST", late("first-byte"), False),
        (b"GET", late("first-byte"), True),
        (b"GET", late("total"), False),
        (b"GET", None, True),
        (b"PUT", None, True),
        (b"DELETE", None, True),
        (b"POST", None, False),
    ],
)
def test_what_may_go_to_another(method: bytes, error: OriginFailed | None, expected: bool) -> None:
    assert may_ask_another(method, error, repeatable=True) is expected
    if error is None or not never_left(error):
        assert not may_ask_another(method, error, repeatable=False)
