"""A site whose every response tells what it is, and a ledger of what purges forbid.

Pages have versions that only grow. A response names its page, version, host, reader and variant in
a field of its own, its body follows from these, and so do its tags: whatever a reader is given can
be held against what it may be given.
"""

import asyncio
import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tests.kit import CLOSE, RESET, OriginRequest, Response
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
        if request.target not in self.versions:
            yield b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
            return
        if request.method == "POST":
            async for step in self._post(request):
                yield step
            return
        identity = self._identify(request)
        yield self._delay(short=0.4, long=0.03)
        fault = self.draw.random()
        if fault < self.faults.refused:
            yield b"HTTP/1.1 503 No\r\nCache-Control: no-store\r\nContent-Length: 0\r\n\r\n"
            return
        if fault < self.faults.refused + self.faults.dropped:
            yield self.draw.choice((CLOSE, RESET))
        head, body = self._response(request, identity)
        yield head
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

    def _response(self, request: OriginRequest, identity: Identity) -> tuple[bytes, bytes]:
        page, version = identity.page, identity.version
        fields = {"Cache-Control": page.control(version), "X-Identity": identity.encode()}
        if tags := page.tags(version):
            fields["Cache-Tag"] = ", ".join(tags)
        if page.varies(version):
            fields["Vary"] = "X-Device"
        if page.has_etag:
            fields["ETag"] = identity.etag
        status, body = page.status(version), identity.body()
        asked = _one_range(request, len(body))
        known = (request.field("if-none-match") or "").split(", ")
        if status == 200 and page.has_etag and identity.etag in known:
            status, body = 304, b""
        elif status == 200 and asked and page.has_etag:
            first, last = asked
            fields["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            status, body = 206, body[first : last + 1]
        if status == 304:
            pass
        elif page.framing == "length" or not body:
            fields["Content-Length"] = str(len(body))
        else:
            fields["Transfer-Encoding"] = "chunked"
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode()
        return head, b"" if request.method == "HEAD" else body

    def _pieces(self, page: Page, body: bytes) -> Iterable[bytes]:
        step = max(1, len(body) // self.draw.randint(1, 4) + 1)
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            chunked = page.framing == "chunked"
            yield b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece

    async def _post(self, request: OriginRequest) -> AsyncIterator[Step]:
        yield self._delay(short=0.4, long=0.03)
        version = self.change(request.target)
        more, status = "", 200
        if self.draw.random() < 0.3:
            other = self.draw.choice(list(self.versions))
            told = {other: self.change(other), request.target: version}
            more, status = self.draw.choice(
                ((f"Content-Location: {other}\r\n", 200), (f"Location: {other}\r\n", 303))
            )
        else:
            told = {request.target: version}
        body = json.dumps(told).encode()
        head = f"HTTP/1.1 {status} Done\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        yield head.encode() + body


def _one_range(request: OriginRequest, length: int) -> tuple[int, int] | None:
    """The range that a GET asks for, if it is one that can be had, and without a condition."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.field("range") or "")
    if match is None or request.method != "GET" or request.field("if-range"):
        return None
    first, last = int(match[1]), min(int(match[2] or length), length - 1)
    return (first, last) if first <= last else None


@dataclass
class Ledger:
    """What a request from now on may be given, by the purges that have been answered."""

    least: dict[str, dict[tuple[str, str], int]] = field(default_factory=lambda: defaultdict(dict))
    """By target, then by mode and what a purge named: the oldest version that still may be."""

    def note(self, mode: str, named: Iterable[str], versions: dict[str, int]) -> None:
        """A purge of what is `named` was answered; it had been sent at these versions."""
        for target, version in versions.items():
            least = self.least[target]
            for name in named:
                least[mode, name] = max(version, least.get((mode, name), 0))

    def of(self, target: str) -> dict[tuple[str, str], int]:
        """What holds for a request for that target that is sent now."""
        return dict(self.least[target])


@dataclass(frozen=True)
class Asked:
    """A request, and what was known when it was sent."""

    method: str
    target: str
    host: str
    device: str | None
    who: str | None
    least: dict[tuple[str, str], int]
    version: int
    """The page's, at that moment."""
    at: float
    etag: str | None = None
    """What If-None-Match bears."""
    ranges: tuple[tuple[int, int], ...] = ()
    """What Range asks for."""

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The request's."""
        spans = ", ".join(f"{first}-{last}" for first, last in self.ranges)
        fields = {
            "Host": self.host,
            "X-Device": self.device,
            "Authorization": self.who,
            "If-None-Match": self.etag,
            "Range": f"bytes={spans}" if spans else None,
        }
        return [(name, value) for name, value in fields.items() if value is not None]

    def names(self, identity: Identity) -> list[str]:
        """All by which a purge could have named that response."""
        tags = identity.page.tags(identity.version)
        return ["everything", "url", f"url {self.host}", *(f"tag {tag}" for tag in tags)]


def verify(asked: Asked, response: Response, site: Site) -> None:
    """Hold a whole response to a GET or HEAD against all that is known; AssertionError if wrong."""
    told = response.field("x-identity")
    assert told is not None, f"{response.status} tells nothing: {response.head.raw!r}"
    identity = Identity.decode(told)
    page, version = identity.page, identity.version
    status = response.cache_status
    wrong = f"{asked} got {identity}: {response.status} {status}"

    # It is the one that was asked for.
    assert (identity.target, identity.host) == (asked.target, asked.host), wrong
    assert not page.tells_devices_apart(version) or identity.device == asked.device, wrong
    assert identity.who in (None, asked.who), wrong
    _verify_content(asked, response, identity, wrong)

    # It is not older than the purges that were answered before.
    detail = str(status.get("detail", ""))
    stale = detail == "invalidated" or detail.startswith("stale-if-error")
    modes = ("delete",) if stale else ("delete", "invalidate")
    for mode in modes:
        for name in asked.names(identity):
            assert version >= asked.least.get((mode, name), 0), f"{mode} {name}: {wrong}"

    # It is as fresh as it says.
    stored = page.control(version) not in UNSTORED
    if status.get("hit"):
        assert stored, wrong
        assert identity.who is None, wrong
        gone = site.superseded.get((asked.target, version))
        if not stale and detail != "stale-while-revalidate" and gone is not None:
            assert asked.at - gone < page.max_age(version) + 0.5, wrong
    elif not stale and not status.get("collapsed"):
        assert version >= asked.version, wrong


def _verify_content(asked: Asked, response: Response, identity: Identity, wrong: str) -> None:
    """Never a part for the whole, and never the parts of two."""
    whole = identity.body()
    match response.status:
        case 200 | 404:
            assert response.status == identity.page.status(identity.version), wrong
            expected = b"" if asked.method == "HEAD" else whole
            assert response.body == expected, f"another body: {wrong}"
            length = response.field("content-length")
            assert length in (None, str(len(whole))), wrong
        case 206:
            _verify_parts(asked, response, whole, wrong)
        case 304:
            assert asked.etag == identity.etag, wrong
        case 416:
            assert asked.ranges, wrong
            assert all(first >= len(whole) for first, _ in asked.ranges), wrong
        case _:
            raise AssertionError(wrong)


def _verify_parts(asked: Asked, response: Response, whole: bytes, wrong: str) -> None:
    assert asked.ranges, wrong
    content_type = response.field("content-type") or ""
    parts: list[tuple[str, bytes]] = [(response.field("content-range") or "", response.body)]
    if content_type.startswith("multipart/byteranges"):
        boundary = b"--" + content_type.partition("boundary=")[2].encode()
        first, *pieces, last = response.body.split(boundary)
        assert not first.strip(b"\r\n"), wrong
        assert last.startswith(b"--"), wrong
        parts = []
        for piece in pieces:
            head, _, body = piece.partition(b"\r\n\r\n")
            named = head.decode().lower().partition("content-range:")[2].partition("\r\n")[0]
            parts.append((named.strip(), body.removesuffix(b"\r\n")))
    for named, body in parts:
        span, _, total = named.removeprefix("bytes ").partition("/")
        start, end = map(int, span.split("-"))
        # Of a chunked body that was cut, nobody knows the length (RFC 9110 14.4).
        assert total in (str(len(whole)), "*"), wrong
        assert body == whole[start : end + 1], f"another part {named}: {wrong}"


def named_by(selection: dict[str, Any], targets: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """The targets that a purge with that body may concern, and its names for them, in the words of
    `Asked.names`."""
    everywhere = [f"tag {tag}" for tag in selection.get("tags", ())]
    everywhere += ["everything"] if selection.get("everything") else []
    for target in targets:
        urls = selection.get("urls", ())
        names = ["url"] if target in urls else []
        names += [f"url {host}" for host in HOSTS if f"http://{host}{target}" in urls]
        if everywhere or names:
            yield target, everywhere + names
