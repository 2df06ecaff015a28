"""RFC 9111 4.2, RFC 5861, RFC 8246: lifetimes, and what may be used past them."""

from dataclasses import replace
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.cache_control import MAX_DELTA
from edgeproxy.semantics.freshness import (
    HEURISTICALLY_CACHEABLE,
    Freshness,
    FreshnessPolicy,
    Source,
    assess_freshness,
)
from tests.semantics.build import DATE, NOW, checked, fields

POLICY = FreshnessPolicy(grace=300.0, error_grace=600.0)
YESTERDAY = "Last-Modified: Mon, 13 Nov 2023 22:13:20 GMT"
IN_A_MINUTE = "Expires: Tue, 14 Nov 2023 22:14:20 GMT"


def assess(*lines: str, status: int = 200, policy: FreshnessPolicy = POLICY) -> Freshness:
    return assess_freshness(status, fields(DATE, *lines), NOW, NOW, policy)


@pytest.mark.parametrize("stepped", [3600.0, -3600.0, 1e9])
@pytest.mark.parametrize("line", ["Cache-Control: max-age=60", IN_A_MINUTE, YESTERDAY])
def test_a_clock_that_was_stepped_changes_nothing_but_when_it_came(
    line: str, stepped: float
) -> None:
    held = fields(DATE, line)
    was = assess_freshness(200, held, NOW + 29, NOW + 30, POLICY)
    now = assess_freshness(200, held, NOW + 29 + stepped, NOW + 30 + stepped, POLICY, stepped)
    assert now == msgspec.structs.replace(was, response_time=NOW + 30 + stepped)
    assert now.age(NOW + 40 + stepped) == 40


@pytest.mark.parametrize(
    ("lines", "lifetime", "source"),
    [
        pytest.param(["Cache-Control: max-age=60"], 60, "max-age", id="4.2.1-max-age"),
        pytest.param([IN_A_MINUTE], 60, "expires", id="4.2.1-Expires"),
        pytest.param(
            ["Cache-Control: max-age=5, s-maxage=60"], 60, "s-maxage", id="4.2.1-s-maxage-first"
        ),
        pytest.param(
            ["Cache-Control: max-age=5", IN_A_MINUTE], 5, "max-age", id="5.3-max-age-over-Expires"
        ),
        pytest.param(
            ["Cache-Control: max-age=x", IN_A_MINUTE], 0, "max-age", id="4.2.1-invalid-is-stale"
        ),
        pytest.param(["Cache-Control: max-age=9999999999"], MAX_DELTA, "max-age", id="1.2.2"),
        pytest.param(["Expires: 0"], 0, "expires", id="5.3-zero"),
        pytest.param(["Expires: soon"], 0, "expires", id="5.3-invalid"),
        pytest.param(["Expires:"], 0, "expires", id="5.3-empty"),
        pytest.param(["Expires: Tue, 14 Nov 2023 22:12:20 GMT"], 0, "expires", id="5.3-past"),
        pytest.param([IN_A_MINUTE, IN_A_MINUTE], 0, "expires", id="4.2.1-two-lines"),
        pytest.param([YESTERDAY], 8640, "heuristic", id="4.2.2-a-tenth"),
        pytest.param(
            ["Last-Modified: Mon, 13 Nov 2000 22:13:20 GMT"], 86400, "heuristic", id="4.2.2-bound"
        ),
        pytest.param(
            [YESTERDAY, "Cache-Control: max-age=5"], 5, "max-age", id="4.2.2-explicit-counts"
        ),
        pytest.param([YESTERDAY, "Expires: x"], 0, "expires", id="4.2.2-explicit-though-invalid"),
        pytest.param(["Last-Modified: x"], 0, "none", id="4.2.2-invalid-date"),
        pytest.param(
            ["Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT"], 0, "none", id="4.2.2-modified-now"
        ),
        pytest.param(
            ["Last-Modified: Tue, 14 Nov 2023 22:13:19 GMT"], 0.1, "heuristic", id="4.2.2-just-now"
        ),
        pytest.param(
            ["Last-Modified: Wed, 15 Nov 2023 22:13:20 GMT"], 0, "none", id="4.2.2-modified-later"
        ),
        pytest.param(["Cache-Control: public"], 0, "none", id="nothing-to-guess-from"),
        pytest.param([], 0, "none", id="nothing"),
    ],
)
def test_lifetime(lines: list[str], lifetime: float, source: str) -> None:
    found = assess(*lines)
    assert (found.lifetime, found.source) == (lifetime, source)


def test_without_date_expires_counts_from_when_the_response_came() -> None:  # RFC 9110 6.6.1
    found = assess_freshness(200, fields(IN_A_MINUTE), NOW - 30, NOW - 20, POLICY)
    assert found.lifetime == 80


