"""Stored responses, what selects them, and tiers of every kind, for the tests here."""

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from edgeproxy.cache.lists import List, Span, keys_of, url_value
from edgeproxy.cache.snapshot import Mark, Snapshot
from edgeproxy.cache.store import SharedTier, open_tier
from edgeproxy.cache.stored import UNWRITTEN, StoredResponse
from edgeproxy.config.model import Config

JOURNAL_ID = b"journal of tests"
KIB = 1024
MIB = KIB * KIB


def response(name: str = "a", variant: int = 0, **changes: Any) -> StoredResponse:
    """The response for `/name` of site "shop", as it comes from the origin."""
    made: dict[str, Any] = {
        "primary": blake2b(name.encode(), digest_size=16).digest(),
        "variant": variant.to_bytes(8, "big"),
        "target_id": blake2b(b"target " + name.encode(), digest_size=16).digest(),
        "site": "shop",
        "environment": "production",
        "scheme": "https",
        "host": "shop.test",
        "target": b"/" + name.encode(),
        "buster": b"",
        "status": 200,
        "reason": b"OK",
        "fields": ((b"Content-Type", b"text/plain"),),
        "selecting": (),
        "tags": (),
        "request_time": 1000.0,
        "response_time": 1000.5,
        "position": 0,
        "invalidated": 0,
        "body": UNWRITTEN,
    }
    return StoredResponse(**{**made, **changes})


def copy_of(name: str, token: str, **changes: Any) -> StoredResponse:
    """The `cb:` copy of `/name` that a token names."""
    own = response(f"cb:{token} {name}")
    return response(name, primary=own.primary, buster=token.encode(), **changes)


def everything(site: str = "shop", environment: str | None = None) -> Span:
    return Span(List.SITE, site, environment, b"")


EVERYTHING = everything()


def by_tag(tag: str, site: str = "shop", environment: str | None = None) -> Span:
    return Span(List.TAG, site, environment, tag.encode())


def by_url(name: str, host: str | None = None, environment: str | None = None) -> Span:
    target = b"/" + name.encode()
    if host is None:
        return Span(List.URL, "shop", environment, target, any_host=True)
    return Span(List.URL, "shop", environment, url_value(host, target))


def ids(
    snapshot: Snapshot, span: Span, after: Mark | None = None, limit: int = 1000
) -> list[bytes]:
    return [mark.id for mark in snapshot.ids(span, after, limit)]


def stored_in(snapshot: Snapshot, span: Span) -> list[StoredResponse]:
    """The responses that a span lists."""
    found = [each for row_id in ids(snapshot, span) for each in snapshot.read(row_id)]
    # Other workers may have others of those ids.
    keys = {mark.key for mark in snapshot.ids(span, None, 1000)}
    return [each for each in found if keys.intersection(keys_of(each))]


@dataclass
class Time:
    """A clock that stands still until it is told to go on."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def as_it_is(stored: StoredResponse) -> StoredResponse:
    """Admits everything."""
    return stored


def config(url: str, directory: Path, **store: Any) -> Config:
    if not url.startswith("lmdb:"):
        store["state_dir"] = str(directory)
    if "max_bytes" in store:
        store.setdefault("max_object_bytes", store["max_bytes"])
    sites = {"shop": {"origins": [{"url": "http://127.0.0.1:1"}]}}
    return Config.model_validate(
        {"store": {"url": url, **store}, "default_site": "shop", "sites": sites, "workers": 2}
    )


@dataclass
class Node:
    """The tiers of a node's workers, all in this process."""

    url: str
    directory: Path
    clock: Time = field(default_factory=Time)
    tiers: list[SharedTier] = field(default_factory=list)

    def open(self, worker: int = 0, **store: Any) -> SharedTier:
        tier = open_tier(
            config(self.url, self.directory, **store),
            self.directory,
            worker=worker,
            journal_id=JOURNAL_ID,
            clock=self.clock,
        )
        self.tiers.append(tier)
        return tier

    async def close(self, tier: SharedTier) -> None:
        self.tiers.remove(tier)
        await tier.close()

    async def close_all(self) -> None:
        for tier in list(self.tiers):
            await self.close(tier)


async def put(
    tier: SharedTier,
    stored: StoredResponse,
    body: bytes = b"hello",
    admit: Callable[[StoredResponse], StoredResponse | None] = as_it_is,
    *,
    max_variants: int = 32,
    max_busters: int = 32,
) -> StoredResponse | None:
    """Store a response as a fetch does."""
    spool = tier.spool()
    try:
        for start in range(0, len(body), 100 * KIB):
            await spool.append(body[start : start + 100 * KIB])
        return await tier.put(
            stored, spool, admit, max_variants=max_variants, max_busters=max_busters
        )
    finally:
        await spool.close()


async def must_put(
    tier: SharedTier, stored: StoredResponse, body: bytes = b"hello"
) -> StoredResponse:
    kept = await put(tier, stored, body)
    assert kept is not None
    return kept


async def drain(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def some_bytes(size: int) -> bytes:
    return os.urandom(size)


def open_files(directory: Path) -> list[Path]:
    """What this process has open in a directory, deleted files too."""
    links = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            links.append(fd.readlink())
        except OSError:
            continue
    return [link for link in links if directory in link.parents]
