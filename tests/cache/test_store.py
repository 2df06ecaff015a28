"""The shared tier: one contract, whatever keeps the bodies."""

import asyncio
import math
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgeproxy.cache.changes import Sweep
from edgeproxy.cache.check import check_index
from edgeproxy.cache.errors import (
    BodyMissing,
    BodyUnreachable,
    StoreError,
    StoreFull,
    StoreUnusable,
)
from edgeproxy.cache.layout import BODIES, RESPONSES
from edgeproxy.cache.store import SharedTier, open_tier
from edgeproxy.cache.stored import StoredResponse
from tests.cache.samples import (
    EVERYTHING,
    JOURNAL_ID,
    KIB,
    MIB,
    Node,
    Time,
    as_it_is,
    by_tag,
    by_url,
    config,
    copy_of,
    drain,
    everything,
    ids,
    must_put,
    put,
    response,
    some_bytes,
    stored_in,
)
from tests.kit import RedisServer
from tests.kit.disk import full_disk


@pytest.fixture(params=["lmdb", "redis", "memory"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Node]:
    directory = tmp_path / "store"
    match request.param:
        case "lmdb":
            url = f"lmdb:{directory}"
        case "redis":
            url = request.getfixturevalue("redis_server").url()
        case _:
            url = "memory:"
    node = Node(url, directory)
    yield node
    await node.close_all()


@pytest.fixture
def tier(node: Node) -> SharedTier:
    return node.open()


@pytest.fixture
async def lmdb_node(tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(f"lmdb:{tmp_path / 'store'}", tmp_path / "store")
    yield node
    await node.close_all()


async def lose_bodies(node: Node, tier: SharedTier) -> None:
    """What bodies there are outside of the index go, behind its back."""
    if node.url.startswith("redis"):
        await tier._bodies._cache.client.flushdb()
    elif node.url == "memory:":
        await tier._bodies._cache.clear()
    else:
        for path in (node.directory / BODIES).glob("*/*"):
            path.unlink()


def count(tier: SharedTier, *picks: object) -> list[int]:
    with tier.snapshot() as snapshot:
        return [snapshot.count(pick) for pick in picks]


# -- what is put can be had


@pytest.mark.parametrize(
    "size", [0, 1, 128 * KIB, 128 * KIB + 1, MIB, MIB + 1, 2 * MIB + 700 * KIB]
)
async def test_a_body_comes_back_as_it_was(tier: SharedTier, size: int) -> None:
    body = some_bytes(size)
    kept = await must_put(tier, response(), body)
    assert tier.lookup(response().primary) == (kept,)
    assert kept == replace(response(), body=kept.body)
    assert kept.body.length == size
    assert await tier.read(kept) == body
    read = await tier.open(kept)
    assert await drain(read(0, None)) == body
    assert await drain(read(0, size)) == body
    for start, stop in ((1, None), (size // 2, size // 2 + 5), (0, size - 1), (size, None)):
        assert await drain(read(start, stop)) == body[start:stop]


async def test_nothing_is_found_that_is_not_there(tier: SharedTier) -> None:
    await must_put(tier, response("a"))
    assert tier.lookup(response("b").primary) == ()
    assert await tier.delete([response("b").id]) == 0


async def test_a_later_one_takes_the_place_of_an_earlier_one(tier: SharedTier) -> None:
    for size in (200 * KIB, 100, 0, 300 * KIB):
        body = some_bytes(size)
        kept = await must_put(tier, response(tags=(f"t{size}",)), body)
        assert tier.lookup(kept.primary) == (kept,)
        assert await tier.read(kept) == body
    assert count(tier, EVERYTHING, by_tag("t100"), by_tag(f"t{300 * KIB}")) == [1, 0, 1]
    assert tier.entries == 1


async def test_bodies_that_no_response_has_are_removed(node: Node, tier: SharedTier) -> None:
    old = await must_put(tier, response(), some_bytes(300 * KIB))
    new = await must_put(tier, response(), some_bytes(300 * KIB))
    node.clock.now += 100
    assert await tier.collect_garbage() == 1
    assert await tier.collect_garbage() == 0
    with pytest.raises(BodyMissing):
        await tier.read(old)
    assert len(await tier.read(new)) == 300 * KIB


async def test_a_body_that_is_being_read_is_read_to_its_end(node: Node, tier: SharedTier) -> None:
    body = some_bytes(2 * MIB)
    kept = await must_put(tier, response(), body)
    read = await tier.open(kept)
    chunks = read(0, None)
    parts = [await anext(chunks)]
    await tier.delete([kept.id])
    await tier.collect_garbage()
    parts += [chunk async for chunk in chunks]
    assert b"".join(parts) == body


async def test_a_reader_of_the_spool_goes_on_after_it_was_stored(tier: SharedTier) -> None:
    body = some_bytes(300 * KIB)
    spool = tier.spool()
    await spool.append(body)
    await tier.put(response(), spool, as_it_is, max_variants=1, max_busters=1)
    assert await spool.read(200 * KIB, MIB) == body[200 * KIB :]
    await spool.close()
    assert await tier.read(tier.lookup(response().primary)[0]) == body


async def test_too_long_a_body_is_refused(node: Node) -> None:
    tier = node.open(max_object_bytes=1000)
    assert tier.max_object_bytes == 1000
    with pytest.raises(StoreFull, match="1001 bytes"):
        await put(tier, response(), some_bytes(1001))
    assert await put(tier, response(), some_bytes(1000))


# -- what is admitted


@pytest.mark.parametrize("size", [5, 200 * KIB])
async def test_what_is_not_admitted_is_not_stored(node: Node, tier: SharedTier, size: int) -> None:
    before = await must_put(tier, response("b"))
    assert await put(tier, response("a"), some_bytes(size), lambda _: None) is None
    with pytest.raises(ZeroDivisionError):
        await put(tier, response("a"), some_bytes(size), lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
    assert tier.lookup(response("a").primary) == ()
    assert count(tier, EVERYTHING) == [1]
    assert tier.lookup(before.primary) == (before,)
    await tier.collect_garbage()
    assert list((node.directory / BODIES).glob("*/*")) == []


async def test_what_admitting_made_of_it_is_stored(tier: SharedTier) -> None:
    kept = await put(tier, response(), admit=lambda one: replace(one, invalidated=7))
    assert kept is not None
    assert kept.invalidated == 7
    assert tier.lookup(kept.primary) == (kept,)


async def test_what_is_put_at_the_same_time_is_stored_at_the_same_time(tier: SharedTier) -> None:
    names = [f"{number}" for number in range(40)]
    stored = await asyncio.gather(*(put(tier, response(name)) for name in names))
    assert all(stored)
    assert all(tier.lookup(response(name).primary) for name in names)


async def test_one_that_can_not_be_stored_takes_no_other_along(tier: SharedTier) -> None:
    def refuse(stored: StoredResponse) -> StoredResponse:
        raise ZeroDivisionError

    good, bad, also = await asyncio.gather(
        put(tier, response("a")),
        put(tier, response("b"), admit=refuse),
        put(tier, response("c")),
        return_exceptions=True,
    )
    assert isinstance(bad, ZeroDivisionError)
    assert tier.lookup(response("a").primary) == (good,)
    assert tier.lookup(response("b").primary) == ()
    assert tier.lookup(response("c").primary) == (also,)


async def test_the_loop_waits_for_no_other_writer(node: Node) -> None:
    tier, other = node.open(0), node.open(1)
    with tier.quiet():
        waiting = asyncio.create_task(put(tier, response("a")))
        also = asyncio.create_task(put(other, response("b")))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        if not tier.per_worker:
            assert not also.done()
    assert await waiting
    assert await also


async def test_admitting_happens_where_nobody_else_can_write(node: Node) -> None:
    """So a purge is seen by the response, or sees it."""
    tier, other = node.open(0), node.open(1)
    admitting, go_on = threading.Event(), threading.Event()

    def admit(stored: StoredResponse) -> StoredResponse:
        admitting.set()
        go_on.wait(10)
        return stored

    # Where the disk has been slow, the thread admits, and the loop goes on.
    tier._writer._shy_until = math.inf
    writing = asyncio.create_task(put(tier, response(), admit=admit))
    await asyncio.to_thread(admitting.wait, 10)
    passing = asyncio.create_task(asyncio.to_thread(_pass_through, tier))
    if not tier.per_worker:
        also = asyncio.create_task(put(other, response("b")))
    await asyncio.sleep(0.05)
    assert not passing.done()
    assert tier.lookup(response().primary) == ()
    go_on.set()
    await passing
    # Whoever got through afterwards sees it.
    assert len(tier.lookup(response().primary)) == 1
    assert await writing
    if not tier.per_worker:
        assert await also


def _pass_through(tier: SharedTier) -> None:
    with tier.quiet():
        pass


async def test_one_that_was_asked_for_before_a_purge_gives_way(tier: SharedTier) -> None:
    newer = await must_put(tier, response(position=5), b"new")
    assert await put(tier, response(position=4), b"old") is None
    assert tier.lookup(newer.primary) == (newer,)
    again = await must_put(tier, response(position=5), b"newest")
    assert await tier.read(again) == b"newest"


async def test_a_put_whose_caller_has_gone_leaves_nothing_half_done(
    node: Node, tier: SharedTier
) -> None:
    admitting, go_on = threading.Event(), threading.Event()

    def admit(stored: StoredResponse) -> StoredResponse:
        if threading.current_thread() is threading.main_thread():
            raise InterruptedError("begun in the loop, in vain: the thread is to do it")
        admitting.set()
        assert go_on.wait(10)
        return stored

    body = some_bytes(200 * KIB)
    writing = asyncio.create_task(put(tier, response(), body, admit))
    assert await asyncio.to_thread(admitting.wait, 10)
    writing.cancel()
    go_on.set()
    with suppress(asyncio.CancelledError):
        await writing
    node.clock.now += 7200
    await tier.collect_garbage()
    for stored in tier.lookup(response().primary):
        assert await tier.read(stored) == body


# -- updates


async def test_new_metadata_for_the_same_body(tier: SharedTier) -> None:
    old = await must_put(tier, response(tags=("a", "b"), environment="preview"), b"body")
    new = replace(old, fields=((b"ETag", b'"1"'),), tags=("b", "c"), position=3, response_time=2e3)
    assert await tier.update(old, new, as_it_is) == new
    assert tier.lookup(old.primary) == (new,)
    assert await tier.read(new) == b"body"
    assert count(tier, by_tag("a"), by_tag("b"), by_tag("c"), EVERYTHING) == [0, 1, 1, 1]


async def test_what_is_gone_or_replaced_is_not_updated(tier: SharedTier) -> None:
    old = await must_put(tier, response())
    replaced = await must_put(tier, response(), b"other")
    assert await tier.update(old, replace(old, status=203), as_it_is) is None
    assert tier.lookup(old.primary) == (replaced,)
    await tier.delete([old.id])
    assert await tier.update(replaced, replace(replaced, status=203), as_it_is) is None


async def test_an_update_that_is_not_admitted_changes_nothing(tier: SharedTier) -> None:
    old = await must_put(tier, response())
    assert await tier.update(old, replace(old, status=203), lambda _: None) is None
    assert tier.lookup(old.primary) == (old,)


async def test_the_later_of_two_updates_stays(tier: SharedTier) -> None:
    old = await must_put(tier, response())
    later = await tier.update(old, replace(old, position=9, request_time=9.0), as_it_is)
    assert await tier.update(old, replace(old, position=8), as_it_is) == later
    assert later is not None
    assert tier.lookup(old.primary) == (later,)


# -- bodies that are lost


async def test_a_response_whose_body_is_gone_is_gone(node: Node, tier: SharedTier) -> None:
    for ask in (tier.read, tier.open):
        kept = await must_put(tier, response(tags=("a",)), some_bytes(200 * KIB))
        await lose_bodies(node, tier)
        with pytest.raises(BodyMissing) as caught:
            await ask(kept)
        assert not isinstance(caught.value, BodyUnreachable)
        assert tier.lookup(kept.primary) == ()
        assert count(tier, by_tag("a"), EVERYTHING) == [0, 0]


async def test_losing_a_body_does_not_take_its_successor_along(
    node: Node, tier: SharedTier
) -> None:
    old = await must_put(tier, response(), some_bytes(200 * KIB))
    await lose_bodies(node, tier)
    new = await must_put(tier, response(), some_bytes(200 * KIB))
    with pytest.raises(BodyMissing):
        await tier.read(old)
    assert tier.lookup(old.primary) == (new,)


@pytest.mark.parametrize("size", [200, 20 * KIB])
async def test_a_body_that_was_replaced_is_read_as_it_was_or_gone(
    tier: SharedTier, size: int
) -> None:
    # The new one is as long, and under the same id: nothing but its body's id tells the two apart.
    body, other = some_bytes(size), some_bytes(size)
    old = await must_put(tier, response(), body)
    new = await must_put(tier, response(), other)
    assert tier.read_inline(old) in (body, None)
    try:
        assert await tier.read(old) == body
    except BodyMissing as error:
        assert "is gone" in str(error)
    assert tier.lookup(old.primary) == (new,)
    assert await tier.read(new) == other


async def test_a_damaged_body_is_never_read_to_its_end(node: Node, tier: SharedTier) -> None:
    body = some_bytes(MIB + 700 * KIB)
    for whole in (True, False):
        kept = await must_put(tier, response(), body)
        await damage(node, tier, kept)
        if whole:
            with pytest.raises(BodyMissing):
                await tier.read(kept)
        else:
            read = await tier.open(kept)
            got = 0
            with pytest.raises(BodyMissing):
                async for chunk in read(0, None):
                    got += len(chunk)
            assert got < len(body)
        assert tier.lookup(kept.primary) == ()


async def test_a_body_is_sent_from_its_file_once_it_was_read_whole(lmdb_node: Node) -> None:
    tier = lmdb_node.open()
    body = some_bytes(700 * KIB)
    kept = await must_put(tier, response(), body)
    opened = await tier.open(kept)
    assert await drain(opened(1, None)) == body[1:]
    assert await drain(opened(0, len(body) - 1)) == body[:-1]
    assert not opened.sendable
    assert await drain(opened(0, len(body))) == body
    assert opened.sendable
    assert (await tier.open(kept)).sendable
    await damage(lmdb_node, tier, kept)
    assert not (await tier.open(kept)).sendable


async def test_what_is_in_no_file_is_not_sent_from_one(node: Node, tier: SharedTier) -> None:
    sizes = [200] if node.url.startswith("lmdb:") else [200, 200 * KIB]
    for size in sizes:
        opened = await tier.open(await must_put(tier, response(), some_bytes(size)))
        assert len(await drain(opened(0, None))) == size
        assert not opened.sendable
        assert await opened.send(-1, 0, 1) is None


async def test_a_response_whose_file_is_cut_while_it_is_sent_is_gone(lmdb_node: Node) -> None:
    tier = lmdb_node.open()
    kept = await must_put(tier, response(), some_bytes(200 * KIB))
    opened = await tier.open(kept)
    await drain(opened(0, None))
    (path,) = (lmdb_node.directory / BODIES).glob(f"*/{kept.body.id.hex()}")
    os.truncate(path, 100)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(BodyMissing):
        await opened.send(ours.fileno(), 100, 100)
    assert tier.lookup(kept.primary) == ()


async def damage(node: Node, tier: SharedTier, stored: StoredResponse) -> None:
    """Change the first byte of a body behind the store's back."""
    if node.url.startswith("lmdb:"):
        (path,) = (node.directory / BODIES).glob(f"*/{stored.body.id.hex()}")
        data = path.read_bytes()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        return
    cache = tier._bodies._cache
    key = tier._bodies._key(stored.body.id, 0)
    data = await cache.get(key)
    await cache.set(key, bytes([data[0] ^ 1]) + data[1:])


# -- bounds


async def test_variants_are_bounded_and_the_least_recent_goes(node: Node, tier: SharedTier) -> None:
    for variant in range(3):
        node.clock.now += 1
        await put(tier, response("a", variant), max_variants=3)
    node.clock.now += 1
    tier.touch(response("a", 0).id, node.clock())
    await tier.flush()
    await put(tier, response("a", 3), max_variants=3)
    left = [int.from_bytes(one.variant, "big") for one in tier.lookup(response("a").primary)]
    assert left == [0, 2, 3]
    await put(tier, response("a", 4), max_variants=1)
    assert [one.variant for one in tier.lookup(response("a").primary)] == [bytes(7) + b"\x04"]
    assert count(tier, EVERYTHING, by_url("a")) == [1, 1]


async def test_cb_copies_of_a_target_are_bounded_and_the_least_recent_goes(
    node: Node, tier: SharedTier
) -> None:
    plain = await must_put(tier, response("a"))
    for token in "pqr":
        for variant in (1, 2):
            node.clock.now += 1
            await put(tier, copy_of("a", token, variant=variant), max_busters=3)
    node.clock.now += 1
    tier.touch(copy_of("a", "p", variant=2).id, node.clock())
    await tier.flush()
    await put(tier, copy_of("a", "s"), max_busters=3)
    left = {token: len(tier.lookup(copy_of("a", token).primary)) for token in "pqrs"}
    assert left == {"p": 2, "q": 0, "r": 2, "s": 1}
    assert tier.lookup(plain.primary) == (plain,)
    assert count(tier, by_url("a")) == [6]


async def test_a_copy_that_went_makes_room_for_another(tier: SharedTier) -> None:
    for token in "pq":
        await put(tier, copy_of("a", token), max_busters=2)
    await tier.delete([copy_of("a", "p").id])
    await put(tier, copy_of("a", "r"), max_busters=2)
    assert [len(tier.lookup(copy_of("a", token).primary)) for token in "pqr"] == [0, 1, 1]


async def test_the_store_never_grows_beyond_its_bound(node: Node) -> None:
    bound = 2 * MIB
    tier = node.open(max_bytes=bound if node.url != "memory:" else 2 * bound)
    for number in range(300):
        await must_put(tier, response(str(number)), some_bytes(10 * KIB))
        assert tier.bytes_used <= bound
    assert 120 < tier.entries < 200
    await must_put(tier, response("large"), some_bytes(MIB))
    assert tier.bytes_used <= bound
    assert tier.lookup(response("large").primary)
    before = tier.entries
    with pytest.raises(StoreFull):
        await put(tier, response("too large"), some_bytes(bound - 100))
    assert tier.entries == before


async def test_tags_count_toward_what_is_stored(tier: SharedTier) -> None:
    """So that what bounds the store bounds the tags in it, however many each response has."""
    await must_put(tier, response("plain"), b"x")
    plain = tier.bytes_used
    tags = tuple(f"{number:0100}" for number in range(500))
    await must_put(tier, response("tagged", tags=tags), b"x")
    assert tier.bytes_used - plain > plain + sum(map(len, tags))


async def test_evicting_ahead_of_need_leaves_a_margin(node: Node) -> None:
    tier = node.open(max_bytes=MIB if node.url != "memory:" else 2 * MIB)
    for number in range(150):
        await must_put(tier, response(str(number)), some_bytes(8 * KIB))
    while await tier.evict_step(node.clock()):
        pass
    assert tier.bytes_used <= MIB * 0.95
    entries = tier.entries
    assert await tier.evict_step(node.clock()) == 0
    assert tier.entries == entries


async def test_a_full_map_makes_room_once(lmdb_node: Node) -> None:
    tier = lmdb_node.open()
    for number in range(20):
        await must_put(tier, response(str(number)), some_bytes(50 * KIB))
    info = tier._index.env.info()
    # Room for changes, and not for this body.
    tier._index.env.set_mapsize((info["last_pgno"] + 30) * 4096)
    await must_put(tier, response("more"), some_bytes(128 * KIB))
    assert tier.lookup(response("more").primary)
    assert tier.entries < 21


async def test_a_folder_that_takes_no_bodies_is_told_of_once(
    lmdb_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a disk has room, and not another inode."""
    tier = lmdb_node.open()
    (lmdb_node.directory / "bodies").write_bytes(b"")
    for name in "abc":
        with pytest.raises(StoreError) as caught:
            await put(tier, response(name), some_bytes(300 * KIB))
        assert caught.value.told
    (told,) = caplog.messages
    assert f"the store in {lmdb_node.directory} can't be written" in told


async def test_a_full_disk_takes_nothing_in_and_keeps_what_it_has(
    lmdb_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    tier = lmdb_node.open()
    body = some_bytes(300 * KIB)
    small, large = (
        await must_put(tier, response("small")),
        await must_put(tier, response("large"), body),
    )
    with full_disk():
        for name, size in (("new", 5), ("new", 300 * KIB), ("small", 10)):
            with pytest.raises(StoreError) as caught:
                await put(tier, response(name), some_bytes(size))
            assert str(lmdb_node.directory) in str(caught.value)
            assert caught.value.told
        with pytest.raises(StoreError):
            await tier.update(small, replace(small, status=404), as_it_is)
        with pytest.raises(StoreError):
            await tier.delete([small.id])
        assert await tier.read(small) == b"hello"
        assert await tier.read(large) == body
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert f"the store in {lmdb_node.directory} can't be written" in caplog.text
    assert tier.entries == 2
    assert list((lmdb_node.directory / "tmp").iterdir()) == []
    new = await must_put(tier, response("new"), body)
    assert await tier.read(new) == body
    assert await tier.delete([small.id]) == 1


# -- what background work does


async def test_the_dead_are_removed_in_steps(tier: SharedTier) -> None:
    for number in range(450):
        await must_put(tier, response(str(number), status=410 if number % 3 else 200), b"")
    seen: list[StoredResponse] = []

    def is_dead(stored: StoredResponse) -> bool:
        seen.append(stored)
        return stored.status == 410

    cursor, gone = await tier.expire_step(None, is_dead)
    assert cursor is not None
    assert len(seen) == 200
    while cursor is not None:
        cursor, more = await tier.expire_step(cursor, is_dead)
        gone += more
    assert len({one.id for one in seen}) == len(seen) == 450
    assert (tier.entries, gone) == (150, 300)


async def test_what_was_replaced_since_it_was_seen_dead_stays(tier: SharedTier) -> None:
    old = await must_put(tier, response())
    new = await must_put(tier, response(), b"new")
    assert tier._writer.apply(tier._changes.remove_unchanged, [old]) == 0
    assert tier.lookup(old.primary) == (new,)


async def test_a_sweep_marks_and_deletes_what_was_asked_for_before(tier: SharedTier) -> None:
    kept = {
        name: await must_put(tier, response(name, position=position), b"body of " + name.encode())
        for name, position in (("mark", 1), ("delete", 1), ("at", 4), ("after", 5))
    }
    applied = tier.sweep(
        [
            Sweep(kept["mark"].id, 4, False),
            Sweep(kept["delete"].id, 4, True),
            Sweep(kept["at"].id, 4, True),
            Sweep(kept["after"].id, 4, False),
            Sweep(response("absent").id, 4, True),
        ]
    )
    assert applied == 2
    assert tier.lookup(kept["mark"].primary) == (replace(kept["mark"], invalidated=4),)
    assert tier.lookup(kept["delete"].primary) == ()
    assert tier.lookup(kept["at"].primary) == (kept["at"],)
    assert tier.lookup(kept["after"].primary) == (kept["after"],)
    tier.sweep([Sweep(kept["mark"].id, 3, False)])
    assert tier.lookup(kept["mark"].primary)[0].invalidated == 4
    assert count(tier, EVERYTHING) == [3]


async def test_of_several_deadlines_the_first_one_counts(tier: SharedTier) -> None:
    kept = await must_put(tier, response("a", position=1))
    for position, deadline in ((2, 50.0), (3, 70.0), (4, 0.0), (1, 20.0)):
        tier.sweep([Sweep(kept.id, position, delete=False, deleted_from=deadline)])
    assert tier.lookup(kept.primary) == (replace(kept, invalidated=4, deleted_from=50.0),)
    with tier.snapshot() as snapshot:
        assert snapshot.deadlines == 1
    tier.sweep([Sweep(kept.id, position, delete=True) for position in (4, 5)])
    with tier.snapshot() as snapshot:
        assert snapshot.deadlines == 0
    assert tier.bytes_used == 0


async def test_how_far_it_was_swept_is_kept(node: Node, tier: SharedTier) -> None:
    assert tier.settled == 0
    tier.settle(12)
    assert tier.settled == 12
    if not tier.per_worker:
        assert node.open(1).settled == 12


# -- what is counted


async def test_counts_and_lists(tier: SharedTier) -> None:
    await must_put(tier, response("a", tags=("x", "y")))
    await must_put(tier, response("b", tags=("x",), environment="preview"))
    await must_put(tier, response("c", tags=("x",), site="other"))
    for host in ("one.test", "two.test"):
        own = response(f"{host} a")
        await must_put(tier, response("a", primary=own.primary, host=host, tags=("y",)))
    assert count(
        tier,
        EVERYTHING,
        everything(environment="preview"),
        by_tag("x"),
        by_tag("x", environment="production"),
        by_tag("x", site="other"),
        by_tag("y"),
        by_tag("z"),
        by_url("a"),
        by_url("a", host="one.test"),
        by_url("a", environment="preview"),
        by_url("a", host="shop.test", environment="production"),
    ) == [4, 1, 2, 1, 1, 3, 0, 3, 1, 0, 1]
    with tier.snapshot() as snapshot:
        marks = snapshot.ids(EVERYTHING, None, 10)
        assert marks == sorted(marks)
        assert len(marks) == 4
        assert snapshot.ids(EVERYTHING, None, 2) == marks[:2]
        assert snapshot.ids(EVERYTHING, marks[1], 10) == marks[2:]
        assert snapshot.ids(EVERYTHING, marks[3], 10) == []
        found = stored_in(snapshot, by_url("a"))
        assert {one.host for one in found} == {"shop.test", "one.test", "two.test"}
        assert [one.id for one in found] == ids(snapshot, by_url("a"))


async def test_a_snapshot_stays_as_it_was(tier: SharedTier) -> None:
    await must_put(tier, response("a"))
    with tier.snapshot() as snapshot:
        await must_put(tier, response("b"))
        await tier.delete([response("a").id])
        assert snapshot.count(EVERYTHING) == 1
        assert [one.target for one in stored_in(snapshot, EVERYTHING)] == [b"/a"]
        assert await asyncio.to_thread(snapshot.count, EVERYTHING) == 1
    assert count(tier, EVERYTHING) == [1]


async def test_workers_of_a_node_are_counted_together(node: Node) -> None:
    one, two = node.open(0), node.open(1)
    await must_put(one, response("both", position=1))
    await must_put(two, response("both", position=2, tags=("t",)))
    await must_put(two, response("second"))
    assert count(one, EVERYTHING, by_tag("t")) == count(two, EVERYTHING, by_tag("t")) == [2, 1]
    with one.snapshot() as snapshot:
        positions = sorted(each.position for each in stored_in(snapshot, by_url("both")))
        assert positions == ([1, 2] if one.per_worker else [2])
        assert len(stored_in(snapshot, by_tag("t"))) == 1
    with one.snapshot(node=False) as snapshot:
        assert snapshot.count(EVERYTHING) == (1 if one.per_worker else 2)


async def test_what_one_worker_stores_all_that_share_it_have(node: Node) -> None:
    one, two = node.open(0), node.open(1)
    kept = await must_put(one, response(), some_bytes(200 * KIB))
    if one.per_worker:
        assert two.lookup(kept.primary) == ()
    else:
        assert two.lookup(kept.primary) == (kept,)
        assert len(await two.read(kept)) == 200 * KIB


# -- opening again


async def test_what_outlives_a_run(node: Node, tier: SharedTier) -> None:
    small = await must_put(tier, response("small", tags=("t",)), b"small body")
    large = await must_put(tier, response("large"), some_bytes(200 * KIB))
    used = tier.bytes_used
    per_worker = tier.per_worker
    await node.close(tier)
    again = node.open()
    if per_worker:
        assert (again.entries, again.bytes_used) == (0, 0)
        assert count(again, EVERYTHING) == [0]
        return
    assert again.lookup(small.primary) == (small,)
    assert await again.read(small) == b"small body"
    assert len(await again.read(large)) == 200 * KIB
    assert (again.entries, again.bytes_used) == (2, used)
    new = await must_put(again, response("small"), b"other")
    assert new.body.id not in (small.body.id, large.body.id)


async def test_another_journals_index_is_not_opened(node: Node, tier: SharedTier) -> None:
    await node.close(tier)
    with pytest.raises(StoreUnusable, match="another journal"):
        open_tier(
            config(node.url, node.directory),
            node.directory,
            worker=0,
            journal_id=b"x" * 16,
            clock=Time(),
        )


async def test_what_killed_workers_had_on_its_way_in_is_removed(lmdb_node: Node) -> None:
    spools = lmdb_node.directory / "tmp"
    spools.mkdir(parents=True)
    # No process has this id: it is beyond what the kernel gives out.
    (spools / "99999999-abc").write_bytes(b"left over")
    (spools / "1-abc").write_bytes(b"in use")
    lmdb_node.open()
    assert [path.name for path in spools.iterdir()] == ["1-abc"]


# -- a damaged row


async def test_a_damaged_row_is_absent_and_removed(node: Node, tier: SharedTier) -> None:
    bad = await must_put(tier, response("bad", tags=("t",)), some_bytes(200 * KIB))
    copy = await must_put(tier, copy_of("bad", "token", tags=("t",)))
    good = await must_put(tier, response("good", tags=("t",)))
    index = tier._index
    with index.writing() as txn:
        for row_id in (bad.id, copy.id):
            value = bytearray(txn.get(row_id, db=index.rows))
            value[40] ^= 1
            txn.put(row_id, bytes(value), db=index.rows)
    assert tier.lookup(bad.primary) == ()
    assert tier.lookup(copy.primary) == ()
    await tier._writer.run(lambda: None)
    assert tier.entries == 1
    assert count(tier, EVERYTHING, by_tag("t"), by_url("bad"), by_url("good")) == [1, 1, 0, 1]
    assert tier.lookup(good.primary) == (good,)
    used = tier.bytes_used
    await tier.delete([good.id])
    assert tier.bytes_used == 0 < used
    with index.reading() as txn:
        assert txn.stat(index.busters)["entries"] == 0
    node.clock.now += 100
    assert await tier.collect_garbage() >= 1


# -- Redis that does not answer


async def test_a_redis_that_is_down_costs_no_row(
    tmp_path: Path, redis_process: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path)
    server.start()
    node = Node(server.url(), tmp_path / "store")
    tier = node.open()
    try:
        kept = await must_put(tier, response(), some_bytes(2 * MIB))
        read = await tier.open(kept)
        server.stop()
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises(BodyUnreachable):
                await tier.read(kept)
        with pytest.raises(BodyUnreachable):
            await tier.open(kept)
        with pytest.raises(BodyMissing):
            await drain(read(0, None))
        for _ in range(3):
            with pytest.raises(StoreUnusable) as caught:
                await put(tier, response("b"))
            assert caught.value.told
        assert caplog.text.count("responses are passed on and not stored") == 1
        assert await tier.collect_garbage() == 0
        assert time.monotonic() - began < 3
        assert tier.lookup(kept.primary) == (kept,)
        assert tier.lookup(response("b").primary) == ()
        server.start()
        await asyncio.sleep(1.05)
        # It has come back without what it held.
        with pytest.raises(BodyMissing):
            await tier.read(kept)
        assert tier.lookup(kept.primary) == ()
        assert await put(tier, response("b"))
        assert await tier.collect_garbage() == 3
    finally:
        await node.close_all()
        server.stop()


async def test_a_redis_that_is_full_still_gives_what_it_has(
    tmp_path: Path, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(redis_server.url(), tmp_path / "store")
    tier = node.open()
    kept = await must_put(tier, response())
    redis_server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        for _ in range(3):
            with pytest.raises(StoreFull) as caught:
                await put(tier, response("b"))
            assert caught.value.told
    finally:
        redis_server.command("CONFIG", "SET", "maxmemory", "0")
    (told,) = caplog.messages
    assert "maxmemory" in told
    assert await tier.read(kept) == b"hello"
    assert tier.lookup(response("b").primary) == ()
    await node.close_all()


async def test_a_redis_that_says_nothing_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.cache.external._TIMEOUT", 0.2)
    connections = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    node = Node(f"redis://127.0.0.1:{port}/0", tmp_path / "store")
    tier = node.open()
    began = time.monotonic()
    with pytest.raises(StoreUnusable):
        await put(tier, response())
    with pytest.raises(StoreUnusable):
        await put(tier, response())
    assert time.monotonic() - began < 2
    await node.close_all()
    for writer in connections:
        writer.close()
    server.close()


# -- killed at any moment


WRITER = """
import asyncio, os, random, sys
from pathlib import Path
from edgeproxy.cache.changes import Sweep
from tests.cache.samples import Node, put, response, some_bytes

async def main():
    node = Node("lmdb:" + sys.argv[1], Path(sys.argv[1]))
    tier = node.open(max_bytes=4_000_000)
    chance = random.Random(os.getpid())
    print("writing", flush=True)
    while True:
        name = str(chance.randrange(60))
        if chance.random() < 0.2:
            await tier.delete([response(name).id])
        elif chance.random() < 0.2:
            tier.sweep([Sweep(response(name).id, chance.randrange(9), chance.random() < 0.5)])
        else:
            size = chance.choice([10, 3000, 60_000, 200_000])
            tags = tuple(chance.sample("abcdef", chance.randrange(4)))
            stored = response(name, tags=tags, position=chance.randrange(9))
            await put(tier, stored, some_bytes(size))
        if chance.random() < 0.05:
            await tier.collect_garbage()

asyncio.run(main())
"""


async def test_killed_writers_leave_a_whole_store(lmdb_node: Node) -> None:
    tier = lmdb_node.open(max_bytes=4_000_000)
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(lmdb_node.directory), stdout=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert await writer.stdout.readline() == b"writing\n"
    for writer in writers:
        await asyncio.sleep(random.uniform(0.1, 0.3))
        writer.send_signal(signal.SIGKILL)
        await writer.wait()
        # The lock that a killed writer held does not hold anybody up.
        await asyncio.wait_for(put(tier, response("after")), 5)
        with tier.snapshot() as snapshot:
            found = stored_in(snapshot, EVERYTHING)
            assert snapshot.count(EVERYTHING) == len(found)
            for tag in "abcdef":
                having = sorted(one.id for one in found if tag in one.tags)
                assert ids(snapshot, by_tag(tag)) == having
        assert tier.bytes_used <= 4_000_000
    assert len(found) == tier.entries > 10
    for stored in found:
        await tier.read(stored)
    await lmdb_node.close_all()
    responses, bodies = lmdb_node.directory / RESPONSES, lmdb_node.directory / BODIES
    assert check_index(responses, bodies, 4_000_000, JOURNAL_ID).verdict == "sound"
    # What they were about to store is gone now, and nothing else.
    large = {one.body.id.hex() for one in found if one.body.kind == "file"}
    assert {path.name for path in bodies.glob("*/*")} == large
