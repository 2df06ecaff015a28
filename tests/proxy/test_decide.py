"""What is done with a request, branch by branch."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.proxy.decide import (
    Candidate,
    Decision,
    Fetch,
    Hit,
    Pass,
    Refuse,
    Revalidate,
    Stale,
    Validity,
    classify,
    decide,
    may_serve_on_error,
    unconditional,
)
from edgeproxy.semantics.cache_control import MAX_DELTA, Directives
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.freshness import Freshness

STORED = 1000.0
"""When the stored response came in."""
LIFETIME = 100.0


def stored_response(
    *,
    invalidated: bool = False,
    backing_off: bool = False,
    lifetime: float = LIFETIME,
    swr: float = 0.0,
    sie: float = 0.0,
    must_validate: bool = False,
    must_revalidate: bool = False,
    no_stale: bool = False,
    immutable: bool = False,
) -> Candidate:
    freshness = Freshness(
        lifetime=lifetime,
        source="max-age",
        initial_age=0.0,
        response_time=STORED,
        stale_while_revalidate=swr,
        stale_if_error=sie,
        must_validate=must_validate,
        must_revalidate=must_revalidate,
        no_stale=no_stale,
        immutable=immutable,
    )
    validity = Validity.INVALIDATED if invalidated else Validity.VALID
    return Candidate(freshness, validity, backing_off)


def decided(
    candidate: Candidate | None,
    age: float = 0.0,
    *,
    honour: bool = False,
    other_variants: bool = False,
    uncacheable: str | None = None,
    **directives: Any,
) -> Decision:
    return decide(
        Directives(**directives),
        candidate,
        honour=honour,
        other_variants=other_variants,
        uncacheable=uncacheable,
        now=STORED + age,
    )


# -- before anything is looked up


@pytest.mark.parametrize(
    ("method", "fields", "has_body", "expected"),
    [
        pytest.param(b"GET", (), False, None, id="GET"),
        pytest.param(b"HEAD", (), False, None, id="HEAD"),
        pytest.param(b"POST", (), False, Pass("method"), id="POST"),
        pytest.param(b"POST", (), True, Pass("method"), id="POST with a body"),
        pytest.param(b"OPTIONS", (), False, Pass("method"), id="OPTIONS"),
        pytest.param(b"PURGE", (), False, Pass("method"), id="a method that is not known"),
        pytest.param(b"get", (), False, Pass("method"), id="9110-9.1: methods are case-sensitive"),
        pytest.param(b"GET", (), True, Pass("request", "body"), id="9110-9.3.1: GET with content"),
        pytest.param(
            b"HEAD", (), True, Pass("request", "body"), id="9110-9.3.2: HEAD with content"
        ),
        pytest.param(
            b"GET",
            ((b"If-Match", b'"a"'),),
            False,
            Pass("request", "precondition"),
            id="9110-13.1.1: If-Match",
        ),
        pytest.param(
            b"GET",
            ((b"if-unmodified-since", b"Sun, 06 Nov 1994 08:49:37 GMT"),),
            False,
            Pass("request", "precondition"),
            id="9110-13.1.4: If-Unmodified-Since",
        ),
        pytest.param(b"GET", ((b"If-None-Match", b"*"),), False, None, id="9111-4.3.2"),
        pytest.param(
            b"GET",
            ((b"Range", b"bytes=0-1"), (b"If-Range", b'"a"')),
            False,
            None,
            id="9110-14.2: a range",
        ),
        pytest.param(b"GET", ((b"Authorization", b"Basic eA=="),), False, None, id="9111-3.5"),
    ],
)
def test_classify(
    method: bytes,
    fields: tuple[tuple[bytes, bytes], ...],
    has_body: bool,
    expected: Pass | None,
) -> None:
    assert classify(method, Fields(fields), has_body) == expected
    asked = classify(method, Fields(fields), has_body, only_if_cached=True)
    # RFC 9111 5.2.1.7
    may_wait = isinstance(expected, Pass) and expected.fwd == "request"
    assert asked == (Refuse(504, "only-if-cached") if may_wait else expected)


# -- with nothing stored


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param({}, Fetch("uri-miss"), id="9211-2.2: uri-miss"),
        pytest.param({"other_variants": True}, Fetch("vary-miss"), id="9211-2.2: vary-miss"),
        pytest.param(
            {"uncacheable": "private"}, Pass("bypass", "uncacheable; private"), id="uncacheable"
        ),
        pytest.param(
            {"uncacheable": "private", "other_variants": True},
            Pass("bypass", "uncacheable; private"),
            id="uncacheable with other variants",
        ),
        pytest.param(
            {"only_if_cached": True}, Refuse(504, "only-if-cached"), id="9111-5.2.1.7: 504"
        ),
        pytest.param(
            {"only_if_cached": True, "uncacheable": "private"},
            Refuse(504, "only-if-cached"),
            id="9111-5.2.1.7: also of what is uncacheable",
        ),
        pytest.param(
            {"only_if_cached": True, "no_store": True, "honour": True},
            Refuse(504, "only-if-cached"),
            id="9111-5.2.1.7: whatever else is asked for",
        ),
        pytest.param(
            {"no_store": True, "honour": True}, Pass("request", "no-store"), id="9111-5.2.1.5"
        ),
        pytest.param({"no_store": True}, Fetch("uri-miss"), id="no-store, not honoured"),
        pytest.param({"no_cache": True, "honour": True}, Fetch("uri-miss"), id="no-cache"),
        pytest.param({"max_stale": 10, "honour": True}, Fetch("uri-miss"), id="max-stale"),
    ],
)
def test_nothing_stored(asked: dict[str, Any], expected: Decision) -> None:
    assert decided(None, **asked) == expected


# -- with a stored response that is fresh


@pytest.mark.parametrize(
    ("candidate", "age", "asked", "expected"),
    [
        pytest.param({}, 0, {}, Hit(100), id="9111-4: fresh"),
        pytest.param({}, 99.5, {}, Hit(0), id="9211-2.4: less than a second is 0"),
        pytest.param({}, 1, {"other_variants": True}, Hit(99), id="its variant is there"),
        pytest.param(
            {}, 1, {"uncacheable": "private"}, Hit(99), id="stored, though uncacheable of late"
        ),
        pytest.param({"backing_off": True}, 1, {}, Hit(99), id="a failed refresh is no matter"),
        pytest.param({}, 1, {"only_if_cached": True}, Hit(99), id="9111-5.2.1.7: stored"),
        pytest.param(
            {},
            1,
            {"only_if_cached": True, "no_store": True, "honour": True},
            Hit(99),
            id="9111-5.2.1.7: next to no-store",
        ),
        pytest.param(
            {"must_validate": True},
            1,
            {},
            Revalidate("stale", on_error=False, detail="no-cache"),
            id="9111-5.2.2.4: no-cache of the response",
        ),
        pytest.param(
            {"must_validate": True},
            1,
            {"only_if_cached": True},
            Refuse(504, "only-if-cached"),
            id="9111-5.2.1.7: what must be validated can't be used",
        ),
        pytest.param(
            {},
            1,
            {"no_store": True, "honour": True},
            Pass("request", "no-store"),
            id="9111-5.2.1.5: no-store",
        ),
        pytest.param({}, 1, {"no_store": True}, Hit(99), id="no-store, not honoured"),
        pytest.param(
            {},
            1,
            {"no_cache": True, "honour": True},
            Revalidate("request", on_error=False, detail="no-cache"),
            id="9111-5.2.1.4: no-cache",
        ),
        pytest.param(
            {"sie": 10},
            1,
            {"no_cache": True, "honour": True},
            Revalidate("request", on_error=True, detail="no-cache"),
            id="5861-4: no-cache, and an origin that may fail",
        ),
        pytest.param({}, 1, {"no_cache": True}, Hit(99), id="no-cache, not honoured"),
        pytest.param(
            {},
            1,
            {"no_cache": True, "only_if_cached": True, "honour": True},
            Refuse(504, "only-if-cached"),
            id="9111-5.2.1.7: no-cache can't be had",
        ),
        pytest.param(
            {},
            11,
            {"max_age": 10, "honour": True},
            Revalidate("request", on_error=False, detail="max-age"),
            id="9111-5.2.1.1: older than max-age",
        ),
        pytest.param(
            {}, 10, {"max_age": 10, "honour": True}, Hit(90), id="9111-5.2.1.1: as old as max-age"
        ),
        pytest.param({}, 11, {"max_age": 10}, Hit(89), id="max-age, not honoured"),
        pytest.param(
            {"immutable": True},
            11,
            {"max_age": 0, "honour": True},
            Hit(89),
            id="8246-2: a reload of what does not change",
        ),
        pytest.param(
            {"immutable": True},
            11,
            {"no_cache": True, "honour": True},
            Revalidate("request", on_error=False, detail="no-cache"),
            id="8246-2: a forced reload",
        ),
        pytest.param(
            {},
            91,
            {"min_fresh": 10, "honour": True},
            Revalidate("request", on_error=False, detail="min-fresh"),
            id="9111-5.2.1.3: too soon stale",
        ),
        pytest.param(
            {}, 90, {"min_fresh": 10, "honour": True}, Hit(10), id="9111-5.2.1.3: just fresh enough"
        ),
        pytest.param({}, 91, {"min_fresh": 10}, Hit(9), id="min-fresh, not honoured"),
    ],
)
def test_fresh(
    candidate: dict[str, Any], age: float, asked: dict[str, Any], expected: Decision
) -> None:
    assert decided(stored_response(**candidate), age, **asked) == expected


# -- with one that is stale, or was purged


@pytest.mark.parametrize(
    ("candidate", "age", "asked", "expected"),
    [
        pytest.param(
            {}, 100, {}, Revalidate("stale", on_error=False), id="9111-4.2: as old as its lifetime"
        ),
        pytest.param({"sie": 50}, 150, {}, Revalidate("stale", on_error=True), id="5861-4"),
        pytest.param(
            {"sie": 50}, 151, {}, Revalidate("stale", on_error=False), id="5861-4: too stale"
        ),
        pytest.param(
            {},
            101,
            {"only_if_cached": True},
            Refuse(504, "only-if-cached"),
            id="9111-5.2.1.7: stale",
        ),
        pytest.param(
            {},
            101,
            {"no_cache": True, "honour": True},
            Revalidate("stale", on_error=False, detail="no-cache"),
            id="9211-2.2: stale, whatever the request asks",
        ),
        pytest.param(
            {"swr": 50},
            101,
            {"max_age": 50, "honour": True},
            Revalidate("stale", on_error=False, detail="max-age"),
            id="9111-5.2.1.1: max-age, though it could be refreshed behind",
        ),
        pytest.param(
            {"swr": 50},
            101,
            {"max_age": 200, "honour": True},
            Revalidate("stale", on_error=False, detail="max-age"),
            id="9111-5.2.1.1: max-age wants nothing stale",
        ),
        pytest.param(
            {},
            101,
            {"max_age": 200, "max_stale": 10, "honour": True},
            Stale(-1, refresh=True, detail="max-stale"),
            id="9111-5.2.1.1: but for max-stale next to it",
        ),
        pytest.param(
            {"swr": 50},
            101,
            {"max_age": 200},
            Stale(-1, refresh=True, detail="stale-while-revalidate"),
            id="max-age of what is stale, not honoured",
        ),
        pytest.param(
            {},
            150,
            {"stale_if_error": 50, "honour": True},
            Revalidate("stale", on_error=True),
            id="5861-4: the request's own stale-if-error",
        ),
        pytest.param(
            {},
            151,
            {"stale_if_error": 50, "honour": True},
            Revalidate("stale", on_error=False),
            id="5861-4: past the request's own",
        ),
        pytest.param(
            {"no_stale": True},
            150,
            {"stale_if_error": 50, "honour": True},
            Revalidate("stale", on_error=False),
            id="9111-4.2.4: the origin forbids what the request would take",
        ),
        pytest.param(
            {},
            150,
            {"stale_if_error": 50},
            Revalidate("stale", on_error=False),
            id="the request's own stale-if-error, not honoured",
        ),
        pytest.param(
            {"swr": 50},
            101,
            {"min_fresh": 1, "honour": True},
            Revalidate("stale", on_error=False, detail="min-fresh"),
            id="9111-5.2.1.3: min-fresh, though it could be refreshed behind",
        ),
        pytest.param(
            {"immutable": True},
            101,
            {"max_age": 0, "honour": True},
            Revalidate("stale", on_error=False, detail="max-age"),
            id="8246-2: only while it is fresh",
        ),
        # RFC 5861 3
        pytest.param(
            {"swr": 50},
            100,
            {},
            Stale(0, refresh=True, detail="stale-while-revalidate"),
            id="5861-3: just stale",
        ),
        pytest.param(
            {"swr": 50},
            100.25,
            {},
            Stale(-1, refresh=True, detail="stale-while-revalidate"),
            id="9211-2.4: less than a second ago is not 0",
        ),
        pytest.param(
            {"swr": 50},
            150,
            {"only_if_cached": True},
            Stale(-50, refresh=True, detail="stale-while-revalidate"),
            id="5861-3: at the end of the window",
        ),
        pytest.param(
            {"swr": 50}, 151, {}, Revalidate("stale", on_error=False), id="5861-3: past the window"
        ),
        pytest.param(
            {"swr": 50, "backing_off": True},
            101,
            {},
            Stale(-1, refresh=False, detail="stale-while-revalidate"),
            id="5861-3: a refresh has just failed",
        ),
        # RFC 5861 4
        pytest.param(
            {"sie": 50, "backing_off": True},
            101,
            {},
            Stale(-1, refresh=False, detail="stale-if-error"),
            id="5861-4: the origin has just failed",
        ),
        pytest.param(
            {"sie": 50, "backing_off": True},
            151,
            {},
            Revalidate("stale", on_error=False),
            id="5861-4: the origin has just failed, too stale",
        ),
        pytest.param(
            {"sie": 50, "backing_off": True},
            101,
            {"no_cache": True, "honour": True},
            Revalidate("stale", on_error=True, detail="no-cache"),
            id="5861-4: a reader that insists",
        ),
        # RFC 9111 5.2.1.2
        pytest.param(
            {},
            110,
            {"max_stale": 10, "honour": True},
            Stale(-10, refresh=True, detail="max-stale"),
            id="9111-5.2.1.2: max-stale",
        ),
        pytest.param(
            {},
            111,
            {"max_stale": 10, "honour": True},
            Revalidate("stale", on_error=False),
            id="9111-5.2.1.2: too stale",
        ),
        pytest.param(
            {},
            1e6,
            {"max_stale": MAX_DELTA, "honour": True},
            Stale(100 - 10**6, refresh=True, detail="max-stale"),
            id="9111-5.2.1.2: without a limit",
        ),
        pytest.param(
            {"backing_off": True},
            110,
            {"max_stale": 10, "honour": True},
            Stale(-10, refresh=False, detail="max-stale"),
            id="9111-5.2.1.2: a refresh has just failed",
        ),
        pytest.param(
            {"no_stale": True},
            110,
            {"max_stale": 10, "honour": True},
            Revalidate("stale", on_error=False),
            id="9111-4.2.4: the origin forbids it",
        ),
        pytest.param(
            {},
            110,
            {"max_stale": 10},
            Revalidate("stale", on_error=False),
            id="max-stale, not honoured",
        ),
        # purged by invalidation
        pytest.param(
            {"invalidated": True},
            1,
            {},
            Stale(99, refresh=True, detail="invalidated"),
            id="purged while fresh",
        ),
        pytest.param(
            {"invalidated": True, "must_revalidate": True, "no_stale": True},
            1,
            {},
            Revalidate("stale", on_error=False, detail="invalidated"),
            id="9111-5.2.2.2: purged while fresh, and never to be served stale",
        ),
        pytest.param(
            {"invalidated": True, "no_stale": True},
            1,
            {},
            Stale(99, refresh=True, detail="invalidated"),
            id="9111-5.2.2.10: purged while fresh by s-maxage",
        ),
        pytest.param(
            {"invalidated": True},
            120,
            {},
            Revalidate("stale", on_error=False, detail="invalidated"),
            id="purged and stale",
        ),
        pytest.param(
            {"invalidated": True, "sie": 50},
            120,
            {},
            Revalidate("stale", on_error=True, detail="invalidated"),
            id="purged, and an origin that may fail",
        ),
        pytest.param(
            {"invalidated": True, "swr": 50},
            1,
            {},
            Stale(99, refresh=True, detail="invalidated"),
            id="purged, refreshed behind",
        ),
        pytest.param(
            {"invalidated": True, "swr": 50},
            120,
            {},
            Stale(-20, refresh=True, detail="invalidated"),
            id="purged and stale, refreshed behind",
        ),
        pytest.param(
            {"invalidated": True, "swr": 50},
            151,
            {},
            Revalidate("stale", on_error=False, detail="invalidated"),
            id="purged, past the window",
        ),
        pytest.param(
            {"invalidated": True},
            101,
            {"max_stale": 1000, "honour": True},
            Revalidate("stale", on_error=False, detail="invalidated"),
            id="purged: a reader can't ask for it",
        ),
        pytest.param(
            {"invalidated": True},
            1,
            {"no_cache": True, "honour": True},
            Revalidate("stale", on_error=False, detail="no-cache"),
            id="purged: not why the request goes on",
        ),
        pytest.param(
            {"invalidated": True, "immutable": True},
            11,
            {"max_age": 0, "honour": True},
            Revalidate("stale", on_error=False, detail="max-age"),
            id="purged: what does not change has",
        ),
        pytest.param(
            {"invalidated": True, "must_validate": True},
            1,
            {},
            Revalidate("stale", on_error=False, detail="no-cache"),
            id="purged: to be validated in any case",
        ),
        pytest.param(
            {"invalidated": True, "sie": 50, "backing_off": True},
            120,
            {},
            Stale(-20, refresh=False, detail="stale-if-error"),
            id="purged, and the origin has just failed",
        ),
    ],
)
def test_stale(
    candidate: dict[str, Any], age: float, asked: dict[str, Any], expected: Decision
) -> None:
    assert decided(stored_response(**candidate), age, **asked) == expected


CANDIDATES = st.builds(
    stored_response,
    invalidated=st.booleans(),
    backing_off=st.booleans(),
    lifetime=st.floats(0, 200),
    swr=st.floats(0, 200),
    sie=st.floats(0, 200),
    must_validate=st.booleans(),
    no_stale=st.booleans(),
    immutable=st.booleans(),
)
DELTAS = st.none() | st.integers(0, 400)
REQUESTS = st.fixed_dictionaries(
    {
        "honour": st.booleans(),
        "other_variants": st.booleans(),
        "uncacheable": st.sampled_from([None, "private"]),
        "max_age": DELTAS,
        "min_fresh": DELTAS,
        "max_stale": DELTAS,
        "no_store": st.booleans(),
        "no_cache": st.booleans(),
        "only_if_cached": st.booleans(),
    }
)


@given(candidate=st.none() | CANDIDATES, age=st.floats(0, 1000), request_=REQUESTS)
def test_what_always_holds(
    candidate: Candidate | None, age: float, request_: dict[str, Any]
) -> None:
    decision = decided(candidate, age, **request_)
    if request_["only_if_cached"]:
        assert isinstance(decision, Hit | Stale | Refuse), "the origin is not asked"
    else:
        assert not isinstance(decision, Refuse)
    if candidate is None:
        assert isinstance(decision, Fetch | Pass | Refuse)
        return
    freshness = candidate.freshness
    if isinstance(decision, Hit | Stale):
        assert not freshness.must_validate
        assert decision.ttl <= freshness.ttl(STORED + age) < decision.ttl + 1
    if isinstance(decision, Hit):
        assert candidate.validity is Validity.VALID
        assert freshness.is_fresh(STORED + age)
    if isinstance(decision, Stale):
        assert not (decision.refresh and candidate.backing_off)
    if isinstance(decision, Revalidate):
        assert decision.on_error == may_serve_on_error(freshness, STORED + age)


# -- the other functions


@pytest.mark.parametrize(
    ("sie", "age", "expected"),
    [
        (0, 0, False),
        (0, 100, False),
        (50, 0, True),
        (50, 100, True),
        (50, 150, True),
        (50, 151, False),
    ],
)
def test_may_serve_on_error(sie: float, age: float, expected: bool) -> None:
    freshness = stored_response(sie=sie).freshness
    assert may_serve_on_error(freshness, STORED + age) is expected


def test_a_shared_fetch_has_no_conditions_of_one_reader() -> None:
    fields = Fields(
        [
            (b"Host", b"example.com"),
            (b"If-None-Match", b'"a"'),
            (b"IF-MODIFIED-SINCE", b"Sun, 06 Nov 1994 08:49:37 GMT"),
            (b"If-Range", b'"a"'),
            (b"If-Match", b"*"),
            (b"If-Unmodified-Since", b"Sun, 06 Nov 1994 08:49:37 GMT"),
            (b"Range", b"bytes=0-1"),
            (b"Accept", b"*/*"),
        ]
    )
    assert unconditional(fields).raw == ((b"Host", b"example.com"), (b"Accept", b"*/*"))
