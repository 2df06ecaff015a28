"""Who calls the admin port: tokens known by their hash, and whether they are good right now."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edgeproxy.admin.refusals import Limit, Refused, Why

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.admin.incoming import Incoming
    from edgeproxy.config.hashes import SecretHash
    from edgeproxy.config.rates import Rate
    from edgeproxy.config.server import Action, AdminToken
    from edgeproxy.invalidation.ledger import Ledger
    from edgeproxy.semantics.environment import Environment

# A longer one is nobody's; hashing it would only be work for a stranger to give.
_MAX_SECRET = 4096
_MAX_QUEUE = 8
"""Calls that wait for scrypt in a worker; a stranger who sends more keeps others waiting no longer
than that, and those whose secret was verified once not at all."""
_BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a call claims to be: a secret, and where the dialect has two, the second one."""

    secret: str = field(repr=False)
    access: str | None = field(default=None, repr=False)


def bearer(incoming: Incoming, *, bare: bool = False) -> Credentials | None:
    """The credentials in `Authorization: Bearer TOKEN`; `bare`: or in the token alone."""
    token = incoming.bearer(bare=bare)
    return None if token is None else Credentials(token)


class Grant(Protocol):
    """Who calls, and what that one may do: a token, or what else lets somebody in."""

    @property
    def name(self) -> str: ...
    @property
    def environments(self) -> Sequence[Environment]: ...
    def serves(self, site: str) -> bool: ...
    def may(self, action: Action, site: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Known:
    """A token with its hashes parsed."""

    token: AdminToken
    secret: SecretHash
    access: SecretHash | None


class Authenticator:
    """The tokens of a configuration, told by their secrets.

    Every secret is compared with every token, in constant time: how long it takes tells nothing of
    which one nearly fits. Hashes that are slow on purpose are compared in a thread, one call at a
    time, and each secret that fits one is remembered (as a keyed digest) until the next reload.
    """

    def __init__(self, tokens: Sequence[AdminToken]) -> None:
        self._tokens = tuple(_Known(token, token.secret, token.access) for token in tokens)
        self._verified: dict[bytes, SecretHash] = {}
        self._key = secrets.token_bytes(32)
        self._turn = asyncio.Semaphore(1)
        self._queue = 0

    async def identify(self, credentials: Credentials) -> AdminToken | None:
        """The token whose secrets these are, be it good or not. Raises `Refused` BUSY."""
        secret = _bytes(credentials.secret)
        found = await self._fitting([known.secret for known in self._tokens], secret)
        if found is None:
            return None
        known = next(each for each in self._tokens if each.secret is found)
        if credentials.access is not None:
            hashes = [] if known.access is None else [known.access]
            if await self._fitting(hashes, _bytes(credentials.access)) is None:
                return None
        return known.token

    async def _fitting(self, hashes: Sequence[SecretHash], secret: bytes) -> SecretHash | None:
        """The hash that is that secret's."""
        if not 0 < len(secret) <= _MAX_SECRET:
            return None
        found = _first([each for each in hashes if not each.slow], secret)
        slow = [each for each in hashes if each.slow]
        if found is not None or not slow:
            return found
        digest = hashlib.blake2b(secret, key=self._key, digest_size=32).digest()
        remembered = self._verified.get(digest)
        if remembered in slow:
            return remembered
        if self._queue >= _MAX_QUEUE:
            detail = "too many secrets are being checked; try again"
            raise Refused(Why.BUSY, detail, retry_after=_BUSY_SECONDS)
        self._queue += 1
        try:
            async with self._turn:
                found = await asyncio.to_thread(_first, slow, secret)
        finally:
            self._queue -= 1
        if found is not None:
            # No more of these than there are hashes: one secret fits one hash.
            self._verified[digest] = found
        return found


def _bytes(secret: str) -> bytes:
    # As the bytes came in a field; what JSON can hold and no bytes can be is nobody's.
    try:
        return secret.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return b""


def _first(hashes: Sequence[SecretHash], secret: bytes) -> SecretHash | None:
    """The hash that fits; all are compared, always."""
    fitting = [each for each in hashes if each.matches(secret)]
    return fitting[0] if fitting else None


async def admit(
    credentials: Credentials | None,
    authenticator: Authenticator,
    ledger: Ledger,
    *,
    client: str,
    dialect: str,
    rate: Rate | None,
    now: float,
) -> AdminToken:
    """The token of a call, good at `now` (seconds since the epoch) and from `client`; the call is
    counted. `rate` is the dialect's own limit. Raises `Refused`."""
    if credentials is None:
        raise Refused(Why.NO_CREDENTIALS, "a token is needed")
    token = await authenticator.identify(credentials)
    if token is None:
        raise Refused(Why.UNKNOWN_TOKEN, "the token is not known")
    if not token.enabled:
        raise Refused(Why.DISABLED, f'the token "{token.name}" is disabled')
    if token.expires is not None and token.expires.timestamp() <= now:
        raise Refused(Why.EXPIRED, f'the token "{token.name}" has expired')
    if not token.may_come_from(client):
        raise Refused(Why.WRONG_NETWORK, f'the token "{token.name}" is not good from {client}')
    windows = [
        (subject, each)
        for subject, each in ((token.name, token.rate), (f"{token.name} {dialect}", rate))
        if each is not None
    ]
    full = ledger.take(windows, now)
    if full is not None:
        raise Refused(
            Why.RATE_LIMITED,
            f'the token "{token.name}" may make {full.rate.calls} calls in '
            f"{full.rate.seconds:g} seconds",
            limit=Limit(full.rate.calls, full.reset),
            retry_after=full.reset - now,
        )
    if token.max_calls is not None and not ledger.count_call(token.name, token.max_calls):
        detail = f'the token "{token.name}" was good for {token.max_calls} calls'
        raise Refused(Why.OVER_CALL_LIMIT, detail)
    return token


def require(token: Grant, action: Action, sites: Sequence[str]) -> None:
    """Raise `Refused` unless the token may do `action` to each of the sites."""
    for site in sites:
        if not token.may(action, site):
            detail = f'the token "{token.name}" may not {action} on site "{site}"'
            raise Refused(Why.FORBIDDEN, detail, site=site)


def permitted(token: Grant, action: Action, sites: Sequence[str]) -> list[str]:
    """Those of the sites that the token may do `action` to; raises `Refused` if none."""
    allowed = [site for site in sites if token.may(action, site)]
    if not allowed:
        detail = f'the token "{token.name}" may not {action} on any site'
        raise Refused(Why.FORBIDDEN, detail)
    return allowed


def environment_of(token: Grant, asked: str | None) -> Environment | None:
    """The environment that a call is about; None is all. Raises `Refused` if it may not be.

    Who asks for none means all that the token is good for.
    """
    if asked is None:
        return token.environments[0] if len(set(token.environments)) == 1 else None
    for environment in token.environments:
        if environment == asked:
            return environment
    detail = f'the token "{token.name}" is not good for environment "{asked}"'
    raise Refused(Why.FORBIDDEN, detail)
