"""The demo's five lines as data: what is printed is what `edgeproxy demo --check` judges."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from .demo_origin import SLOW_SECONDS

NEW_PRICE = "19.90"

Claims = dict[str, bool]
"""What an output should show, and whether it does."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of a running demo are, and the admin port's token."""

    edge: str
    admin: str
    shop: str
    token: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A response as `curl -i` prints it."""

    status: int
    fields: dict[str, str]
    text: str
    """The body, and what curl was told to write after it."""

    @property
    def cache_status(self) -> str:
        return self.fields.get("cache-status", "")

    @property
    def render(self) -> int:
        """Which of the shop's renders it is, 0 if it doesn't say."""
        found = re.search(r"render (\d+)", self.text)
        return int(found[1]) if found else 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A line to paste; its output holds so many `answers`, and `judge` looks at what they say."""

    title: str
    command: str
    look: str
    answers: int
    judge: Callable[[list[Answer], str], Claims]

    def faults(self, output: str) -> list[str]:
        """Which of the promised things the output does not show."""
        found = answers(output)
        if len(found) != self.answers:
            return [f"{self.answers} answers"]
        return [claim for claim, holds in self.judge(found, output).items() if not holds]


def answers(output: str) -> list[Answer]:
    """The responses in what one or more `curl -i` printed; what comes before the first is left."""
    found = []
    for part in re.split(r"^(?=HTTP/1\.1 \d{3})", output, flags=re.MULTILINE)[1:]:
        head, _, text = part.replace("\r\n", "\n").partition("\n\n")
        status, *lines = head.split("\n")
        pairs = (line.partition(":") for line in lines)
        fields = {name.lower(): value.strip() for name, _, value in pairs}
        found.append(Answer(int(status.split()[1]), fields, text))
    return found


def attempts(places: Places) -> list[Attempt]:
    """The five lines for a demo at these places."""
    authorization = f"-H 'Authorization: Bearer {places.token}'"
    json = "-H 'Content-Type: application/json'"
    page = f"{places.edge}/products/1"
    purge = f"""-d '{{"tags":["product-1"],"mode":"delete"}}' {places.admin}/v1/purge"""
    return [
        Attempt(
            "A hit",
            f"curl -si {page} {page}",
            "the second answer is from the cache: Cache-Status says `hit`, and the shop's render"
            " number is the first one's.",
            2,
            _judge_hit,
        ),
        Attempt(
            "A purge by tag",
            f"curl -s -d price={NEW_PRICE} {places.shop}/products/1;"
            f" curl -s -w '\\n' {authorization} {json} {purge}; curl -si {page}",
            "the price changes behind the edge's back; one call says which tag it touched, and"
            " answers how many stored responses `matched`; the next reader gets the new price.",
            1,
            _judge_purge,
        ),
        Attempt(
            "Stale while revalidating",
            f"curl -s -o /dev/null {places.edge}/slow; sleep 4;"
            f" curl -si -w 'answered in %{{time_total}} s\\n' {places.edge}/slow; sleep 2;"
            f" curl -si {places.edge}/slow",
            f"the page takes the shop {SLOW_SECONDS} s, yet the reader of the stale one gets it at"
            " once, while it is made anew behind: the last answer has the next render number.",
            2,
            _judge_stale,
        ),
        Attempt(
            "A cb: URL",
            f"curl -si {places.edge}/cb:v2/products/1 {places.edge}/cb:v2/products/1",
            "a copy of its own: `fwd=uri-miss` first though /products/1 is stored, then `hit`; the"
            " shop was asked for /products/1. With v3 for v2 it is fetched once more.",
            2,
            _judge_buster,
        ),
        Attempt(
            "Why a miss",
            f"curl -si {places.edge}/account;"
            f" curl -s {authorization} '{places.admin}/v1/entries?url={places.edge}/account'",
            "Cache-Status gives the reason why it was fetched and not stored (the shop says"
            " `private, no-store`), and the admin port tells what it knows of the URL.",
            1,
            _judge_miss,
        ),
    ]


def _judge_hit(found: list[Answer], _: str) -> Claims:
    first, second = found
    return {
        "the first answer is a 200": first.status == 200,
        "the second answer is a hit": "; hit" in second.cache_status,
        "both have the same render number": 0 < first.render == second.render,
    }


def _judge_purge(found: list[Answer], output: str) -> Claims:
    matched = re.search(r'"matched": ?(\d+)', output)
    (page,) = found
    return {
        "at least one stored response matched": matched is not None and int(matched[1]) > 0,
        "the page comes from the shop": "; fwd=" in page.cache_status,
        "the page has the new price": f"price: {NEW_PRICE}" in page.text,
    }


def _judge_stale(found: list[Answer], _: str) -> Claims:
    stale, fresh = found
    seconds = re.search(r"answered in ([0-9.]+) s", stale.text)
    return {
        "the stale answer is from the cache": "; hit" in stale.cache_status,
        "it is stale": re.search(r"; ttl=-\d", stale.cache_status) is not None,
        "it came at once": seconds is not None and float(seconds[1]) < SLOW_SECONDS / 2,
        "the last answer is a hit": "; hit" in fresh.cache_status,
        "the last answer is the next render": fresh.render == stale.render + 1 > 1,
    }


def _judge_buster(found: list[Answer], _: str) -> Claims:
    first, second = found
    return {
        "the first answer comes from the shop": "; fwd=uri-miss" in first.cache_status,
        "the second answer is a hit": "; hit" in second.cache_status,
        "both have the same render number": 0 < first.render == second.render,
        "the shop was asked for /products/1": "asked for /products/1<" in first.text,
    }


def _judge_miss(found: list[Answer], _: str) -> Claims:
    (account,) = found
    return {
        "the page comes from the shop": "; fwd=" in account.cache_status,
        "Cache-Status has a detail": "; detail=" in account.cache_status,
        "it was not stored": "; stored" not in account.cache_status,
        "the admin port answers in JSON": account.text.rstrip().endswith("}"),
    }
