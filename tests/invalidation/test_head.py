"""The shared head."""

from __future__ import annotations

import mmap
import os

from edgeproxy.invalidation.head import HEAD_BYTES, SharedHead


def test_it_only_goes_forward() -> None:
    head = SharedHead(memoryview(bytearray(HEAD_BYTES)))
    assert head.get() == 0
    seen = []
    for position in (3, 2, 1 << 40, 5):
        head.publish(position)
        seen.append(head.get())
    assert seen == [3, 3, 1 << 40, 1 << 40]


def test_another_process_sees_it_at_once() -> None:
    shared = memoryview(mmap.mmap(-1, HEAD_BYTES))
    head = SharedHead(shared)
    child = os.fork()
    if child == 0:
        SharedHead(shared).publish(7)
        os._exit(0)
    os.waitpid(child, 0)
    assert head.get() == 7
