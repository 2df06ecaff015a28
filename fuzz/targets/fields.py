"""Lists, quoted strings and the fields of a message: each line is one line of a list."""

from edgeproxy.semantics.fields import OWS, Fields, is_token, list_members, split_unquoted, unquote

NAMES = (b"a", b"b", b"c")


def check(data: bytes) -> None:
    lines = data.split(b"\n")
    for line in lines:
        assert split_unquoted(line, b",") == simply_split(line), line
        parts = split_unquoted(line, b",")
        assert all(part == part.strip(OWS) for part in parts)
        said = unquote(line)
        if said is not None:
            assert line[:1] == line[-1:] == b'"'
            again = b'"' + said.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
            assert unquote(again) == said
        assert not (is_token(line) and said is not None)
    members = list_members(lines)
    assert list_members(members) == members, "a member is one of itself"
    _check_fields(lines)


def simply_split(line: bytes) -> list[bytes]:
    """The parts between commas outside quoted strings, read byte by byte."""
    parts, at, part = [], 0, bytearray()
    while at < len(line):
        if line[at : at + 1] == b'"':
            end = at + 1
            while end < len(line) and line[end : end + 1] != b'"':
                end += 2 if line[end : end + 1] == b"\\" else 1
            if end < len(line):
                part += line[at : end + 1]
                at = end + 1
                continue
            # Never closed: nothing in it is quoted, and nothing behind it either.
            first, *rest = line[at:].split(b",")
            parts.append(bytes(part + first))
            parts.extend(rest)
            return [each.strip(OWS) for each in parts]
        if line[at : at + 1] == b",":
            parts.append(bytes(part))
            part.clear()
        else:
            part += line[at : at + 1]
        at += 1
    parts.append(bytes(part))
    return [each.strip(OWS) for each in parts]


def _check_fields(lines: list[bytes]) -> None:
    """What is made of fields with an index is what is made of them without."""
    pairs = [(NAMES[len(line) % 3].upper(), line) for line in lines]
    fields = Fields(pairs)
    assert fields.get(b"a") == next((value for name, value in pairs if name == b"A"), None)
    for made in (
        fields.without({b"a"}),
        fields.plus((b"A", lines[0])),
        fields.replacing(b"b", lines[-1]),
        fields.without({b"b"}).plus((b"B", lines[0]), (b"C", b"")).replacing(b"b", b"x"),
    ):
        fresh = Fields(made.raw)
        assert all(made.get_all(name) == fresh.get_all(name) for name in NAMES)
        assert set(made.names()) == set(fresh.names())
