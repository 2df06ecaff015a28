"""What of a new configuration counts, and whose tokens."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config.model import Config
from edgeproxy.config.server import AdminToken
from edgeproxy.runtime.settings import FallbackToken, access_log_settings, reloaded

HASH = "sha256:" + "0123456789abcdef" * 4
TLS = {"certificates": [{"cert": "a.pem", "key": "a.key"}]}
OTHER_TLS = {"certificates": [{"cert": "b.pem", "key": "b.key"}]}


def config(**settings: Any) -> Config:
    data = {"sites": {"a": {"hosts": ["a"], "origins": [{"url": "http://a"}]}}, **settings}
    return Config.model_validate(data, context={"folder": Path("/etc")})


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def tokens(complete: Config) -> list[tuple[str, bytes]]:
    return [(token.name, token.secret.digest) for token in complete.admin.tokens]


def test_the_configuration_s_own_tokens_count_alone() -> None:
    told: list[str] = []
    own = config(admin={"tokens": [{"name": "editors", "hash": HASH}]})
    assert FallbackToken("secret", told.append).complete(own) == own
    assert told == []


def test_without_any_the_environment_s_counts() -> None:
    told: list[str] = []
    fallback = FallbackToken("secret", told.append)
    assert tokens(fallback.complete(config())) == [("environment", digest("secret"))]
    assert told == []


@pytest.mark.parametrize("variable", [None, ""])
def test_without_that_one_is_made_and_told_once(variable: str | None) -> None:
    told: list[str] = []
    fallback = FallbackToken(variable, told.append)
    first = fallback.complete(config())
    assert fallback.complete(config()) == first
    (line,) = told
    assert tokens(first) == [("generated", digest(line.rpartition(" ")[2]))]
    assert len(line.rpartition(" ")[2]) == 48


def test_such_a_token_may_do_all() -> None:
    (token,) = FallbackToken("secret", print).complete(config()).admin.tokens
    assert token == AdminToken(name="environment", hash=f"sha256:{digest('secret').hex()}")
    assert token.may("purge", "a")
    assert token.may("read", "a")


@pytest.mark.parametrize(
    "change",
    [
        {"workers": 3},
        {"runtime_dir": "/run/other"},
        {"store": {"url": "lmdb:/srv/other"}},
        {"store": {"max_bytes": "1GiB"}},
        {"admin": {"address": "127.0.0.1:9"}},
        {"listen": [{"address": ":9"}]},
        {"listen": [{"address": "127.0.0.1:8080", "tls": TLS}]},
        {"listen": [{"address": "127.0.0.1:8080"}, {"address": ":9"}]},
    ],
    ids=lambda change: str(change)[:60],
)
def test_what_takes_a_restart_stays_and_is_told(change: dict[str, Any]) -> None:
    running, new = config(), config(**change)
    assert reloaded(running, new) == running
    assert len(running.reload_differences(new)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"limits": {"drain_timeout": "1s"}},
        {"log": {"level": "debug"}},
        {"trusted_proxies": ["10.0.0.0/8"]},
        {"admin": {"tokens": [{"name": "editors", "hash": HASH}]}},
        {"sites": {"b": {"hosts": ["b"], "origins": [{"url": "http://b"}]}}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_all_else_is_taken_over(change: dict[str, Any]) -> None:
    running, new = config(), config(**change)
    assert reloaded(running, new) == new
    assert running.reload_differences(new) == []


def test_certificates_are_taken_over_where_the_listener_stays() -> None:
    running = config(
        listen=[{"address": ":1", "tls": TLS}, {"address": ":2", "tls": TLS}, {"address": ":3"}]
    )
    new = config(listen=[{"address": ":2", "tls": OTHER_TLS}, {"address": ":3"}])
    after = reloaded(running, new)
    assert [str(one.address) for one in after.listen] == [":1", ":2", ":3"]
    certs = [str(one.tls.certificates[0].cert) if one.tls else None for one in after.listen]
    assert certs == ["/etc/a.pem", "/etc/b.pem", None]


def test_a_configuration_reaches_the_workers_unharmed() -> None:
    """What the supervisor sends is JSON."""
    running = FallbackToken("secret", print).complete(
        config(
            listen=[{"address": ":1", "tls": TLS}],
            store={"url": "redis://user:p%40ss@cache:1/2"},
            log={"access": "/var/log/a"},
        )
    )
    line = running.model_dump_json()
    assert "\n" not in line
    assert Config.model_validate_json(line) == running


@pytest.mark.parametrize(
    ("target", "expected"),
    [("stdout", "stdout"), ("off", "off"), ("/var/log/a", "/var/log/a"), ("./a", "/etc/a")],
)
def test_access_log_settings(target: str, expected: str) -> None:
    settings = access_log_settings(config(log={"access": target, "format": "json"}))
    assert (settings.target, settings.format) == (expected, "json")
