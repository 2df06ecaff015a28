"""Errors of the own API: `application/problem+json` (RFC 9457), naming the field that is wrong."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aiohttp import web

from edgeproxy.admin.refusals import refusal_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError

    from edgeproxy.admin.refusals import Refused

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """An error that its caller is told about.

    `errors` lists what is wrong with single fields: `{"field": "urls[2]", "detail": "..."}`.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = list(self.errors)
        return web.json_response(
            body, status=self.status, headers=self.headers, content_type=CONTENT_TYPE
        )


def invalid_fields(error: ValidationError) -> Problem:
    """What pydantic found wrong with a body, in the words of the API."""
    errors = [
        {"field": _path(each["loc"]), "detail": each["msg"]}
        for each in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    named = ", ".join(each["field"] or "the body" for each in errors)
    return Problem(400, f"invalid: {named}", errors=errors)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def problem_of(refused: Refused) -> Problem:
    """A refusal in the words of the own API."""
    status = refused.why.status
    errors = [{"field": fault.field, "detail": fault.detail} for fault in refused.faults]
    return Problem(status, refused.detail, errors=errors, headers=refused.headers(status))


@web.middleware
async def problems(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer every error on the admin port as a problem."""
    try:
        response: web.StreamResponse = await handler(request)
    except Problem as problem:
        return problem.response()
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return Problem(error.status, _detail(request, error.status), headers=headers).response()
    except Exception as error:
        return problem_of(refusal_of(error, f"{request.method} {request.path}")).response()
    return response


def _detail(request: web.Request, status: int) -> str:
    if status == 404:
        return f"there is nothing at {request.path}"
    if status == 405:
        return f"{request.method} is not a method of {request.path}"
    if status == 413:
        return "the body is too large"
    return HTTPStatus(status).description or HTTPStatus(status).phrase
