"""The index against a model of it: what it counts, lists and adds up is what is stored."""

import asyncio
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from edgeproxy.cache.errors import StoreUnusable
from edgeproxy.cache.garbage import garbage_before
from edgeproxy.cache.index import Index
from edgeproxy.cache.layout import map_size, read_usage
from edgeproxy.cache.lists import List, Span, url_value
from edgeproxy.cache.rows import in_row
from edgeproxy.cache.snapshot import Mark, Snapshot
from edgeproxy.cache.stored import BodyRef, StoredResponse
from tests.cache.samples import JOURNAL_ID, MIB, copy_of, response

NAMES = ("a", "b", "c")
TAGS = ("x", "y", "z")
SITES = ("shop", "news")
ENVIRONMENTS = ("production", "preview")
HOSTS = ("one.test", "two.test")

SPANS = [
    span
    for site in SITES
    for environment in (None, *ENVIRONMENTS)
    for span in [
        Span(List.SITE, site, environment, b""),
        *(Span(List.TAG, site, environment, tag.encode()) for tag in TAGS),
        *(Span(List.URL, site, environment, url_value(host, b""), open=True) for host in HOSTS),
        *(
            Span(List.URL, site, environment, target.encode(), any_host=True, open=is_open)
            for target in ("/", "/a", "/b")
            for is_open in (False, True)
        ),
        *(Span(List.URL, site, environment, url_value(host, b"/a")) for host in HOSTS),
    ]
]


def listed(span: Span, stored: StoredResponse) -> bool:
    """What a span means, said otherwise than the index says it."""
    if stored.site != span.site or span.environment not in (None, stored.environment):
        return False
    if span.list is List.SITE:
        return True
    if span.list is List.TAG:
        return span.value.decode() in stored.tags
    url = stored.target if span.any_host else url_value(stored.host, stored.target)
    return url.startswith(span.value) if span.open else url == span.value


responses = st.builds(
    lambda name, site, environment, host, variant, token, tags, kind, status: replace(
        (copy_of(name, token) if token else response(name)),
        # As it is: a site has targets of its own, a host its own keys and its environment.
        primary=response(f"{name} {site} {host} {token}").primary,
        target_id=response(f"{site} {name}").target_id,
        variant=variant.to_bytes(8, "big"),
        site=site,
        environment=environment,
        host=host,
        tags=tags,
        status=status,
        body=BodyRef(kind, b"", 5, 0),
    ),
    st.sampled_from(NAMES),
    st.sampled_from(SITES),
    st.sampled_from(ENVIRONMENTS),
    st.sampled_from(HOSTS),
    st.integers(0, 1),
    st.sampled_from(["", "p", "q"]),
    st.sets(st.sampled_from(TAGS)).map(lambda tags: tuple(sorted(tags))),
    st.sampled_from(["inline", "file"]),
    st.integers(200, 599),
)


class IndexMachine(RuleBasedStateMachine):
    """An index and a dict go through the same changes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.index = Index(Path(self.folder.name), MIB, JOURNAL_ID)
        self.model: dict[bytes, StoredResponse] = {}
        self.freed: set[bytes] = set()

    def teardown(self) -> None:
        self.index.close()
        self.folder.cleanup()

    @rule(stored=responses)
    def put(self, stored: StoredResponse) -> None:
        with self.index.writing() as txn:
            body = replace(stored.body, id=self.index.new_body_id(txn))
            stored = replace(stored, body=body)
            self.free(self.model.get(stored.id))
            self.index.remove(txn, [stored.id], 1.0)
            self.index.insert(txn, stored, b"hello" if body.kind == "inline" else None, 1.0)
        self.model[stored.id] = stored

    @rule(stored=responses)
    def update(self, stored: StoredResponse) -> None:
        there = self.model.get(stored.id)
        if there is None:
            return
        new = replace(there, tags=stored.tags, environment=stored.environment, status=203)
        with self.index.writing() as txn:
            self.index.replace(txn, there, new)
        self.model[new.id] = new

    @rule(stored=responses)
    def remove(self, stored: StoredResponse) -> None:
        with self.index.writing() as txn:
            assert bool(self.index.remove(txn, [stored.id], 1.0)) == (stored.id in self.model)
        self.free(self.model.pop(stored.id, None))

    @rule(stored=responses)
    def damage(self, stored: StoredResponse) -> None:
        """A row that can't be read is removed as wholly as any other."""
        there = self.model.pop(stored.id, None)
        if there is None:
            return
        with self.index.writing() as txn:
            value = txn.get(there.id, db=self.index.rows)
            txn.put(there.id, value[:-1], db=self.index.rows)
            assert self.index.remove(txn, [there.id], 1.0)
        self.free(there)

    @rule(stored=responses)
    def give_up(self, stored: StoredResponse) -> None:
        """What a transaction that failed did never was."""
        with pytest.raises(ZeroDivisionError), self.index.writing() as txn:
            self.index.remove(txn, [stored.id], 1.0)
            self.index.insert(txn, replace(stored, body=BodyRef("inline", b"1" * 8, 1, 0)), b"x", 1)
            raise ZeroDivisionError

    @rule()
    def collect(self) -> None:
        with self.index.writing() as txn:
            for ref in garbage_before(self.index, 2.0, 1000):
                txn.delete(ref.id, db=self.index.garbage)
        self.freed.clear()

    def free(self, stored: StoredResponse | None) -> None:
        if stored is not None and stored.body.kind == "file":
            self.freed.add(stored.body.id)

    @invariant()
    def rows_are_what_was_stored(self) -> None:
        for primary in {one.primary for one in self.model.values()}:
            found, damaged = self.index.find(primary)
            under = [one for one in self.model.values() if one.primary == primary]
            assert sorted(found, key=lambda one: one.id) == sorted(under, key=lambda one: one.id)
            assert damaged == []

    @invariant()
    def what_a_span_lists_is_counted_and_given_in_order(self) -> None:
        with Snapshot([self.index]) as snapshot:
            for span in SPANS:
                expected = {one.id for one in self.model.values() if listed(span, one)}
                assert snapshot.count(span) == len(expected)
                marks = snapshot.ids(span, None, 1000)
                assert len(marks) == len(expected)
                assert {mark.id for mark in marks} == expected
                assert marks == sorted(marks)
                if len(marks) > 1:
                    first, second = marks[:2]
                    assert snapshot.ids(span, first, 1) == [second]
                    assert snapshot.ids(span, Mark(first.key, first.id + b"\0"), 1) == [second]

    @invariant()
    def it_adds_up(self) -> None:
        index = self.index
        with index.reading() as txn:
            costs = [read_usage(value).cost for _, value in txn.cursor(index.usage)]
            assert len(costs) == index.entries(txn) == len(self.model)
            assert index.counter(txn, b"bytes") == sum(costs)
            elsewhere = sum(1 for one in self.model.values() if not in_row(one.body))
            assert txn.stat(index.bodies)["entries"] == elsewhere
            copies = {(one.target_id, one.primary) for one in self.model.values() if one.buster}
            listed = {(bytes(key), bytes(value)) for key, value in txn.cursor(index.busters)}
            assert listed == copies
        assert {ref.id for ref in garbage_before(index, 2.0, 1000)} == self.freed


