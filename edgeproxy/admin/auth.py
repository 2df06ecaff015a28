"""Who calls the admin API, and what they may do: bearer tokens (RFC 6750), known by their hash."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from edgeproxy.admin.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.config.server import Action, AdminToken

# A longer one is nobody's; hashing it would only be work for a stranger to give.
_MAX_TOKEN = 4096


class Authenticator:
    """The tokens that are good, and what each may do."""

    def __init__(self, tokens: Sequence[AdminToken]) -> None:
        self._tokens = tuple(tokens)

    def identify(self, authorization: str | None) -> AdminToken:
        """The token that an Authorization field bears; raises `Problem` 401."""
        challenge = {"WWW-Authenticate": 'Bearer realm="edgeproxy"'}
        if authorization is None:
            raise Problem(401, "send Authorization: Bearer TOKEN", headers=challenge)
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip(" ")
        if scheme.lower() != "bearer" or not secret or len(secret) > _MAX_TOKEN:
            raise Problem(401, "Authorization must be: Bearer TOKEN", headers=challenge)
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        known: AdminToken | None = None
        # All of them, always: the time taken tells nothing of which one nearly fits.
        for token in self._tokens:
            if hmac.compare_digest(token.digest, digest):
                known = token
        if known is None:
            raise Problem(401, "the token is not known", headers=challenge)
        return known


def require(token: AdminToken, action: Action, sites: Sequence[str]) -> None:
    """Raise `Problem` 403 unless the token may do `action` to each of the sites."""
    for site in sites:
        if not token.may(action, site):
            raise Problem(403, f'the token "{token.name}" may not {action} on site "{site}"')


def permitted(token: AdminToken, action: Action, sites: Sequence[str]) -> list[str]:
    """Those of the sites that the token may do `action` to; raises `Problem` 403 if none."""
    allowed = [site for site in sites if token.may(action, site)]
    if not allowed:
        raise Problem(403, f'the token "{token.name}" may not {action} on any site')
    return allowed
