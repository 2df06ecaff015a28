"""The whole configuration: the server's settings and its sites, and the checks between them.

    listen, admin, workers, runtime_dir, store, memory, log, limits     the server (server.py)
    default_site, sites                                                 the sites (site.py)

A Config is frozen, and goes through JSON unharmed: that is how workers get it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from edgeproxy.config import scalars
from edgeproxy.config.addresses import Address
from edgeproxy.config.checks import check_files, cross_check, reload_differences
from edgeproxy.config.errors import InvalidSettings, Problem
from edgeproxy.config.section import Section
from edgeproxy.config.server import (
    Admin,
    Limits,
    Listener,
    Log,
    Memory,
    Store,
    default_runtime_dir,
)
from edgeproxy.config.site import Site

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Config", "Problem", "Site"]


class Config(Section):
    """The whole configuration."""

    listen: tuple[Listener, ...] = Field(
        default=(Listener(address=Address("127.0.0.1", 8080)),),
        min_length=1,
        description="addresses where readers' connections are taken; without any, 127.0.0.1:8080",
    )
    admin: Admin = Field(default_factory=Admin, description="the admin port")
    workers: scalars.Workers = Field(
        default="auto", description='worker processes; "auto" is one for each core'
    )
    runtime_dir: scalars.FilePath = Field(
        default_factory=default_runtime_dir,
        description="folder for what is of use only while the server runs: the workers' sockets",
        json_schema_extra={"default": "$XDG_RUNTIME_DIR/edgeproxy, else /tmp/edgeproxy-UID"},
        examples=["/run/edgeproxy"],
    )
    store: Store = Field(default_factory=Store, description="the shared store")
    memory: Memory = Field(default_factory=Memory, description="the memory tier of each worker")
    log: Log = Field(default_factory=Log, description="what is logged")
    limits: Limits = Field(default_factory=Limits, description="what a connection may take")
    trusted_proxies: tuple[scalars.TrustedNetwork, ...] = Field(
        default=(),
        description="networks of the proxies in front, whose X-Forwarded-* and Forwarded fields "
        "are believed",
    )
    default_site: scalars.SiteName | None = Field(
        default=None,
        description="the site for hosts that no site names; if absent, they get 421",
    )
    sites: dict[scalars.Name, Site] = Field(min_length=1, description="the sites, by name")

    @model_validator(mode="after")
    def _check(self) -> Config:
        problems = cross_check(self)
        if problems:
            raise InvalidSettings(problems)
        return self

    def worker_count(self) -> int:
        """How many workers that is on this machine: "auto" counts the cores we may run on."""
        if isinstance(self.workers, int):
            return self.workers
        return min(len(os.sched_getaffinity(0)), scalars.MAX_WORKERS)

    def check_files(self) -> Sequence[Problem]:
        """Whether the files that it names are there and can be read. Reads the disk."""
        return check_files(self)

    def reload_differences(self, new: Config) -> list[str]:
        """What differs in `new` that a reload can't change, a line each: it takes a restart."""
        return reload_differences(self, new)
