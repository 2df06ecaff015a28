"""A site's origins: what they are told, which of them is asked, and what is made of the answer."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edgeproxy.config.site import Site
from edgeproxy.config.sites import SitePolicy
from edgeproxy.proxy.errors import (
    CircuitOpen,
    OriginFailed,
    OriginTimedOut,
    OriginUnreachable,
)
from edgeproxy.proxy.origins.health import Verdicts, checked_as
from edgeproxy.proxy.pool import OriginAnswer, OriginPool, Pools
from edgeproxy.proxy.request import EdgeRequest
from edgeproxy.semantics.cache_control import request_directives
from edgeproxy.semantics.dates import format_http_date
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.key import cache_key
from tests.kit import CLOSE, RESET, Answer, ScriptedOrigin
from tests.proxy.origin_client import body_of, pieces

NOON = 1_780_000_000.0


class Clock:
    """Time stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def policy_of(*origins: ScriptedOrigin | str, name: str = "shop", **settings: Any) -> SitePolicy:
    urls = [one if isinstance(one, str) else one.url for one in origins]
    settings.setdefault("timeouts", {"connect": 5.0, "first_byte": 5.0, "between_bytes": 5.0})
    return SitePolicy.of(name, Site(origins=tuple({"url": url} for url in urls), **settings))


def request_of(policy: SitePolicy, *pairs: tuple[bytes, bytes], **changes: Any) -> EdgeRequest:
    settings: dict[str, Any] = {
        "method": b"GET",
        "target": b"/",
        "version": "1.1",
        "fields": Fields(((b"Host", b"www.shop.example"), *pairs)),
        "authority": "www.shop.example",
        "scheme": "https",
        "client": "192.0.2.7",
        "peer": "192.0.2.7",
        "trusted": False,
        "policy": policy,
        "environment": "production",
        "key": cache_key(policy.name, "https", "www.shop.example", b"/", policy.key),
        "directives": request_directives(Fields()),
        "honour_directives": False,
        "has_body": False,
        "upgrade": b"",
    }
    return EdgeRequest(**(settings | changes))


@asynccontextmanager
async def pool_of(policy: SitePolicy, clock: Clock) -> AsyncIterator[OriginPool]:
    pool = OriginPool(policy, clock)
    try:
        yield pool
    finally:
        await pool.close()


async def ask(pool: OriginPool, request: EdgeRequest, **arguments: Any) -> OriginAnswer:
    given = {"body": None, "length": None, "on_interim": None} | arguments
    return await pool.send(request, request.fields, **given)


# -- the request


async def test_a_surrogate_tells_its_name_behind_those_further_away(
    origin: ScriptedOrigin, clock: Clock
) -> None:
    """Edge Architecture Specification 1.0, 2.1: so that Surrogate-Control can address it."""
    policy = policy_of(origin)
    farther = (b"Surrogate-Capability", b'cdn="Surrogate/1.0 ESI/1.0"')
    origin.otherwise(Answer())
    async with pool_of(policy, clock) as pool:
        await ask(pool, request_of(policy, farther, trusted=True, peer="192.0.2.1"))
        await ask(pool, request_of(policy, farther))
    trusted, stranger = (seen.lines("surrogate-capability") for seen in origin.requests)
    assert trusted == ['cdn="Surrogate/1.0 ESI/1.0", edgeproxy="Surrogate/1.0"']
    assert stranger == ['edgeproxy="Surrogate/1.0"']


async def test_the_origin_is_told_who_asks_and_through_whom(
    origin: ScriptedOrigin, clock: Clock
) -> None:
    policy = policy_of(origin)
    request = request_of(
        policy,
        (b"Connection", b"close, X-Hop"),
        (b"X-Hop", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"TE", b"trailers"),
        (b"Upgrade", b"h2c"),
        (b"Expect", b"100-continue"),
        (b"X-Forwarded-For", b"203.0.113.9"),
        (b"Accept", b"text/html"),
        target=b"/%2f//a;b?",
    )
    origin.otherwise(Answer())
    async with pool_of(policy, clock) as pool:
        await ask(pool, request)
    (seen,) = origin.requests
    assert seen.target == "/%2f//a;b?"
    assert dict(seen.head.pairs) == {
        b"Host": b"www.shop.example",
        b"Accept": b"text/html",
        b"Via": b"1.1 edgeproxy",
        b"X-Forwarded-For": b"192.0.2.7",
        b"X-Forwarded-Proto": b"https",
        b"X-Forwarded-Host": b"www.shop.example",
        b"Forwarded": b"for=192.0.2.7;host=www.shop.example;proto=https",
        b"Surrogate-Capability": b'edgeproxy="Surrogate/1.0"',
    }


