"""Asking origins how they are: what passes, who asks, and what it changes."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config.failover import Check
from edgeproxy.config.site import Origin, Site
from edgeproxy.config.sites import SitePolicy
from edgeproxy.proxy.claims import Claims
from edgeproxy.proxy.origins.checks import Checks, probe
from edgeproxy.proxy.origins.health import Verdicts, checked_as
from tests.kit import CLOSE, Answer, OriginRequest, ScriptedOrigin

HOLD_THE_CLAIM = """
import sys
from pathlib import Path
from edgeproxy.proxy.claims import Claims

print(Claims(Path(sys.argv[1])).acquire(b"checking origins"), flush=True)
sys.stdin.read()
"""


def policy_of(origin: ScriptedOrigin, **check: Any) -> SitePolicy:
    settings = {"path": "/healthz", "interval": 0.02, "timeout": 0.5, "unhealthy_after": 2} | check
    return SitePolicy.of("shop", Site(origins=({"url": origin.url},), check=settings))  # type: ignore[arg-type]


def mark_of(policy: SitePolicy) -> int:
    return checked_as(policy.name, policy.origins[0], policy.check)


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (Answer(200, body=b"fine"), None),
        (Answer(204), None),
        (Answer(200, body=b"x" * 200_000), None),
        (Answer(503), "it answered 503"),
        (Answer(302, {"Location": "/"}), "it answered 302"),
        ([CLOSE], "closed the connection"),
        ([1.0], "longer than 0.2 s"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", 1.0], "longer than 0.2 s"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", CLOSE], "ended before its body"),
        ([b"nonsense\r\n\r\n"], "not HTTP"),
    ],
)
async def test_what_a_check_finds(origin: ScriptedOrigin, reply: Any, fault: str | None) -> None:
    origin.route("/healthz?full", reply)
    timeout = 0.2 if fault is not None and "0.2 s" in fault else 10.0
    check = Check(path="/healthz?full", timeout=timeout, status=(200, 204), host="shop.example")
    found = await probe(Origin.model_validate({"url": origin.url}), check)
    assert (found is None) if fault is None else (fault in (found or "")), found
    (request,) = origin.requests
    assert dict(request.head.pairs) == {
        b"Host": b"shop.example",
        b"User-Agent": b"edgeproxy-check",
        b"Connection": b"close",
    }


async def test_an_origin_that_is_down_does_not_pass(origin: ScriptedOrigin) -> None:
    await origin.stop_listening()
    fault = await probe(Origin.model_validate({"url": origin.url}), Check(path="/"))
    assert fault == "no connection to the origin: connection refused"


@asynccontextmanager
async def checks_in(folder: Path) -> AsyncIterator[tuple[Checks, Verdicts]]:
    claims, verdicts = Claims(folder / "claims"), Verdicts(memoryview(bytearray(1024)))
    checks = Checks(verdicts, claims)
    try:
        yield checks, verdicts
    finally:
        await checks.close()
        claims.close()


async def verdict(verdicts: Verdicts, policy: SitePolicy, expected: bool) -> None:
    """Wait until the origin's verdict is that."""
    async with asyncio.timeout(5):
        while verdicts.read(mark_of(policy)) is not expected:
            await asyncio.sleep(0.005)


async def test_verdicts_follow_the_origin(
    origin: ScriptedOrigin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy_of(origin)
    origin.route("/healthz", Answer(200))
    with caplog.at_level(logging.INFO, logger="edgeproxy.proxy.origins.checks"):
        async with checks_in(tmp_path) as (checks, verdicts):
            checks.watch([policy])
            await verdict(verdicts, policy, True)
            origin.route("/healthz", Answer(500))
            await verdict(verdicts, policy, False)
            origin.route("/healthz", Answer(200))
            await verdict(verdicts, policy, True)
    assert [record.getMessage() for record in caplog.records] == [
        f"shop: the origin {origin.url} does not pass its checks: it answered 500",
        f"shop: the origin {origin.url} passes its checks again",
    ]


async def test_one_that_takes_its_time_is_checked_as_often(
    origin: ScriptedOrigin, tmp_path: Path
) -> None:
    """From question to question there is one interval, not one more than from its answer."""
    asked, answered = [], []
    clock = asyncio.get_running_loop().time

    async def late(_: OriginRequest) -> AsyncIterator[Any]:
        asked.append(clock())
        yield 0.25
        yield b"HTTP/1.1 204 No Content\r\n\r\n"
        answered.append(clock())

    origin.route("/healthz", late)
    async with checks_in(tmp_path) as (checks, _):
        checks.watch([policy_of(origin, interval=0.4, timeout=20.0)])
        async with asyncio.timeout(20):
            while not (
                any(b - a < 0.3 for a, b in zip(answered, asked[1:], strict=False))
                and any(b - a > 0.3 for a, b in pairwise(asked))
            ):
                await origin.seen("/healthz", len(asked) + 1)


async def test_only_what_is_configured_is_checked_and_reloads_are_followed(
    origin: ScriptedOrigin, tmp_path: Path
) -> None:
    origin.otherwise(Answer(200))
    async with checks_in(tmp_path) as (checks, verdicts):
        checks.watch([policy_of(origin, path=None)])
        await asyncio.sleep(0.03)
        assert not origin.requests
        first, second = policy_of(origin), policy_of(origin, path="/other")
        checks.watch([first])
        await verdict(verdicts, first, True)
        checks.watch([first, second])
        await verdict(verdicts, second, True)
        checks.watch([second])
        await origin.quiet()
        seen = origin.counts["/healthz"]
        await origin.seen("/other", origin.counts["/other"] + 3)
        assert origin.counts["/healthz"] <= seen + 1
        checks.watch([])
        await origin.quiet()


async def test_one_worker_checks_and_another_takes_its_place(
    origin: ScriptedOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.proxy.origins.checks._SUCCESSION_SECONDS", 0.01)
    origin.otherwise(Answer(200))
    policy = policy_of(origin)
    async with checks_in(tmp_path) as (checks, verdicts):
        other = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HOLD_THE_CLAIM, str(tmp_path / "claims")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert other.stdout is not None
        assert await other.stdout.readline() == b"True\n"
        checks.watch([policy])
        await asyncio.sleep(0.05)
        assert not origin.requests
        other.kill()
        await other.wait()
        await verdict(verdicts, policy, True)
