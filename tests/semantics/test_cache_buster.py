"""`cb:` segments: which they are, and that nothing else of a target is touched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.semantics.cache_buster import MAX_TOKEN, split_cache_buster
from tests.semantics.build import checked


@pytest.mark.parametrize(
    ("target", "token", "rest"),
    [
        (b"/cb:T/w:100/https://e.com/i.jpg", b"T", b"/w:100/https://e.com/i.jpg"),
        (b"/cb:eFRn.20eff/a", b"eFRn.20eff", b"/a"),
        (b"/cb:A-z_0~./a", b"A-z_0~.", b"/a"),
        (b"/cb:T/", b"T", b"/"),
        (b"/cb:T//a", b"T", b"//a"),
        (b"/cb:T/a?b=/cb:U/c", b"T", b"/a?b=/cb:U/c"),
        (b"/cb:T/cb:U/a", b"T", b"/cb:U/a"),
        (b"/cb:" + b"t" * MAX_TOKEN + b"/a", b"t" * MAX_TOKEN, b"/a"),
    ],
)
def test_segments(target: bytes, token: bytes, rest: bytes) -> None:
    assert split_cache_buster(target) == (token, rest)


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"*",
        b"",
        b"/cb:T",
        b"/cb:T?a",
        b"/cb:/a",
        b"/cb:a%20b/a",
        b"/cb:a+b/a",
        b"/cb:\xc3\xa9/a",
        b"/CB:T/a",
        b"/cb/T/a",
        b"/a/cb:T/b",
        b"cb:T/a",
        b"//cb:T/a",
        b"/cb:" + b"t" * (MAX_TOKEN + 1) + b"/a",
    ],
)
def test_ordinary_targets(target: bytes) -> None:
    assert split_cache_buster(target) == (b"", target)


@checked
@given(st.binary(max_size=20) | st.binary(max_size=20).map(lambda rest: b"/cb:T/" + rest))
def test_splitting_and_putting_together_again(target: bytes) -> None:
    token, rest = split_cache_buster(target)
    assert (b"/cb:" + token if token else b"") + rest == target
