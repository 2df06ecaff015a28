"""What is said of a stored response, and why: each sentence for what would be done."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.cache.stored import BodyRef
from edgeproxy.invalidation.rules import VALID, Standing, Verdict
from edgeproxy.proxy.explain import Explanation, explain
from tests.invalidation.samples import response
from tests.proxy.parts import site_policy

RECEIVED = 1_700_000_000.0
INVALIDATED = Verdict(Standing.INVALIDATED, 7)
DELETED = Verdict(Standing.DELETED, 7)

MAX_AGE = ((b"Cache-Control", b"max-age=60, stale-while-revalidate=600, stale-if-error=600"),)
NO_GRACE = ((b"Cache-Control", b"max-age=60, stale-while-revalidate=0, stale-if-error=0"),)
ON_ERROR = ((b"Cache-Control", b"max-age=60, stale-while-revalidate=0, stale-if-error=600"),)
NO_CACHE = ((b"Cache-Control", b"max-age=60, no-cache"),)
NO_STALE = ((b"Cache-Control", b"max-age=60, must-revalidate"),)


def explained(
    fields: tuple[tuple[bytes, bytes], ...] = MAX_AGE,
    *,
    age: float = 0.0,
    verdict: Verdict = VALID,
    backing_off: bool = False,
    **changes: Any,
) -> Explanation:
    stored = response(
        **{"request_time": RECEIVED, "response_time": RECEIVED, "fields": fields, **changes}
    )
    return explain(
        stored, site_policy(), verdict, backing_off=backing_off, now=RECEIVED + age
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "age", "verdict", "backing_off", "served", "why"),
    [
        pytest.param(MAX_AGE, 10, VALID, False, "hit", "fresh for 50 s more", id="9111-4.2: fresh"),
        pytest.param(
            MAX_AGE,
            70,
            VALID,
            False,
            "stale",
            "stale for 10 s, within its grace: served, and refreshed behind it",
            id="5861-3: within its grace",
        ),
        pytest.param(
            MAX_AGE,
            70,
            VALID,
            True,
            "stale",
            "stale for 10 s, within its grace: served, and not yet again: the last refresh failed",
            id="5861-4: a refresh has failed",
        ),
        pytest.param(
            MAX_AGE,
            10,
            INVALIDATED,
            False,
            "stale",
            "invalidated at position 7, within its grace: served, and refreshed behind it",
            id="invalidated",
        ),
        pytest.param(
            NO_GRACE,
            70,
            VALID,
            False,
            "revalidate",
            "stale for 10 s, beyond what may be served meanwhile: the origin is asked first",
            id="9111-4.3: no grace",
        ),
        pytest.param(
            ON_ERROR,
            70,
            VALID,
            False,
            "revalidate",
            "stale for 10 s, beyond what may be served meanwhile: the origin is asked first; "
            "served if that fails",
            id="5861-4: no grace but for errors",
        ),
        pytest.param(
            NO_STALE,
            10,
            INVALIDATED,
            False,
            "revalidate",
            "invalidated at position 7, beyond what may be served meanwhile: the origin is asked "
            "first",
            id="9111-4.2.4: invalidated, and must-revalidate",
        ),
        pytest.param(
            NO_CACHE,
            10,
            VALID,
            False,
            "revalidate",
            "no-cache: the origin is asked before every use",
            id="9111-5.2.2.4: no-cache",
        ),
        pytest.param(
            MAX_AGE,
            10,
            DELETED,
            False,
            "no",
            "deleted by the invalidation at position 7",
            id="deleted",
        ),
        pytest.param(
            MAX_AGE,
            9_000_000,
            DELETED,
            True,
            "no",
            "deleted by the invalidation at position 7",
            id="deleted, whatever else",
        ),
    ],
)
def test_how_it_would_be_served_and_why(
    fields: tuple[tuple[bytes, bytes], ...],
    age: float,
    verdict: Verdict,
    backing_off: bool,
    served: str,
    why: str,
) -> None:
    told = explained(fields, age=age, verdict=verdict, backing_off=backing_off)
    assert (told.served, told.why) == (served, why)


@pytest.mark.parametrize(
    ("verdict", "marked", "told"),
    [
        pytest.param(VALID, 0, None, id="not at all"),
        pytest.param(INVALIDATED, 0, 7, id="by a rule"),
        pytest.param(VALID, 3, 3, id="by the sweep, the rule is gone"),
        pytest.param(INVALIDATED, 3, 7, id="by both: the later one"),
        pytest.param(INVALIDATED, 9, 9, id="by both, in the other order"),
    ],
)
def test_where_it_was_invalidated(verdict: Verdict, marked: int, told: int | None) -> None:
    explanation = explained(verdict=verdict, invalidated=marked)
    assert explanation.invalidated_at == told
    assert explanation.served == ("hit" if told is None else "stale")


def test_freshness_is_told_in_seconds() -> None:
    fields = (
        (b"Cache-Control", b"max-age=60, stale-while-revalidate=30, stale-if-error=90"),
        (b"Age", b"5"),
    )
    freshness = explained(fields, age=10.0004).freshness
    assert (freshness.source, freshness.lifetime) == ("max-age", 60)
    assert (freshness.age, freshness.ttl) == (15.0, 45.0)
    assert (freshness.stale_while_revalidate, freshness.stale_if_error) == (30, 90)


def test_all_about_a_response() -> None:
    told = explained(
        (*MAX_AGE, (b"X-Name", b"caf\xe9 caf\xc3\xa9")),
        buster=b"t1",
        environment="preview",
        selecting=((b"accept-language", b"de"), (b"cookie", None)),
        tags=("home", "p-1"),
        status=404,
        position=3,
        body=BodyRef("file", b"12345678", 1000, 0),
    )
    assert told.url == "https://shop.test/cb:t1/a"
    assert told.cache_buster == "t1"
    assert told.environment == "preview"
    assert told.variant == {"accept-language": "de", "cookie": None}
    assert told.tags == ("home", "p-1")
    assert (told.status, told.position, told.received) == (404, 3, RECEIVED)
    assert told.fields[1] == ("X-Name", "caf\\xe9 café")
    assert (told.body.where, told.body.length) == ("file", 1000)
    assert told.id == response().id.hex()


def test_a_page_has_no_buster() -> None:
    told = explained()
    assert (told.url, told.cache_buster) == ("https://shop.test/a", None)
