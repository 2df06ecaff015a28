"""Errors as `application/problem+json` (RFC 9457), from an application of its own."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from edgeproxy.admin.problems import Problem, invalid_fields, problems
from edgeproxy.cache.errors import StoreUnusable

if TYPE_CHECKING:
    from pytest_aiohttp.plugin import AiohttpClient

MAX_BODY = 100


def test_a_problem_says_all_that_it_knows() -> None:
    """RFC 9457 3.1; `errors` is an extension member (3.2)."""
    fault = {"field": "urls[2]", "detail": "no URL"}
    response = Problem(400, "invalid: urls[2]", errors=[fault], headers={"X-A": "1"}).response()
    assert response.status == 400
    assert response.content_type == "application/problem+json"
    assert response.headers["X-A"] == "1"
    assert response.text is not None
    assert json.loads(response.text) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "invalid: urls[2]",
        "errors": [fault],
    }


def test_without_fields_there_is_no_list_of_them() -> None:
    text = Problem(403, "no").response().text
    assert text is not None
    assert set(json.loads(text)) == {"type", "title", "status", "detail"}


# -- what pydantic found


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    names: list[list[int]]


class Outer(BaseModel):
    one: Inner
    two: int = 0


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"one": {"names": []}, "two": "x"}, ["two"]),
        ({"one": {}}, ["one.names"]),
        ({"one": {"names": [[1], [2, "x"]]}}, ["one.names[1][1]"]),
        ({"one": {"names": [], "other": 1}, "two": "x"}, ["one.other", "two"]),
        ({"one": {"names": [], "a.b": 1}}, ["one.a.b"]),
        (7, [""]),
    ],
)
def test_fields_are_named_as_in_the_body(body: Any, fields: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(body)
    problem = invalid_fields(caught.value)
    assert problem.status == 400
    assert [each["field"] for each in problem.errors] == fields
    assert all(each["detail"] for each in problem.errors)
    assert problem.detail == f"invalid: {', '.join(fields) or 'the body'}"


# -- whatever goes wrong in a handler


async def _problem(_: web.Request) -> web.Response:
    raise Problem(409, "not now", headers={"Retry-After": "1"})


async def _crash(_: web.Request) -> web.Response:
    raise RuntimeError("the secret is 1234")


async def _damaged(_: web.Request) -> web.Response:
    raise StoreUnusable("/secret/folder: damaged")


async def _read(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def _moved(_: web.Request) -> web.Response:
    raise web.HTTPFound("/elsewhere")


@pytest.fixture
def app() -> web.Application:
    app = web.Application(middlewares=[problems], client_max_size=MAX_BODY)
    app.router.add_get("/problem", _problem)
    app.router.add_get("/crash", _crash)
    app.router.add_get("/damaged", _damaged)
    app.router.add_get("/moved", _moved)
    app.router.add_post("/read", _read)
    app.router.add_put("/read", _read)
    return app


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail", "headers"),
    [
        ("GET", "/problem", b"", 409, "not now", {"Retry-After": "1"}),
        ("GET", "/crash", b"", 500, "the edge failed; its log says how", {}),
        (
            *("GET", "/damaged", b"", 503),
            *("the store can't be used just now: try again", {"Retry-After": "5"}),
        ),
        ("GET", "/nothing", b"", 404, "there is nothing at /nothing", {}),
        ("GET", "/read", b"", 405, "GET is not a method of /read", {"Allow": "POST,PUT"}),
        ("POST", "/read", b"a" * (MAX_BODY + 1), 413, "the body is too large", {}),
    ],
)
async def test_every_error_is_a_problem(
    aiohttp_client: AiohttpClient,
    app: web.Application,
    method: str,
    path: str,
    body: bytes,
    status: int,
    detail: str,
    headers: dict[str, str],
) -> None:
    client = await aiohttp_client(app)
    response = await client.request(method, path, data=body or None)
    assert response.status == status
    assert response.content_type == "application/problem+json"
    told = await response.json()
    assert (told["status"], told["detail"]) == (status, detail)
    assert {name: response.headers[name] for name in headers} == headers


async def test_what_is_no_error_is_left_alone(
    aiohttp_client: AiohttpClient, app: web.Application
) -> None:
    client = await aiohttp_client(app)
    whole = await client.post("/read", data=b"a" * MAX_BODY)
    assert (whole.status, await whole.read()) == (200, b"a" * MAX_BODY)
    moved = await client.get("/moved", allow_redirects=False)
    assert (moved.status, moved.headers["Location"]) == (302, "/elsewhere")


async def test_a_crash_is_told_to_the_log_alone(
    aiohttp_client: AiohttpClient, app: web.Application, caplog: pytest.LogCaptureFixture
) -> None:
    client = await aiohttp_client(app)
    with caplog.at_level(logging.ERROR):
        response = await client.get("/crash")
    assert "1234" not in await response.text()
    (record,) = (one for one in caplog.records if one.name.startswith("edgeproxy"))
    assert record.getMessage() == "GET /crash failed"
    assert record.exc_info is not None
    assert "1234" in str(record.exc_info[1])
