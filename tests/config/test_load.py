"""Wrong configurations: each is answered with the file, the key, and what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeproxy.config.addresses import Address
from edgeproxy.config.errors import ConfigError
from edgeproxy.config.load import config_from_flags, load_config
from edgeproxy.config.urls import LmdbStore, MemoryStore
from tests.config.configs import HASH, OTHER_HASH, load

ORIGIN = [{"url": "http://127.0.0.1:3000"}]


def shop(**settings: Any) -> dict[str, Any]:
    """The least configuration's site with these settings."""
    return {"sites": {"shop": settings}}


WRONG: list[tuple[dict[str, Any], str, str]] = [
    # keys that are not known, and keys that lack
    ({"worker": 2}, "worker", 'unknown key; did you mean "workers"?'),
    ({"store": {"urll": "x"}}, "store.urll", 'unknown key; did you mean "url"?'),
    ({"store": {"max-bytes": 1}}, "store.max-bytes", 'unknown key; did you mean "max_bytes"?'),
    ({"zzz": 1}, "zzz", "unknown key; known here: listen, admin, workers"),
    (shop(ttl={"defualt": 5}), "sites.shop.ttl.defualt", 'did you mean "default"?'),
    (shop(origins=[{"ulr": "x"}]), "sites.shop.origins[0].ulr", 'did you mean "url"?'),
    ({"sites": {"a.b": {"hots": []}}}, 'sites."a.b".hots', 'did you mean "hosts"?'),
    ({"listen": [{}]}, "listen[0].address", "is required: HOST:PORT"),
    (shop(origins=[{}]), "sites.shop.origins[0].url", "is required: scheme, host and port"),
    ({"sites": {"b": {"hosts": ["b.test"]}}}, "sites.b.origins", "is required: servers that"),
    ({"admin": {"tokens": [{"name": "x"}]}}, "admin.tokens[0].hash", 'is required: "sha256:"'),
    # types
    ({"sites": 5}, "sites", "expected a table, got an integer"),
    ({"store": "lmdb:/x"}, "store", "expected a table, got a string"),
    ({"sites": {"shop": 5}}, "sites.shop", "expected a table, got an integer"),
    ({"listen": "127.0.0.1:80"}, "listen", "expected an array, [...], got a string"),
    ({"listen": []}, "listen", "must not be empty"),
    (shop(origins=[]), "sites.shop.origins", "must not be empty: servers that the content"),
    (shop(hosts="shop.test"), "sites.shop.hosts", "expected an array, [...], got a string"),
    (shop(cache_status="yes"), "sites.shop.cache_status", "expected true or false, got a string"),
    (shop(cache_status=1), "sites.shop.cache_status", "expected true or false, got an integer"),
    (shop(tags={"max_tags": "5"}), "sites.shop.tags.max_tags", "expected a whole number, got a s"),
    (shop(tags={"max_tags": 2.5}), "sites.shop.tags.max_tags", "expected a whole number, got a f"),
    ({"default_site": 1}, "default_site", "expected a string, got an integer"),
    ({"workers": "many"}, "workers", 'give a number between 1 and 256, or "auto"; got "many"'),
    ({"workers": True}, "workers", 'give a number between 1 and 256, or "auto"; got true'),
    ({"log": {"access": 5}}, "log.access", 'give "stdout", "off", or a file'),
    ({"runtime_dir": 5}, "runtime_dir", "expected a path, got 5"),
    ({"store": {"max_bytes": "much"}}, "store.max_bytes", '"much" is not a size; give bytes'),
    (shop(ttl={"max": "long"}), "sites.shop.ttl.max", '"long" is not a duration; give seconds'),
    ({"listen": [{"address": 8080}]}, "listen[0].address", 'expected "HOST:PORT"'),
    # impossible values
    ({"workers": 0}, "workers", 'give a number between 1 and 256, or "auto"; got 0'),
    ({"workers": 257}, "workers", 'give a number between 1 and 256, or "auto"; got 257'),
    ({"limits": {"max_fields": 0}}, "limits.max_fields", "must be at least 1, got 0"),
    ({"limits": {"max_fields": 10_001}}, "limits.max_fields", "must be at most 10000, got 10001"),
    ({"limits": {"head_bytes": 100}}, "limits.head_bytes", "must be between 1KiB and 1MiB"),
    ({"limits": {"header_timeout": 0}}, "limits.header_timeout", "must be more than 0; give a"),
    ({"limits": {"hang_timeout": "1s"}}, "limits.hang_timeout", "must be 2s or more"),
    ({"store": {"max_bytes": 0}}, "store.max_bytes", "must be more than 0 bytes"),
    (shop(ttl={"default": -1}), "sites.shop.ttl.default", "-1 is negative"),
    (shop(ttl={"heuristic_fraction": 1.5}), "sites.shop.ttl.heuristic_fraction", "at most 1, got"),
    ({"listen": [{"address": "h:80:1"}]}, "listen[0].address", "an IPv6 address stands in brack"),
    ({"log": {"format": "jsn"}}, "log.format", '"jsn" is not "common" or "json"; did you mean "j'),
    ({"log": {"access": "stdot"}}, "log.access", 'did you mean "stdout"?'),
    (
        shop(cache={"request_cache_control": "honor"}),
        "sites.shop.cache.request_cache_control",
        'did you mean "honour"?',
    ),
    (shop(hosts=["*"]), "sites.shop.hosts[0]", "make it the default_site"),
    (shop(hosts=["a.test", "b test"]), "sites.shop.hosts[1]", "is not a host name; give a name"),
    (shop(host_header="orign"), "sites.shop.host_header", 'did you mean "origin"?'),
    (shop(host_header="*.a.test"), "sites.shop.host_header", "a wildcard can't be sent"),
    (shop(key={"ignore_query": ["a*b"]}), "sites.shop.key.ignore_query[0]", "with a star"),
    (shop(tags={"fields": ["Cache-Tags"]}), "sites.shop.tags.fields[0]", 'mean "cache-tag"?'),
    (shop(cache={"targets": ["a b"]}), "sites.shop.cache.targets[0]", "is not a field name"),
    ({"trusted_proxies": ["10.0.0.1/8"]}, "trusted_proxies[0]", '"10.0.0.0/8"'),
    ({"store": {"url": "lmbd:/x"}}, "store.url", 'did you mean "lmdb:"?'),
    ({"store": {"url": "/var/x"}}, "store.url", 'write "lmdb:/var/x"'),
    ({"sites": {"a/b": {"origins": ORIGIN}}}, 'sites."a/b"', "can't be a name; use letters"),
    (
        {"admin": {"tokens": [{"name": "x", "hash": HASH, "actions": ["purg"]}]}},
        "admin.tokens[0].actions[0]",
        'did you mean "purge"?',
    ),
    # settings that don't go together
    ({"default_site": "shpo"}, "default_site", 'there is no site "shpo"; did you mean "shop"?'),
    ({"default_site": "zzz"}, "default_site", 'there is no site "zzz"; the sites are: shop'),
    (shop(hosts=[]), "sites.shop.hosts", "no request would reach this site; give some, or make"),
    (shop(preview_hosts=["SHOP.test"]), "sites.shop.preview_hosts[0]", "sites.shop.hosts[0] alr"),
    (shop(ids=["shop"]), "sites.shop.ids[0]", '"shop" is a site\'s name already'),
    (shop(ids=["a", "a"]), "sites.shop.ids[1]", '"a" is sites.shop.ids[0] already'),
    (shop(varnish={"networks": ["10.0.0.1/8"]}), "sites.shop.varnish.networks[0]", "10.0.0.0/8"),
    (shop(hosts=["a.test", "a.test."]), "sites.shop.hosts[1]", "is sites.shop.hosts[0] already"),
    (
        {"sites": {"b": {"hosts": ["shop.test"], "origins": ORIGIN}}},
        "sites.b.hosts[0]",
        '"shop.test" is sites.shop.hosts[0] already',
    ),
    (shop(ttl={"default": "2h", "max": "1h"}), "sites.shop.ttl.max", "is less than `default`"),
    # several origins
    (
        shop(balancing={"method": "round-robbin"}),
        "sites.shop.balancing.method",
        'did you mean "round-robin"?',
    ),
    (shop(check={"path": "healthz"}), "sites.shop.check.path", 'give a path such as "/healthz"'),
    (shop(check={"path": "/a b"}), "sites.shop.check.path", "is not what a request can ask for"),
    (shop(check={"path": "/#a"}), "sites.shop.check.path", "is not what a request can ask for"),
    (shop(check={"host": "pass"}), "sites.shop.check.host", "no reader asks here"),
    (shop(check={"status": []}), "sites.shop.check.status", "must not be empty"),
    (shop(check={"status": [600]}), "sites.shop.check.status[0]", "must be at most 599, got 600"),
    (shop(breaker={"statuses": [200]}), "sites.shop.breaker.statuses[0]", "must be at least 400"),
    (
        shop(breaker={"pause": "5s", "max_pause": "1s"}),
        "sites.shop.breaker.max_pause",
        "is less than `pause`",
    ),
    (shop(retries={"share": 2.0}), "sites.shop.retries.share", "must be at most 1"),
    (
        shop(origins=[{"url": "http://a.test", "tls": {"verify": False}}]),
        "sites.shop.origins[0].tls",
        'is for https:// origins, and this one is "http://a.test"',
    ),
    (
        {"store": {"max_bytes": "1MiB", "max_object_bytes": "2MiB"}},
        "store.max_object_bytes",
        "2MiB is more than store.max_bytes (1MiB)",
    ),
    (
        {"memory": {"max_bytes": 9, "max_object_bytes": 10}},
        "memory.max_object_bytes",
        "10B is more than memory.max_bytes (9B)",
    ),
    ({"admin": {"address": "0.0.0.0:8080"}}, "admin.address", "is taken by listen[0].address"),
    (
        {"listen": [{"address": "a.test:80"}, {"address": ":80"}]},
        "listen[1].address",
        'is taken by listen[0].address ("a.test:80")',
    ),
    (
        {"admin": {"tokens": [{"name": "x", "hash": HASH}, {"name": "x", "hash": OTHER_HASH}]}},
        "admin.tokens[1].name",
        '"x" is the name of admin.tokens[0] too',
    ),
    (
        {"admin": {"tokens": [{"name": "x", "hash": HASH}, {"name": "y", "hash": HASH}]}},
        "admin.tokens[1].hash",
        "is the hash of admin.tokens[0] too",
    ),
    (
        {"admin": {"tokens": [{"name": "x", "hash": HASH, "sites": ["shopp"]}]}},
        "admin.tokens[0].sites[0]",
        'there is no site "shopp"; did you mean "shop"?',
    ),
]


