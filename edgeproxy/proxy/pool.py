"""A site's origins as one: what a request looks like to them, and which of them gets it."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import msgspec

from edgeproxy.proxy.errors import CircuitOpen, OriginFailed
from edgeproxy.proxy.origins.asking import Asking
from edgeproxy.proxy.origins.balancing import Balancer
from edgeproxy.proxy.origins.failures import Failure, never_left
from edgeproxy.proxy.origins.member import Member, Rank
from edgeproxy.proxy.origins.retry_budget import RetryBudget
from edgeproxy.semantics.cache_control import SURROGATE
from edgeproxy.semantics.dates import format_http_date
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.forwarding import forwarded_request_fields, passed_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.proxy.origin_exchange import OnInterim
    from edgeproxy.proxy.origins.health import Verdicts
    from edgeproxy.proxy.origins.member import OriginState
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.upstream import OriginResponse

_PSEUDONYM: Final = "edgeproxy"
_GOOD: Final = Rank.GOOD


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


class PoolState(msgspec.Struct, frozen=True):
    """How a site's origins do, as one worker sees them."""

    origins: tuple[OriginState, ...]
    repeated: int
    """Requests that went to another origin after one had failed."""
    not_repeated: int
    """Those that might have, but for the retry budget."""
    refused: int
    """Those for which no origin was asked, because all circuits were open."""


