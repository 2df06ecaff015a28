"""Who may call the admin port, and what each may do."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.admin import auth
from edgeproxy.admin.auth import (
    Authenticator,
    Credentials,
    admit,
    bearer,
    environment_of,
    permitted,
    require,
)
from edgeproxy.admin.incoming import Incoming
from edgeproxy.admin.refusals import Limit, Refused, Why
from edgeproxy.config.hashes import SecretHash, sha256_hash
from edgeproxy.config.rates import Rate
from edgeproxy.config.server import Action, AdminToken
from edgeproxy.invalidation.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRETS = {"editor": "Xkj38-editor", "robot": "Ys8_robot~x", "gruen": "grün"}
NOW = 1_700_000_000.0


def token(name: str = "editor", **settings: Any) -> AdminToken:
    return AdminToken(name=name, hash=sha256_hash(SECRETS[name].encode()), **settings)


def weak_scrypt(secret: str) -> str:
    """A hash that takes a few milliseconds."""
    salt = b"0123456789abcdef"
    key = hashlib.scrypt(secret.encode(), salt=salt, n=1 << 12, r=1, p=1, dklen=32)
    return f"scrypt:ln=12,r=1,p=1:{salt.hex()}:{key.hex()}"


TOKENS = [token(name) for name in SECRETS]


def incoming(authorization: str | None) -> Incoming:
    async def read(_: int) -> bytes:
        return b""

    headers = {} if authorization is None else {"Authorization": authorization}
    return Incoming("POST", "/", "", headers, "127.0.0.1", read)


async def identify(authorization: str | None, *, bare: bool = False) -> AdminToken | None:
    """Who sends that field."""
    credentials = bearer(incoming(authorization), bare=bare)
    return None if credentials is None else await Authenticator(TOKENS).identify(credentials)


# -- by what a token is known


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
async def test_a_token_is_known_by_its_hash(authorization: str, name: str) -> None:
    found = await identify(authorization)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="none at all"),
        pytest.param("", id="empty"),
        pytest.param("Bearer", id="no token"),
        pytest.param("Bearer  ", id="blanks for a token"),
        pytest.param("Basic Xkj38-editor", id="another scheme"),
        pytest.param("Xkj38-editor", id="no scheme"),
        pytest.param("BearerXkj38-editor", id="no space"),
        pytest.param("Bearer " + "a" * 4097, id="one that is nobody's"),
        pytest.param("Bearer Xkj38-Editor", id="tokens in their own case"),
        pytest.param("Bearer Xkj38-editor2", id="longer"),
        pytest.param("Bearer Xkj38-edito", id="shorter"),
        pytest.param("Bearer Xkj38-editor x", id="with a blank inside"),
        pytest.param(f"Bearer {TOKENS[0].hash}", id="the hash is not the token"),
        pytest.param(f"Bearer {TOKENS[0].secret.digest.hex()}", id="nor without its name"),
        pytest.param("Bearer \udcff", id="bytes that are no text"),
        pytest.param("Bearer \ud800", id="no bytes at all"),
    ],
)
async def test_all_others_are_strangers(authorization: str | None) -> None:
    assert await identify(authorization) is None


@pytest.mark.parametrize(
    ("authorization", "known"),
    [("Xkj38-editor", True), ("Bearer Xkj38-editor", True), ("Basic Xkj38-editor", False)],
)
async def test_where_the_token_may_come_alone(authorization: str, known: bool) -> None:
    assert (await identify(authorization, bare=True) is not None) is known


async def test_without_tokens_nobody_is_known() -> None:
    assert await Authenticator([]).identify(Credentials("Xkj38-editor")) is None


@pytest.mark.parametrize(
    ("access", "known"),
    [(None, True), ("second", True), ("wrong", False), ("", False), ("Xkj38-editor", False)],
)
async def test_two_secrets_must_fit_where_two_are_sent(access: str | None, known: bool) -> None:
    authenticator = Authenticator([token(access_hash=sha256_hash(b"second"))])
    found = await authenticator.identify(Credentials("Xkj38-editor", access))
    assert (found is not None) is known


async def test_a_token_without_a_second_secret_has_none_that_fits() -> None:
    assert await Authenticator(TOKENS).identify(Credentials("Xkj38-editor", "")) is None
    assert await Authenticator(TOKENS).identify(Credentials("Xkj38-editor", "x")) is None


# -- secrets that people chose


async def test_a_secret_that_people_chose_is_known_by_scrypt() -> None:
    slow = AdminToken(name="human", hash=weak_scrypt("horse"), access_hash=weak_scrypt("battery"))
    authenticator = Authenticator([*TOKENS, slow])
    for _ in range(2):
        for secret, access, name in (
            ("horse", None, "human"),
            ("horse", "battery", "human"),
            ("horse", "horse", None),
            ("battery", None, None),
            ("Xkj38-editor", None, "editor"),
        ):
            found = await authenticator.identify(Credentials(secret, access))
            assert (found and found.name) == name


async def test_scrypt_runs_in_a_thread_and_once_for_each_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[threading.Thread] = []
    matches = SecretHash.matches

    def watched(self: SecretHash, secret: bytes) -> bool:
        if self.slow:
            threads.append(threading.current_thread())
        return matches(self, secret)

    monkeypatch.setattr(SecretHash, "matches", watched)
    authenticator = Authenticator([AdminToken(name="human", hash=weak_scrypt("horse"))])
    for _ in range(3):
        assert await authenticator.identify(Credentials("horse")) is not None
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_strangers_can_not_make_it_hash_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One at a time, a few that wait, and who is known already does not wait with them."""
    authenticator = Authenticator([AdminToken(name="human", hash=weak_scrypt("horse"))])
    assert await authenticator.identify(Credentials("horse")) is not None
    go_on = threading.Event()
    at_once: list[int] = []
    running = 0

    def held(self: SecretHash, secret: bytes) -> bool:
        nonlocal running
        running += 1
        at_once.append(running)
        assert go_on.wait(10)
        running -= 1
        return False

    monkeypatch.setattr(SecretHash, "matches", held)
    guesses = [
        asyncio.create_task(authenticator.identify(Credentials(f"guess {number}")))
        for number in range(auth._MAX_QUEUE)
    ]
    await asyncio.sleep(0)
    with pytest.raises(Refused) as caught:
        await authenticator.identify(Credentials("one more"))
    assert (caught.value.why, caught.value.headers(503)) == (Why.BUSY, {"Retry-After": "5"})
    assert await authenticator.identify(Credentials("horse")) is not None
    go_on.set()
    assert await asyncio.gather(*guesses) == [None] * auth._MAX_QUEUE
    assert set(at_once) == {1}


