"""What all dialects share: whose a call is, errors in its words, and what surrounds an answer."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.admin.app import reload_admin
from edgeproxy.admin.dialects.base import Reply, Route
from edgeproxy.admin.dialects.frame import spoken
from edgeproxy.admin.dialects.table import DIALECTS
from edgeproxy.admin.incoming import Incoming
from edgeproxy.admin.refusals import Fault, Limit, Refused, Why
from edgeproxy.config.dialects import Dialects
from edgeproxy.config.model import Config
from edgeproxy.invalidation.journal import JournalError
from edgeproxy.invalidation.service import TooManyRules
from tests.admin.dialects.conftest import secret
from tests.admin.test_app import SAFE_HEADERS
from tests.kit.toml import merged

if TYPE_CHECKING:
    from edgeproxy.admin.dialects.base import Dialect
    from tests.admin.conftest import AdminPort, Called

NAMES = [dialect.name for dialect in DIALECTS]
OWN = ("/v1/purge", "/v1/entries", "/v1/tags", "/v1/journal", "/v1/tokens", "/healthz", "/readyz")


def incoming(method: str = "POST", path: str = "/", **headers: str) -> Incoming:
    async def read(_: int) -> bytes:
        return b""

    return Incoming(method, path, "", headers, "127.0.0.1", read)


def refusal(why: Why) -> Refused:
    """A refusal with all that goes with it."""
    return Refused(
        why,
        "in words",
        faults=[Fault("tags[0]", "must not be empty", "min_length")] * (why is Why.BAD_REQUEST),
        allow=["POST"] if why is Why.WRONG_METHOD else [],
        limit=Limit(100, 1_700_000_060.0) if why is Why.RATE_LIMITED else None,
        retry_after=60.0 if why in (Why.RATE_LIMITED, Why.BUSY, Why.TOO_MANY_RULES) else None,
        site="shop" if why in (Why.UNKNOWN_SITE, Why.FORBIDDEN) else None,
    )


def example(route: Route) -> str:
    """A path that is the route's."""
    return re.sub(r"\{\w+\*?\}", "x", route.path)


# -- the table


def test_names_are_unique_and_each_has_its_settings() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert set(NAMES) <= set(Dialects.model_fields)


@pytest.mark.parametrize("dialect", DIALECTS, ids=NAMES)
def test_a_path_belongs_to_one_dialect_and_none_is_the_own_api_s(dialect: Dialect) -> None:
    for route in dialect.routes:
        speaking = [each.name for each in DIALECTS if each.speaks(route.method, example(route))]
        assert speaking == [dialect.name], route.path
    for path in OWN:
        assert not any(dialect.speaks(method, path) for method in ("GET", "POST", "DELETE")), path


@pytest.mark.parametrize("why", Why, ids=lambda why: why.name)
@pytest.mark.parametrize("dialect", DIALECTS, ids=NAMES)
def test_every_dialect_has_words_for_every_refusal(dialect: Dialect, why: Why) -> None:
    reply = dialect.refuse(refusal(why), incoming())
    assert 400 <= reply.status < 600
    assert (reply.status >= 500) == (why.status >= 500)
    assert json.loads(reply.content()), "with a body that says what it is"


# -- routes


@pytest.mark.parametrize(
    ("pattern", "path", "parts"),
    [
        ("/a/{zone}/purge", "/a/z1/purge", {"zone": "z1"}),
        ("/a/{zone}/purge", "/a/z%20%C3%BC/purge", {"zone": "z ü"}),
        ("/a/{zone}/purge", "/a//purge", None),
        ("/a/{zone}/purge", "/a/b/c/purge", None),
        ("/a/{zone}/purge", "/a/z1/purge/", None),
        ("/a.b", "/aXb", None),
        ("/purge/{url*}", "/purge/e.com/a%20b//c", {"url": "e.com/a%20b//c"}),
        ("/{url*}", "/", {"url": ""}),
    ],
)
def test_paths(pattern: str, path: str, parts: dict[str, str] | None) -> None:
    async def handler(_: Any) -> Reply:
        return Reply()

    assert Route("POST", pattern, handler).match(path) == parts


def test_escapes_that_are_no_text_are_refused() -> None:
    async def handler(_: Any) -> Reply:
        return Reply()

    with pytest.raises(Refused, match="UTF-8"):
        Route("POST", "/a/{zone}", handler).match("/a/%ff")


# -- whose a call is


def configured(port: AdminPort, **settings: Any) -> Config:
    """The port's configuration with other settings of Wix."""
    data = port.config.model_dump(mode="json", exclude_unset=True)
    return Config.model_validate(merged(data, {"admin": {"dialects": {"wix": settings}}}))


async def ask(port: AdminPort, path: str, host: str = "localhost", method: str = "POST") -> Called:
    headers = {"Host": host, "Authorization": f"Bearer {secret('shop')}"}
    body = {} if method == "POST" else None
    return await port.call(method, path, body, secret=None, headers=headers)


def is_problem(answer: Called) -> bool:
    return answer.headers["Content-Type"].startswith("application/problem+json")


