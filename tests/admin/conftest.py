"""An edge with its admin application, both real, and a client for it."""

from __future__ import annotations

import hashlib
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from yarl import URL

from edgeproxy.admin.app import build_admin
from edgeproxy.admin.state import WorkerState
from tests.kit.toml import merged
from tests.proxy.parts import ServedEdge, edge_config, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    from aiohttp import ClientResponse, web
    from aiohttp.test_utils import TestClient
    from pytest_aiohttp.plugin import AiohttpClient

    from edgeproxy.config.model import Config
    from tests.kit import ScriptedOrigin

MASTER, EDITOR, READER = "master-secret", "editor-secret", "reader-secret"


def token(name: str, secret: str, **settings: Any) -> dict[str, Any]:
    """A token as the configuration has it."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return {"name": name, "hash": f"sha256:{digest}", **settings}


WORKERS = [WorkerState(0, 11, ready=True, in_flight=1, connections=2)]
"""How the workers of the node are said to be."""

TWO_SITES: dict[str, Any] = {
    "admin": {
        "tokens": [
            token("master", MASTER),
            token("editor", EDITOR, sites=["shop"]),
            token("reader", READER, actions=["read"]),
        ]
    },
    "sites": {
        "blog": {
            "hosts": ["blog.test", "*.blog.test"],
            "origins": [{"url": "http://127.0.0.1:9"}],
            "key": {"ignore_tracking": True},
        }
    },
}
"""What is laid on the configuration of the shop: a blog, a token for all, one for the shop alone,
and one that may only look."""


@dataclass
class Called:
    """An answer of the admin API."""

    status: int
    headers: Mapping[str, str]
    body: Any
    """What its JSON says."""


@dataclass
class AdminPort:
    """The admin application of an edge, and a client to it."""

    served: ServedEdge
    config: Config
    app: web.Application
    client: TestClient[Any, Any]
    missing: list[str]
    """What `ready` answers."""
    origin: ScriptedOrigin

    async def call(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        secret: str | None = MASTER,
        headers: Mapping[str, str] | None = None,
    ) -> Called:
        """A request; a body that is not bytes is sent as JSON, bytes without a Content-Type."""
        named = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            named.setdefault("Content-Type", "application/json")
        if secret is not None:
            named["Authorization"] = f"Bearer {secret}"
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        return await answered(
            await self.client.request(
                method,
                URL(target, encoded=True),
                data=data,
                headers=named,
                skip_auto_headers=["Content-Type"],
            )
        )

    async def purge(self, secret: str | None = MASTER, **body: Any) -> Called:
        return await self.call("POST", "/v1/purge", body, secret=secret)


async def answered(response: ClientResponse) -> Called:
    """What has come, read to its end."""
    text = await response.text()
    return Called(response.status, response.headers, json.loads(text) if text else None)


@asynccontextmanager
async def admin_port(
    folder: Path,
    origin: ScriptedOrigin,
    aiohttp_client: Callable[[web.Application], Awaitable[TestClient[Any, Any]]],
    config: Mapping[str, Any],
) -> AsyncIterator[AdminPort]:
    """The admin port of an edge in front of `origin`, with `config` laid on TWO_SITES."""
    blog = {"sites": {"blog": {"origins": [{"url": origin.url}]}}}
    changes = merged(merged(TWO_SITES, blog), config)
    whole = edge_config(folder, origin, config=changes)
    missing: list[str] = []

    async def ready() -> list[str]:
        return missing

    async with running(folder, origin, config=changes) as served:
        app = build_admin(served.edge, whole, whole.admin.tokens, ready, lambda: WORKERS)
        client = await aiohttp_client(app)
        yield AdminPort(served, whole, app, client, missing, origin)
        await client.close()


@pytest.fixture
async def port(
    tmp_path: Path, origin: ScriptedOrigin, aiohttp_client: AiohttpClient
) -> AsyncIterator[AdminPort]:
    """The admin port of an edge in front of `origin`, with TWO_SITES."""
    async with admin_port(tmp_path, origin, aiohttp_client, {}) as made:
        yield made
