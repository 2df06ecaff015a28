"""The conventions of Varnish's users at the public port: PURGE, BAN, PURGEKEYS and xkey.

As the VCL of FOSHttpCache, Magento and the plugins for Drupal and WordPress has them:
https://foshttpcache.readthedocs.io/en/latest/varnish-configuration.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
from multidict import CIMultiDict

from edgeproxy.admin.auth import Credentials, admit
from edgeproxy.admin.dialects.base import Dialect, Reply
from edgeproxy.admin.dialects.call import Call, text_fault
from edgeproxy.admin.dialects.frame import settled
from edgeproxy.admin.dialects.tag_patterns import pieces, whole_tags
from edgeproxy.admin.incoming import Incoming
from edgeproxy.admin.refusals import Fault, Refused, Why
from edgeproxy.config.addresses import within
from edgeproxy.invalidation.patterns import PatternError, check_pattern
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.proxy.purging import PurgeAnswer
from edgeproxy.semantics.environment import ENVIRONMENTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.admin.auth import Grant
    from edgeproxy.admin.state import AdminState
    from edgeproxy.config.server import Action
    from edgeproxy.proxy.purging import Purger
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.semantics.environment import Environment

_ANY = ("", ".*", "^.*$")
_MAX_KEY = 1024
_BANNED_BY = (b"x-host", b"x-url", b"x-content-type", b"x-cache-tags", b"cache-tags")

# To these the method is one that there isn't.
_STRANGERS = frozenset(
    {
        *(Why.NO_CREDENTIALS, Why.UNKNOWN_TOKEN, Why.DISABLED, Why.EXPIRED),
        *(Why.WRONG_NETWORK, Why.OVER_CALL_LIMIT),
    }
)


@dataclass(frozen=True, slots=True)
class _Neighbour:
    """Who calls from one of a site's networks: it may purge all of that site."""

    site: str
    name: str = "varnish.networks"
    environments: tuple[Environment, ...] = ENVIRONMENTS

    def serves(self, site: str) -> bool:
        return site == self.site

    def may(self, action: Action, site: str) -> bool:
        return self.serves(site) and action in ("purge", "purge-everything")


def purger(state: AdminState) -> Purger:
    """What does the purges of the public port."""

    async def purge(request: EdgeRequest) -> PurgeAnswer | None:
        incoming = _incoming(request)
        reply = await settled(VARNISH, incoming, _called(request, incoming, state))
        if reply.status == _NO_SUCH_METHOD:
            return None
        return PurgeAnswer(reply.status, reply.content().decode(), reply.headers)

    return purge


def _incoming(request: EdgeRequest) -> Incoming:
    async def read(_: int) -> bytes:
        return b""

    def text(value: bytes) -> str:
        return value.decode("utf-8", "surrogateescape")

    path, _, query = text(request.target).partition("?")
    headers = CIMultiDict((text(name), text(value)) for name, value in request.fields)
    return Incoming(request.method.decode(), path, query, headers, request.client, read)


async def _called(
    request: EdgeRequest, incoming: Incoming, state: AdminState
) -> tuple[Reply, Call]:
    edge = state.edge
    grant: Grant = _Neighbour(request.policy.name)
    if not within(request.client, request.policy.purge_networks):
        if not request.policy.purge_tokens:
            raise Refused(Why.NO_CREDENTIALS, "nobody may purge with a token here")
        grant = await admit(
            await _credentials(incoming),
            state.authenticator,
            edge.ledger,
            client=request.client,
            dialect=VARNISH.name,
            rate=None,
            now=edge.now(),
        )
    call = Call(incoming, grant, VARNISH.name, {}, None, edge, incoming.dry_run)
    match request.method:
        case b"PURGE":
            told = await _purge(call, request)
        case b"BAN":
            told = await _ban(call, request)
        case _:
            told = await _purge_keys(call, request)
    return Reply(200, told.encode()), call


async def _credentials(incoming: Incoming) -> Credentials | None:
    token = incoming.headers.get("X-Purge-Token", "").strip()
    return Credentials(token) if token else None


# -- the methods; each gives what is answered


