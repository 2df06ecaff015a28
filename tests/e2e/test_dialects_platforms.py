"""The dialects of Vercel, Brilliant Directories, Optimole and Flextype through a running edge.

Tagged by the origin in the vendor's way, called with the bytes that the vendor's client sends, and
what readers get next, in that site and environment alone. One edge for all; each test has pages of
its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from edgeproxy.cache.permissions import mend_permissions
from tests.e2e.test_dialects import HOSTS, fill, page, result
from tests.kit import Answer, Connection, EdgeProcess, ScriptedOrigin
from tests.kit.edge import TOKEN, token_hash

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.kit import Response

pytestmark = pytest.mark.asyncio(loop_scope="module")

VENDOR, ACCESS = "vendors-token", "vendors-access"
SHOP, PREVIEW, BLOG = HOSTS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def origin() -> AsyncIterator[ScriptedOrigin]:
    async with ScriptedOrigin() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge(
    origin: ScriptedOrigin, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EdgeProcess]:
    """Two workers, two sites in front of one origin, and a token for the shop."""
    vendor = {"name": "vendor", "hash": token_hash(VENDOR), "access_hash": token_hash(ACCESS)}
    site = {"origins": [{"url": origin.url}]}
    shop = {"hosts": [SHOP], "preview_hosts": [PREVIEW], "vercel_cache": True}
    edge = EdgeProcess(
        tmp_path_factory.mktemp("platforms"),
        origin=origin.url,
        workers=2,
        config={
            "admin": {
                "tokens": [
                    {"name": "kit", "hash": token_hash(TOKEN)},
                    {**vendor, "sites": ["shop"]},
                ],
                "dialects": {
                    "brilliant_directories": {"areas": {"shop": {"css": ["type:text/css"]}}}
                },
            },
            "sites": {"shop": {**site, **shop}, "blog": {**site, "hosts": [BLOG]}},
        },
    )
    async with edge:
        yield edge


async def say(edge: EdgeProcess, head: str, body: bytes = b"") -> Response:
    """A call of the admin port, byte for byte: `{host}` and `{length}` in its head are filled in,
    and its lines are ended, as they go out."""
    method = head.split(" ", 1)[0]
    async with await Connection.open(edge.admin_url) as connection:
        text = head.format(host=connection.authority, length=len(body)).strip()
        lines = [line.strip() for line in text.splitlines()]
        await connection.send("\r\n".join([*lines, "", ""]).encode() + body)
        return await connection.response(method)


async def word(edge: EdgeProcess, target: str, host: str = SHOP) -> str | None:
    """What `x-vercel-cache` says of a request."""
    return (await edge.get(target, {"Host": host})).field("x-vercel-cache")


async def results(edge: EdgeProcess, target: str) -> list[str]:
    """How a request to each of the hosts is answered."""
    return [await result(edge, target, host) for host in HOSTS]


async def refreshed(edge: EdgeProcess, target: str, host: str = SHOP) -> None:
    """Wait for the refresh behind a stale answer."""
    while await result(edge, target, host) != "fresh":
        pass


# -- Vercel

SDK = """POST /v1/edge-cache/{path}?projectIdOrName=shop&teamId=team_1 HTTP/1.1
    host: {{host}}
    connection: keep-alive
    accept: application/json
    authorization: Bearer vendors-token
    content-type: application/json
    cookie:
    user-agent: speakeasy-sdk/typescript 1.19.0 2.755.9 0.0.1 @vercel/sdk
    accept-language: *
    sec-fetch-mode: cors
    accept-encoding: gzip, deflate
    content-length: {{length}}"""

CLI = """{method} {path} HTTP/1.1
    accept: */*
    authorization: Bearer vendors-token
    user-agent: vercel 48.2.0 node-v22.11.0 linux (x64)
    {more}
    accept-encoding: gzip,deflate
    connection: close
    host: {{host}}"""


async def vercel(edge: EdgeProcess, path: str, **body: Any) -> Response:
    return await say(edge, SDK.format(path=path), json.dumps(body).encode())


async def vercel_cli(edge: EdgeProcess, method: str, path: str) -> Response:
    more = "content-type: application/json" if method != "GET" else "x-vercel-cli: 1"
    if method == "POST":
        more += "\n    content-length: 0"
    return await say(edge, CLI.format(method=method, path=path, more=more))


async def test_vercel_by_tags(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    tagged = page(Vercel_Cache_Tag="posts,post-1")
    await fill(edge, origin, {"/v/a": tagged, "/v/b": page(Vercel_Cache_Tag="Posts")})

    answer = await vercel(edge, "invalidate-by-tags", tags=["posts"], target="preview")
    assert (answer.status, answer.body) == (200, b"")
    assert await results(edge, "/v/a") == ["fresh", "stale", "fresh"]
    await refreshed(edge, "/v/a", PREVIEW)

    assert (await vercel(edge, "invalidate-by-tags", tags=["posts"])).status == 200
    assert await results(edge, "/v/a") == ["stale", "stale", "fresh"]
    for host in (SHOP, PREVIEW):
        await refreshed(edge, "/v/a", host)

    assert (await vercel(edge, "dangerously-delete-by-tags", tags="post-1,nothing")).status == 200
    assert await results(edge, "/v/a") == ["missed", "missed", "fresh"]

    answer = await vercel(
        edge, "dangerously-delete-by-tags", tags=["post-1"], revalidationDeadlineSeconds=3600
    )
    assert answer.status == 200
    assert await results(edge, "/v/a") == ["stale", "stale", "fresh"]
    assert await results(edge, "/v/b") == ["fresh"] * 3


async def test_vercel_by_source_images(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    component = "/_vercel/image?url=https%3A%2F%2Fexample.com%2Fv.jpg&w=640&q=75"
    optimised = "/w:100/https://example.com/v.jpg"
    other = "/_next/image?url=%2Fother.jpg&w=640&q=75"
    await fill(edge, origin, dict.fromkeys((component, optimised, other), page()))
    images = ["https://example.com/v.jpg"]

    assert (await vercel(edge, "invalidate-by-src-images", srcImages=images)).status == 200
    for target in (component, optimised):
        assert await results(edge, target) == ["stale", "stale", "fresh"]
        for host in (SHOP, PREVIEW):
            await refreshed(edge, target, host)

    assert (await vercel(edge, "dangerously-delete-by-src-images", srcImages=images)).status == 200
    for target in (component, optimised):
        assert await results(edge, target) == ["missed", "missed", "fresh"]
    assert await results(edge, other) == ["fresh"] * 3
    assert (await vercel(edge, "invalidate-by-src-images", srcImages=["/other.jpg"])).status == 200
    assert await results(edge, other) == ["stale", "stale", "fresh"]


async def test_vercel_s_cli_purges_a_project(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    user = await vercel_cli(edge, "GET", "/v2/user")
    assert user.json()["user"]["username"] == "vendor"
    project = await vercel_cli(edge, "GET", "/v9/projects/shop?teamId=team_1")
    assert (project.json()["id"], project.json()["name"]) == ("shop", "shop")
    assert (await vercel_cli(edge, "GET", "/teams/team_1")).json()["id"] == "team_1"
    query = "projectIdOrName=shop&teamId=team_1"
    for method, path in (
        ("POST", "/v1/edge-cache/purge-all"),
        ("DELETE", "/v1/data-cache/purge-all"),
    ):
        target = f"/v/{method}"
        await fill(edge, origin, {target: page()})
        answer = await vercel_cli(edge, method, f"{path}?{query}")
        assert (answer.status, answer.body) == (200, b"")
        assert await results(edge, target) == ["missed", "missed", "fresh"]


async def test_what_vercel_s_readers_see(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    fields = {
        "Vercel-CDN-Cache-Control": "max-age=3600, stale-while-revalidate=60",
        "CDN-Cache-Control": "max-age=600",
        "Cache-Control": "no-store",
        "Vercel-Cache-Tag": "seen",
        "X-Vercel-Cache": "PRERENDER",
    }
    origin.route("/v/seen", Answer(200, fields, b"page"))
    assert [await word(edge, "/v/seen") for _ in range(3)] == ["MISS", "HIT", "HIT"]
    answer = await edge.get("/v/seen", {"Host": SHOP})
    assert 3590 < int(str(answer.cache_status["ttl"])) <= 3600
    assert answer.field("cache-control") == "no-store"
    assert answer.field("cdn-cache-control") == "max-age=600"
    assert answer.field("vercel-cdn-cache-control") is None
    assert answer.field("vercel-cache-tag") is None

    assert (await vercel(edge, "invalidate-by-tags", tags="seen")).status == 200
    assert await word(edge, "/v/seen") == "STALE"
    assert (await vercel(edge, "dangerously-delete-by-tags", tags="seen")).status == 200
    assert await word(edge, "/v/seen") == "MISS"

    checked = {"Cache-Control": "max-age=60, no-cache", "ETag": '"1"'}
    origin.route("/v/checked", Answer(200, checked, b"page"))
    assert [await word(edge, "/v/checked") for _ in range(2)] == ["MISS", "REVALIDATED"]

    async with await edge.connect() as connection:
        posted = await connection.exchange("POST", "/v/checked", {"Host": SHOP}, b"x")
    assert posted.field("x-vercel-cache") == "BYPASS"
    assert await word(edge, "/v/seen", BLOG) == "PRERENDER", "as sent, where it is not switched on"


@pytest.mark.parametrize(
    ("fields", "ttl"),
    [
        ({"CDN-Cache-Control": "max-age=600", "Cache-Control": "max-age=60"}, 600),
        ({"Vercel-CDN-Cache-Control": "max-age=900", "Cache-Control": "max-age=60"}, 900),
        ({"Cache-Control": "s-maxage=300, max-age=60"}, 300),
    ],
)
async def test_vercel_s_lifetimes(
    edge: EdgeProcess, origin: ScriptedOrigin, fields: Mapping[str, str], ttl: int
) -> None:
    target = f"/v/ttl-{ttl}"
    origin.route(target, Answer(200, dict(fields), b"page"))
    await edge.get(target, {"Host": SHOP})
    found = (await edge.get(target, {"Host": SHOP})).cache_status
    assert ttl - 10 < int(str(found["ttl"])) <= ttl


async def test_vercel_s_tag_limits(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    """They are the site's; these are within its defaults."""
    tags = [f"{at:03}" + "x" * 253 for at in range(128)]
    origin.route("/v/many", page(Vercel_Cache_Tag=",".join(tags)))
    assert [await word(edge, "/v/many") for _ in range(2)] == ["MISS", "HIT"]
    assert (await vercel(edge, "dangerously-delete-by-tags", tags=[tags[127]])).status == 200
    assert await word(edge, "/v/many") == "MISS"


# -- Brilliant Directories

BRILLIANT = """POST /api/v2/website_settings/refreshCache HTTP/1.1
    Host: {{host}}
    Accept: */*
    X-Api-Key: vendors-token
    Content-Length: {{length}}{more}"""


async def brilliant(edge: EdgeProcess, form: bytes = b"") -> dict[str, Any]:
    more = "\n    Content-Type: application/x-www-form-urlencoded" if form else ""
    answer = await say(edge, BRILLIANT.format(more=more), form)
    assert answer.status == 200
    body: dict[str, Any] = answer.json()
    assert body["status"] == "success"
    return body


async def test_brilliant_directories(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    verify = "GET /api/v2/token/verify HTTP/1.1\nHost: {host}\nX-Api-Key: vendors-token"
    assert (await say(edge, verify)).json()["status"] == "success"
    pages = {
        "/bd/menu": page(Cache_Tag="menus"),
        "/bd/style": page(Content_Type="text/css"),
        "/bd/other": page(),
    }
    await fill(edge, origin, pages)
    body = await brilliant(edge, b"scope=menus%2Ccss&verbose=true")
    assert (body["areas_refreshed"], list(body["details"])) == (["menus", "css"],) * 2
    for target in ("/bd/menu", "/bd/style"):
        assert await results(edge, target) == ["missed", "missed", "fresh"]
    assert await results(edge, "/bd/other") == ["fresh"] * 3

    body = await brilliant(edge)
    assert (body["scope"], body["full"]) == ("full", False)
    assert await results(edge, "/bd/other") == ["missed", "missed", "fresh"]

    assert mend_permissions(edge.folder / "store").mended == 0, "they are made as they should be"
    (edge.folder / "store" / "journal").chmod(0o755)
    body = await brilliant(edge, b"full=1")
    assert body["areas_refreshed"][-2:] == ["db_optimization", "file_permissions"]
    assert (edge.folder / "store" / "journal").stat().st_mode & 0o777 == 0o700
    for target in pages:
        assert await results(edge, target) == ["missed", "missed", "fresh"]
        assert await results(edge, target) == ["fresh"] * 3, "the store goes on as before"


# -- Optimole

OPTIMOLE = """POST {path} HTTP/1.1
    Host: {{host}}
    User-Agent: Optimle WP (v3.14.0)
    Accept: */*
    Accept-Encoding: deflate, gzip
    Optml-Site: https://shop.test
    Authorization: Bearer vendors-token
    Content-Type: {kind}
    Connection: close
    Content-Length: {{length}}"""


async def optimole(
    edge: EdgeProcess, path: str, body: bytes = b"", kind: str = "application/json"
) -> Any:
    answer = await say(edge, OPTIMOLE.format(path=path, kind=kind), body)
    assert answer.status == answer.json()["code"] == 200
    return answer.json()["data"]


async def test_optimole(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    base = "/api/optml/v2/cache/invalidate"
    first, second, other = (
        "/w:100/https://img.test/o.jpg",
        "/w:200/https://img.test/o.jpg?v=1",
        "/w:100/https://other.test/o.jpg",
    )
    await fill(edge, origin, dict.fromkeys((first, second, other), page()))

    data = await optimole(edge, f"{base}/asset", b'{"assets":["https://img.test/o.jpg"]}')
    assert data == {"invalidated": 4}
    for target in (first, second):
        assert await results(edge, target) == ["missed", "missed", "fresh"]

    found = await edge.admin("GET", f"/v1/entries?url=http://{SHOP}{first}")
    name = found.json()["entries"][0]["hash"]
    body = json.dumps({"assets": [name]}).encode()
    assert await optimole(edge, f"{base}/asset", body) == {"invalidated": 1}
    assert await results(edge, first) == ["missed", "fresh", "fresh"]

    assert await optimole(edge, f"{base}/domain", b'{"domain":"img.test"}') == {"invalidated": 4}
    assert await results(edge, second) == ["missed", "missed", "fresh"]
    assert await results(edge, other) == ["fresh"] * 3

    await optimole(edge, f"{base}/all", kind="application/x-www-form-urlencoded")
    assert await results(edge, other) == ["missed", "missed", "fresh"]


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/api/optml/v2/cache/token", b"", "application/json"),
        (
            "/api/optml/v1/cache/tokens",
            b"token=eFRn.20eff&type=images",
            "application/x-www-form-urlencoded",
        ),
    ],
    ids=["v2", "v1"],
)
async def test_optimole_s_tokens(
    edge: EdgeProcess, origin: ScriptedOrigin, path: str, body: bytes, kind: str
) -> None:
    target = f"/w:100/https://img.test{path}.jpg"
    await fill(edge, origin, {target: page()})
    token = (await optimole(edge, path, body, kind))["token"]
    busted = f"/cb:{token}{target}"
    assert await result(edge, busted) == "missed"
    newest = origin.requests_for(target)[-1]
    assert newest.field("cache-control") == "no-cache"
    assert await result(edge, busted) == "fresh"
    asked = len(origin.requests_for(target))
    assert await results(edge, target) == ["fresh"] * 3
    assert len(origin.requests_for(target)) == asked

    old = f"/cb:eFRn.20eff{target}"
    assert [await result(edge, old), await result(edge, old)] == ["missed", "fresh"]


# -- Flextype

FLEXTYPE = """POST /api/v1/cache/clear HTTP/1.1
    Host: {host}
    User-Agent: GuzzleHttp/7
    Content-Type: application/json
    Content-Length: {length}"""


async def test_flextype(edge: EdgeProcess, origin: ScriptedOrigin) -> None:
    await fill(edge, origin, {"/f": page()})
    given = {"token": VENDOR, "access_token": ACCESS}
    answer = await say(edge, FLEXTYPE, json.dumps(given).encode())
    assert (answer.status, answer.json()) == (200, {})
    assert await results(edge, "/f") == ["missed", "missed", "fresh"]

    target = f"/api/v1/cache/clear?token={VENDOR}&access_token={ACCESS}"
    answer = await say(edge, f"GET {target} HTTP/1.1\nHost: {{host}}\nAccept: */*")
    assert (answer.status, answer.json()) == (200, {})
    assert answer.field("cache-control") == "no-store"
    assert await results(edge, "/f") == ["missed", "missed", "fresh"]
    assert VENDOR not in edge.log
    assert ACCESS not in edge.log + edge.stdout
