"""Asking the origins how they are: one worker of the node does, and the others see its verdicts.

The worker is the one that holds a claim, which the kernel passes on when it dies. So what the
origins are asked doesn't grow with the number of workers.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from edgeproxy.config.site import Pool, Timeouts
from edgeproxy.proxy.errors import OriginFailed
from edgeproxy.proxy.origins.health import Health, checked_as
from edgeproxy.proxy.upstream import OriginClient
from edgeproxy.semantics.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.config.failover import Check
    from edgeproxy.config.site import Origin
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.proxy.claims import Claims
    from edgeproxy.proxy.origins.health import Verdicts

log = logging.getLogger(__name__)

_CLAIM: Final = b"checking origins"
_SUCCESSION_SECONDS: Final = 1.0
"""How often a worker looks whether the one that checks is gone."""
_READ_BYTES: Final = 64 * 1024
"""More of an answer's body is not waited for."""


@dataclass(frozen=True, slots=True)
class _Target:
    """One origin that is to be checked."""

    site: str
    origin: Origin
    check: Check


class Checks:
    """One worker's part in it. Make it inside a running loop."""

    def __init__(self, verdicts: Verdicts, claims: Claims) -> None:
        self._verdicts = verdicts
        self._claims = claims
        self._targets: frozenset[_Target] = frozenset()
        self._ours = False
        self._succession: asyncio.Task[None] | None = None
        self._watches: dict[_Target, asyncio.Task[None]] = {}

    def watch(self, policies: Iterable[SitePolicy]) -> None:
        """See to the origins of these sites from now on, as far as they are to be checked."""
        self._targets = frozenset(
            _Target(policy.name, origin, policy.check)
            for policy in policies
            if policy.check.path is not None
            for origin in policy.origins
        )
        if self._ours:
            self._turn_to_targets()
        elif self._succession is None and self._targets:
            self._succession = asyncio.create_task(self._succeed())

    async def close(self) -> None:
        """Check no more; another worker may."""
        tasks = [*self._watches.values()]
        if self._succession is not None:
            tasks.append(self._succession)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _succeed(self) -> None:
        while True:
            if self._claims.acquire(_CLAIM):
                break
            await asyncio.sleep(_SUCCESSION_SECONDS)
        self._ours = True
        self._turn_to_targets()

    def _turn_to_targets(self) -> None:
        for target in self._watches.keys() - self._targets:
            self._watches.pop(target).cancel()
        for target in self._targets - self._watches.keys():
            self._watches[target] = asyncio.create_task(self._watch(target))

    async def _watch(self, target: _Target) -> None:
        check, checked = target.check, checked_as(target.site, target.origin, target.check)
        health = Health(self._verdicts.read(checked))
        # A little more or less than the others, so that they don't all come at once for ever.
        interval = check.interval * (0.9 + (checked >> 8) % 256 / 1280)
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            fault = await probe(target.origin, check)
            before, health = health, health.after(fault is None, check)
            if health.well is not None and health.well is not before.well:
                self._verdicts.write(checked, health.well)
                self._tell(target, fault, first=before.well is None)
            # An origin that takes its time over a check is not asked the more seldom.
            await asyncio.sleep(max(interval - (clock() - began), 0.0))

    @staticmethod
    def _tell(target: _Target, fault: str | None, *, first: bool) -> None:
        what = f"{target.site}: the origin {target.origin.url}"
        if fault is not None:
            log.warning("%s does not pass its checks: %s", what, fault)
        elif not first:
            log.info("%s passes its checks again", what)


async def probe(origin: Origin, check: Check) -> str | None:
    """Check an origin once, over a connection of its own; what is wrong with it, if anything is."""
    host = origin.url.authority if check.host == "origin" else check.host
    seconds = check.timeout
    client = OriginClient(
        origin,
        Timeouts(connect=seconds, first_byte=seconds, between_bytes=seconds, total=seconds),
        Pool(max_connections=1, keepalive=0.0),
    )
    fields = Fields(
        ((b"Host", host.encode()), (b"User-Agent", b"edgeproxy-check"), (b"Connection", b"close"))
    )
    try:
        response = await client.send(b"GET", (check.path or "/").encode(), fields)
        left = _READ_BYTES
        while left > 0 and (chunk := await response.read_chunk()):
            left -= len(chunk)
        response.release()
    except OriginFailed as error:
        return str(error)
    finally:
        await client.close()
    if response.status not in check.status:
        return f"it answered {response.status}"
    return None
