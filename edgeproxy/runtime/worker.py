"""A worker: one process with an event loop, answering readers and the admin API at its sockets."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvloop

from edgeproxy.admin.app import build_admin, reload_admin
from edgeproxy.admin.server import AdminServer
from edgeproxy.admin.state import WorkerState
from edgeproxy.cache.disk import DAMAGE
from edgeproxy.cache.errors import StoreError
from edgeproxy.config.model import Config
from edgeproxy.invalidation.journal import JournalError
from edgeproxy.proxy.edge import Edge
from edgeproxy.proxy.place import Place
from edgeproxy.runtime import control, logs, trimming
from edgeproxy.runtime.access_log import AccessLog
from edgeproxy.runtime.listening import Listening, file_limit
from edgeproxy.runtime.settings import access_log_settings
from edgeproxy.runtime.shared import HEARTBEAT_SECONDS
from edgeproxy.runtime.sockets import has_waiting, refuse_new
from edgeproxy.runtime.tls import CertificateRefused, CertificateSelector, load_certificates

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Iterator, Sequence

    import msgspec

    from edgeproxy.runtime.clock import Clock
    from edgeproxy.runtime.folders import RunFolder
    from edgeproxy.runtime.shared import SharedBlock
    from edgeproxy.runtime.state import NodeState

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

# A message is the whole configuration, which may have many sites.
_MAX_MESSAGE = 64 * 1024 * 1024
# How often something is looked at that nobody tells.
_LOOK_SECONDS = 0.01
_EMPTY_SECONDS = 1.0
# A queue that stayed empty for so long gets no connection whose handshake was under way either.
_QUIET_SECONDS = 0.05
_TLS_END_SECONDS = 5.0
# Damage is told of again, should nothing have come of it.
_TELL_SECONDS = 1.0
RETIRE_SECONDS = 1.5
"""How long requests may go on that are in flight where the store can't be relied on any more: who
comes next waits for them."""


@dataclass(frozen=True, slots=True)
class Seat:
    """What the supervisor gives a worker, through the fork."""

    number: int
    successor: bool
    """Whether the run has been ready before: nothing but what it can't do without ends it."""
    config: Config
    clock: Clock
    state: NodeState
    run_folder: RunFolder
    block: SharedBlock
    channel: socket.socket
    public: tuple[tuple[socket.socket, ...], ...]
    """This worker's sockets: of each configured listener, one for each of its addresses."""
    admin: tuple[socket.socket, ...]


_YOUNG: Final = 10_000
"""Objects after which the garbage collector looks at the youngest: that takes it half a
millisecond."""


def run(seat: Seat, supervisor: int) -> None:
    """Be the worker at `seat` until told to drain. For a process just forked by `supervisor`."""
    _die_with(supervisor)
    logs.configure(seat.config.log.level, f"worker {seat.number}")
    # A request makes hundreds of objects, and nearly all of them go without the collector's help.
    gc.set_threshold(_YOUNG, 20, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(seat))


async def _work(seat: Seat) -> None:
    # Made here, for some of it belongs to the running loop.
    await Worker(seat).run()


