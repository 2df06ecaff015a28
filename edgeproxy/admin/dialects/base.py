"""What a dialect is: its routes, how it reads credentials, and its words for each refusal."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from edgeproxy.admin.refusals import Refused, Why

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from edgeproxy.admin.auth import Credentials
    from edgeproxy.admin.dialects.call import Call
    from edgeproxy.admin.incoming import Incoming

_PART = re.compile(r"\{(\w+)(\*?)\}")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: a body in JSON, or in bytes with a Content-Type among `headers`; None: none."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        """The body's bytes."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body or b""
        return json.dumps(self.body).encode()


@dataclass(frozen=True, slots=True)
class Route:
    """A method, a path, and what answers there.

    In a path `{name}` is one segment, decoded, and `{name*}` all that follows, as it was sent.
    """

    method: str
    path: str
    handler: Callable[[Call], Awaitable[Reply]]

    def match(self, path: str) -> dict[str, str] | None:
        """The parts of a path as sent; None if it is another path. Raises `Refused` for escapes
        that are not UTF-8."""
        pattern, last = "", 0
        for part in _PART.finditer(self.path):
            pattern += re.escape(self.path[last : part.start()])
            pattern += f"(?P<{part[1]}>{'.*' if part[2] else '[^/]+'})"
            last = part.end()
        found = re.fullmatch(pattern + re.escape(self.path[last:]), path, re.DOTALL)
        if found is None:
            return None
        tails = {part[1] for part in _PART.finditer(self.path) if part[2]}
        return {
            name: value if name in tails else decoded(value)
            for name, value in found.groupdict().items()
        }

    @property
    def is_anywhere(self) -> bool:
        """Whether it is told by its method alone, such as `PURGE <url>`."""
        return _PART.match(self.path.removeprefix("/")) is not None


def decoded(segment: str) -> str:
    """A part of a path without its escapes; raises `Refused`."""
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        raise Refused(Why.BAD_REQUEST, "the path has escapes that are not UTF-8") from None


@dataclass(frozen=True, slots=True)
class Dialect:
    """One vendor's way of saying what has changed. A translation only: no state, no I/O.

    `refuse` and `headers` must not fail, whatever came in.
    """

    name: str
    """Its name in the configuration (`[admin.dialects.NAME]`) and in the journal."""
    title: str
    """Its name for people."""
    routes: Sequence[Route]
    credentials: Callable[[Incoming], Awaitable[Credentials | None]]
    """What a call bears in the dialect's way, unverified; None: nothing."""
    refuse: Callable[[Refused, Incoming], Reply]
    """A refusal in the dialect's words."""
    prefixes: Sequence[str] = ()
    """Beginnings of paths below which what has no route is not found in the dialect's words."""
    headers: Callable[[Incoming], Mapping[str, str]] = lambda _: {}
    """Fields that all its answers bear."""

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route of a call, and the parts of its path.

        Raises `Refused` NOT_FOUND, or WRONG_METHOD where the path has a route for other methods.
        """
        others = []
        for route in self.routes:
            parts = route.match(path)
            if parts is not None:
                if route.method == method:
                    return route, parts
                if not route.is_anywhere:
                    others.append(route.method)
        if others:
            allow = sorted(set(others))
            detail = f"{method} is not a method of {path}"
            raise Refused(Why.WRONG_METHOD, detail, allow=allow)
        raise Refused(Why.NOT_FOUND, f"there is nothing at {path}")

    def speaks(self, method: str, path: str) -> bool:
        """Whether a call is for this dialect, be it only to be refused."""
        if path.startswith(tuple(self.prefixes)):
            return True
        try:
            self.find(method, path)
        except Refused as refused:
            return refused.why is not Why.NOT_FOUND
        return True
