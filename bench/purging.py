"""`python -m bench.purging`: what a purge costs, and what readers notice of it.

One purge of a tag that a million stored responses share; then ten thousand purges a second of
tags of their own for ten seconds. Readers ask for other pages meanwhile. The edge has one worker
and all cores: what sweeps the store is a process beside that.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import tempfile
import threading
import time
import zlib
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.load import Load
from bench.processes import BenchError, Running, fast_folder
from bench.report import machine
from bench.requests import write_requests
from bench.scenarios import PAGES, Scenario
from bench.servers import ADMIN_TOKEN, ORIGIN, Server, edgeproxy
from edgeproxy.cache.index import Index
from edgeproxy.cache.stored import BodyRef, StoredResponse
from edgeproxy.invalidation.journal_check import check_journal
from edgeproxy.semantics.key import KeyPolicy, cache_key

if TYPE_CHECKING:
    from collections.abc import Sequence

EDGE = Server("edgeproxy", (), edgeproxy)
NOTHING_SLOW = 9
"""The port of what the origin passes slow pages on to; nobody asks for one here."""
SITE = "shop"
HOST = "bulk.example"
"""Whose are the responses that are purged."""
MAX_BYTES = 16 << 30
HITS = Scenario("hit", "hits, about a thousand a second", connections=4, pause_ms=3)
"""So that what is measured is the edge, and not a queue."""
REQUESTS = 20_000
WINDOW = 2
"""Seconds of a look at what readers notice."""
BATCH = 1000
GIVE_UP = 600.0


@dataclass(frozen=True, slots=True)
class Noticed:
    """What readers noticed in a window, and what each of their requests cost the edge."""

    p50_ms: float
    p99_ms: float
    per_second: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured."""

    responses: int
    answered_ms: float
    """How long the purge took, as its caller sees it."""
    matched: int
    before: Noticed
    during: Noticed
    worst_during: Noticed
    free_seconds: float
    """From the purge until all that it picked was out of the store."""
    memory_mb: float
    """How much more the edge's processes had for themselves at most."""
    purges_per_second: float
    cost_before_us: float
    cost_during_us: float
    cost_after_us: float
    """Processor time of a hit before, during and after those purges."""


def main() -> int:
    """The exit status."""
    arguments = _arguments()
    cores = sorted(os.sched_getaffinity(0))
    try:
        with tempfile.TemporaryDirectory(prefix="edgeproxy-bench-", dir=arguments.folder) as name:
            figures = _measure(Path(name), cores, arguments.responses, arguments.seconds)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"machine": machine(), **asdict(figures)}, indent=1))
    return 0


def _measure(folder: Path, cores: Sequence[int], responses: int, seconds: int) -> Figures:
    other = cores[-1]
    with ExitStack() as stack:
        origin = stack.enter_context(Running(ORIGIN, folder, other, NOTHING_SLOW))
        origin.wait_until_ready("/page/0")
        with Running(EDGE, folder, None, origin.port) as edge:
            edge.wait_until_ready("/page/0")
        store = folder / EDGE.name / "store"
        fill(store, responses)
        edge = stack.enter_context(Running(EDGE, folder, None, origin.port))
        edge.wait_until_ready("/page/0")
        edge.get_all(f"{HITS.path}{page}" for page in range(PAGES))
        readers = Readers(edge, folder / "hits", other)
        look(readers)
        before = _middle([look(readers) for _ in range(3)])
        memory = edge.memory_bytes()
        # What the purge leaves behind is read where it lies: asking the edge would cost it time.
        index = Index(store / "responses", MAX_BYTES, check_journal(store / "journal"))
        stack.callback(index.close)
        kept = entries(index) - responses
        windows: list[Noticed] = []
        with Looking(readers, windows):
            time.sleep(WINDOW / 2)
            began = time.monotonic()
            matched = purge(edge, ["bulk"])
            answered = time.monotonic() - began
            peak = memory
            while entries(index) > kept:
                peak = max(peak, edge.memory_bytes())
                if time.monotonic() > began + GIVE_UP:
                    raise BenchError(f"{entries(index)} responses are still there")
                time.sleep(0.25)
            free = time.monotonic() - began
        if matched != responses:
            raise BenchError(f"the purge picked {matched} responses of {responses}")
        after_it = _middle([look(readers) for _ in range(3)])
        rate, during = _many(readers, seconds)
        return Figures(
            responses=responses,
            answered_ms=answered * 1000,
            matched=matched,
            before=before,
            during=_middle(windows),
            worst_during=max(windows, key=lambda each: each.p99_ms),
            free_seconds=free,
            memory_mb=(peak - memory) / 1e6,
            purges_per_second=rate,
            cost_before_us=after_it.cpu_us,
            cost_during_us=during.cpu_us,
            cost_after_us=_middle([look(readers) for _ in range(3)]).cpu_us,
        )


