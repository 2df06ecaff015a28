"""Chunked bodies: where one ends, however it is cut, and for aiohttp's parser as well."""

from typing import Any

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from edgeproxy.proxy.framing import ChunkedBody
from edgeproxy.proxy.refused import Refused
from fuzz.parts import event_loop

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def check(data: bytes) -> None:
    taken = _taken([data])
    assert _taken([data[at : at + 1] for at in range(len(data))]) == taken
    assert _taken([data[: len(data) // 2], data[len(data) // 2 :]]) == taken
    if isinstance(taken, str):
        return
    used, done = taken
    ended = _parser_ends(data[:used])
    # The parser may refuse what only its framing was looked at; it never takes another end.
    assert ended in (done, None), (used, done, ended)


def _taken(pieces: list[bytes]) -> tuple[int, bool] | str:
    body = ChunkedBody()
    total = 0
    try:
        for piece in pieces:
            used = body.take(piece)
            assert used == len(piece) or body.done
            total += used
            if body.done:
                break
    except Refused as refused:
        assert refused.status in (400, 413)
        return refused.detail
    return total, body.done


def _parser_ends(body: bytes) -> bool | None:
    """Whether the parser is at the body's end behind its last byte; None where it refuses it."""
    loop = event_loop()
    protocol: Any = BaseProtocol(loop)
    parser = HttpRequestParser(protocol, loop, 2**16)
    protocol._parser = parser
    try:
        ((_, payload),) = parser.feed_data(HEAD)[0]
        messages, _, tail = parser.feed_data(body)
    except (HttpProcessingError, ValueError):
        return None
    if payload.exception() is not None:
        return None
    assert not messages, "a second message within the body of the first"
    ended: bool = payload.is_eof()
    assert not tail or not ended, tail
    return ended
