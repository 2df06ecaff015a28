"""A site whose every response tells what it is.

Pages have versions that only grow. A response names its page, version, host, reader and variant in
a field of its own; its body follows from these, and so do its tags.
"""

import asyncio
import hashlib
import json
import random
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from tests.kit import CLOSE, RESET, OriginRequest
from tests.kit.origin import Step

HOSTS = ("a.test", "b.test")
TAGS = tuple(f"tag-{number}" for number in range(8))
DEVICES = (None, "phone", "desk")
SIZES = (300, 0, 5_000, 40_000, 1, 150_000, 900, 200_000, 2_500, 350_000)
CONTROLS = (
    "max-age=3600",
    "max-age=1",
    "max-age=2, stale-while-revalidate=0, stale-if-error=0",
    "max-age=1, must-revalidate",
    "s-maxage=2",
    "max-age=1, stale-while-revalidate=1",
    "no-cache",
    "max-age=3600, public",
)
UNSTORED = ("no-store", "private")


@dataclass(frozen=True)
class Page:
    """What an origin has at a target. What it looks like depends on its version."""

    number: int

    @classmethod
    def at(cls, target: str) -> "Page":
        return cls(int(target.rpartition("/")[2]))

    @property
    def target(self) -> str:
        return f"/page/{self.number}"

    @property
    def size(self) -> int:
        return SIZES[self.number % len(SIZES)]

    @property
    def framing(self) -> str:
        return ("length", "chunked", "length")[self.number % 3]

    @property
    def has_etag(self) -> bool:
        return self.number % 4 != 3

    def _draw(self, version: int, what: str) -> random.Random:
        return random.Random(f"{self.number} {version} {what}")

    def status(self, version: int) -> int:
        return 404 if version % 7 == 5 else 200

    def control(self, version: int) -> str:
        """Cache-Control; now and then a version may not be stored at all."""
        if self._draw(version, "storable").random() < 0.1:
            return UNSTORED[version % 2]
        return CONTROLS[self.number % len(CONTROLS)]

    def max_age(self, version: int) -> float:
        """The freshness lifetime in seconds."""
        value = self.control(version).partition("age=")[2].partition(",")[0]
        return float(value or 0)

    def varies(self, version: int) -> bool:
        """Some pages always have variants for devices, some never, some every other time."""
        return self.number % 5 == 1 or (self.number % 5 == 3 and version % 2 == 0)

    def tells_devices_apart(self, version: int) -> bool:
        """Of some pages all variants are the same, which only the origin knows."""
        return self.varies(version) and self.number % 2 == 1

    def tags(self, version: int) -> tuple[str, ...]:
        draw = self._draw(version, "tags")
        return tuple(sorted(draw.sample(TAGS, draw.randint(0, 3))))


@dataclass(frozen=True)
class Identity:
    """Which response it is."""

    target: str
    version: int
    host: str
    device: str | None
    who: str | None
    """Whose credentials the request bore, where the response is for them alone."""

    def encode(self) -> str:
        return json.dumps([self.target, self.version, self.host, self.device, self.who])

    @classmethod
    def decode(cls, text: str) -> "Identity":
        return cls(*json.loads(text))

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.encode().encode()).hexdigest()[:16]}"'

    @property
    def page(self) -> Page:
        return Page.at(self.target)

    def body(self) -> bytes:
        """All of the body."""
        return _body(self.encode(), self.page.size)


