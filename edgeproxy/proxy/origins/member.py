"""One of a site's origins: its connections, and what is known of how it does."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from edgeproxy.proxy.origins.balancing import SlowStart
from edgeproxy.proxy.origins.breaker import Breaker
from edgeproxy.proxy.origins.failures import Failure, failure_of
from edgeproxy.proxy.origins.health import checked_as
from edgeproxy.proxy.upstream import OriginClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.config.site import Origin
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.proxy.errors import OriginFailed
    from edgeproxy.proxy.origins.breaker import State
    from edgeproxy.proxy.origins.health import Verdicts

# As part of the pool, which is what an operator knows.
log = logging.getLogger("edgeproxy.proxy.pool")

_PROMPT: Final = 1.0
"""Seconds: a failure that took no longer cost no reader a wait."""


class Rank(IntEnum):
    """How much an origin recommends itself for a request; the least has it."""

    GOOD = 0
    RISKY = 1
    """It may have recovered, but a request that can't be repeated had better not try that."""
    UNWELL = 2
    """It fails its checks. These may be what is wrong, so it is better than none."""
    PROMPT = 3
    """Its circuit is open, but it fails at once."""


@dataclass(frozen=True, slots=True)
class OriginState:
    """How an origin is, as one worker sees it, and what came of what it was asked."""

    url: str
    circuit: State
    well: bool | None
    """What its checks say; None where there are none, or none yet."""
    share: float
    """Of a full share of the requests: less than 1 for a while after it has come back."""
    load: int
    """Requests that are under way, or wait for a connection."""
    requests: int
    failures: Mapping[Failure, int]
    opened: int
    """How often its circuit opened."""


class Member:
    """An origin in its site's pool. Make it inside a running loop."""

    def __init__(self, policy: SitePolicy, origin: Origin, verdicts: Verdicts | None) -> None:
        self.authority = origin.url.authority
        self.client = OriginClient(origin, policy.timeouts, policy.pool)
        self.breaker = Breaker(policy.breaker)
        self.due = 0.0
        self.requests = 0
        self.last_failure = Failure.UNREACHABLE
        self._url = str(origin.url)
        self._what = f"{policy.name}: the origin {origin.url}"
        self._slow_start = SlowStart(policy.balancing.slow_start)
        self._verdicts = verdicts if policy.check.path is not None else None
        self.checked = self._verdicts is not None
        self._mark = checked_as(policy.name, origin, policy.check)
        self._was_unwell = False
        self._failures: Counter[Failure] = Counter()
        self._opened = 0

    @property
    def load(self) -> int:
        return self.client.load

    def share(self, now: float) -> float:
        return self._slow_start.share(now)

    def rank(self, now: float, *, may_fail: bool) -> Rank | None:
        """How it recommends itself for a request; None: it had better not be asked at all.

        `may_fail`: the request would then go to another one.
        """
        unwell = self._is_unwell(now)
        breaker = self.breaker
        if breaker.closed:
            return Rank.UNWELL if unwell else Rank.GOOD
        if breaker.admits(now):
            if unwell:
                return Rank.UNWELL
            return Rank.GOOD if may_fail or breaker.overdue(now) else Rank.RISKY
        return None if breaker.refuses else Rank.PROMPT

    def _is_unwell(self, now: float) -> bool:
        if self._verdicts is None:
            return False
        unwell = self._verdicts.read(self._mark) is False
        if self._was_unwell and not unwell:
            self._slow_start.begin(now)
        self._was_unwell = unwell
        return unwell

    # -- one request

    def begin(self, now: float, *, uploading: bool) -> bool:
        """A request goes to it, `uploading` if it has a body. Hand what this returns to what says
        how it ended."""
        self.requests += 1
        return self.breaker.begin(now, uploading=uploading)

    def answered(self, trial: bool, now: float) -> None:
        if self.breaker.succeeded(trial, now):
            self._slow_start.begin(now)
            log.info("%s answers again", self._what)

    def answered_badly(
        self, status: int, trial: bool, now: float, waited: float, *, uploading: bool
    ) -> None:
        """With a status that counts as a failure."""
        slow = waited > _PROMPT and not uploading
        self._failed(Failure.STATUS, trial, now, slow, f"it answers {status}")

    def failed(
        self, error: OriginFailed, trial: bool, now: float, waited: float, *, uploading: bool
    ) -> None:
        failure = failure_of(error, uploading=uploading)
        if failure is None:
            self.breaker.abandoned(trial)
            return
        cause = str(error.__cause__ or "")
        why = f"{error} ({cause})" if cause else str(error)
        # How long an upload takes is its client's choice.
        slow = failure is Failure.LATE or (waited > _PROMPT and not uploading)
        self._failed(failure, trial, now, slow, why)

    def _failed(self, failure: Failure, trial: bool, now: float, slow: bool, why: str) -> None:
        self._failures[failure] += 1
        self.last_failure = failure
        if self.breaker.failed(trial, now, slow=slow):
            self._opened += 1
            log.warning("%s does not answer: %s", self._what, why)

    def state(self, now: float) -> OriginState:
        return OriginState(
            url=self._url,
            circuit=self.breaker.state(now),
            well=None if self._verdicts is None else self._verdicts.read(self._mark),
            share=self.share(now),
            load=self.load,
            requests=self.requests,
            failures={kind: self._failures[kind] for kind in Failure},
            opened=self._opened,
        )
