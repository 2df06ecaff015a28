"""Cursors: where the next page of a list begins, opaque to who carries it.

One holds nothing that its bearer could not ask for anyway: what may be seen is checked anew with
each page.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, TypeVar

import msgspec

from edgeproxy.admin.refusals import Fault, Refused

_T = TypeVar("_T")


def to_cursor(place: Any) -> str:
    """A cursor for a place."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(place)).rstrip(b"=").decode()


def from_cursor(cursor: str | None, kind: type[_T]) -> _T | None:
    """The place that a cursor of such places stands for. Raises `Refused` naming the field."""
    if cursor is None:
        return None
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True)
        return msgspec.msgpack.decode(packed, type=kind)
    except (ValueError, binascii.Error, msgspec.DecodeError):
        fault = Fault("cursor", 'must be the "next" of a page of this list')
        raise Refused.bad_request(fault) from None
