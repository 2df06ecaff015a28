"""`edgeproxy token new`: what it prints can be pasted, and the token is good."""

from __future__ import annotations

import io
import re
import tomllib
from typing import Any

import pytest

from edgeproxy.cli.main import main
from edgeproxy.config.server import AdminToken


def made(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[AdminToken, list[str]]:
    """The token that is pasted, and the secrets that are told."""
    assert main(["token", "new", *arguments]) == 0
    out, err = capsys.readouterr()
    (settings,) = tomllib.loads(out)["admin"]["tokens"]
    secrets = re.findall(r": (\S+)$", err, re.MULTILINE)
    assert not any(secret in out for secret in secrets)
    return AdminToken.model_validate(settings), secrets


def test_a_random_token(capsys: pytest.CaptureFixture[str]) -> None:
    token, (secret,) = made(capsys)
    assert token.name == "editors"
    assert token.sites == ("*",)
    assert token.secret.matches(secret.encode())
    assert not token.secret.slow
    assert len(secret) >= 43
    assert made(capsys)[1] != [secret]


def test_all_that_can_be_said_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "--name cms --site shop --site blog --action purge --environment preview "
        "--network 10.0.0.0/8 --expires 2027-01-31T18:00:00Z --max-calls 9 --rate 5/1m --access"
    )
    token, (secret, access) = made(capsys, *arguments.split())
    assert (token.name, token.sites, token.actions) == ("cms", ("shop", "blog"), ("purge",))
    assert (token.environments, token.max_calls, str(token.rate)) == (("preview",), 9, "5/1m")
    assert [str(network) for network in token.networks] == ["10.0.0.0/8"]
    assert token.expires is not None
    assert token.expires.year == 2027
    assert token.secret.matches(secret.encode())
    assert token.access is not None
    assert token.access.matches(access.encode())


def test_a_secret_that_people_chose(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))
    token, secrets = made(capsys, "--secret-from-stdin")
    assert secrets == [], "it is known already"
    assert token.secret.slow
    assert token.secret.matches(b"correct horse")


@pytest.mark.parametrize(
    ("arguments", "typed", "said"),
    [
        (["--name", "a b"], "", "name: "),
        (["--network", "10.0.0.1/8"], "", "networks[0]: "),
        (["--expires", "tomorrow"], "", "expires: "),
        (["--rate", "many"], "", "rate: "),
        (["--max-calls", "0"], "", "max_calls: "),
        (["--secret-from-stdin"], "short\n", "at least 8 characters"),
    ],
)
def test_what_is_wrong_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], typed: str, said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert main(["token", "new", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "short" not in err


def test_an_action_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["token", "new", "--action", "anything"])
    assert ended.value.code == 2


def test_help_names_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["token", "new", "--help"])
    out: Any = capsys.readouterr().out
    assert "edgeproxy token new --name editors --site shop --action purge" in out
