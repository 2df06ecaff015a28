"""A supervisor and its workers: whole processes, real signals."""

import asyncio
import os
import re
import resource
import signal
import ssl
import stat
from pathlib import Path

import pytest

from edgeproxy.runtime.sockets import listen
from tests.conftest import StartEdge
from tests.kit import Answer, Connection, EdgeProcess, ScriptedOrigin
from tests.kit.edge import pid_end
from tests.kit.ports import PortLease
from tests.runtime.test_tls import AUTHORITY, issue

PASS = {"Cache-Control": "no-store"}


def _with_tls(address: str, pair: tuple[Path, Path]) -> dict[str, object]:
    named = [{"cert": str(pair[0]), "key": str(pair[1])}]
    return {"listen": [{"address": address, "tls": {"certificates": named}}]}


@pytest.fixture
def origin_with_pages(origin: ScriptedOrigin) -> ScriptedOrigin:
    origin.otherwise(Answer(fields=PASS, body=b"page"))
    return origin


async def test_it_says_where_it_listens_and_stores(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin, workers=2)
    store = re.escape(str(edge.folder / "store"))
    for line in (
        f"^listening on {edge.url}$",
        f"^admin API on {edge.admin_url}$",
        f"^storing up to 2GiB in {store}$",
    ):
        await edge.logged(line)
    assert "admin token" not in edge.log


async def test_there_is_a_process_for_each_worker_and_a_folder_for_each_run(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin, workers=3)
    assert len(edge.pids()) == 3
    (run,) = (edge.folder / "run").iterdir()
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    await edge.stop()
    assert list((edge.folder / "run").iterdir()) == []