def fill(store: Path, count: int) -> None:
    """Put that many responses of 1 KB with the tag `bulk` into the store of an edge at rest."""
    index = Index(store / "responses", MAX_BYTES, check_journal(store / "journal"))
    body = os.urandom(1024)
    crc, now, policy = zlib.crc32(body), time.time(), KeyPolicy()
    for first in range(0, count, BATCH):
        with index.writing() as txn:
            for number in range(first, min(first + BATCH, count)):
                key = cache_key(SITE, "http", HOST, b"/bulk/%d" % number, policy)
                stored = StoredResponse(
                    primary=key.primary,
                    variant=bytes(8),
                    target_id=key.target_id,
                    site=SITE,
                    environment="production",
                    scheme=key.scheme,
                    host=key.host,
                    target=key.target,
                    buster=b"",
                    status=200,
                    reason=b"OK",
                    fields=(
                        (b"Content-Type", b"text/html"),
                        (b"Cache-Control", b"max-age=86400"),
                        (b"Cache-Tag", b"bulk"),
                    ),
                    selecting=(),
                    tags=("bulk",),
                    request_time=now,
                    response_time=now,
                    position=0,
                    invalidated=0,
                    body=BodyRef("inline", index.new_body_id(txn), len(body), crc),
                )
                index.insert(txn, stored, body, now)
    index.close()


def entries(index: Index) -> int:
    with index.reading() as txn:
        return index.entries(txn)


class Readers:
    """Those who ask for other pages, from one core."""

    def __init__(self, edge: Running, requests: Path, core: int) -> None:
        self.edge = edge
        self.core = core
        self.requests = requests
        write_requests(HITS, requests, REQUESTS)


def look(readers: Readers) -> Noticed:
    """What readers notice just now."""
    cpu = readers.edge.cpu_seconds()
    told = Load(readers.edge, HITS, readers.requests, "", WINDOW, readers.core).end()
    cpu = readers.edge.cpu_seconds() - cpu
    if not told.requests or told.failed:
        raise BenchError(f"{told.failed} of {told.requests} requests failed")
    return Noticed(
        p50_ms=told.p50_ms,
        p99_ms=told.p99_ms,
        per_second=told.requests / told.seconds,
        cpu_us=cpu / told.requests * 1e6,
    )


class Looking:
    """While it is open, looks are taken one after the other."""

    def __init__(self, readers: Readers, windows: list[Noticed]) -> None:
        self._over = threading.Event()
        self._failed: list[BenchError] = []
        self._thread = threading.Thread(target=self._look, args=(readers, windows))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        if self._failed:
            raise self._failed[0]

    def _look(self, readers: Readers, windows: list[Noticed]) -> None:
        try:
            while not self._over.is_set():
                windows.append(look(readers))
        except BenchError as error:
            self._failed.append(error)


def _many(readers: Readers, seconds: int) -> tuple[float, Noticed]:
    """Ten thousand purges a second, in calls of `BATCH`; how many it were, and what they cost."""
    windows: list[Noticed] = []
    with Looking(readers, windows):
        began = time.monotonic()
        calls = 10 * seconds
        for number in range(calls):
            purge(readers.edge, [f"t{number}-{at}" for at in range(BATCH)])
            time.sleep(max(0.0, began + (number + 1) / 10 - time.monotonic()))
        took = time.monotonic() - began
    return calls * BATCH / took, _middle(windows)


def _middle(windows: Sequence[Noticed]) -> Noticed:
    return Noticed(
        p50_ms=median(each.p50_ms for each in windows),
        p99_ms=median(each.p99_ms for each in windows),
        per_second=median(each.per_second for each in windows),
        cpu_us=median(each.cpu_us for each in windows),
    )


def purge(edge: Running, tags: list[str]) -> int:
    """Delete what bears one of the tags; how many it were."""
    connection = http.client.HTTPConnection("127.0.0.1", edge.spare_port, timeout=60)
    body = json.dumps({"site": SITE, "tags": tags, "mode": "delete"})
    fields = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/purge", body, fields)
    response = connection.getresponse()
    answer: dict[str, Any] = json.loads(response.read())
    connection.close()
    if response.status != 200:
        raise BenchError(f"a purge is answered with {response.status}: {answer}")
    return int(answer["matched"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.purging", description=__doc__)
    parser.add_argument("--responses", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=int, default=10, help="of many purges (default: %(default)s)"
    )
    parser.add_argument("--folder", default=fast_folder(), help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
