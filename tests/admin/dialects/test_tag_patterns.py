"""Patterns over tags, as Varnish's users send them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.admin.dialects.tag_patterns import pieces, whole_tags
from edgeproxy.invalidation.patterns import MAX_PATTERN, check_pattern

TAGS = st.lists(
    st.text(st.sampled_from("ab1 :;/_-.*+?|()[]{}^$\\é#&~"), min_size=1, max_size=6).filter(
        lambda tag: "," not in tag
    ),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize(
    ("pattern", "tags"),
    [
        pytest.param("(^|,)(a|b)(,|$)", ["a", "b"], id="FOSHttpCache"),
        pytest.param("(^|,)(a)(,|$)", ["a"], id="FOSHttpCache: one"),
        pytest.param("((^|,)cat_p_1(,|$))", ["cat_p_1"], id="Magento: one"),
        pytest.param("((^|,)cat_p_1(,|$))|((^|,)cat_p(,|$))", ["cat_p_1", "cat_p"], id="Magento"),
        pytest.param("(^|,)a(,|$)|(^|,)b(,|$)", ["a", "b"], id="without more parentheses"),
        pytest.param(r"(^|,)(a\.b|c\-d)(,|$)", ["a.b", "c-d"], id="escapes"),
        pytest.param("(^|,)(a|a)(,|$)", ["a"], id="twice"),
        pytest.param("(^|,)(a.b)(,|$)", None, id="a dot is any character"),
        pytest.param("(^|,)(a,b)(,|$)", None, id="two tags in a row"),
        pytest.param(r"(^|,)(\d)(,|$)", None, id="a class"),
        pytest.param("(^|,)(a|)(,|$)", None, id="an empty one"),
        pytest.param("(^|,)(a|b)", None, id="with an open end"),
        pytest.param("(^|,)(a)(,|$)|", None, id="and anything"),
        pytest.param("(^|,)(a)(,|$)x", None, id="and more"),
        pytest.param("((^|,)a(,|$)", None, id="a parenthesis too few"),
        pytest.param("a|b", None, id="Drupal: parts of tags"),
        pytest.param(".*", None, id="anything"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_lists_of_tags(pattern: str, tags: list[str] | None) -> None:
    assert whole_tags(pattern) == tags


@given(TAGS, st.booleans())
def test_a_list_of_tags_is_told_from_other_patterns(tags: list[str], magento: bool) -> None:
    escaped = [re.sub(r"([^A-Za-z0-9é_])", r"\\\1", tag) for tag in tags]
    pattern = f"(^|,)({'|'.join(escaped)})(,|$)"
    if magento:
        pattern = "|".join(f"((^|,){tag}(,|$))" for tag in escaped)
    assert whole_tags(pattern) == list(dict.fromkeys(tags))


@pytest.mark.parametrize("form", ["{}", "({})(,.+)?$"], ids=["Drupal", "the first FOSHttpCache"])
def test_long_lists_come_in_pieces(form: str) -> None:
    names = [f"node:{number}" for number in range(1000)]
    made = pieces(form.format("|".join(names)))
    assert len(made) > 1
    assert max(map(len, made)) <= MAX_PATTERN
    for each in made:
        check_pattern(each)
    for name in names:
        assert any(re.search(each, f"a,{name}") for each in made)
    assert not any(re.search(each, "a,node:") for each in made)


@pytest.mark.parametrize("pattern", ["a|b", "^(a|b)$", f"^({'|'.join('a' * 2000)})$"])
def test_other_patterns_stay_as_they_are(pattern: str) -> None:
    assert pieces(pattern) == [pattern]
