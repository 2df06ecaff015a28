"""`GET /v1/entries` and `/v1/tags`, `POST /v1/explain`: what is stored, and how it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edgeproxy.admin.api.answers import EntriesAnswer, Entry, ExplainAnswer, TagItem, TagsAnswer
from edgeproxy.admin.api.paging import from_cursor, to_cursor
from edgeproxy.admin.api.requests import Condition
from edgeproxy.admin.auth import environment_of
from edgeproxy.admin.refusals import Fault, Refused
from edgeproxy.admin.selecting import Selecting, readable_sites
from edgeproxy.invalidation.browsing import TagCount
from edgeproxy.invalidation.selectors import Selector
from edgeproxy.semantics.errors import BadRequest
from edgeproxy.semantics.key import split_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.admin.api.endpoint import ApiCall
    from edgeproxy.admin.api.requests import EntriesQuery, ExplainRequest, TagsQuery
    from edgeproxy.proxy.foretelling import Foretold


class _Place(NamedTuple):
    """Where a page of entries begins."""

    selector: int
    key: bytes
    """The place in its list; empty: the beginning."""
    id: bytes


class _TagPlace(NamedTuple):
    """Behind which tag a page of tags begins."""

    borne: int
    site: str
    tag: str


async def entries(call: ApiCall) -> EntriesAnswer:
    """Stored responses that meet all conditions, and whether and why they are served."""
    query: EntriesQuery = call.query
    edge = call.edge
    selectors = _entry_selectors(call, query)
    number, key, row_id = from_cursor(query.cursor, _Place) or _Place(0, b"", b"")
    found: list[Entry] = []
    after = (key, row_id) if key else None
    following: str | None = None
    while 0 <= number < len(selectors):
        page = edge.browser.responses(selectors[number], after, query.limit - len(found))
        found += [_entry(each) for each in edge.explain(page.found)]
        after = page.after
        if after is None:
            number += 1
        if number < len(selectors) and (after is not None or len(found) >= query.limit):
            following = to_cursor(_Place(number, *(after or (b"", b""))))
            break
    return EntriesAnswer(
        url=query.url or None,
        position=edge.view.catch_up(),
        entries=found,
        notes=[note for each in selectors for note in edge.notes(each)] if query.url else [],
        next=following,
    )


def _entry_selectors(call: ApiCall, query: EntriesQuery) -> Sequence[Selector]:
    environment = environment_of(call.by, query.environment)
    given = query.model_dump(include={"url", "tag", "prefix", "host"}, exclude_unset=True)
    if not given:
        names = readable_sites(query.site, call.edge.sites, call.by)
        return [Selector.by_everything(name, environment) for name in names]
    site = query.site or "*"
    selecting = Selecting(call.edge.sites, call.by, site, environment, "read")
    return list(selecting.condition(Condition.model_validate(given), ""))


async def tags(call: ApiCall) -> TagsAnswer:
    """Tags with their counts, the most used first."""
    query: TagsQuery = call.query
    place = from_cursor(query.cursor, _TagPlace)
    found = await call.edge.browser.tags(
        readable_sites(query.site, call.edge.sites, call.by),
        environment_of(call.by, query.environment),
        query.prefix,
        None if place is None else TagCount(*place),
        query.limit + 1,
    )
    shown = found[: query.limit]
    last = shown[-1] if len(found) > len(shown) else None
    return TagsAnswer(
        next=None if last is None else to_cursor(_TagPlace(last.count, last.site, last.tag)),
        tags=[TagItem(site=each.site, tag=each.tag, count=each.count) for each in shown],
    )


async def explain(call: ApiCall) -> ExplainAnswer:
    """What would become of a request now."""
    body: ExplainRequest = call.body
    edge = call.edge
    _require_readable(call, body.url)
    try:
        told = edge.foreteller.foretell(
            body.method,
            body.url,
            [
                (name.encode(), value.encode("latin-1"))
                for name, value in body.fields.items()
                if name.lower() != "host"
            ],
        )
    except BadRequest as error:
        fault = Fault("url", f"the request would be refused: {error.reason}")
        raise Refused.bad_request(fault) from error
    return _explained(told, edge.view.catch_up())


def _require_readable(call: ApiCall, url: str) -> None:
    """Raises `Problem` and `Refused` for what is no URL of a site that the token may read."""
    try:
        split_url(url)
    except ValueError as error:
        raise Refused.bad_request(Fault("url", str(error))) from error
    selecting = Selecting(call.edge.sites, call.by, None, None, "read")
    for selector in selecting.url(url, "url"):
        found = call.edge.sites.find(selector.host or "")
        if found is not None:
            environment_of(call.by, found[1])


def _explained(told: Foretold, position: int) -> ExplainAnswer:
    return ExplainAnswer(
        method=told.method,
        url=told.url,
        site=told.site,
        environment=told.environment,
        result=told.result,
        why=told.why,
        cache_status=told.cache_status,
        key=told.key,
        cache_buster=told.cache_buster,
        vary=told.vary,
        position=position,
        entry=None if told.entry is None else _entry(told.entry),
        others=[_entry(each) for each in told.others],
    )


def _entry(explanation: object) -> Entry:
    return Entry.model_validate(msgspec.to_builtins(explanation))
