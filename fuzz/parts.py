"""What several targets make of their input."""

import asyncio
from functools import cache

from edgeproxy.semantics.fields import Fields


def fields_of(lines: list[bytes]) -> Fields:
    """The fields of "Name: value" lines; no parser lets a value with control characters pass."""
    pairs = [line.partition(b":")[::2] for line in lines if line.isascii() or b":" in line]
    return Fields(
        [
            (name, value.strip(b" \t"))
            for name, value in pairs
            if name and not value.translate(None, _NO_CONTROLS)
        ]
    )


_NO_CONTROLS = bytes({*range(0x20, 0x100), 0x09} - {0x7F})


@cache
def event_loop() -> asyncio.AbstractEventLoop:
    """One loop for whatever wants one, never running by itself."""
    return asyncio.new_event_loop()
