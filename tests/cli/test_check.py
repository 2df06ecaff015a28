"""`edgeproxy check`: what it says of right and wrong files."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.cli.main import main
from tests.kit.disk import read_only
from tests.kit.toml import merged, to_toml
from tests.runtime.test_tls import issue

LEAST: dict[str, Any] = {
    "sites": {"shop": {"hosts": ["shop.test"], "origins": [{"url": "http://127.0.0.1:3000"}]}}
}


def write(folder: Path, change: dict[str, Any]) -> Path:
    path = folder / "edge.toml"
    path.write_text(to_toml(merged(LEAST, change)))
    return path


def with_certificate(cert: Path, key: Path) -> dict[str, Any]:
    certificate = {"cert": str(cert), "key": str(key)}
    return {"listen": [{"address": ":443", "tls": {"certificates": [certificate]}}]}


def test_a_right_file_is_explained(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path, {"store": {"url": "lmdb:cache"}})
    assert main(["check", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{path} can be used.")
    assert f"on disk in {tmp_path / 'cache'}" in out
    assert "shop.test" in out
    assert err == ""
    assert not (tmp_path / "cache").exists()


def test_a_store_that_nothing_could_be_kept_in_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "locked").mkdir()
    path = write(tmp_path, {"store": {"url": "lmdb:locked/cache"}})
    with read_only(tmp_path / "locked"):
        assert main(["check", str(path)]) == 0
    told = f"The edge would start, and keep nothing: {tmp_path / 'locked' / 'cache'} can't be used"
    assert told in capsys.readouterr().out
    assert main(["check", str(path)]) == 0
    assert "keep nothing" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"wokers": 2}, 'wokers: unknown key; did you mean "workers"?'),
        ({"workers": "many"}, "workers: "),
        ({"listen": [{"address": "8080"}]}, "listen[0].address: "),
        ({"log": {"access": "/nowhere/at/all.log"}}, "log.access: "),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    path = write(tmp_path, change)
    assert main(["check", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{path}: {complaint}")
    assert err.count("\n") == 1


def test_everything_that_is_wrong_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write(tmp_path, {"wokers": 2, "store": {"url": "disk"}})
    assert main(["check", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: can't be read: No such file" in capsys.readouterr().err


def test_a_certificate_that_works_with_its_key(tmp_path: Path) -> None:
    path = write(tmp_path, with_certificate(*issue(tmp_path, "shop.test")))
    assert main(["check", str(path)]) == 0


def test_a_key_of_another_certificate_is_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cert, _ = issue(tmp_path, "shop.test")
    _, key = issue(tmp_path, "other.test")
    path = write(tmp_path, with_certificate(cert, key))
    assert main(["check", str(path)]) == 2
    start = f"{path}: listen[0].tls.certificates[0]: certificate {cert} with key {key}: "
    assert capsys.readouterr().err.startswith(start)


def test_no_certificate_at_all_is_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write(tmp_path, with_certificate(tmp_path / "no.pem", tmp_path / "no.key"))
    assert main(["check", str(path)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"{path}: listen[0].tls.certificates[0].cert: can't read")
    assert second.startswith(f"{path}: listen[0].tls.certificates[0].key: can't read")


def test_as_a_process(tmp_path: Path) -> None:
    path = write(tmp_path, {"wokers": 2})
    command = [sys.executable, "-m", "edgeproxy", "check", str(path)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f'{path}: wokers: unknown key; did you mean "workers"?\n'
