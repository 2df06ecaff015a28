"""A storm: all that can happen to an edge at once, and what must hold nevertheless.

Readers, purgers, posters and a killer of workers do what their seed says, all at once, against a
small cache in front of an origin that is slow, moody and changes all the time. Every answer is held
against what `exactness` knows. How they meet in time is not the seed's; what they ask is.
"""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.e2e.exactness import Asked, Ledger, named_by, verify
from tests.e2e.versions import DEVICES, HOSTS, TAGS, Page, Site
from tests.kit import Connection, EdgeProcess, MessageCut, Response, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

OFTEN = {"hit": 50, "uri-miss": 50, "purges": 10, "matched": 10}
"""What happens in a storm, and more than how often."""
PATIENCE = 15.0
"""Seconds after which a request counts as hung."""
REACH = 0.5
"""Seconds before the death of a worker from which on a request may have met it."""

SMALL = {
    # So small that something is evicted all the time.
    "store": {"max_bytes": "1500KB", "max_object_bytes": "300KB"},
    "memory": {"max_bytes": "300KB", "max_object_bytes": "64KB"},
    "log": {"access": "off"},
}
SITE = {
    "hosts": list(HOSTS),
    "grace": {"stale_while_revalidate": "1s", "stale_if_error": "5s"},
    "cache": {"max_variants": 4, "max_busters": 3, "uncacheable_ttl": "1s"},
}

Draw = random.Random


class Storm:
    """Everything at once, until it is over or something is wrong."""

    def __init__(self, edge: EdgeProcess, site: Site, seed: int) -> None:
        self.edge = edge
        self.site = site
        self.ledger = Ledger()
        self.counts: Counter[str] = Counter()
        self._seed = seed
        self._etags: dict[tuple[str, str], str] = {}
        self._killed_at = float("-inf")
        self._over = asyncio.Event()

    async def rage(self, seconds: float, *, killing: bool = False, deposing: bool = False) -> None:
        """Raises what went wrong, all of it. `killing`: workers, and `deposing`: the supervisor as
        well."""
        roles: list[Callable[[Draw], Coroutine[Any, Any, None]]] = [
            *[self._read] * 24,
            *[self._purge] * 3,
            self._post,
            *[self._depose if deposing else self._kill] * killing,
        ]
        async with asyncio.TaskGroup() as group:
            for number, role in enumerate(roles):
                group.create_task(role(Draw(f"{self._seed} {number}")))
            group.create_task(self._end_after(seconds))

    async def _end_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        async with asyncio.timeout(PATIENCE):
            # On a machine that is busy, it takes longer until it was one.
            while any(self.counts[what] <= often for what, often in OFTEN.items()):
                await asyncio.sleep(0.1)
        self._over.set()

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _excused(self, since: float) -> bool:
        """Whether a worker that was killed may be why something failed that began then."""
        return self._killed_at > since - REACH

    def _failed(self, asked: object, response: Response, began: float) -> None:
        """The answer is not the origin's: only who had reason to fail may have failed."""
        told = f"{asked} got {response.head.raw!r} {response.body!r}\n{self.edge.log}"
        assert self.site.faults.any or self._excused(began), told
        self.counts["failed"] += 1

    # -- readers

    async def _read(self, draw: Draw) -> None:
        connection: Connection | None = None
        while not self._over.is_set():
            began = self._now
            try:
                connection = connection or await self.edge.connect()
                lasts = await self._ask(draw, connection)
            except (MessageCut, OSError) as error:
                # A cut body must show; and only who had reason to may have cut it.
                assert self._excused(began) or self.site.faults.cut, f"{error!r}\n{self.edge.log}"
                self.counts["cut"] += 1
                lasts = False
            if not lasts:
                if connection is not None:
                    await connection.close()
                connection = None
            await asyncio.sleep(draw.choice((0.0, 0.0, 0.0, 0.02)))
        if connection is not None:
            await connection.close()

    async def _ask(self, draw: Draw, connection: Connection) -> bool:
        """One request, and whether there can be another."""
        asked, url = self._question(draw)
        async with asyncio.timeout(PATIENCE):
            await connection.request(asked.method, url, asked.fields)
            if draw.random() < 0.05:
                await asyncio.sleep(draw.uniform(0.0, 0.05))
                connection.reset()
                return False
            response = await connection.response()
        if response.status >= 500 and response.field("x-identity") is None:
            self._failed(asked, response, asked.at)
        else:
            verify(asked, response, self.site)
            status = response.cache_status
            self.counts["hit" if status.get("hit") else str(status["fwd"])] += 1
            if etag := response.field("etag"):
                self._etags[asked.target, asked.host] = etag
        return response.field("connection") != "close"

    def _question(self, draw: Draw) -> tuple[Asked, str]:
        target = self._some_target(draw)
        size = Page.at(target).size
        host = draw.choice(HOSTS)
        method = "HEAD" if draw.random() < 0.07 else "GET"
        etag = self._etags.get((target, host)) if draw.random() < 0.1 else None
        ranges: tuple[tuple[int, int], ...] = ()
        if method == "GET" and draw.random() < 0.1:
            starts = [draw.randrange(size + 1) for _ in range(draw.choice((1, 1, 2)))]
            ranges = tuple((start, start + draw.randrange(size + 1)) for start in starts)
        asked = Asked(
            method=method,
            target=target,
            host=host,
            device=draw.choice(DEVICES),
            who=f"Bearer {draw.choice('xyz')}" if draw.random() < 0.06 else None,
            etag=etag,
            ranges=ranges,
            least=self.ledger.of(target),
            version=self.site.versions[target],
            at=self._now,
        )
        buster = f"/cb:{draw.choice('abcdef')}" if draw.random() < 0.1 else ""
        return asked, buster + target

    def _some_target(self, draw: Draw) -> str:
        # Some are asked for far more often than others.
        return Page(int(self.site.pages * draw.random() ** 2.5)).target

    # -- those who change things

    async def _purge(self, draw: Draw) -> None:
        while not self._over.is_set():
            await asyncio.sleep(draw.uniform(0.0, 0.3))
            selection, affected = self._selection(draw)
            for target in affected:
                if draw.random() < 0.7:
                    self.site.change(target)
            self.site.change(self._some_target(draw))
            versions, mode = dict(self.site.versions), draw.choice(("invalidate", "delete"))
            began = self._now
            try:
                async with asyncio.timeout(PATIENCE):
                    answer = await self.edge.purge(**selection, mode=mode)
            except (MessageCut, OSError):
                assert self._excused(began)
                continue
            for target, names in named_by(selection, versions):
                self.ledger.note(mode, names, {target: versions[target]})
            self.counts["purges"] += 1
            self.counts["matched"] += answer["matched"]

    def _selection(self, draw: Draw) -> tuple[dict[str, Any], list[str]]:
        """What to purge, and the pages that it is about."""
        targets = draw.sample(sorted(self.site.versions), 3)
        match draw.choices(("tags", "paths", "url", "everything"), (60, 18, 20, 2)):
            case ["tags"]:
                tags = draw.sample(TAGS, draw.choice((1, 1, 2)))
                return {"tags": tags}, [each for tag in tags for each in self.site.bearing(tag)]
            case ["paths"]:
                return {"urls": targets}, targets
            case ["url"]:
                return {"urls": [f"http://{draw.choice(HOSTS)}{targets[0]}"]}, targets[:1]
        return {"everything": True}, targets

    async def _post(self, draw: Draw) -> None:
        """RFC 9111 4.4."""
        while not self._over.is_set():
            await asyncio.sleep(draw.uniform(0.0, 0.2))
            url, host = self.edge.url + self._some_target(draw), draw.choice(HOSTS)
            body = bytes(draw.choice((1, 100_000)))
            began = self._now
            try:
                async with asyncio.timeout(PATIENCE):
                    response = await fetch(url, method="POST", fields={"Host": host}, body=body)
            except (MessageCut, OSError):
                assert self._excused(began) or self.site.faults.cut
                continue
            changed = response.field("x-changed")
            if changed is None:
                self._failed(f"POST {url}", response, began)
            elif response.status < 400:
                # RFC 9111 4.4: what the origin answers with an error invalidates nothing.
                self.ledger.note("delete", [f"url {host}"], json.loads(changed))

    async def _kill(self, draw: Draw) -> None:
        while not self._over.is_set():
            await asyncio.sleep(draw.uniform(0.3, 0.8))
            await self._kill_worker(draw)

    async def _kill_worker(self, draw: Draw) -> None:
        self._killed_at = self._now
        await self.edge.kill_worker(draw.randrange(2))
        self.counts["killed"] += 1
        await self.edge.ready()
        self._killed_at = self._now

    async def _depose(self, draw: Draw) -> None:
        """Kill any of the processes; whoever is left serves on until the supervisor is gone."""
        while not self._over.is_set():
            await asyncio.sleep(draw.uniform(0.2, 1.0))
            if draw.random() < 0.7:
                reached = asyncio.create_task(self._reach(draw))
                await self._kill_worker(draw)
                await reached
                continue
            # Until it is there again, nobody may count on anything.
            self._killed_at = float("inf")
            os.kill(self.edge.pid, signal.SIGKILL)
            await self.edge.wait()
            self.counts["deposed"] += 1
            await self.edge.start()
            self._killed_at = self._now

    async def _reach(self, draw: Draw) -> None:
        """While one worker is dead, the other one answers: of a few connections at least one."""
        for _ in range(5):
            try:
                async with asyncio.timeout(PATIENCE):
                    response = await self.edge.get(self._some_target(draw), {"Host": HOSTS[0]})
            except (MessageCut, OSError):
                continue
            assert response.status in (200, 404, 502, 503, 504), response.head.raw
            return
        raise AssertionError(f"nobody answers while a worker is dead\n{self.edge.log}")


