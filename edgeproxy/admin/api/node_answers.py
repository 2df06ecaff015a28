"""What the own API answers about the node: its jobs, its sites, and how it is."""

from __future__ import annotations

from typing import Literal

from edgeproxy.admin.api.answers import Answer, Page
from edgeproxy.config.server import Action
from edgeproxy.semantics.environment import Environment


class JobItem(Answer):
    """The fetching anew of what a purge picked."""

    id: str
    purge_id: str
    actor: str
    sites: list[str]
    state: Literal["running", "done", "cancelled", "interrupted"]
    """"interrupted": its worker ended before it did."""
    total: int
    done: int
    failed: int
    started: float
    ended: float | None


class JobsAnswer(Page):
    """Jobs, the newest first."""

    jobs: list[JobItem]


class EnvironmentItem(Answer):
    """One environment of a site."""

    environment: Environment
    hosts: list[str]
    entries: int
    """How many responses are stored."""


class OriginItem(Answer):
    """One of a site's origins, as the worker that answers sees it since it began."""

    url: str
    circuit: Literal["closed", "open", "half-open"]
    """"open": it is passed over for its failures; "half-open": one request may try it."""
    well: bool | None
    """What the checks say; null where there are none, or none yet."""
    share: float
    """Of a full share of the requests: less than 1 for a while after it has come back."""
    load: int
    """Requests that are under way, or wait for a connection."""
    requests: int
    failures: dict[Literal["unreachable", "broken", "late", "status"], int]
    """No connection; one that ended, or was not HTTP; silence; an answer with a status that counts
    as a failure."""
    opened: int
    """How often its circuit opened."""


class OriginsItem(Answer):
    """A site's origins, as the worker that answers sees them since it began."""

    repeated: int
    """Requests that went to another origin after one had failed."""
    not_repeated: int
    """Those that might have, but for `retries`."""
    refused: int
    """Those for which no origin was asked, because all circuits were open."""
    each: list[OriginItem]


class SiteItem(Answer):
    """A site that the token may read."""

    name: str
    default: bool
    """It serves the hosts that no site names."""
    actions: list[Action]
    """What the token may do to it."""
    environments: list[EnvironmentItem]
    origins: OriginsItem


class SitesAnswer(Page):
    """Sites, by name."""

    sites: list[SiteItem]


class WorkerItem(Answer):
    """One worker, as of its last heartbeat."""

    number: int
    pid: int
    ready: bool
    in_flight: int
    connections: int


class StoreItem(Answer):
    """The store."""

    kind: str
    entries: int
    bytes: int
    max_bytes: int


class StatusAnswer(Answer):
    """How the node is."""

    version: str
    time: float
    uptime: float
    """Seconds since the worker that answers began."""
    workers: list[WorkerItem]
    position: int
    """The journal's newest."""
    settled: int
    """The position up to which the store has been swept."""
    rules: int
    """Rules that wait to be swept for, as the worker that answers knows them."""
    not_stored: dict[str, int]
    """How often a response was not stored since the node was started, by the `detail` that
    Cache-Status gave."""
    refused: dict[str, int]
    """How often a client was refused something since the node was started."""
    dropped_variants: int
    dropped_busters: int
    """Variants and `cb:` copies that gave way to newer ones of their URL, in the store's life."""
    dropped_uncacheable: int
    """URLs that were forgotten to be uncacheable before their time, since the node was started."""
    store: StoreItem
    """Of the node; with the `memory:` store, of the worker that answers."""
    streams: int
    """Live streams of the journal that the worker that answers has open."""
    warnings: list[str]
    """What the node can't do, though it serves."""
