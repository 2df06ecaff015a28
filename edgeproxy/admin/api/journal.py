"""`GET /v1/journal`: what was invalidated, by whom, page by page and live."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from edgeproxy.admin.api.answers import IssuedItem, JournalAnswer, RecordItem, SelectorItem
from edgeproxy.admin.api.endpoint import LAST_EVENT_ID
from edgeproxy.admin.api.paging import from_cursor, to_cursor
from edgeproxy.admin.refusals import Fault, Refused, Why
from edgeproxy.admin.selecting import readable_sites

if TYPE_CHECKING:
    from edgeproxy.admin.api.endpoint import ApiCall
    from edgeproxy.admin.api.requests import SiteQuery
    from edgeproxy.config.server import AdminToken
    from edgeproxy.invalidation.record import Record
    from edgeproxy.invalidation.selectors import Selector

MAX_STREAMS = 16
"""Live streams that a worker has open at a time."""
HEARTBEAT_SECONDS = 15.0
"""After so long without a record a comment shows that the stream lives."""
_LOOK_SECONDS = 0.1
"""How often the journal's head, a word in memory, is looked at."""
_WRITE_SECONDS = 30.0
"""A reader that takes nothing for so long has gone."""
_BATCH = 100
_FULL_SECONDS = 5.0


async def journal(call: ApiCall) -> JournalAnswer:
    """The records that concern sites which the token may read."""
    query: SiteQuery = call.query
    sight = Sight(call, query.site)
    page = call.edge.browser.records(from_cursor(query.cursor, int), query.limit, sight.may_see)
    return JournalAnswer(
        position=call.edge.view.catch_up(),
        records=[sight.item(record) for record in page.found],
        next=None if page.before is None else to_cursor(page.before),
    )


class Sight:
    """What one token may see of records."""

    def __init__(self, call: ApiCall, site: str | None) -> None:
        self._token: AdminToken = call.by
        self._sites = frozenset(readable_sites(site, call.edge.sites, call.by))

    def may_see(self, record: Record) -> bool:
        """Whether a record concerns anything that the token may read."""
        if record.buster is not None:
            return record.buster.site in self._sites
        return any(map(self._may_read, record.selectors))

    def item(self, record: Record) -> RecordItem:
        """A record without what the token may not read."""
        item = RecordItem(
            position=record.position,
            id=record.id,
            time=record.time,
            kind="purge" if record.buster is None else "token",
            actor=record.actor,
            source=record.source,
            dialect=record.dialect,
        )
        buster = record.buster
        if buster is not None:
            issued = IssuedItem(
                token=buster.token,
                site=buster.site,
                host=buster.host,
                one_url=bool(buster.target_id),
            )
            return item.model_copy(update={"issued": issued})
        seen = [selector for selector in record.selectors if self._may_read(selector)]
        more: dict[str, object] = {
            "mode": record.mode.value,
            "selectors": [_selector(selector) for selector in seen],
            "matched": record.matched if len(seen) == len(record.selectors) else None,
        }
        if record.deadline:
            more["deadline"] = record.deadline
        return item.model_copy(update=more)

    def _may_read(self, selector: Selector) -> bool:
        return selector.site in self._sites and (
            selector.environment is None or selector.environment in self._token.environments
        )


def _selector(selector: Selector) -> SelectorItem:
    conditions = {
        "environment": selector.environment,
        "everything": selector.everything,
        "tag": selector.tag,
        "any_case": selector.any_case,
        "url": selector.target.decode("utf-8", "replace"),
        "prefix": selector.prefix.decode("utf-8", "replace"),
        "host": selector.host,
        "pattern": selector.pattern,
        "pattern_on": selector.pattern_on if selector.pattern_on != "path" else "",
        "source": selector.source,
        "source_host": selector.source_host,
        "content_type": selector.content_type,
        "status": selector.status,
    }
    given = {name: value for name, value in conditions.items() if value}
    return SelectorItem(site=selector.site, **given)  # type: ignore[arg-type]


async def stream(call: ApiCall) -> web.StreamResponse:
    """The records as they come: server-sent events whose ids are positions.

    It ends when the worker does, and when the tokens change: whoever may, comes again with
    `Last-Event-ID`, and misses nothing.
    """
    state, request = call.state, call.request
    sight = Sight(call, call.query.site)
    position = _position(call)
    if state.streams >= MAX_STREAMS:
        detail = f"{MAX_STREAMS} streams are open already"
        raise Refused(Why.BUSY, detail, retry_after=_FULL_SECONDS)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    authenticator = state.authenticator
    state.streams += 1
    try:
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        loop = asyncio.get_running_loop()
        await _write(response, "retry: 1000\n\n")
        silent_since = loop.time()
        while state.authenticator is authenticator and not state.closing.is_set():
            text = ""
            for record in call.edge.browser.following(position, _BATCH):
                position = record.position
                if sight.may_see(record):
                    data = sight.item(record).model_dump_json(exclude_unset=True)
                    text += f"id: {position}\nevent: record\ndata: {data}\n\n"
            if not text and loop.time() - silent_since >= HEARTBEAT_SECONDS:
                text = ":\n\n"
            if text:
                await _write(response, text)
                silent_since = loop.time()
            if position >= call.edge.view.catch_up():
                await _wait(state.closing)
    except (ConnectionError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()
    finally:
        state.streams -= 1
    return response


def _position(call: ApiCall) -> int:
    """After which position to begin."""
    head = call.edge.view.catch_up()
    value = call.incoming.headers.get(LAST_EVENT_ID.name)
    if value is None:
        return head
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise Refused.bad_request(Fault(LAST_EVENT_ID.name, "must be a position of the journal"))
    # What the journal has not reached is another one's.
    return min(int(value), head)


async def _write(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(_WRITE_SECONDS):
        await response.write(text.encode())


async def _wait(closing: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await closing.wait()
    except TimeoutError:
        return