def test_no_secret_is_shown() -> None:
    shown = repr(Credentials("Xkj38-editor", "second")) + repr(token().secret) + repr(token())
    assert "Xkj38" not in shown
    assert "second" not in shown
    assert token().secret.digest.hex() not in shown


# -- whether it is good now


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path)
    yield opened
    opened.close()


async def admitted(
    ledger: Ledger,
    settings: dict[str, Any],
    *,
    client: str = "127.0.0.1",
    dialect: str = "wix",
    rate: Rate | None = None,
    now: float = NOW,
) -> AdminToken:
    return await admit(
        Credentials(SECRETS["editor"]),
        Authenticator([token(**settings)]),
        ledger,
        client=client,
        dialect=dialect,
        rate=rate,
        now=now,
    )


@pytest.mark.parametrize(
    ("settings", "client", "why"),
    [
        ({}, "127.0.0.1", None),
        ({"enabled": False}, "127.0.0.1", Why.DISABLED),
        ({"expires": "2023-11-14T22:13:20Z"}, "127.0.0.1", Why.EXPIRED),
        ({"expires": "2023-11-14T23:13:20+01:00"}, "127.0.0.1", Why.EXPIRED),
        ({"expires": "2023-11-14T22:13:21Z"}, "127.0.0.1", None),
        ({"networks": ["10.0.0.0/8", "::1"]}, "10.1.2.3", None),
        ({"networks": ["10.0.0.0/8", "::1"]}, "::ffff:10.1.2.3", None),
        ({"networks": ["10.0.0.0/8", "::1"]}, "::1", None),
        ({"networks": ["10.0.0.0/8", "::1"]}, "11.0.0.1", Why.WRONG_NETWORK),
        ({"networks": ["10.0.0.0/8", "::1"]}, "", Why.WRONG_NETWORK),
    ],
)
async def test_a_token_that_is_known_may_still_not_be_good(
    ledger: Ledger, settings: dict[str, Any], client: str, why: Why | None
) -> None:
    if why is None:
        assert (await admitted(ledger, settings, client=client)).name == "editor"
        return
    with pytest.raises(Refused) as caught:
        await admitted(ledger, settings, client=client)
    assert caught.value.why is why
    assert SECRETS["editor"] not in str(caught.value)


