"""Vercel's edge cache, as its document, its SDK and its CLI have it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.invalidation.service import MAX_DEADLINE
from tests.admin.dialects.conftest import refusals, secret, store
from tests.kit.origin import CLOSE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.admin.conftest import AdminPort, Called

INVALIDATE_TAGS = "/v1/edge-cache/invalidate-by-tags"
DELETE_TAGS = "/v1/edge-cache/dangerously-delete-by-tags"
INVALIDATE_IMAGES = "/v1/edge-cache/invalidate-by-src-images"
DELETE_IMAGES = "/v1/edge-cache/dangerously-delete-by-src-images"
BY_TAGS = (INVALIDATE_TAGS, DELETE_TAGS)
BY_IMAGES = (INVALIDATE_IMAGES, DELETE_IMAGES)
HOW_BY_TAGS = [(INVALIDATE_TAGS, "stale"), (DELETE_TAGS, "missed")]
HOW_BY_IMAGES = [(INVALIDATE_IMAGES, "stale"), (DELETE_IMAGES, "missed")]
WHOLE = {"/v1/edge-cache/purge-all": "POST", "/v1/data-cache/purge-all": "DELETE"}
PURGES = (*BY_TAGS, *BY_IMAGES, *WHOLE)
LOOKS = ("/v2/user", "/v9/projects/shop", "/teams/team_1")
ALL_PATHS = (*PURGES, *LOOKS)

HOSTS = ("shop.test", "preview.shop.test", "blog.test")
TAGS = {"/a": "Vercel-Cache-Tag: front,a", "/b": "Vercel-Cache-Tag: Front"}
IMAGE = "https://img.test/i.jpg"
IMAGES = (
    "/_vercel/image?url=https%3A%2F%2Fimg.test%2Fi.jpg&w=640",
    "/_next/image?url=%2Fi.jpg&w=640",
    "/w:100/https://img.test/i.jpg",
    "/w:100/https://img.test/other.jpg",
)


def body_of(path: str) -> dict[str, Any] | None:
    """What a call of that path needs."""
    if path in BY_TAGS:
        return {"tags": ["front"]}
    return {"srcImages": [IMAGE]} if path in BY_IMAGES else None


async def say(
    port: AdminPort,
    path: str,
    body: Any = None,
    by: str = "shop",
    *,
    project: str | None = "shop",
    method: str | None = None,
    query: str = "",
    headers: Mapping[str, str] | None = None,
) -> Called:
    """A call as Vercel's SDK makes it."""
    if method is None:
        method = "GET" if path in LOOKS else WHOLE.get(path, "POST")
    named = {"Cookie": "", "Content-Type": "application/json", **(headers or {})}
    named.setdefault("Authorization", f"Bearer {secret(by)}")
    if project is not None:
        query += f"&projectIdOrName={project}"
    target = path + ("?" + query.lstrip("&") if query else "")
    return await port.call(method, target, body, secret=None, headers=named)


def code(answer: Called) -> str:
    """The code of an error, which has all that an error has."""
    error = answer.body["error"]
    assert error["message"]
    found: str = error["code"]
    return found


def journal(port: AdminPort) -> int:
    return port.served.edge.view.catch_up()


# -- success, and what it does


@pytest.mark.parametrize("tags", [["front", "a"], "front,a", " front , nothing,", "front"], ids=str)
@pytest.mark.parametrize(("path", "how"), HOW_BY_TAGS)
async def test_what_bears_a_tag_is_picked(
    speaking: AdminPort, path: str, how: str, tags: Any
) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, path, {"tags": tags})
    assert (answer.status, answer.body) == (200, None)
    assert answer.headers["Edge-Matched"] == "2"
    assert await pages.how("/a") == how
    assert await pages.how("/a", "preview.shop.test") == how
    assert await pages.how("/b") == "fresh", "tags are case-sensitive"
    assert await pages.how("/a", "blog.test") == "fresh"


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("production", ["preview.shop.test/a", "blog.test/a"]),
        ("preview", ["shop.test/a", "blog.test/a"]),
    ],
)
@pytest.mark.parametrize("path", BY_TAGS)
async def test_one_target_alone(
    speaking: AdminPort, path: str, target: str, left: list[str]
) -> None:
    pages = await store(speaking, TAGS, [(host, "/a") for host in HOSTS])
    assert (await say(speaking, path, {"tags": "front", "target": target})).status == 200
    assert await pages.left() == left