@pytest.mark.parametrize(
    ("setting", "authority", "expected"),
    [
        ("pass", "www.shop.example:8443", "www.shop.example:8443"),
        ("pass", "", "{origin}"),
        ("origin", "www.shop.example", "{origin}"),
        ("backend.example", "www.shop.example", "backend.example"),
    ],
)
@pytest.mark.parametrize("present", [True, False], ids=["Host sent", "none sent"])
async def test_host_is_what_the_site_wants(
    origin: ScriptedOrigin, clock: Clock, setting: str, authority: str, expected: str, present: bool
) -> None:
    policy = policy_of(origin, host_header=setting)
    fields = Fields(((b"hOsT", b"first.example"),) if present else ())
    origin.otherwise(Answer())
    async with pool_of(policy, clock) as pool:
        await ask(pool, request_of(policy, authority=authority, fields=fields))
    (seen,) = origin.requests
    assert seen.lines("host") == [expected.format(origin=origin.authority)]
    assert seen.head.pairs[0][0].lower() == b"host"


async def test_an_upgrade_is_asked_for_only_when_it_is_wanted(
    origin: ScriptedOrigin, clock: Clock
) -> None:
    policy = policy_of(origin)
    origin.otherwise(Answer(426))
    async with pool_of(policy, clock) as pool:
        await ask(pool, request_of(policy, upgrade=b"websocket"), upgrade=True)
        await ask(pool, request_of(policy, upgrade=b"websocket"))
    asked, plain = origin.requests
    assert (asked.field("connection"), asked.field("upgrade")) == ("Upgrade", "websocket")
    assert (plain.field("connection"), plain.field("upgrade")) == (None, None)


@pytest.mark.parametrize(("version", "expected"), [("1.1", "100-continue"), ("1.0", None)])
async def test_a_body_is_waited_for_where_both_sides_can(
    origin: ScriptedOrigin, clock: Clock, version: str, expected: str | None
) -> None:
    policy = policy_of(origin)
    request = request_of(policy, (b"Expect", b"100-continue"), method=b"PUT", version=version)
    origin.otherwise(Answer())
    async with pool_of(policy, clock) as pool:
        await ask(pool, request, body=pieces(b"abc"), length=3)
    assert (origin.requests[0].field("expect"), origin.requests[0].body) == (expected, b"abc")


# -- the answer


async def test_the_answer_is_fit_to_be_handed_on(origin: ScriptedOrigin, clock: Clock) -> None:
    def later(_: object) -> Answer:
        clock.now += 3
        return Answer(203, {"X": "1", "Connection": "X-Hop", "X-Hop": "2"}, b"page", "chunked")

    policy = policy_of(origin)
    origin.otherwise(later)
    async with pool_of(policy, clock) as pool:
        answer = await ask(pool, request_of(policy))
        assert answer.fields.raw == (
            (b"X", b"1"),
            (b"Via", b"1.1 edgeproxy"),
            (b"Date", format_http_date(NOON + 3)),
        )
        assert (answer.status, answer.request_time, answer.response_time) == (203, NOON, NOON + 3)
        assert await body_of(answer.response) == b"page"


async def test_a_date_is_left_alone(origin: ScriptedOrigin, clock: Clock) -> None:
    policy = policy_of(origin)
    origin.otherwise(Answer(200, {"Date": "Thu, 01 Jan 1970 00:00:00 GMT", "Via": "1.0 inner"}))
    async with pool_of(policy, clock) as pool:
        answer = await ask(pool, request_of(policy))
    assert answer.fields.get_all(b"date") == (b"Thu, 01 Jan 1970 00:00:00 GMT",)
    assert answer.fields.get_all(b"via") == (b"1.0 inner, 1.1 edgeproxy",)


async def test_interim_responses_are_handed_on_without_what_is_for_the_connection(
    origin: ScriptedOrigin, clock: Clock
) -> None:
    heard: list[tuple[int, tuple[tuple[bytes, bytes], ...]]] = []

    async def hear(status: int, reason: bytes, fields: Fields) -> None:
        heard.append((status, fields.raw))

    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: keep-alive\r\n\r\n"
    policy = policy_of(origin)
    origin.otherwise([hints + b"HTTP/1.1 204 No Content\r\n\r\n"])
    async with pool_of(policy, clock) as pool:
        await ask(pool, request_of(policy), on_interim=hear)
    assert heard == [(103, ((b"Link", b"</a.css>"), (b"Via", b"1.1 edgeproxy")))]


