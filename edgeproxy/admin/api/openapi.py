"""The OpenAPI 3.1 document of the own API, made from the table of its endpoints."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from edgeproxy.admin.api.answers import Answer, ProblemAnswer
from edgeproxy.admin.problems import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic.json_schema import JsonSchemaMode
    from pydantic_core.core_schema import ModelSchema

    from edgeproxy.admin.api.endpoint import Endpoint

_DESCRIPTION = """\
Invalidate stored responses by tag, URL, prefix, host, pattern, source image, type, status or all;
look at what is stored and why it is served; follow the journal. Times are in seconds since the
epoch. Every list has pages: `next` is the cursor of the one that follows.
"""
_JSON = "application/json"
_ANYWHERE = {
    400: "The call is wrong; `errors` names the fields",
    401: "No token, or none that is good",
    403: "The token may not do that",
    413: "The body has more than 1 MiB",
    415: "The body is not JSON",
    421: "The admin port is not called by a name that it knows",
    429: "Too many calls",
    500: "A fault of the edge",
    503: "It can't be done just now",
}
_ONCE = {
    409: "The first call with this idempotency key is still being worked on",
    422: "Another call was made with this idempotency key",
}


class _Schemas(GenerateJsonSchema):
    """Schemas without the titles that only repeat the fields' names, described by the docstrings of
    the fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False

    def model_schema(self, schema: ModelSchema) -> dict[str, Any]:
        json_schema = super().model_schema(schema)
        told = _docstrings(schema["cls"])
        for name, field in json_schema.get("properties", {}).items():
            if name in told:
                field["description"] = told[name]
        return json_schema


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """What is said of each field in the string behind it. pydantic can do the same, but would read
    the sources whenever an edge starts."""
    told = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        (parsed,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(parsed, ast.ClassDef)
        for field, text in pairwise(parsed.body):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(said))),
                ):
                    told[name] = inspect.cleandoc(said)
    return told


def render(endpoints: Sequence[Endpoint]) -> bytes:
    """The document as JSON."""
    return json.dumps(document(endpoints), indent=1).encode()


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document (https://spec.openapis.org/oas/v3.1.1)."""
    paths: dict[str, dict[str, Any]] = {}
    schemas, references = _schemas(endpoints)
    for endpoint in endpoints:
        operations = paths.setdefault(f"/v1{endpoint.path}", {})
        operations[endpoint.method.lower()] = _operation(endpoint, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgeproxy", "version": "1", "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "a token of the configuration; `edgeproxy token new` makes one",
                }
            },
            "schemas": schemas,
        },
    }


def _schemas(
    endpoints: Sequence[Endpoint],
) -> tuple[dict[str, Any], Mapping[type[BaseModel], Any]]:
    """All models by name, and what refers to each."""
    models: dict[type[BaseModel], JsonSchemaMode] = {ProblemAnswer: "serialization"}
    for endpoint in endpoints:
        if isinstance(endpoint.answer, type):
            models[endpoint.answer] = "serialization"
        if endpoint.body is not None:
            models[endpoint.body] = "validation"
    references, definitions = models_json_schema(
        list(models.items()),
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schemas,
    )
    return definitions["$defs"], {model: references[model, mode] for model, mode in models.items()}


def _operation(endpoint: Endpoint, references: Mapping[type[BaseModel], Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": list(_parameters(endpoint)),
        "responses": _responses(endpoint, references),
    }
    if endpoint.actions:
        needed = " or ".join(f"`{action}`" for action in endpoint.actions)
        operation["description"] = f"Needs a token that may {needed}."
    else:
        operation["security"] = []
    if endpoint.body is not None:
        content = {_JSON: {"schema": references[endpoint.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"\{(\w+)\}", endpoint.path):
        schema = {"type": "string", "minLength": 1, "maxLength": 100, "pattern": "^[0-9a-z]+$"}
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    properties = endpoint.query.model_json_schema(schema_generator=_Schemas).get("properties", {})
    for name, schema in properties.items():
        parameter = {"name": name, "in": "query", "schema": _not_null(schema)}
        parameter["description"] = parameter["schema"].pop("description")
        if name == "cursor":
            # Those of one list are none of another.
            parameter["schema"]["format"] = f"{endpoint.name}-cursor"
        yield parameter
    for header in endpoint.headers:
        yield {
            "name": header.name,
            "in": "header",
            "description": header.description,
            "schema": dict(header.schema),
        }


def _not_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a parameter: there is no null in a query, it is left out."""
    given = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(given) != 1:
        return dict(schema)
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**given[0], **rest}


def _responses(endpoint: Endpoint, references: Mapping[type[BaseModel], Any]) -> dict[str, Any]:
    if isinstance(endpoint.answer, str):
        kind = "object" if endpoint.answer == _JSON else "string"
        good: dict[str, Any] = {endpoint.answer: {"schema": {"type": kind}}}
        described = endpoint.summary
    else:
        good = {_JSON: {"schema": references[endpoint.answer]}}
        described = _first_line(endpoint.answer)
    statuses = dict(_ANYWHERE) if endpoint.actions else {421: _ANYWHERE[421]}
    if endpoint.body is None:
        statuses = {status: why for status, why in statuses.items() if status not in (413, 415)}
    if endpoint.not_found:
        statuses[404] = "There is no such thing"
    if endpoint.once:
        statuses |= _ONCE
    problem = {CONTENT_TYPE: {"schema": references[ProblemAnswer]}}
    return {
        str(endpoint.status): {"description": described, "content": good},
        **{str(status): _problem(status, statuses[status], problem) for status in sorted(statuses)},
    }


def _problem(status: int, why: str, content: dict[str, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": why, "content": content}
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    if status in (409, 429, 503):
        response["headers"] = {"Retry-After": {"schema": {"type": "string"}}}
    return response


def _first_line(model: type[Answer]) -> str:
    return (model.__doc__ or "").strip().partition("\n")[0].rstrip(".")
