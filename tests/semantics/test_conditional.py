"""RFC 9110 8.8, 13, 15.4.5, RFC 9111 3.2, 4.3: validators, 304, and what one freshens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.conditional import (
    ANY,
    CONDITIONAL,
    EntityTag,
    entity_tag,
    freshen,
    head_agrees,
    last_modified,
    not_modified,
    not_modified_fields,
    parse_entity_tag,
    parse_entity_tags,
    strong_last_modified,
    validates,
    validation_fields,
)
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.storing import storable_fields
from tests.semantics.build import DATE, NOW, checked, field_values, fields, lines_of, tokens

MONDAY = "Mon, 13 Nov 2023 22:13:20 GMT"
SUNDAY = "Sun, 12 Nov 2023 22:13:20 GMT"
MODIFIED = f"Last-Modified: {MONDAY}"


def strong(opaque: bytes) -> EntityTag:
    return EntityTag(opaque, weak=False)


def weak(opaque: bytes) -> EntityTag:
    return EntityTag(opaque, weak=True)


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        pytest.param(b'"xyzzy"', strong(b"xyzzy"), id="8.8.3"),
        pytest.param(b'W/"xyzzy"', weak(b"xyzzy"), id="8.8.3-weak"),
        pytest.param(b'""', strong(b""), id="8.8.3-empty"),
        pytest.param(rb'"a\b,c"', strong(rb"a\b,c"), id="8.8.3-backslash-and-comma"),
        pytest.param(b'"\xe9"', strong(b"\xe9"), id="8.8.3-obs-text"),
        pytest.param(b'w/"a"', None, id="8.8.3-case-of-W"),
        pytest.param(b"a", None, id="unquoted"),
        pytest.param(b'"a', None, id="open"),
        pytest.param(b'"a b"', None, id="space"),
        pytest.param(b'"a"b"', None, id="quote-within"),
        pytest.param(b'"a", "b"', None, id="two"),
        pytest.param(b"", None, id="empty"),
    ],
)
def test_entity_tags(value: bytes, tag: EntityTag | None) -> None:
    assert parse_entity_tag(value) == tag
    assert entity_tag(Fields([(b"ETag", value)])) == tag
    if tag is not None:
        assert bytes(tag) == value


def test_the_conditions_are_those_of_rfc_9110_13_1() -> None:
    names = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range")
    assert {name.lower().encode() for name in names} == CONDITIONAL


@pytest.mark.parametrize(
    ("one", "other", "strongly", "weakly"),
    [  # the table of RFC 9110 8.8.3.2
        (weak(b"1"), weak(b"1"), False, True),
        (weak(b"1"), weak(b"2"), False, False),
        (weak(b"1"), strong(b"1"), False, True),
        (strong(b"1"), strong(b"1"), True, True),
    ],
)
def test_comparison(one: EntityTag, other: EntityTag, strongly: bool, weakly: bool) -> None:
    assert one.strongly_equals(other) is other.strongly_equals(one) is strongly
    assert one.weakly_equals(other) is other.weakly_equals(one) is weakly


@pytest.mark.parametrize(
    ("lines", "tags"),
    [
        pytest.param([b'"a", W/"b"'], (strong(b"a"), weak(b"b")), id="13.1.2"),
        pytest.param([b'"a"', b'"b"'], (strong(b"a"), strong(b"b")), id="several-lines"),
        pytest.param([b'"a,b" ,"c"'], (strong(b"a,b"), strong(b"c")), id="comma-in-a-tag"),
        pytest.param([b', ,"a",'], (strong(b"a"),), id="5.6.1.2-empty-members"),
        pytest.param([b'x, "a", "b'], (strong(b"a"),), id="broken-members-are-left-out"),
        pytest.param([b'"a"b, "c"'], (strong(b"c"),), id="rubbish-behind-a-tag"),
        pytest.param([b" * "], ANY, id="star"),
        pytest.param([b'*, "a"'], (strong(b"a"),), id="star-in-a-list"),
        pytest.param([b"*", b"*"], (), id="two-stars"),
        pytest.param([b""], (), id="empty"),
        pytest.param([], (), id="absent"),
    ],
)
def test_lists_of_entity_tags(lines: list[bytes], tags: object) -> None:
    assert parse_entity_tags(lines) == tags


etags = st.builds(
    EntityTag,
    st.text("!#abc,\\W/*\xe9", max_size=5).map(lambda text: text.encode("latin-1")),
    st.booleans(),
)


@checked
@given(st.lists(etags, max_size=6), st.sampled_from([b",", b", ", b" ,,\t"]))
def test_written_tags_are_read_again(tags: list[EntityTag], separator: bytes) -> None:
    assert parse_entity_tags([separator.join(map(bytes, tags))]) == tuple(tags)


@checked
@given(st.lists(etags.map(bytes) | tokens, max_size=6))
def test_a_broken_member_takes_none_of_its_neighbours_along(members: list[bytes]) -> None:
    found = parse_entity_tags([b", ".join(members)])
    if members != [b"*"]:
        assert found == tuple(tag for each in members if (tag := parse_entity_tag(each)))


@checked
@given(st.lists(field_values, max_size=3))
def test_any_bytes_are_read(lines: list[bytes]) -> None:
    parse_entity_tags(lines)


@pytest.mark.parametrize(
    ("request_line", "stored", "expected"),
    [
        pytest.param('If-None-Match: "1"', ['ETag: "1"'], True, id="13.1.2"),
        pytest.param('If-None-Match: "2"', ['ETag: "1"'], False, id="13.1.2-another"),
        pytest.param('If-None-Match: "2", "1"', ['ETag: "1"'], True, id="13.1.2-list"),
        pytest.param('If-None-Match: W/"1"', ['ETag: "1"'], True, id="13.1.2-weak-comparison"),
        pytest.param('If-None-Match: "1"', ['ETag: W/"1"'], True, id="8.8.3.2-weakly-stored"),
        pytest.param('If-None-Match: "1"', [], False, id="13.1.2-no-stored-tag"),
        pytest.param('If-None-Match: "1"', ["ETag: 1"], False, id="stored-tag-is-invalid"),
        pytest.param("If-None-Match: *", [], True, id="13.1.2-star"),
        pytest.param(f"If-Modified-Since: {MONDAY}", [MODIFIED], True, id="13.1.3-same"),
        pytest.param(f"If-Modified-Since: {SUNDAY}", [MODIFIED], False, id="13.1.3-modified"),
        pytest.param(
            f"If-Modified-Since: {MONDAY}", [f"Last-Modified: {SUNDAY}"], True, id="13.1.3-later"
        ),
        pytest.param("If-Modified-Since: yesterday", [MODIFIED], False, id="13.1.3-invalid"),
        pytest.param(f"If-Modified-Since: {MONDAY}", [DATE], False, id="9111-4.3.2-Date"),
        pytest.param(
            "If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT", [DATE], True, id="9111-4.3.2-same"
        ),
        pytest.param(
            "If-Modified-Since: Tue, 14 Nov 2023 22:13:20 GMT", [], True, id="9111-4.3.2-received"
        ),
        pytest.param(f"If-Modified-Since: {MONDAY}", [], False, id="9111-4.3.2-received-later"),
        pytest.param('If-Match: "1"', ['ETag: "2"'], False, id="9111-4.3.2-If-Match"),
        pytest.param(f"If-Unmodified-Since: {SUNDAY}", [MODIFIED], False, id="for-origins"),
        pytest.param("Accept: */*", ['ETag: "1"'], False, id="unconditional"),
    ],
)
def test_not_modified(request_line: str, stored: list[str], expected: bool) -> None:
    assert not_modified(fields(request_line), 200, fields(*stored), NOW) is expected


def test_if_none_match_takes_precedence() -> None:  # RFC 9110 13.2.2
    stored = fields('ETag: "1"', MODIFIED)
    newer_date = fields('If-None-Match: "0"', f"If-Modified-Since: {MONDAY}")
    older_date = fields('If-None-Match: "1"', f"If-Modified-Since: {SUNDAY}")
    assert not not_modified(newer_date, 200, stored, NOW)
    assert not_modified(older_date, 200, stored, NOW)


def test_two_dates_are_no_condition() -> None:  # RFC 9110 13.1.3
    twice = fields(f"If-Modified-Since: {MONDAY}", f"If-Modified-Since: {MONDAY}")
    assert not not_modified(twice, 200, fields(MODIFIED), NOW)


@pytest.mark.parametrize(
    ("status", "expected"), [(200, True), (206, True), (404, False), (301, False)]
)
def test_conditions_are_held_against_successes_alone(status: int, expected: bool) -> None:
    condition, stored = fields('If-None-Match: "1"'), fields('ETag: "1"')
    assert not_modified(condition, status, stored, NOW) is expected  # RFC 9110 13.2.1


def test_the_fields_of_a_304() -> None:  # RFC 9110 15.4.5
    kept = [DATE, 'ETag: "1"', "Cache-Control: max-age=5", "Content-Location: /b", "Expires: x",
            "Vary: a", "Age: 4", "Set-Cookie: a"]  # fmt: skip
    metadata = ["Content-Type: text/html", "Content-Length: 5", "Content-Encoding: gzip",
                "Content-Language: de", "Content-Range: bytes 0-1/2", "Content-Digest: a=:YQ==:",
                "Repr-Digest: a=:YQ==:", "Digest: a", "Content-MD5: YQ==", MODIFIED]  # fmt: skip
    assert lines_of(not_modified_fields(fields(*kept, *metadata))) == kept


def test_a_304_without_entity_tag_names_the_date() -> None:
    assert lines_of(not_modified_fields(fields(MODIFIED, "ETag: bad"))) == [MODIFIED, "ETag: bad"]


@pytest.mark.parametrize(
    ("stored", "conditions"),
    [
        pytest.param(
            [['ETag: "1"', MODIFIED]],
            ['If-None-Match: "1"', f"If-Modified-Since: {MONDAY}"], id="4.3.1-both",
        ),
        pytest.param([['ETag: W/"1"']], ['If-None-Match: W/"1"'], id="4.3.1-weak"),
        pytest.param([[MODIFIED]], [f"If-Modified-Since: {MONDAY}"], id="4.3.1-date"),
        pytest.param(
            [["Last-Modified: Sunday, 12-Nov-23 22:13:20 GMT"]],
            ["If-Modified-Since: Sunday, 12-Nov-23 22:13:20 GMT"], id="as-the-origin-wrote-it",
        ),
        pytest.param(
            [['ETag: "1"', MODIFIED], ['ETag: "2"'], [MODIFIED], ['ETag: "1"']],
            ['If-None-Match: "1", "2"'], id="4.3.1-several",
        ),
        pytest.param([["ETag: bad", "Last-Modified: bad"]], [], id="invalid"),
        pytest.param([[]], [], id="none"),
        pytest.param([], [], id="nothing-stored"),
    ],
)  # fmt: skip
def test_validation_fields(stored: list[list[str]], conditions: list[str]) -> None:
    found = validation_fields([fields(*lines) for lines in stored])
    assert lines_of(Fields(found)) == conditions


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([MODIFIED, DATE], True, id="8.8.2.2"),
        pytest.param([MODIFIED, f"Date: {MONDAY}"], False, id="within-the-same-second"),
        pytest.param([MODIFIED, f"Date: {SUNDAY}"], False, id="modified-after-it-was-sent"),
        pytest.param([MODIFIED], False, id="no-Date"),
        pytest.param([DATE], False, id="no-Last-Modified"),
        pytest.param(["Last-Modified: x", DATE], False, id="invalid"),
    ],
)
def test_strong_dates(lines: list[str], expected: bool) -> None:
    found = strong_last_modified(fields(*lines))
    assert found == (last_modified(fields(MODIFIED)) if expected else None)


ONE, TWO = 'ETag: "1"', 'ETag: "2"'


@pytest.mark.parametrize(
    ("update", "candidates", "selected"),
    [
        pytest.param([ONE], [[ONE], [TWO]], (0,), id="4.3.4-strong-tag"),
        pytest.param([ONE], [[ONE], [TWO], [ONE]], (0, 2), id="4.3.4-all-with-it"),
        pytest.param([ONE], [[TWO]], (), id="4.3.4-none-with-it"),
        pytest.param([ONE], [['ETag: W/"1"']], (), id="4.3.4-strong-against-weak"),
        pytest.param([ONE], [[]], (), id="4.3.4-no-validator-stored"),
        pytest.param([MODIFIED, DATE], [[MODIFIED], []], (0,), id="4.3.4-strong-date"),
        pytest.param(
            [ONE, MODIFIED, DATE], [[TWO, MODIFIED]], (), id="dates-don't-join-other-tags"
        ),
        pytest.param(
            ['ETag: W/"1"'],
            [['ETag: W/"1"', f"Date: {SUNDAY}"], ['ETag: W/"1"', DATE]],
            (1,),
            id="4.3.4-weak-newest",
        ),
        pytest.param([MODIFIED], [[MODIFIED, DATE], [ONE]], (0,), id="4.3.4-weak-date"),
        pytest.param(['ETag: W/"1"'], [['ETag: W/"2"']], (), id="4.3.4-weak-none"),
        pytest.param([], [[]], (0,), id="4.3.4-no-validators-one-response"),
        pytest.param([], [[ONE]], (), id="4.3.4-no-validator-but-one-stored"),
        pytest.param([], [[], []], (), id="4.3.4-no-validators-two-responses"),
        pytest.param([ONE], [], (), id="nothing-stored"),
    ],
)
def test_validates(
    update: list[str], candidates: list[list[str]], selected: tuple[int, ...]
) -> None:
    assert validates(fields(*update), [fields(*lines) for lines in candidates]) == selected


@pytest.mark.parametrize(
    ("stored", "update", "result"),
    [
        pytest.param(["A: 1", "B: 2"], ["A: 3"], ["B: 2", "A: 3"], id="3.2-replaces"),
        pytest.param(["A: 1", "a: 2"], ["A: 3", "a: 4"], ["A: 3", "a: 4"], id="3.2-all-lines"),
        pytest.param(["A: 1"], ["B: 2"], ["A: 1", "B: 2"], id="3.2-adds"),
        pytest.param(
            ["Content-Length: 5", "Content-Encoding: gzip", "Content-Range: bytes 0-4/9"],
            ["Content-Length: 0", "Content-Encoding: br", "Content-Range: bytes 1-2/9"],
            ["Content-Length: 5", "Content-Encoding: gzip", "Content-Range: bytes 0-4/9"],
            id="3.2-never-these",
        ),
        pytest.param(
            ["Content-Type: a/b"], ["Content-Type: c/d"], ["Content-Type: c/d"], id="3.2-others"
        ),
        pytest.param([], ["Connection: x", "X: 1", "Keep-Alive: 1"], [], id="3.1-not-stored"),
        pytest.param(["Age: 50", "Date: x"], [], [], id="times-of-the-older-message"),
        pytest.param(["Age: 50", "Date: x"], [DATE], [DATE], id="times-of-the-newer-message"),
        pytest.param(
            ["Set-Cookie: a"], ['Cache-Control: private="set-cookie"', "Set-Cookie: b"],
            ['Cache-Control: private="set-cookie"'], id="5.2.2.7-said-later",
        ),
        pytest.param(['ETag: W/"1"'], ['ETag: "1"'], ['ETag: W/"1"'], id="no-stronger-than-it-was"),
        pytest.param(['ETag: "1"'], ['ETag: W/"1"'], ['ETag: W/"1"'], id="weaker"),
        pytest.param(['ETag: W/"1"'], ['ETag: "2"'], ['ETag: "2"'], id="another-tag"),
    ],
)  # fmt: skip
def test_freshen(stored: list[str], update: list[str], result: list[str]) -> None:
    assert lines_of(freshen(fields(*stored), fields(*update))) == result


some_fields = st.lists(
    st.tuples(
        st.sampled_from([b"A", b"b", b"ETag", b"Content-Length", b"Age", b"Date", b"Connection"]),
        st.sampled_from([b"1", b'"1"', b'W/"1"', b"a"]),
    ),
    max_size=6,
).map(Fields)


@checked
@given(some_fields.map(storable_fields), some_fields)
def test_freshening_twice_is_freshening_once(stored: Fields, update: Fields) -> None:
    once = freshen(stored, update)
    assert freshen(once, update) == once
    assert once.get_all(b"content-length") == stored.get_all(b"content-length")
    assert once.get_all(b"date") == update.get_all(b"date")


@pytest.mark.parametrize(
    ("stored", "head", "expected"),
    [
        pytest.param([ONE], [ONE, "Content-Length: 5"], True, id="9111-4.3.5"),
        pytest.param([ONE], ["Content-Length: 5"], True, id="validator-left-out"),
        pytest.param([ONE], [], True, id="nothing-said"),
        pytest.param([ONE], [TWO], False, id="another-tag"),
        pytest.param([MODIFIED], [f"Last-Modified: {SUNDAY}"], False, id="another-date"),
        pytest.param([], [ONE], False, id="a-tag-that-was-not-there"),
        pytest.param([ONE], [ONE, "Content-Length: 6"], False, id="another-length"),
        pytest.param([ONE], ["Content-Length: 5", "Content-Length: 5"], False, id="two-lengths"),
    ],
)
def test_head_agrees(stored: list[str], head: list[str], expected: bool) -> None:
    assert head_agrees(fields(*stored), 5, fields(*head)) is expected
