"""Heads of requests: the fast path's reader, the checks before the parser, and the parser agree."""

from typing import Any

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from edgeproxy.proxy.framing import (
    HEAD_END,
    asks_to_close,
    body_framing,
    check_beginning,
    read_head,
)
from edgeproxy.proxy.refused import Refused
from edgeproxy.proxy.scanning import all_fields, scan, scan_slowly, values, values_slowly
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.forwarding import end_to_end
from fuzz.parts import event_loop

MAX_FIELDS = 100
NAMES = (b"host", b"accept", b"x")
STATUSES = {400, 405, 413, 414, 431, 501, 505}


def check(data: bytes) -> None:
    end = data.find(HEAD_END)
    head = data[: end + 4] if end >= 0 else data + HEAD_END
    if head.find(HEAD_END) != len(head) - 4:
        head = head[: head.find(HEAD_END) + 4]
    message = _parsed(head)
    found = scan(head, 0, len(head), MAX_FIELDS)
    assert scan_slowly(head, 0, len(head), MAX_FIELDS) == found, head
    if found is not None:
        assert values(head, 0, NAMES) == values_slowly(head, 0, NAMES)
    if message is None:
        return
    # No beginning of a head that is taken was refused.
    for length in range(1, min(len(head), 200)):
        check_beginning(head[:length])
    if found is not None:
        end, key, closing, _ = found
        fields = Fields(message.raw_headers)
        assert end == len(head)
        assert all_fields(head, key) == end_to_end(fields), head
        assert closing == asks_to_close(message)
        assert body_framing(message) is None
        assert fields.get_all(b"host") == (key.split(b"\n")[1],)


def _parsed(head: bytes) -> Any:
    """The message that the parser finds in the head; None where anybody refuses it."""
    try:
        check_beginning(head)
        read = read_head(head, MAX_FIELDS)
        assert read.parsable.endswith(HEAD_END)
        loop = event_loop()
        protocol = BaseProtocol(loop)
        parser = HttpRequestParser(
            protocol, loop, 2**16, max_line_size=8190, max_headers=MAX_FIELDS, max_field_size=8190
        )
        messages, _, _ = parser.feed_data(read.parsable)
    except Refused as refused:
        assert refused.status in STATUSES, refused
        return None
    except (HttpProcessingError, ValueError):
        return None
    assert len(messages) <= 1, "two messages in one head"
    if not messages:
        return None
    message = messages[0][0]
    try:
        body_framing(message)
    except Refused as refused:
        assert refused.status in STATUSES, refused
        return None
    return message
