"""`POST /v1/purge` and `/v1/tokens`: invalidate, and issue cache busters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.admin.api.answers import PurgeAnswer, TokenAnswer, TokenItem, TokensAnswer
from edgeproxy.admin.api.paging import from_cursor, to_cursor
from edgeproxy.admin.api.requests import Condition
from edgeproxy.admin.refusals import Fault, Refused, Why
from edgeproxy.admin.selecting import Selecting, named_sites, purge_selectors, readable_sites
from edgeproxy.invalidation.selectors import Mode, Selector
from edgeproxy.semantics.environment import ENVIRONMENTS

if TYPE_CHECKING:
    from edgeproxy.admin.api.endpoint import ApiCall
    from edgeproxy.admin.api.requests import PurgeRequest, SiteQuery, TokenRequest
    from edgeproxy.invalidation.browsing import Browser
    from edgeproxy.invalidation.record import Buster


async def purge(call: ApiCall) -> PurgeAnswer:
    """Answers once the invalidation is durable, and seen by every worker."""
    body: PurgeRequest = call.body
    dry_run = call.incoming.dry_run or body.dry_run
    result = await call.edge.service.purge(
        purge_selectors(body, call.edge.sites, call.by),
        Mode(body.mode),
        call.caller,
        deadline=body.deadline,
        dry_run=dry_run,
        refresh=body.refresh,
    )
    answer = PurgeAnswer(
        id=result.id,
        position=result.position,
        mode=body.mode,
        matched=result.matched,
        dry_run=dry_run,
    )
    more: dict[str, object] = {}
    if body.deadline:
        more["deadline"] = body.deadline
    if result.job is not None:
        more["job"] = result.job.id
    return answer.model_copy(update=more)


async def issue(call: ApiCall) -> TokenAnswer:
    """Issues a cache buster for a site, a host or a URL."""
    body: TokenRequest = call.body
    sites, token = call.edge.sites, call.by
    given = body.model_dump(include={"url", "host"}, exclude_none=True)
    if given:
        selecting = Selecting(sites, token, body.site, None, "issue-token")
        found = list(selecting.condition(Condition.model_validate(given), ""))
    else:
        found = [
            Selector.by_everything(name)
            for name in named_sites(body.site, sites, token, "issue-token")
        ]
    if len(found) != 1:
        raise Refused.bad_request(Fault("site", "name one site: a token is good for one"))
    (selector,) = found
    _require_environment(call, selector.host)
    issued = await call.edge.service.issue_buster(
        selector.site, call.caller, host=selector.host, target=selector.target
    )
    return TokenAnswer(
        token=issued.token,
        site=selector.site,
        position=issued.position,
        path=f"/cb:{issued.token}",
    )


def _require_environment(call: ApiCall, host: str | None) -> None:
    """Cache busters know no environments, but hosts do: raises `Refused` for what is none of those
    that the token is good for."""
    good_for = set(call.by.environments)
    if good_for == set(ENVIRONMENTS):
        return
    found = None if host is None else call.edge.sites.find(host)
    if found is None or found[1] not in good_for:
        detail = f"name a host of {' or '.join(sorted(good_for))}: the token is good for no other"
        raise Refused(Why.FORBIDDEN, detail)


async def issued(call: ApiCall) -> TokensAnswer:
    """The cache busters that are known."""
    query: SiteQuery = call.query
    sites = set(readable_sites(query.site, call.edge.sites, call.by))
    browser = call.edge.browser
    known = [
        (position, buster)
        for position, buster in browser.busters(from_cursor(query.cursor, int))
        if buster.site in sites
    ]
    shown = known[: query.limit]
    more = len(known) > len(shown)
    return TokensAnswer(
        next=to_cursor(shown[-1][0]) if more else None,
        tokens=[_token(position, buster, browser) for position, buster in shown],
    )


def _token(position: int, buster: Buster, browser: Browser) -> TokenItem:
    record = browser.record_at(position)
    return TokenItem(
        token=buster.token,
        site=buster.site,
        host=buster.host,
        one_url=bool(buster.target_id),
        position=position,
        time=None if record is None else record.time,
        actor=None if record is None else record.actor,
    )
