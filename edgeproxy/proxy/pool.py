"""A site's origins as one: what a request looks like to them, and which of them gets it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import msgspec

from edgeproxy.proxy.errors import OriginFailed, OriginTimedOut, OriginUnreachable
from edgeproxy.proxy.upstream import OriginClient
from edgeproxy.semantics.cache_control import SURROGATE
from edgeproxy.semantics.dates import format_http_date
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.forwarding import end_to_end, forwarded_request_fields, response_via

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from edgeproxy.config.site import Origin
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.proxy.origin_exchange import OnInterim
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.upstream import OriginResponse

log = logging.getLogger(__name__)

_AVOIDED: Final = 10.0
"""Seconds for which an origin that could not be reached is asked after the others."""
_PSEUDONYM: Final = "edgeproxy"


class OriginAnswer(msgspec.Struct, frozen=True):
    """An origin's response, and what a cache must know of it."""

    response: OriginResponse
    status: int
    fields: Fields
    """What is for the reader: nothing for the connection alone, Via and Date in place."""
    request_time: float
    """When the request was sent, in seconds since the epoch."""
    response_time: float
    """When the head had come."""


class _Member:
    """One of the origins, and whether it is known to be down."""

    def __init__(self, site: str, origin: Origin, client: OriginClient) -> None:
        self.authority = origin.url.authority
        self.client = client
        self.avoided_until = 0.0
        self._what = f"{site}: the origin {origin.url}"
        self._down = False

    def failed(self, error: OriginFailed, now: float) -> None:
        self.avoided_until = now + _AVOIDED
        if not self._down:
            self._down = True
            log.warning("%s does not answer: %s (%s)", self._what, error, error.__cause__)

    def answered(self) -> None:
        self.avoided_until = 0.0
        if self._down:
            self._down = False
            log.info("%s answers again", self._what)


