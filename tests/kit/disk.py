"""Disks without room, for this process, and folders that can't be written to, for everybody."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in that folder can be changed. Nothing but a file system of its own keeps root from
    that; where it can't be mounted, the test is skipped."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        try:
            yield
        finally:
            folder.chmod(0o700)
        return
    if subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode:
        pytest.skip("a READ-ONLY FILE SYSTEM WAS NOT TRIED: it takes leave to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder, folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
