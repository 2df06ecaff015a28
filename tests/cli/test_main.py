"""The command line as a whole."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import trustme

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


def in_a_new_interpreter(code: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.split()


def test_a_command_imports_nothing_of_the_others() -> None:
    code = """if True:
        import sys
        from edgeproxy.cli.main import parser
        parser(["status"]).parse_args(["status"])
        print(*(name for name in sys.modules if name.startswith("edgeproxy.cli.")))
    """
    imported = in_a_new_interpreter(code)
    assert "edgeproxy.cli.status" in imported
    assert {"edgeproxy.cli.demo", "edgeproxy.cli.serve"}.isdisjoint(imported)


def test_the_authorities_of_the_machine_are_read_where_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    code = """if True:
        import gc, os
        from edgeproxy.cli.serve import quick_imports
        with quick_imports():
            import edgeproxy.runtime.run
            from aiohttp.connector import _SSL_CONTEXT_VERIFIED as of_aiohttp
        from edgeproxy.proxy.origin_connections import _trusting_machine
        read = (of_aiohttp, _trusting_machine(None))
        print(*(len(context.get_ca_certs()) for context in read), gc.isenabled())
        print(os.environ["SSL_CERT_FILE"], "SSL_CERT_DIR" in os.environ)
    """
    path = str(tmp_path / "ca.pem")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    told = in_a_new_interpreter(code, SSL_CERT_FILE=path)
    assert told == ["0", "1", "True", path, "False"]
