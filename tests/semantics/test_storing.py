"""RFC 9111 3: what may be stored, for whom, and which fields of it."""

from dataclasses import replace
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.forwarding import HOP_BY_HOP
from edgeproxy.semantics.freshness import FreshnessPolicy
from edgeproxy.semantics.storing import UNDERSTOOD_STATUS, StoragePolicy, may_store, storable_fields
from tests.semantics.build import checked, field_values, fields, lines_of, tokens

POLICY = StoragePolicy()
STRICT_RFC = StoragePolicy(share_set_cookie=True, errors=frozenset(range(400, 600)), armour=False)
FRESHNESS = FreshnessPolicy()
COOKIE = "Set-Cookie: id=1"


def refusal(
    *lines: str,
    method: bytes = b"GET",
    request: tuple[str, ...] = (),
    status: int = 200,
    policy: StoragePolicy = POLICY,
    freshness: FreshnessPolicy = FRESHNESS,
    target: bytes = b"/",
) -> str | None:
    return may_store(method, fields(*request), status, fields(*lines), policy, freshness, target)


FRESH = "Cache-Control: max-age=60"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param([FRESH], None, id="3-max-age"),
        pytest.param(["Cache-Control: s-maxage=60"], None, id="3-s-maxage"),
        pytest.param(["Expires: Tue, 14 Nov 2023 22:14:20 GMT"], None, id="3-Expires"),
        pytest.param(["Expires: 0"], None, id="3-stale-at-once-is-stated-too"),
        pytest.param(['ETag: "1"'], None, id="3-status-and-validator"),
        pytest.param(["Last-Modified: Mon, 13 Nov 2023 22:13:20 GMT"], None, id="4.2.2"),
        pytest.param([], "no-freshness", id="nothing-it-could-be-used-for"),
        pytest.param(["Cache-Control: public"], "no-freshness", id="public-alone"),
        pytest.param(["Cache-Control: no-store, max-age=60"], "no-store", id="5.2.2.5"),
        pytest.param(["Cache-Control: private, max-age=60"], "private", id="5.2.2.7"),
        pytest.param(['Cache-Control: private="x", max-age=60'], None, id="5.2.2.7-qualified"),
        pytest.param(["Cache-Control: private, public, s-maxage=9"], "private", id="conflict"),
        pytest.param(["Cache-Control: no-cache", 'ETag: "1"'], None, id="5.2.2.4"),
        pytest.param(["Cache-Control: no-cache"], "no-cache", id="never-to-be-validated"),
        pytest.param(['Cache-Control: no-cache="x", max-age=9'], None, id="5.2.2.4-qualified"),
        pytest.param([FRESH, "Vary: *"], "vary-star", id="4.1-star"),
        pytest.param([FRESH, "Vary: a, *"], "vary-star", id="4.1-star-among-others"),
        pytest.param([FRESH, "Vary: Accept"], None, id="4.1"),
        pytest.param([FRESH, COOKIE], "set-cookie", id="policy-set-cookie"),
        pytest.param(["Cache-Control: public, max-age=9", COOKIE], None, id="set-cookie-public"),
        pytest.param(
            ['Cache-Control: private="Set-Cookie", max-age=9', COOKIE], None, id="cookie-left-out"
        ),
        pytest.param(
            ['Cache-Control: no-cache="set-cookie", max-age=9', COOKIE], None, id="cookie-no-cache"
        ),
        pytest.param(["Pragma: no-cache", FRESH], None, id="5.4-says-nothing-in-a-response"),
    ],
)
def test_responses(lines: list[str], reason: str | None) -> None:
    assert refusal(*lines) == reason


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param(["Cache-Control: no-store", "CDN-Cache-Control: max-age=9"], None, id="2.2"),
        pytest.param(
            ["Cache-Control: private", "Surrogate-Control: max-age=9"], None, id="2.2-private"
        ),
        pytest.param(
            ["Cache-Control: max-age=9", "CDN-Cache-Control: no-store"], "no-store", id="stricter"
        ),
        pytest.param(
            ["CDN-Cache-Control: x", "Expires: Tue, 14 Nov 2023 22:14:20 GMT"],
            "no-freshness", id="2.2-Expires-is-ignored",
        ),
        pytest.param(
            ["Cache-Control: public", "CDN-Cache-Control: max-age=9", COOKIE],
            "set-cookie", id="2.2-public-is-ignored-with-the-rest",
        ),
    ],
)  # fmt: skip
def test_responses_with_targeted_fields(lines: list[str], reason: str | None) -> None:
    assert refusal(*lines) == reason