async def calm(edge: EdgeProcess, site: Site) -> None:
    """After the storm, what is stored is counted right, and nothing else is left of it."""
    await asyncio.gather(
        *(edge.get(target, {"Host": host}) for target in site.versions for host in HOSTS)
    )
    folders = [folder for folder in edge.folder.rglob("tmp") if folder.is_dir()]
    async with asyncio.timeout(PATIENCE):
        # What is refreshed or evicted in between makes a difference, until that is over.
        while await listed(edge, site) != await counted(edge):
            await asyncio.sleep(0.1)
        while any(spool for folder in folders for spool in folder.iterdir()):
            await asyncio.sleep(0.1)


async def listed(edge: EdgeProcess, site: Site) -> Counter[str]:
    """How many responses are stored, and bear each tag, one by one."""
    stored: dict[str, set[str]] = {}
    for target in site.versions:
        for entry in (await edge.admin("GET", f"/v1/entries?url={target}")).json()["entries"]:
            if "deleted" not in entry["why"]:
                # With a store for each worker, several may have a response of one id.
                stored.setdefault(entry["id"], set()).update(entry["tags"])
    return Counter(["all"] * len(stored)) + Counter(tag for tags in stored.values() for tag in tags)


async def counted(edge: EdgeProcess) -> Counter[str]:
    """The same by what purges would match."""
    everything = await edge.purge(everything=True, dry_run=True)
    by_tag = {tag: (await edge.purge(tags=[tag], dry_run=True))["matched"] for tag in TAGS}
    return Counter(all=everything["matched"]) + Counter(by_tag)
