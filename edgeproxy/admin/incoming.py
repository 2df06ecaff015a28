"""A call as it came: its fields, its query and its body, read once, bounded and strictly."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from edgeproxy.admin.refusals import Fault, Refused, Why

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

MAX_BODY = 1 << 20
"""The most bytes of a body."""
_MAX_DEPTH = 32
_MAX_PARAMETERS = 1000
_CHARSET = re.compile(r';\s*charset="?([^";\s]*)', re.IGNORECASE)

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


@dataclass
class Incoming:
    """One call, from wherever: an aiohttp request, or one at the public port."""

    method: str
    path: str
    """As sent, escapes and all."""
    query_string: str
    headers: Mapping[str, str]
    """By name in any case; of a field that comes twice, the first line."""
    client: str
    """The IP address that it came from."""
    read: Callable[[int], Awaitable[bytes]] = field(repr=False)
    """The body, if it has no more than so many bytes; raises `Refused` TOO_LARGE."""
    _body: bytes | None = field(default=None, init=False, repr=False)

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query; raises `Refused` where one comes twice."""
        return read_form(self.query_string, "the query")

    @property
    def dry_run(self) -> bool:
        """Whether it shall only count: `Edge-Dry-Run: 1`. Raises `Refused` for what is neither."""
        value = self.headers.get("Edge-Dry-Run", "0").strip()
        if value not in ("0", "1"):
            # Taken for "no", it would purge what somebody only wanted to be counted.
            raise Refused.bad_request(Fault("Edge-Dry-Run", 'must be "1" or "0"'))
        return value == "1"

    def bearer(self, *, bare: bool = False) -> str | None:
        """The token of `Authorization: Bearer TOKEN` (RFC 6750 2.1); `bare`: or of it alone."""
        value = self.headers.get("Authorization", "").strip(" ")
        scheme, blank, rest = value.partition(" ")
        if blank and scheme.lower() == "bearer":
            return rest.strip(" ") or None
        return value if bare and value and not blank else None

    async def body(self) -> bytes:
        """The whole body; raises `Refused` TOO_LARGE."""
        if self._body is None:
            self._body = await self.read(MAX_BODY)
        return self._body

    def media_type(self) -> str:
        """The body's media type in lower case; "" if it says none."""
        value = self.headers.get("Content-Type", "")
        charset = _CHARSET.search(value)
        if charset is not None and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
            raise Refused(Why.WRONG_CONTENT_TYPE, "the body must be in UTF-8")
        return value.partition(";")[0].strip().lower()

    async def json_object(self) -> dict[str, Any]:
        """The body, a JSON object; none at all is an empty one. Raises `Refused`."""
        content = await self.body()
        kind = self.media_type()
        if not content:
            return {}
        if kind not in ("", JSON) and not kind.endswith("+json"):
            raise Refused(Why.WRONG_CONTENT_TYPE, f"Content-Type must be {JSON}, not {kind}")
        return read_json_object(content)

    async def form_or_json(self) -> Mapping[str, Any]:
        """The body's parameters, be it a form or a JSON object; none at all is none."""
        content = await self.body()
        if content and self.media_type() == FORM:
            try:
                return read_form(content.decode("ascii"), "the body")
            except UnicodeDecodeError:
                raise Refused(Why.BAD_REQUEST, "the body is not a form") from None
        if content and self.media_type() not in ("", JSON):
            raise Refused(Why.WRONG_CONTENT_TYPE, f"Content-Type must be {FORM} or {JSON}")
        return await self.json_object()


def read_form(text: str, where: str) -> dict[str, str]:
    """The parameters of a query or a form; raises `Refused`, as of two that differ one is lost."""
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError:  # UnicodeDecodeError is one
        raise Refused(Why.BAD_REQUEST, f"{where} is not UTF-8, or too long") from None
    return _once(pairs, where)


def read_json_object(content: bytes) -> dict[str, Any]:
    """A JSON object (RFC 8259), no deeper than 32, no key twice. Raises `Refused`."""
    try:
        body = json.loads(content, object_pairs_hook=lambda pairs: _once(pairs, "the body"))
    except json.JSONDecodeError as error:
        detail = f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise Refused(Why.BAD_REQUEST, detail) from error
    except (ValueError, RecursionError) as error:
        # It is not UTF-8, or has a number too long, or something too deep, to be read.
        raise Refused(Why.BAD_REQUEST, "the body is not JSON, or too deep") from error
    if not isinstance(body, dict):
        raise Refused(Why.BAD_REQUEST, "the body must be a JSON object")
    level: list[Any] = [body]
    for _ in range(_MAX_DEPTH):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return body
    raise Refused(Why.BAD_REQUEST, f"the body is deeper than {_MAX_DEPTH} levels")


def _inside(value: Any) -> list[Any]:
    """The arrays and objects right inside one."""
    members = value.values() if isinstance(value, dict) else value
    return [each for each in members if isinstance(each, dict | list)]


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Of a key that comes twice one value would be lost, and with it what it selects.
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused(Why.BAD_REQUEST, f"{where} has the key {twice!r} twice")
    return found
