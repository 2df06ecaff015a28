"""How old a response is (RFC 9111 4.2.3) and what its Age field says (5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.semantics.cache_control import delta_seconds
from edgeproxy.semantics.dates import parse_http_date
from edgeproxy.semantics.fields import list_members

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.semantics.fields import Fields


def age_value(lines: Iterable[bytes]) -> int:
    """The Age field in seconds: its first member; 0 where that is not a non-negative integer."""
    members = list_members(lines)
    seconds = delta_seconds(members[0]) if members else None
    return seconds or 0


def date_value(fields: Fields, response_time: float) -> float:
    """When the response was generated, in seconds since the epoch.

    A missing or invalid Date is the time at which the response came (RFC 9110 6.6.1); of several
    lines the first counts.
    """
    line = fields.get(b"date")
    date = parse_http_date(line, response_time) if line is not None else None
    return response_time if date is None else float(date)


def corrected_initial_age(fields: Fields, request_time: float, response_time: float) -> float:
    """How old the response was when it came, in seconds: RFC 9111 4.2.3's `corrected_initial_age`.

    The times are seconds since the epoch, at which the request left and the response's head came.
    Date has no fractions of a second, so those of the time of receipt say nothing of the age.
    """
    apparent_age = max(0.0, response_time // 1 - date_value(fields, response_time))
    response_delay = max(0.0, response_time - request_time)
    corrected_age_value = age_value(fields.get_all(b"age")) + response_delay
    return max(apparent_age, corrected_age_value)


def current_age(initial_age: float, response_time: float, now: float) -> float:
    """How old the response is at `now`, in seconds; never negative, whatever clocks do."""
    resident_time = max(0.0, now - response_time)
    return max(0.0, initial_age) + resident_time
