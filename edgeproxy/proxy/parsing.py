"""What aiohttp's parser is given of a request, and what is believed of what it makes of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.proxy.body import RequestBodyTooLarge
from edgeproxy.proxy.framing import (
    BodyTooLarge,
    asks_to_close,
    body_framing,
    expects_continue,
    read_head,
)
from edgeproxy.proxy.refused import Refused
from edgeproxy.semantics.errors import BadRequest

if TYPE_CHECKING:
    from aiohttp import StreamReader
    from aiohttp.http import RawRequestMessage
    from aiohttp.http_parser import HttpParser

    from edgeproxy.config.server import Limits
    from edgeproxy.proxy.framing import ChunkedBody, LengthBody


class Parsed(NamedTuple):
    """A request's head, and where its body goes."""

    message: RawRequestMessage
    payload: StreamReader
    body: ArrivingBody | None
    """What is to be fed with the bytes behind the head; None where there is no body."""
    expects: bool
    """The client waits to be told to send the body (RFC 9110 10.1.1)."""


def parse_head(parser: HttpParser[RawRequestMessage], raw: bytes, limits: Limits) -> Parsed:
    """Parse a whole head. Raises `Refused`."""
    head = read_head(raw, limits.max_fields)
    try:
        messages, _, _ = parser.feed_data(head.parsable)
    except Exception as error:
        # The parser lets some of its libraries' errors through besides its own.
        raise Refused(400, "bad-request") from error
    if len(messages) != 1:
        raise Refused(400, "bad-request")
    message, payload = messages[0]
    framing, expects = body_framing(message, limits.body_bytes), expects_continue(message)
    if payload.is_eof() != (framing is None):
        raise Refused(400, "bad-request")
    if asks_to_close(message):
        message = message._replace(should_close=True)
    if head.method is not None:
        message = message._replace(method=head.method)
    if head.target is not None:
        message = message._replace(path=head.target)
    body = None if framing is None else ArrivingBody(framing, parser, payload)
    return Parsed(message, payload, body, expects)


class ArrivingBody:
    """A request's body on its way from the connection into its stream, through the parser."""

    __slots__ = ("_framing", "_parser", "_payload", "broken", "over")

    def __init__(
        self,
        framing: LengthBody | ChunkedBody,
        parser: HttpParser[RawRequestMessage],
        payload: StreamReader,
    ) -> None:
        self._framing = framing
        self._parser = parser
        self._payload = payload
        self.over = False
        """It has all come in."""
        self.broken = False
        """Nothing that comes behind it can be read."""

    def feed(self, data: bytes) -> int:
        """Take what belongs to the body, and say how much that is.

        A body that is not what it says is broken off for whoever reads it, with `BadRequest`; one
        that grows beyond what is taken, with `RequestBodyTooLarge`.
        """
        fault: Exception = BadRequest("bad-body")
        parser, payload, framing = self._parser, self._payload, self._framing
        try:
            used = framing.take(data)
            # The last byte goes by itself: the body must end with it, and not before.
            most = used - 1 if framing.done else used
            if most:
                parser.feed_data(data[:most])
            agreed = not payload.is_eof()
            if framing.done:
                parser.feed_data(data[most:used])
                agreed = agreed and payload.is_eof()
                self.over = True
                # The parser would take trailers for fields of the request behind them.
                self.broken = framing.trailed
        except BodyTooLarge:
            agreed, fault = False, RequestBodyTooLarge("the request's body is too large")
        except Exception:
            agreed = False
        if agreed:
            return used
        # Where this body ends, and the next request begins, can't be known any more.
        self.broken = True
        payload.set_exception(fault)
        return len(data)
