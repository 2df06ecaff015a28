"""Cache-Control, CDN-Cache-Control and Surrogate-Control: each line is one of the field's."""

import dataclasses

from edgeproxy.semantics.cache_control import (
    MAX_DELTA,
    parse_cache_control,
    parse_surrogate_control,
    parse_targeted,
)


def check(data: bytes) -> None:
    lines = data.split(b"\n")
    read = parse_cache_control(lines)
    # What is not remembered is read alike.
    assert parse_cache_control([*lines, b"x" * 300]) == read
    assert parse_cache_control([*lines, *lines]) == read, "saying it twice changes nothing"
    assert parse_cache_control(list(reversed(lines))) == read, "the order changes nothing"
    strict = parse_cache_control([*lines, b"no-store, max-age=0"])
    assert strict == dataclasses.replace(read, no_store=True, max_age=0)
    for directives in (read, parse_targeted(lines), parse_surrogate_control(lines)):
        if directives is None:
            continue
        for name, value in dataclasses.asdict(directives).items():
            if isinstance(value, int):
                assert 0 <= value <= MAX_DELTA, name
