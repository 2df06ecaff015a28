"""The model as a whole: JSON for the workers, reloads, files, and what it answers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgeproxy.config.errors import did_you_mean, key_path, one_of
from edgeproxy.config.load import load_config
from edgeproxy.config.model import Config
from edgeproxy.config.server import Action, default_runtime_dir
from tests.config.configs import HASH, OTHER_HASH, config
from tests.config.examples import everything

TLS = {"certificates": [{"cert": "a.pem", "key": "a.key"}]}


def test_json_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(everything())
    for one in (load_config(path), config(), config({"store": {"url": "redis://:p%40@h/1"}})):
        assert Config.model_validate_json(one.model_dump_json()) == one


def test_json_does_not_depend_on_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    one = config({"store": {"url": "lmdb:x"}, "log": {"access": "./a.log"}})
    text = one.model_dump_json()
    monkeypatch.chdir("/")
    assert Config.model_validate_json(text) == one


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError):
        config().workers = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"listen": [{"address": ":1"}]}, "listen: 127.0.0.1:8080 -> :1"),
        (
            {"listen": [{"address": "127.0.0.1:8080", "tls": TLS}]},
            "listen: 127.0.0.1:8080 -> 127.0.0.1:8080 (TLS)",
        ),
        ({"admin": {"address": ":1"}}, "admin.address: 127.0.0.1:8081 -> :1"),
        ({"workers": 3}, "workers: auto -> 3"),
        ({"store": {"url": "memory:"}}, "store.url: lmdb:/s -> memory:"),
        ({"store": {"state_dir": "/y"}}, "store.state_dir: None -> /y"),
        ({"store": {"max_bytes": "1GiB"}}, "store.max_bytes: 2GiB -> 1GiB"),
        ({"store": {"max_object_bytes": "1MB"}}, "store.max_object_bytes: 256MiB -> 1MB"),
        ({"memory": {"max_bytes": "1GiB"}}, "memory.max_bytes: 48MiB -> 1GiB"),
        ({"memory": {"max_object_bytes": "2MiB"}}, "memory.max_object_bytes: 1MiB -> 2MiB"),
        ({"runtime_dir": "/y"}, "runtime_dir: /r -> /y"),
    ],
)
def test_what_a_reload_can_not_change(change: dict[str, Any], difference: str) -> None:
    base = {"store": {"url": "lmdb:/s"}, "runtime_dir": "/r"}
    store = {"store": {**base["store"], **change.get("store", {})}}
    old, new = config(base), config({**base, **change, **store})
    assert old.reload_differences(new) == [difference]
    assert old.reload_differences(old) == []


def test_a_new_password_of_the_store_is_a_difference_that_is_not_shown() -> None:
    old, new = (config({"store": {"url": f"redis://:{one}@h"}}) for one in ("secret1", "secret2"))
    assert old.reload_differences(new) == ["store.url: its password"]


@pytest.mark.parametrize(
    "change",
    [
        {"sites": {"shop": {"hosts": ["other.test"]}}},
        {"sites": {"b": {"hosts": ["b.test"], "origins": [{"url": "http://b.test"}]}}},
        {"default_site": "shop"},
        {"admin": {"tokens": [{"name": "x", "hash": HASH}]}},
        {"log": {"format": "json"}},
        {"limits": {"head_bytes": "8KiB"}},
        {"trusted_proxies": ["10.0.0.0/8"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_a_reload_changes(change: dict[str, Any]) -> None:
    assert config().reload_differences(config(change)) == []


def test_other_certificates_are_no_difference_for_a_reload() -> None:
    other = {"certificates": [{"cert": "b.pem", "key": "b.key"}]}
    old, new = (config({"listen": [{"address": ":1", "tls": tls}]}) for tls in (TLS, other))
    assert old.reload_differences(new) == []


def test_files_that_are_named_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "there.pem").write_text("x")
    certificate = {"cert": str(tmp_path / "there.pem"), "key": str(tmp_path)}
    tls = {"ca_file": str(tmp_path / "none.pem")}
    one = config(
        {
            "listen": [{"address": ":1", "tls": {"certificates": [certificate]}}],
            "log": {"access": str(tmp_path / "no" / "a.log")},
            "sites": {"shop": {"origins": [{"url": "https://a.test", "tls": tls}]}},
        }
    )
    assert [str(problem) for problem in one.check_files()] == [
        f"listen[0].tls.certificates[0].key: {tmp_path} is a folder; name the file in it",
        "sites.shop.origins[0].tls.ca_file: "
        f"can't read {tmp_path}/none.pem: No such file or directory",
        f"log.access: the folder {tmp_path}/no does not exist; create it",
    ]
    assert config().check_files() == []


def test_workers() -> None:
    assert config({"workers": 7}).worker_count() == 7
    assert config().worker_count() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("sites", "actions", "action", "site", "allowed"),
    [
        (["*"], ["purge", "read"], "purge", "shop", True),
        (["shop"], ["purge"], "purge", "shop", True),
        (["shop"], ["purge"], "read", "shop", False),
        (["shop"], ["read"], "read", "other", False),
    ],
)
def test_what_a_token_may_do(
    sites: list[str], actions: list[str], action: Action, site: str, allowed: bool
) -> None:
    settings = {"name": "x", "hash": HASH, "sites": sites, "actions": actions}
    (token,) = config({"admin": {"tokens": [settings]}}).admin.tokens
    assert token.may(action, site) is allowed


def test_a_token_s_hash_is_not_shown() -> None:
    (token,) = config({"admin": {"tokens": [{"name": "x", "hash": OTHER_HASH}]}}).admin.tokens
    assert token.secret.digest.hex() == OTHER_HASH.removeprefix("sha256:")
    assert token.secret.digest.hex() not in repr(token)
    assert token.secret.digest.hex() not in repr(token.secret)


def test_the_hash_is_what_the_shell_line_of_the_message_makes() -> None:
    digest = hashlib.sha256(b"secret").hexdigest().upper()
    settings = {"name": "x", "hash": f"SHA256:{digest} "}
    (token,) = config({"admin": {"tokens": [settings]}}).admin.tokens
    assert token.secret.digest == hashlib.sha256(b"secret").digest()


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8081", True),
        ("127.0.0.1", True),
        ("[::1]:8081", True),
        ("edge.test:8081", True),
        ("Admin.test", True),
        ("x.y.test", True),
        ("y.test", False),
        ("evil.test", False),
        ("", False),
    ],
)
def test_hosts_that_the_admin_port_answers(host: str, allowed: bool) -> None:
    admin = config(
        {"admin": {"address": "edge.test:8081", "allowed_hosts": ["admin.test", "*.y.test"]}}
    ).admin
    assert admin.allows_host(host) is allowed


def test_where_the_journal_and_the_index_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")

    def directory(**store: str) -> Path | None:
        return config({"store": store}).store.directory

    assert directory() == Path("/c/edgeproxy/store")
    assert directory(url="lmdb:/x", state_dir="/y") == Path("/x")
    assert directory(url="memory:") is None
    assert directory(url="memory:", state_dir="/y") == Path("/y")
    assert directory(url="redis://h", state_dir="y") == Path("/etc/edgeproxy/y")
    one, other = directory(url="redis://h/0"), directory(url="redis://h/1")
    assert one is not None
    assert one.parent == Path("/c/edgeproxy")
    assert one != other


def test_the_runtime_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/5")
    assert default_runtime_dir() == Path("/run/user/5/edgeproxy")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    assert default_runtime_dir().name == f"edgeproxy-{os.getuid()}"


def test_key_paths() -> None:
    assert key_path("sites", "a.b", "origins", 0, "url") == 'sites."a.b".origins[0].url'
    assert key_path("listen", 1) == "listen[1]"


def test_words_that_were_meant() -> None:
    known = ("max_bytes", "url", "Listen")
    assert did_you_mean("max-byte", known) == "max_bytes"
    assert did_you_mean("LISTEN", known) == "Listen"
    assert did_you_mean("zzz", known) is None
    assert one_of(["a"]) == '"a"'
    assert one_of(["a", "b", "c"]) == '"a", "b" or "c"'
