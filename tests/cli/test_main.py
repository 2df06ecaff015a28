"""The command line as a whole."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from edgeproxy.cli.main import main


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_its_help_says_what_it_is_for_and_where_to_begin(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = help_of(capsys)
    assert "caching reverse proxy" in text
    for command in ("serve", "check", "demo"):
        assert f"  edgeproxy {command}" in text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("serve", ["--config", "--origin", "--listen", "--admin", "--workers", "--store"]),
        ("serve", ["EDGEPROXY_ADMIN_TOKEN", "SIGTERM", "SIGHUP", "SIGUSR1", "Exit status"]),
        ("serve", ["127.0.0.1:8080", "127.0.0.1:8081", "lmdb:", "memory:", "redis://"]),
        ("check", ["FILE", "serve --config", "Exit status"]),
        ("demo", ["five lines", "Ctrl-C"]),
    ],
)
def test_each_command_s_help_tells_what_it_takes(
    capsys: pytest.CaptureFixture[str], command: str, words: list[str]
) -> None:
    text = help_of(capsys, command)
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("words", [[], ["surf"], ["check"], ["serve", "--prot", "80"]])
def test_a_wrong_command_line_is_status_2(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: edgeproxy")


def test_python_m_edgeproxy_is_the_command() -> None:
    command = [sys.executable, "-m", "edgeproxy", "--version"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert done.stdout.strip() == version("edgeproxy")
