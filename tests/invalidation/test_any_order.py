"""Store and journal in folders of their own, in any order of what happens to them, kills included.

What is known of each response is one word; what the store, the rules and the journal together say
of it must be the same word at any time, in this process and in whatever comes after it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgeproxy.cache.check import check_in_child
from edgeproxy.cache.errors import StoreError
from edgeproxy.invalidation.selectors import Mode, Selector
from tests.invalidation.conftest import working
from tests.invalidation.samples import response

if TYPE_CHECKING:
    from edgeproxy.cache.stored import StoredResponse
    from tests.invalidation.conftest import Worker

NAMES = ("a", "b", "c", "d")
TAGS = ("home", "news")
NOTHING = "nobody's"

Put: TypeAlias = tuple[str, tuple[str, ...], int]
"""A name, tags, and how many purges ago it was asked for."""
Purge: TypeAlias = tuple[str, Mode]
"""A tag, "/NAME" or "" for everything, and what to do."""

puts = st.tuples(
    st.sampled_from(NAMES),
    st.sets(st.sampled_from(TAGS)).map(lambda tags: tuple(sorted(tags))),
    st.sampled_from([0, 0, 0, 1, 2]),
)
purges = st.tuples(
    st.sampled_from([*TAGS, *(f"/{name}" for name in NAMES[:2]), "", NOTHING]),
    st.sampled_from([Mode.INVALIDATE, Mode.DELETE]),
)
timely = puts.map(lambda put: (*put[:2], 0))
changes = st.lists(st.one_of(timely, purges, st.just("sweep")), max_size=6)


def selector(what: str) -> Selector:
    if not what:
        return Selector.by_everything("shop")
    if what.startswith("/"):
        return Selector.by_url("shop", "shop.test", what.encode())
    return Selector.by_tag("shop", what)


def picks(what: str, name: str, tags: tuple[str, ...]) -> bool:
    return not what or what in tags or what == f"/{name}"


async def change(worker: Worker, each: Put | Purge | str) -> None:
    """What the store and the journal go through."""
    match each:
        case (str(name), tuple(tags), int(ago)):
            position = max(0, worker.view.catch_up() - ago)
            await worker.store(name, tags=tags, position=position)
        case (str(what), Mode() as mode):
            await worker.purge(selector(what), mode=mode)
        case _:
            await worker.settle()


class AnyOrder(RuleBasedStateMachine):
    """A node's store and journal, and what is known of them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.stored: dict[str, tuple[tuple[str, ...], str]] = {}
        """By name: tags, and how it stands."""
        self.purged: list[Purge] = []

    @initialize()
    def open(self) -> None:
        self.open_ones = AsyncExitStack()
        entering = self.open_ones.enter_async_context(working(Path(self.folder.name)))
        (self.worker,) = self.loop.run_until_complete(entering)
        self.journal_id = self.worker.journal.id

    def close(self) -> None:
        self.loop.run_until_complete(self.open_ones.aclose())

    def teardown(self) -> None:
        if hasattr(self, "open_ones"):
            self.close()
        self.loop.close()
        self.folder.cleanup()

    def expect(self, each: Put | Purge | str) -> None:
        """The same for what is known."""
        match each:
            case (str(name), tuple(tags), int(ago)):
                late = self.purged[max(0, len(self.purged) - ago) :]
                met = [mode for what, mode in late if picks(what, name, tags)]
                if Mode.DELETE not in met:
                    self.stored[name] = tags, "invalidated" if met else "valid"
            case (str(what), Mode() as mode):
                self.purged.append((what, mode))
                for name, (tags, _) in list(self.stored.items()):
                    if picks(what, name, tags):
                        self.stored[name] = tags, "invalidated"
                        if mode is Mode.DELETE:
                            del self.stored[name]

    @rule(each=st.one_of(puts, purges, st.just("sweep")))
    def happen(self, each: Put | Purge | str) -> None:
        position = len(self.purged) - (each[-1] if isinstance(each[-1], int) else 0)
        late = max(0, position) < self.worker.view.floor
        self.loop.run_until_complete(change(self.worker, each))
        # Of what comes so late that its rules have been dropped, nobody can tell: it is not stored.
        if not late:
            self.expect(each)

    @rule()
    def reopen(self) -> None:
        self.close()
        self.open()

    @rule(several=changes)
    def happen_to_one_that_is_killed(self, several: list[Put | Purge | str]) -> None:
        """Another process does it, and gets no time to close anything."""
        self.close()
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.set_event_loop(None)
                asyncio.new_event_loop().run_until_complete(self._until_killed(several))
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        for each in several:
            self.expect(each)
        self.open()

    async def _until_killed(self, several: list[Put | Purge | str]) -> None:
        async with working(Path(self.folder.name)) as (worker,):
            for each in several:
                await change(worker, each)
            os.kill(os.getpid(), signal.SIGKILL)

    @rule(several=changes, done=st.integers(0, 6), later=st.floats(0.0, 0.003))
    def happen_to_one_that_is_killed_midway(
        self, several: list[Put | Purge | str], done: int, later: float
    ) -> None:
        """The same, at any point of what it does: what it has told of is done, and what it was
        about is done wholly or not at all."""
        self.close()
        telling, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(telling)
                asyncio.set_event_loop(None)
                asyncio.new_event_loop().run_until_complete(self._telling(several, told))
            finally:
                os._exit(1)
        os.close(told)
        with os.fdopen(telling, "rb") as pipe:
            known = pipe.read(min(done, len(several)) + 1)
            time.sleep(later)
            os.kill(pid, signal.SIGKILL)
            known += pipe.read()
        os.waitpid(pid, 0)
        several = several[: len(known)]
        for each in several[: len(known) - 1]:
            self.expect(each)
        self.open()
        for each in several[len(known) - 1 :]:
            self.expect_if_done(each)

    async def _telling(self, several: list[Put | Purge | str], told: int) -> None:
        async with working(Path(self.folder.name)) as (worker,):
            for each in several:
                os.write(told, b".")
                await change(worker, each)
            os.write(told, b".")
            await asyncio.Event().wait()

    def expect_if_done(self, each: Put | Purge | str) -> None:
        """What it was about when it was killed."""
        match each:
            case (str(name), tuple(tags), int()):
                found = self.worker.tier.lookup(response(name).primary)
                # One that is invalidated was there before; one with other tags, too.
                if found and found[0].tags == tags and self.worker.stands(name) == "valid":
                    self.expect(each)
            case (str(), Mode()):
                if self.worker.view.catch_up() > len(self.purged):
                    self.expect(each)

    @rule(at=st.integers(2, 200), scribble=st.binary(min_size=1, max_size=400), cut=st.booleans())
    def damage(self, at: int, scribble: bytes, cut: bool) -> None:
        """A page of the index is not what was written: that is seen, or what is read of it is
        right, or not there."""
        self.close()
        folder = Path(self.folder.name)
        responses, bodies = folder / "responses", folder / "bodies"
        data = responses / "data.mdb"
        # The first two pages say which the last transaction was: without one, it has not been.
        start = at * 4096 % (data.stat().st_size - 2 * 4096) + 2 * 4096
        if cut:
            os.truncate(data, start)
        else:
            with data.open("r+b") as file:
                file.seek(start + at)
                file.write(scribble)
        (responses / "lock.mdb").unlink()
        if check_in_child(responses, bodies, 512 << 20, self.journal_id).verdict != "sound":
            shutil.rmtree(responses)
            shutil.rmtree(bodies, ignore_errors=True)
        self.open()
        for name in NAMES:
            found = self.worker.tier.lookup(response(name).primary)
            if not found or not self.is_readable(found[0]):
                self.stored.pop(name, None)

    def is_readable(self, stored: StoredResponse) -> bool:
        try:
            self.loop.run_until_complete(self.worker.tier.read(stored))
        except StoreError:
            return False
        return True

    @invariant()
    def all_stands_as_it_is_known(self) -> None:
        if not hasattr(self, "worker"):
            return
        assert self.worker.view.catch_up() == len(self.purged)
        for name in NAMES:
            standing = self.worker.stands(name)
            tags, known = self.stored.get(name, ((), "absent"))
            # What was deleted may be there until it is swept; nobody is given it.
            assert standing == known or (standing, known) == ("deleted", "absent"), name
            if known != "absent":
                (found,) = self.worker.tier.lookup(response(name).primary)
                assert found.tags == tags
                assert self.loop.run_until_complete(self.worker.tier.read(found)) == name.encode()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=6, stateful_step_count=12)