@pytest.mark.parametrize(("change", "key", "message"), WRONG, ids=[case[1] for case in WRONG])
def test_a_wrong_setting_names_file_key_and_what_is_right(
    tmp_path: Path, change: dict[str, Any], key: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, change)
    lines = str(caught.value).splitlines()
    assert any(
        line.startswith(f"{tmp_path}/edge.toml: {key}: ") and message in line for line in lines
    ), lines


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {"workers": 0, "limits": {"max_fields": 0}, **shop(hosts=["*"])})
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["workers", "limits.max_fields", "sites.shop.hosts[0]"]


def test_a_misspelt_key_that_is_required_is_one_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, shop(origins=[{"urls": "http://a.test"}]))
    assert [problem.key for problem in caught.value.problems] == ["sites.shop.origins[0].urls"]


def test_no_site_at_all(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text("")
    with pytest.raises(ConfigError, match=r"edge\.toml: sites: is required: the sites, by name"):
        load_config(path)


def test_a_secret_in_the_wrong_place_is_not_quoted(tmp_path: Path) -> None:
    for change in (
        {"admin": {"tokens": [{"name": "x", "hash": "my-secret-token"}]}},
        {"store": {"url": "redis://u:my-secret-token@h:99999/0"}},
        {"store": {"url": "redsi://u:my-secret-token@h/0"}},
        {"store": {"password": "my-secret-token"}},
        shop(origins=[{"url": "http://u:my-secret-token@a.test"}]),
    ):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, change)
        assert "my-secret-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"workers = 2\nlisten = [\n", r"edge\.toml:2:\d+: not TOML: "),
        (b"workers == 2\n", r"edge\.toml:1:\d+: not TOML: "),
        (b"a = 1\na = 2\n", r"edge\.toml:2:\d+: not TOML: "),
        (b"# \xe4\nworkers = \xff\n", r"edge\.toml: line 1 is not UTF-8"),
        (b"a = " + b"[" * 5000, r"edge\.toml: can't be read as TOML: maximum recursion depth"),
        (b"workers = " + b"9" * 5000, r"edge\.toml: can't be read as TOML: Exceeds the limit"),
    ],
)
def test_what_is_not_toml_names_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "edge.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: can't be read: No such file"):
        load_config(tmp_path / "none.toml")