def test_the_targets_are_the_policys() -> None:
    lines = ("Cache-Control: no-store", "CDN-Cache-Control: max-age=9")
    assert refusal(*lines, policy=replace(POLICY, targets=())) == "no-store"


def test_a_site_may_share_cookies_as_the_rfc_allows() -> None:
    assert refusal(FRESH, COOKIE, policy=STRICT_RFC) is None


@pytest.mark.parametrize("method", [b"HEAD", b"POST", b"PUT", b"QUERY", b"get"])
def test_only_gets(method: bytes) -> None:
    assert refusal(FRESH, method=method) == "method"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (100, "status"),
        (103, "status"),
        *((code, None) for code in (200, 201, 203, 204, 226, 299, 300, 301, 302, 303, 307, 308)),
        *((code, None) for code in (400, 401, 403, 404, 405, 410, 414, 421, 422, 451, 499)),
        *((code, None) for code in (500, 501, 502, 503, 504, 599)),
        *((code, "status") for code in (206, 304, 412, 416, 417)),
        *((code, "status") for code in (428, 429, 431, 511)),  # RFC 6585
    ],
)
def test_status_codes_with_explicit_freshness(status: int, reason: str | None) -> None:
    assert refusal(FRESH, status=status, policy=STRICT_RFC) == reason


@pytest.mark.parametrize("status", range(400, 600))
def test_errors_that_a_request_can_bring_about_are_not_stored_for_others(status: int) -> None:
    unsaid = refusal(FRESH, status=status, policy=STRICT_RFC)
    expected = unsaid or (None if status in (404, 410, 451) else "error-status")
    assert refusal(FRESH, status=status) == expected
    assert refusal(FRESH, status=status, policy=replace(POLICY, errors=frozenset({status}))) == (
        unsaid
    )


HTML = "Content-Type: text/html; charset=utf-8"
GUESSED = FreshnessPolicy(default_ttl=60.0)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        pytest.param([HTML], "content-type", id="by-the-site's-lifetime"),
        pytest.param([HTML, 'ETag: "1"'], "content-type", id="by-guess"),
        pytest.param([HTML, "Cache-Control: max-age=9"], "content-type", id="for-any-cache"),
        pytest.param([HTML, "Cache-Control: public, max-age=9"], None, id="for-all"),
        pytest.param([HTML, "Cache-Control: s-maxage=9"], None, id="for-shared-caches"),
        pytest.param([HTML, "Expires: Thu, 01 Jan 2099 00:00:00 GMT"], "content-type",
                     id="by-Expires"),
        pytest.param([HTML, "Cache-Control: public"], None, id="public"),
        pytest.param([HTML, "CDN-Cache-Control: max-age=9"], None, id="9213"),
        pytest.param([HTML, "Cache-Control: public", "CDN-Cache-Control: proxy-revalidate"],
                     "content-type", id="9213-public-is-ignored-with-the-rest"),
        pytest.param([HTML, "Cache-Control: private"], "private", id="private-stays-private"),
        pytest.param([HTML, "Cache-Control: private, max-age=9"], "private", id="whatever-else"),
        pytest.param(["Content-Type: text/css"], None, id="what-it-promises"),
    ],
)  # fmt: skip
def test_what_looks_like_a_file_and_is_none(lines: list[str], reason: str | None) -> None:
    target = b"/account/x.css"
    assert refusal(*lines, target=target, freshness=GUESSED) == reason
    unarmed = refusal(*lines, target=target, freshness=GUESSED, policy=STRICT_RFC)
    assert unarmed == (None if reason == "content-type" else reason)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        *((code, None) for code in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)),
        *((code, "no-freshness") for code in (201, 302, 303, 307, 400, 403, 500, 503, 599)),
    ],
)
def test_status_codes_without_explicit_freshness(status: int, reason: str | None) -> None:
    assert refusal('ETag: "1"', status=status, policy=STRICT_RFC) == reason
    public = ('ETag: "1"', "Cache-Control: public")
    assert refusal(*public, status=status, policy=STRICT_RFC) is None


def test_a_configured_lifetime_needs_no_validator_but_a_status_that_may_be_guessed() -> None:
    policy = FreshnessPolicy(default_ttl=60.0)
    assert refusal(freshness=policy) is None
    assert refusal(freshness=policy, status=302) == "no-freshness"


