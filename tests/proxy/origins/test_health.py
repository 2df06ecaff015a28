"""What checks add up to, and how all workers see it."""

import pytest

from edgeproxy.config.failover import Check
from edgeproxy.config.site import Origin
from edgeproxy.proxy.origins.health import Health, Verdicts, checked_as

CHECK = Check(path="/", healthy_after=2, unhealthy_after=3)


@pytest.mark.parametrize(
    ("before", "results", "well"),
    [
        (None, "", None),
        (None, ".", True),
        (None, "xx", None),
        (None, "xxx", False),
        (None, "xx.", True),
        (True, "xx", True),
        (True, "xxx", False),
        (True, "xx.xx", True),
        (False, ".", False),
        (False, "..", True),
        (False, ".x.", False),
    ],
)
def test_one_result_is_no_verdict(before: bool | None, results: str, well: bool | None) -> None:
    health = Health(before)
    for result in results:
        health = health.after(result == ".", CHECK)
    assert health.well is well


def test_verdicts_are_seen_by_all_who_share_the_memory() -> None:
    area = memoryview(bytearray(1024))
    writer, reader = Verdicts(area), Verdicts(area)
    assert reader.read(0x1200) is None
    writer.write(0x1200, well=False)
    assert reader.read(0x1200) is False
    writer.write(0x1200, well=True)
    assert reader.read(0x1200) is True


def test_of_two_in_one_place_the_other_is_not_known() -> None:
    verdicts = Verdicts(memoryview(bytearray(1024)))
    one, other = 0x1200, 0x1200 + (128 << 8)
    verdicts.write(one, well=False)
    assert verdicts.read(other) is None
    verdicts.write(other, well=True)
    assert (verdicts.read(one), verdicts.read(other)) == (None, True)


def test_another_check_is_another_verdict() -> None:
    origin = Origin.model_validate({"url": "http://127.0.0.1:1"})
    other = Origin.model_validate({"url": "http://127.0.0.1:2"})
    changed = Check(path="/other")
    marks = {
        checked_as("a", origin, CHECK),
        checked_as("b", origin, CHECK),
        checked_as("a", other, CHECK),
        checked_as("a", origin, changed),
    }
    assert len(marks) == 4
    assert all(mark & 0xFF == 0 for mark in marks)
