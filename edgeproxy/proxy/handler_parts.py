"""What the way of a request leads through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.access import AccessSink
    from edgeproxy.proxy.admission import Admission
    from edgeproxy.proxy.fetching import Fetching
    from edgeproxy.proxy.incomplete import Incomplete
    from edgeproxy.proxy.lookup import Lookup
    from edgeproxy.proxy.memo import RefreshBackoff, UncacheableKeys
    from edgeproxy.proxy.passed import Passed
    from edgeproxy.proxy.refreshing import Refreshing
    from edgeproxy.proxy.serving import Serving
    from edgeproxy.proxy.sharing import Sharing
    from edgeproxy.proxy.tally import Tally


@dataclass(frozen=True, slots=True)
class HandlerParts:
    """What the handler works with, whatever the configuration."""

    clock: Callable[[], float]
    admission: Admission
    tally: Tally
    lookup: Lookup
    incomplete: Incomplete
    passed: Passed
    fetching: Fetching
    refreshing: Refreshing
    sharing: Sharing
    serving: Serving
    view: JournalView
    uncacheable: UncacheableKeys
    backoff: RefreshBackoff
    access_log: AccessSink
