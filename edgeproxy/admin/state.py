"""What the admin handlers work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgeproxy.admin.auth import Authenticator
    from edgeproxy.config.model import Config
    from edgeproxy.proxy.edge import Edge


@dataclass(slots=True)
class AdminState:
    """One worker's admin side; `config` and `authenticator` change with a reload."""

    edge: Edge
    config: Config
    authenticator: Authenticator
    ready: Callable[[], Awaitable[list[str]]]


STATE: web.AppKey[AdminState] = web.AppKey("state", AdminState)
