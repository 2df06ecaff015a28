"""HTTP caching as a reader sees it (RFC 9111), keys, tags, and Cache-Status (RFC 9211)."""

import asyncio
import email.utils
import re
import time

import pytest

from tests.conftest import StartEdge
from tests.kit import Answer, EdgeProcess, OriginRequest, ScriptedOrigin

FRESH = {"Cache-Control": "max-age=600"}


def dated(fields: dict[str, str]) -> dict[str, str]:
    """The fields with "@60" as the HTTP date of a minute ago, "@-60" as that in a minute."""
    now = time.time()
    return {
        name: email.utils.formatdate(now - float(value[1:]), usegmt=True)
        if value.startswith("@")
        else value
        for name, value in fields.items()
    }


@pytest.mark.parametrize(
    ("fields", "ttl"),
    [
        ({"Cache-Control": "max-age=600"}, 600),
        ({"Cache-Control": "max-age=60, s-maxage=600"}, 600),
        ({"Cache-Control": "max-age=60", "CDN-Cache-Control": "max-age=600"}, 600),
        ({"Cache-Control": "no-store", "Surrogate-Control": "max-age=600"}, 600),
        ({"Cache-Control": "max-age=600", "Age": "100"}, 500),
        ({"Date": "@0", "Expires": "@-600"}, 600),
        ({"Date": "@0", "Last-Modified": "@6000"}, 600),
        ({"Cache-Control": "public, max-age=600", "Set-Cookie": "a=b"}, 600),
    ],
    ids=str,
)
async def test_what_is_fresh_is_a_hit_with_the_time_that_is_left(
    edge: EdgeProcess, origin: ScriptedOrigin, fields: dict[str, str], ttl: int
) -> None:
    origin.route("/", Answer(200, dated(fields), b"page"))
    first, second = await edge.get("/"), await edge.get("/")
    assert first.cache_status == {"fwd": "uri-miss", "fwd-status": "200", "stored": True}
    assert second.cache_status["hit"] is True
    assert ttl - 5 <= int(str(second.cache_status["ttl"])) <= ttl
    assert 0 <= int(second.field("age") or "-1") - int(fields.get("Age", "0")) <= 5
    assert second.field("date") is not None
    assert second.body == first.body == b"page"
    assert origin.counts["/"] == 1


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"Cache-Control": "no-store"}, "no-store"),
        ({"Cache-Control": "private, max-age=600"}, "private"),
        ({"Cache-Control": "max-age=600", "Set-Cookie": "a=b"}, "set-cookie"),
        ({"Cache-Control": "max-age=600", "Vary": "*"}, "vary-star"),
        ({}, "no-freshness"),
        ({"Cache-Control": "max-age=600", "Cache-Tag": "x" * 1025}, "tag-limit"),
    ],
    ids=str,
)
async def test_what_may_not_be_stored_says_why(
    edge: EdgeProcess, origin: ScriptedOrigin, fields: dict[str, str], detail: str
) -> None:
    origin.route("/", Answer(200, fields, b"page"))
    response = await edge.get("/")
    assert response.cache_status == {"fwd": "uri-miss", "fwd-status": "200", "detail": detail}
    await edge.get("/")
    assert origin.counts["/"] == 2


@pytest.mark.parametrize(
    ("directives", "stored"),
    [("max-age=60", False), ("public, max-age=60", True), ("s-maxage=60", True)],
)
async def test_answers_to_credentials_are_shared_only_if_the_origin_says_so(
    edge: EdgeProcess, origin: ScriptedOrigin, directives: str, stored: bool
) -> None:
    """RFC 9111 3.5."""
    origin.route("/", Answer(200, {"Cache-Control": directives}, b"page"))
    await edge.get("/", fields={"Authorization": "Basic YTpi"})
    assert ("hit" in (await edge.get("/")).cache_status) is stored


