"""The configuration that is in force: what a reload may change, and whose tokens are good."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

from edgeproxy.config.errors import ConfigError
from edgeproxy.config.hashes import sha256_hash
from edgeproxy.config.server import AdminToken
from edgeproxy.runtime.access_log import AccessLogSettings
from edgeproxy.runtime.tls import CertificateRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.config.model import Config

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "EDGEPROXY_ADMIN_TOKEN"  # noqa: S105 - the name of a variable


class FallbackToken:
    """Who may use the admin port where the configuration names nobody.

    That is who knows the secret of the environment, or one that is made, and told once, if there is
    none.
    """

    def __init__(self, secret: str | None, announce: Callable[[str], None]) -> None:
        self._token = _token("environment", secret) if secret else None
        self._announce = announce

    def complete(self, config: Config) -> Config:
        """`config` with this token, unless it has tokens of its own."""
        if config.admin.tokens:
            return config
        if self._token is None:
            secret = secrets.token_hex(24)
            self._token = _token("generated", secret)
            self._announce(f"admin token, made for this run (or set {TOKEN_VARIABLE}): {secret}")
        admin = config.admin.model_copy(update={"tokens": (self._token,)})
        return config.model_copy(update={"admin": admin})


def _token(name: str, secret: str) -> AdminToken:
    return AdminToken(name=name, hash=sha256_hash(secret.encode("utf-8", "surrogateescape")))


def reloaded(running: Config, new: Config) -> Config:
    """`new`, but for what only a restart can change: that is as in `running`."""
    by_address = {listener.address: listener for listener in new.listen}
    listeners = []
    for old in running.listen:
        fresh = by_address.get(old.address, old)
        listeners.append(fresh if (fresh.tls is None) == (old.tls is None) else old)
    return new.model_copy(
        update={
            "listen": tuple(listeners),
            "admin": new.admin.model_copy(update={"address": running.admin.address}),
            "workers": running.workers,
            "runtime_dir": running.runtime_dir,
            "store": running.store,
            "memory": running.memory,
        }
    )


def tell_refused(error: Exception) -> None:
    """Log why a configuration was not taken over."""
    expected = isinstance(error, (ConfigError, CertificateRefused))
    for line in str(error).splitlines() if expected else ["the configuration can't be read"]:
        log.error("%s", line, exc_info=None if expected else error)
    log.error("the configuration was not reloaded; the old one stays in force")


def access_log_settings(config: Config) -> AccessLogSettings:
    """Where the access log goes, and how a line looks."""
    return AccessLogSettings(str(config.log.access), config.log.format)
