"""The shared tier: what is stored on the node, beyond what each worker has in memory.

The index says what is stored, exactly; where large bodies lie is somebody else's business
(`bodies.py`). What a tier writes to the index on behalf of a request goes through one thread of its
own, because a transaction may have to wait for the node's other writers.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import lmdb
from msgspec.structs import replace

from edgeproxy.cache.bodies import INLINE_LIMIT
from edgeproxy.cache.changes import Changes, NoRoom
from edgeproxy.cache.disk import IndexFull, WriteWatch, translated
from edgeproxy.cache.errors import BodyUnreachable, StoreError, StoreFull, StoreUnusable
from edgeproxy.cache.garbage import garbage_before
from edgeproxy.cache.layout import WORKER, cost_of
from edgeproxy.cache.lists import keys_of
from edgeproxy.cache.reading import ReadSide
from edgeproxy.cache.rows import write_row
from edgeproxy.cache.shared_index import acquire_sibling, release_index
from edgeproxy.cache.snapshot import Snapshot
from edgeproxy.cache.spool import Spool
from edgeproxy.cache.stored import BodyRef
from edgeproxy.cache.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from edgeproxy.cache.bodies import Bodies
    from edgeproxy.cache.changes import Admit, Sweep
    from edgeproxy.cache.index import Index
    from edgeproxy.cache.rows import Ready
    from edgeproxy.cache.stored import StoredResponse

log = logging.getLogger(__name__)

STEP = 200
"""Most rows that one step of background work looks at, or changes in one transaction."""
_ROOM_ROUNDS = 64
_SCATTERED_ROUNDS = 3
_EVICT_ABOVE = 0.95
_MAX_TOUCHED = 4096


class SharedTier(ReadSide):
    """The stored responses of the node, or of one worker where bodies are in its own memory.

    `lookup` reads what is mapped into memory, and waits for nothing. `quiet`, `sweep`, `settle` and
    what uses a `Snapshot` are synchronous too, but for a thread: they may wait, or do a lot.
    """

    def __init__(
        self,
        index: Index,
        bodies: Bodies,
        spools: Path,
        *,
        max_bytes: int,
        max_object_bytes: int,
        per_worker: bool,
        clock: Callable[[], float],
        on_damage: Callable[[str], None] | None = None,
    ) -> None:
        """`on_damage` is told, by any thread, what is wrong with the index that was not when it was
        opened: then it has to be set aside."""
        self.max_object_bytes = max_object_bytes
        """Longest body that is stored."""
        self.max_bytes = max_bytes
        """How much may be stored."""
        self.index_directory = index.directory
        self.per_worker = per_worker
        self._spools = spools
        self._clock = clock
        watch = WriteWatch(spools.parent, on_damage=on_damage)
        changes = Changes(index, max_bytes, clock)
        super().__init__(index, bodies, changes, Writer(index, watch), watch)
        self._touched: dict[bytes, tuple[float, int]] = {}
        self._siblings: dict[Path, Index] = {}
        self._siblings_lock = threading.Lock()

    def spool(self) -> Spool:
        """Room for a body on its way in."""
        return Spool(self._spools, INLINE_LIMIT, self._watch)

    def look_at(self, error: StoreError) -> None:
        """Something that may be damage has gone wrong with what the tier gave."""
        self._watch.look_at(error.__cause__)

    async def probe(self) -> None:
        """Raises StoreError if the tier can't be used just now."""
        try:
            self._index.find(bytes(16))
        except lmdb.Error as error:
            raise StoreUnusable(f"{self._index.directory} can't be read: {error}") from error
        await self._bodies.probe()

    # -- writing

    async def put(
        self,
        response: StoredResponse,
        spool: Spool,
        admit: Admit,
        *,
        max_variants: int,
        max_busters: int,
        ready: Ready | None = None,
    ) -> StoredResponse | None:
        """Store a response whose body is whole in `spool`, in the place of an older one.

        `admit` is called in the writing thread, inside the transaction that makes the response
        visible: it gives what to store, or None. So a purge either sees the response, or is seen.
        `ready`: what is kept with it for hits.
        None: not admitted, or there is one that was asked for after a later purge. Raises StoreFull
        and StoreUnusable.
        """
        if spool.size > self.max_object_bytes:
            raise StoreFull(f"a body of {spool.size} bytes, with {self.max_object_bytes} allowed")
        try:
            ref, body = await self._take_body(spool)
        except StoreError as error:
            if isinstance(error.__cause__, (OSError, BodyUnreachable)):
                self._watch.failed(error)
            raise
        response = replace(response, body=ref)
        stored = None
        try:
            stored = await self._put(response, body, admit, max_variants, max_busters, ready)
        finally:
            if stored is None and body is None:
                await self._abandon(ref)
        if stored is not None:
            self._watch.written()
        return stored

    async def _take_body(self, spool: Spool) -> tuple[BodyRef, bytes | None]:
        if spool.size <= self._bodies.inline_limit:
            body = await spool.read(0, spool.size)
            # Its id is given out in the transaction that stores it.
            return BodyRef("inline", b"", spool.size, spool.crc), body
        kind = self._bodies.kind
        ref = await self._writer.write(self._changes.reserve, kind, spool.size, spool.crc)
        try:
            await self._bodies.write(ref.id, spool)
        except BaseException:
            await self._abandon(ref)
            raise
        return ref, None

    async def _abandon(self, ref: BodyRef) -> None:
        with suppress(StoreError):
            await self._writer.write(self._changes.abandon, ref)

    async def _put(
        self,
        response: StoredResponse,
        body: bytes | None,
        admit: Admit,
        max_variants: int,
        max_busters: int,
        ready: Ready | None,
    ) -> StoredResponse | None:
        store, evict = self._changes.store, self._changes.evict
        scattered = 0
        for _ in range(_ROOM_ROUNDS):
            try:
                return await self._writer.join(
                    store, response, body, admit, max_variants, max_busters, ready
                )
            except NoRoom as error:
                need = error.need
            except IndexFull:
                # What is free is held by readers, or too scattered for this body: the more is
                # free, the more of it lies together.
                if scattered == _SCATTERED_ROUNDS:
                    raise
                scattered += 1
                size = len(write_row(response, ready, None))
                cost = cost_of(size, keys_of(response), len(body or b""))
                need = cost << scattered
            freed = await self._writer.write(evict, need, self._clock())
            if scattered:
                # LMDB uses what a transaction has freed from the second one after it on.
                await self._writer.write(evict, 1, self._clock())
            if not freed:
                break
            await self.collect_garbage()
        raise StoreFull(f"no room for a body of {response.body.length} bytes")

    async def update(
        self,
        old: StoredResponse,
        new: StoredResponse,
        admit: Admit,
        ready: Ready | None = None,
    ) -> StoredResponse | None:
        """Give a stored response new metadata (RFC 9111 4.3.4); its body stays.

        None if `old` is not what is stored any more, or `admit` (see `put`) refuses. Where another
        worker was later to renew it, it is that worker's. Raises StoreFull and StoreUnusable.
        """
        return await self._writer.write(self._changes.renew, old, new, admit, ready)

    async def delete(self, ids: Iterable[bytes]) -> int:
        """Remove responses; how many were there."""
        todo = list(ids)
        gone = 0
        for start in range(0, len(todo), STEP):
            gone += await self._writer.write(self._changes.remove, todo[start : start + STEP])
        return gone

    def touch(self, row_id: bytes, now: float, times: int = 1) -> None:
        """Note that a response was used; it is written with the next `flush`."""
        self._touched[row_id] = (now, self._touched.get(row_id, (now, 0))[1] + times)
        if len(self._touched) >= _MAX_TOUCHED:
            touched, self._touched = self._touched, {}
            self._writer.submit(self._changes.note_use, touched)

    async def flush(self) -> None:
        """Write what `touch` noted."""
        touched, self._touched = self._touched, {}
        if touched:
            await self._writer.write(self._changes.note_use, touched)

    # -- for invalidations

    def snapshot(self, *, node: bool = True) -> Snapshot:
        """What is stored on the node at one moment; not `node`: in this tier's own index alone."""
        others = self._other_workers() if node and self.per_worker else []
        return Snapshot([self._index, *others])

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """While it is held nobody writes, and all puts that began before are to be seen."""
        with translated(self._index.directory), self._index.writing() as txn:
            yield
            txn.abort()

    def sweep(self, actions: Sequence[Sweep]) -> int:
        """Apply invalidations in one transaction; gives how many of them apply."""
        return self._writer.apply(self._changes.sweep, actions)

    @property
    def settled(self) -> int:
        """The journal position up to which the index has been swept."""
        return self.counter(b"settled")

    def settle(self, position: int) -> None:
        """Note that the index has been swept up to that position."""
        self._writer.apply(self._changes.settle, position)

    # -- background work

    async def evict_step(self, now: float) -> int:
        """Give up some of what is least worth, if the store is nearly full; the bytes freed."""
        need = self.bytes_used - int(self.max_bytes * _EVICT_ABOVE)
        return await self._writer.write(self._changes.evict, need, now) if need > 0 else 0

    async def expire_step(
        self, cursor: bytes | None, is_dead: Callable[[StoredResponse], bool]
    ) -> tuple[bytes | None, int]:
        """Look at the next rows, and remove the dead: where to go on, and how many it were.

        A walk begins with None and goes on with what the last step gave, until that is None.
        """
        seen, following = await self._writer.run(self._index.walk, cursor or b"\0", STEP)
        dead = [stored for stored in seen if is_dead(stored)]
        gone = 0
        if dead:
            gone = await self._writer.write(self._changes.remove_unchanged, dead)
        return following, gone

    async def collect_garbage(self) -> int:
        """Remove bodies that no row has any more; how many. Those that can't be now, stay noted."""
        before = self._clock() - self._bodies.linger
        refs = await self._writer.run(garbage_before, self._index, before, STEP)
        removed: list[BodyRef] = []
        for ref in refs:
            try:
                await self._bodies.remove(ref)
            except StoreUnusable as error:
                log.debug("%s", error)
                break
            removed.append(ref)
        if removed:
            await self._writer.write(self._changes.strike, removed)
        return len(removed)

    # -- the tier itself

    @property
    def bytes_used(self) -> int:
        """What is stored takes about that many bytes, its share of the index included."""
        return self.counter(b"bytes")

    @property
    def entries(self) -> int:
        """How many responses are stored."""
        with translated(self._index.directory), self._index.reading() as txn:
            return self._index.entries(txn)

    async def close(self) -> None:
        """Write what is left to write, and let go of everything."""
        with suppress(StoreError):
            await self.flush()
        await self._writer.close()
        await self._bodies.close()
        for sibling in self._siblings.values():
            release_index(sibling)
        self._siblings.clear()
        release_index(self._index)

    def counter(self, name: bytes) -> int:
        """One of the index's own counts."""
        with translated(self._index.directory), self._index.reading() as txn:
            return self._index.counter(txn, name)

    def _other_workers(self) -> list[Index]:
        """The indexes of the node's other workers, as far as they have one yet."""
        own = self._index.directory
        with self._siblings_lock:
            for directory in own.parent.parent.glob(f"{WORKER}*/{own.name}"):
                known = directory == own or directory in self._siblings
                if not known and (directory / "data.mdb").exists():
                    self._siblings[directory] = acquire_sibling(self._index, directory)
            return list(self._siblings.values())
