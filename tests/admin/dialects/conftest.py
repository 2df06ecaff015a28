"""An admin port with a token for each way in which one can be good or not, and pages to purge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestClient, TestServer

from tests.admin.conftest import AdminPort, admin_port, token
from tests.kit import Answer, ScriptedOrigin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from aiohttp import web
    from pytest_aiohttp.plugin import AiohttpClient

SETTINGS: dict[str, dict[str, Any]] = {
    "master": {},
    "shop": {"sites": ["shop"]},
    "two": {"sites": ["shop", "blog"]},
    "preview": {"sites": ["shop"], "environments": ["preview"]},
    "reader": {"actions": ["read"], "sites": ["shop"]},
    "narrow": {"actions": ["purge"], "sites": ["shop"]},
    "disabled": {"enabled": False, "sites": ["shop"]},
    "expired": {"expires": "2020-01-01T00:00:00Z", "sites": ["shop"]},
    "elsewhere": {"networks": ["192.0.2.0/24"], "sites": ["shop"]},
    "spent": {"max_calls": 1, "sites": ["shop"]},
    "hurried": {"rate": "1/60s", "sites": ["shop"]},
}
"""The tokens by name: each one's secret is `secret(name)`."""

HOUR = "max-age=3600, stale-while-revalidate=3600"


def secret(name: str) -> str:
    """The secret of a token of SETTINGS; of any other name it is nobody's."""
    return f"{name}-8d1f0c"


def access(name: str) -> str:
    """Its second secret."""
    return f"{name}-access-5b2e"


@dataclass
class Pages:
    """Pages of the shop, its preview and the blog, stored and fresh."""

    port: AdminPort
    stored: list[tuple[str, str]]

    async def left(self) -> list[str]:
        """What is still served fresh from the cache: "HOST/PATH" each."""
        found = []
        for host, target in self.stored:
            status = (await self.port.served.get(target, host=host)).cache_status
            if status.get("hit") and not status.get("detail"):
                found.append(host + target)
        return found

    async def how(self, target: str, host: str = "shop.test") -> str:
        """How the next request is answered: "fresh", "stale" or "missed"."""
        status = (await self.port.served.get(target, host=host)).cache_status
        if not status.get("hit"):
            return "missed"
        return "stale" if status.get("detail") else "fresh"


@pytest.fixture
async def speaking(
    tmp_path: Path, origin: ScriptedOrigin, aiohttp_client: AiohttpClient
) -> AsyncIterator[AdminPort]:
    """The admin port of an edge with two sites, shop and blog, and the tokens of SETTINGS."""
    async with admin_port(tmp_path, origin, aiohttp_client, settings()) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def refusing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AdminPort]:
    """The same for all tests of a module that purge nothing, which are to be marked `refusals`."""

    async def client(app: web.Application) -> TestClient[Any, Any]:
        made = TestClient(TestServer(app))
        await made.start_server()
        return made

    folder = tmp_path_factory.mktemp("refusing")
    async with (
        ScriptedOrigin() as origin,
        admin_port(folder, origin, client, settings()) as made,
    ):
        yield made
        assert made.served.edge.view.catch_up() == 0, "something was purged"


refusals = pytest.mark.asyncio(loop_scope="module")


def settings() -> dict[str, Any]:
    """What is laid on the configuration of `admin_port`."""
    tokens = [
        token(name, secret(name), **{"access_hash": token(name, access(name))["hash"], **settings})
        for name, settings in SETTINGS.items()
    ]
    return {"admin": {"tokens": tokens}}


PAGES = [
    ("shop.test", "/a"),
    ("shop.test", "/b"),
    ("shop.test", "/c"),
    ("preview.shop.test", "/a"),
    ("blog.test", "/a"),
]


async def store(
    port: AdminPort, tags: dict[str, str], pages: Iterable[tuple[str, str]] = PAGES
) -> Pages:
    """Have pages stored; `tags` are each path's fields, "FIELD: VALUE"."""
    for target in {target for _, target in pages}:
        name, _, value = tags.get(target, "X-Nothing: x").partition(": ")
        fields = {"Cache-Control": HOUR, name: value}
        port.origin.route(target, Answer(200, fields, target.encode()))
    for host, target in pages:
        assert (await port.served.get(target, host=host)).status == 200
    return Pages(port, list(pages))
