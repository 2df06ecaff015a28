"""A request on its way to one origin or another, and whether it may go to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.proxy.origins.failures import IDEMPOTENT, may_ask_another
from edgeproxy.proxy.origins.replay import Replay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgeproxy.proxy.errors import OriginFailed
    from edgeproxy.proxy.origin_exchange import OnInterim
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.semantics.fields import Fields


class Asking:
    """What is asked, and how far that has come."""

    __slots__ = (
        "_body",
        "_replay",
        "deadline",
        "fields",
        "length",
        "on_interim",
        "request",
        "upgrade",
    )

    def __init__(
        self,
        request: EdgeRequest,
        fields: Fields,
        body: AsyncIterator[bytes] | None,
        length: int | None,
        upgrade: bool,
    ) -> None:
        """`fields`: as an origin gets them, but for its Host; `length`: the body's, in bytes."""
        self.request = request
        self.fields = fields
        self.length = length
        self.upgrade = upgrade
        self.on_interim: OnInterim | None = None
        self.deadline: float | None = None
        """When the whole must be over, by the loop's clock."""
        self._body = body
        self._replay: Replay | None = None

    def replay_body(self) -> None:
        """Keep what is read of the body, so that another origin can have it, too."""
        if self._body is not None and self.request.method in IDEMPOTENT:
            self._replay = Replay(self._body)

    def body(self) -> AsyncIterator[bytes] | None:
        """The body for one origin."""
        return self._body if self._replay is None else self._replay.pieces()

    @property
    def _repeatable(self) -> bool:
        return self._body is None or (self._replay is not None and self._replay.repeatable)

    @property
    def may_fail(self) -> bool:
        """Whether it could go to another origin, whatever one does."""
        return self.request.method in IDEMPOTENT and self._repeatable

    def may_go_on(self, error: OriginFailed | None) -> bool:
        """Whether it may go to another origin after that error; None: after a bad answer."""
        method = self.request.method
        return may_ask_another(method, error, repeatable=self._repeatable)
