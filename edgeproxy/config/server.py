"""The settings of the server as a whole: where it listens, stores and logs, and its limits."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from edgeproxy.config import scalars
from edgeproxy.config.addresses import Address, is_ip_address, normal_host, within
from edgeproxy.config.dialects import Dialects
from edgeproxy.config.hashes import parse_hash
from edgeproxy.config.section import Section
from edgeproxy.config.urls import AiocacheStore, LmdbStore, cache_folder
from edgeproxy.semantics.environment import ENVIRONMENTS, Environment

if TYPE_CHECKING:
    from edgeproxy.config.hashes import SecretHash

KIB = 2**10
MIB = 2**20
GIB = 2**30

Action: TypeAlias = Literal["purge", "purge-everything", "read", "issue-token"]
ACTIONS: tuple[Action, ...] = ("purge", "purge-everything", "read", "issue-token")
"""Purging what is named, and a whole site; looking; issuing cache-buster tokens."""


class Certificate(Section):
    """A certificate and its key; reloaded from the files with the configuration."""

    cert: scalars.FilePath = Field(
        description="file with the certificate chain (PEM), own one first",
        examples=["/etc/edgeproxy/shop.pem"],
    )
    key: scalars.FilePath = Field(
        description="file with its private key (PEM, not encrypted)",
        examples=["/etc/edgeproxy/shop.key"],
    )


class ListenerTls(Section):
    """TLS of one listener."""

    certificates: tuple[Certificate, ...] = Field(
        min_length=1,
        description="what to speak TLS with, chosen by the server name that a reader asks for "
        "(SNI); the first one answers where none fits",
    )


class Listener(Section):
    """An address where readers' connections are taken."""

    address: scalars.ListenAddress = Field(description="HOST:PORT to take connections on")
    tls: ListenerTls | None = Field(default=None, description="speak TLS here")


class AdminToken(Section):
    """Who may do what on the admin port. Only the hash of the secret is here."""

    name: scalars.Name = Field(description="who it is: appears in the journal and in logs")
    hash: scalars.TokenHash = Field(
        repr=False,
        description='"sha256:" and the SHA-256 of a long random token, in hex; for a secret that '
        "people chose, `scrypt:...`; `edgeproxy token new` makes both",
    )
    access_hash: scalars.TokenHash | None = Field(
        default=None,
        repr=False,
        description="the hash of a second secret, for dialects whose calls bear two (Flextype)",
    )
    sites: tuple[scalars.TokenSite, ...] = Field(
        default=("*",), min_length=1, description='names of the sites it is good for; "*" is all'
    )
    environments: tuple[Annotated[Environment, scalars.choice(*ENVIRONMENTS)], ...] = Field(
        default=ENVIRONMENTS, min_length=1, description="the environments it may purge"
    )
    actions: tuple[Annotated[Action, scalars.choice(*ACTIONS)], ...] = Field(
        default=ACTIONS,
        min_length=1,
        description="what it may do: purge what it names, purge-everything of a site, read, "
        "issue-token (cache busters)",
    )
    enabled: scalars.Bool = Field(
        default=True, description="false: it is known, and refused as disabled"
    )
    expires: scalars.Moment | None = Field(
        default=None, description="when it ends to be good; if absent, never"
    )
    max_calls: scalars.Count | None = Field(
        default=None,
        description="how many calls it is good for, all workers and restarts together",
        examples=[1000],
    )
    rate: scalars.CallRate | None = Field(
        default=None, description="calls that it may make in a time, whatever the dialect"
    )
    networks: tuple[scalars.TrustedNetwork, ...] = Field(
        default=(), description="where it may be used from; if empty, from everywhere"
    )

    @property
    def secret(self) -> SecretHash:
        """What its secret is known by."""
        return parse_hash(self.hash)

    @property
    def access(self) -> SecretHash | None:
        """What its second secret is known by, if it has one."""
        return None if self.access_hash is None else parse_hash(self.access_hash)

    def serves(self, site: str) -> bool:
        """Whether it is good for that site."""
        return "*" in self.sites or site in self.sites

    def may(self, action: Action, site: str) -> bool:
        """Whether it may do that to that site."""
        return action in self.actions and self.serves(site)

    def may_come_from(self, client: str) -> bool:
        """Whether it may be used from that IP address."""
        return not self.networks or within(client, self.networks)


