"""What an endpoint is, and one call of it: checked, and from a token that may make it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from edgeproxy.admin.api.requests import Query
from edgeproxy.invalidation.service import Caller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp import web

    from edgeproxy.admin.api.answers import Answer
    from edgeproxy.admin.api.requests import Body
    from edgeproxy.admin.incoming import Incoming
    from edgeproxy.admin.state import AdminState
    from edgeproxy.config.server import Action, AdminToken
    from edgeproxy.proxy.edge import Edge

Method: TypeAlias = Literal["GET", "POST", "DELETE"]


@dataclass(frozen=True, slots=True)
class Header:
    """A request header field that an endpoint takes."""

    name: str
    description: str
    schema: Mapping[str, Any]


DRY_RUN = Header(
    "Edge-Dry-Run", '"1" is as `"dry_run": true`', {"type": "string", "enum": ["0", "1"]}
)
IDEMPOTENCY_KEY = Header(
    "Idempotency-Key",
    "a call with the key of an earlier one is not made again, and gets its answer, for a day",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
)
LAST_EVENT_ID = Header(
    "Last-Event-ID",
    "the position of the last record that was seen; if absent, the newest",
    {"type": "string", "pattern": "^[0-9]{1,18}$"},
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A method and a path, what is taken there and answered: routing and document come from it."""

    method: Method
    path: str
    """Below `/v1`; `{name}` is one segment."""
    name: str
    """The operation's, once in the table."""
    summary: str
    actions: tuple[Action, ...]
    """The token must be good for one of these; what for which sites, the handler checks. None: it
    is open to all."""
    handler: Callable[[ApiCall], Awaitable[Answer | web.StreamResponse]]
    answer: type[Answer] | str
    """A model; or the media type of what is no answer in JSON by a model."""
    status: int = 200
    query: type[Query] = Query
    body: type[Body] | None = None
    headers: tuple[Header, ...] = ()
    not_found: bool = False
    """It may be that there is no such thing."""

    @property
    def once(self) -> bool:
        """Whether it heeds idempotency keys."""
        return IDEMPOTENCY_KEY in self.headers


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One call."""

    state: AdminState
    token: AdminToken | None
    """None where the endpoint is open to all."""
    request: web.Request = field(repr=False)
    incoming: Incoming
    query: Any
    """The endpoint's query model."""
    body: Any
    """The endpoint's body model; None: it takes none."""
    parts: Mapping[str, str]
    """What the path's `{names}` stand for."""

    @property
    def edge(self) -> Edge:
        return self.state.edge

    @property
    def by(self) -> AdminToken:
        """The token, where one is needed."""
        assert self.token is not None
        return self.token

    @property
    def caller(self) -> Caller:
        """Who calls, for the record."""
        return Caller(self.by.name, self.incoming.client)
