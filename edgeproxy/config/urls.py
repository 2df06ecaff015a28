"""What the URLs of a configuration mean: an origin's, and a store's."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from edgeproxy.config.addresses import is_host_name, normal_host
from edgeproxy.config.errors import did_you_mean
from edgeproxy.config.sizes import shown, text_of

_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIS_PORT = 6379
_STORE_FORMS = '"lmdb:FOLDER", "memory:" or "redis://HOST:PORT/DB"'
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,15}):")


@dataclass(frozen=True, slots=True)
class OriginUrl:
    """Where an origin is. `host` is without brackets when it is IPv6, as connecting wants it."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """What its Host field says: no port where it is the scheme's own (RFC 9110 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_origin_url(value: object) -> OriginUrl:
    """An origin's scheme, host and port. Raises ValueError, with what would be right."""
    if isinstance(value, OriginUrl):
        return value
    text = text_of(value, 'a URL such as "http://127.0.0.1:3000"')
    if "://" not in text:
        raise ValueError(f'{shown(value)} has no scheme; write "http://..." or "https://..."')
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        # Not echoed from here on: what stands before an "@" may be a password.
        raise ValueError("is not a URL; the port must be between 1 and 65535") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f'the scheme must be http or https, got "{parts.scheme}"')
    host = normal_host(f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.netloc)
    if "@" in parts.netloc:
        raise ValueError("has a user name or password in it; an origin URL can't log in: drop it")
    if not is_host_name(host) and not host.startswith("["):
        raise ValueError(f'{shown(value)} has no valid host; write "http://HOST:PORT"')
    if port == 0:
        raise ValueError(f"{shown(value)}: the port must be between 1 and 65535")
    origin = OriginUrl(
        parts.scheme, host.strip("[]"), _DEFAULT_PORTS[parts.scheme] if port is None else port
    )
    for name, extra in (
        ("path", parts.path.removeprefix("/")),
        ("query", parts.query or ("?" in text)),
        ("fragment", parts.fragment or ("#" in text)),
    ):
        if extra:
            raise ValueError(
                f"{shown(value)} has a {name}; the reader's own target is forwarded as it is, "
                f'so give scheme, host and port alone: "{origin}"'
            )
    return origin


@dataclass(frozen=True, slots=True)
class LmdbStore:
    """On disk, shared by all workers, kept over restarts."""

    directory: Path

    def url(self) -> str:
        return f"lmdb:{self.directory}"

    def __str__(self) -> str:
        return self.url()


@dataclass(frozen=True, slots=True)
class MemoryStore:
    """In each worker's own memory, through aiocache; gone with the worker."""

    def url(self) -> str:
        return "memory:"

    def __str__(self) -> str:
        return self.url()


@dataclass(frozen=True, slots=True)
class AiocacheStore:
    """Bodies in Redis or Valkey, through aiocache; `tls` for rediss://. Text forms hide secrets."""

    host: str
    port: int = _REDIS_PORT
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False

    def url(self) -> str:
        """The whole URL, password and all: for handing on, never for showing."""
        return self._url(None if self.password is None else quote(self.password, safe=""))

    def __str__(self) -> str:
        return self._url(None if self.password is None else "***")

    def _url(self, password: str | None) -> str:
        user = quote(self.username or "", safe="")
        login = f"{user}@" if user else ""
        if password is not None:
            login = f"{user}:{password}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{login}{host}:{self.port}/{self.db}"


StoreUrl = LmdbStore | MemoryStore | AiocacheStore


def parse_store_url(value: object, folder: Path) -> StoreUrl:
    """Where stored responses live; a relative folder is below `folder`.

    Raises ValueError, with what would be right; never with what may be a password.
    """
    if isinstance(value, LmdbStore | MemoryStore | AiocacheStore):
        return value
    text = text_of(value, _STORE_FORMS)
    scheme = match[1].lower() if (match := _SCHEME.match(text)) else ""
    rest = text[len(scheme) + 1 :]
    if scheme == "lmdb":
        return LmdbStore(_store_folder(rest, folder))
    if scheme == "memory":
        if rest.strip("/"):
            raise ValueError('the memory store has no name and no options; write "memory:"')
        return MemoryStore()
    if scheme in ("redis", "rediss"):
        return _redis(text, scheme)
    if not scheme and text.startswith(("/", "~", ".")):
        raise ValueError(f'{shown(value)} does not name the kind of store; write "lmdb:{text}"')
    near = did_you_mean(scheme, ("lmdb", "memory", "redis", "rediss"))
    advice = f'did you mean "{near}:"? Write' if near else "write"
    what = f'"{scheme}:" is not a kind of store' if scheme else "is not the URL of a store"
    raise ValueError(f"{what}; {advice} {_STORE_FORMS}")


def _store_folder(text: str, folder: Path) -> Path:
    if not text.strip("/"):
        raise ValueError('names no folder; write "lmdb:/var/cache/edgeproxy"')
    if text.startswith("//"):
        raise ValueError(f'a folder follows "lmdb:" directly; write "lmdb:/{text.lstrip("/")}"')
    return absolute(text, folder)


def _redis(text: str, scheme: str) -> AiocacheStore:
    form = (
        f'write "{scheme}://HOST:PORT/DB", or with a login "{scheme}://USER:PASSWORD@HOST:PORT/DB"'
    )
    try:
        parts = urlsplit(text)
        port = _REDIS_PORT if parts.port is None else parts.port
    except ValueError:
        raise ValueError(
            f"the port must be between 1 and 65535; {form}, special characters of the password "
            "percent-encoded"
        ) from None
    if not parts.hostname:
        raise ValueError(f"names no host; {form}")
    if port == 0:
        raise ValueError(f"the port must be between 1 and 65535; {form}")
    if parts.query or parts.fragment:
        raise ValueError(f"has a query or fragment, which mean nothing here; {form}")
    db = parts.path.removeprefix("/") or "0"
    if not re.fullmatch(r"[0-9]{1,5}", db):
        raise ValueError(f"the database must be a number; {form}")
    return AiocacheStore(
        host=parts.hostname,
        port=port,
        db=int(db),
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=scheme == "rediss",
    )


def absolute(text: str, folder: Path) -> Path:
    """A path as people write it, made absolute: `~` is the user's home, the rest below `folder`.

    Raises ValueError.
    """
    if "\0" in text:
        raise ValueError(f"no path has a NUL character in it; got {shown(text)}")
    try:
        return Path(os.path.normpath(folder / Path(text).expanduser()))
    except RuntimeError:
        raise ValueError(f"no home folder is known for {shown(text)}; write it out") from None


def cache_folder() -> Path:
    """The user's cache folder for edgeproxy: $XDG_CACHE_HOME or ~/.cache, then /edgeproxy."""
    # The XDG specification says that a relative value is to be ignored.
    configured = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(configured) if configured.startswith("/") else Path("~/.cache").expanduser()
    return base / "edgeproxy"
