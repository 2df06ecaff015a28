"""Tag fields as the vendors define them, whole or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.errors import TagLimitExceeded
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.tags import (
    DEFAULT_TAG_FIELDS,
    TAG_FIELDS,
    TagPolicy,
    hidden_fields,
    response_tags,
)
from tests.semantics.build import checked, field_values, fields, lines_of

POLICY = TagPolicy()


@pytest.mark.parametrize(
    ("line", "tags"),
    [
        ("Cache-Tag: a,b , c d", ("a", "b", "c d")),
        ("Surrogate-Key: a b\t c,d", ("a", "b", "c,d")),
        ("Vercel-Cache-Tag: a,b", ("a", "b")),
        ("Edge-Cache-Tag: a, b", ("a", "b")),
        ("xkey: a b", ("a", "b")),
        ("X-Cache-Tags: a,b", ("a", "b")),
        ("X-Magento-Tags: cat_p,cat_c_2", ("cat_c_2", "cat_p")),
        ('Cache-Groups: "a", "b c";x=1', ("a", "b c")),
        ('Cache-Groups: "", "a"', ("a",)),
        ("Cache-Tag:", ()),
        ("Cache-Tag: ,, a ,,", ("a",)),
        ("Surrogate-Key:   ", ()),
        ("Cache-Tag: b,a,b", ("a", "b")),
        ("Cache-Tag: A,a", ("A", "a")),
        ("Cache-Tag: \u00c3\u00a9", ("é",)),
        ("Cache-Tag: \u00e9", ("é",)),
        ("X-Other: a", ()),
    ],
)
def test_grammars(line: str, tags: tuple[str, ...]) -> None:
    assert response_tags(fields(line), POLICY) == tags


@pytest.mark.parametrize(
    "value", ["a, b", '"a", b', '"a" "b"', '("a")', '"a",', "1", '"a', ":YQ==:", '%"a"']
)
def test_cache_groups_that_are_no_list_of_strings_are_ignored(value: str) -> None:  # RFC 9875 2
    assert response_tags(fields(f"Cache-Groups: {value}"), POLICY) == ()


def test_all_lines_of_all_fields_count_together() -> None:
    response = fields("Cache-Tag: b", "xkey: a c", "cache-tag: d,a", 'Cache-Groups: "e"')
    assert response_tags(response, POLICY) == ("a", "b", "c", "d", "e")


def test_only_the_sites_fields_are_read() -> None:
    policy = TagPolicy(fields=(b"xkey",))
    assert response_tags(fields("Cache-Tag: a", "xkey: b"), policy) == ("b",)


def test_a_field_without_a_known_grammar_is_refused() -> None:
    with pytest.raises(ValueError, match="x-unknown"):
        TagPolicy(fields=(b"x-unknown",))


@pytest.mark.parametrize(
    ("policy", "limit", "allowed", "actual"),
    [
        (TagPolicy(max_tags=2), "max_tags", 2, 3),
        (TagPolicy(max_tag_bytes=3), "max_tag_bytes", 3, 4),
        (TagPolicy(max_total_bytes=8), "max_total_bytes", 8, 9),
    ],
)
def test_limits(policy: TagPolicy, limit: str, allowed: int, actual: int) -> None:
    with pytest.raises(TagLimitExceeded) as caught:
        response_tags(fields("Cache-Tag: aa,aa", "xkey: bbb ccc4"), policy)
    error = caught.value
    assert (error.field, error.limit) == ("xkey", limit)
    assert (error.allowed, error.actual) == (allowed, actual)
    assert str(error) == f"xkey breaks the limit {limit} = {allowed}: {actual}"


def test_what_keeps_to_the_limits_to_the_byte_is_read_whole() -> None:
    policy = TagPolicy(max_tags=2, max_tag_bytes=3, max_total_bytes=5)
    # Repeats count once; bytes are those of UTF-8.
    assert response_tags(fields("Cache-Tag: aa,aa,bbb,bbb"), policy) == ("aa", "bbb")
    with pytest.raises(TagLimitExceeded):
        response_tags(fields("Cache-Tag: \u00c3\u00a9\u00c3\u00a9"), policy)


def test_readers_get_no_tags_and_no_orders_for_this_cache() -> None:
    response = fields(
        "Cache-Tag: a", "xkey: b", "Content-Type: text/html", "Surrogate-Control: max-age=9",
        "Vercel-CDN-Cache-Control: max-age=9", "CDN-Cache-Control: max-age=9", "Cache-Control: x",
    )  # fmt: skip
    assert lines_of(response.without(hidden_fields(POLICY))) == [
        "Content-Type: text/html", "CDN-Cache-Control: max-age=9", "Cache-Control: x",
    ]  # fmt: skip


def test_fields_that_the_site_does_not_read_go_on() -> None:
    response = fields("Cache-Tag: a", "xkey: b")
    assert lines_of(response.without(hidden_fields(TagPolicy(fields=(b"xkey",))))) == [
        "Cache-Tag: a"
    ]


def test_the_default_is_every_known_field() -> None:
    assert DEFAULT_TAG_FIELDS == TagPolicy().fields == tuple(each.name for each in TAG_FIELDS)
    assert len(set(DEFAULT_TAG_FIELDS)) == len(DEFAULT_TAG_FIELDS)


tag_lists = st.lists(
    st.text(
        st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=1
    )
)


@checked
@given(tag_lists, st.sampled_from([(b"Cache-Tag", b","), (b"Surrogate-Key", b" ")]))
def test_tags_come_back_whole(tags: list[str], form: tuple[bytes, bytes]) -> None:
    name, separator = form
    line = separator.join(tag.encode() for tag in tags)
    assert response_tags(Fields([(name, line)]), POLICY) == tuple(sorted(set(tags)))


@checked
@given(st.sampled_from(DEFAULT_TAG_FIELDS), field_values, st.integers(1, 3), st.integers(1, 20))
def test_a_limit_is_kept_or_said_to_be_broken(
    name: bytes, value: bytes, most: int, longest: int
) -> None:
    response = Fields([(name, value)])
    everything = response_tags(response, POLICY)
    kept = len(everything) <= most and all(len(tag.encode()) <= longest for tag in everything)
    try:
        tags = response_tags(response, TagPolicy(max_tags=most, max_tag_bytes=longest))
    except TagLimitExceeded:
        assert not kept
    else:
        assert kept
        assert tags == everything
