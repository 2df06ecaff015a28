"""`python -m bench.footprint`: what an edge takes that has a million responses stored.

The memory that a worker has for itself, the time from the start of the process to its first hit,
and what the memory tier takes for a response beside the response's own bytes.
"""

from __future__ import annotations

import argparse
import compileall
import gc
import http.client
import json
import sys
import tempfile
import time
import tracemalloc
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import edgeproxy
from bench.processes import BenchError, Running, fast_folder
from bench.purging import EDGE, HOST, MAX_BYTES, NOTHING_SLOW, fill
from bench.report import machine
from bench.servers import ORIGIN
from edgeproxy.cache.index import Index
from edgeproxy.cache.memory import Entry, MemoryTier
from edgeproxy.cache.rows import read_row, row_body
from edgeproxy.invalidation.journal_check import check_journal
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.freshness import FreshnessPolicy, assess_freshness

STARTS = 5
READ = 40_000
"""More than fit into the memory tier, as it is by default."""
GIVE_UP = 30.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured."""

    responses: int
    worker_mb: float
    """Memory that a worker has for itself after its first hit; files that it maps don't count."""
    worker_read_mb: float
    """The same after so many of the responses were read as `read` says: they are in its memory."""
    read: int
    first_hit_ms: float
    """From the start of the process until a response of the store was answered; the median."""
    entry_bytes: float
    """What the memory tier takes for a response."""
    entry_own_bytes: float
    """Of that, bytes of its body and its fields as they came."""


def main() -> int:
    """The exit status."""
    arguments = _arguments()
    try:
        with tempfile.TemporaryDirectory(prefix="edgeproxy-bench-", dir=arguments.folder) as name:
            figures = _measure(Path(name), arguments.responses)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"machine": machine(), **asdict(figures)}, indent=1))
    return 0


def _measure(folder: Path, responses: int) -> Figures:
    # As pip does when it installs; not to is a matter of the environment here.
    compileall.compile_dir(Path(edgeproxy.__file__).parent, quiet=1)
    read = min(READ, responses)
    with Running(ORIGIN, folder, None, NOTHING_SLOW) as origin:
        origin.wait_until_ready("/page/0")
        with Running(EDGE, folder, None, origin.port) as edge:
            edge.wait_until_ready("/page/0")
        store = folder / EDGE.name / "store"
        fill(store, responses)
        index = Index(store / "responses", MAX_BYTES, check_journal(store / "journal"))
        taken, own = _entry_bytes(index, read)
        index.close()
        starts = []
        for _ in range(STARTS):
            began = time.monotonic()
            with Running(EDGE, folder, None, origin.port) as edge:
                _wait_for_hit(edge.port)
                starts.append(time.monotonic() - began)
                worker = edge.memory_of_workers()[0]
                if len(starts) == STARTS:
                    _read(edge.port, read)
                worker_read = edge.memory_of_workers()[0]
        return Figures(
            responses=responses,
            worker_mb=worker / 1e6,
            worker_read_mb=worker_read / 1e6,
            read=read,
            first_hit_ms=median(starts) * 1000,
            entry_bytes=taken,
            entry_own_bytes=own,
        )


def _wait_for_hit(port: int) -> None:
    give_up = time.monotonic() + GIVE_UP
    while time.monotonic() < give_up:
        with suppress(ConnectionError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.connect()
            _hit(connection, 0)
            connection.close()
            return
        time.sleep(0.002)
    raise BenchError(f"{EDGE.name} does not start")


def _read(port: int, count: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for number in range(count):
        _hit(connection, number)
    connection.close()


def _hit(connection: http.client.HTTPConnection, number: int) -> None:
    connection.request("GET", f"/bulk/{number}", headers={"Host": HOST})
    response = connection.getresponse()
    response.read()
    told = response.headers["Cache-Status"] or ""
    if response.status != 200 or "; hit" not in told:
        raise BenchError(f"/bulk/{number} is answered with {response.status}: {told}")


def _entry_bytes(index: Index, count: int) -> tuple[float, float]:
    """What the memory tier takes for each of so many responses, and what of that is their own."""
    memory = MemoryTier(1 << 40)
    policy = FreshnessPolicy()
    own = 0
    with index.reading() as txn:
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for row_id, row in islice(txn.cursor(index.rows), count):
            stored = read_row(bytes(row_id), row)
            fields = Fields(stored.fields)
            freshness = assess_freshness(
                stored.status, fields, stored.request_time, stored.response_time, policy
            )
            body = row_body(row)
            memory.put(Entry.of(stored, body, freshness, checked=0))
            own += len(body) + sum(len(name) + len(value) for name, value in stored.fields)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    return taken / count, own / count


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.footprint", description=__doc__)
    parser.add_argument("--responses", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--folder", default=fast_folder(), help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
