"""Calling the admin port from the command line: where it is, with which token, and what went wrong.

Exit status of all commands that call it: 0, 1 where the edge refused or failed, 2 where the command
line is wrong or there is no token, 3 where the edge can't be reached.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeproxy.semantics.environment import ENVIRONMENTS

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    import aiohttp

REFUSED, WRONG, UNREACHABLE = 1, 2, 3
DEFAULT_URL = "http://127.0.0.1:8081"
_URL_VARIABLE = "EDGEPROXY_ADMIN_URL"
_TOKEN_VARIABLE = "EDGEPROXY_ADMIN_TOKEN"  # noqa: S105 - the name of a variable
_SECONDS = 60.0
_CONNECT_SECONDS = 5.0
_MAX_PAGE = 1000
_SILENT_SECONDS = 60.0
"""A stream that says nothing for so long, not even that it lives, is dead."""

EPILOG = f"""\
Environment:
  {_URL_VARIABLE}     where the admin port is (default: {DEFAULT_URL})
  {_TOKEN_VARIABLE}   the token; or --token-file. It is never given as an argument, which
                          other users of the machine could see

Exit status: 0; 1 when the edge refused or failed; 2 when the command line is wrong, or there is no
token; 3 when the edge can't be reached.
"""


class CallFailed(Exception):
    """A call that brought nothing; the message is for people, `status` for the shell."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that calls the admin port."""
    group = parser.add_argument_group("the edge")
    group.add_argument("--admin", metavar="URL", help=f"the admin port (or ${_URL_VARIABLE})")
    group.add_argument(
        "--token-file", metavar="FILE", type=Path, help=f"the token (or ${_TOKEN_VARIABLE})"
    )
    group.add_argument("--json", action="store_true", help="print JSON, for programs")


def add_list_arguments(parser: argparse.ArgumentParser, *, limit: int) -> None:
    """The arguments of every command that lists what is stored."""
    parser.epilog = EPILOG
    parser.add_argument("--site", help="only of this site")
    parser.add_argument("--environment", choices=ENVIRONMENTS, help="only of this environment")
    parser.add_argument(
        "--limit",
        type=int,
        default=limit,
        metavar="N",
        help="at most so many",
    )
    add_connection_arguments(parser)


def call_edge(arguments: argparse.Namespace, use: Callable[[AdminClient], Awaitable[None]]) -> int:
    """Run `use` with a client for the edge that the arguments name: the exit status."""

    async def run() -> None:
        url = arguments.admin or os.environ.get(_URL_VARIABLE) or DEFAULT_URL
        async with AdminClient(url, _token(arguments.token_file)) as client:
            await use(client)

    try:
        asyncio.run(run())
    except CallFailed as error:
        print(f"edgeproxy: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output, such as `head`, has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return 0


def _token(path: Path | None) -> str:
    if path is None:
        token = os.environ.get(_TOKEN_VARIABLE, "")
        where = f"set {_TOKEN_VARIABLE}, or give --token-file FILE"
    else:
        try:
            token = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CallFailed(WRONG, f"the token can't be read: {error}") from error
        where = f"{path} is empty"
    if not token:
        raise CallFailed(WRONG, f"there is no token: {where}")
    if not token.isprintable() or not token.isascii() or " " in token:
        raise CallFailed(WRONG, "the token has characters that no token can have")
    return token


class AdminClient:
    """Calls the own API of one edge."""

    _session: aiohttp.ClientSession

    def __init__(self, url: str, token: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise CallFailed(WRONG, f"{url!r} is no http(s) URL")
        self._url = url.rstrip("/")
        self._token = token

    async def __aenter__(self) -> AdminClient:
        # It takes a while, and commands that don't call an edge need none of it.
        import aiohttp

        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}", "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(_SECONDS, connect=_CONNECT_SECONDS),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """What the edge answers. Raises CallFailed."""
        import aiohttp

        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        try:
            async with self._session.request(
                method, f"{self._url}/v1{path}", params=given, json=body, allow_redirects=False
            ) as response:
                return _answer(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise self._unreachable(error) from error

    async def pages(
        self, path: str, items: str, query: Mapping[str, Any], limit: int
    ) -> list[dict[str, Any]]:
        """The first `limit` items of a list, however many pages that takes. Raises CallFailed."""
        found: list[dict[str, Any]] = []
        cursor = None
        while len(found) < limit:
            size = min(limit - len(found), _MAX_PAGE)
            page = await self.call("GET", path, query={**query, "limit": size, "cursor": cursor})
            found += page[items]
            cursor = page["next"]
            if cursor is None:
                break
        return found

    async def events(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """What a stream of server-sent events brings, for ever; it is taken up where it broke off.

        Raises CallFailed where it can't be.
        """
        import aiohttp

        given = {name: str(value) for name, value in query.items() if value is not None}
        timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS)
        last: str | None = None
        while True:
            headers = {} if last is None else {"Last-Event-ID": last}
            try:
                async with self._session.get(
                    f"{self._url}/v1{path}", params=given, headers=headers, timeout=timeout
                ) as response:
                    if response.status != 200:
                        _answer(response.status, await response.read())
                    async for raw in response.content:
                        name, _, value = raw.decode().rstrip("\n").partition(": ")
                        if name == "id":
                            last = value
                        elif name == "data":
                            yield json.loads(value)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                if last is None:
                    raise self._unreachable(error) from error
            await asyncio.sleep(1.0)

    def _unreachable(self, error: Exception) -> CallFailed:
        import aiohttp

        if isinstance(error, aiohttp.InvalidURL):
            return CallFailed(WRONG, f"{self._url!r} is no http(s) URL")
        if isinstance(error, aiohttp.ClientConnectorError):
            why = os.strerror(error.os_error.errno) if error.os_error.errno else str(error.os_error)
            return CallFailed(UNREACHABLE, f"no edge answers at {self._url}: {why}")
        why = "it took too long" if isinstance(error, TimeoutError) else str(error)
        return CallFailed(UNREACHABLE, f"the edge at {self._url} did not answer: {why}")


_HINTS = {
    401: "is the token right?",
    403: "the token may not do that",
    421: "the admin port does not know that name: see admin.allowed_hosts",
}


def _answer(status: int, content: bytes) -> dict[str, Any]:
    """An answer that is good. Raises CallFailed with what a problem says (RFC 9457)."""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise CallFailed(UNREACHABLE, f"what answers there is no edgeproxy (status {status})")
    if status < 400:
        return body
    lines = [f"{status}: {body.get('detail', 'refused')}"]
    if status in _HINTS:
        lines[0] += f" ({_HINTS[status]})"
    lines += [
        f"  {each['field'] or 'the body'}: {each['detail']}" for each in body.get("errors", ())
    ]
    raise CallFailed(REFUSED, "\n".join(lines))
