"""Calls in every dialect: "METHOD /path?query", lines of fields, an empty line, and a body.

None of them may fail in a way that its dialect has no words for. All of them are dry runs.
"""

import re

from multidict import CIMultiDict

from edgeproxy.admin.dialects.base import Dialect, Reply
from edgeproxy.admin.dialects.call import Call
from edgeproxy.admin.dialects.frame import settled
from edgeproxy.admin.dialects.table import DIALECTS
from edgeproxy.admin.dialects.tag_patterns import pieces, whole_tags
from edgeproxy.admin.dialects.varnish import purger
from edgeproxy.admin.incoming import Incoming
from edgeproxy.invalidation.patterns import PatternError, check_pattern, compiled
from edgeproxy.semantics.fields import Fields
from fuzz.edge import FuzzedEdge, edge
from fuzz.parts import event_loop, fields_of
from tests.proxy.parts import edge_request

VARNISH = {b"PURGE", b"BAN", b"PURGEKEYS"}
SITE = {"varnish": {"networks": ["192.0.2.0/24"]}}


def check(data: bytes) -> None:
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, target = first.partition(b" ")
    fields = fields_of(lines).without({b"edge-dry-run"}).plus((b"Edge-Dry-Run", b"1"))
    if re.fullmatch(rb"/[\x21-\x7e\x80-\xff]*", target) is None or not method.isalpha():
        return
    if method in VARNISH:
        _check_varnish(method, target, fields)
    else:
        incoming = _incoming(method.decode(), target, fields, body)
        for dialect in DIALECTS:
            if dialect.speaks(incoming.method, incoming.path):
                said = _said(dialect, incoming, edge())
                reply = event_loop().run_until_complete(said)
                assert reply.status != 500, reply
                reply.content()
    _check_pattern(body.decode("utf-8", "replace"))


def _incoming(method: str, target: bytes, fields: Fields, body: bytes) -> Incoming:
    async def read(_: int) -> bytes:
        return body

    path, _, query = target.decode("utf-8", "surrogateescape").partition("?")
    headers = CIMultiDict(
        (name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in fields
    )
    return Incoming(method, path, query, headers, "192.0.2.1", read)


async def _said(dialect: Dialect, incoming: Incoming, made: FuzzedEdge) -> Reply:
    """The answer to a caller whose token is good for all."""

    async def called() -> tuple[Reply, Call]:
        route, parts = dialect.find(incoming.method, incoming.path)
        await dialect.credentials(incoming)
        options = getattr(made.config.admin.dialects, dialect.name)
        dry = incoming.dry_run
        call = Call(incoming, made.token, dialect.name, parts, options, made.edge, dry)
        return await route.handler(call), call

    return await settled(dialect, incoming, called())


def _check_varnish(method: bytes, target: bytes, fields: Fields) -> None:
    request = edge_request(target, fields, method=method, site=SITE)
    answer = event_loop().run_until_complete(purger(edge().state)(request))
    assert answer is not None
    assert answer.status != 500, answer


def _check_pattern(pattern: str) -> None:
    """A pattern that is taken for a list of tags finds each of them, as such a list does."""
    tags = whole_tags(pattern)
    parts = pieces(pattern)
    try:
        for each in [pattern, *parts]:
            check_pattern(each)
    except (PatternError, ValueError):
        return
    if tags is not None:
        for tag in tags:
            assert compiled(pattern).search(f"a,{tag},b".encode()), (pattern, tag)
