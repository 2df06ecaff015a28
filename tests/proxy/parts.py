"""One worker's edge, all of it real, on a socket of its own within the test's event loop."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy.config.model import Config
from edgeproxy.config.sites import SitePolicy, SiteTable
from edgeproxy.invalidation.head import SharedHead
from edgeproxy.invalidation.journal import LocalJournal
from edgeproxy.invalidation.picking import picked
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.invalidation.service import Caller
from edgeproxy.proxy.edge import Edge
from edgeproxy.proxy.place import Place
from edgeproxy.proxy.request import EdgeRequest
from edgeproxy.runtime.listening import Listening
from edgeproxy.runtime.shared import SharedBlock
from edgeproxy.runtime.sockets import BACKLOG
from edgeproxy.semantics.cache_buster import split_cache_buster
from edgeproxy.semantics.cache_control import request_directives
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.key import cache_key
from tests.kit import Answer, Connection, OriginRequest, Response, ScriptedOrigin
from tests.kit.http import encode_fields
from tests.kit.toml import merged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.invalidation.service import PurgeResult
    from edgeproxy.proxy.access import AccessRecord
    from edgeproxy.proxy.explain import Explanation
    from edgeproxy.proxy.fetching import Fetching
    from edgeproxy.proxy.lookup import Lookup
    from edgeproxy.proxy.pool import OriginPool
    from tests.kit.http import FieldsLike

PATIENCE = 10.0
"""Seconds that a test waits for what has to come."""

NO_FIELDS = Fields()

WORKERS = 2
"""Workers of the node; this process is number 0."""


@dataclass
class Time:
    """A clock that stands still until it is told to go on."""

    now: float = 1_700_000_000.0
    """Tue, 14 Nov 2023 22:13:20 GMT."""

    def __call__(self) -> float:
        return self.now


def edge_config(
    folder: Path,
    origin: ScriptedOrigin | str = "http://127.0.0.1:9",
    site: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Config:
    """One site, `shop`, in front of `origin`, with `site` laid on it; and `config` on the whole."""
    url = origin if isinstance(origin, str) else origin.url
    least: dict[str, Any] = {
        "workers": WORKERS,
        "store": {"url": f"lmdb:{folder}"},
        "sites": {
            "shop": {
                "hosts": ["shop.test", "www.shop.test"],
                "preview_hosts": ["preview.shop.test"],
                "origins": [{"url": url}],
            }
        },
    }
    whole = merged(least, {"sites": {"shop": site or {}}})
    return Config.model_validate(merged(whole, config or {}))


async def place_in(folder: Path) -> Place:
    """Where worker 0 of a node finds what it shares; the node's state is in `folder`."""
    runtime_dir = folder / "run"
    runtime_dir.mkdir(exist_ok=True)
    block = SharedBlock(WORKERS)
    journal = LocalJournal(folder / "journal", SharedHead(block.head))
    await journal.close()
    return Place(
        worker=0,
        directory=folder,
        runtime_dir=runtime_dir,
        journal_id=journal.id,
        head=block.head,
        filters=[slot.filter for slot in block.slots],
        tallies=[slot.tally for slot in block.slots],
        files=1024,
        remembered=block.remembered,
        verdicts=block.verdicts,
    )


def site_policy(site: Mapping[str, Any] | None = None) -> SitePolicy:
    """The policy of the shop, with `site` laid on its settings."""
    return SiteTable(edge_config(Path("/nowhere"), site=site)).policies["shop"]


def edge_request(
    target: bytes = b"/",
    fields: Fields = NO_FIELDS,
    *,
    method: bytes = b"GET",
    authority: str = "shop.test",
    scheme: str = "http",
    site: Mapping[str, Any] | None = None,
) -> EdgeRequest:
    """A request to the shop as `Intake` would have read it."""
    policy = site_policy(site)
    _, forwarded = split_cache_buster(target)
    return EdgeRequest(
        method=method,
        target=forwarded,
        version="1.1",
        fields=fields,
        upgrade=b"",
        authority=authority,
        scheme=scheme,
        client="192.0.2.1",
        peer="192.0.2.1",
        trusted=False,
        policy=policy,
        environment="production",
        key=cache_key("shop", scheme, authority, target, policy.key),
        directives=request_directives(fields),
        honour_directives=False,
        has_body=False,
    )


