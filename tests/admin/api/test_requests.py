"""What the body of a purge may say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from edgeproxy.admin.api.kinds import MAX_SELECTORS
from edgeproxy.admin.api.requests import PurgeRequest

LONGEST = "a" * 8192


@pytest.mark.parametrize(
    "body",
    [
        {"tags": ["home"]},
        {"urls": ["https://shop.test/"]},
        {"everything": True},
        {"tags": ["home"], "urls": ["/"], "everything": True},
        {"tags": [], "urls": ["/"]},
        {"tags": [LONGEST]},
        {"tags": ["a"] * MAX_SELECTORS},
        {"tags": ["grün, \u2603"]},
        {"tags": ["a"], "site": "shop", "environment": "preview", "mode": "delete"},
        {"tags": ["a"], "environment": "production", "mode": "invalidate", "dry_run": True},
        {"tags": ["a"], "site": None, "environment": None},
    ],
    ids=lambda body: str(body)[:60],
)
def test_what_is_good(body: dict[str, Any]) -> None:
    read = PurgeRequest.model_validate(body)
    assert {name: getattr(read, name) for name in body} == body


def test_what_is_not_said_is_the_gentlest() -> None:
    read = PurgeRequest.model_validate({"tags": ["home"]})
    assert (read.mode, read.dry_run, read.everything) == ("invalidate", False, False)
    assert (read.site, read.environment, read.urls) == (None, None, [])


@pytest.mark.parametrize(
    ("body", "at", "said"),
    [
        ({}, (), '"selectors" or "everything": true'),
        ({"tags": [], "urls": [], "everything": False}, (), '"selectors" or "everything": true'),
        ({"site": "shop"}, (), '"selectors" or "everything": true'),
        ([], (), "dictionary"),
        ("home", (), "dictionary"),
        (None, (), "dictionary"),
        ({"tags": "home"}, ("tags",), "list"),
        ({"tags": None}, ("tags",), "list"),
        ({"tags": {"home": 1}}, ("tags",), "list"),
        ({"tags": ["a", 1]}, ("tags", 1), "string"),
        ({"tags": [None]}, ("tags", 0), "string"),
        ({"tags": ["a", ""]}, ("tags", 1), "at least 1"),
        ({"tags": [LONGEST + "a"]}, ("tags", 0), "at most 8192"),
        ({"tags": ["a"] * (MAX_SELECTORS + 1)}, ("tags",), "at most 10000"),
        ({"tags": ["\ud800"]}, ("tags", 0), "unicode"),
        ({"urls": [""]}, ("urls", 0), "at least 1"),
        ({"urls": ["/"] * (MAX_SELECTORS + 1)}, ("urls",), "at most 10000"),
        ({"everything": "true"}, ("everything",), "boolean"),
        ({"everything": 1}, ("everything",), "boolean"),
        ({"tags": ["a"], "dry_run": "no"}, ("dry_run",), "boolean"),
        ({"tags": ["a"], "site": ""}, ("site",), "at least 1"),
        ({"tags": ["a"], "site": 7}, ("site",), "string"),
        ({"tags": ["a"], "mode": "soft"}, ("mode",), "'invalidate' or 'delete'"),
        ({"tags": ["a"], "mode": None}, ("mode",), "'invalidate' or 'delete'"),
        ({"tags": ["a"], "environment": "test"}, ("environment",), "'production' or 'preview'"),
        ({"tags": ["a"], "tag": "b"}, ("tag",), "not permitted"),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict | list | str | None) else "",
)
def test_what_is_wrong_is_named(body: Any, at: tuple[str | int, ...], said: str) -> None:
    """A mistake must not purge something else, or nothing: no key and no type is guessed at."""
    with pytest.raises(ValidationError) as caught:
        PurgeRequest.model_validate(body)
    (error,) = caught.value.errors()
    assert error["loc"] == at
    assert said in error["msg"]


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        PurgeRequest.model_validate({"tags": [""], "urls": [1], "mode": "x"})
    assert [error["loc"] for error in caught.value.errors()] == [
        ("tags", 0),
        ("urls", 0),
        ("mode",),
    ]