class OriginPool:
    """The origins of one site. Make it inside a running loop."""

    def __init__(
        self,
        policy: SitePolicy,
        clock: Callable[[], float],
        pseudonym: str = _PSEUDONYM,
        verdicts: Verdicts | None = None,
    ) -> None:
        """`verdicts`: what checks say of the origins."""
        self.policy = policy
        self._clock = clock
        self._pseudonym = pseudonym
        self._members = [Member(policy, origin, verdicts) for origin in policy.origins]
        self._only = self._members[0] if len(self._members) == 1 else None
        self._balancer = Balancer(policy.balancing.method)
        self._budget = RetryBudget(policy.retries.share, policy.retries.burst)
        self._bad = frozenset(policy.breaker.statuses)
        self._repeated = 0
        self._not_repeated = 0
        self._refused = 0

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

        Where an origin fails, another one is asked, if the request may be repeated and the budget
        allows it. Raises an `OriginFailed`, or what `OriginClient.send` lets pass.
        """
        fields = self._fields(request, fields, upgrade=upgrade, has_body=body is not None)
        if (only := self._only) is not None:
            if not only.breaker.closed and only.rank(self._clock(), may_fail=False) is None:
                raise self._refusal()
            interim = None if on_interim is None else self._interim(on_interim)
            return await self._ask(only, request, fields, body, length, interim, upgrade, None)
        asking = Asking(request, fields, body, length, upgrade)
        if on_interim is not None:
            asking.on_interim = self._interim(on_interim)
        return await self._ask_several(asking)

    async def _ask_several(self, asking: Asking) -> OriginAnswer:
        self._budget.earn()
        asking.replay_body()
        if (total := self.policy.timeouts.total) is not None:
            asking.deadline = asyncio.get_running_loop().time() + total
        untried = list(self._members)
        answer: OriginAnswer | None = None
        outcome: OriginAnswer | OriginFailed | None = None
        try:
            while (member := self._next(untried, asking, outcome)) is not None:
                try:
                    outcome = await self._ask(
                        member,
                        asking.request,
                        asking.fields,
                        asking.body(),
                        asking.length,
                        asking.on_interim,
                        asking.upgrade,
                        asking.deadline,
                    )
                except OriginFailed as error:
                    outcome = error
                    continue
                if answer is not None:
                    answer.response.release()
                answer = outcome
                if answer.status not in self._bad:
                    return answer
        except BaseException:
            if answer is not None:
                answer.response.abort()
            raise
        if answer is not None:
            # Bad as it is, it says more than an error of the edge's own.
            return answer
        raise outcome if isinstance(outcome, OriginFailed) else self._refusal()

    def _next(
        self, untried: list[Member], asking: Asking, outcome: OriginAnswer | OriginFailed | None
    ) -> Member | None:
        """Which origin is asked next, after what the one before has come to, if any is."""
        error = outcome if isinstance(outcome, OriginFailed) else None
        if outcome is not None and not asking.may_go_on(error):
            return None
        now = self._clock()
        rank: Rank | None
        best: Rank | None = None
        candidates: list[Member] = []
        for member in untried:
            if member.breaker.closed and not member.checked:
                rank = _GOOD
            else:
                rank = member.rank(now, may_fail=asking.may_fail)
            if rank is None or (best is not None and rank > best):
                continue
            if rank != best:
                best, candidates = rank, []
            candidates.append(member)
        if not candidates:
            return None
        chosen = self._balancer.choose(candidates, now)
        if outcome is None:
            self._balancer.charge(chosen, now)
        elif (error is not None and never_left(error)) or self._budget.spend():
            self._repeated += 1
        else:
            self._not_repeated += 1
            return None
        untried.remove(chosen)
        return chosen

    async def _ask(
        self,
        member: Member,
        request: EdgeRequest,
        fields: Fields,
        body: AsyncIterator[bytes] | None,
        length: int | None,
        on_interim: OnInterim | None,
        upgrade: bool,
        deadline: float | None,
    ) -> OriginAnswer:
        sent = self._clock()
        trial = member.begin(sent, uploading=body is not None)
        try:
            response = await member.client.send(
                request.method,
                request.target,
                self._with_host(request, fields, member),
                body,
                length,
                on_interim=on_interim,
                upgrade=upgrade,
                deadline=deadline,
            )
        except OriginFailed as error:
            now = self._clock()
            member.failed(error, trial, now, now - sent, uploading=body is not None)
            raise
        except BaseException:
            member.breaker.abandoned(trial)
            raise
        answer = self._answer(response, sent)
        if answer.status in self._bad:
            waited = answer.response_time - sent
            member.answered_badly(
                answer.status, trial, answer.response_time, waited, uploading=body is not None
            )
        else:
            member.answered(trial, answer.response_time)
        return answer

    def _refusal(self) -> CircuitOpen:
        self._refused += 1
        return CircuitOpen(late=any(each.last_failure is Failure.LATE for each in self._members))

    def state(self) -> PoolState:
        """How the origins do."""
        now = self._clock()
        states = tuple(member.state(now) for member in self._members)
        return PoolState(states, self._repeated, self._not_repeated, self._refused)

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

    def _with_host(self, request: EdgeRequest, fields: Fields, member: Member) -> Fields:
        match self.policy.host_header:
            case "pass":
                host = request.authority or member.authority
            case "origin":
                host = member.authority
            case host:
                pass
        return (_remembered_for if fields.repeatable else _for_host)(fields, host)

    def _interim(self, on_interim: OnInterim) -> OnInterim:
        async def forward(status: int, reason: bytes, fields: Fields) -> None:
            await on_interim(status, reason, self._passed_on(fields, "1.1"))

        return forward

    def _passed_on(self, fields: Fields, version: str) -> Fields:
        return passed_on(fields, version, self._pseudonym)

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
            and policy.balancing == self.policy.balancing
            and policy.check == self.policy.check
            and policy.breaker == self.policy.breaker
            and policy.retries == self.policy.retries
        )

    def retire(self) -> None:
        """Keep no connections from now on; requests that still come are sent all the same."""
        for member in self._members:
            member.client.retire()

    async def close(self) -> None:
        """Close all connections, those in use too."""
        for member in self._members:
            await member.client.close()


def _for_host(fields: Fields, host: str) -> Fields:
    """A request's fields with that Host."""
    if b"host" in fields:
        return fields.replacing(b"host", host.encode())
    return Fields(((b"Host", host.encode()), *fields))


_remembered_for = lru_cache(maxsize=1024)(_for_host)


class Pools:
    """The pools of all sites, kept over reloads as far as their settings are."""

    def __init__(
        self,
        clock: Callable[[], float],
        pseudonym: str = _PSEUDONYM,
        verdicts: Verdicts | None = None,
    ) -> None:
        self._clock = clock
        self._pseudonym = pseudonym
        self._verdicts = verdicts
        self._policies: dict[str, SitePolicy] = {}
        """As of the last reload."""
        self._pools: dict[str, OriginPool] = {}
        self._retired: WeakSet[OriginPool] = WeakSet()

    def of(self, policy: SitePolicy) -> OriginPool:
        """The pool of that site."""
        pool = self._pools.get(policy.name)
        if pool is None:
            # A request that was read before a reload may ask after it; what was before must not
            # come back for all others with it.
            policy = self._policies.get(policy.name, policy)
            pool = OriginPool(policy, self._clock, self._pseudonym, self._verdicts)
            self._pools[policy.name] = pool
        return pool

    def reload(self, policies: Iterable[SitePolicy]) -> None:
        """Go by these policies from now on; connections that go end with the requests on them."""
        self._policies = new = {policy.name: policy for policy in policies}
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
