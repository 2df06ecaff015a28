"""The dialects' settings, and what tokens can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.config.describe import describe
from edgeproxy.config.errors import ConfigError
from edgeproxy.config.load import load_config
from edgeproxy.config.model import Config
from edgeproxy.config.rates import Rate
from tests.config.configs import HASH, OTHER_HASH, config, load

if TYPE_CHECKING:
    from pathlib import Path

SCRYPT = f"scrypt:ln=14,r=8,p=1:{'ab' * 16}:{'cd' * 32}"


def dialects(**settings: Any) -> dict[str, Any]:
    return {"admin": {"dialects": settings}}


def token(**settings: Any) -> dict[str, Any]:
    return {"admin": {"tokens": [{"name": "x", "hash": HASH, **settings}]}}


def test_defaults_are_the_vendors() -> None:
    found = config().admin.dialects
    assert all(settings.enabled and settings.host is None for _, settings in found.named())
    assert (found.wix.max_tags, found.wix.max_tag_length) == (100, 500)
    assert (found.vercel.max_tags, found.vercel.max_tag_length, found.vercel.max_images) == (
        16,
        256,
        8,
    )
    assert found.brilliant_directories.rate == Rate(100, 60.0)
    assert found.wix.rate is None
    assert (found.flextype.allow_get, found.flextype.status) == (True, 200)
    assert (found.optimole.max_assets, found.cloudflare.max_items) == (100, 100)
    assert found.fastly.max_keys == 256


def test_an_area_is_what_its_site_says() -> None:
    areas = {"shop": {"css": ["tag:css", "type:text/css", "prefix:/a:b/"]}}
    found = config(dialects(brilliant_directories={"areas": areas})).admin.dialects
    shop = found.brilliant_directories.areas["shop"]
    assert shop.css == ("tag:css", "type:text/css", "prefix:/a:b/")
    assert shop.menus == ("tag:menus",)


def test_json_keeps_all_of_it() -> None:
    changed = config(
        {
            "admin": {
                "tokens": [
                    {
                        **token()["admin"]["tokens"][0],
                        "access_hash": OTHER_HASH,
                        "expires": "2027-01-31T18:00:00+01:00",
                        "rate": "5/1m",
                        "networks": ["10.0.0.0/8"],
                        "max_calls": 5,
                        "enabled": False,
                    },
                    {"name": "y", "hash": SCRYPT},
                ],
                "dialects": {"wix": {"host": "Wix.test", "rate": "1/1s"}},
            }
        }
    )
    assert Config.model_validate_json(changed.model_dump_json()) == changed
    assert changed.admin.dialects.wix.host == "wix.test"
    assert changed.admin.allows_host("wix.test:8081")
    assert not changed.admin.allows_host("other.test")


def test_toml_s_own_dates_are_read(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(
        f'[[admin.tokens]]\nname = "x"\nhash = "{HASH}"\nexpires = 2027-01-31T18:00:00Z\n'
        '[sites.shop]\nhosts = ["a.test"]\norigins = [{url = "http://127.0.0.1:1"}]\n'
    )
    (found,) = load_config(path).admin.tokens
    assert found.expires is not None
    assert found.expires.isoformat() == "2027-01-31T18:00:00+00:00"


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        (dialects(wixx={}), "admin.dialects.wixx", 'did you mean "wix"?'),
        (dialects(wix={"host": "*.a.test"}), "admin.dialects.wix.host", "is not one name"),
        (
            dialects(wix={"host": "a.test"}, fastly={"host": "a.test"}),
            "admin.dialects.fastly.host",
            "is admin.dialects.wix.host already",
        ),
        (dialects(wix={"rate": "100"}), "admin.dialects.wix.rate", "is not a rate"),
        (dialects(wix={"max_tags": 0}), "admin.dialects.wix.max_tags", "at least 1"),
        (dialects(flextype={"status": 201}), "admin.dialects.flextype.status", "200 or 204"),
        (
            dialects(brilliant_directories={"areas": {"shopp": {}}}),
            "admin.dialects.brilliant_directories.areas.shopp",
            'did you mean "shop"?',
        ),
        (
            dialects(brilliant_directories={"areas": {"shop": {"css": ["css"]}}}),
            "admin.dialects.brilliant_directories.areas.shop.css[0]",
            "picks nothing",
        ),
        *(
            (
                dialects(brilliant_directories={"areas": {"shop": {"css": ["tag:css", pick]}}}),
                "admin.dialects.brilliant_directories.areas.shop.css[1]",
                says,
            )
            for pick, says in (
                ("url:style.css", "neither an http(s) URL nor a path"),
                ("prefix:assets/", "neither an http(s) URL nor a path"),
                ("url:/a b", "must be percent-encoded"),
                ("type:css", "no media type"),
            )
        ),
        (token(expires="2027-01-31T18:00:00"), "admin.tokens[0].expires", "is not a moment"),
        (token(expires="soon"), "admin.tokens[0].expires", "is not a moment"),
        (token(rate="0/1s"), "admin.tokens[0].rate", "at least one call"),
        (token(networks=["10.0.0.1/8"]), "admin.tokens[0].networks[0]", '"10.0.0.0/8"'),
        (token(environments=["prod"]), "admin.tokens[0].environments[0]", "production"),
        (token(actions=["purge-all"]), "admin.tokens[0].actions[0]", "purge"),
        (token(access_hash="secret-word"), "admin.tokens[0].access_hash", "is not the hash"),
        (
            {"admin": {"tokens": [
                {"name": f"t{at}", "hash": f"scrypt:ln=14,r=8,p=1:{at:032x}:{'cd' * 32}"}
                for at in range(33)
            ]}},
            "admin.tokens",
            "33 of them have a scrypt hash",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    tmp_path: Path, change: dict[str, Any], key: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, change)
    (problem,) = caught.value.problems
    assert problem.key == key
    assert said in problem.message
    assert "secret-word" not in str(caught.value)


def test_what_a_token_is_limited_to_is_told() -> None:
    limits = token(
        environments=["preview"],
        expires="2027-01-31T18:00:00Z",
        max_calls=5,
        rate="2/1m",
        networks=["10.0.0.0/8"],
        enabled=False,
        actions=["read"],
    )
    assert (
        "x may read on all sites, preview alone, until 2027-01-31T18:00:00+00:00, for 5 calls, "
        "at most 2/1m, from 10.0.0.0/8, DISABLED"
    ) in describe(config(limits))


def test_which_dialects_are_spoken_is_told() -> None:
    text = describe(config(dialects(wix={"host": "wix.test"}, fastly={"enabled": False})))
    (line,) = (each for each in text.splitlines() if "speaks:" in each)
    assert "wix (as wix.test alone), vercel" in line
    assert "fastly" not in line
