"""What readers may be given, by the purges that have been answered, and what they were given."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.versions import HOSTS, UNSTORED, Identity, Site
from tests.kit import Response


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
