"""One edge and one origin for all of the tables: each row has a URL of its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import count

import pytest
import pytest_asyncio

from tests.hostile.heedless import HeedlessOrigin
from tests.kit import Answer, EdgeProcess, OriginRequest, ScriptedOrigin

FRESH = {"Cache-Control": "max-age=600"}
SITE = {
    "key": {"ignore_tracking": True},
    "timeouts": {"first_byte": "3s", "between_bytes": "3s"},
}
LIMITS = {
    "header_timeout": "2s",
    "body_idle_timeout": "3s",
    "keepalive_timeout": "4s",
    "body_bytes": "1MiB",
}
NUMBERS = count()

# What differs between any two requests, or is no part of what a page is made of.
NEVER_THE_SAME = (
    *("via", "forwarded", "x-forwarded-for", "surrogate-capability", "range", "if-range"),
    *("if-none-match", "if-modified-since", "user-agent", "cache-control", "x"),
)
PLAIN = {"host": "shop.example", "x-forwarded-host": "shop.example", "x-forwarded-proto": "http"}
"""What `mirror` shows of the fields of a plain request."""


def mirror(request: OriginRequest) -> Answer:
    """A page that shows whatever an origin may go by, besides the target, for ten minutes."""
    shown = {
        name: value.decode("latin-1")
        for name, value in sorted(
            (key.decode().lower(), value) for key, value in request.head.pairs
        )
        if name not in NEVER_THE_SAME
    }
    body = json.dumps([request.method, request.target, shown, request.body.decode("latin-1")])
    return Answer(200, FRESH, body.encode())


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def origin() -> AsyncIterator[ScriptedOrigin]:
    async with ScriptedOrigin() as server:
        yield server


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def heedless() -> AsyncIterator[HeedlessOrigin]:
    origin = HeedlessOrigin()
    async with await asyncio.start_server(origin, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        origin.url = f"http://{host}:{port}"
        yield origin


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def edge(
    origin: ScriptedOrigin,
    heedless: HeedlessOrigin,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[EdgeProcess]:
    folder = tmp_path_factory.mktemp("hostile")
    sites = {
        "heedless": {"hosts": ["heedless.example"], "origins": [{"url": heedless.url}]},
        "small": {
            "hosts": ["small.example"],
            "origins": [{"url": origin.url}],
            "pool": {"max_connections": 4},
            "tags": {"max_tags": 4},
            "cache": {"max_waiters": 3},
            "key": {"max_bytes": "64B"},
            "ttl": {"default": "10m"},
        },
    }
    config = {
        "limits": LIMITS,
        "sites": sites,
        "memory": {"uncacheable_keys": 100},
        "admin": {"max_connections": 40},
    }
    async with EdgeProcess(folder, origin=origin.url, config=config, site=SITE) as process:
        yield process


@pytest.fixture
def target() -> str:
    """One that no other test has."""
    return f"/page/{next(NUMBERS)}"
