"""The example configuration, and the same with all that is commented out switched on."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "edgeproxy.toml"

_SWITCHED_OFF = re.compile(r"^#(?=\S)", re.MULTILINE)


def everything() -> str:
    """The example with every setting in it; what explains has a blank after its "#"."""
    return _SWITCHED_OFF.sub("", EXAMPLE.read_text())