async def test_a_made_token_is_told_once_and_good(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(
        flags=["--origin", origin.url, "--workers", "2", "--store", "memory:"],
        env={"EDGEPROXY_ADMIN_TOKEN": ""},
    )
    edge.token = (await edge.logged(r"^admin token.*: ([0-9a-f]{48})$"))[1]
    assert (await edge.purge(tags=["a"]))["matched"] == 0
    assert (edge.log + edge.stdout).count(edge.token) == 1
    edge.token = "another"
    assert (await edge.admin("POST", "/v1/purge", body=b"{}")).status == 401


async def test_the_environment_s_token_is_good(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(flags=["--origin", origin.url, "--workers", "1", "--store", "memory:"])
    assert (await edge.purge(tags=["a"]))["matched"] == 0
    assert edge.token not in edge.log + edge.stdout


async def test_the_state_of_a_memory_store_goes_with_the_run(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin, store="memory:")
    folder = Path((await edge.logged(r"^storing .* the journal in (/.*)$"))[1])
    assert folder.is_dir()
    await edge.stop()
    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_worker_that_dies_is_replaced_at_once(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge, number: signal.Signals
) -> None:
    edge = await start_edge(origin_with_pages, workers=2)
    before = edge.pids()
    os.kill(before[0], number)
    await edge.logged(rf"pid {before[0]}\) was killed by {number.name}; another one starts now")
    await edge.ready()
    after = edge.pids()
    assert len(after) == 2
    assert before[1] in after
    for _ in range(20):  # enough to reach both
        assert (await edge.get("/")).body == b"page"


async def test_after_crashes_in_a_row_all_begin_with_an_empty_store(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin.otherwise(Answer(fields={"Cache-Control": "max-age=600"}, body=b"page"))
    edge = await start_edge(origin, workers=2)
    await edge.get("/")
    position = (await edge.purge(tags=["nothing"]))["position"]
    for _ in range(3):
        assert "hit" in (await edge.get("/")).cache_status
        worker = edge.pids()[0]
        os.kill(worker, signal.SIGSEGV)
        await edge.logged(rf"pid {worker}\) was killed by SIGSEGV")
        await edge.ready()
    await edge.logged("was killed by SIGSEGV: all workers end, and begin with an empty store")
    await edge.logged("can't be trusted: worker . was killed by SIGSEGV; responses set aside")
    assert ["hit" in (await edge.get("/")).cache_status for _ in range(2)] == [False, True]
    assert (await edge.purge(tags=["nothing"]))["position"] == position + 1
    # What goes on after that is not for want of an empty store.
    os.kill(edge.pids()[0], signal.SIGBUS)
    await edge.logged("was killed by SIGBUS; another one starts")
    await edge.ready()
    assert "hit" in (await edge.get("/")).cache_status
    assert edge.log.count("all workers end") == 1


async def test_connections_that_wait_for_a_dead_worker_get_to_its_successor(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin_with_pages, workers=1)
    (worker,) = edge.pids()
    os.kill(worker, signal.SIGSTOP)
    waiting = [await edge.connect() for _ in range(5)]
    for connection in waiting:
        await connection.request("GET", "/")
    os.kill(worker, signal.SIGKILL)
    for connection in waiting:
        assert (await connection.response()).body == b"page"
        await connection.close()


async def test_one_that_hangs_is_killed_and_what_waits_for_it_answered(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin_with_pages, workers=2, config={"limits": {"hang_timeout": "2s"}})
    hanging, other = edge.pids()
    os.kill(hanging, signal.SIGSTOP)
    waiting = [await edge.connect() for _ in range(20)]  # enough to reach both
    for connection in waiting:
        await connection.request("GET", "/")
    for connection in waiting:
        assert (await connection.response()).body == b"page"
        await connection.close()
    await edge.logged(rf"worker \d \(pid {hanging}\) hangs and is killed")
    await edge.ready()
    pids = edge.pids()
    assert len(pids) == 2
    assert hanging not in pids
    assert other in pids


async def test_workers_that_are_halted_with_their_supervisor_do_not_hang(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin_with_pages, workers=2, config={"limits": {"hang_timeout": "2s"}})
    workers = edge.pids()
    for pid in (edge.pid, *workers):
        os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(2.5)
    for pid in (edge.pid, *workers):
        os.kill(pid, signal.SIGCONT)
    await asyncio.sleep(1.5)
    assert edge.pids() == workers
    assert "hangs" not in edge.log


async def test_one_that_keeps_dying_is_not_replaced_in_a_hurry(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin_with_pages, workers=1)
    for pause in ("now", "in 0.1 s", "in 0.2 s"):
        worker = edge.pids()[0]
        os.kill(worker, signal.SIGKILL)
        await edge.logged(rf"pid {worker}\) was killed by SIGKILL; another one starts {pause}$")
        await edge.ready()
    assert (await edge.get("/")).body == b"page"


async def test_one_that_there_is_no_process_for_comes_once_there_is(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin_with_pages, workers=2)
    killed, other = edge.pids()
    # A limit that holds for the privileged, too: no file for the channel to the next worker.
    before = resource.prlimit(edge.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(edge.pid, resource.RLIMIT_NOFILE, (4, before[1]))
    os.kill(killed, signal.SIGKILL)
    await edge.logged("worker . can't be started yet: .*Too many open files")
    assert edge.pids() == [other]
    resource.prlimit(edge.pid, resource.RLIMIT_NOFILE, before)
    await edge.ready()
    assert len(edge.pids()) == 2
    for _ in range(20):  # enough to reach both
        assert (await edge.get("/")).body == b"page"


async def test_workers_end_with_a_supervisor_that_is_killed(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin_with_pages, workers=2)
    gone = [pid_end(pid) for pid in edge.pids()]
    edge.signal(signal.SIGKILL)
    async with asyncio.timeout(5):
        await asyncio.gather(*gone)
    assert await edge.wait() == -signal.SIGKILL
    left = set((edge.folder / "run").iterdir())
    assert len(left) == 1
    await edge.start()
    assert (await edge.get("/")).body == b"page"
    assert left.isdisjoint((edge.folder / "run").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_requests_in_flight_end_before_it_does(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge, number: signal.Signals
) -> None:
    release = asyncio.Event()
    origin_with_pages.route("/slow", Answer(fields=PASS, body=b"whole", hold_body=release))
    edge = await start_edge(origin_with_pages, workers=2)
    async with await edge.connect() as busy:
        await busy.request("GET", "/slow")
        await origin_with_pages.seen("/slow")
        # To the whole group, as a terminal does it: the workers leave it to the supervisor.
        os.killpg(edge.pid, number)
        await _refused(edge)
        assert (await edge.admin("GET", "/readyz")).status == 503
        assert (await edge.admin("GET", "/healthz")).status == 200
        release.set()
        assert (await busy.response()).body == b"whole"
    assert await edge.wait() == 0
    assert "Traceback" not in edge.log


async def test_connections_that_wait_when_it_ends_are_answered(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin_with_pages, workers=1)
    (worker,) = edge.pids()
    os.kill(worker, signal.SIGSTOP)
    waiting = [await edge.connect() for _ in range(20)]
    for connection in waiting:
        await connection.request("GET", "/")
    edge.signal(signal.SIGTERM)
    await edge.logged("ending on SIGTERM")
    os.kill(worker, signal.SIGCONT)
    for connection in waiting:
        assert (await connection.response()).body == b"page"
        await connection.close()
    assert await edge.wait() == 0


async def test_a_request_that_does_not_end_in_time_is_cut_off(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin_with_pages.route("/slow", Answer(fields=PASS, hold=asyncio.Event()))
    edge = await start_edge(
        origin_with_pages, workers=1, config={"limits": {"drain_timeout": "200ms"}}
    )
    async with await edge.connect() as busy:
        await busy.request("GET", "/slow")
        await origin_with_pages.seen("/slow")
        edge.signal(signal.SIGTERM)
        assert await edge.wait() == 0
        assert await busy.ended() in ("closed", "reset")
    assert "1 connections did not end in time and are cut off" in edge.log


async def test_a_second_signal_ends_it_at_once(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin_with_pages.route("/slow", Answer(fields=PASS, hold=asyncio.Event()))
    edge = await start_edge(origin_with_pages, workers=1)
    async with await edge.connect() as busy:
        await busy.request("GET", "/slow")
        await origin_with_pages.seen("/slow")
        edge.signal(signal.SIGTERM)
        await edge.logged("ending on SIGTERM")
        edge.signal(signal.SIGTERM)
        assert await edge.wait() == 0


async def test_a_reload_reaches_every_worker_and_drops_no_connection(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge
) -> None:
    async with ScriptedOrigin() as other:
        other.otherwise(Answer(fields=PASS, body=b"other"))
        edge = await start_edge(origin_with_pages, workers=2)
        connections = [await edge.connect() for _ in range(20)]
        for connection in connections:
            await connection.request("GET", "/")
            assert (await connection.response()).body == b"page"
        pids = edge.pids()
        edge.write_config({"sites": {"default": {"origins": [{"url": other.url}]}}})
        edge.signal(signal.SIGHUP)
        await edge.logged("the configuration has been reloaded")
        for connection in connections:
            await connection.request("GET", "/")
            assert (await connection.response()).body == b"other"
            await connection.close()
        assert edge.pids() == pids
        # One that comes later has the new one too.
        await edge.kill_worker()
        await edge.ready()
        for _ in range(20):
            assert (await edge.get("/")).body == b"other"
        await edge.stop()


async def test_a_wrong_configuration_leaves_the_old_one_in_force(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin_with_pages, workers=2)
    right = edge.config_path.read_text()
    edge.config_path.write_text("wokers = 3\n" + right)
    edge.signal(signal.SIGHUP)
    await edge.logged(f'{edge.config_path}: wokers: unknown key; did you mean "workers"')
    await edge.logged("the old one stays in force")
    assert (await edge.get("/")).body == b"page"
    edge.config_path.write_text(right)
    edge.signal(signal.SIGHUP)
    await edge.logged("the configuration has been reloaded")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        pytest.param("a = " + "[" * 5000, "can't be read as TOML: maximum recursion", id="deep"),
        pytest.param("workers = " + "9" * 5000, "can't be read as TOML: Exceeds", id="a number"),
        pytest.param('runtime_dir = "~nobody-of-this-name"', "no home folder is known", id="home"),
    ],
)
async def test_no_configuration_that_is_reloaded_ends_the_run(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge, content: str, fault: str
) -> None:
    edge = await start_edge(origin_with_pages, workers=1)
    workers = edge.pids()
    edge.config_path.write_text(content)
    edge.signal(signal.SIGHUP)
    await edge.logged(fault)
    await edge.logged("the configuration was not reloaded; the old one stays in force")
    assert (await edge.get("/")).body == b"page"
    assert edge.pids() == workers


async def test_what_takes_a_restart_is_told_at_a_reload(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin_with_pages, workers=1)
    edge.write_config({"workers": 2, "limits": {"head_bytes": "32KiB"}})
    edge.signal(signal.SIGHUP)
    await edge.logged("a reload can't change this, a restart can: workers: 1 -> 2")
    await edge.logged("the configuration has been reloaded")
    assert len(edge.pids()) == 1
    assert (await edge.get("/")).body == b"page"


async def test_a_reload_makes_tokens_good_and_void(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(origin, workers=1)
    edge.write_config({"admin": {"tokens": [{"name": "new", "hash": "sha256:" + "0" * 64}]}})
    edge.signal(signal.SIGHUP)
    await edge.logged("the configuration has been reloaded")
    assert (await edge.admin("POST", "/v1/purge", body=b"{}")).status == 401


async def test_tls_and_its_certificates_are_reloaded(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge, tmp_path: Path
) -> None:
    first, second = issue(tmp_path, "first.test"), issue(tmp_path, "second.test")
    with PortLease() as lease:
        address = f"127.0.0.1:{lease.port}"
        edge = await start_edge(origin_with_pages, workers=2, config=_with_tls(address, first))
        await edge.logged(f"^listening on https://{address}$")
        assert await _served(address, "first.test") == "first.test"
        edge.write_config(_with_tls(address, second))
        edge.signal(signal.SIGHUP)
        await edge.logged("the configuration has been reloaded")
        for _ in range(10):
            assert await _served(address, "second.test") == "second.test"
        second[0].write_text("not a certificate")
        edge.signal(signal.SIGHUP)
        await edge.logged(rf"listen\[0\].tls.certificates\[0\]: certificate {second[0]} with key")
        assert await _served(address, "second.test") == "second.test"


async def test_a_worker_that_can_not_take_the_new_configuration_is_told_of(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge, tmp_path: Path
) -> None:
    with PortLease() as lease:
        config = _with_tls(f"127.0.0.1:{lease.port}", issue(tmp_path, "first.test"))
        edge = await start_edge(origin_with_pages, workers=2, config=config)
        pid = edge.pids()[0]
        files = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # It can open nothing, and so read no certificate.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (4, files[1]))
        edge.signal(signal.SIGHUP)
        await edge.logged(r"worker \d keeps its configuration: listen\[0\]\.tls\.certificates")
        await edge.logged("the configuration has been reloaded by some workers at most; try again")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, files)
        edge.signal(signal.SIGHUP)
        await edge.logged("the configuration has been reloaded$")


async def test_nothing_can_be_reloaded_without_a_file(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    edge = await start_edge(flags=["--origin", origin.url, "--workers", "1", "--store", "memory:"])
    edge.signal(signal.SIGHUP)
    await edge.logged("nothing to reload: the configuration came from flags")
    assert len(edge.pids()) == 1


async def test_the_access_log_is_opened_anew_after_a_rotation(
    origin_with_pages: ScriptedOrigin, start_edge: StartEdge, tmp_path: Path
) -> None:
    target = tmp_path / "access.log"
    edge = await start_edge(origin_with_pages, workers=2, config={"log": {"access": str(target)}})
    await edge.get("/before")
    async with asyncio.timeout(10):
        while "/before" not in target.read_text():
            await asyncio.sleep(0.01)
    rotated = target.rename(tmp_path / "access.log.1")
    edge.signal(signal.SIGUSR1)
    async with asyncio.timeout(10):
        while not target.exists():
            await asyncio.sleep(0.01)
        while "/after" not in target.read_text():
            await edge.get("/after")
    assert "GET /before HTTP/1.1" in rotated.read_text()


async def test_a_port_in_use_is_named_and_nothing_is_started(
    origin: ScriptedOrigin, tmp_path: Path
) -> None:
    edge = EdgeProcess(tmp_path, origin=origin.url)
    port = int(edge.url.rpartition(":")[2])
    taken = listen("127.0.0.1", port, workers=1)
    try:
        await edge.start(wait=False)
        assert await edge.wait() == 1
    finally:
        taken.close()
        edge.release()
    assert f"cannot listen on 127.0.0.1:{port}: address in use by" in edge.log
    assert not (tmp_path / "store").exists()


async def test_a_store_in_use_is_named(origin: ScriptedOrigin, start_edge: StartEdge) -> None:
    first = await start_edge(origin)
    second = await start_edge(origin, store=f"lmdb:{first.folder / 'store'}", wait=False)
    assert await second.wait() == 1
    assert str(first.folder / "store") in second.log
    assert "Traceback" not in second.log
    assert (await first.admin("GET", "/readyz")).status == 200


async def test_it_gives_up_when_no_worker_ever_starts(
    origin: ScriptedOrigin, tmp_path: Path
) -> None:
    edge = EdgeProcess(tmp_path, origin=origin.url, config={"log": {"access": "/dev/full/x"}})
    edge.config["log"]["access"] = str(tmp_path / "folder")
    (tmp_path / "folder").mkdir()
    await edge.start(wait=False)
    assert await edge.wait() == 1
    edge.release()
    assert "as those before it: giving up" in edge.log


async def _refused(edge: EdgeProcess) -> None:
    """Wait until the public port takes no more connections."""
    async with asyncio.timeout(10):
        while True:
            try:
                connection = await edge.connect()
            except ConnectionRefusedError:
                return
            await connection.close()


async def _served(address: str, server_name: str) -> str:
    """The name in the certificate that is shown for that server name, after a request."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    connection = await Connection.open(f"https://{address}", tls=context, server_name=server_name)
    async with connection:
        await connection.request("GET", "/")
        assert (await connection.response()).body == b"page"
        peer = connection.writer.get_extra_info("peercert")
        return str(peer["subjectAltName"][0][1])
