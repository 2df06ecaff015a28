"""Bodies in whatever aiocache reaches: Redis or Valkey, or this process's own memory."""

from __future__ import annotations

import logging
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import redis.asyncio
from aiocache import RedisCache, SimpleMemoryCache
from aiocache.serializers import NullSerializer
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from edgeproxy.cache.errors import BodyMissing, BodyUnreachable, StoreFull, StoreUnusable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import TypeVar

    from aiocache.base import BaseCache

    from edgeproxy.cache.bodies import ReadBody
    from edgeproxy.cache.spool import Spool
    from edgeproxy.cache.stored import BodyKind, BodyRef
    from edgeproxy.config.urls import AiocacheStore

    T = TypeVar("T")

log = logging.getLogger(__name__)

CHUNK_SIZE = 1024 * 1024

_TTL = 30 * 86_400
"""Seconds until Redis drops a body by itself: what an index that was lost left behind."""
_TIMEOUT = 3.0
"""Seconds that one command to Redis may take, with its value of up to 1 MiB."""
_CONNECT_TIMEOUT = 1.0
_PAUSE = 1.0
"""Seconds to leave a Redis alone that has not answered: meanwhile nobody waits for it."""
_CONNECTIONS = 16


class AiocacheBodies:
    """Bodies in an aiocache backend whose values are bytes, in chunks of 1 MiB.

    `namespace` is the index's own, so that no two indexes ever mean the same key. A backend that
    fails is left alone for a second; meanwhile what it holds counts as unreachable at once.
    """

    kind: BodyKind = "external"
    inline_limit = -1

    def __init__(self, cache: BaseCache, namespace: str, *, linger: float, ttl: int | None) -> None:
        self.linger = linger
        self._cache = cache
        self._namespace = namespace
        self._ttl = ttl
        self._quiet_until = 0.0
        self._failing = False

    @property
    def reachable(self) -> bool:
        return monotonic() >= self._quiet_until

    async def probe(self) -> None:
        await self._ask(self._cache.exists, f"{self._namespace}:probe")

    async def write(self, body_id: bytes, spool: Spool) -> None:
        for number, start in enumerate(range(0, spool.size, CHUNK_SIZE)):
            chunk = await spool.read(start, CHUNK_SIZE)
            try:
                await self._ask(self._cache.add, self._key(body_id, number), chunk, ttl=self._ttl)
            except (BodyUnreachable, ValueError) as error:
                # A ValueError says that the key is taken, as after an older index was put back.
                full = isinstance(error.__cause__, OutOfMemoryError)
                kind = StoreFull if full else StoreUnusable
                raise kind(f"the body can't be written: {error}") from error

    async def read(self, ref: BodyRef) -> bytes:
        chunks = [await self._chunk(ref, number) for number in range(_chunks(ref))]
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def open(self, ref: BodyRef) -> ReadBody:
        for number in range(_chunks(ref)):
            if not await self._ask(self._cache.exists, self._key(ref.id, number)):
                raise BodyMissing(f"chunk {number} of body {ref.id.hex()} is gone")

        async def read(start: int, stop: int | None) -> AsyncIterator[bytes]:
            end = ref.length if stop is None else min(stop, ref.length)
            while start < end:
                number, offset = divmod(start, CHUNK_SIZE)
                part = (await self._chunk(ref, number))[offset : offset + end - start]
                start += len(part)
                yield part

        return read

    async def remove(self, ref: BodyRef) -> None:
        for number in range(_chunks(ref)):
            try:
                await self._ask(self._cache.delete, self._key(ref.id, number))
            except BodyUnreachable as error:
                raise StoreUnusable(f"body {ref.id.hex()} can't be removed: {error}") from error

    async def close(self) -> None:
        await self._cache.close()

    async def _chunk(self, ref: BodyRef, number: int) -> bytes:
        chunk: bytes | None = await self._ask(self._cache.get, self._key(ref.id, number))
        size = min(CHUNK_SIZE, ref.length - number * CHUNK_SIZE)
        if chunk is None or len(chunk) != size:
            raise BodyMissing(f"chunk {number} of body {ref.id.hex()} is gone")
        return chunk

    def _key(self, body_id: bytes, number: int) -> str:
        return f"{self._namespace}:{body_id.hex()}:{number}"

    async def _ask(
        self, command: Callable[..., Awaitable[T]], *arguments: object, **options: object
    ) -> T:
        if not self.reachable:
            raise BodyUnreachable("the store for bodies did not answer a moment ago")
        try:
            answer = await command(*arguments, **options)
        except ResponseError as error:
            # It refuses this one thing; others it may well do.
            raise BodyUnreachable(f"the store for bodies: {error}") from error
        except (OSError, RedisError) as error:
            self._quiet_until = monotonic() + _PAUSE
            reason = str(error) or "no answer in time"
            if not self._failing:
                log.warning("the store for bodies fails: %s", reason)
            self._failing = True
            raise BodyUnreachable(f"the store for bodies: {reason}") from error
        if self._failing:
            log.warning("the store for bodies works again")
            self._failing = False
        return answer


class MemoryBodies(AiocacheBodies):
    """Bodies in this process. Who has one open keeps it, so it can go from here at any time."""

    def __init__(self) -> None:
        cache = SimpleMemoryCache(serializer=NullSerializer(encoding=None), timeout=None)
        super().__init__(cache, "body", linger=0.0, ttl=None)

    async def open(self, ref: BodyRef) -> ReadBody:
        chunks = [await self._chunk(ref, number) for number in range(_chunks(ref))]

        async def read(start: int, stop: int | None) -> AsyncIterator[bytes]:
            end = ref.length if stop is None else min(stop, ref.length)
            while start < end:
                number, offset = divmod(start, CHUNK_SIZE)
                part = chunks[number][offset : offset + end - start]
                start += len(part)
                yield part

        return read


class RedisBodies(AiocacheBodies):
    """Bodies in a Redis or Valkey, for the index with that identity."""

    def __init__(self, store: AiocacheStore, identity: bytes) -> None:
        self._redis = _redis_cache(store)
        super().__init__(self._redis, f"edgeproxy:{identity.hex()}", linger=60.0, ttl=_TTL)

    async def close(self) -> None:
        # aiocache would close it by a name that redis-py has given up.
        with suppress(OSError, RedisError):
            await self._redis.client.aclose()


def _redis_cache(store: AiocacheStore) -> RedisCache:
    login = {"username": store.username} if store.username is not None else {}
    return RedisCache(
        serializer=NullSerializer(encoding=None),
        endpoint=store.host,
        port=store.port,
        db=store.db,
        password=store.password,
        ssl=store.tls,
        timeout=_TIMEOUT,
        create_connection_timeout=_CONNECT_TIMEOUT,
        pool_max_size=_CONNECTIONS,
        # Waits for a free connection, where the plain pool refuses.
        connection_pool_class=redis.asyncio.BlockingConnectionPool,
        connection_pool_kwargs={
            **login,
            "timeout": _TIMEOUT,
            "socket_timeout": _TIMEOUT,
            # Its own retries would keep a reader waiting for seconds.
            "retry": Retry(NoBackoff(), 0),
        },
    )


def _chunks(ref: BodyRef) -> int:
    return -(-ref.length // CHUNK_SIZE)
