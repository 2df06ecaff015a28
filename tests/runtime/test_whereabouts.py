"""Files that were taken away, or exchanged, under those who have them open."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.runtime.whereabouts import Whereabouts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"")
    return path


def removed(path: Path) -> None:
    path.unlink()


def folder_renamed(path: Path) -> None:
    path.parent.rename(path.parent.with_name("other"))


def folder_exchanged_for_a_file(path: Path) -> None:
    folder_renamed(path)
    path.parent.write_bytes(b"")


def exchanged(path: Path) -> None:
    path.rename(path.with_name("other"))
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        pytest.param(removed, "is gone", id="removed"),
        pytest.param(folder_renamed, "is gone", id="folder-renamed"),
        pytest.param(folder_exchanged_for_a_file, "is gone", id="folder-exchanged-for-a-file"),
        pytest.param(exchanged, "is not what it was", id="exchanged"),
    ],
)
def test_what_is_taken_away_is_missed(file: Path, harm: Callable[[Path], None], told: str) -> None:
    whereabouts = Whereabouts.of([file])
    harm(file)
    lost = whereabouts.lost()
    assert lost is not None
    assert lost.startswith(str(file.parent))
    assert lost.endswith(told)


def test_what_is_written_to_is_still_there(file: Path, tmp_path: Path) -> None:
    whereabouts = Whereabouts.of([file, tmp_path / "nobody's"])
    file.write_bytes(b"more")
    (tmp_path / "nobody's").write_bytes(b"")
    assert whereabouts.lost() is None
