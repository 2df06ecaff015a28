"""One call in a dialect, from a token that is good: what it may do, and how it is done."""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from edgeproxy.admin.auth import environment_of, require
from edgeproxy.admin.refusals import Fault, Refused, Why
from edgeproxy.invalidation.service import Caller

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeproxy.admin.incoming import Incoming
    from edgeproxy.config.server import Action, AdminToken
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.invalidation.selectors import Mode, Selector
    from edgeproxy.invalidation.service import IssuedBuster
    from edgeproxy.proxy.edge import Edge


@dataclass(frozen=True, slots=True)
class Done:
    """A purge that is in force, or was counted."""

    id: str
    """The journal's; of what left no record there, one that is nobody's."""
    matched: int


@dataclass
class Call:
    """One call: a dialect's handler reads it, names sites and selectors, and has them purged."""

    incoming: Incoming
    token: AdminToken
    dialect: str
    parts: Mapping[str, str]
    """What the path's `{names}` stand for."""
    options: Any
    """The dialect's section of the configuration."""
    edge: Edge
    dry_run: bool
    matched: int | None = field(default=None, init=False)
    """What its purges picked, added up; None: there was none."""

    # -- what it is about

    def site(self, named: str | None = None) -> str:
        """The site that is named, else the only one that the token is good for.

        Raises `Refused`: FORBIDDEN for one that is not the token's, be it there or not.
        """
        known = self.edge.sites.policies
        if named:
            if not self.token.serves(named):
                detail = f'the token "{self.token.name}" is not good for site {named!r}'
                raise Refused(Why.FORBIDDEN, detail, site=named)
            if named not in known:
                raise Refused(Why.UNKNOWN_SITE, f"there is no site {named!r}", site=named)
            return named
        sites = [name for name in known if self.token.serves(name)]
        if len(sites) != 1:
            fault = Fault("site", "the token is good for several sites; name one", "required")
            raise Refused.bad_request(fault)
        return sites[0]

    def policy(self, site: str) -> SitePolicy:
        """The policy of a site: how it makes its keys, and the like."""
        return self.edge.sites.policies[site]

    # -- doing it

    async def purge(
        self,
        selectors: Sequence[Selector],
        mode: Mode,
        *,
        deadline: float = 0.0,
    ) -> Done:
        """Invalidate or delete what any of the selectors picks; with none, that is a success.

        Selectors without an environment are for all that the token is good for.
        `deadline`: seconds for which what is deleted may still be served stale, MAX_DEADLINE at
        most. A selector of everything needs the action purge-everything. Raises `Refused`,
        JournalError and TooManyRules.
        """
        within = []
        for selector in selectors:
            action: Action = "purge-everything" if selector.everything else "purge"
            require(self.token, action, [selector.site])
            environment = environment_of(self.token, selector.environment)
            within.append(msgspec.structs.replace(selector, environment=environment))
        if not selectors:
            self.matched = self.matched or 0
            return Done(secrets.token_hex(16), 0)
        result = await self.edge.service.purge(
            within,
            mode,
            self._caller,
            deadline=deadline,
            dry_run=self.dry_run,
        )
        self.matched = (self.matched or 0) + result.matched
        return Done(result.id or secrets.token_hex(16), result.matched)

    async def issue_buster(
        self, site: str, *, host: str | None = None, target: bytes = b""
    ) -> IssuedBuster:
        """Issue a cache buster for a site, one of its hosts or one canonical target.

        Needs the action issue-token. Raises `Refused`, for a dry run too, and JournalError.
        """
        require(self.token, "issue-token", [site])
        if self.dry_run:
            fault = Fault("Edge-Dry-Run", "a token that is not issued would be good for nothing")
            raise Refused.bad_request(fault)
        return await self.edge.service.issue_buster(site, self._caller, host=host, target=target)

    @property
    def _caller(self) -> Caller:
        return Caller(self.token.name, self.incoming.client, self.dialect)


def text_fault(value: object, field: str, longest: int, least: int = 1) -> Fault | None:
    """What is wrong with a text of `least` to `longest` characters, such as a tag.

    No tag has control characters (RFC 9110 5.5 lets no field bear them), nor halves of surrogate
    pairs, which JSON can write and nothing can send.
    """
    if not isinstance(value, str):
        return Fault(field, "must be a text", "type")
    if len(value) < least:
        return Fault(field, "must not be empty", "min_length")
    if len(value) > longest:
        return Fault(field, f"must have at most {longest} characters", "max_length")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        return Fault(field, "must not have control characters", "format")
    return None


def texts(value: object, field: str, *, most: int, longest: int, least: int = 0) -> Sequence[str]:
    """A list of so many texts, each as `text_fault` has it; raises `Refused` with all faults."""
    faults = list_faults(value, field, most, least)
    if isinstance(value, list) and not faults:
        found = (text_fault(each, f"{field}[{at}]", longest) for at, each in enumerate(value))
        faults = [fault for fault in found if fault is not None]
        if not faults:
            return value
    raise Refused.bad_request(*faults)


def list_faults(value: object, field: str, most: int, least: int = 0) -> list[Fault]:
    """What is wrong with a list as such."""
    if not isinstance(value, list):
        return [Fault(field, "must be a list", "type")]
    if len(value) < least:
        return [Fault(field, f"must have at least {least} members", "min_size")]
    if len(value) > most:
        return [Fault(field, f"must have at most {most} members", "max_size")]
    return []
