"""Names of origins: what is asked, how long an answer is good for, and what does without one."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import ExitStack, contextmanager, nullcontext
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from edgeproxy.proxy.origin_names import Names, look_up
from edgeproxy.proxy.origin_protocol import OriginConnector
from tests.kit import Answer, ScriptedOrigin
from tests.proxy.origin_client import client_of, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.both_loops

HOST = "origin.example"
UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
NOBODY = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


class Zone:
    """Who is asked, and a clock."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.failure: Exception | None = None
        self.held: Event | None = None
        self.asked: list[str] = []
        self.now = 1000.0

    def ask(self, host: str) -> tuple[tuple[socket.AddressFamily, int, str], ...]:
        self.asked.append(host)
        if (held := self.held) is not None:
            held.wait(10.0)
        if self.failure is not None:
            raise self.failure
        return tuple((socket.AF_INET, 6, address) for address in self.addresses)

    def names(self) -> Names:
        return Names(self.ask, lambda: self.now)


async def addresses(names: Names, host: str = HOST) -> list[str]:
    async with asyncio.timeout(5.0):
        return [each["host"] for each in await names.resolve(host, 80)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not condition():
            await asyncio.sleep(0.005)


async def test_an_answer_is_good_for_ten_seconds() -> None:
    zone = Zone("192.0.2.1")
    names = zone.names()
    for elapsed, asked, expected in ((0.0, 1, "1"), (9.9, 1, "1"), (0.2, 2, "2")):
        zone.now += elapsed
        assert await addresses(names) == [f"192.0.2.{expected}"]
        assert zone.asked == [HOST] * asked
        zone.addresses = ("192.0.2.2",)


async def test_addresses_take_turns() -> None:
    names = Zone("192.0.2.1", "192.0.2.2", "192.0.2.3").names()
    firsts = [(await addresses(names))[0] for _ in range(6)]
    assert sorted(firsts[:3]) == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert firsts[:3] == firsts[3:]


async def test_those_who_ask_at_once_make_one_look_up() -> None:
    zone = Zone("192.0.2.1")
    zone.held = Event()
    names = zone.names()
    asking = [asyncio.create_task(addresses(names)) for _ in range(5)]
    await until(lambda: bool(zone.asked))
    asking[0].cancel()
    zone.held.set()
    for each in asking[1:]:
        assert await each == ["192.0.2.1"]
    assert zone.asked == [HOST]


@pytest.mark.parametrize(
    ("failure", "kept"),
    [
        pytest.param(NOBODY, True, id="nobody answers"),
        pytest.param(OSError("no socket"), True, id="nobody can be asked"),
        pytest.param(UNKNOWN, False, id="there is no such name any more"),
    ],
)
async def test_what_was_known_does_where_nobody_answers(
    failure: Exception, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgeproxy")
    zone = Zone("192.0.2.1")
    names = zone.names()
    await addresses(names)
    zone.failure = failure
    for _ in range(3):
        zone.now += 11.0
        if kept:
            assert await addresses(names) == ["192.0.2.1"]
        else:
            with pytest.raises(OSError, match="not known"):
                await addresses(names)
    zone.failure = None
    zone.addresses = ("192.0.2.2",)
    zone.now += 11.0
    await addresses(names)
    async with asyncio.timeout(5.0):
        while await addresses(names) != ["192.0.2.2"]:
            await asyncio.sleep(0.005)
    said, again = caplog.messages
    assert said.startswith(f"{HOST} can't be looked up ({failure}): ")
    assert again == f"{HOST} can be looked up again"


async def test_what_was_known_does_for_a_day() -> None:
    zone = Zone("192.0.2.1")
    names = zone.names()
    await addresses(names)
    zone.failure = NOBODY
    zone.now += 86_399.0
    assert await addresses(names) == ["192.0.2.1"]
    zone.now += 2.0
    with pytest.raises(OSError, match="Temporary"):
        while True:
            await addresses(names)
            await asyncio.sleep(0.005)


async def test_a_failure_is_not_asked_about_again_at_once() -> None:
    zone = Zone()
    zone.failure = UNKNOWN
    names = zone.names()
    for elapsed, asked in ((0.0, 1), (0.9, 1), (0.2, 2)):
        zone.now += elapsed
        with pytest.raises(OSError, match="not known"):
            await addresses(names)
        assert len(zone.asked) == asked


async def test_names_that_nobody_answers_for_keep_no_other_waiting() -> None:
    """The event loop's own threads are few: four, with uvloop."""
    zone, silent = Zone("192.0.2.1"), Event()
    names = zone.names()
    await addresses(names)
    zone.held = silent
    waiting = [asyncio.create_task(addresses(names, f"{n}.example")) for n in range(40)]
    await until(lambda: len(zone.asked) == 41)
    zone.held = None
    assert await addresses(names, "other.example") == ["192.0.2.1"]
    # Nor does one whose address was known wait for longer than a moment.
    zone.held = silent
    zone.now += 11.0
    for _ in range(5):
        assert await addresses(names) == ["192.0.2.1"]
    assert zone.asked.count(HOST) == 2
    silent.set()
    await asyncio.gather(*waiting)


def test_the_system_is_asked() -> None:
    assert socket.AF_INET in {family for family, _, _ in look_up("localhost")}
    assert {address for _, _, address in look_up("127.0.0.1")} == {"127.0.0.1"}
    for name in ("gone.invalid", "x" * 70 + ".example"):
        with pytest.raises(OSError):
            look_up(name)


# -- what becomes of them


@contextmanager
def mute(address: str, port: int) -> Iterator[None]:
    """A server that neither accepts nor refuses: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(3):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((address, port))
        yield


@pytest.mark.parametrize("dead", [mute, lambda *_: nullcontext()], ids=["silent", "refuses"])
async def test_where_the_first_address_is_dead_the_next_is_tried(
    origin: ScriptedOrigin, monkeypatch: pytest.MonkeyPatch, dead: Any
) -> None:
    """RFC 8305 5: not one after the other's time is up, but after a quarter of a second."""
    zone = Zone("127.0.0.1", "127.0.0.2")
    names = zone.names()
    origin.otherwise(Answer(body=b"ok"))

    def connector() -> OriginConnector:
        return OriginConnector(names)

    monkeypatch.setattr("edgeproxy.proxy.origin_connections.OriginConnector", connector)
    url = f"http://{HOST}:{origin.port}"
    with dead("127.0.0.2", origin.port):
        async with client_of(url, pool={"keepalive": 0.0}, connect=1.5) as client:
            for _ in range(2):
                assert await fetch(client) == b"ok"
    assert zone.asked == [HOST]
