"""The ledger: calls and windows of tokens, answers kept for idempotency keys, all workers'."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

from edgeproxy.config.rates import Rate
from edgeproxy.invalidation import ledger as ledgers
from edgeproxy.invalidation.journal import JournalError
from edgeproxy.invalidation.ledger import KEPT_BYTES, KEPT_KEYS, KEPT_SECONDS, Kept, Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_700_000_000.0
HOUR = 3600.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger")
    yield opened
    opened.close()


def test_its_user_alone_can_enter_it(ledger: Ledger) -> None:
    assert [path.stat().st_mode & 0o777 for path in (ledger.directory, ledger._data)] == [0o700] * 2


# -- calls


def test_a_token_is_good_for_so_many_calls(ledger: Ledger) -> None:
    assert [ledger.count_call("a", 2) for _ in range(3)] == [True, True, False]
    assert ledger.calls("a") == 2, "what was refused was no call"
    assert ledger.count_call("b", 2)
    assert ledger.count_call("a", 3), "the limit may be raised"


def test_calls_are_remembered_over_a_restart(tmp_path: Path) -> None:
    first = Ledger(tmp_path)
    first.count_call("a", 9)
    first.close()
    again = Ledger(tmp_path)
    assert again.calls("a") == 1
    again.close()


def _count(folder: Path, times: int) -> None:
    opened = Ledger(folder)
    for _ in range(times):
        opened.count_call("a", 1_000_000)
    opened.close()


def test_all_workers_count_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_count, args=(tmp_path, 200)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    opened = Ledger(tmp_path)
    assert opened.calls("a") == 600
    opened.close()


# -- windows


def test_a_window_begins_with_its_first_call(ledger: Ledger) -> None:
    window = [("a", Rate(2, 60.0))]
    assert ledger.take(window, NOW) is None
    assert ledger.take(window, NOW + 59) is None
    full = ledger.take(window, NOW + 59.5)
    assert full is not None
    assert (full.rate, full.reset) == (Rate(2, 60.0), NOW + 60)
    assert ledger.take(window, NOW + 60) is None
    assert ledger.take(window, NOW + 119) is None
    assert ledger.take(window, NOW + 119) is not None


def test_subjects_have_windows_of_their_own(ledger: Ledger) -> None:
    rate = Rate(1, 60.0)
    assert ledger.take([("a", rate)], NOW) is None
    assert ledger.take([("b", rate)], NOW) is None
    assert ledger.take([("a", rate)], NOW) is not None


def test_what_one_window_refuses_no_other_counts(ledger: Ledger) -> None:
    wide, narrow = ("a", Rate(2, 60.0)), ("a wix", Rate(1, 1.0))
    assert ledger.take([wide, narrow], NOW) is None
    full = ledger.take([wide, narrow], NOW)
    assert full is not None
    assert full.rate == narrow[1]
    assert ledger.take([wide, narrow], NOW + 1) is None
    full = ledger.take([wide, narrow], NOW + 2)
    assert full is not None
    assert full.rate == wide[1]


def test_a_clock_that_is_set_back_closes_no_window(ledger: Ledger) -> None:
    window = [("a", Rate(1, 60.0))]
    assert ledger.take(window, NOW) is None
    assert ledger.take(window, NOW - HOUR) is None


def test_without_windows_there_is_nothing_to_take(ledger: Ledger) -> None:
    assert ledger.take([], NOW) is None


# -- once only


def test_a_call_is_made_once(ledger: Ledger) -> None:
    assert ledger.begin("a", "key", b"digest", NOW) is None
    assert ledger.begin("a", "key", b"digest", NOW + 1) == Kept(NOW, b"digest")
    ledger.finish("a", "key", b"answer")
    kept = Kept(NOW, b"digest", b"answer")
    assert ledger.begin("a", "key", b"other", NOW + 2) == kept
    assert ledger.begin("a", "key", b"digest", NOW + KEPT_SECONDS - 1) == kept
    assert ledger.begin("a", "key", b"digest", NOW + KEPT_SECONDS) is None


def test_keys_are_their_token_s(ledger: Ledger) -> None:
    assert ledger.begin("a", "key", b"", NOW) is None
    assert ledger.begin("b", "key", b"", NOW) is None
    assert ledger.begin("a", "other", b"", NOW) is None


def test_what_failed_may_be_made_again(ledger: Ledger) -> None:
    assert ledger.begin("a", "key", b"", NOW) is None
    ledger.forget("a", "key")
    ledger.forget("a", "never begun")
    assert ledger.begin("a", "key", b"", NOW) is None


def test_a_worker_that_died_over_it_does_not_block_it(ledger: Ledger) -> None:
    assert ledger.begin("a", "key", b"", NOW) is None
    assert ledger.begin("a", "key", b"", NOW + 59) is not None
    assert ledger.begin("a", "key", b"", NOW + 60) is None


def test_an_answer_that_is_too_long_is_not_kept(ledger: Ledger) -> None:
    assert ledger.begin("a", "key", b"", NOW) is None
    ledger.finish("a", "key", b"x" * (KEPT_BYTES + 1))
    assert ledger.begin("a", "key", b"", NOW) is None


def test_an_answer_to_what_was_forgotten_is_not_kept(ledger: Ledger) -> None:
    ledger.finish("a", "key", b"answer")
    assert ledger.begin("a", "key", b"", NOW) is None


def test_a_token_has_so_many_keys_and_pushes_out_its_own_alone(ledger: Ledger) -> None:
    assert ledger.begin("b", "key", b"", NOW) is None
    ledger.finish("b", "key", b"kept")
    for number in range(KEPT_KEYS + 1):
        assert ledger.begin("a", str(number), b"", NOW + number / 100) is None
    later = NOW + 20
    assert ledger.begin("b", "key", b"", later) is not None
    assert ledger.begin("a", str(KEPT_KEYS), b"", later) is not None
    assert ledger.begin("a", "1", b"", later) is not None
    assert ledger.begin("a", "0", b"", later) is None


def test_keys_that_have_had_their_time_go(ledger: Ledger) -> None:
    for number in range(5):
        ledger.begin("a", str(number), b"", NOW)
    ledger.begin("a", "later", b"", NOW + KEPT_SECONDS)
    with ledger._env.begin() as transaction:
        assert transaction.stat(ledger._keys)["entries"] == 1
        assert transaction.stat(ledger._order)["entries"] == 1


def test_when_it_is_full_answers_are_dropped_and_counts_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_MAP_BYTES", 1 << 20)
    opened = Ledger(tmp_path)
    opened.count_call("a", 9)
    for number in range(200):
        assert opened.begin("a", str(number), b"", NOW) is None
        opened.finish("a", str(number), b"x" * KEPT_BYTES)
    assert opened.calls("a") == 1
    opened.close()


# -- its folder


def test_after_the_machine_s_sudden_end_it_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = Ledger(tmp_path / "ledger")
    first.count_call("a", 9)
    boot = tmp_path / "boot"
    boot.write_text("0" * 36)
    monkeypatch.setattr(ledgers, "_BOOT_ID", boot)
    # It is still open, as it would be when the power fails.
    first._opened.close()
    again = Ledger(tmp_path / "ledger")
    assert again.calls("a") == 0
    assert "empty now" in caplog.text
    again.count_call("a", 9)
    again.close()
    boot.write_text("1" * 36)
    after = Ledger(tmp_path / "ledger")
    assert after.calls("a") == 1, "it was closed in time"
    after.close()


def test_a_killed_worker_takes_nothing_with_it(tmp_path: Path) -> None:
    first = Ledger(tmp_path)
    first.count_call("a", 9)
    first._opened.close()
    again = Ledger(tmp_path)
    assert again.calls("a") == 1
    again.close()


def test_what_is_no_ledger_is_put_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data.mdb").write_bytes(b"something else" * 1000)
    opened = Ledger(tmp_path)
    assert opened.calls("a") == 0
    assert "damaged" in caplog.text
    opened.close()


def test_a_folder_that_can_t_be_used_is_named(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("x")
    with pytest.raises(JournalError, match=str(place)):
        Ledger(place)
