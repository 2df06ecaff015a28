"""The log: one line an event on standard error, whatever the event contains."""

from __future__ import annotations

import logging
import sys
import time

from aiohttp.http_exceptions import HttpProcessingError

# Line ends and control characters would let a logged value look like a line of its own, or drive
# the terminal that shows it.
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    0x0A: "\\n",
    0x0D: "\\r",
    0x09: "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


class LineFormatter(logging.Formatter):
    """`time level [process] message`; a traceback follows in the same line."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s [{process}] %(message)s")

    def formatTime(self, record: logging.LogRecord, _: str | None = None) -> str:  # noqa: N802
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{second}.{int(record.msecs):03}Z"

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_ESCAPES)


def _is_about_the_edge(record: logging.LogRecord) -> bool:
    # aiohttp reports a request that is no HTTP as an error, with the line at fault: anybody could
    # fill the log so, and that line may bear the admin port's token.
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


def configure(level: str, process: str) -> None:
    """Log everything from `level` on to standard error, in the name of `process`.

    Called again in a worker after the fork, and after a reload.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Below warnings it reports each slow callback and each selector.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(_is_about_the_edge)
