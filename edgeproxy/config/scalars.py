"""The types of single settings: how each is read from TOML, and written to JSON for the workers.

TOML's types are taken strictly (`"5"` is no number, `1` is no boolean); what people write as text
(sizes, durations, addresses, URLs, paths) has its own reader.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
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
from edgeproxy.config.sizes import parse_duration, parse_size, shown
from edgeproxy.config.urls import (
    OriginUrl,
    StoreUrl,
    absolute,
    parse_origin_url,
    parse_store_url,
)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN_HASH = re.compile(r"sha256:[0-9a-f]{64}")
MAX_WORKERS = 256


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
        hint = f'did you mean "{near}"? ' if near else ""
        raise ValueError(
            f'{shown(value)} is not where a log can go; {hint}Give "stdout", "off", or a file '
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
    # Never quoted: whoever pastes the token itself here must not find it in a log.
    text = value.strip().lower() if isinstance(value, str) else ""
    if not _TOKEN_HASH.fullmatch(text):
        raise ValueError(
            "is not the hash of a token; write \"sha256:\" and the 64 hex digits that "
            "`printf %s TOKEN | sha256sum` prints"
        )
    return text


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


def choice(*choices: str) -> BeforeValidator:
    """One word of these; a near miss is answered with the word meant."""

    def read(value: Any) -> Any:
        if value in choices:
            return value
        near = did_you_mean(value, choices) if isinstance(value, str) else None
        hint = f'; did you mean "{near}"?' if near else ""
        raise ValueError(f"{shown(value)} is not {one_of(choices)}{hint}")

    return BeforeValidator(read)


_as_text = PlainSerializer(str, return_type=str)

Bool = StrictBool
Count = Annotated[StrictInt, Field(ge=1, le=1_000_000)]
Fraction = Annotated[StrictFloat, Field(ge=0, le=1)]
Text = StrictStr
Size = Annotated[int, PlainValidator(parse_size), AfterValidator(_at_least_one)]
Duration = Annotated[float, PlainValidator(parse_duration)]
Timeout = Annotated[float, PlainValidator(parse_duration), AfterValidator(_some_time)]
ListenAddress = Annotated[Address, PlainValidator(parse_address), _as_text]
Host = Annotated[str, PlainValidator(parse_host)]
HostHeader = Annotated[str, PlainValidator(_host_header)]
TrustedNetwork = Annotated[Network, PlainValidator(parse_network), _as_text]
FilePath = Annotated[Path, PlainValidator(_read_path), _as_text]
AccessLogTarget = Annotated[Path | str, PlainValidator(_read_access_log), _as_text]
Workers = Annotated[int | str, PlainValidator(_read_workers)]
FieldName = Annotated[StrictStr, AfterValidator(_lower_name)]
Parameter = Annotated[StrictStr, AfterValidator(_parameter)]
Name = Annotated[StrictStr, AfterValidator(_name)]
TokenHash = Annotated[str, PlainValidator(_token_hash)]
UpstreamUrl = Annotated[OriginUrl, PlainValidator(parse_origin_url), _as_text]
StoreLocation = Annotated[
    StoreUrl,
    PlainValidator(lambda value, info: parse_store_url(value, folder_of(info))),
    # With its password: workers get the configuration as JSON, over a socket of their own.
    PlainSerializer(lambda store: store.url(), return_type=str),
]
