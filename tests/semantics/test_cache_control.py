"""RFC 9111 4.2.1, 5.2, RFC 9213, Surrogate-Control: directives in their strictest sense."""

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.cache_control import (
    DEFAULT_TARGETS,
    MAX_DELTA,
    Directives,
    delta_seconds,
    parse_cache_control,
    parse_surrogate_control,
    parse_targeted,
    request_directives,
    response_directives,
)
from tests.semantics.build import checked, field_values, fields


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param(b"0", 0, id="zero"),
        pytest.param(b"0060", 60, id="leading-zeros"),
        pytest.param(b"2147483647", 2**31 - 1, id="largest-below"),
        pytest.param(b"2147483648", MAX_DELTA, id="1.2.2-largest"),
        pytest.param(b"99999999999", MAX_DELTA, id="1.2.2-overflow"),
        pytest.param(b"9" * 5000, MAX_DELTA, id="1.2.2-absurd"),
        pytest.param(b"0" * 5000 + b"7", 7, id="many-zeros"),
        pytest.param(b"-1", None, id="negative"),
        pytest.param(b"+1", None, id="sign"),
        pytest.param(b"1.5", None, id="fraction"),
        pytest.param(b"1e3", None, id="exponent"),
        pytest.param(b" 1", None, id="space"),
        pytest.param(b"", None, id="empty"),
        pytest.param("\u0661".encode(), None, id="other-digits"),
    ],
)
def test_delta_seconds(value: bytes, seconds: int | None) -> None:
    assert delta_seconds(value) == seconds


def some(**directives: Any) -> Directives:
    return Directives(**directives)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], some(), id="absent"),
        pytest.param([b"max-age=60"], some(max_age=60), id="5.2.2.1"),
        pytest.param([b"MAX-Age=60, Public"], some(max_age=60, public=True), id="5.2-any-case"),
        pytest.param([b'max-age="60"'], some(max_age=60), id="5.2-both-argument-forms"),
        pytest.param([b"no-store", b"max-age=1"], some(no_store=True, max_age=1), id="two-lines"),
        pytest.param([b"x=1, y, s-maxage=5"], some(s_maxage=5), id="5.2.3-unknown-are-ignored"),
        pytest.param(
            [b'x="a, max-age=9", max-age=60'], some(max_age=60), id="not-out-of-a-quoted-string"
        ),
        pytest.param(
            [b"must-revalidate,proxy-revalidate,must-understand,no-transform,immutable,private"],
            some(
                must_revalidate=True, proxy_revalidate=True, must_understand=True,
                no_transform=True, immutable=True, private=True,
            ),
            id="5.2.2-flags",
        ),
        pytest.param(
            [b"stale-while-revalidate=7, stale-if-error=8"],
            some(stale_while_revalidate=7, stale_if_error=8),
            id="RFC5861",
        ),
        pytest.param(
            [b"only-if-cached, min-fresh=3, max-stale=4"],
            some(only_if_cached=True, min_fresh=3, max_stale=4),
            id="5.2.1",
        ),
        pytest.param([b"max-stale"], some(max_stale=MAX_DELTA), id="5.2.1.2-without-argument"),
        pytest.param([b"max-stale=x"], some(max_stale=0), id="5.2.1.2-malformed"),
        pytest.param([b"min-fresh=x"], some(min_fresh=MAX_DELTA), id="5.2.1.3-malformed"),
    ],
)  # fmt: skip
def test_cache_control(lines: list[bytes], expected: Directives) -> None:
    assert parse_cache_control(lines) == expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"max-age", 0),
        (b"max-age=", 0),
        (b"max-age=-1", 0),
        (b"max-age=1.5", 0),
        (b"max-age=abc", 0),
        (b"max-age=1 0", 0),
        (b"max-age = 60", 0),
        (b"max-age= 60", 0),
        (b"max-age='60'", 0),
        (b'max-age="60', 0),
        (b"max-age=60;public", 0),
        (b"maxage=60", None),
        (b"max_age=60", None),
        (b"s-max-age=60", None),
        (b"max-age=60, max-age=10", 10),
        (b"max-age=10, max-age=60", 10),
        (b"max-age=60, max-age=x", 0),
    ],
)
def test_what_is_malformed_or_conflicts_counts_as_stale_and_what_is_misspelt_not_at_all(
    value: bytes, seconds: int | None
) -> None:  # RFC 9111 4.2.1
    assert parse_cache_control([value]).max_age == seconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"no-store=x", some(no_store=True)),
        (b"no-store private", some(no_store=True, private=True)),
        (b"no-store; max-age=5", some(no_store=True, max_age=0)),
        (b'no-store="', some(no_store=True)),
        (b"public=yes", some()),
        (b'immutable="x"', some()),
        (b"must-understand=1", some()),
        (b"public private", some(private=True)),
        (b"only-if-cached=1", some()),
    ],
)
def test_what_restricts_counts_though_malformed_and_what_permits_does_not(
    value: bytes, expected: Directives
) -> None:
    assert parse_cache_control([value]) == expected