@lru_cache(maxsize=256)
def _body(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@dataclass
class Faults:
    """How often the origin fails, of 1."""

    refused: float = 0.0
    """It answers 503."""
    dropped: float = 0.0
    """It closes the connection unanswered."""
    cut: float = 0.0
    """It ends the connection in the middle of a body."""

    @property
    def any(self) -> bool:
        return bool(self.refused or self.dropped or self.cut)


@dataclass
class Site:
    """The origin's side: versions, and how they are told."""

    draw: random.Random
    pages: int
    faults: Faults = field(default_factory=Faults)
    patience: float = 1.0
    """How slow it may be, times."""

    def __post_init__(self) -> None:
        self.versions = {Page(number).target: 1 for number in range(self.pages)}
        self.superseded: dict[tuple[str, int], float] = {}
        """When a version of a page gave way to the next, by the loop's clock."""

    def change(self, target: str) -> int:
        """Put a new version in the place of the old one."""
        version = self.versions[target]
        self.superseded[target, version] = asyncio.get_running_loop().time()
        self.versions[target] = version + 1
        return version + 1

    def bearing(self, tag: str) -> list[str]:
        """The targets whose present version bears that tag."""
        return [
            page.target
            for page in map(Page, range(self.pages))
            if tag in page.tags(self.versions[page.target])
        ]

    async def answer(self, request: OriginRequest) -> AsyncIterator[Step]:
        """The reply of a `ScriptedOrigin`."""
        assert "/cb:" not in request.target, request.target
        more = self._change_by(request) if request.method == "POST" else {}
        identity = self._identify(request)
        yield self._delay(short=0.4, long=0.03)
        if more and more.get("Content-Location") != request.target:
            yield (
                _head(303 if "Location" in more else 200, more | {"Content-Length": "4"}) + b"done"
            )
            return
        fault = self.draw.random()
        if fault < self.faults.refused:
            yield b"HTTP/1.1 503 No\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n"
            return
        if fault < self.faults.refused + self.faults.dropped:
            yield self.draw.choice((CLOSE, RESET))
        status, fields, body = self._response(request, identity)
        yield _head(status, fields | more)
        yield self._delay(short=0.1, long=0.06)
        for piece in self._pieces(identity.page, body):
            yield piece
            yield self._delay(short=0.1, long=0.0)
            if self.draw.random() < self.faults.cut:
                yield self.draw.choice((CLOSE, RESET))
        if body and identity.page.framing == "chunked":
            yield b"0\r\n\r\n"

    def _delay(self, short: float, long: float) -> float:
        """Seconds to wait: mostly none, to a share of the answers a few milliseconds, to another
        so many that whole purges are over by then."""
        luck = self.draw.random()
        if luck < long:
            return self.draw.uniform(0.1, 0.7) * self.patience
        return self.draw.uniform(0.0, 0.03) * self.patience if luck < long + short else 0.0

    def _identify(self, request: OriginRequest) -> Identity:
        page = Page.at(request.target)
        version = self.versions[request.target]
        who = request.field("authorization")
        if any(word in page.control(version) for word in ("public", "must-", "s-maxage")):
            who = None  # RFC 9111 3.5: for everybody, though it was asked for with credentials
        apart = page.tells_devices_apart(version)
        device = request.field("x-device") if apart else None
        return Identity(request.target, version, request.field("host") or "", device, who)

    def _response(
        self, request: OriginRequest, identity: Identity
    ) -> tuple[int, dict[str, str], bytes]:
        page, version = identity.page, identity.version
        fields = {"Cache-Control": page.control(version), "X-Identity": identity.encode()}
        if tags := page.tags(version):
            fields["Cache-Tag"] = ", ".join(tags)
        if page.varies(version):
            fields["Vary"] = "X-Device"
        status, body = page.status(version), identity.body()
        if page.has_etag:
            fields["ETag"] = identity.etag
            if status == 200 and identity.etag in (request.field("if-none-match") or ""):
                return 304, fields, b""
            if status == 200 and (part := _range(request, identity.etag, len(body))):
                first, last = part
                fields["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
                status, body = 206, body[first : last + 1]
        if page.framing == "length" or not body:
            fields["Content-Length"] = str(len(body))
        else:
            fields["Transfer-Encoding"] = "chunked"
        return status, fields, b"" if request.method == "HEAD" else body

    def _pieces(self, page: Page, body: bytes) -> Iterable[bytes]:
        step = max(1, len(body) // self.draw.randint(1, 4) + 1)
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            chunked = page.framing == "chunked"
            yield b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece

    def _change_by(self, request: OriginRequest) -> dict[str, str]:
        """What a POST changes, and the fields that tell of it: RFC 9111 4.4, RFC 9110 9.3.3."""
        changed = {request.target: self.change(request.target)}
        pointers: dict[str, str] = {}
        match self.draw.choice(("", "", "Location", "Content-Location", "representation")):
            case "representation":
                pointers = {"Content-Location": request.target}
            case "Location" | "Content-Location" as name:
                other = self.draw.choice(sorted(set(self.versions) - {request.target}))
                changed[other] = self.change(other)
                pointers = {name: other}
        return {"X-Changed": json.dumps(changed)} | pointers


def _head(status: int, fields: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode()


def _range(request: OriginRequest, etag: str, length: int) -> tuple[int, int] | None:
    """The range that a GET asks for, if it is one that it can get."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.field("range") or "")
    if match is None or request.method != "GET" or request.field("if-range") not in (None, etag):
        return None
    first, last = int(match[1]), min(int(match[2] or length), length - 1)
    return (first, last) if first <= last else None
