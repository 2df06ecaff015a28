"""One run of an edge: what is made before its workers start, and put away after they have ended."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.config.sizes import format_size
from edgeproxy.config.urls import LmdbStore
from edgeproxy.proxy.scanning import COMPILED
from edgeproxy.runtime import logs
from edgeproxy.runtime.clock import Clock
from edgeproxy.runtime.folders import RunFolder
from edgeproxy.runtime.listening import raise_file_limit
from edgeproxy.runtime.process import hold
from edgeproxy.runtime.settings import TOKEN_VARIABLE, FallbackToken
from edgeproxy.runtime.sockets import ListeningSockets, listen
from edgeproxy.runtime.state import NodeState
from edgeproxy.runtime.supervisor import Premises, Supervisor
from edgeproxy.runtime.tls import load_certificates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgeproxy.config.addresses import Address
    from edgeproxy.config.model import Config

log = logging.getLogger(__name__)


def run(
    config: Config, *, reread: Callable[[], Config] | None, announce: Callable[[str], None]
) -> int:
    """Serve until told to end: the exit status.

    `reread` loads the configuration again, raising ConfigError; None: there is no file.
    `announce` shows a line to whoever started it.

    Raises CertificateRefused before any socket is opened; then AddressUnavailable, FolderRefused,
    JournalError or StoreError.
    """
    # The look at a large store takes its time, and neither is a reason to end.
    hold()
    logs.configure(config.log.level, "supervisor")
    for certificate in (one for loaded in load_certificates(config) for one in loaded):
        if certificate.expires < time.time():
            log.warning("the certificate for %s has expired", ", ".join(certificate.names))
    if not COMPILED:
        log.warning("hits take longer than need be: edgeproxy was installed without a compiler")
    raise_file_limit()
    token = FallbackToken(os.environ.get(TOKEN_VARIABLE), announce)
    with ExitStack() as stack:
        workers = config.worker_count()
        public = tuple(_listen(stack, listener.address, workers) for listener in config.listen)
        admin = _listen(stack, config.admin.address, workers)
        runtime_folder = RunFolder(config.runtime_dir, "run-")
        stack.callback(runtime_folder.remove)
        directory = _state_directory(stack, config)
        clock = Clock.start()
        state = NodeState(config, directory, runtime_folder.real_path, clock)
        stack.callback(state.close, clean=False)
        premises = Premises(
            public=public,
            admin=admin,
            state=state,
            run_folder=runtime_folder,
            clock=clock,
        )

        def on_ready() -> None:
            for line in _addresses(config, premises):
                announce(line)
            announce(_where_stored(state))

        supervisor = Supervisor(
            token.complete(state.config),
            premises,
            reread=None if reread is None else lambda: token.complete(reread()),
            on_ready=on_ready,
        )
        status = supervisor.run()
        state.close(clean=supervisor.ended_well)
        return status


def _listen(stack: ExitStack, address: Address, workers: int) -> ListeningSockets:
    listening = listen(address.host, address.port, workers)
    stack.callback(listening.close)
    return listening


def _state_directory(stack: ExitStack, config: Config) -> Path:
    directory = config.store.directory
    if directory is None:
        folder = RunFolder(Path(tempfile.gettempdir()), f"edgeproxy-state-{os.getuid()}-")
        stack.callback(folder.remove)
        return folder.real_path
    return directory


def _addresses(config: Config, premises: Premises) -> Iterator[str]:
    for listener, listening in zip(config.listen, premises.public, strict=True):
        for url in _urls("https" if listener.tls else "http", listening):
            yield f"listening on {url}"
    for url in _urls("http", premises.admin):
        yield f"admin API on {url}"


def _urls(scheme: str, listening: ListeningSockets) -> Iterator[str]:
    for sock in listening.by_worker[0]:
        host, port = sock.getsockname()[:2]
        yield f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _where_stored(state: NodeState) -> str:
    store, directory = state.config.store, state.directory
    kept = f"up to {format_size(store.max_bytes)}"
    if isinstance(store.url, LmdbStore):
        until = " until this run ends" if state.unkept else ""
        return f"storing {kept} in {directory}{until}"
    return f"storing {kept} in {store.url}, the index and the journal in {directory}"
