"""Range: a length in the first line, the field in the second."""

import re

from edgeproxy.semantics.ranges import (
    FEW,
    MAX_RANGES,
    OVERHEAD,
    ByteRange,
    Unsatisfiable,
    parse_ranges,
)

_SPEC = re.compile(rb"([0-9]{0,18})-([0-9]{0,18})")


def check(data: bytes) -> None:
    first, _, value = data.partition(b"\n")
    length = int(first) if first.isdigit() and len(first) < 4 else len(first)
    read = parse_ranges(value, length)
    wanted = simply_read(value, length)
    match read:
        case None:
            assert wanted is None, wanted
        case Unsatisfiable():
            assert wanted == set()
        case _:
            assert wanted is not None
            sent = covered(read)
            assert wanted <= sent <= set(range(min(wanted), max(wanted) + 1))
            if sum(at - 1 not in wanted for at in wanted) <= FEW:
                assert sent == wanted
            # What was not asked for is less than it would take to tell two parts apart.
            assert len(sent - wanted) < OVERHEAD * MAX_RANGES
            assert len(read) <= MAX_RANGES
            # No byte twice, and none that follow one another.
            assert sum(each.size for each in read) == len(covered(read))
            assert not {each.first for each in read} & {each.last + 1 for each in read}


def covered(ranges: tuple[ByteRange, ...]) -> set[int]:
    """Their bytes' positions."""
    return {at for each in ranges for at in range(each.first, each.last + 1)}


def simply_read(value: bytes, length: int) -> set[int] | None:
    """The positions of the bytes asked for, one by one; None for what is to be ignored."""
    if value[:6].lower() != b"bytes=":
        return None
    specs = [spec.strip(b" \t") for spec in value[6:].split(b",")]
    specs = [spec for spec in specs if spec]
    found: set[int] = set()
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None or spec == b"-":
            return None
        start, end = match.groups()
        if not start:
            if int(end) and not length:
                return None
            found |= set(range(max(0, length - int(end)), length))
            continue
        if end and int(end) < int(start):
            return None
        found |= set(range(int(start), min(int(end or length) + 1, length)))
    return found if 0 < len(specs) <= MAX_RANGES else None
