"""The types of single settings: how each is read from TOML, and written to JSON for the workers.

TOML's types are taken strictly (`"5"` is no number, `1` is no boolean); what people write as text
(sizes, durations, addresses, URLs, paths) has its own reader.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    ValidationInfo,
)

from edgeproxy.config.addresses import (
    Address,
    Network,
    parse_address,
    parse_host,
    parse_network,
)
from edgeproxy.config.errors import did_you_mean, one_of
from edgeproxy.config.hashes import parse_hash
from edgeproxy.config.rates import Rate, parse_rate
from edgeproxy.config.sizes import format_duration, format_size, parse_duration, parse_size, shown
from edgeproxy.config.urls import (
    OriginUrl,
    StoreUrl,
    absolute,
    parse_origin_url,
    parse_store_url,
)
from edgeproxy.semantics.forwarding import may_let_through
from edgeproxy.semantics.key import KeyPolicy, purge_target

if TYPE_CHECKING:
    from collections.abc import Callable

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_MEDIA_TYPE = re.compile(r"[a-z0-9.+-]+/([a-z0-9.+-]+|\*)", re.IGNORECASE)
_TARGET = re.compile(r"/[\x21\x22\x24-\x7e]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MAX_WORKERS = 256
AREA_KINDS = ("tag", "url", "prefix", "type")
"""What an area of a dialect may pick by: see `AreaPick`."""


def folder_of(info: ValidationInfo) -> Path:
    """What relative paths are relative to: the file's folder, else the current one."""
    context = info.context or {}
    return Path(context.get("folder") or Path.cwd())


def _at_least_one(size: int) -> int:
    if size < 1:
        raise ValueError("must be more than 0 bytes")
    return size


def _some_time(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError('must be more than 0; give a duration such as "10s"')
    return seconds


def _read_path(value: Any, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"expected a path, got {shown(value)}")
    return absolute(value, folder_of(info))


def _read_access_log(value: Any, info: ValidationInfo) -> Path | str:
    if isinstance(value, str) and value in ("stdout", "off"):
        return value
    # A file needs a slash, so that a misspelt "stdout" doesn't quietly become one.
    if not isinstance(value, Path) and not (isinstance(value, str) and "/" in value):
        near = did_you_mean(value, ("stdout", "off")) if isinstance(value, str) else None
        advice = f'did you mean "{near}"? Give' if near else "give"
        raise ValueError(
            f'{shown(value)} is not where a log can go; {advice} "stdout", "off", or a file '
            'with its folder ("/var/log/edgeproxy/access.log")'
        )
    return _read_path(value, info)


def _read_workers(value: Any) -> str | int:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_WORKERS:
        return value
    raise ValueError(f'give a number between 1 and {MAX_WORKERS}, or "auto"; got {shown(value)}')


def _lower_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError(f"{shown(value)} is not a field name (RFC 9110 5.1)")
    return value.lower()


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{shown(value)} can't be a name; use letters, digits, '-', '_' and '.', 64 at most"
        )
    return value


def _token_hash(value: Any) -> str:
    return parse_hash(value if isinstance(value, str) else "").text


def _read_moment(value: Any) -> datetime:
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    # Without an offset it would be another moment on another machine.
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError(f"{shown(value)} is not a moment; give one such as 2027-01-31T18:00:00Z")
    return moment


def _host_header(value: Any) -> str:
    if value in ("pass", "origin"):
        return str(value)
    # Also an authority with a port is a Host field (RFC 9110 7.2).
    host, _, port = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not host or (port and not (port.isdecimal() and int(port) < 65536)):
        raise ValueError(f'give "pass", "origin", or a host name; got {shown(value)}')
    near = did_you_mean(host, ("pass", "origin")) if "." not in host else None
    if near:
        raise ValueError(f'{shown(value)}: did you mean "{near}"? A host name here has a dot')
    parsed = parse_host(host)
    if parsed.startswith("*"):
        raise ValueError(f'{shown(value)}: a wildcard can\'t be sent; give "pass" or a host name')
    return f"{parsed}:{port}" if port else parsed


def _parameter(value: str) -> str:
    if not value or "*" in value[:-1] or value == "*":
        raise ValueError(
            f'{shown(value)} is not a query parameter; give a name ("sid"), '
            'or the beginning of names with a star ("utm_*")'
        )
    return value


def _let_through(value: str) -> str:
    if not may_let_through(value.encode()):
        raise ValueError(f"{shown(value)} can't be let through: the edge writes or keeps it itself")
    return value


def _error_status(value: Any) -> int | str:
    if value in ("4xx", "5xx"):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
        return value
    raise ValueError(f'{shown(value)} is no error; give 400 to 599, "4xx" or "5xx"')


def _target(value: str) -> str:
    if not _TARGET.fullmatch(value):
        raise ValueError(
            f"{shown(value)} is not what a request can ask for; give a path such as "
            '"/healthz" (RFC 9112 3.2.1)'
        )
    return value


def _area_pick(value: str) -> str:
    kind, colon, what = value.partition(":")
    if value != "everything" and not (colon and kind in AREA_KINDS and what.strip()):
        raise ValueError(
            f'{shown(value)} picks nothing; give "everything", or {one_of(AREA_KINDS)}, a colon '
            'and what: "tag:menus"'
        )
    if kind in ("url", "prefix"):
        purge_target(what, KeyPolicy())
    if kind == "type" and not _MEDIA_TYPE.fullmatch(what):
        raise ValueError(
            f'{shown(what)} is no media type; give one such as "text/css" or "image/*"'
        )
    return value


