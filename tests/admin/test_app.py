"""The admin port: by which names it answers, what it says of its health, and what a reload does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.admin.app import reload_admin
from edgeproxy.config.model import Config
from tests.admin.conftest import EDITOR, MASTER, token
from tests.kit.toml import merged

if TYPE_CHECKING:
    from tests.admin.conftest import AdminPort

SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def changed(config: Config, **changes: Any) -> Config:
    """That configuration with its admin section changed."""
    data = merged(config.model_dump(mode="json", exclude_unset=True), {"admin": changes})
    return Config.model_validate(data)


# -- health


async def test_alive(port: AdminPort) -> None:
    answer = await port.call("GET", "/healthz", secret=None)
    assert (answer.status, answer.body) == (200, {"status": "ok"})


async def test_ready_once_nothing_is_missing(port: AdminPort) -> None:
    port.missing[:] = ["worker 1 does not accept connections", "the store is not usable: x"]
    answer = await port.call("GET", "/readyz", secret=None)
    assert answer.status == 503
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.body["detail"] == (
        "worker 1 does not accept connections; the store is not usable: x"
    )
    port.missing.clear()
    answer = await port.call("GET", "/readyz", secret=None)
    assert (answer.status, answer.body) == (200, {"status": "ready"})


async def test_probes_may_use_head(port: AdminPort) -> None:
    assert (await port.call("HEAD", "/healthz", secret=None)).status == 200


# -- who may call, and how


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8081", 200),
        ("[::1]:8081", 200),
        ("192.0.2.7", 200),
        ("localhost", 200),
        ("LOCALHOST:99", 200),
        ("evil.test", 421),
        ("localhost.evil.test", 421),
        ("127.0.0.1.evil.test", 421),
        ("shop.test", 421),
        ("", 421),
    ],
)
async def test_a_page_can_t_reach_it_by_a_name_of_its_own(
    port: AdminPort, host: str, status: int
) -> None:
    """DNS rebinding: a browser can be made to call by any name, but not by an address."""
    for target, secret in (("/healthz", None), ("/v1/entries?url=/&site=shop", MASTER)):
        answer = await port.call("GET", target, secret=secret, headers={"Host": host})
        assert answer.status == status
    if status == 421:
        assert repr(host) in answer.body["detail"]
        assert "admin.allowed_hosts" in answer.body["detail"]


async def test_the_names_that_are_allowed(port: AdminPort) -> None:
    named = changed(port.config, allowed_hosts=["admin.test", "*.internal.test"])
    reload_admin(port.app, named, named.admin.tokens)
    for host, status in (
        ("admin.test:8081", 200),
        ("a.internal.test", 200),
        ("internal.test", 421),
        ("x.admin.test", 421),
    ):
        answer = await port.call("GET", "/healthz", headers={"Host": host})
        assert answer.status == status, host


@pytest.mark.parametrize(
    ("method", "target", "host", "status"),
    [
        ("GET", "/healthz", "localhost", 200),
        ("GET", "/v1/entries?url=/&site=shop", "localhost", 200),
        ("GET", "/v1/entries?url=", "localhost", 400),
        ("GET", "/nothing", "localhost", 404),
        ("DELETE", "/healthz", "localhost", 405),
        ("GET", "/healthz", "evil.test", 421),
    ],
)
async def test_no_browser_shall_make_anything_of_it(
    port: AdminPort, method: str, target: str, host: str, status: int
) -> None:
    answer = await port.call(method, target, headers={"Host": host})
    assert answer.status == status
    assert {name: answer.headers.get(name) for name in SAFE_HEADERS} == SAFE_HEADERS


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://evil.test"}, 403),
        ({"Origin": "http://localhost:81"}, 403),
        ({"Origin": "http://localhost.evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
    ids=str,
)
async def test_no_page_of_another_origin_changes_anything(
    port: AdminPort, headers: dict[str, str], status: int
) -> None:
    """CSRF: not even with a token that is good."""
    for method, target in (("POST", "/v1/purge"), ("DELETE", "/v1/jobs/none")):
        answer = await port.call(
            method,
            target,
            {"tags": ["a"], "site": "shop"},
            headers={"Host": "localhost", **headers},
        )
        assert (answer.status == 403) is (status == 403), (method, answer.status)
    assert port.served.edge.view.catch_up() == (1 if status == 200 else 0)
    read = await port.call("GET", "/healthz", headers={"Host": "localhost", **headers})
    assert read.status == 200


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x"])
async def test_what_a_form_can_send_is_no_call(port: AdminPort, kind: str) -> None:
    """Fetch 2.2.2: types that go across origins unasked. The third of them is what `curl -d` says,
    and let pass: what keeps strangers out is the token, and Origin."""
    answer = await port.call(
        "POST", "/v1/purge", b'{"tags": ["a"], "site": "shop"}', headers={"Content-Type": kind}
    )
    assert answer.status == 415
    assert port.served.edge.view.catch_up() == 0


@pytest.mark.parametrize("secret", [None, "wrong"])
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/purge"),
        ("GET", "/v1/entries?url=/"),
        ("GET", "/v1/purge"),
        ("GET", "/v1/nothing"),
        ("OPTIONS", "/v1/purge"),
    ],
)
async def test_a_stranger_learns_nothing(
    port: AdminPort, method: str, target: str, secret: str | None
) -> None:
    answer = await port.call(method, target, {"everything": True, "site": "*"}, secret=secret)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="edgeproxy"'
    assert port.served.edge.view.catch_up() == 0


async def test_errors_are_told_to_those_who_are_known(port: AdminPort) -> None:
    assert (await port.call("GET", "/v1/nothing")).status == 404
    wrong = await port.call("GET", "/v1/purge")
    assert (wrong.status, wrong.headers["Allow"]) == (405, "POST")


async def test_a_body_beyond_the_bound_is_refused(port: AdminPort) -> None:
    answer = await port.call("POST", "/v1/purge", b" " * (8 * 1024 * 1024 + 1))
    assert answer.status == 413
    assert answer.body["detail"] == "the body has more than 1048576 bytes"


# -- reload


async def test_a_reload_changes_who_may_call(port: AdminPort) -> None:
    new = changed(port.config, tokens=[token("new", "new-secret", sites=["shop"])])
    reload_admin(port.app, new, new.admin.tokens)
    assert (await port.purge(MASTER, everything=True, site="shop")).status == 401
    assert (await port.purge(EDITOR, everything=True, site="shop")).status == 401
    assert (await port.purge("new-secret", everything=True, site="blog")).status == 403
    assert (await port.purge("new-secret", everything=True, site="shop")).status == 200


async def test_the_tokens_may_be_others_than_the_configuration_s(port: AdminPort) -> None:
    """As where one was made at the start."""
    made = changed(port.config, tokens=[token("made", "made-secret")])
    reload_admin(port.app, port.config, made.admin.tokens)
    assert (await port.purge("made-secret", everything=True, site="shop")).status == 200
    assert (await port.purge(MASTER, everything=True, site="shop")).status == 401