@pytest.mark.parametrize(
    ("images", "picked"),
    [
        ([IMAGE], [IMAGES[0], IMAGES[2]]),
        (["/i.jpg"], [IMAGES[1]]),
        ([IMAGE, "/i.jpg"], list(IMAGES[:3])),
        (["https://img.test/none.jpg"], []),
    ],
    ids=str,
)
@pytest.mark.parametrize(("path", "how"), HOW_BY_IMAGES)
async def test_what_was_made_from_an_image_is_picked(
    speaking: AdminPort, path: str, how: str, images: list[str], picked: list[str]
) -> None:
    pages = await store(speaking, {}, [("shop.test", image) for image in IMAGES])
    answer = await say(speaking, path, {"srcImages": images})
    assert (answer.status, answer.body) == (200, None)
    assert [image for image in IMAGES if await pages.how(image) == how] == picked


@pytest.mark.parametrize("path", [DELETE_TAGS, DELETE_IMAGES])
async def test_until_the_deadline_it_is_stale(speaking: AdminPort, path: str) -> None:
    image = "/_vercel/image?url=https%3A%2F%2Fimg.test%2Fi.jpg"
    pages = await store(speaking, {image: "Vercel-Cache-Tag: front"}, [("shop.test", image)])
    speaking.origin.route(image, [CLOSE])
    body = {**(body_of(path) or {}), "revalidationDeadlineSeconds": 60.5}
    assert (await say(speaking, path, body)).status == 200
    assert await pages.how(image) == "stale"
    await speaking.served.until(lambda: not speaking.served.refreshes)
    speaking.served.clock.now += 59
    assert await pages.how(image) == "stale"
    await speaking.served.until(lambda: not speaking.served.refreshes)
    speaking.served.clock.now += 2
    assert (await speaking.served.get(image)).status == 502, "and then it is not there any more"


@pytest.mark.parametrize("deadline", [0, 0.0, 1, 1e300, MAX_DEADLINE * 2], ids=str)
@pytest.mark.parametrize("path", [DELETE_TAGS, DELETE_IMAGES])
async def test_deadlines(speaking: AdminPort, path: str, deadline: float) -> None:
    body = {**(body_of(path) or {}), "revalidationDeadlineSeconds": deadline}
    assert (await say(speaking, path, body)).status == 200


@pytest.mark.parametrize("path", WHOLE)
async def test_a_whole_project_is_cleared(speaking: AdminPort, path: str) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, path)
    assert (answer.status, answer.body, answer.headers["Edge-Matched"]) == (200, None, "4")
    assert await pages.left() == ["blog.test/a"]


@pytest.mark.parametrize("path", PURGES)
async def test_a_dry_run_counts_and_changes_nothing(speaking: AdminPort, path: str) -> None:
    pages = await store(speaking, TAGS)
    answer = await say(speaking, path, body_of(path), headers={"Edge-Dry-Run": "1"})
    assert (answer.status, answer.headers["Edge-Dry-Run"]) == (200, "1")
    assert len(await pages.left()) == 5
    assert journal(speaking) == 0


@pytest.mark.parametrize("path", PURGES)
async def test_the_project_is_the_site(speaking: AdminPort, path: str) -> None:
    pages = await store(speaking, TAGS | {"/w:1/" + IMAGE: ""}, [("blog.test", "/a")])
    answer = await say(
        speaking, path, body_of(path), "two", project="blog", query="teamId=t&slug=s"
    )
    assert answer.status == 200
    assert (await pages.left() == []) is (path not in BY_IMAGES)


