"""Folders of one run, with real processes that hold them."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgeproxy.runtime.folders import FolderRefused, RunFolder, make_private

HOLD = """
import os, sys
from pathlib import Path
from edgeproxy.runtime.folders import RunFolder
folder = RunFolder(Path(sys.argv[1]), "run-")
if os.fork() == 0:
    print(folder.real_path, flush=True)
    sys.stdin.read()  # lives on after its parent, until it is told
    os._exit(0)  # which closes standard output
os._exit(1)
"""


def test_only_this_user_can_enter_a_run_s_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "parent", "run-")
    assert stat.S_IMODE(folder.real_path.stat().st_mode) == 0o700
    assert folder.real_path.parent == tmp_path / "new" / "parent"
    folder.remove()
    assert not folder.real_path.exists()


def test_two_runs_have_a_folder_each(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path, "run-"), RunFolder(tmp_path, "run-")
    assert first.real_path != second.real_path
    assert first.real_path.is_dir()
    first.remove()
    second.remove()


def test_its_short_name_is_good_for_a_socket_wherever_it_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / ("long" * 30), "run-")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(OSError, match="too long"):
            server.bind(str(folder.real_path / "peer.sock"))
        server.bind(str(folder.path / "peer.sock"))
        server.listen()
        client.connect(str(folder.path / "peer.sock"))
    assert (folder.real_path / "peer.sock").is_socket()
    folder.remove()


def test_one_that_somebody_removed_is_made_again_under_its_names(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs", "run-")
    (folder.path / "kept").touch()
    folder.restore()
    assert (folder.real_path / "kept").exists()
    for gone in (folder.real_path, tmp_path / "runs"):
        shutil.rmtree(gone)
        assert folder.whereabouts.lost() is not None
        folder.restore()
        assert folder.whereabouts.lost() is None
        (folder.path / "new").touch()
        assert (folder.real_path / "new").exists()
        assert stat.S_IMODE(folder.real_path.stat().st_mode) == 0o700
    # It is held as before.
    RunFolder(tmp_path / "runs", "run-").remove()
    assert folder.real_path.exists()
    folder.remove()


def test_one_in_whose_place_somebody_made_another_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, "run-")
    folder.real_path.rmdir()
    folder.real_path.mkdir()
    with pytest.raises(FolderRefused, match="File exists"):
        folder.restore()
    folder.remove()


def test_one_left_over_is_removed_by_the_next_run_once_all_its_processes_are_gone(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        left = Path(parent.stdout.readline().decode().strip())
        assert parent.wait() == 1
        (left / "claims").touch()
        RunFolder(tmp_path, "run-").remove()
        assert (left / "claims").exists(), "its worker still lives"
        parent.stdin.close()
        assert parent.stdout.read() == b"", "the worker has ended"
    RunFolder(tmp_path, "run-").remove()
    assert list(tmp_path.iterdir()) == []


def test_folders_of_other_names_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "run-file").touch()
    (tmp_path / "run-link").symlink_to(tmp_path / "other")
    RunFolder(tmp_path, "run-").remove()
    assert {path.name for path in tmp_path.iterdir()} == {"other", "run-file", "run-link"}


def test_a_parent_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(FolderRefused, match="others may write to it"):
        RunFolder(tmp_path, "run-")
    tmp_path.chmod(0o1777)  # as /tmp: each may only remove what is his own
    RunFolder(tmp_path, "run-").remove()


def test_a_parent_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, -1)
    else:
        # Only root can give a folder away; others have to be somebody else.
        other = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(FolderRefused, match="belongs to others"):
        RunFolder(tmp_path, "run-")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderRefused, match=r"file/state can't be used: .*: Not a directory"):
        make_private(tmp_path / "file" / "state")


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    make_private(tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
