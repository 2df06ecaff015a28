"""Vary and what it names: "Name: value" lines of a request, behind the value of Vary."""

from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.preferences import (
    PREFERENCE_FIELDS,
    accepts_codings,
    first_choice,
    normal_preferences,
    only_language,
)
from edgeproxy.semantics.vary import matches, selecting, vary_names
from fuzz.parts import fields_of


def check(data: bytes) -> None:
    vary, *lines = data.split(b"\n")
    stored = Fields([(b"Vary", vary)])
    request = fields_of(lines)
    names = vary_names(stored)
    if names is not None:
        assert names == tuple(sorted(set(names)))
        assert all(name == name.lower() for name in names)
        chosen = selecting(names, request)
        assert matches(chosen, request, stored), "a request selects what it got"
        folded = Fields([(name.swapcase(), value) for name, value in request])
        assert selecting(names, folded) == chosen, "the case of names means nothing"
    for _, value in request:
        for name in PREFERENCE_FIELDS:
            normal = normal_preferences(name, value)
            if normal is not None and len(normal) <= 512:
                assert normal_preferences(name, normal) == normal, (name, value)
        choice = first_choice(value)
        assert choice is None or choice == choice.lower()
        only_language([value])
        assert accepts_codings(Fields([(b"accept-encoding", b"gzip")]), Fields())
        accepts_codings(
            Fields([(b"accept-encoding", value)]), Fields([(b"content-encoding", b"gzip")])
        )
