"""Calls of the own API: which body, its JSON, and a cursor or the parameters of a query.

The first line is one of the names of `BODIES`; the second a cursor and a query; the rest a body.
"""

from typing import NamedTuple

import msgspec
from pydantic import BaseModel

from edgeproxy.admin.api.paging import from_cursor, to_cursor
from edgeproxy.admin.api.requests import (
    EntriesQuery,
    ExplainRequest,
    PurgeRequest,
    TagsQuery,
    TokenRequest,
)
from edgeproxy.admin.api.routing import _validated
from edgeproxy.admin.incoming import read_form, read_json_object
from edgeproxy.admin.problems import Problem
from edgeproxy.admin.refusals import Refused
from edgeproxy.admin.selecting import purge_selectors
from edgeproxy.invalidation.selectors import Selector
from fuzz.edge import edge

BODIES: dict[bytes, type[BaseModel]] = {
    b"purge": PurgeRequest,
    b"token": TokenRequest,
    b"explain": ExplainRequest,
}
QUERIES: tuple[type[BaseModel], ...] = (EntriesQuery, TagsQuery)


class _Place(NamedTuple):
    number: int
    key: bytes
    id: bytes


def check(data: bytes) -> None:
    kind, _, rest = data.partition(b"\n")
    asked, _, content = rest.partition(b"\n")
    _check_query(asked.decode("utf-8", "surrogateescape"))
    try:
        body = _validated(BODIES.get(kind, PurgeRequest), read_json_object(content))
    except (Refused, Problem):
        return
    again = body.model_validate_json(body.model_dump_json(exclude_unset=True))
    assert again == body
    if isinstance(body, PurgeRequest):
        try:
            selectors = purge_selectors(body, edge().edge.sites, edge().token)
        except (Refused, Problem):
            return
        assert selectors
        assert body.everything or not any(each.everything for each in selectors)
        packed = msgspec.msgpack.encode(selectors)
        assert msgspec.msgpack.decode(packed, type=tuple[Selector, ...]) == selectors


def _check_query(text: str) -> None:
    for kind in (int, str, _Place):
        try:
            place = from_cursor(text, kind)
        except Refused:
            continue
        assert from_cursor(to_cursor(place), kind) == place
    try:
        given = read_form(text, "the query")
        for query in QUERIES:
            _validated(query, given)
    except (Refused, Problem):
        pass