@pytest.mark.parametrize("path", PURGES)
async def test_only_the_environments_of_the_token_are_purged(
    speaking: AdminPort, path: str
) -> None:
    image = "/w:1/" + IMAGE
    tags = {image: "Vercel-Cache-Tag: front"}
    pages = await store(speaking, tags, [("shop.test", image), ("preview.shop.test", image)])
    assert (await say(speaking, path, body_of(path), "preview")).status == 200
    assert await pages.left() == ["shop.test" + image]


# -- what the CLI asks first


@refusals
async def test_the_user_is_the_token(refusing: AdminPort) -> None:
    answer = await say(refusing, "/v2/user", project=None)
    user = answer.body["user"]
    assert (answer.status, user["id"], user["username"]) == (200, "shop", "shop")


@refusals
@pytest.mark.parametrize("by", ["shop", "two", "master"])
async def test_the_project_is_known_by_its_name(refusing: AdminPort, by: str) -> None:
    answer = await say(refusing, "/v9/projects/shop", by=by, project=None, query="teamId=team_1")
    assert (answer.status, answer.body["id"], answer.body["name"]) == (200, "shop", "shop")
    assert answer.body["accountId"] == "team_1"


@refusals
async def test_the_team_is_the_one_that_is_asked_for(refusing: AdminPort) -> None:
    answer = await say(refusing, "/teams/team_1", project=None)
    assert (answer.status, answer.body["id"], answer.body["slug"]) == (200, "team_1", "shop")


# -- credentials


@refusals
@pytest.mark.parametrize("authorization", ["", "Basic YTpi", "Bearer", "token"])
@pytest.mark.parametrize("path", ALL_PATHS)
async def test_without_a_token(refusing: AdminPort, path: str, authorization: str) -> None:
    headers = {"Authorization": authorization}
    answer = await say(refusing, path, body_of(path), headers=headers)
    assert (answer.status, code(answer)) == (403, "forbidden")
    assert answer.body["error"]["missingToken"] is True


@refusals
@pytest.mark.parametrize("by", ["nobody", "expired", "disabled"])
@pytest.mark.parametrize("path", ALL_PATHS)
async def test_with_a_token_that_is_not_good(refusing: AdminPort, path: str, by: str) -> None:
    answer = await say(refusing, path, body_of(path), by)
    assert (answer.status, code(answer)) == (403, "forbidden")
    assert answer.body["error"]["invalidToken"] is True
    assert secret(by) not in str(answer.body)


@refusals
@pytest.mark.parametrize("by", ["elsewhere", "reader"])
@pytest.mark.parametrize("path", PURGES)
async def test_who_may_not(refusing: AdminPort, path: str, by: str) -> None:
    answer = await say(refusing, path, body_of(path), by)
    assert (answer.status, code(answer)) == (403, "forbidden")
    assert "invalidToken" not in answer.body["error"], "a new one would not help"


@refusals
@pytest.mark.parametrize("path", BY_TAGS)
async def test_another_environment_than_the_token_s(refusing: AdminPort, path: str) -> None:
    answer = await say(refusing, path, {"tags": "a", "target": "production"}, "preview")
    assert (answer.status, code(answer)) == (403, "forbidden")


@pytest.mark.parametrize("path", PURGES)
async def test_a_whole_project_takes_more_than_a_tag(speaking: AdminPort, path: str) -> None:
    answer = await say(speaking, path, body_of(path), "narrow")
    assert answer.status == (403 if path in WHOLE else 200)


async def test_too_many_calls_in_a_time(speaking: AdminPort) -> None:
    for path in ALL_PATHS:
        assert (await say(speaking, path, body_of(path), "hurried")).status == 200
        answer = await say(speaking, path, body_of(path), "hurried")
        assert (answer.status, code(answer)) == (429, "rate_limited")
        assert answer.headers["Retry-After"] == "60"
        speaking.served.clock.now += 60
        reset = speaking.served.clock.now
        limit = {"remaining": 0, "reset": reset, "resetMs": reset * 1000, "total": 1}
        assert answer.body["error"]["limit"] == limit
        assert all(isinstance(value, int) for value in answer.body["error"]["limit"].values())


