"""What a worker remembers for a while: uncacheable keys, and refreshes that failed."""

import pytest

from edgeproxy.proxy.memo import RefreshBackoff, UncacheableKeys

# -- uncacheable keys


def test_nothing_is_known_of_a_new_key() -> None:
    keys = UncacheableKeys(3, list)
    assert keys.reason(b"a", 0.0) is None
    keys.forget(b"a")


def test_a_key_is_remembered_until_its_time() -> None:
    keys = UncacheableKeys(3, list)
    keys.note(b"a", 60.0, "private")
    assert keys.reason(b"a", 59.9) == "private"
    assert not keys.reason(b"b", 59.9)
    assert keys.reason(b"a", 60.0) is None


def test_the_last_word_counts() -> None:
    keys = UncacheableKeys(3, list)
    keys.note(b"a", 60.0, "private")
    keys.note(b"a", 70.0, "no-store")
    assert keys.reason(b"a", 65.0) == "no-store"
    keys.forget(b"a")
    assert not keys.reason(b"a", 0.0)


def test_the_key_that_was_noted_longest_ago_is_forgotten_first() -> None:
    dropped: list[int] = []
    keys = UncacheableKeys(3, lambda: dropped.append(1))
    for key in (b"a", b"b", b"c"):
        assert not keys.note(key, 60.0, "private")
    assert not keys.note(b"a", 60.0, "private")
    assert keys.note(b"d", 60.0, "private")
    held = [key for key in (b"a", b"b", b"c", b"d") if keys.reason(key, 0.0)]
    assert held == [b"a", b"c", b"d"]
    assert len(dropped) == 1


# -- refreshes that failed


def test_nothing_has_failed_yet() -> None:
    backoff = RefreshBackoff()
    assert not backoff.active(b"a", 0.0)
    backoff.succeeded(b"a")


def test_the_pause_doubles_up_to_a_minute() -> None:
    backoff = RefreshBackoff()
    assert [backoff.failed(b"a", 0.0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize(
    ("failures", "now", "active"),
    [(1, 100.0, True), (1, 100.9, True), (1, 101.0, False), (3, 103.9, True), (3, 104.0, False)],
)
def test_until_the_pause_is_over(failures: int, now: float, active: bool) -> None:
    backoff = RefreshBackoff()
    for _ in range(failures):
        backoff.failed(b"a", 100.0)
    assert backoff.active(b"a", now) is active
    assert not backoff.active(b"b", now)


def test_a_success_ends_it() -> None:
    backoff = RefreshBackoff()
    for _ in range(3):
        backoff.failed(b"a", 100.0)
    backoff.succeeded(b"a")
    assert not backoff.active(b"a", 100.0)
    assert backoff.failed(b"a", 100.0) == 1


def test_the_failure_that_is_oldest_is_forgotten_first() -> None:
    backoff = RefreshBackoff(capacity=2)
    backoff.failed(b"a", 100.0)
    backoff.failed(b"b", 100.0)
    backoff.failed(b"a", 100.0)
    backoff.failed(b"c", 100.0)
    assert [backoff.active(key, 100.5) for key in (b"a", b"b", b"c")] == [True, False, True]
