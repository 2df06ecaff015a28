"""The servers that are measured, a row each, and the origin behind them."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.scenarios import PAGES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
"""Where servers are, which need not be on a user's path."""


ADMIN_TOKEN = "bench"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is to run."""

    folder: Path
    port: int
    origin: int
    """The origin's port."""
    spare_port: int


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started; it stays in the foreground until SIGTERM."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Server:
    """A kind of server: what it needs, and how it is started with one worker, caching on disk."""

    name: str
    programs: tuple[str, ...]
    launch: Callable[[Place], Launch]


def program(name: str) -> str | None:
    """Where a program is, None if it is not installed."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *SBIN)))


def _nginx(place: Place, http: str) -> Launch:
    name = pwd.getpwuid(os.getuid()).pw_name
    user = f"user {name};\n" if os.getuid() == 0 else ""  # else its worker could not write here
    temporary = "".join(
        f"  {kind}_temp_path {place.folder / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = place.folder / "nginx.conf"
    config.write_text(
        f"{user}daemon off;\nworker_processes 1;\nerror_log stderr error;\n"
        f"pid {place.folder / 'nginx.pid'};\nevents {{ worker_connections 4096; }}\n"
        f"http {{\n{temporary}  access_log off;\n  keepalive_requests 1000000000;\n{http}}}\n"
    )
    return Launch([program("nginx") or "nginx", "-e", "stderr", "-c", str(config)])


def _origin(place: Place) -> Launch:
    pages = place.folder / "pages"
    pages.mkdir()
    for number in range(PAGES):
        line = f"<p>page {number} of a shop, with a tag or two</p>\n".encode()
        size = 300 + number * 9_700 // (PAGES - 1)
        (pages / str(number)).write_bytes((line * (size // len(line) + 1))[:size])
    return _nginx(
        place,
        "  open_file_cache max=2000;\n  default_type text/html;\n"
        f"  server {{\n    listen 127.0.0.1:{place.port};\n"
        f"    location /page/ {{ alias {pages}/; add_header Cache-Tag shop,page;\n"
        '      add_header Cache-Control "public, max-age=3600"; }\n'
        f"    location /private/ {{ alias {pages}/;\n"
        '      add_header Cache-Control "private, no-store"; }\n'
        "    location = /status { stub_status; }\n  }\n",
    )


def _nginx_cache(place: Place) -> Launch:
    return _nginx(
        place,
        f"  proxy_cache_path {place.folder / 'cache'} levels=1:2 keys_zone=cache:64m max_size=2g\n"
        "    inactive=1h use_temp_path=off;\n"
        f"  upstream origin {{ server 127.0.0.1:{place.origin}; keepalive 128;\n"
        "    keepalive_requests 1000000000; }\n"
        f"  server {{\n    listen 127.0.0.1:{place.port} reuseport;\n    location / {{\n"
        "      proxy_pass http://origin;\n      proxy_http_version 1.1;\n"
        '      proxy_set_header Connection "";\n      proxy_set_header Host $host;\n'
        "      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
        "      proxy_cache cache;\n      proxy_cache_lock on;\n"
        "      proxy_cache_use_stale updating error timeout;\n"
        "      proxy_cache_background_update on;\n"
        '      add_header Cache-Status "nginx; $upstream_cache_status" always;\n    }\n  }\n',
    )


def edgeproxy(place: Place) -> Launch:
    """One worker, its store on disk, purged with the token `ADMIN_TOKEN`."""
    config = place.folder / "edgeproxy.toml"
    config.write_text(
        f'workers = 1\ndefault_site = "shop"\nruntime_dir = "{place.folder / "run"}"\n'
        f'[[listen]]\naddress = "127.0.0.1:{place.port}"\n'
        f'[admin]\naddress = "127.0.0.1:{place.spare_port}"\n'
        f'[store]\nurl = "lmdb:{place.folder / "store"}"\nmax_bytes = "16GiB"\n'
        '[log]\naccess = "off"\nlevel = "warning"\n'
        f'[[sites.shop.origins]]\nurl = "http://127.0.0.1:{place.origin}"\n'
    )
    command = [sys.executable, "-m", "edgeproxy", "serve", "--config", str(config)]
    return Launch(command, {"EDGEPROXY_ADMIN_TOKEN": ADMIN_TOKEN})


ORIGIN = Server("origin", ("nginx",), _origin)

SERVERS = (
    Server("nginx", ("nginx",), _nginx_cache),
    Server("edgeproxy", (), edgeproxy),
)
"""The first one is what the others are compared with."""