async def test_a_token_that_is_used_up(speaking: AdminPort) -> None:
    assert (await say(speaking, "/v2/user", by="spent")).status == 200
    for path in ALL_PATHS:
        answer = await say(speaking, path, body_of(path), "spent")
        assert (answer.status, code(answer)) == (403, "forbidden")


# -- projects


@refusals
@pytest.mark.parametrize(
    ("by", "project"), [("shop", "blog"), ("shop", "none"), ("master", "none")]
)
@pytest.mark.parametrize("path", PURGES)
async def test_projects_that_are_not_there(
    refusing: AdminPort, path: str, by: str, project: str
) -> None:
    answer = await say(refusing, path, body_of(path), by, project=project)
    assert (answer.status, code(answer)) == (404, "not_found")
    assert answer.body["error"]["message"] == f"Could not find the Project: {project}"


@refusals
async def test_a_project_that_is_not_there_is_not_shown(refusing: AdminPort) -> None:
    answer = await say(refusing, "/v9/projects/blog", project=None, method="GET")
    assert (answer.status, code(answer)) == (404, "not_found")


@refusals
@pytest.mark.parametrize("query", ["", "projectIdOrName=", "teamId=t"])
@pytest.mark.parametrize("path", PURGES)
async def test_the_project_must_be_named(refusing: AdminPort, path: str, query: str) -> None:
    answer = await say(refusing, path, body_of(path), project=None, query=query)
    assert (answer.status, code(answer)) == (400, "bad_request")


# -- bodies


@refusals
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(None, id="none"),
        pytest.param({}, id="no tags"),
        pytest.param({"tags": []}, id="an empty list"),
        pytest.param({"tags": ""}, id="an empty text"),
        pytest.param({"tags": " , ,"}, id="nothing between commas"),
        pytest.param({"tags": None}, id="null"),
        pytest.param({"tags": 7}, id="a number"),
        pytest.param({"tags": [7]}, id="a list of numbers"),
        pytest.param({"tags": [""]}, id="an empty tag"),
        pytest.param({"tags": ["a\0"]}, id="NUL"),
        pytest.param({"tags": "a\nb"}, id="line break"),
        pytest.param({"tags": ["a"] * 17}, id="17 of them"),
        pytest.param({"tags": ["a" * 257]}, id="257 characters"),
        pytest.param({"tags": "a" * 8197}, id="8197 characters in one text"),
        pytest.param({"tags": ["a"], "target": "staging"}, id="another target"),
        pytest.param({"tags": ["a"], "target": None}, id="null as target"),
        pytest.param({"tags": ["a"], "target": ["preview"]}, id="a list as target"),
        pytest.param({"tags": ["a"], "srcImages": ["/a"]}, id="the other endpoint's key"),
        pytest.param({"tags": ["a"], "tag": "a"}, id="an unknown key"),
    ],
)
@pytest.mark.parametrize("path", BY_TAGS)
async def test_tags_that_are_wrong(refusing: AdminPort, path: str, body: Any) -> None:
    answer = await say(refusing, path, body)
    assert (answer.status, code(answer)) == (400, "bad_request")


@refusals
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(None, id="none"),
        pytest.param({}, id="no images"),
        pytest.param({"srcImages": []}, id="an empty list"),
        pytest.param({"srcImages": "/a"}, id="no list"),
        pytest.param({"srcImages": [""]}, id="an empty one"),
        pytest.param({"srcImages": ["/a", "#b"]}, id="one that is no image"),
        pytest.param({"srcImages": [7]}, id="a number"),
        pytest.param({"srcImages": ["/a"] * 9}, id="9 of them"),
        pytest.param({"srcImages": ["/" + "a" * 8192]}, id="8193 characters"),
        pytest.param({"srcImages": ["/a"], "target": "preview"}, id="a target"),
        pytest.param({"srcImages": ["/a"], "tags": ["a"]}, id="the other endpoint's key"),
    ],
)
@pytest.mark.parametrize("path", BY_IMAGES)
async def test_images_that_are_wrong(refusing: AdminPort, path: str, body: Any) -> None:
    answer = await say(refusing, path, body)
    assert (answer.status, code(answer)) == (400, "bad_request")


