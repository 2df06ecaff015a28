"""Entity tags and conditions: each line is one of If-None-Match, the first an ETag as well."""

from edgeproxy.semantics.conditional import (
    ANY,
    entity_tag,
    not_modified,
    not_modified_fields,
    parse_entity_tag,
    parse_entity_tags,
    strong_last_modified,
    validation_fields,
)
from edgeproxy.semantics.fields import Fields


def check(data: bytes) -> None:
    lines = data.split(b"\n")
    tags = parse_entity_tags(lines)
    if tags is not ANY:
        written = [bytes(tag) for tag in tags]
        assert parse_entity_tags(written) == tags
        assert all(parse_entity_tag(each) == tag for each, tag in zip(written, tags, strict=True))
    tag = parse_entity_tag(lines[0])
    stored = Fields([(b"ETag", lines[0]), (b"Last-Modified", lines[-1]), (b"Date", lines[-1])])
    assert entity_tag(stored) == tag
    asked = Fields([(b"If-None-Match", line) for line in lines])
    if tag is not None:
        assert bytes(tag) == lines[0]
        same = Fields([(b"If-None-Match", bytes(tag))])
        assert not_modified(same, 200, stored, 0.0)
        assert not not_modified(same, 404, stored, 0.0)
        wanted = tags is ANY or any(tag.weakly_equals(each) for each in tags)
        assert not_modified(asked, 200, stored, 0.0) == wanted
    assert b"content-type" not in not_modified_fields(stored.plus((b"Content-Type", b"x")))
    assert strong_last_modified(stored) is None, "sent at that very second"
    for name, value in validation_fields([stored]):
        assert b"\n" not in name + value