@pytest.mark.parametrize(
    ("lines", "lifetime", "source"),
    [
        pytest.param(
            ["Cache-Control: no-store", "CDN-Cache-Control: max-age=7"], 7, "max-age", id="2.2"
        ),
        pytest.param(
            ["CDN-Cache-Control: public", IN_A_MINUTE], 0, "none", id="2.2-Expires-is-ignored"
        ),
        pytest.param(
            ["Cache-Control: max-age=7", "CDN-Cache-Control: public", YESTERDAY],
            8640, "heuristic", id="2.2-so-is-Cache-Control",
        ),
        pytest.param(["Surrogate-Control: max-age=9+2"], 9, "max-age", id="Surrogate-Control"),
    ],
)  # fmt: skip
def test_lifetime_by_targeted_fields(lines: list[str], lifetime: float, source: str) -> None:
    found = assess(*lines)
    assert (found.lifetime, found.source) == (lifetime, source)


def test_only_some_status_codes_are_fresh_by_guess() -> None:  # RFC 9110 15.1
    fresh = {status for status in range(200, 600) if assess(YESTERDAY, status=status).lifetime}
    assert fresh == {200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501}
    assert fresh == HEURISTICALLY_CACHEABLE


def test_public_lets_any_status_be_guessed() -> None:  # RFC 9111 4.2.2
    assert assess(YESTERDAY, "Cache-Control: public", status=599).lifetime == 8640


def test_explicit_lifetimes_are_for_any_status() -> None:
    assert assess("Cache-Control: max-age=60", status=599).lifetime == 60


def test_the_sites_own_lifetime_takes_the_guesss_place_and_no_others() -> None:
    policy = replace(POLICY, default_ttl=30.0)
    assert assess(policy=policy).lifetime == 30
    assert assess(policy=policy).source == "default"
    assert assess(YESTERDAY, policy=policy).lifetime == 30
    assert assess("Cache-Control: max-age=5", policy=policy).lifetime == 5
    assert assess("Expires: 0", policy=policy).lifetime == 0
    assert assess(policy=policy, status=302).lifetime == 0


def test_the_sites_bounds() -> None:
    assert assess("Cache-Control: max-age=60", policy=replace(POLICY, max_ttl=20.0)).lifetime == 20
    assert assess("Cache-Control: max-age=6", policy=replace(POLICY, max_ttl=20.0)).lifetime == 6
    assert assess(YESTERDAY, policy=replace(POLICY, heuristic_max=60.0)).lifetime == 60
    assert assess(YESTERDAY, policy=replace(POLICY, heuristic_fraction=0.5)).lifetime == 43200


@pytest.mark.parametrize(
    ("value", "while_revalidating", "on_error"),
    [
        pytest.param("max-age=60", 300, 600, id="the-sites-where-the-origin-says-nothing"),
        pytest.param("max-age=60, stale-while-revalidate=7", 7, 600, id="5861-3"),
        pytest.param("max-age=60, stale-if-error=7", 300, 7, id="5861-4"),
        pytest.param("max-age=9, stale-while-revalidate=0, stale-if-error=0", 0, 0, id="5861-0"),
        pytest.param("max-age=60, stale-while-revalidate=x", 0, 600, id="5861-invalid"),
        pytest.param("max-age=60, must-revalidate", 0, 0, id="5.2.2.2"),
        pytest.param("max-age=60, proxy-revalidate", 0, 0, id="5.2.2.8"),
        pytest.param("max-age=60, no-cache", 0, 0, id="5.2.2.4"),
        pytest.param('max-age=60, no-cache="a"', 300, 600, id="5.2.2.4-qualified"),
        pytest.param("s-maxage=60", 0, 0, id="5.2.2.10"),
        pytest.param(
            "s-maxage=60, stale-while-revalidate=7, stale-if-error=8", 7, 8,
            id="5.2.2.10-the-origins-own-word",
        ),
        pytest.param(
            "max-age=60, must-revalidate, stale-while-revalidate=7, stale-if-error=8", 0, 0,
            id="4.2.4-must-revalidate-outranks",
        ),
        pytest.param("max-age=0", 0, 600, id="never-fresh-on-purpose"),
        pytest.param("max-age=1", 300, 600, id="fresh-for-a-moment"),
        pytest.param("max-age=0, stale-while-revalidate=9", 9, 600, id="never-fresh-but-allowed"),
        pytest.param("public", 0, 0, id="never-said-to-be-fresh"),
    ],
)  # fmt: skip
def test_stale_windows(value: str, while_revalidating: float, on_error: float) -> None:
    found = assess(f"Cache-Control: {value}")
    assert found.stale_while_revalidate == while_revalidating
    assert found.stale_if_error == on_error