@pytest.mark.parametrize(
    ("credentials", "why"),
    [(None, Why.NO_CREDENTIALS), (Credentials("nobody's"), Why.UNKNOWN_TOKEN)],
)
async def test_missing_and_unknown_are_told_apart(
    ledger: Ledger, credentials: Credentials | None, why: Why
) -> None:
    with pytest.raises(Refused) as caught:
        await admit(
            credentials, Authenticator(TOKENS), ledger,
            client="", dialect="wix", rate=None, now=NOW,
        )  # fmt: skip
    assert caught.value.why is why
    # RFC 9110 11.6.1: a 401 says how.
    assert caught.value.headers(401) == {"WWW-Authenticate": 'Bearer realm="edgeproxy"'}


async def test_calls_beyond_the_token_s_limit(ledger: Ledger) -> None:
    for _ in range(2):
        await admitted(ledger, {"max_calls": 2})
    with pytest.raises(Refused) as caught:
        await admitted(ledger, {"max_calls": 2})
    assert caught.value.why is Why.OVER_CALL_LIMIT


async def test_calls_beyond_the_token_s_rate(ledger: Ledger) -> None:
    settings = {"rate": "2/60s", "max_calls": 3}
    await admitted(ledger, settings)
    await admitted(ledger, settings, dialect="vercel", now=NOW + 20)
    with pytest.raises(Refused) as caught:
        await admitted(ledger, settings, now=NOW + 20.5)
    assert (caught.value.why, caught.value.limit) == (Why.RATE_LIMITED, Limit(2, NOW + 60))
    assert caught.value.headers(429) == {"Retry-After": "40"}
    await admitted(ledger, settings, now=NOW + 60)
    with pytest.raises(Refused) as caught:
        await admitted(ledger, settings, now=NOW + 61)
    assert caught.value.why is Why.OVER_CALL_LIMIT, "what the rate refused was no call"


async def test_calls_beyond_the_dialect_s_rate(ledger: Ledger) -> None:
    rate = Rate(1, 60.0)
    await admitted(ledger, {}, rate=rate)
    await admitted(ledger, {}, rate=rate, dialect="vercel")
    await admitted(ledger, {})
    with pytest.raises(Refused) as caught:
        await admitted(ledger, {}, rate=rate)
    assert caught.value.limit == Limit(1, NOW + 60)


# -- what it may do


@pytest.mark.parametrize(
    ("settings", "action", "sites", "refused"),
    [
        ({}, "purge", ["shop", "blog"], None),
        ({"sites": ["shop"]}, "purge", ["shop"], None),
        ({"sites": ["shop"]}, "purge", ["shop", "blog"], 'purge on site "blog"'),
        ({"sites": ["shop"], "actions": ["read"]}, "purge", ["shop"], 'purge on site "shop"'),
        ({"actions": ["read"]}, "read", ["shop"], None),
        ({"actions": ["purge"]}, "read", ["shop"], 'read on site "shop"'),
        ({"actions": ["purge"]}, "purge-everything", ["a"], 'purge-everything on site "a"'),
        ({"sites": ["shop"]}, "purge", ["sho"], 'purge on site "sho"'),
        ({"sites": ["shop"]}, "purge", [], None),
    ],
)
def test_what_a_token_may_do(
    settings: dict[str, Any], action: Action, sites: list[str], refused: str | None
) -> None:
    holder = token(**settings)
    if refused is None:
        require(holder, action, sites)
        return
    with pytest.raises(Refused) as caught:
        require(holder, action, sites)
    assert caught.value.why is Why.FORBIDDEN
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
    with pytest.raises(Refused) as caught:
        permitted(token(**settings), "purge", ["blog", "shop"])
    assert caught.value.why is Why.FORBIDDEN


@pytest.mark.parametrize(
    ("environments", "asked", "meant"),
    [
        (["production", "preview"], None, None),
        (["production", "preview"], "preview", "preview"),
        (["preview"], None, "preview"),
        (["preview"], "preview", "preview"),
        (["preview"], "production", "refused"),
    ],
)
def test_environments_are_those_of_the_token(
    environments: list[str], asked: str | None, meant: str | None
) -> None:
    holder = token(environments=environments)
    if meant == "refused":
        with pytest.raises(Refused, match="production"):
            environment_of(holder, asked)
    else:
        assert environment_of(holder, asked) == meant