class Admin(Section):
    """The admin port: purging, and looking into the cache."""

    address: scalars.ListenAddress = Field(
        default=Address("127.0.0.1", 8081),
        description="HOST:PORT of the admin API",
        examples=["10.0.0.5:8081"],
    )
    tokens: tuple[AdminToken, ...] = Field(
        default=(),
        description="who may use the admin API; without any, the token in the environment's "
        "EDGEPROXY_ADMIN_TOKEN may do all, else one that is made and printed at start",
    )
    allowed_hosts: tuple[scalars.Host, ...] = Field(
        default=(),
        description="host names by which the admin port may be called, besides localhost, IP "
        "addresses and the host of `address`; others are refused (DNS rebinding)",
        examples=[["admin.shop.example"]],
    )
    max_connections: scalars.Count = Field(
        default=1000,
        description="most connections of the admin port to each worker; one more gets 503",
        examples=[100],
    )
    refresh_rate: scalars.Count = Field(
        default=50,
        description="most fetches a second of one job that fetches anew what a purge picked",
        examples=[500],
    )
    dialects: Dialects = Field(
        default_factory=Dialects, description="the vendors' APIs that are spoken here"
    )

    def allows_host(self, host: str) -> bool:
        """Whether a request whose Host field says that is answered.

        A page that a browser was lured to can reach the port only by a name of its own (DNS
        rebinding), so addresses are safe to let through.
        """
        name = normal_host(host)
        if name in ("localhost", self.address.host) or is_ip_address(name):
            return True
        if any(settings.host == name for _, settings in self.dialects.named()):
            return True
        parents = (f"*.{name[at + 1 :]}" for at, char in enumerate(name) if char == ".")
        return name in self.allowed_hosts or any(one in self.allowed_hosts for one in parents)


def fit_object_size(tier: Store | Memory) -> None:
    """A default that is larger than the whole tier is no more than that; one that was set stays."""
    if "max_object_bytes" not in tier.model_fields_set:
        # The one way to set a field of a frozen model, allowed to its own validators.
        tier.__dict__["max_object_bytes"] = min(tier.max_object_bytes, tier.max_bytes)


class Store(Section):
    """The shared store: what is kept beyond a worker's memory."""

    url: scalars.StoreLocation = Field(
        default_factory=lambda: LmdbStore(cache_folder() / "store"),
        description="lmdb:FOLDER (on disk), redis://HOST:PORT/DB or rediss://... (bodies in Redis "
        "or Valkey), memory: (bodies in each worker's own memory)",
        json_schema_extra={"default": "lmdb:~/.cache/edgeproxy/store"},
    )
    max_bytes: scalars.Size = Field(
        default=2 * GIB,
        description="how much may be stored; what is least worth keeping goes first",
        examples=["20GiB"],
    )
    max_object_bytes: scalars.Size = Field(
        default=256 * MIB,
        description="longest body that is stored; longer ones pass through",
        examples=["1GiB"],
    )
    state_dir: scalars.FilePath | None = Field(
        default=None,
        description="folder for the journal and the index where the store is not lmdb: (which "
        "keeps them in its own); if absent, one in the user's cache folder for redis://, and a "
        "temporary one for memory:",
        examples=["/var/lib/edgeproxy"],
    )

    journal_records: scalars.Count = Field(
        default=100_000,
        description="most purges that the journal keeps once they have been dealt with, to be "
        "looked at; the oldest go",
        examples=[10_000],
    )
    journal_conditional: scalars.Count = Field(
        default=1000,
        description="most purges by pattern, or with a deadline, of one place that may wait to be "
        "applied; one more is refused (503)",
        examples=[200],
    )

    @model_validator(mode="after")
    def _check(self) -> Store:
        fit_object_size(self)
        return self

    @property
    def directory(self) -> Path | None:
        """Where the journal and the index live; None: in a temporary folder, for one run."""
        if isinstance(self.url, LmdbStore):
            return self.url.directory
        if self.state_dir is None and isinstance(self.url, AiocacheStore):
            # Another Redis holds other bodies: its index must not be taken for this one's.
            place = f"{self.url.host}:{self.url.port}/{self.url.db}".encode()
            return cache_folder() / f"state-{hashlib.sha256(place).hexdigest()[:12]}"
        return self.state_dir


class Memory(Section):
    """The memory tier of each worker: responses rendered ready to send."""

    max_bytes: scalars.Size = Field(
        default=48 * MIB, description="how much each worker keeps in memory", examples=["512MiB"]
    )
    max_object_bytes: scalars.Size = Field(
        default=MIB,
        description="longest body that is kept in memory, rather than in the store",
        examples=["4MiB"],
    )
    uncacheable_keys: scalars.Count = Field(
        default=65_536,
        description="most URLs that each worker remembers as uncacheable; the one that was noted "
        "longest ago goes",
        examples=[10_000],
    )

    @model_validator(mode="after")
    def _check(self) -> Memory:
        fit_object_size(self)
        return self