def test_a_guessed_or_configured_lifetime_has_the_sites_grace() -> None:
    assert assess(YESTERDAY).stale_while_revalidate == 300
    at_once = replace(POLICY, default_ttl=0.0)
    assert assess(policy=at_once).stale_while_revalidate == 300


def test_a_bounded_lifetime_is_not_one_that_never_was() -> None:
    policy = replace(POLICY, max_ttl=0.0)
    assert assess("Cache-Control: max-age=60", policy=policy).stale_while_revalidate == 300


def test_surrogate_controls_extension_is_both_windows() -> None:
    found = assess("Surrogate-Control: max-age=60+30")
    assert (found.stale_while_revalidate, found.stale_if_error) == (30, 30)


@pytest.mark.parametrize(
    ("value", "must_validate", "no_stale"),
    [
        ("max-age=60", False, False),
        ("no-cache", True, True),
        ('no-cache="a", max-age=60', False, False),
        ("must-revalidate", False, True),
        ("proxy-revalidate", False, True),
        ("s-maxage=60", False, True),
        ("s-maxage=60, stale-while-revalidate=5", False, True),
    ],
)
def test_when_to_ask_the_origin(value: str, must_validate: bool, no_stale: bool) -> None:
    found = assess(f"Cache-Control: {value}")
    assert (found.must_validate, found.no_stale) == (must_validate, no_stale)


def test_immutable() -> None:  # RFC 8246 2
    assert assess("Cache-Control: max-age=60, immutable").immutable is True
    assert assess("Cache-Control: max-age=60").immutable is False


def test_it_ages_by_the_clock_and_ends_on_the_second() -> None:  # RFC 9111 4.2
    found = assess_freshness(
        200, fields(DATE, "Age: 10", "Cache-Control: max-age=60"), NOW - 2, NOW, POLICY
    )
    assert found.initial_age == 12
    assert found.age(NOW + 40) == 52
    assert found.ttl(NOW + 40) == 8
    assert found.is_fresh(NOW + 47.9)
    assert not found.is_fresh(NOW + 48)
    assert found.ttl(NOW + 50) == -2


def test_a_clock_that_goes_back_makes_nothing_younger() -> None:
    found = assess("Cache-Control: max-age=60", "Age: 50")
    assert found.age(NOW - 1000) == 50


directives = st.lists(
    st.sampled_from(
        [
            *("max-age=60", "max-age=0", "max-age=x", "s-maxage=30", "no-cache", "must-revalidate"),
            *("proxy-revalidate", "stale-while-revalidate=9", "stale-if-error=9", "immutable"),
            *("private", "no-store", 'no-cache="a"', "x"),
        ]
    ),
    max_size=5,
)
bounds = st.none() | st.floats(0, 1e6)


@checked
@given(directives, bounds, bounds, st.sampled_from([200, 302, 404]))
def test_no_number_is_negative_and_no_bound_is_passed(
    members: list[str], default: float | None, longest: float | None, status: int
) -> None:
    policy = replace(POLICY, default_ttl=default, max_ttl=longest)
    found = assess(f"Cache-Control: {', '.join(members)}", YESTERDAY, status=status, policy=policy)
    assert 0 <= found.lifetime <= (MAX_DELTA if longest is None else longest)
    assert found.stale_while_revalidate >= 0
    assert found.stale_if_error >= 0
    if "must-revalidate" in members or "proxy-revalidate" in members or "no-cache" in members:
        assert found.no_stale
        assert found.stale_while_revalidate == found.stale_if_error == 0


@checked
@given(directives, directives)
def test_more_directives_never_make_a_stated_lifetime_longer(
    members: list[str], added: list[str]
) -> None:
    before = assess(f"Cache-Control: {', '.join(members)}")
    after = assess(f"Cache-Control: {', '.join(members + added)}")
    # s-maxage outranks max-age by 4.2.1, whichever is longer.
    if before.source == after.source != "none":
        assert after.lifetime <= before.lifetime


numbers = st.floats(allow_nan=False)


@checked
@given(
    st.builds(
        Freshness,
        numbers,
        st.sampled_from(get_args(Source)),
        *[numbers] * 4,
        *[st.booleans()] * 4,
    ),
    st.binary(max_size=9),
)
def test_it_is_the_same_packed(freshness: Freshness, behind: bytes) -> None:
    packed = freshness.pack()
    assert len(packed) == Freshness.PACKED
    assert Freshness.unpack(packed + behind) == freshness
