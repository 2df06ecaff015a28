"""A client to a scripted origin, with short time-outs, and what the tests of it share."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edgeproxy.config.site import Origin, Pool, Timeouts
from edgeproxy.proxy.upstream import OriginClient, OriginResponse
from edgeproxy.semantics.fields import Fields
from tests.kit import ScriptedOrigin

HOST = Fields(((b"Host", b"www.shop.example"),))
PROMPT = {"connect": 5.0, "first_byte": 5.0, "between_bytes": 5.0}


@asynccontextmanager
async def client_of(
    origin: ScriptedOrigin | str,
    *,
    tls: dict[str, Any] | None = None,
    pool: dict[str, Any] | None = None,
    **timeouts: float,
) -> AsyncIterator[OriginClient]:
    """A client; time-outs are five seconds but for those given."""
    url = origin if isinstance(origin, str) else origin.url
    settings: dict[str, Any] = {"url": url}
    if tls is not None:
        settings["tls"] = tls
    client = OriginClient(Origin(**settings), Timeouts(**(PROMPT | timeouts)), Pool(**(pool or {})))
    try:
        yield client
    finally:
        await client.close()


async def get(client: OriginClient, target: str = "/", **arguments: Any) -> OriginResponse:
    """The answer to a plain GET."""
    return await client.send(b"GET", target.encode(), HOST, **arguments)


async def body_of(response: OriginResponse) -> bytes:
    """The whole body."""
    pieces = []
    while chunk := await response.read_chunk():
        pieces.append(chunk)
    return b"".join(pieces)


async def fetch(client: OriginClient, target: str = "/", **arguments: Any) -> bytes:
    """The body of the answer to a plain GET."""
    return await body_of(await get(client, target, **arguments))


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """A request's body of these pieces."""
    for part in parts:
        yield part


class Resident:
    """How much more memory the process takes than it did, in bytes, at its highest."""

    def __init__(self) -> None:
        self._before = self._now()
        self.growth = 0

    def look(self) -> None:
        self.growth = max(self.growth, self._now() - self._before)

    @staticmethod
    def _now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def until_steady(values: Iterable[int] | list[int]) -> int:
    """The length of a list that something appends to, once it stops growing."""
    assert isinstance(values, list)
    seen = -1
    while seen != len(values):
        seen = len(values)
        await asyncio.sleep(0.2)
    return seen
