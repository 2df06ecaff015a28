"""The two readers of heads for the fast path, the compiled one and its twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from edgeproxy.proxy import scanning

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.proxy.scanning import Scanned


class Twin(NamedTuple):
    """One of them."""

    scan: Callable[[bytes, int, int, int], Scanned | None]
    values: Callable[[bytes, int, tuple[bytes, ...]], tuple[bytes | None, ...]]


SLOW = Twin(scanning.scan_slowly, scanning.values_slowly)
COMPILED = Twin(scanning.scan, scanning.values)

needs_compiled = pytest.mark.skipif(not scanning.COMPILED, reason="_scan.c is not compiled")
BOTH = pytest.mark.parametrize(
    "twin", [pytest.param(SLOW, id="slow"), pytest.param(COMPILED, id="c", marks=needs_compiled)]
)