TestIndexAgainstModel = IndexMachine.TestCase
TestIndexAgainstModel.settings = settings(max_examples=25, stateful_step_count=20)


def test_the_bytes_that_are_accounted_for_are_those_it_takes(tmp_path: Path) -> None:
    index = Index(tmp_path, 64 * MIB, JOURNAL_ID)
    for number in range(3000):
        size = (number * 37) % 9000
        stored = response(
            str(number),
            tags=tuple(f"tag {number % 50} {at}" for at in range(number % 6)),
            fields=tuple((b"Field-%d" % at, b"value" * (number % 9)) for at in range(number % 20)),
        )
        with index.writing() as txn:
            ref = BodyRef("inline", index.new_body_id(txn), size, 0)
            index.insert(txn, replace(stored, body=ref), bytes(size), 1.0)
    with index.reading() as txn:
        accounted = index.counter(txn, b"bytes")
    index.close()
    assert 0.85 < accounted / (tmp_path / "data.mdb").stat().st_size < 1.2


def test_body_ids_are_never_used_again(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        index = Index(tmp_path, MIB, JOURNAL_ID)
        for _ in range(3):
            with index.writing() as txn:
                seen.append(index.new_body_id(txn))
        index.clear()
        index.close()
    assert len(set(seen)) == 6


def test_an_index_belongs_to_a_journal(tmp_path: Path) -> None:
    Index(tmp_path, MIB, JOURNAL_ID).close()
    with pytest.raises(StoreUnusable, match="another journal"):
        Index(tmp_path, MIB, b"another journal's")
    Index(tmp_path, MIB, JOURNAL_ID).close()


def test_two_indexes_have_different_identities(tmp_path: Path) -> None:
    one = Index(tmp_path / "one", MIB, JOURNAL_ID)
    two = Index(tmp_path / "two", MIB, JOURNAL_ID)
    assert one.identity != two.identity
    one.close()
    two.close()


def test_an_index_of_another_format_is_not_opened(tmp_path: Path) -> None:
    index = Index(tmp_path, MIB, JOURNAL_ID)
    with index.writing() as txn:
        index.set_counter(txn, b"format", 99)
    index.close()
    with pytest.raises(StoreUnusable, match="format 99"):
        Index(tmp_path, MIB, JOURNAL_ID)


@pytest.mark.parametrize("max_bytes", [0, 10 * MIB, 2**50])
def test_the_map_has_room_for_what_may_be_stored_within_reason(max_bytes: int) -> None:
    assert min(max_bytes, 2**43) < map_size(max_bytes) <= 2**44


async def test_a_reader_that_was_killed_does_not_keep_its_place(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from edgeproxy.cache.index import Index\n"
        "index = Index(Path(sys.argv[1]), 1 << 20, bytes.fromhex(sys.argv[2]))\n"
        "with index.reading():\n"
        "    print('reading', flush=True)\n"
        "    time.sleep(60)\n"
    )
    index = Index(tmp_path, MIB, JOURNAL_ID)
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), JOURNAL_ID.hex(), stdout=subprocess.PIPE
    )
    assert reader.stdout is not None
    assert await reader.stdout.readline() == b"reading\n"
    reader.send_signal(signal.SIGKILL)
    await reader.wait()
    assert str(reader.pid) in index.env.readers()
    garbage_before(index, 0.0, 1)
    assert str(reader.pid) not in index.env.readers()
    index.close()