@dataclass
class ServedEdge:
    """An edge that takes connections."""

    edge: Edge
    config: Config
    place: Place
    url: str
    clock: Time
    records: list[AccessRecord] = field(default_factory=list)
    """What the access log was told."""

    # What `Edge` keeps to itself, for tests of one part among the others.

    @property
    def policy(self) -> SitePolicy:
        """The shop's."""
        return self.edge.sites.policies["shop"]

    @property
    def fetching(self) -> Fetching:
        return self.edge._handler._parts.fetching

    @property
    def lookup(self) -> Lookup:
        return self.edge._handler._parts.lookup

    @property
    def pool(self) -> OriginPool:
        """The connections to the shop's origins."""
        return self.edge._pools.of(self.policy)

    @property
    def refreshes(self) -> int:
        """How many run in the background."""
        return len(self.edge._handler._parts.refreshing._tasks)

    # What it looks like from outside.

    async def connect(self) -> Connection:
        """A connection for requests to shop.test."""
        connection = await Connection.open(self.url)
        connection.authority = "shop.test"
        return connection

    async def get(
        self,
        target: str,
        fields: FieldsLike = (),
        *,
        method: str = "GET",
        body: bytes | None = None,
        host: str = "shop.test",
    ) -> Response:
        """The answer to a request on a connection of its own."""
        pairs = [(b"Host", host.encode()), *encode_fields(fields)]
        async with asyncio.timeout(PATIENCE), await Connection.open(self.url) as connection:
            return await connection.exchange(method, target, pairs, body)

    async def purge(self, *selectors: Selector, mode: Mode = Mode.DELETE) -> PurgeResult:
        """Invalidate as the admin side does."""
        return await self.edge.service.purge(selectors, mode, Caller("editor", "192.0.2.1"))

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for what nobody tells."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.001)

    def empty_memory(self) -> None:
        """Leave what is stored to the store alone; a reload does that."""
        self.edge.reload(self.config)

    def explain(self, selector: Selector) -> list[Explanation]:
        """All about what is stored for a selector."""
        return self.edge.explain(self.edge.browser.responses(selector, None, 10).found)

    def stored(self, site: str = "shop") -> list[StoredResponse]:
        """All that is stored for the site."""
        with self.edge.tier.snapshot() as snapshot:
            return list(picked(snapshot, Selector.by_everything(site)))


def by_url(target: str, host: str | None = "shop.test") -> Selector:
    """What picks the responses for a target of the shop."""
    return Selector.by_url("shop", host, target.encode())


def by_tag(tag: str) -> Selector:
    return Selector.by_tag("shop", tag)


@asynccontextmanager
async def running(
    folder: Path,
    origin: ScriptedOrigin | str = "http://127.0.0.1:9",
    *,
    clock: Time | None = None,
    site: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> AsyncIterator[ServedEdge]:
    """Serve on a port of its own; `site` and `config` as for `edge_config`."""
    clock, place = clock or Time(), await place_in(folder)
    settings = edge_config(folder, origin, site, config)
    records: list[AccessRecord] = []
    edge = Edge(settings, place, clock, records.append)
    await edge.start()
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as sock:
        listening = Listening(edge.server, edge.arrivals, [(sock, {})])
        listening.start()
        port = sock.getsockname()[1]
        try:
            yield ServedEdge(edge, settings, place, f"http://127.0.0.1:{port}", clock, records)
        finally:
            listening.close()
            await asyncio.wait_for(edge.close(), PATIENCE)


class Versions:
    """A page that says how often it was asked for; each answer waits for `go`."""

    def __init__(self, fields: dict[str, str], *, held: bool = False) -> None:
        self.fields = fields
        self.count = 0
        self.go = asyncio.Event()
        if not held:
            self.go.set()

    def __call__(self, request: OriginRequest) -> Answer:
        self.count += 1
        return Answer(200, self.fields, b"version %d" % self.count, hold=self.go)
