"""Refreshes of what is stale, behind the readers who got it (RFC 5861 3)."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from edgeproxy.proxy.collapsing import Unshared
from edgeproxy.proxy.errors import EdgeError
from edgeproxy.proxy.fetching import flight_key
from edgeproxy.proxy.keeping import ABOUT_THE_REQUEST, REFRESH_FAILED

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.proxy.fetching import Fetching
    from edgeproxy.proxy.keeping import Keeping
    from edgeproxy.proxy.lookup import Found
    from edgeproxy.proxy.memo import RefreshBackoff
    from edgeproxy.proxy.pool import OriginPool
    from edgeproxy.proxy.request import EdgeRequest

log = logging.getLogger(__name__)

_MAX_REFRESHES: Final = 256
"""Refreshes at once, a worker; a stale hit beyond that leaves it to the next."""


class Refreshing:
    """One worker's refreshes."""

    def __init__(
        self,
        fetching: Fetching,
        keeping: Keeping,
        backoff: RefreshBackoff,
        clock: Callable[[], float],
    ) -> None:
        self._fetching = fetching
        self._keeping = keeping
        self._backoff = backoff
        self._clock = clock
        self._tasks: dict[bytes, asyncio.Task[None]] = {}

    def begin(
        self, request: EdgeRequest, pool: OriginPool, found: Found, vary: tuple[bytes, ...]
    ) -> None:
        """Refresh a stale response, unless that is being done, or too much is."""
        key = flight_key(request.key.primary, vary, request.fields)
        # A flight with credentials is alone, and unknown to `fetching`: it is one refresh all the
        # same.
        if key in self._tasks or self._fetching.in_the_air(key):
            return
        if len(self._tasks) >= _MAX_REFRESHES:
            return
        task = asyncio.create_task(self._refresh(request, pool, found, vary))
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def close(self) -> None:
        """End them all."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh(
        self, request: EdgeRequest, pool: OriginPool, found: Found, vary: tuple[bytes, ...]
    ) -> None:
        flight, first = self._fetching.join(request, pool, found, vary)
        if not first:
            return
        with flight.waiting():
            try:
                outcome = await flight.outcome()
                await flight.ended()
            except EdgeError as error:
                pause = self._backoff.failed(found.stored.id, self._clock())
                log.warning(
                    "refresh of %s failed: %s; the stale copy stays, next try in %d s",
                    request.key.url, error.detail, pause,
                )  # fmt: skip
                return
        if not isinstance(outcome, Unshared) or outcome.status in ABOUT_THE_REQUEST:
            # In the latter case the next reader's request may do better.
            return
        if outcome.status in REFRESH_FAILED:
            self._backoff.failed(found.stored.id, self._clock())
            return
        # The origin has a new answer that may not be kept: the old one is not its answer any more.
        await self._keeping.forget(found.stored)