@pytest.mark.parametrize(
    ("value", "qualified", "names"),
    [
        pytest.param(b'private="Set-Cookie"', True, {b"set-cookie"}, id="5.2.2.7"),
        pytest.param(b"private=Set-Cookie", True, {b"set-cookie"}, id="token-form"),
        pytest.param(b'private="a, B ,,c"', True, {b"a", b"b", b"c"}, id="list"),
        pytest.param(b'private="a", private="b"', True, {b"a", b"b"}, id="both-lists"),
        pytest.param(b"private", False, set(), id="unqualified"),
        pytest.param(b'private="a", private', False, set(), id="unqualified-after"),
        pytest.param(b'private, private="a"', False, set(), id="unqualified-before"),
        pytest.param(b'private=""', False, set(), id="empty"),
        pytest.param(b'private="a b"', False, set(), id="no-field-name"),
        pytest.param(b'private="a', False, set(), id="unterminated"),
        pytest.param(b"private='a'", False, set(), id="single-quoted"),
    ],
)
@pytest.mark.parametrize("directive", ["private", "no-cache"])
def test_field_names(value: bytes, qualified: bool, names: set[bytes], directive: str) -> None:
    found = parse_cache_control([value.replace(b"private", directive.encode())])
    attribute = directive.replace("-", "_")
    assert getattr(found, attribute) is True
    assert getattr(found, f"{attribute}_fields") == (names if qualified else frozenset())


_NUMBERS = ("max_age", "s_maxage", "stale_while_revalidate", "stale_if_error", "max_stale")
_PERMITS = ("public", "must_understand", "immutable", "only_if_cached")

directive_texts = st.builds(
    "{}{}".format,
    st.sampled_from(
        [
            *("max-age", "MAX-AGE", "s-maxage", "max-stale", "stale-while-revalidate"),
            *("stale-if-error", "no-store", "no-cache", "private", "public", "must-revalidate"),
            *("immutable", "x"),
        ]
    ),
    st.sampled_from(["", "=0", "=60", "=999999999999", '="5"', "=-1", "=x", '="a"', '="', " 5"]),
).map(str.encode)


@checked
@given(st.lists(directive_texts, max_size=4), directive_texts)
def test_more_directives_never_lengthen_a_life(members: list[bytes], added: bytes) -> None:
    before, after = parse_cache_control(members), parse_cache_control([*members, added])
    for name in _NUMBERS:
        known = getattr(before, name)
        assert known is None or getattr(after, name) <= known
    for name, value in asdict(before).items():
        if value is True and name not in _PERMITS:
            assert getattr(after, name) is True
    for name in ("private", "no_cache"):
        if getattr(before, name) and not getattr(before, f"{name}_fields"):
            assert not getattr(after, f"{name}_fields")


@checked
@given(st.lists(directive_texts, max_size=5))
def test_one_line_or_several_make_no_difference(members: list[bytes]) -> None:
    closed = [member for member in members if member.count(b'"') != 1]
    assert parse_cache_control([b", ".join(closed)]) == parse_cache_control(closed)


