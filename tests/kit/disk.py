"""A disk without room, for this process: what has to be longer than it is can't be written."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

LMDB_HEADER = 8192
"""A file of LMDB's that may be no longer can't take anything in."""


@contextmanager
def full_disk(longest: int = LMDB_HEADER) -> Iterator[None]:
    """No file may be written to beyond that many bytes: EFBIG stops it, as ENOSPC would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (longest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
