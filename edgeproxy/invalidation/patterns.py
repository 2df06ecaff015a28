"""Patterns of selectors: regular expressions in linear time (RE2), and globs turned into them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

import re2  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from typing import Protocol

    class Pattern(Protocol):
        """A compiled expression."""

        def search(self, text: bytes) -> object | None:
            """What it finds first; None if nothing."""


MAX_PATTERN = 1024
"""Characters that a pattern may have."""
_MAX_MEMORY = 1 << 20


class PatternError(ValueError):
    """A pattern can't be used; the message says why."""


def check_pattern(pattern: str) -> None:
    """Raises PatternError for what is no RE2 expression, or too long a one."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"a pattern has at most {MAX_PATTERN} characters")
    try:
        compiled(pattern)
    except re2.error as error:
        raise PatternError(f"{pattern!r} is not an RE2 expression: {_text(error)}") from error


def glob_pattern(glob: str) -> str:
    """The expression for a glob over a whole path: `*` is anything but "/", `**` anything at all,
    `?` one character but "/"."""
    parts = [_GLOB.get(part, re2.escape(part)) for part in re.split(r"(\*\*|\*|\?)", glob)]
    return f"^{''.join(parts)}$"


_GLOB = {"": "", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Pattern:
    """The compiled expression. It is matched byte by byte: a target need not be UTF-8, and what a
    pattern skips must not depend on that."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = _MAX_MEMORY
    options.log_errors = False
    options.dot_nl = True
    found: Pattern = re2.compile(pattern.encode(), options)
    return found


def _text(error: Exception) -> str:
    (told,) = error.args or ("it can't be read",)
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
