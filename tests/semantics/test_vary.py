"""RFC 9111 4.1, RFC 9110 12.5.5: which request a stored response is for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.vary import matches, selecting, vary_names
from tests.semantics.build import checked, field_values, fields, tokens


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
    assert matches(chosen, fields(*request_lines)) is same
    assert (selecting((b"x",), fields(*request_lines)) == chosen) is same


def test_every_named_field_counts() -> None:
    chosen = selecting((b"a", b"b"), fields("A: 1", "B: 2"))
    assert chosen == ((b"a", b"1"), (b"b", b"2"))
    assert selecting((b"a",), fields("A: 1 ,2", "a: 3")) == ((b"a", b"1, 2, 3"),)
    assert matches(chosen, fields("B: 2", "C: 3", "A: 1"))
    assert not matches(chosen, fields("A: 1", "B: 3"))


def test_a_response_that_does_not_vary_is_for_every_request() -> None:
    assert selecting((), fields("A: 1")) == ()
    assert matches((), fields("A: 2"))


@pytest.mark.parametrize("name", ["User-Agent", "Cookie", "Referer", "If-Modified-Since"])
def test_fields_that_are_no_lists_keep_every_byte(name: str) -> None:
    chosen = selecting((name.lower().encode(),), fields(f"{name}: (a, b)"))
    assert not matches(chosen, fields(f"{name}: (a,b)"))


requests = st.lists(
    st.tuples(st.sampled_from([b"A", b"b"]), st.sampled_from([b"", b"1", b"1, 2", b"1,2", b"2"])),
    max_size=3,
).map(Fields)


@checked
@given(requests, requests)
def test_matching_is_equality_of_what_selects(one: Fields, other: Fields) -> None:
    names = (b"a", b"b")
    assert matches(selecting(names, one), one)
    assert matches(selecting(names, one), other) is (
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