@pytest.mark.parametrize(
    ("value", "status", "reason"),
    [
        pytest.param("must-understand, no-store, max-age=9", 200, None, id="understood"),
        pytest.param("must-understand, no-store, max-age=9", 599, "status", id="not-understood"),
        pytest.param("must-understand, max-age=9", 299, "status", id="not-understood-alone"),
        pytest.param("must-understand=1, no-store, max-age=9", 200, "no-store", id="malformed"),
        pytest.param("must-understand, no-store, private", 200, "private", id="private-stays"),
    ],
)
def test_must_understand(value: str, status: int, reason: str | None) -> None:  # RFC 9111 5.2.2.3
    assert refusal(f"Cache-Control: {value}", status=status) == reason


def test_understood_status_codes_are_those_of_rfc_9110() -> None:
    must_understand = "Cache-Control: must-understand, max-age=9"
    allowed = {
        code
        for code in range(200, 600)
        if refusal(must_understand, status=code, policy=STRICT_RFC) is None
    }
    assert allowed == UNDERSTOOD_STATUS
    assert {int(status) for status in HTTPStatus} >= allowed
    # RFC 9110 15, but for 206, 304, 412, 416 and 417, and 451 of RFC 7725.
    assert len(allowed) == 6 + 7 + 15 + 3 + 1 + 6


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("max-age=60", "authorization"),
        ("max-age=60, public", None),
        ("s-maxage=60", None),
        ("max-age=60, must-revalidate", None),
        ("max-age=60, proxy-revalidate", "authorization"),
        ("no-cache", "authorization"),
        ("private, public, max-age=60", "private"),
    ],
)
def test_authorization(value: str, reason: str | None) -> None:  # RFC 9111 3.5
    lines = (f"Cache-Control: {value}", 'ETag: "1"')
    assert refusal(*lines, request=("Authorization: Basic eA==",)) == reason


def test_the_requests_own_no_store_is_for_the_caller() -> None:
    assert refusal(FRESH, request=("Cache-Control: no-store",)) is None


def test_storable_fields_keep_order_repeats_and_unknown_ones() -> None:
    lines = ["X-B: 1", "Set-Cookie: a", "x-b: \xff", "Set-Cookie: b", "Age: 5", FRESH]
    assert lines_of(storable_fields(fields(*lines))) == lines


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        pytest.param(
            ["Connection: close, X-Hop", "X-Hop: 1", "X-End: 2"], ["X-End: 2"], id="3.1-Connection"
        ),
        pytest.param(
            ["Proxy-Authenticate: a", "Proxy-Authentication-Info: b", "Proxy-Authorization: c"],
            [], id="3.1-Proxy",
        ),
        pytest.param(
            ["Transfer-Encoding: chunked", "TE: trailers", "Upgrade: h2c", "Keep-Alive: a",
             "Trailer: x", "Proxy-Connection: b"], [], id="3.1-hop-by-hop",
        ),
        pytest.param(
            ['Cache-Control: private="x-one, X-Two"', "X-One: 1", "X-Two: 2", "X-Three: 3"],
            ['Cache-Control: private="x-one, X-Two"', "X-Three: 3"], id="5.2.2.7",
        ),
        pytest.param(
            ['Cache-Control: no-cache="x-one"', "X-One: 1", "X-One: 2"],
            ['Cache-Control: no-cache="x-one"'], id="5.2.2.4",
        ),
        pytest.param(
            ['Cache-Control: private="x-one"', "CDN-Cache-Control: max-age=9", "X-One: 1"],
            ['Cache-Control: private="x-one"', "CDN-Cache-Control: max-age=9", "X-One: 1"],
            id="9213-2.2-ignored-with-the-rest",
        ),
    ],
)  # fmt: skip
def test_storable_fields(lines: list[str], kept: list[str]) -> None:
    assert lines_of(storable_fields(fields(*lines))) == kept


@checked
@given(st.lists(st.tuples(tokens | st.sampled_from(sorted(HOP_BY_HOP)), field_values), max_size=8))
def test_what_is_stored_is_stored_again_unchanged(raw: list[tuple[bytes, bytes]]) -> None:
    once = storable_fields(Fields(raw))
    assert storable_fields(once) == once
    assert not any(name.lower() in HOP_BY_HOP for name, _ in once)
    remaining = iter(raw)
    assert all(pair in remaining for pair in once), "order or content changed"
