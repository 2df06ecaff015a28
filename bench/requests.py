"""The requests of a load, made beforehand: a file of them, so that making them costs nothing later.

The file has each request as a line with its length, and then its bytes.
"""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.scenarios import Scenario

HOST = "www.shop.example"
CLIENTS = 40
SEED = 5
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:{}.0) Gecko/20100101 Firefox/{}.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/{}.0.0.0 Safari/537.36 Edg/{}.0.0.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.{} (KHTML, like Gecko)"
    " Version/17.{} Safari/605.1.15",
    "Mozilla/5.0 (Linux; Android 14; Pixel {}) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/{}.0.0.0 Mobile Safari/537.36",
)
_LANGUAGES = ("en-US,en;q=0.5", "de-DE,de;q=0.9,en;q=0.7", "fr,fr-FR;q=0.8", "ja,en-US;q=0.7")
ENCODINGS = ("gzip, deflate, br, zstd", "gzip, deflate, br", "gzip, deflate")
"""What browsers send; each is a variant of its own of what varies by Accept-Encoding."""


def no_validator(target: str) -> str:
    """For requests that are not conditional."""
    raise ValueError(f"no ETag is known of {target}")


def write_requests(
    scenario: Scenario,
    path: Path,
    count: int,
    validator: Callable[[str], str] = no_validator,
) -> None:
    """Write `count` requests; `validator` tells a page's ETag, for those that are conditional."""
    with path.open("wb") as file:
        for request in itertools.islice(requests(scenario, validator), count):
            file.write(b"%d\n%b" % (len(request), request))


def read_requests(path: Path, count: int) -> list[bytes]:
    """The first `count` of a file."""
    with path.open("rb") as file:
        return [file.read(int(line)) for line in itertools.islice(iter(file.readline, b""), count)]


def fresh_url(request: bytes, query: str) -> bytes:
    """The request for a URL of its own, as load.lua makes it."""
    before, at, after = request.partition(b" HTTP/1.1")
    return b"%b?%b%b%b" % (before, query.encode(), at, after)


def requests(scenario: Scenario, validator: Callable[[str], str] = no_validator) -> Iterator[bytes]:
    """A scenario's requests, without end, the same ones each time."""
    chance = random.Random(SEED)
    pages = list(range(scenario.pages))
    chance.shuffle(pages)  # what is asked for most is of any size
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(pages) + 1)))
    blocks = [client_fields(number, chance) for number in range(CLIENTS)]
    for number in itertools.count():
        if scenario.by_turns:
            page = pages[number % len(pages)]
        else:
            (page,) = chance.choices(pages, cum_weights=weights)
        target = f"{scenario.path}{page}"
        lines = [f"{scenario.method} {target} HTTP/1.1"]
        lines += chance.choice(blocks)
        if scenario.distinct:
            lines[-1] = _cookie(chance)
            lines.append(f"traceparent: 00-{_hex(chance, 32)}-{_hex(chance, 16)}-01")
        if scenario.conditional:
            lines.append(f"If-None-Match: {validator(target)}")
        if scenario.close:
            lines.append("Connection: close")
        yield "\r\n".join((*lines, "", "")).encode()


def client_fields(number: int, chance: random.Random) -> list[str]:
    """A client's fields, some 600 bytes; the last one is its cookie."""
    agent = _AGENTS[number % len(_AGENTS)].format(100 + number, 100 + number)
    return [
        f"Host: {HOST}",
        f"User-Agent: {agent}",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
        "*/*;q=0.8",
        f"Accept-Language: {_LANGUAGES[number // len(_AGENTS) % len(_LANGUAGES)]}",
        f"Accept-Encoding: {ENCODINGS[number % len(ENCODINGS)]}",
        f"Referer: http://{HOST}/category/{number}",
        "Sec-Fetch-Dest: document",
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-User: ?1",
        "Upgrade-Insecure-Requests: 1",
        _cookie(chance),
    ]


def _cookie(chance: random.Random) -> str:
    return f"Cookie: session={_hex(chance, 32)}; _ga=GA1.1.{_hex(chance, 10)}; theme=light"


def _hex(chance: random.Random, digits: int) -> str:
    return f"{chance.getrandbits(4 * digits):0{digits}x}"