class OriginPool:
    """The origins of one site, asked in turn. Make it inside a running loop."""

    def __init__(
        self, policy: SitePolicy, clock: Callable[[], float], pseudonym: str = _PSEUDONYM
    ) -> None:
        self.policy = policy
        self._clock = clock
        self._pseudonym = pseudonym
        self._members = [
            _Member(policy.name, origin, OriginClient(origin, policy.timeouts, policy.pool))
            for origin in policy.origins
        ]
        self._next = 0

    async def send(
        self,
        request: EdgeRequest,
        fields: Fields,
        body: AsyncIterator[bytes] | None,
        length: int | None,
        on_interim: OnInterim | None = None,
        upgrade: bool = False,
    ) -> OriginAnswer:
        """Send a request with these fields instead of its own, and give the origin's answer.

        An origin that can't be reached is passed over for the next one. Raises an `OriginFailed`,
        or what `OriginClient.send` lets pass.
        """
        fields = self._fields(request, fields, upgrade=upgrade, has_body=body is not None)
        interim = None if on_interim is None else self._interim(on_interim)
        failure: OriginFailed | None = None
        for member in self._in_order():
            sent = self._clock()
            try:
                response = await member.client.send(
                    request.method,
                    request.target,
                    self._with_host(request, fields, member),
                    body,
                    length,
                    on_interim=interim,
                    upgrade=upgrade,
                )
            except OriginUnreachable as error:
                failure = error
            except OriginTimedOut as error:
                if error.stage != "connect":
                    raise
                failure = error
            else:
                member.answered()
                return self._answer(response, sent)
            member.failed(failure, self._clock())
        assert failure is not None
        raise failure

    def _in_order(self) -> list[_Member]:
        members = self._members
        if len(members) == 1:
            return members
        first, self._next = self._next, (self._next + 1) % len(members)
        now = self._clock()
        turn = members[first:] + members[:first]
        return sorted(turn, key=lambda member: member.avoided_until > now)

    def _fields(
        self, request: EdgeRequest, fields: Fields, *, upgrade: bool, has_body: bool
    ) -> Fields:
        forwarded = forwarded_request_fields(
            fields,
            client=request.client,
            trusted=request.trusted,
            scheme=request.scheme,
            host=request.authority,
            version=request.version,
            pseudonym=self._pseudonym,
            method=request.method,
            peer=request.peer if request.trusted else None,
            let_through=request.policy.let_through,
        )
        if not has_body or request.version == "1.0":
            # RFC 9110 10.1.1: without a body there is nothing to wait for, and HTTP/1.0 can't.
            forwarded = forwarded.without({b"expect"})
        if b"surrogate-control" in self.policy.freshness.targets:
            # Edge Architecture Specification 1.0, 2.1: surrogates further away stand before it.
            farther = forwarded.joined(b"surrogate-capability")
            own = b'%b="Surrogate/1.0"' % SURROGATE
            capability = own if not farther else farther + b", " + own
            forwarded = forwarded.without({b"surrogate-capability"}).plus(
                (b"Surrogate-Capability", capability)
            )
        if upgrade:
            forwarded = forwarded.plus((b"Connection", b"Upgrade"), (b"Upgrade", request.upgrade))
        return forwarded

    def _with_host(self, request: EdgeRequest, fields: Fields, member: _Member) -> Fields:
        match self.policy.host_header:
            case "pass":
                host = request.authority or member.authority
            case "origin":
                host = member.authority
            case host:
                pass
        if b"host" in fields:
            return fields.replacing(b"host", host.encode())
        return Fields(((b"Host", host.encode()), *fields))

    def _interim(self, on_interim: OnInterim) -> OnInterim:
        async def forward(status: int, reason: bytes, fields: Fields) -> None:
            await on_interim(status, reason, self._passed_on(fields, "1.1"))

        return forward

    def _passed_on(self, fields: Fields, version: str) -> Fields:
        return response_via(end_to_end(fields), version, self._pseudonym)

    def _answer(self, response: OriginResponse, sent: float) -> OriginAnswer:
        received = self._clock()
        fields = self._passed_on(response.fields, response.version)
        if b"date" not in fields:
            # RFC 9110 6.6.1: whoever hands it on or stores it says when it came.
            fields = fields.plus((b"Date", format_http_date(received)))
        return OriginAnswer(response, response.status, fields, sent, received)

    def serves(self, policy: SitePolicy) -> bool:
        """Whether this pool can go on for that policy: all that concerns it is the same."""
        return (
            policy.origins == self.policy.origins
            and policy.timeouts == self.policy.timeouts
            and policy.pool == self.policy.pool
            and policy.host_header == self.policy.host_header
        )

    def retire(self) -> None:
        """Keep no connections from now on; requests that still come are sent all the same."""
        for member in self._members:
            member.client.retire()

    async def close(self) -> None:
        """Close all connections, those in use too."""
        for member in self._members:
            await member.client.close()


class Pools:
    """The pools of all sites, kept over reloads as far as their settings are."""

    def __init__(self, clock: Callable[[], float], pseudonym: str = _PSEUDONYM) -> None:
        self._clock = clock
        self._pseudonym = pseudonym
        self._pools: dict[str, OriginPool] = {}
        self._retired: WeakSet[OriginPool] = WeakSet()

    def of(self, policy: SitePolicy) -> OriginPool:
        """The pool of that site."""
        pool = self._pools.get(policy.name)
        if pool is None:
            pool = self._pools[policy.name] = OriginPool(policy, self._clock, self._pseudonym)
        return pool

    def reload(self, policies: Iterable[SitePolicy]) -> None:
        """Go by these policies from now on; connections that go end with the requests on them."""
        new = {policy.name: policy for policy in policies}
        for name, pool in tuple(self._pools.items()):
            if name not in new or not pool.serves(new[name]):
                del self._pools[name]
                pool.retire()
                self._retired.add(pool)

    async def close(self) -> None:
        """Close all connections, those in use too."""
        for pool in (*self._pools.values(), *self._retired):
            await pool.close()
        self._pools.clear()
