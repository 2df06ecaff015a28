"""What is found for a request in memory and in the store, both held against a real journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.cache.stored import variant_id
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.proxy.decide import Validity
from edgeproxy.proxy.in_flight import RememberedTargets
from edgeproxy.proxy.lookup import Found, Looked, Lookup
from edgeproxy.semantics.fields import Fields
from tests.invalidation.conftest import Worker, working
from tests.invalidation.samples import response
from tests.proxy.parts import NO_FIELDS, site_policy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from edgeproxy.cache.stored import StoredResponse

RECEIVED = 1000.0
FRESH, STALE = RECEIVED + 10, RECEIVED + 100
"""When a response of a minute is the one, and the other."""
MAX_MEMORY_OBJECT = 100
HOME = Selector.by_tag("shop", "home")
NOTHING = Looked(None, (), other_variants=False)
ENGLISH, GERMAN = ((Fields([(b"Accept-Language", each)])) for each in (b"en", b"de"))


class Shop:
    """A worker with a page in its store, and what it looks with."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.slots = memoryview(bytearray(1024))
        self.remembered = RememberedTargets(self.slots)
        self.lookup = Lookup(
            worker.memory, worker.tier, worker.view, self.remembered, MAX_MEMORY_OBJECT
        )
        self.policy = site_policy()

    async def store(self, body: bytes = b"a", **changes: Any) -> StoredResponse:
        """Store the page /a: fresh for a minute from RECEIVED on."""
        selecting = changes.setdefault("selecting", ())
        made: dict[str, Any] = {
            "fields": ((b"Cache-Control", b"max-age=60"),),
            "request_time": RECEIVED,
            "response_time": RECEIVED,
            "variant": variant_id(selecting),
            "tags": ("home",),
            "position": self.worker.view.catch_up(),
        }
        spool = self.worker.tier.spool()
        await spool.append(body)
        stored = await self.worker.tier.put(
            response("a", **{**made, **changes}),
            spool,
            self.worker.view.admit,
            max_variants=8,
            max_busters=8,
        )
        await spool.close()
        assert stored is not None
        return stored

    def look(self, now: float = FRESH, fields: Fields = NO_FIELDS) -> Looked:
        """Look for /a."""
        return self.lookup.find(response("a").primary, fields, self.policy, now)

    def found(self, now: float = FRESH, fields: Fields = NO_FIELDS) -> Found:
        found = self.look(now, fields).found
        assert found is not None
        return found

    def remember(self, stored: StoredResponse, body: bytes = b"a") -> Found:
        """Keep a response in memory, as good at the journal's head; how it is found there."""
        judged = self.lookup.judge(stored, self.policy, self.worker.view.catch_up())
        self.lookup.remember(judged, body)
        return judged

    async def forget_stored(self, *stored: StoredResponse) -> None:
        """The store loses it, as by eviction."""
        assert await self.worker.tier.delete([each.id for each in stored]) == len(stored)

    async def purge(self, mode: Mode, selector: Selector = HOME) -> int:
        return (await self.worker.purge(selector, mode=mode)).position


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with working(tmp_path) as (worker,):
        yield Shop(worker)


# -- where it is found


async def test_nothing_is_stored(shop: Shop) -> None:
    assert shop.look() == NOTHING
    await shop.store(primary=bytes(16))
    assert shop.look() == NOTHING, "only under another key"


async def test_in_the_store(shop: Shop) -> None:
    stored = await shop.store()
    found = shop.found()
    assert found.stored == stored
    assert found.fields == Fields(stored.fields)
    assert (found.freshness.lifetime, found.freshness.ttl(FRESH)) == (60.0, 50.0)
    assert (found.validity, found.entry) == (Validity.VALID, None)


async def test_in_memory(shop: Shop) -> None:
    stored = await shop.store()
    shop.remember(stored, b"body")
    found = shop.found()
    assert found.entry is not None
    assert (found.stored, found.entry.body, found.validity) == (stored, b"body", Validity.VALID)


async def test_what_is_fresh_in_memory_is_found_without_the_store(shop: Shop) -> None:
    stored = await shop.store()
    shop.remember(stored)
    await shop.forget_stored(stored)
    assert shop.found().stored == stored


