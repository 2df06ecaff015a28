"""The OpenAPI document: made from what is served, valid, and true."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from edgeproxy.admin.api.openapi import document
from edgeproxy.admin.api.table import ENDPOINTS
from tests.kit import Answer

if TYPE_CHECKING:
    from tests.admin.conftest import AdminPort
    from tests.conftest import StartEdge
    from tests.kit import ScriptedOrigin

ROOT = Path(__file__).parents[3]
DOCUMENT = document(ENDPOINTS)
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]

# What idempotency keys lead to depends on the calls before, and a list too long may also be a body
# too large.
SETTINGS = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "413", "415", "422"]
"""


def test_it_is_an_openapi_3_1_document() -> None:
    jsonschema_rs.Draft202012Validator(OPENAPI_31).validate(DOCUMENT)
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid({**schema, "$schema": META}), name


META = "https://json-schema.org/draft/2020-12/schema"


async def test_it_is_served_to_everybody_and_has_no_secret(port: AdminPort) -> None:
    answer = await port.call("GET", "/v1/openapi.json", secret=None)
    assert (answer.status, answer.body) == (200, json.loads(json.dumps(DOCUMENT)))


async def test_every_route_is_in_it(port: AdminPort) -> None:
    served = {
        (route.method, route.resource.canonical)
        for route in port.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    api = {(method, path) for method, path in served if path.startswith("/v1/")}
    assert api == {(method, path) for method, path, _ in OPERATIONS}


def test_every_list_has_pages() -> None:
    for method, path, operation in OPERATIONS:
        names = {each["name"] for each in operation["parameters"]}
        good = next(iter(operation["responses"]))
        content = operation["responses"][good]["content"].get("application/json", {})
        reference = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        properties = DOCUMENT["components"]["schemas"].get(reference, {}).get("properties", {})
        if method == "GET" and "next" in properties:
            assert names >= {"limit", "cursor"}, path
        else:
            assert not names & {"limit", "cursor"}, path


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in OPERATIONS])
def test_the_reference_has_every_endpoint_and_all_that_it_takes(method: str, path: str) -> None:
    text = (ROOT / "docs/admin-api.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    heading = f"`{method} {path}`"
    (section,) = [each for each in sections if heading in each.partition("\n")[0]]
    operation = DOCUMENT["paths"][path][method.lower()]
    names = [each["name"] for each in operation["parameters"] if each["in"] != "path"]
    if "requestBody" in operation:
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        names += _properties(reference)
    common = "".join(each for each in sections if each.startswith(("Lists", "Idempotency")))
    missing = [name for name in names if not re.search(f"`{name}[`:]", section + common)]
    assert missing == []


def _properties(reference: str) -> list[str]:
    schema: dict[str, Any] = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]
    names = list(schema["properties"])
    for each in schema["properties"].values():
        inner = each.get("items", {}).get("$ref")
        names += _properties(inner) if inner else []
    return names


async def test_schemathesis_finds_nothing(
    origin: ScriptedOrigin, start_edge: StartEdge, tmp_path: Path
) -> None:
    """Against a real edge, with all checks; the stream, which never ends, has tests of its own."""
    fields = {"Cache-Control": "max-age=60", "Cache-Tag": "a, b"}
    origin.route("/a", Answer(200, fields, b"x"))
    edge = await start_edge(origin)
    await edge.get("/a")
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(SETTINGS)
    options = {
        "--checks": "all",
        "--header": f"Authorization: Bearer {edge.token}",
        "--exclude-path": "/v1/journal/stream",
        "--phases": "fuzzing",
        "--max-examples": "6",
        "--suppress-health-check": "all",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run"),
        *(f"{name}={value}" for name, value in options.items()),
        f"{edge.admin_url}/v1/openapi.json",
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.admin.api.formats",
            "PYTHONPATH": str(ROOT),
        },
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert re.search(rb"[0-9]{2,} generated, [0-9]+ passed", output), output.decode()
    assert "failed" not in edge.log, edge.log
