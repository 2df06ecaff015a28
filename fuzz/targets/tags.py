"""Fields of tags: "Name: value" lines of a response."""

from edgeproxy.semantics.errors import TagLimitExceeded
from edgeproxy.semantics.tags import (
    TAG_FIELDS,
    TagPolicy,
    group_tags,
    hidden_fields,
    invalidated_groups,
    is_group,
    response_tags,
)
from fuzz.parts import fields_of

POLICY = TagPolicy(max_tags=8, max_tag_bytes=32, max_total_bytes=128)


def check(data: bytes) -> None:
    fields = fields_of(data.split(b"\n"))
    try:
        tags = response_tags(fields, POLICY)
    except TagLimitExceeded as error:
        assert error.actual > error.allowed
        return
    assert tags == tuple(sorted(set(tags)))
    assert len(tags) <= 8
    assert sum(len(tag.encode()) for tag in tags) <= 128
    assert all(0 < len(tag.encode()) <= 32 for tag in tags)
    assert not any(is_group(tag) for tag in tags), "a field can't name a group's tag"
    for each in TAG_FIELDS:
        if each.grammar == "spaces" and each.name in fields:
            words = b" ".join(fields.get_all(each.name)).split()
            assert set(_texts(words)) <= set(tags)
    assert hidden_fields(POLICY).isdisjoint({b"cache-groups"})
    groups = group_tags(fields, POLICY, "http", "a.example")
    gone = invalidated_groups(fields, "http", "a.example")
    assert all(is_group(group) for group in (*groups, *gone))


def _texts(words: list[bytes]) -> list[str]:
    return [word.decode() for word in words if word.isascii() and word.decode().isprintable()]
