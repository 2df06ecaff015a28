"""Requests that purge at the public port: whoever may not is told that there is no such method.

What they select is said on the admin side, which gives the edge a `Purger`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from edgeproxy.proxy.refused import ALLOW
from edgeproxy.proxy.request import EdgeRequest
from edgeproxy.semantics.cache_status import CacheStatus
from edgeproxy.semantics.fields import Fields

if TYPE_CHECKING:
    from edgeproxy.proxy.exchange import Exchange

PURGING: Final = frozenset({b"PURGE", b"BAN", b"PURGEKEYS"})
"""The methods; no origin is ever asked for them, as it might take this edge for one who may."""


@dataclass(frozen=True, slots=True)
class PurgeAnswer:
    """What is answered to a purge."""

    status: int
    text: str
    """One line; of a success, the reason phrase too, as in Varnish."""
    headers: Mapping[str, str] = field(default_factory=dict)


Purger: TypeAlias = Callable[[EdgeRequest], Awaitable[PurgeAnswer | None]]
"""Does what a request asks for; None where the client may not."""


async def answer_purge(exchange: Exchange, request: EdgeRequest, purger: Purger | None) -> None:
    """Answer a request that has one of the methods."""
    if request.has_body:
        exchange.close_after()  # nobody reads it
    answer = None if purger is None else await purger(request)
    if answer is None:
        exchange.result = "refused"
        exchange.close_after()
        status = CacheStatus(detail="method-not-allowed")
        allow = Fields(((b"Allow", ALLOW),))
        await exchange.refuse(405, "method-not-allowed", status, allow)
        return
    exchange.result = "purge"
    fields = Fields((name.encode(), value.encode()) for name, value in answer.headers.items())
    status = CacheStatus(detail="purge")
    if answer.status == 200:
        reason = answer.text.encode()
        await exchange.tell(200, answer.text, status, fields, reason=reason)
    else:
        await exchange.refuse(answer.status, answer.text, status, fields)
