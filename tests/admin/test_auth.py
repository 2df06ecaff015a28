"""Who may call the admin API, and what each may do."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from edgeproxy.admin.auth import Authenticator, permitted, require
from edgeproxy.admin.problems import Problem
from edgeproxy.config.server import Action, AdminToken

SECRETS = {"editor": "Xkj38-editor", "robot": "Ys8_robot~x", "gruen": "grün"}


def token(name: str = "editor", **settings: Any) -> AdminToken:
    digest = hashlib.sha256(SECRETS[name].encode()).hexdigest()
    return AdminToken(name=name, hash=f"sha256:{digest}", **settings)


TOKENS = [token(name) for name in SECRETS]


@pytest.mark.parametrize(
    ("authorization", "name"),
    [
        pytest.param("Bearer Xkj38-editor", "editor", id="6750-2.1"),
        pytest.param("Bearer Ys8_robot~x", "robot", id="another one"),
        pytest.param("bearer Xkj38-editor", "editor", id="9110-11.1: schemes in any case"),
        pytest.param("BEARER Xkj38-editor", "editor", id="9110-11.1: in capitals"),
        pytest.param("Bearer   Xkj38-editor  ", "editor", id="9110-11.4: 1*SP"),
        pytest.param("Bearer grün", "gruen", id="bytes beyond ASCII"),
    ],
)
def test_a_token_is_known_by_its_hash(authorization: str, name: str) -> None:
    assert Authenticator(TOKENS).identify(authorization).name == name


@pytest.mark.parametrize(
    ("authorization", "said"),
    [
        pytest.param(None, "send Authorization", id="none at all"),
        pytest.param("", "must be", id="empty"),
        pytest.param("Bearer", "must be", id="no token"),
        pytest.param("Bearer  ", "must be", id="blanks for a token"),
        pytest.param("Basic Xkj38-editor", "must be", id="another scheme"),
        pytest.param("Xkj38-editor", "must be", id="no scheme"),
        pytest.param("BearerXkj38-editor", "must be", id="no space"),
        pytest.param("Bearer " + "a" * 4097, "must be", id="one that is nobody's"),
        pytest.param("Bearer Xkj38-Editor", "not known", id="tokens in their own case"),
        pytest.param("Bearer Xkj38-editor2", "not known", id="longer"),
        pytest.param("Bearer Xkj38-edito", "not known", id="shorter"),
        pytest.param("Bearer Xkj38-editor x", "not known", id="with a blank inside"),
        pytest.param(f"Bearer {TOKENS[0].hash}", "not known", id="the hash is not the token"),
        pytest.param(f"Bearer {TOKENS[0].digest.hex()}", "not known", id="nor without its name"),
        pytest.param("Bearer \udcff", "not known", id="bytes that are no text"),
    ],
)
def test_all_others_are_strangers(authorization: str | None, said: str) -> None:
    with pytest.raises(Problem) as caught:
        Authenticator(TOKENS).identify(authorization)
    assert caught.value.status == 401
    assert said in caught.value.detail
    # RFC 9110 11.6.1: a 401 says how.
    assert caught.value.headers == {"WWW-Authenticate": 'Bearer realm="edgeproxy"'}
    assert SECRETS["editor"] not in caught.value.detail


def test_without_tokens_nobody_is_known() -> None:
    with pytest.raises(Problem, match="not known"):
        Authenticator([]).identify("Bearer Xkj38-editor")


@pytest.mark.parametrize(
    ("settings", "action", "sites", "refused"),
    [
        ({}, "purge", ["shop", "blog"], None),
        ({"sites": ["shop"]}, "purge", ["shop"], None),
        ({"sites": ["shop"]}, "purge", ["shop", "blog"], 'purge on site "blog"'),
        ({"sites": ["shop"], "actions": ["read"]}, "purge", ["shop"], 'purge on site "shop"'),
        ({"actions": ["read"]}, "read", ["shop"], None),
        ({"actions": ["purge"]}, "read", ["shop"], 'read on site "shop"'),
        ({"sites": ["shop"]}, "purge", ["sho"], 'purge on site "sho"'),
        ({"sites": ["shop"]}, "purge", [], None),
    ],
)
def test_what_a_token_may_do(
    settings: dict[str, Any], action: Action, sites: list[str], refused: str | None
) -> None:
    bearer = token(**settings)
    if refused is None:
        require(bearer, action, sites)
        return
    with pytest.raises(Problem) as caught:
        require(bearer, action, sites)
    assert caught.value.status == 403
    assert caught.value.detail == f'the token "editor" may not {refused}'


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, ["blog", "shop"]),
        ({"sites": ["shop"]}, ["shop"]),
        ({"sites": ["shop", "other"]}, ["shop"]),
    ],
)
def test_all_sites_are_those_that_it_may(settings: dict[str, Any], allowed: list[str]) -> None:
    assert permitted(token(**settings), "purge", ["blog", "shop"]) == allowed


@pytest.mark.parametrize("settings", [{"sites": ["other"]}, {"actions": ["read"]}])
def test_all_of_none_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        permitted(token(**settings), "purge", ["blog", "shop"])
    assert caught.value.status == 403