@pytest.mark.parametrize("mode", [None, Mode.INVALIDATE])
async def test_what_is_not_good_in_memory_may_be_newer_in_the_store(
    shop: Shop, mode: Mode | None
) -> None:
    """Another worker may have refreshed it."""
    shop.remember(await shop.store())
    now = STALE
    if mode is not None:
        await shop.purge(mode)
        now = FRESH
    assert shop.found(now).entry is not None, "as long as it has not"
    newer = await shop.store(request_time=RECEIVED + 5, response_time=RECEIVED + 5)
    found = shop.found(now)
    assert (found.stored, found.entry, found.validity) == (newer, None, Validity.VALID)


async def test_stale_memory_stands_where_the_store_has_nothing(shop: Shop) -> None:
    stored = await shop.store()
    shop.remember(stored)
    await shop.forget_stored(stored)
    looked = shop.look(STALE)
    assert looked.found is not None
    assert (looked.found.stored, looked.vary) == (stored, ())


# -- which variant


async def test_the_variant_that_the_request_selects(shop: Shop) -> None:
    """RFC 9111 4.1."""
    english = await shop.store(selecting=((b"accept-language", b"en"),))
    looked = shop.look(fields=GERMAN)
    assert looked == Looked(None, (b"accept-language",), other_variants=True)
    german = await shop.store(selecting=((b"accept-language", b"de"),))
    assert shop.found(fields=ENGLISH).stored == english
    assert shop.found(fields=GERMAN).stored == german
    assert shop.look(fields=NO_FIELDS).found is None
    shop.remember(english)
    shop.remember(german)
    assert shop.found(fields=ENGLISH).stored == english
    assert shop.found(fields=GERMAN).stored == german
    assert shop.look(fields=NO_FIELDS).found is None


@pytest.mark.parametrize("in_memory", [(), ("old",), ("new",), ("old", "new"), ("new", "old")])
@pytest.mark.parametrize("stored_first", ["old", "new"])
async def test_the_newest_of_those_that_match(
    shop: Shop, in_memory: tuple[str, ...], stored_first: str
) -> None:
    """RFC 9111 4: "it MUST use the most recent one"; what Vary names may change over time."""
    changes: dict[str, dict[str, Any]] = {
        "old": {"selecting": (), "response_time": RECEIVED},
        "new": {"selecting": ((b"accept-language", b"en"),), "response_time": RECEIVED + 1},
    }
    stored = {}
    for name in sorted(changes, reverse=stored_first == "old"):
        stored[name] = await shop.store(**changes[name])
    for name in in_memory:
        shop.remember(stored[name])
    looked = shop.look(STALE, ENGLISH)
    assert looked.found is not None
    assert looked.found.stored == stored["new"]
    assert looked.vary == (b"accept-language",)


async def test_what_varies_is_what_the_newest_says(shop: Shop) -> None:
    await shop.store(selecting=((b"cookie", b"a"),), response_time=RECEIVED + 1)
    await shop.store(selecting=((b"accept", b"b"),), response_time=RECEIVED)
    assert shop.look() == Looked(None, (b"cookie",), other_variants=True)


async def test_what_varies_is_known_of_what_is_in_memory_alone(shop: Shop) -> None:
    stored = await shop.store(selecting=((b"accept-language", b"en"),))
    shop.remember(stored)
    await shop.forget_stored(stored)
    looked = shop.look(STALE, ENGLISH)
    assert looked.found is not None
    assert (looked.vary, looked.other_variants) == ((b"accept-language",), False)


# -- how it stands


@pytest.mark.parametrize("remembered", [False, True])
async def test_what_was_deleted_is_not_found(shop: Shop, remembered: bool) -> None:
    stored = await shop.store()
    if remembered:
        shop.remember(stored)
    await shop.purge(Mode.DELETE)
    assert shop.look() == NOTHING, "nor is it another variant"
    assert shop.worker.memory.get(stored.primary) == ()


@pytest.mark.parametrize("remembered", [False, True])
async def test_what_was_invalidated_says_so(shop: Shop, remembered: bool) -> None:
    stored = await shop.store()
    if remembered:
        shop.remember(stored)
    await shop.purge(Mode.INVALIDATE)
    found = shop.found()
    assert (found.validity, found.entry is not None) == (Validity.INVALIDATED, remembered)
    await shop.worker.settle()
    swept = shop.found()
    assert swept.validity is Validity.INVALIDATED, "though the rule is gone"
    assert swept.stored.invalidated == 1


