"""`GET /v1/jobs`, `/v1/sites` and `/v1/status`: what the node does, has, and how it is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from edgeproxy.admin.api.node_answers import (
    EnvironmentItem,
    JobItem,
    JobsAnswer,
    OriginItem,
    OriginsItem,
    SiteItem,
    SitesAnswer,
    StatusAnswer,
    StoreItem,
    WorkerItem,
)
from edgeproxy.admin.api.paging import from_cursor, to_cursor
from edgeproxy.admin.auth import require
from edgeproxy.admin.refusals import Refused, Why
from edgeproxy.admin.selecting import readable_sites
from edgeproxy.config.server import ACTIONS
from edgeproxy.semantics.environment import ENVIRONMENTS

if TYPE_CHECKING:
    from edgeproxy.admin.api.endpoint import ApiCall
    from edgeproxy.admin.api.requests import PageQuery
    from edgeproxy.config.server import AdminToken
    from edgeproxy.invalidation.jobs import Job
    from edgeproxy.proxy.pool import PoolState


async def jobs(call: ApiCall) -> JobsAnswer:
    """The jobs of purges on sites that the token may read."""
    query: PageQuery = call.query
    behind = from_cursor(query.cursor, str)
    known = [
        job
        for job in call.edge.jobs.list()
        if _may_see(call.by, job) and (behind is None or job.id < behind)
    ]
    shown = known[: query.limit]
    more = len(known) > len(shown)
    return JobsAnswer(
        next=to_cursor(shown[-1].id) if more else None, jobs=[_job(job) for job in shown]
    )


async def job(call: ApiCall) -> JobItem:
    """One job."""
    return _job(_named_job(call))


async def cancel_job(call: ApiCall) -> JobItem:
    """Asks for a job to end; it does in a moment, with what it fetched left in force."""
    found = _named_job(call)
    require(call.by, "purge", found.sites)
    return _job(call.edge.jobs.cancel(found.id) or found)


def _named_job(call: ApiCall) -> Job:
    found = call.edge.jobs.get(call.parts["id"])
    if found is None or not _may_see(call.by, found):
        raise Refused(Why.NOT_FOUND, "there is no such job")
    return found


def _may_see(token: AdminToken, job: Job) -> bool:
    return token.name == job.actor or all(token.may("read", site) for site in job.sites)


def _job(job: Job) -> JobItem:
    return JobItem(
        id=job.id,
        purge_id=job.purge_id,
        actor=job.actor,
        sites=list(job.sites),
        state=job.state,
        total=job.total,
        done=job.done,
        failed=job.failed,
        started=job.started,
        ended=job.ended,
    )


async def sites(call: ApiCall) -> SitesAnswer:
    """The sites that the token may read."""
    query: PageQuery = call.query
    behind = from_cursor(query.cursor, str)
    names = [
        name
        for name in readable_sites(None, call.edge.sites, call.by)
        if behind is None or name > behind
    ]
    shown = names[: query.limit]
    more = len(names) > len(shown)
    return SitesAnswer(
        next=to_cursor(shown[-1]) if more else None, sites=[_site(call, name) for name in shown]
    )


def _site(call: ApiCall, name: str) -> SiteItem:
    config, token = call.state.config, call.by
    site = config.sites[name]
    hosts = {"production": site.hosts, "preview": site.preview_hosts}
    return SiteItem(
        name=name,
        default=config.default_site == name,
        actions=[action for action in ACTIONS if token.may(action, name)],
        environments=[
            EnvironmentItem(
                environment=each,
                hosts=list(hosts[each]),
                entries=call.edge.browser.count(name, each),
            )
            for each in ENVIRONMENTS
            if each in token.environments
        ],
        origins=_origins(call.edge.origins(name)),
    )


def _origins(state: PoolState) -> OriginsItem:
    return OriginsItem(
        repeated=state.repeated,
        not_repeated=state.not_repeated,
        refused=state.refused,
        each=[OriginItem.model_validate(each) for each in state.origins],
    )


async def status(call: ApiCall) -> StatusAnswer:
    """How the node is."""
    state, edge = call.state, call.edge
    store = state.config.store
    now = edge.now()
    return StatusAnswer(
        version=_version(),
        time=now,
        uptime=max(0.0, now - state.started),
        workers=[WorkerItem.model_validate(worker) for worker in state.workers()],
        position=edge.view.catch_up(),
        settled=edge.tier.settled,
        rules=len(edge.view),
        not_stored=edge.tally.counts(),
        refused=edge.tally.refusals(),
        dropped_variants=edge.dropped_variants,
        dropped_busters=edge.dropped_busters,
        dropped_uncacheable=edge.tally.dropped()["uncacheable"],
        store=StoreItem(
            kind=str(store.url).partition(":")[0],
            entries=edge.tier.entries,
            bytes=edge.tier.bytes_used,
            max_bytes=store.max_bytes,
        ),
        streams=state.streams,
        warnings=list(state.warnings),
    )


@cache
def _version() -> str:
    return version("edgeproxy")
