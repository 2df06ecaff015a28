"""The endpoints of the own API: all that routing and the OpenAPI document know of them."""

from __future__ import annotations

from functools import cache

from aiohttp import web

from edgeproxy.admin.api import (
    answers,
    journal,
    looking,
    node,
    node_answers,
    openapi,
    purging,
    requests,
)
from edgeproxy.admin.api.endpoint import (
    DRY_RUN,
    IDEMPOTENCY_KEY,
    LAST_EVENT_ID,
    ApiCall,
    Endpoint,
)


async def _document(_: ApiCall) -> web.Response:
    return web.Response(body=_rendered(), content_type="application/json")


@cache
def _rendered() -> bytes:
    return openapi.render(ENDPOINTS)


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "POST", "/purge", "purge", "Invalidate or delete stored responses",
        ("purge", "purge-everything"), purging.purge, answers.PurgeAnswer,
        body=requests.PurgeRequest, headers=(DRY_RUN, IDEMPOTENCY_KEY),
    ),
    Endpoint(
        "GET", "/entries", "entries", "List stored responses, and why they are served or not",
        ("read",), looking.entries, answers.EntriesAnswer, query=requests.EntriesQuery,
    ),
    Endpoint(
        "POST", "/explain", "explain", "Tell what would become of a request now, and why",
        ("read",), looking.explain, answers.ExplainAnswer, body=requests.ExplainRequest,
    ),
    Endpoint(
        "GET", "/tags", "tags", "List tags by how many stored responses bear them",
        ("read",), looking.tags, answers.TagsAnswer, query=requests.TagsQuery,
    ),
    Endpoint(
        "GET", "/journal", "journal", "List what was invalidated, the newest first",
        ("read",), journal.journal, answers.JournalAnswer, query=requests.SiteQuery,
    ),
    Endpoint(
        "GET", "/journal/stream", "journalStream", "Follow the journal: server-sent events",
        ("read",), journal.stream, "text/event-stream", query=requests.StreamQuery,
        headers=(LAST_EVENT_ID,),
    ),
    Endpoint(
        "POST", "/tokens", "issueToken", "Issue a cache buster",
        ("issue-token",), purging.issue, answers.TokenAnswer, status=201,
        body=requests.TokenRequest, headers=(IDEMPOTENCY_KEY,),
    ),
    Endpoint(
        "GET", "/tokens", "tokens", "List issued cache busters, the newest first",
        ("read",), purging.issued, answers.TokensAnswer, query=requests.SiteQuery,
    ),
    Endpoint(
        "GET", "/jobs", "jobs", "List jobs, the newest first",
        ("read",), node.jobs, node_answers.JobsAnswer, query=requests.PageQuery,
    ),
    Endpoint(
        "GET", "/jobs/{id}", "job", "Tell how far a job is",
        ("read",), node.job, node_answers.JobItem, not_found=True,
    ),
    Endpoint(
        "DELETE", "/jobs/{id}", "cancelJob", "Cancel a job",
        ("purge",), node.cancel_job, node_answers.JobItem, not_found=True,
    ),
    Endpoint(
        "GET", "/sites", "sites", "List the sites that the token may read",
        ("read",), node.sites, node_answers.SitesAnswer, query=requests.PageQuery,
    ),
    Endpoint(
        "GET", "/status", "status", "Tell how the node is",
        ("read",), node.status, node_answers.StatusAnswer,
    ),
    Endpoint(
        "GET", "/openapi.json", "openapi", "This document; it needs no token",
        (), _document, "application/json",
    ),
)  # fmt: skip