class Log(Section):
    """What is written about what happens."""

    access: scalars.AccessLogTarget = Field(
        default="stdout", description='where the access log goes: "stdout", "off", or a file'
    )
    format: Annotated[Literal["common", "json"], scalars.choice("common", "json")] = Field(
        default="common", description='how a line of the access log looks: "common" or "json"'
    )
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        scalars.choice("debug", "info", "warning", "error"),
    ] = Field(default="info", description="least weight of what the server's own log tells")


def _head_size(size: int) -> int:
    if not KIB <= size <= MIB:
        raise ValueError("must be between 1KiB and 1MiB")
    return size


def _hang_timeout(seconds: float) -> float:
    # Event loops show that they turn once a second, and one of those may be missed.
    if seconds < 2:
        raise ValueError("must be 2s or more")
    return seconds


class Limits(Section):
    """What readers may take: each connection, each client, and all together."""

    head_bytes: Annotated[scalars.Size, AfterValidator(_head_size)] = Field(
        default=64 * KIB,
        description="longest request head, all fields together",
        examples=["32KiB"],
    )
    max_fields: Annotated[scalars.Count, Field(le=10_000)] = Field(
        default=128, description="most header fields in a request"
    )
    body_bytes: scalars.SizeLimit = Field(
        default=16 * GIB,
        description="longest body of a request: one that is, or grows, longer is refused (413); "
        "0: no limit",
        examples=["100MiB"],
    )
    header_timeout: scalars.Timeout = Field(
        default=10.0,
        description="how long a reader may take to send a request's head",
        examples=["5s"],
    )
    body_idle_timeout: scalars.Timeout = Field(
        default=60.0,
        description="how long a reader may pause while sending or taking a body",
        examples=["2m"],
    )
    min_body_rate: scalars.Limit = Field(
        default=250,
        description="bytes a second that a reader must send or take of a body on the average, once "
        "it has made the edge wait for `body_idle_timeout`; 0: a byte now and then will do",
        examples=[1000],
    )
    keepalive_timeout: scalars.Timeout = Field(
        default=75.0, description="how long a connection may idle between requests"
    )
    hang_timeout: Annotated[scalars.Timeout, AfterValidator(_hang_timeout)] = Field(
        default=30.0,
        description="how long a worker's event loop may stand still, 2 s or more; then the worker "
        "is killed, and another one takes its place",
        examples=["2m"],
    )
    drain_timeout: scalars.Timeout = Field(
        default=30.0, description="how long requests in flight may take to end at a shutdown"
    )
    max_connections: scalars.Count | None = Field(
        default=None,
        description="most readers' connections of each worker: those beyond wait to be accepted, "
        "and idle ones are closed for them; if absent, three quarters of the files that a process "
        "may have open (RLIMIT_NOFILE, raised to its hard limit), but at most 50000",
        examples=[20_000],
    )
    max_connections_per_client: scalars.Limit | None = Field(
        default=None,
        description="most connections of one address (of one /64 with IPv6) to each worker, "
        "`trusted_proxies` excepted; 0: no limit; if absent, half of `max_connections`, and none "
        "for this machine itself",
        examples=[1000],
    )
    max_requests: scalars.Count = Field(
        default=10_000,
        description="most requests of each worker under way at once, fresh hits not counted, "
        "WebSockets and downloads among them: those beyond wait two seconds, then get 503",
        examples=[2000],
    )
    max_waiting: scalars.Count = Field(
        default=10_000,
        description="most requests of each worker that wait to get in; one more gets 503 at once, "
        "and its connection ends",
        examples=[2000],
    )
    miss_share: scalars.Fraction = Field(
        default=0.05,
        description="the part of a worker's processor time for all that is no fresh hit, as long "
        "as fresh hits would use the rest; 1: hits have no precedence",
        examples=[0.3],
    )


def default_runtime_dir() -> Path:
    """$XDG_RUNTIME_DIR/edgeproxy, else a folder of this user's in the system's temporary one."""
    configured = os.environ.get("XDG_RUNTIME_DIR", "")
    if configured.startswith("/"):
        return Path(configured) / "edgeproxy"
    return Path(tempfile.gettempdir()) / f"edgeproxy-{os.getuid()}"
