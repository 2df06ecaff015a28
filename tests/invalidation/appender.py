"""A process that appends to a journal: `python -m tests.invalidation.appender FOLDER HEAD COUNT`.

Writes the positions of each batch to standard output, a line a batch, once it is acknowledged.
COUNT batches of 3, or without end if that is 0.
"""

from __future__ import annotations

import mmap
import sys
from itertools import count
from pathlib import Path

from edgeproxy.invalidation.head import HEAD_BYTES, SharedHead
from edgeproxy.invalidation.journal import LocalJournal
from edgeproxy.invalidation.selectors import Selector
from tests.invalidation.samples import record


def mapped_head(path: Path) -> SharedHead:
    """The head in a file, shared by all processes that map it."""
    with path.open("a+b") as file:
        file.truncate(HEAD_BYTES)
        return SharedHead(memoryview(mmap.mmap(file.fileno(), HEAD_BYTES)))


def main(folder: str, head: str, batches: str) -> None:
    journal = LocalJournal(Path(folder), mapped_head(Path(head)))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(batches)) if int(batches) else count():
        drafts = [record(Selector.by_tag("shop", f"t-{number}-{each}")) for each in range(3)]
        print(*(each.position for each in journal.append_all(drafts)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
