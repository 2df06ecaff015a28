"""The five lines that the demo prints, each good to be pasted into a shell in any order, often."""

from __future__ import annotations

from dataclasses import dataclass

from edgeproxy.cli.demo_origin import SLOW_FRESH_SECONDS, SLOW_SECONDS


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of a running demo are, as base URLs, and the admin port's token."""

    edge: str
    admin: str
    shop: str
    token: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line for the shell, and what to look at in what it prints."""

    title: str
    look: str
    command: str


def lines(places: Places) -> list[Line]:
    """The five lines for a demo at these places."""
    edge = places.edge
    authorization = f"-H 'Authorization: Bearer {places.token}'"
    purge = """-H 'Content-Type: application/json' -d '{"tags":["product-1"],"mode":"delete"}'"""
    stale_after = int(SLOW_FRESH_SECONDS) + 1
    fresh_after = int(SLOW_SECONDS) + 1
    return [
        Line(
            "A hit",
            "Asks twice on one connection; the second answer is from the cache: Cache-Status says"
            " `hit`, and the page has the render number that the first one had",
            f"curl -si {edge}/products/2 {edge}/products/2",
        ),
        Line(
            "A purge by tag",
            "Gives a product a new price behind the edge's back, then tells the edge which tag is"
            " touched: it says how many stored responses `matched`, and the next reader gets the"
            " new price",
            # The price is the time of day, so that each run has another one.
            f"curl -so /dev/null {edge}/products/1;"
            f" curl -s -d price=$(date +%M.%S) {places.shop}/products/1;"
            f" curl -s -w '\\n' {authorization} {purge} {places.admin}/v1/purge;"
            f" curl -si {edge}/products/1",
        ),
        Line(
            "Stale while revalidating",
            f"Waits until a page that takes the shop {SLOW_SECONDS:g} s is stale: it comes at once"
            " nevertheless (`ttl` below 0), while it is made anew behind; then the new one is there"
            " (a later render number)",
            f"curl -so /dev/null {edge}/slow; sleep {stale_after};"
            f" curl -si -w 'answered in %{{time_total}} s\\n' {edge}/slow; sleep {fresh_after};"
            f" curl -si {edge}/slow",
        ),
        Line(
            "A cb: URL",
            "It is a copy of its own, whatever is stored of /products/3: Cache-Status says"
            " `fwd=uri-miss`, then `hit`, and the shop was asked for /products/3",
            f"t=$(date +%s%N); curl -si {edge}/cb:$t/products/3 {edge}/cb:$t/products/3",
        ),
        Line(
            "Why a miss",
            "Cache-Status says that the page was fetched and in `detail` why it was not stored: the"
            " shop said `no-store`. From then on it is `fwd=bypass`: readers of it don't wait for"
            " each other. The admin port tells what is stored of the URL: nothing",
            f"curl -si {edge}/account;"
            f" curl -s -w '\\n' {authorization} '{places.admin}/v1/entries?url={edge}/account'",
        ),
    ]