# -- several origins


@pytest.fixture
async def others() -> AsyncIterator[list[ScriptedOrigin]]:
    async with ScriptedOrigin() as one, ScriptedOrigin() as other:
        for origin in (one, other):
            origin.otherwise(Answer(body=b"ok"))
        yield [one, other]


def counts(origins: list[ScriptedOrigin]) -> list[int]:
    return [len(origin.requests) for origin in origins]


async def test_origins_take_turns(others: list[ScriptedOrigin], clock: Clock) -> None:
    policy = policy_of(*others)
    async with pool_of(policy, clock) as pool:
        for _ in range(6):
            await body_of((await ask(pool, request_of(policy))).response)
    assert counts(others) == [3, 3]


async def test_an_origin_that_is_down_is_passed_over_and_found_again(
    others: list[ScriptedOrigin], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy_of(*others, balancing={"slow_start": 0.0})
    request = request_of(policy, method=b"POST")
    await others[0].stop_listening()
    with caplog.at_level(logging.INFO, logger="edgeproxy.proxy.pool"):
        async with pool_of(policy, clock) as pool:
            for _ in range(12):
                answer = await ask(pool, request, body=pieces(b"abc"), length=3)
                assert await body_of(answer.response) == b"ok"
            assert counts(others) == [0, 12]
            assert {one.body for one in others[1].requests} == {b"abc"}
            await others[0].start()
            await body_of((await ask(pool, request)).response)
            assert counts(others) == [0, 13]
            assert pool.state().origins[0].requests == 5
            clock.now += 11
            for _ in range(5):
                await body_of((await ask(pool, request)).response)
            assert counts(others) == [3, 15]
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        f"shop: the origin {others[0].url} does not answer: "
        "no connection to the origin: connection refused",
        f"shop: the origin {others[0].url} answers again",
    ]


async def test_when_all_are_down_the_reader_is_told(
    others: list[ScriptedOrigin], clock: Clock
) -> None:
    """Also when their circuits are open: being refused costs no time."""
    policy = policy_of(*others)
    for origin in others:
        await origin.stop_listening()
    async with pool_of(policy, clock) as pool:
        for _ in range(12):
            with pytest.raises(OriginUnreachable):
                await ask(pool, request_of(policy))
        await others[1].start()
        assert (await ask(pool, request_of(policy))).status == 200
        assert [each.circuit for each in pool.state().origins] == ["open", "closed"]


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
FAILING: dict[str, Any] = {
    "closed": [CLOSE],
    "reset": [RESET],
    "reset in the status line": [b"HTTP/1.1 2", RESET],
    "closed in the head": [HEAD, CLOSE],
    "silent": [1.0],
    "silent in the head": [HEAD, 1.0],
    "no HTTP": [b"nonsense\r\n"],
    "502": Answer(502, body=b"bad"),
    "503": Answer(503, body=b"bad"),
    "504": Answer(504, body=b"bad"),
}
SHORT = {"connect": 5.0, "first_byte": 0.1, "between_bytes": 5.0}


@pytest.mark.parametrize("reply", FAILING.values(), ids=FAILING)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
async def test_a_failing_origin_out_of_two_costs_readers_no_error(
    others: list[ScriptedOrigin], clock: Clock, reply: Any, method: bytes
) -> None:
    policy = policy_of(*others, timeouts=SHORT, breaker={"failures": 2})
    others[0].otherwise(reply)
    async with pool_of(policy, clock) as pool:
        for _ in range(6):
            answer = await ask(pool, request_of(policy, method=method))
            assert answer.status == 200
            answer.response.abort()
        assert counts(others) == [2, 6]
        state = pool.state()
        assert (state.origins[0].circuit, state.origins[0].opened) == ("open", 1)
        assert (sum(state.origins[0].failures.values()), state.repeated) == (2, 2)
    for origin in others:
        origin.complaints.clear()