@refusals
@pytest.mark.parametrize("deadline", [-1, -0.5, "60", None, True, math.nan], ids=str)
@pytest.mark.parametrize("path", [DELETE_TAGS, DELETE_IMAGES])
async def test_deadlines_that_are_none(refusing: AdminPort, path: str, deadline: Any) -> None:
    body = {**(body_of(path) or {}), "revalidationDeadlineSeconds": deadline}
    answer = await say(refusing, path, body)
    assert (answer.status, code(answer)) == (400, "bad_request")


@refusals
@pytest.mark.parametrize("path", [INVALIDATE_TAGS, INVALIDATE_IMAGES])
async def test_what_is_invalidated_has_no_deadline(refusing: AdminPort, path: str) -> None:
    body = {**(body_of(path) or {}), "revalidationDeadlineSeconds": 1}
    answer = await say(refusing, path, body)
    assert (answer.status, code(answer)) == (400, "bad_request")
    assert "revalidationDeadlineSeconds" in answer.body["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (INVALIDATE_TAGS, {"tags": [str(at) for at in range(16)]}),
        (INVALIDATE_TAGS, {"tags": ["a" * 256]}),
        (DELETE_TAGS, {"tags": ("a" * 31 + ",") * 256}),
        (INVALIDATE_IMAGES, {"srcImages": [f"/{at}" for at in range(8)]}),
        (DELETE_IMAGES, {"srcImages": ["/" + "a" * 8191]}),
    ],
    ids=["16 tags", "256 characters", "8192 characters in one text", "8 images", "8192 characters"],
)
async def test_what_is_just_within_the_limits(speaking: AdminPort, path: str, body: Any) -> None:
    assert (await say(speaking, path, body)).status == 200


@refusals
@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"tags":["a"],"tags":["b"]}', b'{"a":' * 40 + b"1" + b"}" * 40]
)
@pytest.mark.parametrize("path", PURGES)
async def test_bodies_that_can_t_be_read(refusing: AdminPort, path: str, body: bytes) -> None:
    answer = await say(refusing, path, body)
    assert (answer.status, code(answer)) == (400, "bad_request")


@refusals
@pytest.mark.parametrize("path", PURGES)
async def test_a_body_that_is_too_large(refusing: AdminPort, path: str) -> None:
    answer = await say(refusing, path, b" " * (1 << 20) + b"{}")
    assert (answer.status, code(answer)) == (413, "request_too_large")


@refusals
@pytest.mark.parametrize("path", BY_TAGS + BY_IMAGES)
async def test_a_body_that_is_no_json(refusing: AdminPort, path: str) -> None:
    answer = await say(refusing, path, b"tags=a", headers={"Content-Type": "text/plain"})
    assert (answer.status, code(answer)) == (415, "unsupported_media_type")


# -- paths, methods, and what goes wrong inside


@refusals
@pytest.mark.parametrize("path", ALL_PATHS)
async def test_another_method(refusing: AdminPort, path: str) -> None:
    answer = await say(refusing, path, body_of(path), method="PUT")
    assert (answer.status, code(answer)) == (405, "method_unknown")
    assert answer.headers["Allow"] == ("GET" if path in LOOKS else WHOLE.get(path, "POST"))


@refusals
@pytest.mark.parametrize("path", ["/v1/edge-cache/nothing", "/v1/data-cache/", "/v9/projects/a/b"])
async def test_another_path(refusing: AdminPort, path: str) -> None:
    answer = await say(refusing, path, {})
    assert (answer.status, code(answer)) == (404, "not_found")


@pytest.mark.parametrize("path", PURGES)
async def test_what_can_t_be_recorded(speaking: AdminPort, path: str) -> None:
    await store(speaking, TAGS)
    await speaking.served.edge.service._journal.close()
    answer = await say(speaking, path, body_of(path))
    assert answer.status in (500, 503)
    assert code(answer) in ("internal_server_error", "service_unavailable")
