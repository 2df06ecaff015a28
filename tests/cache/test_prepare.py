"""Preparing a store's folder: what can be trusted stays, what can't is set aside, and said."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from edgeproxy.cache import check, prepare
from edgeproxy.cache.errors import StoreInUse, StoreUnusable
from edgeproxy.cache.prepare import Moment, Prepared, prepare_store
from edgeproxy.cache.store import open_tier
from tests.cache.samples import (
    EVERYTHING,
    JOURNAL_ID,
    KIB,
    Time,
    config,
    must_put,
    response,
    some_bytes,
)
from tests.cache.samples import stored_in as listed
from tests.kit import RedisServer
from tests.kit.disk import full_disk


def journal(folder: Path, step: float) -> bytes:
    """A journal that is always there and whole."""
    return JOURNAL_ID


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "store"


def clock() -> Moment:
    return Moment(wall=2000.0, elapsed=500.0)


def run(
    directory: Path,
    check_journal: Callable[[Path, float], bytes | str] = journal,
    now: Moment | None = None,
    distrust: str | None = None,
) -> Prepared:
    return prepare_store(
        config(f"lmdb:{directory}", directory),
        directory,
        check_journal,
        clock if now is None else lambda: now,
        distrust=distrust,
    )


async def fill(directory: Path, prepared: Prepared, count: int = 40) -> None:
    """What a worker does: store, and close."""
    tier = open_tier(
        config(f"lmdb:{directory}", directory),
        directory,
        worker=0,
        journal_id=prepared.journal_id,
        clock=Time(),
    )
    for number in range(count):
        size = 200 * KIB if number == 3 else 3000
        await must_put(tier, response(str(number), tags=("t",)), some_bytes(size))
    await tier.close()


async def stored_in(directory: Path, prepared: Prepared) -> int:
    """How many responses are there, all of them whole."""
    tier = open_tier(
        config(f"lmdb:{directory}", directory),
        directory,
        worker=0,
        journal_id=prepared.journal_id,
        clock=Time(),
    )
    with tier.snapshot() as snapshot:
        found = listed(snapshot, EVERYTHING)
        assert len(found) == snapshot.count(EVERYTHING) == tier.entries
    for stored in found:
        await tier.read(stored)
    # And it can be written to.
    await must_put(tier, response("one more"))
    await tier.delete([response("one more").id])
    await tier.close()
    return len(found)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with 40 responses that was closed cleanly."""
    directory = tmp_path_factory.mktemp("template") / "store"
    prepared = run(directory)
    assert prepared.messages == []
    assert prepared.journal_id == JOURNAL_ID
    asyncio.run(fill(directory, prepared))
    prepared.close(clean=True)
    return directory


