"""`edgeproxy serve`: the edge itself."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeproxy.cli.check import usable_config
from edgeproxy.config.errors import ConfigError, Problem
from edgeproxy.config.load import config_from_flags

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from edgeproxy.config.model import Config

_DESCRIPTION = """\
Run the edge: a supervisor and its workers, in the foreground, until SIGTERM or Ctrl-C.

Either --config names a file with everything in it, or --origin and the other flags describe the
simple case: one site, called "default", that answers for any host.
"""

_EPILOG = """\
Environment:
  EDGEPROXY_ADMIN_TOKEN   who sends it as `Authorization: Bearer TOKEN` may use the admin API,
                          where the file names no tokens; without either, one is made and printed
  XDG_CACHE_HOME          the folder of the default store (else ~/.cache)

Signals:
  SIGTERM, SIGINT   accept nothing more, let requests in flight end, exit 0; the second one at once
  SIGHUP            read the file again, and keep the old configuration if the new one is wrong
  SIGUSR1           open the access log anew, after it was rotated

Exit status: 0 after an orderly end, 1 when the edge could not start, 2 when the flags or the
configuration are wrong.

Examples:
  edgeproxy serve --origin http://127.0.0.1:3000
  edgeproxy serve --origin https://shop.example --listen :80 --store lmdb:/var/cache/edgeproxy
  edgeproxy serve --config /etc/edgeproxy/edgeproxy.toml
"""

_FLAGS = ("origin", "listen", "admin", "workers", "store")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own flags."""
    parser.description = _DESCRIPTION
    parser.epilog = _EPILOG
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="the configuration, TOML; instead of all below"
    )
    flags = parser.add_argument_group("the simple case")
    flags.add_argument("--origin", metavar="URL", help="where responses come from")
    flags.add_argument(
        "--listen", metavar="HOST:PORT", help="take readers here (default: 127.0.0.1:8080)"
    )
    flags.add_argument(
        "--admin", metavar="HOST:PORT", help="take admin requests here (default: 127.0.0.1:8081)"
    )
    flags.add_argument(
        "--workers", metavar="N", help="how many worker processes (default: one for each core)"
    )
    flags.add_argument(
        "--store",
        metavar="URL",
        help="what keeps responses: lmdb:DIR on disk, memory: for this run only, or "
        "redis://HOST:PORT/DB (default: lmdb: in the user's cache folder)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve: the exit status."""
    try:
        config = _config(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    # Not needed where the flags are wrong, nor by other commands, and it takes a while.
    with quick_imports():
        from edgeproxy.cache.errors import StoreError
        from edgeproxy.invalidation.journal import JournalError
        from edgeproxy.runtime.folders import FolderRefused
        from edgeproxy.runtime.run import run as run_edge
        from edgeproxy.runtime.sockets import AddressUnavailable

    reread = partial(usable_config, arguments.config) if arguments.config else None
    try:
        return run_edge(config, reread=reread, announce=_announce)
    except (AddressUnavailable, FolderRefused, JournalError, StoreError) as error:
        print(f"edgeproxy: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Before the first worker; from there on the supervisor takes the signal.
        return 128 + signal.SIGINT


@contextmanager
def quick_imports() -> Iterator[None]:
    """Have imports do no more than they need to.

    aiohttp reads the file of the authorities that the machine trusts, twice, when it is imported:
    a tenth of a start. They are read where an origin is to prove who it is; a context that aiohttp
    made by itself would trust nobody.
    """
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    were = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, os.devnull))
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        for name, value in were.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _config(arguments: argparse.Namespace) -> Config:
    given = {name: getattr(arguments, name) for name in _FLAGS}
    if arguments.config is not None:
        for name, value in given.items():
            if value is not None:
                fault = "stands in the file when there is --config FILE; give one of them"
                raise ConfigError("", [Problem(f"--{name}", fault)])
        return usable_config(arguments.config)
    if arguments.origin is None:
        fault = "is required, for instance --origin http://127.0.0.1:3000; or give --config FILE"
        raise ConfigError("", [Problem("--origin", fault)])
    return config_from_flags(**given)


def _announce(line: str) -> None:
    # Standard output is the access log's.
    print(line, file=sys.stderr, flush=True)