@pytest.mark.parametrize(
    ("method", "body", "reply", "repeated"),
    [
        pytest.param(b"POST", b"abc", [CLOSE], False, id="9110-9.2.2: not idempotent"),
        pytest.param(b"POST", None, [CLOSE], False, id="9110-9.2.2: without a body neither"),
        pytest.param(b"BREW", None, [CLOSE], False, id="9110-9.2.2: of unknown meaning"),
        pytest.param(b"DELETE", None, [CLOSE], True, id="9110-9.2.2: idempotent"),
        pytest.param(b"PUT", b"abc", [CLOSE], True, id="9110-9.2.2: its body is kept"),
        pytest.param(b"PUT", b"a" * 70_000, [CLOSE], False, id="its body is too long to keep"),
        pytest.param(b"PUT", b"abc", Answer(503), True, id="answered, and idempotent"),
        pytest.param(b"DELETE", None, Answer(502), True, id="the same without a body"),
        pytest.param(b"POST", b"abc", Answer(503), False, id="answered, and not idempotent"),
        pytest.param(
            b"GET", None, [b"HTTP/1.1 103 E\r\n\r\n", CLOSE], True, id="9110-15.2: only a hint came"
        ),
        pytest.param(
            b"POST", None, [b"HTTP/1.1 103 E\r\n\r\n", CLOSE], False, id="a hint, not idempotent"
        ),
    ],
)
async def test_only_what_may_be_repeated_is(
    others: list[ScriptedOrigin],
    clock: Clock,
    method: bytes,
    body: bytes | None,
    reply: Any,
    repeated: bool,
) -> None:
    async def hear(*_: object) -> None:
        pass

    policy = policy_of(*others)
    others[0].otherwise(reply)
    settings: dict[str, Any] = {"on_interim": hear}
    if body is not None:
        settings |= {"body": pieces(body), "length": len(body)}
    async with pool_of(policy, clock) as pool:
        try:
            status = (await ask(pool, request_of(policy, method=method), **settings)).status
        except OriginFailed:
            status = 502
    assert (status == 200, counts(others)) == (repeated, [1, int(repeated)])
    if repeated:
        assert others[1].requests[0].body == (body or b"")


async def test_when_all_answer_badly_the_last_answer_is_given(
    others: list[ScriptedOrigin], clock: Clock
) -> None:
    policy = policy_of(*others)
    others[0].otherwise(Answer(503, body=b"first"))
    others[1].otherwise(Answer(502, body=b"second"))
    async with pool_of(policy, clock) as pool:
        answer = await ask(pool, request_of(policy))
        assert (answer.status, await body_of(answer.response)) == (502, b"second")
        await others[0].stop_listening()
        answer = await ask(pool, request_of(policy))
        assert (answer.status, await body_of(answer.response)) == (502, b"second")


async def test_a_bad_answer_that_is_not_used_costs_no_connection(
    others: list[ScriptedOrigin], clock: Clock
) -> None:
    policy = policy_of(*others, breaker={"failures": 100, "failure_share": 1})
    others[0].otherwise(Answer(503, body=b"sorry"))
    async with pool_of(policy, clock) as pool:
        for _ in range(6):
            answer = await ask(pool, request_of(policy))
            assert await body_of(answer.response) == b"ok"
        assert [each.load for each in pool.state().origins] == [0, 0]
    assert [origin.connections for origin in others] == [1, 1]


async def test_which_statuses_are_failures_is_configured(
    others: list[ScriptedOrigin], clock: Clock
) -> None:
    policy = policy_of(*others, breaker={"statuses": [500]})
    others[0].otherwise(Answer(503))
    others[1].otherwise(Answer(500))
    async with pool_of(policy, clock) as pool:
        for _ in range(4):
            assert (await ask(pool, request_of(policy))).status == 503
    assert counts(others) == [4, 2]


async def test_no_more_is_repeated_than_the_budget_allows(
    others: list[ScriptedOrigin], clock: Clock
) -> None:
    policy = policy_of(
        *others, retries={"share": 0.25, "burst": 2}, breaker={"failures": 100, "failure_share": 1}
    )
    others[0].otherwise([CLOSE])
    failed = 0
    async with pool_of(policy, clock) as pool:
        for _ in range(24):
            try:
                await body_of((await ask(pool, request_of(policy))).response)
            except OriginFailed:
                failed += 1
        state = pool.state()
    # Two that were saved up, and then one for every four requests.
    assert (failed, state.repeated, state.not_repeated) == (5, 7, 5)
    assert counts(others) == [12, 19]


async def test_what_could_not_be_sent_is_no_matter_of_the_budget(
    others: list[ScriptedOrigin], clock: Clock
) -> None:
    policy = policy_of(*others, retries={"share": 0, "burst": 0}, breaker={"failures": 100})
    await others[0].stop_listening()
    async with pool_of(policy, clock) as pool:
        for _ in range(6):
            assert (await ask(pool, request_of(policy))).status == 200