async def _purge(call: Call, request: EdgeRequest) -> str:
    """By keys or by a pattern of tags, if there are such fields; else the URL, all variants."""
    site, host = request.policy.name, request.key.host
    keys = _field(request, b"xkey")
    if keys is not None:
        return f"Invalidated {await _by_keys(call, request, 'xkey', keys, Mode.DELETE)} objects"
    for name in (b"x-magento-tags-pattern", b"x-cache-tags-pattern"):
        pattern = _field(request, name)
        if pattern is not None:
            selectors = _tagged(Selector(site), name.decode(), pattern)
            break
    else:
        if _field(request, b"x-purge-method") == "regex":
            # Of WordPress's plugins: the path is a pattern.
            pattern = _text(request.target, "the path")
            if pattern == "/.*":
                pattern = ""
            selectors = [Selector(site, host=host, pattern=_pattern("the path", pattern))]
        else:
            selectors = [Selector.by_url(site, host, request.key.target)]
    await call.purge(selectors, Mode.DELETE)
    return "Purged"


async def _ban(call: Call, request: EdgeRequest) -> str:
    """What meets all patterns that are given."""
    host, url, kind, *tags = (_field(request, name) for name in _BANNED_BY)
    given = [each for each in tags if each is not None]
    if len(given) > 1:
        raise Refused.bad_request(Fault("Cache-Tags", "can't come with X-Cache-Tags"))
    if (host, url, kind) == (None, None, None) and not given:
        detail = "there is none of X-Host, X-Url, X-Content-Type and X-Cache-Tags"
        raise Refused(Why.BAD_REQUEST, detail)
    found = Selector(
        request.policy.name,
        host_pattern=_pattern("X-Host", host or ""),
        pattern=_pattern("X-Url", url or ""),
        type_pattern=_pattern("X-Content-Type", kind or ""),
    )
    await call.purge(_tagged(found, "X-Cache-Tags", "".join(given)), Mode.DELETE)
    return "Banned"


async def _purge_keys(call: Call, request: EdgeRequest) -> str:
    hard, soft = _field(request, b"xkey-purge"), _field(request, b"xkey-softpurge")
    if hard is None and soft is None:
        raise Refused(Why.BAD_REQUEST, "Neither header XKey-Purge or XKey-SoftPurge set")
    gone = expired = 0
    if hard is not None:
        gone = await _by_keys(call, request, "xkey-purge", hard, Mode.DELETE)
    if soft is not None:
        expired = await _by_keys(call, request, "xkey-softpurge", soft, Mode.INVALIDATE)
    return f"Purged {gone} objects, expired {expired} objects"


async def _by_keys(call: Call, request: EdgeRequest, name: str, keys: str, mode: Mode) -> int:
    """Purge by keys with blanks between them; how much that is."""
    tags = dict.fromkeys(keys.split())
    faults = [fault for tag in tags if (fault := text_fault(tag, name, _MAX_KEY)) is not None]
    if faults:
        raise Refused.bad_request(*faults)
    if not tags:
        raise Refused.bad_request(Fault(name, "has no keys", "required"))
    done = await call.purge([Selector.by_tag(request.policy.name, tag) for tag in tags], mode)
    return done.matched


# -- fields and patterns


def _field(request: EdgeRequest, name: bytes) -> str | None:
    """The value of a field; raises `Refused` for two, of which one would be lost."""
    lines = request.fields.get_all(name)
    if len(lines) > 1:
        raise Refused.bad_request(Fault(name.decode(), "must come once"))
    return _text(lines[0], name.decode()).strip() if lines else None


def _text(value: bytes, field: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refused.bad_request(Fault(field, "must be UTF-8")) from None


def _pattern(field: str, pattern: str) -> str:
    """A pattern as selectors have it; raises `Refused`."""
    if pattern in _ANY:
        return ""
    try:
        check_pattern(pattern)
    except PatternError as error:
        raise Refused.bad_request(Fault(field, str(error))) from error
    return pattern


def _tagged(selector: Selector, field: str, pattern: str) -> Sequence[Selector]:
    """What the selector picks, if a pattern is found in its tags."""
    if pattern in _ANY:
        return [selector]
    tags = whole_tags(pattern)
    if tags is not None:
        return [msgspec.structs.replace(selector, tag=tag) for tag in tags]
    return [
        msgspec.structs.replace(selector, tag_pattern=_pattern(field, each))
        for each in pieces(pattern)
    ]


def _refuse(refused: Refused, _: Incoming) -> Reply:
    status = _NO_SUCH_METHOD if refused.why in _STRANGERS else refused.why.status
    return Reply(status, refused.detail.encode())


_NO_SUCH_METHOD: Literal[405] = 405

VARNISH = Dialect(
    name="varnish", title="Varnish", routes=(), credentials=_credentials, refuse=_refuse
)
"""It has no routes: it is spoken at the public port, in the words of `purger`."""