async def test_from_the_store_it_bears_the_mark(shop: Shop) -> None:
    """So that it stays invalidated in the memory that it goes to."""
    await shop.store()
    position = await shop.purge(Mode.INVALIDATE)
    found = shop.found()
    assert found.stored.invalidated == position
    shop.lookup.remember(found, b"a")
    kept = shop.found()
    assert kept.entry is not None
    assert kept.validity is Validity.INVALIDATED


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("mode", Mode)
async def test_others_invalidations_leave_it_alone(
    shop: Shop, mode: Mode, remembered: bool
) -> None:
    stored = await shop.store()
    if remembered:
        shop.remember(stored)
    await shop.purge(mode, Selector.by_tag("shop", "sale"))
    await shop.purge(mode, Selector.by_everything("blog"))
    found = shop.found()
    assert (found.stored, found.validity) == (stored, Validity.VALID)


async def test_a_later_fetch_is_good_again(shop: Shop) -> None:
    shop.remember(await shop.store())
    await shop.purge(Mode.DELETE)
    again = await shop.store()
    found = shop.found()
    assert (found.stored, found.validity) == (again, Validity.VALID)


async def test_memory_notes_up_to_where_it_was_checked(shop: Shop) -> None:
    shop.remember(await shop.store())
    assert shop.found().checked == 0
    position = await shop.purge(Mode.DELETE, Selector.by_tag("shop", "sale"))
    assert shop.found().checked == position
    assert shop.found().entry is not None


async def test_what_was_checked_before_the_rules_were_dropped_is_not_trusted(shop: Shop) -> None:
    """It came into memory after the rules had been applied there, and was judged before them."""
    stored = await shop.store()
    await shop.purge(Mode.DELETE)
    await shop.worker.settle()
    assert shop.worker.view.floor == 1
    late = shop.lookup.judge(stored, shop.policy, 0)
    shop.lookup.remember(late, b"a")
    assert shop.look() == NOTHING
    assert shop.worker.memory.get(stored.primary) == ()


async def test_what_another_journal_has_dated_is_not_found(shop: Shop) -> None:
    """A store that was put back from elsewhere: its positions mean nothing here."""
    await shop.purge(Mode.DELETE)
    foreign = await shop.store()
    await shop.forget_stored(foreign)
    spool = shop.worker.tier.spool()
    await spool.append(b"a")
    ahead = response("a", position=99, request_time=RECEIVED, response_time=RECEIVED)
    put = shop.worker.tier.put
    await put(ahead, spool, lambda stored: stored, max_variants=8, max_busters=8)
    await spool.close()
    assert shop.look() == NOTHING


async def test_another_worker_s_purge_counts(tmp_path: Path) -> None:
    async with working(tmp_path, workers=2) as (one, two):
        shop, other = Shop(one), Shop(two)
        stored = await shop.store()
        shop.remember(stored)
        other.remember(stored)
        await other.purge(Mode.DELETE)
        assert shop.look() == other.look() == NOTHING


# -- keeping


async def test_what_is_too_long_is_not_kept_in_memory(shop: Shop) -> None:
    stored = await shop.store()
    shop.remember(stored, bytes(MAX_MEMORY_OBJECT + 1))
    assert shop.found().entry is None
    assert not shop.remembered.may_have(stored.target_id)
    shop.remember(stored, bytes(MAX_MEMORY_OBJECT))
    assert shop.found().entry is not None


async def test_that_it_was_in_memory_is_told_to_all_workers(shop: Shop) -> None:
    stored = await shop.store()
    assert not shop.remembered.may_have(stored.target_id)
    shop.remember(stored)
    assert shop.remembered.may_have(stored.target_id)


async def test_discard(shop: Shop) -> None:
    stored = await shop.store()
    shop.remember(stored)
    shop.lookup.discard(stored.id)
    assert shop.found().entry is None, "the store has it still"


async def test_a_rendered_head_stays_with_its_entry(shop: Shop) -> None:
    shop.remember(await shop.store())
    entry = shop.found().entry
    assert entry is not None
    shop.lookup.keep_head(entry, b"HTTP/1.1 200 OK\r\n")
    found = shop.found().entry
    assert found is not None
    assert found.head == b"HTTP/1.1 200 OK\r\n"
    shop.remember(await shop.store())
    renewed = shop.found().entry
    assert renewed is not None
    assert renewed.head is None, "what replaces it has none yet"


async def test_judging_goes_by_the_policy_of_the_site(shop: Shop) -> None:
    stored = await shop.store(fields=())
    assert shop.lookup.judge(stored, site_policy(), 0).freshness.lifetime == 0
    default = site_policy({"ttl": {"default": "5m"}})
    assert shop.lookup.judge(stored, default, 0).freshness.lifetime == 300
