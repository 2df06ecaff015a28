"""The settings of several origins as one: who is asked, who is passed over, what is repeated."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from edgeproxy.config import scalars
from edgeproxy.config.errors import InvalidSettings, Problem
from edgeproxy.config.section import Section

BalancingMethod: TypeAlias = Literal["round-robin", "least-connections"]


class Balancing(Section):
    """Which of a site's origins gets a request; each worker decides by what it sees itself."""

    method: Annotated[BalancingMethod, scalars.choice("round-robin", "least-connections")] = Field(
        default="round-robin",
        description='"round-robin" (in turn), or "least-connections" (the one with the fewest '
        "requests under way)",
    )
    slow_start: scalars.Duration = Field(
        default=10.0,
        description="how long an origin that comes back gets less than its share, from a tenth up; "
        "0 is none",
        examples=["1m"],
    )


class Check(Section):
    """Asking each origin how it is, once for all workers. One that fails is asked last."""

    path: scalars.Target | None = Field(
        default=None,
        description="path, with its query, to GET from each origin; if absent, none is checked",
        examples=["/healthz"],
    )
    host: scalars.HostHeader = Field(
        default="origin",
        description='the Host of that request: "origin" (the origin URL\'s), or a host name',
        examples=["www.shop.example"],
    )
    interval: scalars.Timeout = Field(default=5.0, description="from one check to the next")
    timeout: scalars.Timeout = Field(
        default=2.0, description="for a whole check: connecting, the answer and its body"
    )
    status: tuple[scalars.Status, ...] = Field(
        default=(200,),
        min_length=1,
        description="status codes that a well origin answers with",
        examples=[[200, 204]],
    )
    unhealthy_after: scalars.Count = Field(
        default=3, description="failed checks in a row that take an origin out"
    )
    healthy_after: scalars.Count = Field(
        default=2, description="passed checks in a row that take it in again"
    )

    @model_validator(mode="after")
    def _check(self) -> Check:
        if self.host == "pass":
            fault = 'no reader asks here: give "origin" or a host name'
            raise InvalidSettings([Problem("host", fault)])
        return self


class Breaker(Section):
    """When an origin is passed over for its failures on readers' requests, by each worker."""

    failures: scalars.Count = Field(
        default=5, description="failures in a row that open an origin's circuit"
    )
    failure_share: scalars.Fraction = Field(
        default=0.5, description="share of the requests in `window` whose failure opens it, too"
    )
    window: scalars.Timeout = Field(default=10.0, description="time that the share is taken over")
    min_requests: scalars.Count = Field(
        default=20, description="fewest requests in `window` that the share is taken of"
    )
    pause: scalars.Timeout = Field(
        default=1.0,
        description="how long it stays open before one request may try the origin; doubled with "
        "each that fails",
        examples=["5s"],
    )
    max_pause: scalars.Timeout = Field(default=10.0, description="longest pause")
    statuses: tuple[scalars.ErrorStatus, ...] = Field(
        default=(502, 503, 504),
        description="status codes that count as failures; idempotent requests (GET, PUT, ...) that "
        "get one are repeated on another origin",
        examples=[[500, 502, 503, 504]],
    )

    @model_validator(mode="after")
    def _check(self) -> Breaker:
        if self.max_pause < self.pause:
            fault = "is less than `pause`; raise it, or lower `pause`"
            raise InvalidSettings([Problem("max_pause", fault)])
        return self


class Retries(Section):
    """How many requests may be repeated on another origin, per worker.

    Only idempotent ones are (RFC 9110 9.2.2), and only until a byte of the answer has been handed
    on. One that never left, because there was no connection, may always go to another origin.
    """

    share: scalars.Fraction = Field(
        default=0.2, description="repeated requests, as a share of all; 0 is none but `burst`"
    )
    burst: scalars.CountFromZero = Field(
        default=256,
        description="how many beyond the share, until others have made up for them: as many as may "
        "be under way at an origin that dies",
    )
