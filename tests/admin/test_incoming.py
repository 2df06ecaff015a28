"""Calls as they come: queries, forms and JSON, read strictly."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.admin.incoming import Incoming, read_form, read_json_object
from edgeproxy.admin.refusals import Refused, Why


def incoming(body: bytes = b"", content_type: str | None = None, query: str = "") -> Incoming:
    async def read(_: int) -> bytes:
        return body

    headers = {} if content_type is None else {"Content-Type": content_type}
    return Incoming("POST", "/", query, headers, "127.0.0.1", read)


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("body", "content_type", "read"),
    [
        (b"", None, {}),
        (b"", FORM, {}),
        (b"", "text/plain", {}),
        (b"a=1&b=&c=x+%C3%BC", FORM, {"a": "1", "b": "", "c": "x ü"}),
        (b"a=1", f"{FORM.upper()}; charset=UTF-8", {"a": "1"}),
        (b'{"a": 1}', "application/json", {"a": 1}),
        (b'{"a": 1}', 'application/json; charset="utf-8"', {"a": 1}),
        (b'{"a": 1}', None, {"a": 1}),
    ],
)
async def test_a_form_or_json(body: bytes, content_type: str | None, read: dict[str, Any]) -> None:
    assert await incoming(body, content_type).form_or_json() == read


@pytest.mark.parametrize(
    ("body", "content_type", "why"),
    [
        (b"a=1&a=2", FORM, Why.BAD_REQUEST),
        (b"a=%ff", FORM, Why.BAD_REQUEST),
        (b"a=\xc3\xbc", FORM, Why.BAD_REQUEST),
        (b"&".join(b"a%d=" % number for number in range(1001)), FORM, Why.BAD_REQUEST),
        (b'{"a": 1, "a": 1}', None, Why.BAD_REQUEST),
        (b'{"b": [{"a": 1, "a": 1}]}', None, Why.BAD_REQUEST),
        (b"a=1", "text/plain", Why.WRONG_CONTENT_TYPE),
        (b"a=1", f"{FORM}; charset=latin-1", Why.WRONG_CONTENT_TYPE),
        (b"--x", "multipart/form-data; boundary=x", Why.WRONG_CONTENT_TYPE),
    ],
)
async def test_what_is_neither(body: bytes, content_type: str | None, why: Why) -> None:
    with pytest.raises(Refused) as caught:
        await incoming(body, content_type).form_or_json()
    assert caught.value.why is why


@pytest.mark.parametrize("content_type", [FORM, "text/plain"])
async def test_where_json_alone_is_read(content_type: str) -> None:
    with pytest.raises(Refused) as caught:
        await incoming(b"{}", content_type).json_object()
    assert caught.value.why is Why.WRONG_CONTENT_TYPE
    assert await incoming(b"{}", "application/vnd.api+json").json_object() == {}


@pytest.mark.parametrize(("depth", "allowed"), [(1, True), (32, True), (33, False), (500, False)])
def test_how_deep_json_may_be(depth: int, allowed: bool) -> None:
    content = b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)
    if allowed:
        read_json_object(content)
    else:
        with pytest.raises(Refused, match="deep"):
            read_json_object(content)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_json_is_read_or_refused(content: bytes) -> None:
    try:
        assert isinstance(read_json_object(content), dict)
    except Refused as refused:
        assert refused.why is Why.BAD_REQUEST


@given(st.text(max_size=60))
def test_a_form_is_read_or_refused(text: str) -> None:
    try:
        read_form(text, "the query")
    except Refused as refused:
        assert refused.why is Why.BAD_REQUEST


def test_the_query() -> None:
    assert incoming(query="site=shop&x=").query == {"site": "shop", "x": ""}
    with pytest.raises(Refused, match="'a' twice"):
        assert incoming(query="a=1&a=1").query


async def test_the_body_is_read_once() -> None:
    reads = []

    async def read(most: int) -> bytes:
        reads.append(most)
        return b'{"a": 1}'

    call = Incoming("POST", "/", "", {}, "", read)
    assert await call.body() == await call.body()
    assert await call.json_object() == {"a": 1}
    assert len(reads) == 1


@pytest.mark.parametrize(("value", "dry"), [(None, False), ("0", False), ("1", True)])
def test_a_dry_run_is_asked_for_with_1(value: str | None, dry: bool) -> None:
    call = incoming()
    call.headers = {} if value is None else {"Edge-Dry-Run": value}
    assert call.dry_run is dry


@pytest.mark.parametrize("value", ["", "true", "yes", "2"])
def test_anything_else_is_not_guessed_at(value: str) -> None:
    call = incoming()
    call.headers = {"Edge-Dry-Run": value}
    with pytest.raises(Refused, match="Edge-Dry-Run"):
        assert call.dry_run