def _die_with(parent: int) -> None:
    """Be killed when the supervisor is: without it nobody would replace, reload or end us."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)


class Worker:
    """One worker's run."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._config = seat.config
        self._slot = seat.block.slots[seat.number]
        self._damage_told = -_TELL_SECONDS
        self._access_log = AccessLog(access_log_settings(seat.config), patient=seat.successor)
        place = Place(
            worker=seat.number,
            directory=seat.state.directory,
            runtime_dir=seat.run_folder.path,
            journal_id=seat.state.journal_id,
            head=seat.block.head,
            filters=[slot.filter for slot in seat.block.slots],
            remembered=seat.block.remembered,
            tallies=[slot.tally for slot in seat.block.slots],
            verdicts=seat.block.verdicts,
            files=file_limit(),
            on_damage=self._tell_damage,
        )
        self._edge = Edge(seat.config, place, seat.clock.now, self._access_log)
        self._admin = build_admin(
            self._edge,
            seat.config,
            seat.config.admin.tokens,
            self.missing_for_ready,
            self.workers,
            [seat.state.unkept] if seat.state.unkept else [],
        )
        self._certificates = [
            CertificateSelector(loaded) if loaded else None
            for loaded in load_certificates(seat.config)
        ]

    async def run(self) -> None:
        """Answer until the supervisor says to drain, or is gone."""
        reader, writer = await asyncio.open_connection(sock=self._seat.channel, limit=_MAX_MESSAGE)
        # What this makes where something is gone, the others have not.
        if self._is_astray():
            return
        try:
            await self._edge.start()
        except (JournalError, OSError, StoreError) as error:
            self._tell(_at_start(error))
            log.critical("can't start: %s", error)
            raise SystemExit(1) from None
        if self._is_astray():
            await self._edge.close()
            return
        limits = self._config.limits
        admin = AdminServer(self._admin, self._seat.admin, limits.keepalive_timeout)
        await admin.start()
        sockets = [(sock, _tls_options(tls, self._config)) for sock, tls in self._public()]
        self._listening = Listening(self._edge.server, self._edge.arrivals, sockets)
        self._listening.start()
        self._slot.set_ready(os.getpid())
        heart = asyncio.create_task(self._beat())
        tidying = asyncio.create_task(_give_memory_back())
        writer.write(control.encode(control.Ready()))
        last: control.ToWorker | None = None
        try:
            last = await self._obey(reader, writer)
            match last:
                case control.Drain():
                    await self._drain()
                    # The admin API goes on until here: whoever watches sees a node not ready.
                    await _hold_off(self._seat.admin)
                case control.Retire():
                    await self._retire()
        finally:
            # Where the supervisor is gone, nothing else has.
            self._listening.close()
            heart.cancel()
            tidying.cancel()
            await admin.close()
            if not isinstance(last, control.Retire):
                await self._edge.close()
            self._access_log.close()

    async def missing_for_ready(self) -> list[str]:
        """Why this node is not ready; nothing when every worker accepts and the store is usable."""
        missing = [
            f"worker {number} does not accept connections"
            for number, slot in enumerate(self._seat.block.slots)
            if not slot.accepts()
        ]
        try:
            await self._edge.tier.probe()
        except StoreError as error:
            missing.append(f"the store is not usable: {error}")
        return missing

    def workers(self) -> list[WorkerState]:
        """How each worker of the node is."""
        return [
            WorkerState(number, slot.pid, slot.accepts(), slot.in_flight, slot.connections)
            for number, slot in enumerate(self._seat.block.slots)
        ]

    def _public(self) -> Iterator[tuple[socket.socket, CertificateSelector | None]]:
        for sockets, certificates in zip(self._seat.public, self._certificates, strict=True):
            for sock in sockets:
                yield sock, certificates

    async def _beat(self) -> None:
        while True:
            self._slot.beat(self._edge.in_flight, self._edge.server.open_connections)
            self._is_astray()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _is_astray(self) -> bool:
        """Whether other workers may come to have other files than this one; the supervisor is told.

        Purges that only some of them know of would be lost.
        """
        state, run_folder = self._seat.state, self._seat.run_folder
        for whereabouts in (state.stored, state.locked, run_folder.whereabouts):
            if reason := whereabouts.lost():
                self._tell(control.Astray(reason, stored=whereabouts is state.stored))
                return True
        return False

    def _tell_damage(self, reason: str) -> None:
        self._tell(control.Damaged(reason))

    def _tell(self, message: control.Damaged | control.Astray) -> None:
        """Tell the supervisor of damage. For any thread, and for who ends right after it: hence not
        by way of the event loop; one that is told of little can take a line at any time."""
        now = time.monotonic()
        if now - self._damage_told >= _TELL_SECONDS:
            self._damage_told = now
            with suppress(OSError):
                self._seat.channel.send(control.encode(message))

    async def _obey(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> control.Drain | control.Retire | None:
        """Do what the supervisor says, until it says to end; None when it is gone."""
        while line := await reader.readline():
            match control.to_worker.decode(line):
                case (control.Drain() | control.Retire()) as last:
                    return last
                case control.Reopen():
                    self._access_log.reopen()
                case control.Reload(generation, raw):
                    refused = self._reload(raw)
                    writer.write(control.encode(control.Reloaded(generation, refused)))
        return None

    def _reload(self, raw: msgspec.Raw) -> str | None:
        """Take a configuration over; what is wrong with it if it can't be, and nothing changes."""
        try:
            config = Config.model_validate_json(bytes(raw))
            certificates = load_certificates(config)
        except (ValueError, CertificateRefused) as error:
            return str(error)
        for selector, loaded in zip(self._certificates, certificates, strict=True):
            if selector is not None:
                selector.replace(loaded)
        self._config = config
        self._edge.reload(config)
        reload_admin(self._admin, config, config.admin.tokens)
        logs.configure(config.log.level, f"worker {self._seat.number}")
        self._access_log.reopen(access_log_settings(config))
        return None

    async def _drain(self) -> None:
        """Accept what already waits and nothing more, and let what is in flight come to its end."""
        try:
            async with asyncio.timeout(self._config.limits.drain_timeout):
                await _hold_off([sock for sock, _ in self._public()])
                accepted = asyncio.gather(*self._accept_last(), return_exceptions=True)
                self._slot.set_draining()
                self._edge.begin_drain()
                await accepted
                await self._edge.server.drained()
        except TimeoutError:
            left = self._edge.server.open_connections
            log.warning("%d connections did not end in time and are cut off", left)

    async def _retire(self) -> None:
        """Let what is in flight come to its end, for a moment. What waits at the sockets is left to
        the worker that comes after."""
        self._listening.close()
        self._slot.set_draining()
        self._edge.begin_drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(RETIRE_SECONDS):
                await self._edge.server.drained()

    def _accept_last(self) -> list[Awaitable[object]]:
        """Stop listening. Whatever waits at that moment is still taken in: awaitables for that."""
        loop = asyncio.get_running_loop()
        taken: list[Awaitable[object]] = []
        self._listening.close()
        for sock, tls in self._public():
            options = _tls_options(tls, self._config)
            with suppress(OSError):
                while True:
                    connection, _ = sock.accept()
                    connection.setblocking(False)
                    taken.append(
                        loop.connect_accepted_socket(self._edge.server, connection, **options)
                    )
            sock.close()
        return taken


def _at_start(error: Exception) -> control.Damaged | control.Astray:
    """What it means that the state directory, which was good for others, can't be opened."""
    # A StoreError without a cause says that the index is another journal's.
    cause = error.__cause__
    if isinstance(error, StoreError) and (cause is None or isinstance(cause, DAMAGE)):
        return control.Damaged(str(error))
    return control.Astray(str(error), stored=False)


def _tls_options(certificates: CertificateSelector | None, config: Config) -> dict[str, Any]:
    """What an event loop is told of a listener's TLS."""
    if certificates is None:
        return {}
    return {
        "ssl": certificates.context,
        "ssl_handshake_timeout": config.limits.header_timeout,
        "ssl_shutdown_timeout": _TLS_END_SECONDS,
    }


async def _give_memory_back() -> None:
    memory = trimming.trimmer()
    while memory is not None:
        await asyncio.sleep(trimming.LOOK_SECONDS)
        memory.look()


async def _hold_off(sockets: Sequence[socket.socket]) -> None:
    """Let nothing new come to these sockets, and wait until nothing waits at them.

    Where new connections can't be held off, there is nothing to wait for: they go on to come.
    """
    if not all(refuse_new(sock) for sock in sockets):
        return
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _EMPTY_SECONDS
    empty_since = loop.time()
    while loop.time() < min(give_up, empty_since + _QUIET_SECONDS):
        await asyncio.sleep(_LOOK_SECONDS)
        if any(map(has_waiting, sockets)):
            empty_since = loop.time()