async def test_all_tries_together_have_the_time_of_one(
    others: list[ScriptedOrigin], clock: Clock
) -> None:
    for origin in others:
        origin.otherwise([5.0])
    policy = policy_of(*others, timeouts={"first_byte": 0.5, "total": 0.9})
    async with pool_of(policy, clock) as pool:
        # With time of its own the second try would end at its first byte.
        with pytest.raises(OriginTimedOut, match="total"):
            await ask(pool, request_of(policy))
    assert counts(others) == [1, 1]


async def test_where_all_are_silent_nobody_is_made_to_wait_until_one_answers_again(
    others: list[ScriptedOrigin], clock: Clock
) -> None:
    policy = policy_of(*others, timeouts=SHORT, breaker={"failures": 1, "statuses": [503]})
    request = request_of(policy)
    for origin in others:
        origin.otherwise([5.0])
    async with pool_of(policy, clock) as pool:
        with pytest.raises(OriginTimedOut):
            await ask(pool, request)
        for _ in range(3):
            with pytest.raises(CircuitOpen) as refused:
                await ask(pool, request)
            assert (refused.value.status, refused.value.disconnected) == (504, True)
        assert counts(others) == [1, 1]
        assert pool.state().refused == 3
        clock.now += 1.1
        assert {each.circuit for each in pool.state().origins} == {"half-open"}
        others[1].otherwise(Answer(body=b"ok"))
        assert (await ask(pool, request)).status == 200
        assert "closed" in {each.circuit for each in pool.state().origins}


async def test_one_request_tries_an_origin_that_may_have_recovered(
    origin: ScriptedOrigin, clock: Clock
) -> None:
    """A site with one origin has a circuit, too: it spares readers the wait."""
    policy = policy_of(origin, timeouts=SHORT, breaker={"failures": 1})
    request = request_of(policy)
    origin.otherwise([5.0])
    async with pool_of(policy, clock) as pool:
        with pytest.raises(OriginTimedOut):
            await ask(pool, request)
        clock.now += 1.1
        go_on = asyncio.Event()
        origin.otherwise(Answer(body=b"ok", hold=go_on))
        trial = asyncio.create_task(ask(pool, request))
        await origin.seen("/", 2)
        with pytest.raises(CircuitOpen):
            await ask(pool, request)
        go_on.set()
        assert (await trial).status == 200
        assert (await ask(pool, request)).status == 200
    assert len(origin.requests) == 3


async def test_a_trial_that_is_broken_off_leaves_its_place_to_another(
    origin: ScriptedOrigin, clock: Clock
) -> None:
    policy = policy_of(origin, timeouts=SHORT, breaker={"failures": 1})
    request = request_of(policy)
    origin.otherwise([5.0])
    async with pool_of(policy, clock) as pool:
        with pytest.raises(OriginTimedOut):
            await ask(pool, request)
        clock.now += 1.1
        trial = asyncio.create_task(ask(pool, request))
        await origin.seen("/", 2)
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)
        origin.otherwise(Answer(body=b"ok"))
        assert (await ask(pool, request)).status == 200


async def test_an_origin_that_comes_back_gets_less_for_a_while(
    others: list[ScriptedOrigin], clock: Clock
) -> None:
    policy = policy_of(*others, breaker={"failures": 1}, balancing={"slow_start": 10.0})
    request = request_of(policy)
    others[0].otherwise([CLOSE])
    async with pool_of(policy, clock) as pool:
        await ask(pool, request)
        others[0].otherwise(Answer())
        clock.now += 1.1
        for _ in range(2):
            await ask(pool, request)
        assert pool.state().origins[0].share == 0.1
        before = counts(others)
        for _ in range(22):
            await ask(pool, request)
        assert counts(others) == [before[0] + 2, before[1] + 20]
        clock.now += 10
        before = counts(others)
        for _ in range(20):
            await ask(pool, request)
        assert 9 <= counts(others)[0] - before[0] <= 11


