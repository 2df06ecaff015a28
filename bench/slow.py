"""An origin that takes its time: `python slow.py PORT` answers each request after 200 ms."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

DELAY = 0.2
_BODY = b"<p>this took a while</p>\n" * 160
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: public, max-age=3600\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class Slow(asyncio.Protocol):
    """Knows GET only, and takes any for one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\r\n\r\n")
        for _ in whole:
            asyncio.get_running_loop().call_later(DELAY, self._transport.write, _ANSWER)


async def main(port: int) -> None:
    """Serve until SIGTERM."""
    server = await asyncio.get_running_loop().create_server(Slow, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
