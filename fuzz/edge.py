"""An edge for targets that need one: all of it real, with a store in a folder of its own."""

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgeproxy.admin.auth import Authenticator
from edgeproxy.admin.state import AdminState
from edgeproxy.config.model import Config
from edgeproxy.config.server import AdminToken
from edgeproxy.proxy.edge import Edge
from fuzz.parts import event_loop
from tests.proxy.parts import Time, edge_config, place_in

CONFIG = {
    "admin": {"tokens": [{"name": "fuzz", "hash": "sha256:" + 64 * "0"}]},
    "sites": {
        "shop": {"varnish": {"networks": ["192.0.2.0/24"]}},
        "blog": {"hosts": ["blog.test", "*.blog.test"], "origins": [{"url": "http://127.0.0.1:9"}]},
    },
}


@dataclass(frozen=True)
class FuzzedEdge:
    """An edge, its configuration, a token that may do all, and the state of its admin port."""

    edge: Edge
    config: Config
    token: AdminToken
    state: AdminState


@cache
def edge() -> FuzzedEdge:
    """The one edge of this process; it serves nothing."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-edge-"))
    config = edge_config(folder, config=CONFIG)

    async def start() -> Edge:
        clock = Time()
        made = Edge(config, await place_in(folder), clock, lambda _: None)
        await made.start()
        return made

    async def ready() -> list[str]:
        return []

    made = event_loop().run_until_complete(start())
    token = config.admin.tokens[0]
    authenticator = Authenticator(config.admin.tokens)
    state = AdminState(made, config, authenticator, ready, list, 0.0)
    return FuzzedEdge(made, config, token, state)


def end() -> None:
    """Close it, if there is one."""
    if edge.cache_info().currsize:
        event_loop().run_until_complete(edge().edge.close())
        edge.cache_clear()
