"""An origin that does not mind where a request ends."""

import asyncio


class HeedlessOrigin:
    """Answers each head as it comes, and takes what follows for the next one: a body, too."""

    url: str

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                target = head.split(b" ")[1]
                self.seen.append(target)
                if target.startswith(b"/hidden"):
                    await asyncio.sleep(0.2)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(target), target)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
