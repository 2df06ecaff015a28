"""`edgeproxy serve`: how it is told what to do, and what is found wrong before it begins."""

import socket
from pathlib import Path

import pytest

from edgeproxy.cli.main import main

ORIGIN = "http://127.0.0.1:3000"


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong here is found before any socket is opened."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "--origin: is required, for instance --origin http://127.0.0.1:3000; or"),
        (["--listen", ":80"], "--origin: is required"),
        (["--origin", "shop"], '--origin: "shop" has no scheme'),
        (["--origin", ORIGIN, "--listen", "80"], "--listen: "),
        (["--origin", ORIGIN, "--admin", "x:y"], "--admin: "),
        (["--origin", ORIGIN, "--workers", "0"], "--workers: "),
        (["--origin", ORIGIN, "--workers", "two"], "--workers: "),
        (["--origin", ORIGIN, "--store", "disk"], "--store: "),
        (["--origin", ORIGIN, "--listen", ":1", "--admin", ":1"], "--admin: "),
        (["--config", "a.toml", "--origin", ORIGIN], "--origin: stands in the file"),
        (["--config", "a.toml", "--workers", "2"], "--workers: stands in the file"),
    ],
)
def test_wrong_flags_are_status_2_and_named(
    capsys: pytest.CaptureFixture[str], flags: list[str], complaint: str
) -> None:
    assert main(["serve", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(complaint)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("workers = 0", "workers: "),
        ("sites = 3", "sites: "),
        ("[[listen]", "not TOML: "),
    ],
)
def test_a_wrong_file_is_status_2_and_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(text)
    assert main(["serve", "--config", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(str(path))
    assert complaint in err


def test_certificates_are_looked_at_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(
        'default_site = "shop"\n'
        '[[listen]]\naddress = ":443"\n'
        'tls.certificates = [{ cert = "no.pem", key = "no.key" }]\n'
        f'[sites.shop]\norigins = [{{ url = "{ORIGIN}" }}]\n'
    )
    assert main(["serve", "--config", str(path)]) == 2
    assert f"can't read {tmp_path / 'no.pem'}" in capsys.readouterr().err
