"""What the admin handlers work with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from edgeproxy.admin.auth import Authenticator
    from edgeproxy.config.model import Config
    from edgeproxy.proxy.edge import Edge


@dataclass(frozen=True, slots=True)
class WorkerState:
    """How one worker of the node is, as of its last heartbeat."""

    number: int
    pid: int
    ready: bool
    in_flight: int
    connections: int


@dataclass(slots=True)
class AdminState:
    """One worker's admin side; `config` and `authenticator` change with a reload."""

    edge: Edge
    config: Config
    authenticator: Authenticator
    ready: Callable[[], Awaitable[list[str]]]
    workers: Callable[[], Sequence[WorkerState]]
    started: float
    """When this worker's began, in seconds since the epoch."""
    warnings: Sequence[str] = ()
    """What the node can't do, though it serves."""
    streams: int = 0
    """Live streams that are open."""
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when streams are to end."""


STATE: web.AppKey[AdminState] = web.AppKey("state", AdminState)