async def test_variants(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    """RFC 9111 4.1."""

    def page(request: OriginRequest) -> Answer:
        language = request.field("accept-language") or "none"
        return Answer(200, FRESH | {"Vary": "Accept-Language"}, language.encode())

    origin.route("/", page)
    for language in ("en", "de"):
        response = await edge.get("/", fields={"Accept-Language": language})
        assert response.text == language
    assert (await edge.get("/")).cache_status["fwd"] == "vary-miss"
    for language in ("en", "de"):
        response = await edge.get("/", fields={"Accept-Language": language})
        assert (response.text, response.cache_status.get("hit")) == (language, True)
    assert origin.counts["/"] == 3


@pytest.mark.parametrize(
    ("stored", "condition", "status"),
    [
        ({"ETag": '"a"'}, {"If-None-Match": '"a"'}, 304),
        ({"ETag": '"a"'}, {"If-None-Match": 'W/"a", "b"'}, 304),
        ({"ETag": '"a"'}, {"If-None-Match": '"b"'}, 200),
        ({"ETag": '"a"'}, {"If-None-Match": "*"}, 304),
        ({"Last-Modified": "@500"}, {"If-Modified-Since": "@100"}, 304),
        ({"Last-Modified": "@100"}, {"If-Modified-Since": "@500"}, 200),
    ],
    ids=str,
)
async def test_conditions_are_answered_from_the_cache(
    edge: EdgeProcess,
    origin: ScriptedOrigin,
    stored: dict[str, str],
    condition: dict[str, str],
    status: int,
) -> None:
    """RFC 9110 13.2.2; on a miss too, the origin being asked for the whole."""
    origin.route("/", Answer(200, FRESH | dated(stored), b"page"))
    for _ in range(2):
        response = await edge.get("/", fields=dated(condition))
        assert (response.status, response.body) == (status, b"" if status == 304 else b"page")
    assert origin.counts["/"] == 1
    assert origin.requests[0].field("if-none-match") is None


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
async def test_ranges_are_cut_from_the_whole(
    edge: EdgeProcess,
    origin: ScriptedOrigin,
    asked: str,
    status: int,
    body: bytes | None,
    content_range: str | None,
) -> None:
    """RFC 9110 14."""
    origin.route("/", Answer(200, FRESH | {"Content-Type": "text/plain"}, b"0123456789"))
    for _ in range(2):
        response = await edge.get("/", fields={"Range": asked})
        assert (response.status, response.field("content-range")) == (status, content_range)
        if body is not None:
            assert response.body == body
    assert origin.counts["/"] == 1


async def test_several_ranges_come_as_parts(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    """RFC 9110 15.3.7.2."""
    origin.route("/", Answer(200, FRESH | {"Content-Type": "text/plain"}, b"0123456789"))
    response = await edge.get("/", fields={"Range": "bytes=0-1,5-6"})
    assert response.status == 206
    boundary = re.fullmatch(
        r"multipart/byteranges; boundary=(\S+)", response.field("content-type") or ""
    )
    assert boundary is not None
    parts = response.body.split(b"--" + boundary[1].encode())
    assert [part.partition(b"\r\n\r\n")[2] for part in parts[1:-1]] == [b"01\r\n", b"56\r\n"]


async def test_only_if_cached(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    """RFC 9111 5.2.1.7."""
    origin.route("/", Answer(200, FRESH, b"page"))
    only = {"Cache-Control": "only-if-cached"}
    assert (await edge.get("/", fields=only)).status == 504
    assert origin.counts["/"] == 0
    await edge.get("/")
    assert (await edge.get("/", fields=only)).body == b"page"


@pytest.mark.parametrize(("setting", "fetched"), [("ignore", 1), ("honour", 2)])
async def test_readers_may_ask_for_a_fresh_copy_where_the_site_lets_them(
    origin: ScriptedOrigin, start_edge: StartEdge, setting: str, fetched: int
) -> None:
    origin.route("/", Answer(200, FRESH, b"page"))
    edge = await start_edge(origin, site={"cache": {"request_cache_control": setting}})
    await edge.get("/")
    await edge.get("/", fields={"Cache-Control": "no-cache"})
    assert origin.counts["/"] == fetched


# -- keys


async def test_cache_busters_name_copies_of_their_own(
    edge: EdgeProcess, origin: ScriptedOrigin
) -> None:
    target = "/w:100/https://example.com//image.jpg"
    origin.route(target, Answer(200, FRESH | {"Cache-Tag": "image"}, b"image"))
    await edge.get(target)
    for token in ("v1", "v2"):
        response = await edge.get(f"/cb:{token}{target}")
        assert response.cache_status["fwd"] == "uri-miss"
        assert "hit" in (await edge.get(f"/cb:{token}{target}")).cache_status
    assert origin.counts == {target: 3}
    # A purge by URL or tag reaches all of them.
    assert (await edge.purge(urls=[target], dry_run=True))["matched"] == 3
    assert (await edge.purge(tags=["image"], mode="delete"))["matched"] == 3


async def test_random_busters_can_t_fill_the_store(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin.route("/page", Answer(200, FRESH, b"page"))
    edge = await start_edge(origin, site={"cache": {"max_busters": 4}})
    for number in range(20):
        await edge.get(f"/cb:{number}/page")
    assert (await edge.purge(urls=["/page"], dry_run=True))["matched"] <= 5
    assert "hit" in (await edge.get("/cb:19/page")).cache_status


async def test_key_rules_make_one_page_of_many_urls(
    origin: ScriptedOrigin, start_edge: StartEdge
) -> None:
    origin.otherwise(Answer(200, FRESH, b"page"))
    key = {"ignore_tracking": True, "ignore_query": ["session"], "sort_query": True}
    edge = await start_edge(origin, site={"key": key})
    await edge.get("/p?b=2&a=1")
    for target in ("/p?a=1&b=2", "/p?a=1&utm_source=x&b=2", "/p?session=9&b=2&a=1&gclid=z"):
        assert "hit" in (await edge.get(target)).cache_status, target
    assert "hit" not in (await edge.get("/p?a=2&b=2")).cache_status


@pytest.mark.parametrize(
    "other",
    [
        *("/P", "/p?", "/%70", "/p/", "//p", "/p;x", "/%2fp", "/p%2f", "/./p", "/x/../p", "/p/."),
        *(
            "/p.",
            "/p%00",
            "/p%23x",
            "/p%3f",
            "/p\\",
            "/p%20",
            "/p%252f",
            "/cb:/p",
            "/p?x&",
            "/p?&x",
        ),
    ],
)
async def test_urls_that_differ_in_a_byte_are_different(
    edge: EdgeProcess, origin: ScriptedOrigin, other: str
) -> None:
    origin.otherwise(Answer(200, FRESH, b"page"))
    await edge.get("/p")
    assert "hit" not in (await edge.get(other)).cache_status


# -- tags


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Cache-Tag", "one, two"),
        ("Surrogate-Key", "one two"),
        ("xkey", "one two"),
        ("X-Cache-Tags", "one,two"),
    ],
)
async def test_tag_fields_are_taken_and_not_passed_on(
    edge: EdgeProcess, origin: ScriptedOrigin, name: str, value: str
) -> None:
    origin.route("/", Answer(200, FRESH | {name: value}, b"page"))
    for _ in range(2):
        assert (await edge.get("/")).field(name) is None
    for tag in ("one", "two"):
        assert (await edge.purge(tags=[tag], dry_run=True))["matched"] == 1


async def test_a_site_can_show_its_tags(origin: ScriptedOrigin, start_edge: StartEdge) -> None:
    origin.route("/", Answer(200, FRESH | {"Cache-Tag": "one"}, b"page"))
    edge = await start_edge(origin, site={"tags": {"debug": True}})
    for _ in range(2):
        assert (await edge.get("/")).field("cache-tag") == "one"


# -- sites


async def test_sites_are_told_apart_by_host(origin: ScriptedOrigin, start_edge: StartEdge) -> None:
    """RFC 9110 15.5.20: a host that is nobody's gets 421."""

    def page(request: OriginRequest) -> Answer:
        return Answer(200, FRESH | {"Cache-Tag": "page"}, (request.field("host") or "").encode())

    origin.otherwise(page)
    sites = {
        "shop": {
            "origins": [{"url": origin.url}],
            "hosts": ["shop.example", "*.shop.example"],
            "preview_hosts": ["preview.shop.example"],
        },
        "blog": {"origins": [{"url": origin.url}], "hosts": ["blog.example"]},
    }
    edge = await start_edge(config={"sites": sites, "default_site": None})
    hosts = ["shop.example", "SHOP.example:80", "a.shop.example", "preview.shop.example"]
    for host in [*hosts, "blog.example"]:
        response = await edge.get("/", fields={"Host": host})
        assert response.status == 200, host
    refused = await edge.get("/", fields={"Host": "nobody.example"})
    assert refused.status == 421
    assert refused.cache_status["detail"] == "unknown-host"

    async def matched(**selection: object) -> int:
        return int((await edge.purge(**selection, dry_run=True))["matched"])

    assert await matched(tags=["page"], site="shop") == 3
    assert await matched(tags=["page"], site="shop", environment="preview") == 1
    assert await matched(tags=["page"], site="blog") == 1
    assert await matched(tags=["page"], site="*") == 4
    assert await matched(urls=["https://shop.example/"]) == 1
    assert await matched(urls=["/"], site="shop") == 3
    wrong = await edge.admin("POST", "/v1/purge", body=b'{"urls": ["http://nobody.example/"]}')
    assert wrong.status == 400
    unnamed = await edge.admin("POST", "/v1/purge", body=b'{"tags": ["page"]}')
    assert [each["field"] for each in unnamed.json()["errors"]] == ["site"]


async def test_the_default_ttl_of_a_site(origin: ScriptedOrigin, start_edge: StartEdge) -> None:
    origin.route("/", Answer(200, {}, b"page"))
    edge = await start_edge(origin, site={"ttl": {"default": "10m", "max": "10m"}})
    await edge.get("/")
    assert 595 <= int(str((await edge.get("/")).cache_status["ttl"])) <= 600


# -- admin


async def test_entries_tell_all_about_a_url(start_edge: StartEdge, origin: ScriptedOrigin) -> None:
    edge = await start_edge(origin)
    fields = FRESH | {"Cache-Tag": "one, two", "Vary": "Accept-Language", "ETag": '"1"'}
    origin.route("/page", Answer(200, fields, b"page"))
    await edge.get("/page", fields={"Accept-Language": "de"})
    await edge.get("/cb:v1/page")
    answer = (await edge.admin("GET", f"/v1/entries?url={edge.url}/page")).json()
    assert {entry["cache_buster"] for entry in answer["entries"]} == {None, "v1"}
    (entry,) = [entry for entry in answer["entries"] if entry["cache_buster"] is None]
    assert entry["variant"] == {"accept-language": "de"}
    assert (entry["served"], entry["status"], entry["tags"]) == ("hit", 200, ["one", "two"])
    assert entry["freshness"]["lifetime"] == 600
    assert entry["body"]["length"] == 4
    assert entry["position"] == 0
    await edge.purge(tags=["one"])
    (await edge.admin("GET", "/v1/entries?url=/page")).json()
    answer = (await edge.admin("GET", "/v1/entries?url=/page")).json()
    assert {entry["served"] for entry in answer["entries"]} == {"stale"}
    assert {entry["invalidated_at"] for entry in answer["entries"]} == {1}
    origin.route("/mine", Answer(200, {"Cache-Control": "private"}, b""))
    await edge.get("/mine")
    answer = (await edge.admin("GET", f"/v1/entries?url={edge.url}/mine")).json()
    assert answer["entries"] == []
    assert any("private" in note for note in answer["notes"])


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer wrong", "Basic a2l0LWFkbWluLXRva2Vu"]
)
async def test_the_admin_api_is_closed_to_strangers(
    edge: EdgeProcess, authorization: str | None
) -> None:
    from tests.kit import fetch

    fields = {} if authorization is None else {"Authorization": authorization}
    for method, path in (("POST", "/v1/purge"), ("GET", "/v1/entries?url=/"), ("GET", "/v1/x")):
        response = await fetch(edge.admin_url + path, method=method, fields=fields)
        assert response.status == 401, path
        assert (response.field("www-authenticate") or "").startswith("Bearer")
    for path in ("/healthz", "/readyz"):
        assert (await fetch(edge.admin_url + path)).status == 200
    assert (await fetch(edge.admin_url + "/healthz", fields={"Host": "evil.example"})).status == 421
    assert edge.token not in edge.log + edge.stdout


async def test_a_token_does_only_what_it_may(origin: ScriptedOrigin, start_edge: StartEdge) -> None:
    from tests.kit.edge import token_hash

    tokens = [
        {"name": "kit", "hash": token_hash("kit-admin-token")},
        {"name": "reader", "hash": token_hash("reads"), "actions": ["read"]},
        {"name": "elsewhere", "hash": token_hash("other"), "sites": ["other"]},
    ]
    other = {"origins": [{"url": origin.url}], "hosts": ["other.example"]}
    edge = await start_edge(origin, config={"admin": {"tokens": tokens}, "sites": {"other": other}})
    for token, status in (("reads", 403), ("other", 403), ("kit-admin-token", 200)):
        edge.token = token
        response = await edge.admin("POST", "/v1/purge", body=b'{"tags": ["a"], "site": "default"}')
        assert response.status == status
    edge.token = "reads"
    assert (await edge.admin("GET", "/v1/entries?url=/&site=default")).status == 200


async def test_requests_at_once_for_different_pages_all_succeed(
    origin: ScriptedOrigin, pair: EdgeProcess
) -> None:
    origin.otherwise(lambda request: Answer(200, FRESH, request.target.encode()))
    targets = [f"/{number}" for number in range(300)]
    responses = await asyncio.gather(*map(pair.get, targets))
    assert [response.text for response in responses] == targets
