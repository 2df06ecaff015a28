"""What the tests are made with: a scripted origin, a running edge, a strict raw client, Redis."""

from .edge import EdgeProcess
from .http import Connection, Response, fetch
from .origin import CLOSE, RESET, Answer, OriginRequest, ScriptedOrigin
from .redis import RedisServer
from .wire import MalformedMessage, MessageCut

__all__ = [
    "CLOSE",
    "RESET",
    "Answer",
    "Connection",
    "EdgeProcess",
    "MalformedMessage",
    "MessageCut",
    "OriginRequest",
    "RedisServer",
    "Response",
    "ScriptedOrigin",
    "fetch",
]