async def test_the_own_api_is_beside_the_dialects(speaking: AdminPort) -> None:
    assert (await ask(speaking, "/v1/purge-site-cache")).status == 200
    own = await speaking.purge(secret("shop"), everything=True, site="shop")
    assert (own.status, own.body["position"]) == (200, 2)


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/", "/ssr", "/v1//invalidate-cache"])
async def test_what_is_nobody_s_is_the_own_api_s(speaking: AdminPort, path: str) -> None:
    answer = await ask(speaking, path)
    assert answer.status == 404
    assert is_problem(answer)


async def test_a_dialect_with_a_name_of_its_own_is_spoken_there_alone(speaking: AdminPort) -> None:
    config = configured(speaking, host="wix.edge.test")
    reload_admin(speaking.app, config, config.admin.tokens)
    assert (await ask(speaking, "/v1/purge-site-cache", "WIX.edge.test:8081")).status == 200
    assert is_problem(await ask(speaking, "/v1/purge-site-cache"))
    for path, status in (("/v1/purge", 404), ("/healthz", 404), ("/nothing", 404)):
        answer = await ask(speaking, path, "wix.edge.test")
        assert (answer.status, is_problem(answer)) == (status, False), path
    wrong = await ask(speaking, "/v1/purge-site-cache", "wix.edge.test", "GET")
    assert (wrong.status, is_problem(wrong)) == (405, False)
    assert (await ask(speaking, "/v1/purge-site-cache", "x.edge.test")).status == 421


async def test_a_dialect_that_is_switched_off_is_not_there(speaking: AdminPort) -> None:
    for settings in ({"enabled": False}, {"enabled": False, "host": "wix.edge.test"}):
        config = configured(speaking, **settings)
        reload_admin(speaking.app, config, config.admin.tokens)
        assert is_problem(await ask(speaking, "/ssr/v1/invalidate-cache"))
        assert spoken(config, "wix.edge.test", incoming(path="/ssr/v1/x")) is None


async def test_a_dialect_has_a_rate_of_its_own(speaking: AdminPort) -> None:
    config = configured(speaking, rate="2/60s")
    reload_admin(speaking.app, config, config.admin.tokens)
    statuses = [(await ask(speaking, "/v1/purge-site-cache")).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert (await speaking.purge(secret("shop"), everything=True, site="shop")).status == 200


# -- what surrounds an answer


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v1/purge-site-cache", "POST", 200),
        ("/v1/purge-site-cache", "GET", 405),
        ("/ssr/v1/nothing", "POST", 404),
    ],
)
async def test_no_browser_shall_make_anything_of_it(
    speaking: AdminPort, path: str, method: str, status: int
) -> None:
    answer = await ask(speaking, path, method=method)
    assert answer.status == status
    assert {name: answer.headers.get(name) for name in SAFE_HEADERS} == SAFE_HEADERS
    assert not [name for name in answer.headers if name.startswith("Access-Control-")]


async def test_head_has_no_body(speaking: AdminPort) -> None:
    answer = await ask(speaking, "/v1/purge-site-cache", method="HEAD")
    assert (answer.status, answer.body) == (405, None)


@pytest.mark.parametrize(
    ("error", "status", "logged"),
    [
        (JournalError("the journal in /secret/place: no room"), 503, "/secret/place"),
        (TooManyRules("try again"), 503, None),
        (RuntimeError("at /secret/place"), 500, "RuntimeError"),
    ],
    ids=["journal", "rules", "a fault"],
)
async def test_what_fails_inside_is_logged_and_not_told(
    speaking: AdminPort,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    logged: str | None,
) -> None:
    async def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(speaking.served.edge.service, "purge", failing)
    answer = await ask(speaking, "/v1/purge-site-cache")
    assert answer.status == status
    assert "/secret/place" not in str(answer.body)
    assert answer.headers.get("Retry-After") == (None if logged else "1")
    assert (logged or "") in caplog.text
    assert bool(caplog.text) == bool(logged)
    assert secret("shop") not in caplog.text


async def exchange(port: AdminPort, request: bytes) -> tuple[int, Any]:
    """The status and the JSON that some bytes are answered with."""
    reader, writer = await asyncio.open_connection(port.client.host, port.client.port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    assert length is not None
    body = await reader.readexactly(int(length[1]))
    writer.close()
    return int(head.split()[1]), json.loads(body)


HEAD = (
    b"Host: localhost\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
    % secret("shop").encode()
)


async def test_a_target_may_be_an_absolute_url(speaking: AdminPort) -> None:
    """RFC 9112 3.2.2."""
    request = b"POST http://localhost/v1/purge-site-cache HTTP/1.1\r\n" + HEAD
    assert await exchange(speaking, request + b"Content-Length: 2\r\n\r\n{}") == (200, {})


async def test_a_body_that_is_not_what_its_head_says_is_the_caller_s_fault(
    speaking: AdminPort, caplog: pytest.LogCaptureFixture
) -> None:
    request = b"POST /v1/purge-site-cache HTTP/1.1\r\n" + HEAD
    coded = b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"
    status, body = await exchange(speaking, request + coded)
    assert status == 415
    assert body["details"]["applicationError"]["code"] == "UNSUPPORTED_MEDIA_TYPE"
    assert speaking.served.edge.view.catch_up() == 0
    assert not [each for each in caplog.records if each.name.startswith("edgeproxy")]
