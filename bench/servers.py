"""The servers that are measured, a row each, and the origins behind them."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench import peers
from bench.scenarios import PAGES, REFRESHED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
"""Where servers are, which need not be on a user's path."""
ADMIN_TOKEN = "bench"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is to run, and how."""

    folder: Path
    port: int
    origin: int
    """The port of what is behind it."""
    spare_port: int
    tls_port: int = 0
    certificate: Path | None = None
    """A file with a certificate and its key, if TLS is to be spoken at `tls_port`."""
    setup: str = "plain"


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started; it stays in the foreground until SIGTERM."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    """A kind of server: what it needs, and how it is started, with one worker."""

    name: str
    programs: tuple[str, ...]
    launch: Callable[[Place], Launch]
    user: str = ""
    """Whom it runs as, where it refuses to run as root."""
    setups: frozenset[str] = frozenset()
    """The ways to run that it knows besides the plain one."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """What it doesn't have of what a scenario may need, and why."""


def program(name: str) -> str | None:
    """Where a program is, None if it is not installed."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *SBIN)))


def _path(name: str) -> str:
    return program(name) or name


def _origin(place: Place) -> Launch:
    _write_pages(place.folder)
    config = peers.nginx_origin(place.folder, place.port, place.origin)
    return Launch([_path("nginx"), "-e", "stderr", "-c", str(config)])


def _write_pages(folder: Path) -> None:
    def write(name: str, sizes: list[int]) -> None:
        (folder / name).mkdir()
        for number, size in enumerate(sizes):
            line = f"<p>page {number} of a shop, with a tag or two</p>\n".encode()
            page = folder / name / str(number)
            page.write_bytes((line * (size // len(line) + 1))[:size])
            os.utime(page, (1_700_000_000 + number, 1_700_000_000 + number))

    write("page", [300 + number * 9_700 // (PAGES - 1) for number in range(PAGES)])
    write("small", [4096] * PAGES)
    write("1mb", [1_000_000] * 8)
    write("100mb", [100_000_000])
    (folder / "second").mkdir()
    for number in range(REFRESHED):
        (folder / "second" / str(number)).symlink_to(folder / "small" / str(number % PAGES))


def _slow(place: Place, delay: float = 0.2) -> Launch:
    slow = Path(__file__).with_name("slow.py")
    return Launch([sys.executable, str(slow), str(place.port), str(delay)])


def _quick(place: Place) -> Launch:
    return _slow(place, 0.0)


def _nginx(place: Place) -> Launch:
    config = peers.nginx(
        place.folder,
        place.port,
        place.origin,
        workers=2 if place.setup == "two-workers" else 1,
        tls=(place.tls_port, place.certificate) if place.certificate else None,
    )
    return Launch([_path("nginx"), "-e", "stderr", "-c", str(config)])


def _varnish(place: Place) -> Launch:
    vcl = peers.varnish(place.folder, place.origin)
    work = place.folder / "work"
    # Its own user could not look into the folder; one pool of threads for one core, and none of
    # them to be made later; no log of requests, as with the others.
    command = [_path("varnishd"), "-F", "-j", "none", "-n", str(work), "-f", str(vcl)]
    command += ["-a", f"127.0.0.1:{place.port}", "-s", "malloc,2g", "-p", "thread_pools=1"]
    command += ["-p", "thread_pool_min=200", "-p", "thread_pool_max=1000"]
    return Launch([*command, "-p", f"vsl_mask={peers.VARNISH_LOGS_NOT}"])


def _squid(place: Place) -> Launch:
    config = peers.squid(
        place.folder,
        place.port,
        place.origin,
        tls=(place.tls_port, place.certificate) if place.certificate else None,
    )
    return Launch([_path("squid"), "-N", "-f", str(config)])


def _trafficserver(place: Place) -> Launch:
    peers.trafficserver(
        place.folder,
        place.port,
        place.origin,
        tls=(place.tls_port, place.certificate) if place.certificate else None,
    )
    folder = str(place.folder)
    return Launch(
        [_path("traffic_server")],
        {
            "PROXY_CONFIG_CONFIG_DIR": folder,
            "PROXY_CONFIG_LOCAL_STATE_DIR": folder,
            "PROXY_CONFIG_LOG_LOGFILE_DIR": folder,
        },
    )


def edgeproxy(place: Place) -> Launch:
    """Its plain configuration, its store in the folder, purged with the token `ADMIN_TOKEN`."""
    config = place.folder / "edgeproxy.toml"
    tls = ""
    if place.certificate:
        tls = (
            f'[[listen]]\naddress = "127.0.0.1:{place.tls_port}"\n[[listen.tls.certificates]]\n'
            f'cert = "{place.certificate}"\nkey = "{place.certificate}"\n'
        )
    config.write_text(
        f"workers = {2 if place.setup == 'two-workers' else 1}\n"
        f'default_site = "shop"\nruntime_dir = "{place.folder / "run"}"\n'
        f'[[listen]]\naddress = "127.0.0.1:{place.port}"\n{tls}'
        f'[admin]\naddress = "127.0.0.1:{place.spare_port}"\n'
        f'[store]\nurl = "lmdb:{place.folder / "store"}"\nmax_bytes = "16GiB"\n'
        + ("[memory]\nmax_bytes = 1\n" if place.setup == "store-only" else "")
        + '[log]\naccess = "off"\nlevel = "warning"\n'
        f'[[sites.shop.origins]]\nurl = "http://127.0.0.1:{place.origin}"\n'
    )
    command = [sys.executable, "-m", "edgeproxy", "serve", "--config", str(config)]
    return Launch(command, {"EDGEPROXY_ADMIN_TOKEN": ADMIN_TOKEN})


ORIGIN = Server("origin", ("nginx",), _origin)
SLOW_ORIGIN = Server("slow-origin", (), _slow)
QUICK_ORIGIN = Server("quick-origin", (), _quick)

SERVERS = (
    Server("nginx", ("nginx",), _nginx, setups=frozenset({"one-worker", "two-workers"})),
    Server(
        "varnish",
        ("varnishd",),
        _varnish,
        lacks={
            "tls": "it has no TLS of its own; hitch or the like in front of it would cost more",
            "workers": "it has threads, not workers",
        },
    ),
    Server(
        "squid",
        ("squid",),
        _squid,
        user="proxy",
        lacks={
            "refresh": "it doesn't know stale-while-revalidate",
            "vary": "its memory cache keeps one variant of a URL, the last",
            "workers": "its workers share no memory cache unless they are told to",
        },
    ),
    Server(
        "trafficserver",
        ("traffic_server",),
        _trafficserver,
        user="trafficserver",
        lacks={
            "refresh": "it doesn't know stale-while-revalidate without a plugin",
            "workers": "it has threads, not workers",
        },
    ),
    Server(
        "edgeproxy", (), edgeproxy, setups=frozenset({"store-only", "one-worker", "two-workers"})
    ),
)
"""The first two are what the others are compared with."""