def test_relative_paths_are_below_the_folder_of_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, {"store": {"url": "lmdb:cache"}, "log": {"access": "./a.log"}})
    assert config.store.directory == tmp_path / "cache"
    assert config.log.access == tmp_path / "a.log"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("/tmp/a\0b", "no path has a NUL character in it", id="NUL"),
        pytest.param("~nobody-of-this-name/x", "no home folder is known for", id="no home"),
    ],
)
def test_a_path_that_there_cannot_be(tmp_path: Path, path: str, message: str) -> None:
    for key, change in (
        ("runtime_dir", {"runtime_dir": path}),
        ("store.url", {"store": {"url": f"lmdb:{path}"}}),
        ("log.access", {"log": {"access": path}}),
    ):
        with pytest.raises(ConfigError, match=rf"{key}: {message}"):
            load(tmp_path, change)


def test_flags_make_one_site_for_any_host() -> None:
    config = config_from_flags(
        "http://127.0.0.1:3000", "127.0.0.1:1", ":2", workers="3", store="lmdb:/x"
    )
    assert config.default_site == "default"
    assert list(config.sites) == ["default"]
    assert config.listen[0].address == Address("127.0.0.1", 1)
    assert config.admin.address == Address("", 2)
    assert config.workers == 3
    assert config.store.url == LmdbStore(Path("/x"))


def test_flags_left_out_take_the_defaults() -> None:
    config = config_from_flags("http://127.0.0.1:3000", store="memory:")
    assert config.listen[0].address == Address("127.0.0.1", 8080)
    assert config.admin.address == Address("127.0.0.1", 8081)
    assert config.workers == "auto"
    assert config.store.url == MemoryStore()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"origin": "127.0.0.1:3000"}, '--origin: "127.0.0.1:3000" has no scheme; write "http'),
        ({"listen": "8080"}, '--listen: "8080" has no port; give "HOST:PORT"'),
        ({"admin": "x:y"}, '--admin: "x:y" is not an address'),
        ({"workers": "no"}, "--workers: give a number between 1 and 256"),
        ({"store": "disk"}, '--store: is not the URL of a store; write "lmdb:FOLDER"'),
        ({"listen": "[::1]:5", "admin": "[::1]:5"}, '"[::1]:5" is taken by --listen ("[::1]:5")'),
    ],
)
def test_a_wrong_flag_is_named(flags: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_flags(**{"origin": "http://127.0.0.1:3000", **flags})
    assert message in str(caught.value)
