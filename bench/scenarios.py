"""What is asked of the servers, a row each."""

from __future__ import annotations

from dataclasses import dataclass

PAGES = 1000
"""Pages of the origin, /page/0 to /page/999, and as many below /private/."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load. All its requests are GETs, with the fields that a browser sends."""

    name: str
    title: str
    path: str
    """Where its pages are; their number follows."""
    fresh_urls: bool
    """Whether each request asks for a URL of its own."""
    origin_share: float
    """How many of its requests the origin must see: what tells that it measured what it says."""


SCENARIOS = (
    Scenario("hit", "hits, 1,000 pages of 0.3 to 10 KB", "/page/", False, 0.0),
    Scenario("miss", "misses that are stored, each a URL of its own", "/page/", True, 1.0),
    Scenario("pass", "responses that may not be stored", "/private/", False, 1.0),
)