@pytest.fixture
def filled(template: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(template, tmp_path / "store")


async def check_set_aside(directory: Path, *why: str) -> None:
    prepared = run(directory)
    (message,) = prepared.messages
    for word in (*why, "set aside in", str(directory)):
        assert word in message
    assert await stored_in(directory, prepared) == 0
    (aside,) = directory.glob("damaged-*")
    assert {path.name for path in aside.iterdir()} == {"responses", "bodies"}
    prepared.close(clean=True)


# -- what stays


async def test_a_store_that_was_closed_is_there_again(filled: Path) -> None:
    prepared = run(filled)
    assert prepared.messages == []
    assert await stored_in(filled, prepared) == 40
    prepared.close(clean=True)


async def test_a_store_whose_processes_were_killed_is_there_again(filled: Path) -> None:
    run(filled).close(clean=False)
    prepared = run(filled)
    assert prepared.messages == []
    assert await stored_in(filled, prepared) == 40
    prepared.close(clean=False)


async def test_a_store_that_was_closed_is_good_after_the_machine_went_down(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "_boot", lambda: "another boot")
    prepared = run(filled)
    assert prepared.messages == []
    assert await stored_in(filled, prepared) == 40
    prepared.close(clean=True)


def test_the_folder_is_for_its_user_alone(directory: Path) -> None:
    run(directory).close(clean=True)
    for path in directory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or path.name == "state.json", path
    assert directory.stat().st_mode & 0o077 == 0


# -- what is set aside


async def test_open_while_the_machine_went_down(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(filled).close(clean=False)
    monkeypatch.setattr(prepare, "_boot", lambda: "another boot")
    await check_set_aside(filled, "machine went down")


def garbage(data: Path) -> None:
    data.write_bytes(some_bytes(50_000))


def empty(data: Path) -> None:
    data.write_bytes(b"")


def cut(data: Path) -> None:
    os.truncate(data, data.stat().st_size // 2 // 4096 * 4096)


def cut_to_its_head(data: Path) -> None:
    os.truncate(data, 3 * 4096)


def flip_meta(data: Path) -> None:
    flip(data, range(16, 2 * 4096, 64))


def flip_everywhere(data: Path) -> None:
    flip(data, range(2 * 4096, data.stat().st_size, 512))


def flip_heads_of_pages(data: Path) -> None:
    flip(data, range(2 * 4096 + 10, data.stat().st_size, 4096))


def flip(data: Path, places: range) -> None:
    content = bytearray(data.read_bytes())
    for place in places:
        content[place] ^= 0xFF
    data.write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [garbage, empty, cut, cut_to_its_head, flip_meta, flip_everywhere, flip_heads_of_pages],
)
async def test_a_damaged_index(filled: Path, harm: Callable[[Path], None]) -> None:
    harm(filled / "responses" / "data.mdb")
    await check_set_aside(filled, "can't be trusted")


@pytest.mark.parametrize("harm", [garbage, cut, cut_to_its_head, flip_meta, flip_everywhere])
async def test_a_damaged_index_too_large_to_check_each_page(
    filled: Path, harm: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check may even be killed by what it reads."""
    monkeypatch.setattr(check, "VERIFIED_BYTES", -1)
    harm(filled / "responses" / "data.mdb")
    await check_set_aside(filled, "can't be trusted")


async def test_single_flipped_bytes_are_found_or_do_no_harm(template: Path, filled: Path) -> None:
    """Wherever a byte flips, nothing wrong is ever given out, and nothing crashes."""
    size = (template / "responses" / "data.mdb").stat().st_size
    for place in range(2 * 4096 + 77, size, size // 4):
        shutil.rmtree(filled)
        shutil.copytree(template, filled)
        flip(filled / "responses" / "data.mdb", range(place, place + 1))
        prepared = run(filled)
        tier = open_tier(
            config(f"lmdb:{filled}", filled),
            filled,
            worker=0,
            journal_id=JOURNAL_ID,
            clock=Time(),
        )
        for number in range(40):
            for stored in tier.lookup(response(str(number)).primary):
                assert stored == response(str(number), tags=("t",), body=stored.body)
        await tier.close()
        prepared.close(clean=True)


async def test_a_damaged_row(filled: Path) -> None:
    data = filled / "responses" / "data.mdb"
    content = data.read_bytes()
    for place in _all_places(content, b"text/plain"):
        content = content[:place] + b"TEXT" + content[place + 4 :]
    data.write_bytes(content)
    await check_set_aside(filled, "row", "is damaged")


def _all_places(content: bytes, what: bytes) -> list[int]:
    places, place = [], content.find(what)
    while place >= 0:
        places.append(place)
        place = content.find(what, place + 1)
    return places


def set_state(directory: Path, **changes: object) -> None:
    path = directory / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


async def test_another_format(filled: Path) -> None:
    set_state(filled, format=99)
    await check_set_aside(filled, "format 99")


async def test_a_state_that_cannot_be_read(filled: Path) -> None:
    (filled / "state.json").write_text("{")
    await check_set_aside(filled, "state.json")


async def test_responses_of_unknown_origin(filled: Path) -> None:
    (filled / "state.json").unlink()
    await check_set_aside(filled, "state.json")


async def test_bodies_that_lie_elsewhere(filled: Path) -> None:
    set_state(filled, bodies="cache.test:6379/0")
    await check_set_aside(filled, "cache.test:6379/0")


async def test_responses_of_another_journal(filled: Path) -> None:
    prepared = run(filled, lambda *_: b"another journal ")
    (message,) = prepared.messages
    assert "another journal" in message
    assert await stored_in(filled, prepared) == 0
    prepared.close(clean=True)


async def test_a_damaged_journal_takes_the_responses_along(filled: Path) -> None:
    asked = []

    def check_journal(folder: Path, step: float) -> bytes | str:
        asked.append(folder)
        if len(asked) == 1:
            folder.mkdir()
            return "the journal has lost a record"
        assert not folder.exists()
        return b"a new journal's."

    prepared = run(filled, check_journal)
    assert asked == [filled / "journal"] * 2
    (message,) = prepared.messages
    assert "the journal has lost a record" in message
    assert prepared.journal_id == b"a new journal's."
    (aside,) = filled.glob("damaged-*")
    assert {path.name for path in aside.iterdir()} == {"journal", "responses", "bodies"}
    assert await stored_in(filled, prepared) == 0
    prepared.close(clean=True)


def test_a_journal_that_cannot_be_made_is_said(directory: Path) -> None:
    with pytest.raises(StoreUnusable, match="always damaged"):
        run(directory, lambda *_: "always damaged")
    run(directory).close(clean=True)


@pytest.mark.parametrize("name", ["responses", "bodies", "tmp"])
async def test_a_file_in_the_place_of_a_folder(filled: Path, name: str) -> None:
    shutil.rmtree(filled / name, ignore_errors=True)
    (filled / name).write_bytes(b"")
    if name != "tmp":
        await check_set_aside(filled, f"{name} is no folder")
        return
    prepared = run(filled)
    assert prepared.messages == []
    assert await stored_in(filled, prepared) == 40
    prepared.close(clean=True)


async def test_another_program_s_database(filled: Path) -> None:
    shutil.rmtree(filled / "responses")
    (filled / "responses").mkdir()
    with lmdb.open(str(filled / "responses")) as env, env.begin(write=True) as txn:
        txn.put(b"something", b"else")
    await check_set_aside(filled, "is another program's")


async def test_one_damaged_store_is_kept_at_most(filled: Path) -> None:
    for _ in range(2):
        set_state(filled, format=99)
        await check_set_aside(filled, "format 99")
        prepared = run(filled)
        assert prepared.messages == []
        await fill(filled, prepared, 4)
        prepared.close(clean=True)


async def test_a_full_disk_is_no_reason_not_to_start(directory: Path) -> None:
    """After a kill as after an end in good order: nothing has to become longer than it was."""
    prepared = run(directory)
    await fill(directory, prepared, count=2)
    for clean in (True, False):
        prepared.close(clean=clean)
        before = blocks(directory)
        with full_disk(max(path.stat().st_size for path in directory.rglob("*"))):
            prepared = run(directory)
        assert prepared.messages == []
        assert blocks(directory) <= before
        assert await stored_in(directory, prepared) == 2
    prepared.close(clean=True)


def blocks(directory: Path) -> int:
    """What the folder takes of the disk."""
    return sum(path.stat().st_blocks for path in directory.rglob("*"))


def test_a_damaged_lock_table_is_made_anew(directory: Path) -> None:
    run(directory).close(clean=True)
    (directory / "responses" / "lock.mdb").write_bytes(b"not what LMDB wrote" * 100)
    prepared = run(directory)
    assert prepared.messages == []
    prepared.close(clean=True)


# -- what is cleared


async def test_what_was_left_over_is_cleared(filled: Path) -> None:
    bodies = filled / "bodies"
    (kept,) = bodies.glob("*/*")
    for name in ("00/00000000000000ff", "00/not-a-body", "00/ "):
        (bodies / name).parent.mkdir(exist_ok=True)
        (bodies / name).write_bytes(b"left over")
    (filled / "tmp" / "123-spool").write_bytes(b"left over")
    prepared = run(filled)
    assert list(bodies.glob("*/*")) == [kept]
    assert not list(filled.glob("tmp/*"))
    assert await stored_in(filled, prepared) == 40
    prepared.close(clean=True)


async def test_a_body_on_its_way_in_when_all_were_killed_is_cleared(filled: Path) -> None:
    prepared = run(filled)
    tier = open_tier(
        config(f"lmdb:{filled}", filled), filled, worker=0, journal_id=JOURNAL_ID, clock=Time()
    )
    spool = tier.spool()
    await spool.append(some_bytes(200 * KIB))
    ref, _ = await tier._take_body(spool)
    await spool.close()
    await tier.close()
    prepared.close(clean=False)
    assert len(list((filled / "bodies").glob("*/*"))) == 2
    prepared = run(filled)
    (left,) = (filled / "bodies").glob("*/*")
    assert left.name != ref.id.hex()
    prepared.close(clean=True)


def test_workers_own_indexes_do_not_outlive_a_run(directory: Path) -> None:
    (directory / "worker-0" / "responses").mkdir(parents=True)
    prepared = prepare_store(config("memory:", directory), directory, journal, clock)
    assert prepared.messages == []
    assert not list(directory.glob("worker-*"))
    assert not (directory / "responses").exists()
    prepared.close(clean=True)


async def test_an_index_of_bodies_in_redis_is_kept(
    directory: Path, redis_server: RedisServer
) -> None:
    chosen = config(redis_server.url(), directory)
    for expected in (0, 1):
        prepared = prepare_store(chosen, directory, journal, clock)
        assert prepared.messages == []
        tier = open_tier(chosen, directory, worker=0, journal_id=JOURNAL_ID, clock=Time())
        assert tier.entries == expected
        await must_put(tier, response())
        await tier.close()
        prepared.close(clean=True)
    other = prepare_store(config(redis_server.url(3), directory), directory, journal, clock)
    assert f":{redis_server.port}/3" in other.messages[0]
    other.close(clean=True)


# -- clocks


@pytest.mark.parametrize(
    ("now", "how", "moved"),
    [
        pytest.param(Moment(2060.0, 560.0), "closed", 0.0, id="a minute later"),
        pytest.param(Moment(2060.9, 560.0), "closed", 0.0, id="within a second"),
        pytest.param(Moment(2060.0 - 3600.0, 560.0), "closed", -3600.0, id="set back"),
        pytest.param(Moment(2060.0 + 3600.0, 560.0), "closed", 3600.0, id="set forward"),
        pytest.param(Moment(2060.0 - 3600.0, 560.0), "killed", -3600.0, id="killed, set back"),
        pytest.param(Moment(2060.0 + 3600.0, 560.0), "killed", 3600.0, id="killed, set forward"),
        pytest.param(Moment(2000.0, 5.0), "rebooted", 0.0, id="another boot"),
        pytest.param(Moment(1998.0, 5.0), "rebooted", None, id="another boot, in the past"),
    ],
)
async def test_a_clock_that_was_stepped_in_between(
    filled: Path,
    monkeypatch: pytest.MonkeyPatch,
    now: Moment,
    how: str,
    moved: float | None,
) -> None:
    run(filled).close(clean=how != "killed")
    if how == "rebooted":
        monkeypatch.setattr(prepare, "_boot", lambda: "another boot")
    prepared = run(filled, now=now)
    if moved is None:
        assert "clock is behind the time when it was closed" in prepared.messages[0]
        assert await stored_in(filled, prepared) == 0
        return
    assert len(prepared.messages) == bool(moved)
    for message in prepared.messages:
        assert f"set {'back' if moved < 0 else 'forward'} by 3600 s" in message
    assert await times_in(filled, prepared) == {(1000.0 + moved, 1000.5 + moved)}
    prepared.close(clean=True)
    # Once is enough.
    again = run(filled, now=Moment(now.wall + 10.0, now.elapsed + 10.0))
    assert again.messages == []
    assert await times_in(filled, again) == {(1000.0 + moved, 1000.5 + moved)}


async def test_times_that_were_set_right_in_part_are_not_trusted(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(prepare, "_check", killed)
        with pytest.raises(KeyboardInterrupt):
            run(filled, now=Moment(1000.0, 501.0))
    await check_set_aside(filled, "can't be trusted")


async def test_deadlines_keep_their_distance(directory: Path) -> None:
    prepared = run(directory)
    chosen = config(f"lmdb:{directory}", directory)
    tier = open_tier(chosen, directory, worker=0, journal_id=JOURNAL_ID, clock=Time())
    await must_put(tier, response(deleted_from=1500.0))
    await tier.close()
    prepared.close(clean=True)
    prepared = run(directory, now=Moment(3000.0, 500.0))
    tier = open_tier(chosen, directory, worker=0, journal_id=JOURNAL_ID, clock=Time())
    assert [each.deleted_from for each in tier.lookup(response().primary)] == [2500.0]
    await tier.close()
    prepared.close(clean=True)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        pytest.param(JOURNAL_ID, 40, id="set right"),
        pytest.param("its deadlines can't be set right", 0, id="not to be set right"),
    ],
)
async def test_the_deadlines_in_the_journal_keep_theirs_too(
    filled: Path, answer: bytes | str, kept: int
) -> None:
    asked = []

    def check_journal(folder: Path, step: float) -> bytes | str:
        asked.append(step)
        return answer if step else JOURNAL_ID

    prepared = run(filled, check_journal, Moment(2060.0 + 3600.0, 560.0))
    assert asked == [0.0, 3600.0]
    assert await stored_in(filled, prepared) == kept
    assert ("deadlines can't be set right" in prepared.messages[0]) == (not kept)
    prepared.close(clean=True)


async def test_what_dates_say_of_a_response_stays_as_it_was(directory: Path) -> None:
    """It came with a Date of the clock as it was, which the step did not change."""
    run(directory).close(clean=True)
    chosen = config(f"lmdb:{directory}", directory)
    for moment in (Moment(2000.0, 500.0), Moment(5600.0, 500.0), Moment(1950.0, 550.0)):
        prepared = run(directory, now=moment)
        tier = open_tier(chosen, directory, worker=0, journal_id=JOURNAL_ID, clock=Time())
        if moment.wall == 2000.0:
            await must_put(tier, response())
        (stored,) = tier.lookup(response().primary)
        assert stored.response_time - stored.stepped == response().response_time
        await tier.close()
        prepared.close(clean=True)
    assert stored.stepped == -100.0


async def times_in(directory: Path, prepared: Prepared) -> set[tuple[float, float]]:
    tier = open_tier(
        config(f"lmdb:{directory}", directory),
        directory,
        worker=0,
        journal_id=prepared.journal_id,
        clock=Time(),
    )
    names = [response(str(number)).primary for number in range(40)]
    found = [stored for name in names for stored in tier.lookup(name)]
    await tier.close()
    assert len(found) == 40
    return {(stored.request_time, stored.response_time) for stored in found}


# -- who has the folder


def test_a_folder_that_another_edgeproxy_has(directory: Path) -> None:
    prepared = run(directory)
    with pytest.raises(StoreInUse, match=rf"process {os.getpid()}\) has {directory}"):
        run(directory)
    prepared.close(clean=True)
    prepared.close(clean=True)
    run(directory).close(clean=True)


def test_a_folder_that_was_taken_away_is_made_and_locked_again(directory: Path) -> None:
    prepared = run(directory)
    directory.rename(directory.with_name("away"))
    again = prepared.renew("it is gone")
    with pytest.raises(StoreInUse):
        run(directory)
    again.close(clean=True)
    run(directory).close(clean=True)
    # What was held in the place where it was then, isn't any more.
    run(directory.with_name("away")).close(clean=True)


async def test_a_killed_supervisors_workers_keep_the_folder_until_they_end(
    directory: Path,
) -> None:
    script = (
        "import fcntl, os, sys, time\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "os.pwrite(fd, b'%d' % os.getpid(), 0)\n"
        "worker = os.fork()\n"
        "if not worker:\n"
        "    sys.stdin.read()\n"
        "    os._exit(0)\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    directory.mkdir(parents=True)
    command = [sys.executable, "-c", script, str(directory / "lock")]
    supervisor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == b"locked\n"
    with pytest.raises(StoreInUse, match=f"process {supervisor.pid}"):
        run(directory)
    supervisor.kill()
    supervisor.wait()
    waiting = asyncio.create_task(asyncio.to_thread(run, directory))
    await asyncio.sleep(0.15)
    assert not waiting.done()
    # The worker sees the end of its input, as one sees that its supervisor has gone.
    supervisor.stdin.close()
    supervisor.stdout.close()
    (await waiting).close(clean=True)


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for directory in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(StoreUnusable, match="can't use the folder"):
            run(directory)
