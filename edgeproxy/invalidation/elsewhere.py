"""Has rules applied by a process of its own, where it takes long."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.cache.errors import StoreUnusable
from edgeproxy.invalidation import applying

if TYPE_CHECKING:
    from edgeproxy.invalidation.applying import Place

_KILL_SECONDS = 5.0


async def apply_elsewhere(place: Place) -> None:
    """Have it applied by a process of its own; it is killed on cancellation.

    Raises StoreUnusable where that did not work: what it did stays done.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        applying.__name__,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        with suppress(ConnectionError):
            process.stdin.write(_framed(place))
            await process.stdin.drain()
        told = await process.stderr.read()
        await process.wait()
    except BaseException:
        with suppress(ProcessLookupError):
            process.kill()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _KILL_SECONDS)
        raise
    finally:
        # Open until here: the process must not outlive this one.
        process.stdin.close()
    if process.returncode:
        reason = told.decode(errors="replace").strip().rpartition("\n")[2]
        raise StoreUnusable(f"{place.directory} could not be swept: {reason}")


def _framed(place: Place) -> bytes:
    message = msgspec.msgpack.encode(place)
    return len(message).to_bytes(applying.LENGTH, "big") + message