def choice(*choices: str) -> BeforeValidator:
    """One word of these; a near miss is answered with the word meant."""

    def read(value: Any) -> Any:
        if value in choices:
            return value
        near = did_you_mean(value, choices) if isinstance(value, str) else None
        hint = f'; did you mean "{near}"?' if near else ""
        raise ValueError(f"{shown(value)} is not {one_of(choices)}{hint}")

    return BeforeValidator(read)


@dataclass(frozen=True, slots=True)
class Kind:
    """What the reference calls a type of setting, an example, and how TOML writes a value."""

    name: str
    example: Any
    write: Callable[[Any], str] = json.dumps


def _quoted(write: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: json.dumps(write(value))


_as_text = PlainSerializer(str, return_type=str)
_duration = Kind("duration", "10s", _quoted(format_duration))
_text = _quoted(str)

Bool = Annotated[bool, Strict(), Kind("boolean", True)]
Count = Annotated[int, Strict(), Field(ge=1, le=1_000_000), Kind("number", 64)]
CountFromZero = Annotated[int, Strict(), Field(ge=0, le=1_000_000), Kind("number", 256)]
Status = Annotated[int, Strict(), Field(ge=200, le=599), Kind("status code", 200)]
ErrorStatus = Annotated[int, Strict(), Field(ge=400, le=599), Kind("status code", 503)]
Limit = Annotated[int, Strict(), Field(ge=0, le=1_000_000), Kind("number, 0 for none", 64)]
Fraction = Annotated[float, Strict(), Field(ge=0, le=1), Kind("number, 0 to 1", 0.2)]
SiteName = Annotated[str, Strict(), Kind("site", "shop")]
TokenSite = Annotated[str, Strict(), Kind('site or "*"', "shop")]
Size = Annotated[
    int,
    PlainValidator(parse_size),
    AfterValidator(_at_least_one),
    Kind("size", "64MiB", _quoted(format_size)),
]
SizeLimit = Annotated[
    int, PlainValidator(parse_size), Kind("size, 0 for none", "64MiB", _quoted(format_size))
]
Duration = Annotated[float, PlainValidator(parse_duration), _duration]
Timeout = Annotated[float, PlainValidator(parse_duration), AfterValidator(_some_time), _duration]
ListenAddress = Annotated[
    Address, PlainValidator(parse_address), _as_text, Kind("address", "0.0.0.0:80", _text)
]
Host = Annotated[str, PlainValidator(parse_host), Kind("host name", "www.shop.example")]
HostHeader = Annotated[
    str, PlainValidator(_host_header), Kind('"pass", "origin" or host name', "origin")
]
TrustedNetwork = Annotated[
    Network, PlainValidator(parse_network), _as_text, Kind("network", "10.0.0.0/8", _text)
]
FilePath = Annotated[
    Path, PlainValidator(_read_path), _as_text, Kind("path", "/etc/edgeproxy/file", _text)
]
AccessLogTarget = Annotated[
    Path | str,
    PlainValidator(_read_access_log),
    _as_text,
    Kind('"stdout", "off" or path', "/var/log/edgeproxy/access.log", _text),
]
Workers = Annotated[int | str, PlainValidator(_read_workers), Kind('number or "auto"', 4)]
FieldName = Annotated[str, Strict(), AfterValidator(_lower_name), Kind("field name", "cache-tag")]
ClientField = Annotated[
    FieldName, AfterValidator(_let_through), Kind("field name", "true-client-ip")
]
ErrorStatuses = Annotated[
    int | str, PlainValidator(_error_status), Kind('status code, "4xx" or "5xx"', 404)
]
Target = Annotated[str, Strict(), AfterValidator(_target), Kind("path", "/healthz")]
Parameter = Annotated[str, Strict(), AfterValidator(_parameter), Kind("query parameter", "utm_*")]
Name = Annotated[str, Strict(), AfterValidator(_name), Kind("name", "editors")]
TokenHash = Annotated[
    str, PlainValidator(_token_hash), Kind("hash", f"sha256:{'0123456789abcdef' * 4}")
]
AreaPick = Annotated[str, Strict(), AfterValidator(_area_pick), Kind("selector", "tag:menus")]
""" "everything", or KIND:WHAT with a kind of `AREA_KINDS`."""
CallRate = Annotated[Rate, PlainValidator(parse_rate), _as_text, Kind("rate", "100/60s", _text)]
Moment = Annotated[
    datetime,
    PlainValidator(_read_moment),
    PlainSerializer(datetime.isoformat, return_type=str),
    Kind("date and time", "2027-01-31T18:00:00Z", _quoted(datetime.isoformat)),
]
UpstreamUrl = Annotated[
    OriginUrl,
    PlainValidator(parse_origin_url),
    _as_text,
    Kind("origin URL", "http://127.0.0.1:3000", _text),
]
StoreLocation = Annotated[
    StoreUrl,
    PlainValidator(lambda value, info: parse_store_url(value, folder_of(info))),
    # With its password: workers get the configuration as JSON, over a socket of their own.
    PlainSerializer(lambda store: store.url(), return_type=str),
    Kind("store URL", "redis://127.0.0.1:6379/0", _text),
]
