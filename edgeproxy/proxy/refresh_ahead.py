"""Refresh ahead: what a purge picked is fetched anew before anybody asks for it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.proxy.collapsing import Unshared
from edgeproxy.proxy.decide import Validity
from edgeproxy.proxy.errors import EdgeError
from edgeproxy.proxy.request import EdgeRequest
from edgeproxy.semantics.cache_control import request_directives
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.key import CacheKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.config.sites import SitePolicy, SiteTable
    from edgeproxy.invalidation.jobs import Job, Jobs
    from edgeproxy.proxy.fetching import Fetching
    from edgeproxy.proxy.lookup import Lookup
    from edgeproxy.proxy.pool import Pools

    _Asked: TypeAlias = tuple[EdgeRequest, tuple[bytes, ...]]
    """A request, and the names of the fields by which its response was selected."""

log = logging.getLogger(__name__)

_AT_ONCE = 8
"""Fetches of one job that are in the air at a time."""
_TOLD_EVERY = 0.25
"""Seconds between two looks at whether a job goes on, and notes of how far it is."""


class RefreshAhead:
    """The refreshes ahead of one worker."""

    def __init__(
        self,
        jobs: Jobs,
        fetching: Fetching,
        lookup: Lookup,
        pools: Pools,
        clock: Callable[[], float],
    ) -> None:
        self._jobs = jobs
        self._fetching = fetching
        self._lookup = lookup
        self._pools = pools
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self,
        purge_id: str,
        actor: str,
        picked: Sequence[StoredResponse],
        sites: SiteTable,
        rate: float,
    ) -> Job:
        """Fetch these anew, in that order, at most `rate` of them a second."""
        names = tuple(sorted({stored.site for stored in picked}))
        job = self._jobs.begin(purge_id, actor, names, len(picked), self._clock())
        requests = [
            (request_for(stored, policy), tuple(name for name, _ in stored.selecting))
            for stored in picked
            if (policy := sites.policies.get(stored.site)) is not None
        ]
        task = asyncio.create_task(self._run(job, requests, rate))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def close(self) -> None:
        """Give the jobs up."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, job: Job, requests: Sequence[_Asked], rate: float) -> None:
        progress = _Progress(job)
        loop = asyncio.get_running_loop()
        slots = asyncio.Semaphore(_AT_ONCE)
        began = told = loop.time()
        cancelled = False
        try:
            async with asyncio.TaskGroup() as group:
                for number, asked in enumerate(requests):
                    await slots.acquire()
                    await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
                    if loop.time() >= told + _TOLD_EVERY:
                        told = loop.time()
                        cancelled = self._jobs.is_cancelled(job.id)
                        if cancelled:
                            slots.release()
                            break
                        self._jobs.write(progress.job)
                    group.create_task(self._refresh(asked, progress, slots))
            state = "cancelled" if cancelled else "done"
        except asyncio.CancelledError:
            state = "interrupted"
            raise
        except Exception:
            log.exception("refreshing ahead after purge %s failed", job.purge_id)
            state = "interrupted"
        finally:
            ended = msgspec.structs.replace(progress.job, state=state, ended=self._clock())
            self._jobs.write(ended)

    async def _refresh(self, asked: _Asked, progress: _Progress, slots: asyncio.Semaphore) -> None:
        try:
            refreshed = await self._fetched_anew(*asked)
        except EdgeError as error:
            log.info("%s is not refreshed ahead: %s", asked[0].key.url, error.detail)
            refreshed = False
        finally:
            slots.release()
        progress.note(good=refreshed)

    async def _fetched_anew(self, request: EdgeRequest, vary: tuple[bytes, ...]) -> bool:
        """Whether what a request gets is fresh now."""
        now = self._clock()
        looked = self._lookup.find(request.key.primary, request.fields, request.policy, now)
        found = looked.found
        if found is not None and found.validity is Validity.VALID and found.freshness.is_fresh(now):
            # A reader was faster.
            return True
        pool = self._pools.of(request.policy)
        # What was deleted does not say any more what told it from the key's others.
        flight, _ = self._fetching.join(request, pool, found, looked.vary or vary)
        with flight.waiting():
            outcome = await flight.outcome()
            await flight.ended()
        return not isinstance(outcome, Unshared)


class _Progress:
    """How far a job is."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def note(self, *, good: bool) -> None:
        done, failed = self.job.done + good, self.job.failed + (not good)
        self.job = msgspec.structs.replace(self.job, done=done, failed=failed)


def request_for(stored: StoredResponse, policy: SitePolicy) -> EdgeRequest:
    """A request that a stored response would answer, and no reader's: it bears the fields by which
    that was selected (RFC 9111 4.1), and nothing else."""
    fields = Fields((name, value) for name, value in stored.selecting if value is not None)
    return EdgeRequest(
        method=b"GET",
        target=stored.target,
        version="1.1",
        fields=fields,
        upgrade=b"",
        authority=stored.host,
        scheme=stored.scheme,
        client="unknown",
        peer="unknown",
        # What it was selected by, its client had a say in.
        trusted=True,
        policy=policy,
        environment=stored.environment,
        key=CacheKey(
            stored.site,
            stored.scheme,
            stored.host,
            stored.target,
            stored.buster,
            stored.primary,
            stored.target_id,
        ),
        directives=request_directives(fields),
        honour_directives=False,
        has_body=False,
    )