async def test_the_least_busy_origin_is_asked(others: list[ScriptedOrigin], clock: Clock) -> None:
    policy = policy_of(*others, balancing={"method": "least-connections"})
    request = request_of(policy)
    go_on = asyncio.Event()
    for origin in others:
        origin.otherwise(Answer(body=b"ok", hold_body=go_on))
    async with pool_of(policy, clock) as pool:
        first, second = [await ask(pool, request) for _ in range(2)]
        assert counts(others) == [1, 1]
        assert [each.load for each in pool.state().origins] == [1, 1]
        second.response.abort()
        others[1].otherwise(Answer(body=b"ok"))
        for _ in range(3):
            await body_of((await ask(pool, request)).response)
        assert counts(others) == [1, 4]
        go_on.set()
        await body_of(first.response)
        assert [each.load for each in pool.state().origins] == [0, 0]


async def test_an_origin_that_does_not_pass_its_checks_is_asked_last(
    others: list[ScriptedOrigin], clock: Clock
) -> None:
    policy = policy_of(*others, check={"path": "/"}, balancing={"slow_start": 10.0})
    request = request_of(policy)
    verdicts = Verdicts(memoryview(bytearray(1024)))
    marks = [checked_as("shop", each, policy.check) for each in policy.origins]
    pool = OriginPool(policy, clock, verdicts=verdicts)
    verdicts.write(marks[0], well=False)
    for _ in range(4):
        await ask(pool, request)
    assert counts(others) == [0, 4]
    assert [each.well for each in pool.state().origins] == [False, None]
    # When all fail them, the checks may be what is wrong.
    verdicts.write(marks[1], well=False)
    for _ in range(4):
        await ask(pool, request)
    assert counts(others) == [3, 5]
    for mark in marks:
        verdicts.write(mark, well=True)
    await ask(pool, request)
    assert [each.share for each in pool.state().origins] == [0.1, 0.1]
    await pool.close()


# -- reloading


async def test_a_pool_lives_on_where_nothing_of_it_changes(
    origin: ScriptedOrigin, clock: Clock
) -> None:
    policy = policy_of(origin)
    origin.otherwise(Answer(body=b"ok"))
    pools = Pools(clock)
    await body_of((await ask(pools.of(policy), request_of(policy))).response)
    changed = policy_of(origin, ttl={"default": 5.0})
    pools.reload([changed])
    assert pools.of(changed) is pools.of(policy)
    await body_of((await ask(pools.of(changed), request_of(changed))).response)
    assert origin.connections == 1
    await pools.close()
    await origin.quiet()


@pytest.mark.parametrize(
    "settings",
    [
        {"pool": {"max_connections": 2}},
        {"timeouts": {"connect": 1.0}},
        {"host_header": "origin"},
        {"balancing": {"slow_start": 1.0}},
        {"check": {"path": "/"}},
        {"breaker": {"failures": 1}},
        {"retries": {"burst": 1}},
    ],
    ids=str,
)
async def test_a_changed_pool_is_replaced_and_the_old_one_runs_dry(
    origin: ScriptedOrigin, clock: Clock, settings: dict[str, Any]
) -> None:
    go_on = asyncio.Event()
    origin.otherwise(Answer(body=b"ok", hold_body=go_on))
    policy = policy_of(origin)
    changed = policy_of(origin, **settings)
    pools = Pools(clock)
    old = pools.of(policy)
    answer = await ask(old, request_of(policy))
    pools.reload([changed])
    assert pools.of(changed) is not old
    late = await ask(old, request_of(policy))
    go_on.set()
    assert await body_of(answer.response) == await body_of(late.response) == b"ok"
    await origin.quiet()
    await pools.close()


async def test_a_request_from_before_a_reload_does_not_bring_the_old_origins_back(
    others: list[ScriptedOrigin], clock: Clock
) -> None:
    """It was read, and had not come to the origin yet, when the configuration changed."""
    old, new = policy_of(others[0]), policy_of(others[1])
    pools = Pools(clock)
    pools.of(old)
    pools.reload([new])
    for policy in (old, new):
        await body_of((await ask(pools.of(policy), request_of(policy))).response)
    assert counts(others) == [0, 2]
    await pools.close()


async def test_closing_ends_what_is_under_way(origin: ScriptedOrigin, clock: Clock) -> None:
    origin.otherwise(Answer(body=b"ok", hold=asyncio.Event()))
    policy, gone = policy_of(origin), policy_of(origin, name="gone")
    pools = Pools(clock)
    asking = [asyncio.create_task(ask(pools.of(one), request_of(one))) for one in (policy, gone)]
    await origin.seen("/", 2)
    pools.reload([policy])
    await pools.close()
    for one in asking:
        with pytest.raises(OriginFailed):
            await one
        assert not isinstance(one.exception(), OriginTimedOut)
