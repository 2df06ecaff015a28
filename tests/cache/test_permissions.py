"""Modes of the store's files: what others could read or write is put right."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgeproxy.cache.errors import StoreUnusable
from edgeproxy.cache.permissions import mend_permissions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file in it, and a folder with another; all as they should be."""
    made = tmp_path / "store"
    (made / "bodies" / "00").mkdir(parents=True)
    for name in ("state.json", "bodies/00/1", "bodies/00/2"):
        (made / name).write_text("x")
        (made / name).chmod(0o600)
    for name in ("bodies", "bodies/00"):
        (made / name).chmod(0o700)
    made.chmod(0o750)
    return made


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_what_is_right_is_left(folder: Path) -> None:
    assert mend_permissions(folder) == (5, 0)
    assert mode(folder) == 0o750, "the folder itself is its maker's"


@pytest.mark.parametrize("wrong", [0o644, 0o666, 0o400, 0o000, 0o4700])
def test_files_are_their_user_s_alone(folder: Path, wrong: int) -> None:
    (folder / "bodies/00/1").chmod(wrong)
    assert mend_permissions(folder) == (5, 1)
    assert mode(folder / "bodies/00/1") == 0o600
    assert mend_permissions(folder) == (5, 0)


@pytest.mark.parametrize("wrong", [0o755, 0o777, 0o000, 0o600])
def test_folders_are_mended_before_they_are_looked_into(folder: Path, wrong: int) -> None:
    (folder / "bodies/00/2").chmod(0o644)
    (folder / "bodies/00").chmod(wrong)
    assert mend_permissions(folder) == (5, 2)
    assert mode(folder / "bodies/00") == 0o700
    assert mode(folder / "bodies/00/2") == 0o600


def test_links_are_neither_followed_nor_touched(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "file").write_text("x")
    (outside / "file").chmod(0o644)
    (folder / "file").symlink_to(outside / "file")
    (folder / "folder").symlink_to(outside)
    assert mend_permissions(folder) == (5, 0)
    assert (mode(outside), mode(outside / "file")) == (0o755, 0o644)


def test_what_belongs_to_another_is_taken_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root can; all of it belongs to another than the one whom this process claims to be."""
    given: list[tuple[str, int, int]] = []

    def chown(path: Path, user: int, group: int, *, follow_symlinks: bool) -> None:
        assert not follow_symlinks
        given.append((path.name, user, group))

    user = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "chown", chown)
    assert mend_permissions(folder) == (5, 5)
    names = ["bodies", "00", "1", "2", "state.json"]
    assert given == [(name, user, -1) for name in names]


def test_what_can_t_be_mended_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_permitted(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    user = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "chown", not_permitted)
    with pytest.raises(StoreUnusable, match=r"00: Operation not permitted.* and 2 more") as told:
        mend_permissions(folder)
    assert str(folder / "bodies/00/1") in str(told.value)


def test_an_empty_store(tmp_path: Path) -> None:
    assert mend_permissions(tmp_path / "none") == (0, 0)
