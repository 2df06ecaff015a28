"""The addresses behind origins' names: each is looked up in a thread of its own, and outlives those
who could tell it.

The event loop has one small pool of threads for all look-ups. There, a few names whose servers are
silent would keep all the others from being looked up, and the process from ending.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Final, TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult

if TYPE_CHECKING:
    from collections.abc import Callable

    Addresses: TypeAlias = tuple[tuple[socket.AddressFamily, int, str], ...]
    """Family, protocol and numeric address of each."""

log = logging.getLogger(__name__)

_FRESH_SECONDS: Final = 10.0
"""How long an answer is good for: what a DNS server says of that doesn't get through to here."""
_AGAIN_SECONDS: Final = 1.0
"""How long a failure is."""
_PATIENCE: Final = 0.25
"""Seconds that a look-up may take before the addresses of the time before have to do."""
_KEPT_SECONDS: Final = 86_400.0
"""How long they do where no server answers: RFC 8767 5 says one to three days."""
_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)})


def look_up(host: str) -> Addresses:
    """Ask the system for a name's addresses, however long that takes.

    Raises OSError; a `socket.gaierror` says whether there is no such name, or nobody to ask.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no name") from error
    return tuple(
        (family, protocol, socket.getnameinfo(address, socket.NI_NUMERICHOST)[0])
        for family, _, protocol, _, address in found
    )


class _Name:
    """What is known of one name."""

    __slots__ = ("addresses", "asked_at", "failure", "good_until", "learnt_at", "lookup", "turn")

    def __init__(self) -> None:
        self.addresses: Addresses = ()
        self.learnt_at = 0.0
        self.good_until: float | None = None
        self.failure: OSError | None = None
        """Of the last look-up."""
        self.lookup: Future[Addresses | OSError] | None = None
        """The one under way; of any thread."""
        self.asked_at = 0.0
        self.turn = 0


class Names(AbstractResolver):
    """Resolves names for connectors, those of several event loops as well."""

    def __init__(
        self,
        ask: Callable[[str], Addresses] = look_up,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ask` is called in a thread, by at most one for a name at a time."""
        self._ask = ask
        self._clock = clock
        self._names: dict[str, _Name] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """A name's addresses, another one of them first each time; raises OSError."""
        name = self._names.setdefault(host, _Name())
        self._learn(host, name)
        now = self._clock()
        if name.good_until is None or now >= name.good_until:
            lookup = name.lookup or self._begin(host, name)
            wait: float | None = None
            if name.addresses:
                # Who has failed a moment ago is not waited for again.
                wait = 0.0 if name.failure else max(name.asked_at + _PATIENCE - now, 0.0)
            await asyncio.wait((asyncio.wrap_future(lookup),), timeout=wait)
            self._learn(host, name)
        if not name.addresses:
            # Not the same one each time: it would remember all who have met it.
            raise OSError(*(name.failure.args if name.failure else (f"{host} has no address",)))
        name.turn = (name.turn + 1) % len(name.addresses)
        turned = name.addresses[name.turn :] + name.addresses[: name.turn]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=its_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for its_family, protocol, address in turned
            if family in (socket.AF_UNSPEC, its_family)
        ]

    async def close(self) -> None:
        """Nothing has to be: threads that wait for an answer keep nobody."""

    def _begin(self, host: str, name: _Name) -> Future[Addresses | OSError]:
        lookup: Future[Addresses | OSError] = Future()
        name.lookup = lookup
        # As one that runs, it can't be cancelled by one of those who wait for it.
        lookup.set_running_or_notify_cancel()
        name.asked_at = self._clock()
        Thread(target=partial(self._run, host, lookup), name="names", daemon=True).start()
        return lookup

    def _run(self, host: str, lookup: Future[Addresses | OSError]) -> None:
        try:
            lookup.set_result(self._ask(host))
        except OSError as error:
            # As a result: an exception that none has waited for would be complained of.
            lookup.set_result(error)

    def _learn(self, host: str, name: _Name) -> None:
        """Take in what a look-up has come to, if one has ended."""
        lookup, now = name.lookup, self._clock()
        if lookup is None or not lookup.done():
            return
        name.lookup = None
        before, result = name.failure, lookup.result()
        if not isinstance(result, OSError):
            name.addresses, name.learnt_at, name.failure = result, now, None
            name.good_until = now + _FRESH_SECONDS
            if before is not None:
                log.info("%s can be looked up again", host)
            return
        name.failure = result
        name.good_until = now + _AGAIN_SECONDS
        gone = isinstance(result, socket.gaierror) and result.errno in _NO_SUCH_NAME
        if gone or now - name.learnt_at >= _KEPT_SECONDS:
            name.addresses = ()
        if before is None:
            what = "its last known addresses go on to be used" if name.addresses else "it has none"
            log.warning("%s can't be looked up (%s): %s", host, result, what)


NAMES: Final = Names()
"""This process' own."""
