"""What the tests of the semantics write their cases with."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from edgeproxy.semantics.fields import Fields

checked = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
"""Properties here are cheap; a loaded machine is no reason to fail."""

NOW = 1_700_000_000.0
"""Tue, 14 Nov 2023 22:13:20 GMT."""

DATE = "Date: Tue, 14 Nov 2023 22:13:20 GMT"

TCHAR = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""RFC 9110 5.6.2."""

tokens = st.text(TCHAR, min_size=1, max_size=12).map(str.encode)

field_values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40
).map(lambda text: text.strip().encode("latin-1"))
"""RFC 9110 5.5: any field-content, without the whitespace around it."""


def fields(*lines: str) -> Fields:
    """Header fields written as in a message: `fields("Vary: Accept", "ETag: W/\\"1\\"")`."""
    pairs = []
    for line in lines:
        name, colon, value = line.partition(":")
        assert colon, f"{line!r} is no field line"
        pairs.append((name.encode("latin-1"), value.strip(" ").encode("latin-1")))
    return Fields(pairs)


def lines_of(found: Fields) -> list[str]:
    """The same way back."""
    return [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in found]
