"""The forms of the access log's lines, and that no client can forge one."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from edgeproxy.proxy.access import AccessRecord
from edgeproxy.runtime.access_format import common, json_line

RECORD = AccessRecord(
    client="192.0.2.7",
    method=b"GET",
    target=b"/shop?a=1&b=%20",
    version="1.1",
    status=200,
    bytes_sent=5120,
    result="hit",
    cache_status=b"edgeproxy; hit; ttl=30",
    site="shop",
    host="shop.example",
    referer=b"https://shop.example/",
    user_agent=b"curl/8.5",
    started=1_700_000_000.25,
    duration=0.0021994,
    first_byte=0.0005,
    origin_seconds=None,
)


def test_common_is_the_combined_format_with_result_and_times() -> None:
    assert common(RECORD) == (
        b"192.0.2.7 - - [14/Nov/2023:22:13:20 +0000] "
        b'"GET /shop?a=1&b=%20 HTTP/1.1" 200 5120 "https://shop.example/" "curl/8.5" '
        b"hit 0.002199 0.000500 -\n"
    )


def test_json_is_one_object_a_line() -> None:
    line = json_line(RECORD)
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "client": "192.0.2.7",
        "method": "GET",
        "target": "/shop?a=1&b=%20",
        "version": "1.1",
        "status": 200,
        "bytes": 5120,
        "result": "hit",
        "cache_status": "edgeproxy; hit; ttl=30",
        "site": "shop",
        "host": "shop.example",
        "referer": "https://shop.example/",
        "user_agent": "curl/8.5",
        "duration": 0.002199,
        "first_byte": 0.0005,
        "origin": None,
    }


def test_who_was_turned_away_before_there_was_a_request() -> None:
    unasked = replace(RECORD, method=b"", target=b"", version="", status=503, result="refused")
    assert b'] "-" 503 5120 ' in common(unasked)


def test_what_is_absent_is_a_dash_or_empty() -> None:
    record = replace(RECORD, client="", referer=b"", user_agent=b"", first_byte=None)
    assert common(record).startswith(b"- - - [")
    assert b' 5120 "-" "-" hit 0.002199 - -\n' in common(record)
    assert json.loads(json_line(record))["first_byte"] is None


@pytest.mark.parametrize(
    ("hostile", "in_common", "in_json"),
    [
        (b'x" 200 1 "', rb"x\" 200 1 \"", b'x\\" 200 1 \\"'),
        (b"a\\", rb"a\\", rb"a\\"),
        (b"a\r\nb", rb"a\x0d\x0ab", rb"a\r\nb"),
        (b"\x1b[2J", rb"\x1b[2J", rb"\u001b[2J"),
        (b"\x7f", rb"\x7f", rb"\u007f"),
        (b"\xc3\xa9", rb"\xc3\xa9", rb"\u00e9"),
        (b"\xff", rb"\xff", rb"\\xff"),
        ("\U0001f600".encode(), rb"\xf0\x9f\x98\x80", rb"\ud83d\ude00"),
    ],
)
@pytest.mark.parametrize("field", ["method", "target", "referer", "user_agent"])
def test_what_a_client_sends_is_escaped(
    field: str, hostile: bytes, in_common: bytes, in_json: bytes
) -> None:
    record = replace(RECORD, **{field: hostile})
    assert in_common in common(record)
    assert in_json in json_line(record)


@settings(max_examples=200)
@given(st.tuples(st.binary(), st.binary(), st.binary(), st.binary(), st.text(), st.text()))
def test_a_record_is_always_one_line_of_printable_ascii(
    values: tuple[bytes, bytes, bytes, bytes, str, str],
) -> None:
    method, target, referer, user_agent, client, host = values
    record = replace(
        RECORD,
        method=method,
        target=target,
        referer=referer,
        user_agent=user_agent,
        client=client,
        host=host,
    )
    for line in (common(record), json_line(record)):
        assert line.endswith(b"\n")
        assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    assert json.loads(json_line(record))["target"] == target.decode("utf-8", "backslashreplace")