@checked
@given(st.lists(field_values, max_size=3))
def test_nothing_raises(lines: list[bytes]) -> None:
    parse_cache_control(lines)
    parse_targeted(lines)
    parse_surrogate_control(lines)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([b"max-age=60, public"], some(max_age=60, public=True), id="2.1"),
        pytest.param([b"max-age=60", b"no-store"], some(max_age=60, no_store=True), id="two-lines"),
        pytest.param([b"max-age=1, max-age=60"], some(max_age=60), id="RFC9651-last-key-counts"),
        pytest.param([b"max-age=60;x=y"], some(max_age=60), id="parameters-are-ignored"),
        pytest.param([b"no-store=?0, max-age=5"], some(max_age=5), id="false-is-absent"),
        pytest.param([b"no-store=?1"], some(no_store=True), id="true-is-present"),
        pytest.param([b'max-age="60"'], some(max_age=0), id="a-string-is-no-number"),
        pytest.param([b"max-age=-1"], some(max_age=0), id="negative"),
        pytest.param([b"max-age=1.5"], some(max_age=0), id="decimal"),
        pytest.param([b"max-age"], some(max_age=0), id="no-value"),
        pytest.param(
            [b'private="set-cookie"'],
            some(private=True, private_fields=frozenset({b"set-cookie"})),
            id="field-names",
        ),
        pytest.param([b"unknown"], some(), id="2.1-valid-though-it-says-nothing"),
        pytest.param([], None, id="absent"),
        pytest.param([b""], None, id="2.1-empty"),
        pytest.param([b"max-age=60,"], None, id="RFC9651-trailing-comma"),
        pytest.param([b"max-age=60 public"], None, id="RFC9651-no-comma"),
        pytest.param([b"Max-Age=60"], None, id="RFC9651-upper-case-key"),
        pytest.param([b"max-age = 60"], None, id="RFC9651-spaces"),
        pytest.param([b"max-age=60, \xe9"], None, id="RFC9651-not-ascii"),
    ],
)
def test_targeted(lines: list[bytes], expected: Directives | None) -> None:
    assert parse_targeted(lines) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"max-age=60", some(max_age=60), id="2.3"),
        pytest.param(
            b"max-age=60+30",
            some(max_age=60, stale_while_revalidate=30, stale_if_error=30),
            id="freshness-extension",
        ),
        pytest.param(
            b"max-age=60+0",
            some(max_age=60, stale_while_revalidate=0, stale_if_error=0),
            id="no-extension",
        ),
        pytest.param(b"no-store", some(no_store=True), id="no-store"),
        pytest.param(b"no-store-remote", some(no_store=True), id="no-store-remote"),
        pytest.param(b'max-age=60, content="ESI/1.0"', some(max_age=60), id="with-content"),
        pytest.param(b"max-age=5;abc, max-age=60", some(max_age=60), id="2.3-for-another-one"),
        pytest.param(b"max-age=60;edgeproxy", some(max_age=60), id="2.3-for-this-one"),
        pytest.param(b"max-age=60;abc;edgeproxy", some(max_age=60), id="2.3-for-two"),
        pytest.param(
            b"max-age=5, max-age=60+1;edgeproxy, max-age=7;abc",
            some(max_age=60, stale_while_revalidate=1, stale_if_error=1),
            id="2.3-in-place-of-that-for-all",
        ),
        pytest.param(
            b"no-store, max-age=60;edgeproxy", some(no_store=True, max_age=60), id="of-each-its-own"
        ),
        pytest.param(
            b"max-age=9, stale-while-revalidate=4, stale-if-error=5",
            some(max_age=9, stale_while_revalidate=4, stale_if_error=5),
            id="Fastly",
        ),
        pytest.param(b'content="ESI/1.0"', None, id="nothing-of-caching"),
        pytest.param(b"max-age=5;abc", None, id="all-for-another-one"),
        pytest.param(b"", None, id="empty"),
    ],
)
def test_surrogate_control(value: bytes, expected: Directives | None) -> None:
    assert parse_surrogate_control([value]) == expected


@pytest.mark.parametrize(
    ("lines", "source", "max_age"),
    [
        pytest.param(["Cache-Control: max-age=1"], b"cache-control", 1, id="none"),
        pytest.param([], b"cache-control", None, id="nothing-at-all"),
        pytest.param(
            ["Cache-Control: no-store", "CDN-Cache-Control: max-age=2"],
            b"cdn-cache-control", 2, id="2.2-outranks-Cache-Control",
        ),
        pytest.param(
            ["CDN-Cache-Control: max-age=2", "Vercel-CDN-Cache-Control: max-age=3"],
            b"vercel-cdn-cache-control", 3, id="2.2-most-specific-first",
        ),
        pytest.param(
            ["CDN-Cache-Control: max-age=2", "Surrogate-Control: max-age=4"],
            b"surrogate-control", 4, id="Surrogate-Control",
        ),
        pytest.param(
            ["CDN-Cache-Control: max-age=2", "Vercel-CDN-Cache-Control: max-age="],
            b"cdn-cache-control", 2, id="2.2-invalid-is-passed-over",
        ),
        pytest.param(
            ["Cache-Control: max-age=1", "CDN-Cache-Control: &&"],
            b"cache-control", 1, id="2.2-all-invalid",
        ),
        pytest.param(
            ["Cache-Control: max-age=1", 'Surrogate-Control: content="ESI/1.0"'],
            b"cache-control", 1, id="Surrogate-Control-of-something-else",
        ),
    ],
)  # fmt: skip
def test_response_directives(lines: list[str], source: bytes, max_age: int | None) -> None:
    directives, used = response_directives(fields(*lines))
    assert (used, directives.max_age) == (source, max_age)
    assert not directives.no_store


def test_the_targets_are_the_sites_choice() -> None:
    response = fields(
        "Cache-Control: max-age=1", "CDN-Cache-Control: max-age=2", "My-CC: max-age=3"
    )
    assert response_directives(response, (b"my-cc",))[0].max_age == 3
    assert response_directives(response, ())[0].max_age == 1
    assert response_directives(response, DEFAULT_TARGETS)[0].max_age == 2


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(["Cache-Control: max-age=5"], some(max_age=5), id="5.2.1.1"),
        pytest.param(["Pragma: no-cache"], some(no_cache=True), id="5.4"),
        pytest.param(["Pragma: x, No-Cache"], some(no_cache=True), id="5.4-in-a-list"),
        pytest.param(["Pragma: x"], some(), id="5.4-another"),
        pytest.param(
            ["Cache-Control: max-age=5", "Pragma: no-cache"],
            some(max_age=5), id="5.4-Cache-Control-counts",
        ),
        pytest.param([], some(), id="none"),
    ],
)  # fmt: skip
def test_request_directives(lines: list[str], expected: Directives) -> None:
    assert request_directives(fields(*lines)) == expected
