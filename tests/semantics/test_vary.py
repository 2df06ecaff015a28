"""RFC 9111 4.1, RFC 9110 12.5.5: which request a stored response is for."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.vary import matches, selecting, vary_names
from tests.semantics.build import checked, field_values, fields, tokens

NONE = Fields()


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        pytest.param([], (), id="absent"),
        pytest.param(["Vary:"], (), id="empty"),
        pytest.param(["Vary: Accept"], (b"accept",), id="12.5.5"),
        pytest.param(["Vary: B, a", "Vary: b,c"], (b"a", b"b", b"c"), id="several-lines"),
        pytest.param(["Vary: , a,,"], (b"a",), id="9110-5.6.1.2-empty-members"),
        pytest.param(["Vary: *"], None, id="star"),
        pytest.param(["Vary: a, *"], None, id="star-among-others"),
        pytest.param(["Vary: a", "Vary: *"], None, id="star-on-another-line"),
        pytest.param(["Vary: *, *"], None, id="two-stars"),
        pytest.param(["Vary: , *"], None, id="empty-and-star"),
        pytest.param(["Vary: a b"], None, id="no-field-name"),
        pytest.param(['Vary: "a"'], None, id="quoted"),
        pytest.param(["Vary: a; b"], None, id="wrong-separator"),
        pytest.param(["Vary: a, X-Forwarded-For"], None, id="what-tells-clients-apart"),
        pytest.param(["Vary: Forwarded"], None, id="what-tells-clients-apart-by-rfc-7239"),
        pytest.param(["Vary: a, Host, X-Forwarded-Proto"], (b"a",), id="in-the-key-anyway"),
        pytest.param(["Vary: X-Forwarded-Host"], (), id="the-key-s-host"),
        pytest.param(["Vary: If-None-Match"], (), id="no-reader-s-condition"),
        pytest.param(["Content-Encoding: br"], (b"accept-encoding",), id="coded-and-not-said-so"),
        pytest.param(["Content-Encoding: gzip", "Vary: a"], (b"a", b"accept-encoding"), id="coded"),
        pytest.param(["Content-Encoding: identity"], (), id="not-coded"),
        pytest.param(["Vary: Host, *"], None, id="what-is-in-the-key-and-star"),
    ],
)
def test_vary_names(lines: list[str], names: tuple[bytes, ...] | None) -> None:
    assert vary_names(fields(*lines)) == names


@pytest.mark.parametrize(
    ("stored", "request_lines", "same"),
    [
        pytest.param(["X: 1"], ["X: 1"], True, id="same"),
        pytest.param(["X: 1"], ["x: 1"], True, id="names-in-any-case"),
        pytest.param(["X: 1"], ["X: 2"], False, id="another"),
        pytest.param(["X: a"], ["X: A"], False, id="values-in-their-case"),
        pytest.param([], [], True, id="absent-in-both"),
        pytest.param(["X: 1"], [], False, id="absent-in-the-request"),
        pytest.param([], ["X: 1"], False, id="absent-in-the-stored"),
        pytest.param([], ["X:"], False, id="absent-is-not-empty"),
        pytest.param(["X:"], ["X:"], True, id="empty-in-both"),
        pytest.param(["X: 1, 2"], ["X: 1,2"], True, id="4.1-whitespace"),
        pytest.param(["X: 1, 2"], ["X: 1\t , 2"], True, id="4.1-tabs"),
        pytest.param(["X: 1, 2"], ["X: 1", "X: 2"], True, id="4.1-several-lines"),
        pytest.param(["X: 1, 2"], ["X: 2, 1"], False, id="order"),
        pytest.param(["X: 1 2"], ["X: 1  2"], False, id="whitespace-within"),
        pytest.param(['X: "1, 2"'], ['X: "1,2"'], False, id="quoted-comma"),
        pytest.param(["X: 1,,2"], ["X: 1, 2"], False, id="empty-members"),
    ],
)
def test_matches(stored: list[str], request_lines: list[str], same: bool) -> None:
    chosen = selecting((b"x",), fields(*stored))
    assert matches(chosen, fields(*request_lines), NONE) is same
    assert (selecting((b"x",), fields(*request_lines)) == chosen) is same


def test_every_named_field_counts() -> None:
    chosen = selecting((b"a", b"b"), fields("A: 1", "B: 2"))
    assert chosen == ((b"a", b"1"), (b"b", b"2"))
    assert selecting((b"a",), fields("A: 1 ,2", "a: 3")) == ((b"a", b"1, 2, 3"),)
    assert matches(chosen, fields("B: 2", "C: 3", "A: 1"), NONE)
    assert not matches(chosen, fields("A: 1", "B: 3"), NONE)


def test_a_response_that_does_not_vary_is_for_every_request() -> None:
    assert selecting((), fields("A: 1")) == ()
    assert matches((), fields("A: 2"), NONE)


@pytest.mark.parametrize("name", ["User-Agent", "Cookie", "Referer", "If-Modified-Since"])
def test_fields_that_are_no_lists_keep_every_byte(name: str) -> None:
    chosen = selecting((name.lower().encode(),), fields(f"{name}: (a, b)"))
    assert not matches(chosen, fields(f"{name}: (a,b)"), NONE)


@pytest.mark.parametrize(
    ("name", "stored", "requested", "same"),
    [
        pytest.param("Accept-Language", "en, de", "eN, De", True, id="4.1-case"),
        pytest.param("Accept-Language", "en, de", " en ,   de", True, id="4.1-whitespace"),
        pytest.param("Accept-Language", "en, de", "de, en", True, id="4.1-order"),
        pytest.param("Accept-Language", "en, de", "de,, en,", True, id="5.6.1-empty-members"),
        pytest.param("Accept-Language", "en, de", "en, de;q=1.000", True, id="12.4.2-full-weight"),
        pytest.param("Accept-Language", "de;q=0.5", "de ; Q=0.50", True, id="12.4.2-weight"),
        pytest.param("Accept-Language", "en, de", "en, de;q=0.9", False, id="other-weight"),
        pytest.param("Accept-Language", "en, de", "en", False, id="fewer-languages"),
        pytest.param("Accept-Language", "en-GB", "en", False, id="a-wider-range"),
        pytest.param("Accept-Language", "en", "en;q=2", False, id="no-weight"),
        pytest.param("Accept-Language", "de, d_e", "d_e, de", False, id="malformed-keeps-order"),
        pytest.param("Accept-Encoding", "gzip, br", "br,GZIP", True, id="codings"),
        pytest.param("Accept-Encoding", "gzip", "x-gzip", True, id="8.4.1.3-alias"),
        pytest.param("Accept-Encoding", "", "identity", False, id="12.5.3-no-coding-named"),
        pytest.param("Accept-Encoding", "gzip;q=0", "", False, id="12.5.3-refused"),
        pytest.param("Accept-Charset", "utf-8, x", "X, UTF-8", True, id="charsets"),
        pytest.param(
            "Accept", "text/html, a/b;q=0.5", "a/b;q=.5, text/html", False, id="no-qvalue"
        ),
        pytest.param("Accept", "text/html, a/b;q=0.5", "A/B; q=0.5,text/HTML", True, id="types"),
        pytest.param("Accept", "a/b;v=1, c/d", "c/d, a/b;v=1", True, id="type-parameters"),
        pytest.param("Accept", "a/b;v=x", "a/b;v=X", False, id="8.3.1-parameters-in-their-case"),
        pytest.param("Accept", "a/b;q=1, a/b;q=0.5", "a/b;q=0.5, a/b", False, id="two-weights"),
    ],
)
def test_preferences_are_compared_by_what_they_say(
    name: str, stored: str, requested: str, same: bool
) -> None:
    chosen = selecting((name.lower().encode(),), fields(f"{name}: {stored}"))
    assert matches(chosen, fields(f"{name}: {requested}"), NONE) is same


@pytest.mark.parametrize(
    ("language", "requested", "same"),
    [
        pytest.param("de", "fr;q=0.5, de;q=1.0", True, id="4.1-wanted-most"),
        pytest.param("DE", "De, en;q=0.9", True, id="4.1-in-any-case"),
        pytest.param("de", "de, fr", False, id="two-wanted-most"),
        pytest.param("de", "fr, de;q=0.9", False, id="wanted-less"),
        pytest.param("de-AT", "de", False, id="a-region-of-it"),
        pytest.param("de", "de-AT", False, id="without-the-region"),
        pytest.param("de, en", "de, fr;q=0.5", False, id="in-two-languages"),
        pytest.param("de", "de;q=0", False, id="12.4.2-not-acceptable"),
        pytest.param("de", "*", False, id="any"),
        pytest.param("de", "de;q=7, fr", False, id="malformed"),
    ],
)
def test_a_response_is_for_who_wants_its_language_most(
    language: str, requested: str, same: bool
) -> None:
    chosen = selecting((b"accept-language", b"x"), fields("Accept-Language: en, de", "X: 1"))
    request = fields(f"Accept-Language: {requested}", "X: 1")
    stored = fields(f"Content-Language: {language}")
    assert matches(chosen, request, stored) is same
    assert not matches(chosen, fields(f"Accept-Language: {requested}", "X: 2"), stored)
    assert not matches(chosen, request, NONE)
    assert not matches(chosen, fields("X: 1"), stored)


def test_what_is_absurdly_long_is_compared_as_it_is_written() -> None:
    """Each variant of a page may be held against it."""
    languages = [f"x-{number}" for number in range(200)]
    chosen = selecting((b"accept-language",), fields(f"Accept-Language: {', '.join(languages)}"))
    assert matches(chosen, fields(f"Accept-Language: {','.join(languages)}"), NONE)
    assert not matches(chosen, fields(f"Accept-Language: {','.join(languages[::-1])}"), NONE)
    assert not matches(
        chosen,
        fields(f"Accept-Language: de;q=1, {', '.join(each + ';q=0.1' for each in languages)}"),
        fields("Content-Language: de"),
    )


members = st.lists(
    st.tuples(st.sampled_from(["de", "EN", "fr-CA", "*"]), st.sampled_from(["", ";q=0.3", ";q=0"])),
    min_size=1,
    unique_by=lambda each: each[0].lower(),
)


@checked
@given(members, st.randoms())
def test_the_order_of_preferences_never_matters(
    wanted: list[tuple[str, str]], random: Random
) -> None:
    shuffled = list(wanted)
    random.shuffle(shuffled)
    written, rewritten = (", ".join(map("".join, each)) for each in (wanted, shuffled))
    names = (b"accept-language",)
    assert selecting(names, fields(f"Accept-Language: {written}")) == selecting(
        names, fields(f"Accept-Language: {rewritten}")
    )


requests = st.lists(
    st.tuples(st.sampled_from([b"A", b"b"]), st.sampled_from([b"", b"1", b"1, 2", b"1,2", b"2"])),
    max_size=3,
).map(Fields)


@checked
@given(requests, requests)
def test_matching_is_equality_of_what_selects(one: Fields, other: Fields) -> None:
    names = (b"a", b"b")
    assert matches(selecting(names, one), one, NONE)
    assert matches(selecting(names, one), other, NONE) is (
        selecting(names, one) == selecting(names, other)
    )


@checked
@given(st.lists(tokens | st.just(b"*"), max_size=4), st.lists(field_values, max_size=3))
def test_names_are_sorted_and_each_once_or_unknown(
    members: list[bytes], values: list[bytes]
) -> None:
    names = vary_names(Fields([(b"Vary", b", ".join(members))]))
    if b"*" in members:
        assert names is None
    else:
        assert names == tuple(sorted({member.lower() for member in members}))
        request = Fields([(b"x", value) for value in values])
        assert all(value is None or name == b"x" for name, value in selecting(names, request))
