"""What is asked of the servers, a row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGES = 1000
"""Pages of the origin below each of its paths, /page/0 to /page/999."""
MISSES_AT_ONCE = 111
"""With 200 ms each that is 555 misses a second: a tenth of all requests beside 5,000 hits."""
REFRESHED = 1250
"""Pages that are fresh for a second. Asked for in turn, 500 a second, each is stale by its turn."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load: fields as a browser sends them, pages by Zipf's law, unless it says so."""

    name: str
    title: str
    path: str = "/page/"
    """Where its pages are; their number follows."""
    pages: int = PAGES
    origin_share: float = 0.0
    """How many of its requests the origin must see: what tells that it measured what it says."""
    by_turns: bool = False
    """Whether its pages are asked for in turn, each as often as the others."""
    fresh_urls: bool = False
    """Whether each request asks for a URL of its own."""
    method: str = "GET"
    status: int = 200
    distinct: bool = False
    """Whether each request's fields differ from all others'."""
    conditional: bool = False
    """Whether its requests have the page's validator (If-None-Match)."""
    varies: bool = False
    """Whether its pages vary by Accept-Encoding."""
    close: bool = False
    """Whether each request has a connection of its own."""
    tls: bool = False
    load: Literal["wrk", "pull"] = "wrk"
    """What asks: wrk; or pull.py, which can HEAD and costs next to nothing for long bodies."""
    connections: int = 40
    pause_ms: int = 0
    """How long each connection waits before each request: for loads below what a server can do."""
    beside: Scenario | None = None
    """A load that runs at the same time, and is not measured itself."""
    setup: str = "plain"
    """How those servers run that know this way (`Server.setups`)."""
    pinned: bool = True
    """Whether servers and load have a core each."""
    needs: str = ""
    """What not every server has (`Server.lacks`)."""
    against: str = ""
    """The scenario that it is compared with, on the same server."""
    by: Literal["cpu", "p99"] = "cpu"
    """What of it is compared."""
    quick: bool = True
    """Whether it is cheap enough for a quick run."""


_SLOW = Scenario(
    "slow",
    "misses to an origin that takes 200 ms",
    "/slow/",
    fresh_urls=True,
    origin_share=1.0,
    connections=MISSES_AT_ONCE,
)
_EXPIRING = Scenario(
    "expiring",
    "pages that are fresh for a second, and refreshed in the background",
    "/second/",
    pages=REFRESHED,
    by_turns=True,
    connections=10,
    pause_ms=19,
)

SCENARIOS = (
    Scenario("hit", "hits, 1,000 pages of 0.3 to 10 KB, the fields of 40 clients"),
    Scenario("distinct", "hits, every request's fields different", distinct=True, against="hit"),
    Scenario(
        "vary",
        "hits that vary by Accept-Encoding",
        "/vary/",
        varies=True,
        needs="vary",
        against="hit",
    ),
    Scenario("conditional", "conditional hits (304)", status=304, conditional=True, against="hit"),
    Scenario(
        "store",
        "hits that edgeproxy has in its store only, not in memory (others: as always)",
        setup="store-only",
        against="hit",
    ),
    Scenario("connect", "hits, a new connection for each request", close=True, against="hit"),
    Scenario("tls", "hits over TLS 1.3, keep-alive", tls=True, needs="tls", against="hit"),
    Scenario("get", "hits asked for by pull.py, to compare HEAD with", load="pull"),
    Scenario("head", "HEAD, hits", method="HEAD", load="pull", against="get"),
    Scenario(
        "pass",
        "responses of 4 KB that may not be stored",
        "/private/",
        origin_share=1.0,
    ),
    Scenario(
        "miss",
        "misses of 4 KB that are stored, each a URL of its own",
        "/small/",
        origin_share=1.0,
        fresh_urls=True,
    ),
    Scenario("1mb", "hits of 1 MB", "/1mb/", pages=8, load="pull", connections=8),
    Scenario(
        "100mb", "hits of 100 MB", "/100mb/", pages=1, load="pull", connections=4, quick=False
    ),
    Scenario("calm", "hits, 5,000 a second", pause_ms=8, quick=False),
    Scenario(
        "slow-misses",
        "the same while 10 % of the requests miss to an origin that takes 200 ms",
        pause_ms=8,
        beside=_SLOW,
        against="calm",
        by="p99",
        quick=False,
    ),
    Scenario(
        "refreshes",
        "the same while 500 pages a second are refreshed in the background",
        pause_ms=8,
        beside=_EXPIRING,
        needs="refresh",
        against="calm",
        by="p99",
        quick=False,
    ),
    Scenario(
        "one-worker",
        "hits, one worker, two cores, light load",
        pause_ms=8,
        setup="one-worker",
        pinned=False,
        quick=False,
        needs="workers",
    ),
    Scenario(
        "two-workers",
        "hits, two workers, two cores, light load",
        pause_ms=8,
        setup="two-workers",
        pinned=False,
        quick=False,
        needs="workers",
        against="one-worker",
    ),
)


def in_groups(scenarios: Iterable[Scenario]) -> list[list[Scenario]]:
    """Those that are compared with each other come together: their rounds take turns."""
    groups: list[list[Scenario]] = []
    for scenario in scenarios:
        if groups and scenario.against in {other.name for other in groups[-1]}:
            groups[-1].append(scenario)
        else:
            groups.append([scenario])
    return groups
