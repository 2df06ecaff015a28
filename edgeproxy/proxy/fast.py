"""The fast path: fresh hits, answered from the bytes of their requests.

What the full path would do is found out once, by the same functions (`Intake`, `Deciding`), and
remembered under the bytes that it depends on: the request line, Host, and a proxy's word for the
scheme. From then on a request costs a look at its head, and at all that can have changed since:

- the worker's memory has the same entries for it (whatever it drops or changes is forgotten here);
- no invalidation has come since the entry was judged (`checked`, and the journal's head);
- it is still fresh, no purge's deadline has come, and its Age is what was rendered (`until`).

Whatever is unusual, or no fresh hit, is left to the full path, untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from edgeproxy.config.addresses import within
from edgeproxy.proxy.access import AccessRecord
from edgeproxy.proxy.busters import honour_buster
from edgeproxy.proxy.decide import Hit
from edgeproxy.proxy.deciding import Unanswered
from edgeproxy.proxy.fast_answer import CHOICES, Answer, some_fields
from edgeproxy.proxy.fast_store import Known, Recent, Shelf
from edgeproxy.proxy.intake import address_of, scheme_of
from edgeproxy.proxy.pace import TLS_PIECE
from edgeproxy.proxy.scanning import all_fields, scan, values
from edgeproxy.proxy.wire import CLOSE, JOIN_UP_TO
from edgeproxy.semantics.forwarding import client_address

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from edgeproxy.cache.memory import Entry, MemoryTier
    from edgeproxy.cache.store import SharedTier
    from edgeproxy.config.server import Limits
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.access import AccessSink
    from edgeproxy.proxy.deciding import Deciding
    from edgeproxy.proxy.intake import Intake
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.scanning import Conditions
    from edgeproxy.proxy.serving import Serving

_LAST: Final = CLOSE + b"\r\n"
_LONGEST_KEY: Final = 1024
_SPARE_KEYS: Final = 1024
"""Keys that are remembered beyond two for each entry in memory."""
_MOST_UNSENT: Final = 64 * 1024
"""Bytes that may wait to be sent when the next of several requests at once is answered."""
_LOGGED: Final = (b"referer", b"user-agent", b"x-forwarded-for", b"forwarded")


class _Target:
    """The answers to the requests with one key, all out of the entries that are in memory under
    their primary key."""

    __slots__ = ("answer", "by_values", "names")

    def __init__(self, variants: tuple[Entry, ...], known: Known) -> None:
        names = {name for one in variants for name, _ in one.stored.selecting}
        self.names = known.heard_of(names)
        """The request fields that choose among them."""
        self.by_values: dict[tuple[bytes | None, ...], Answer] = {}
        self.answer: Answer | None = None
        """The only one there is."""

    def remember(self, head: bytes, answer: Answer) -> None:
        if not self.names:
            self.answer = answer
        elif len(self.by_values) < CHOICES:
            self.by_values[values(head, 0, self.names)] = answer


class Peers:
    """What is remembered of those who come by one way: over TLS or by a trusted proxy, or not."""

    __slots__ = ("recent", "secure", "targets", "trusted")

    def __init__(self, *, secure: bool, trusted: bool) -> None:
        self.secure = secure
        self.trusted = trusted
        self.targets: dict[bytes, _Target] = {}
        """By the keys of requests' heads."""
        self.recent = Recent()


class FastPath:
    """Answers the fresh hits of a worker, out of its memory or the small bodies of its store."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        memory: MemoryTier,
        tier: SharedTier,
        view: JournalView,
        lookup: Lookup,
        deciding: Deciding,
        serving: Serving,
    ) -> None:
        """Knows no site before `configure` is called."""
        self._clock = clock
        self._memory = memory
        memory.on_change = self._forget
        self._tier = tier
        self._view = view
        self._head = view.head
        self._lookup = lookup
        self._deciding = deciding
        self._serving = serving
        self._shelf = Shelf(memory=memory, tier=tier, view=view, lookup=lookup)
        self._peers = {
            (secure, trusted): Peers(secure=secure, trusted=trusted)
            for secure in (False, True)
            for trusted in (False, True)
        }
        self._keys = 0
        # Where the targets of a cache key are.
        self._targets_of: dict[bytes, list[tuple[Peers, bytes]]] = {}
        self._log: AccessSink | None = None
        self.hits = 0
        """How many requests it has answered."""
        self.unanswered: Unanswered | None = None
        """The request that `answer` has left last, where it was read: the full path need not."""

    def configure(self, intake: Intake, limits: Limits, log: AccessSink | None) -> None:
        """Go by these from now on, and forget what was learnt by others. `log` is None where
        nobody reads it."""
        self._intake = intake
        self._head_bytes, self._max_fields = limits.head_bytes, limits.max_fields
        self._log = log
        self._forget_all()
        for peers in self._peers.values():
            peers.recent.clear()

    def peers_of(self, transport: asyncio.Transport) -> Peers:
        """What kind of peer is at the other end."""
        secure = transport.get_extra_info("sslcontext") is not None
        networks = self._intake.trusted
        return self._peers[secure, bool(networks) and within(_address(transport), networks)]

    def answer(self, transport: asyncio.Transport, peers: Peers, data: bytes) -> bytes | None:
        """Answer the requests that `data` begins with, up to the first that is no plain fresh hit;
        what is left of `data` begins with that one. None: the last answer was to be the last."""
        self.unanswered = None
        at = 0
        while True:
            read = scan(data, at, self._head_bytes, self._max_fields)
            if read is None:
                return data[at:]
            end, key, closing, conditions = read
            target, now, answer = peers.targets.get(key), self._clock(), None
            if target is not None:
                answer = target.answer or target.by_values.get(values(data, at, target.names))
            if answer is None or now >= answer.until or answer.entry.checked != self._head[0]:
                answer = self._renew(transport, peers, data[at:end], key, now, answer)
                if answer is None:
                    if self.unanswered is not None and closing:
                        self.unanswered = replace(self.unanswered, closing=True)
                    return data[at:]
            self._send(transport, answer, conditions, closing=closing)
            if self._log is not None:
                self._log_hit(transport, peers, data[at:end], answer, conditions, now)
            if closing:
                return None
            if answer.passing:
                answer.body = b""
            at = end
            if at == len(data) or transport.get_write_buffer_size() > _MOST_UNSENT:
                return data[at:]

    # -- sending

    def _send(
        self,
        transport: asyncio.Transport,
        answer: Answer,
        conditions: Conditions | None,
        *,
        closing: bool,
    ) -> None:
        self.hits += 1
        answer.uses += 1
        self._memory.touch(answer.entry)
        head, body = answer.head, answer.body
        if conditions is not None and answer.unmodified(conditions):
            head, body = answer.unchanged or answer.render_unchanged(), b""
        elif answer.head_only:
            body = b""
        if closing:
            head = head[:-2] + _LAST
        if len(body) <= JOIN_UP_TO:
            transport.write(head + body)
        else:
            transport.writelines((head, body))

    def _render(self, answer: Answer, now: float) -> None:
        # The store is told of the uses since it was last told, and of this one.
        self._tier.touch(answer.entry.id, now, answer.uses + 1)
        answer.uses = -1
        answer.render(now, self._serving)

    # -- learning

    def _renew(
        self,
        transport: asyncio.Transport,
        peers: Peers,
        head: bytes,
        key: bytes,
        now: float,
        answer: Answer | None,
    ) -> Answer | None:
        """The answer as it is now: `answer`, if that is still good, or what the full path would
        give; None where that is not for here."""
        try:
            if answer is None or now >= answer.ends or not self._lookup.holds(answer.entry):
                answer = self._find(transport, peers, head, key, now)
                if answer is None:
                    return None
            if now >= answer.until:
                self._render(answer, now)
        except Exception:
            # The full path comes to the same, and can tell the client and the log.
            return None
        return answer

    def _find(
        self, transport: asyncio.Transport, peers: Peers, head: bytes, key: bytes, now: float
    ) -> Answer | None:
        known = peers.recent.get(key)
        if known is None:
            known = self._know(peers, key)
        answer = self._shelf.answer(known, head, key, now)
        if answer is None:
            answer = self._decide(transport, known, peers, head, key, now)
        if answer is None or (peers.secure and len(answer.body) > TLS_PIECE):
            return None
        if not answer.passing:
            self._remember(peers, key, known, head, answer)
        return answer

    def _know(self, peers: Peers, key: bytes) -> Known:
        line, host, proto = key.split(b"\n")
        method, target, _ = line.split(b" ")
        scheme = scheme_of(proto if peers.trusted else None, secure=peers.secure)
        asked = self._intake.asked(method, target, (host,), scheme)
        known = Known(asked, head_only=method == b"HEAD", trusted=peers.trusted)
        peers.recent.add(key, known)
        return known

    def _decide(
        self,
        transport: asyncio.Transport,
        known: Known,
        peers: Peers,
        head: bytes,
        key: bytes,
        now: float,
    ) -> Answer | None:
        request = self._read(transport, known, peers, head, key)
        if request is None:
            return None
        position = self._view.catch_up()
        decided = self._deciding.decide(request, now)
        self.unanswered = Unanswered(
            request, decided, position, key.split(b" ", 2)[1], len(head), closing=False
        )
        found = decided.found
        if found is None:
            known.learn(decided.vary)
            return None
        known.learn(tuple([name for name, _ in found.stored.selecting]))
        if found.stored.incomplete or not isinstance(decided.decision, Hit):
            return None
        entry = found.entry or self._from_store(found)
        if entry is None:
            return None
        self.unanswered = None
        return Answer(entry, request.policy, head_only=known.head_only)

    def _read(
        self, transport: asyncio.Transport, known: Known, peers: Peers, head: bytes, key: bytes
    ) -> EdgeRequest | None:
        method, target, _ = key.split(b" ", 2)
        request = self._intake.request(
            method,
            target,
            all_fields(head, key),
            version="1.1",
            secure=peers.secure,
            peer=_address(transport),
            has_body=False,
            asked=known.asked,
        )
        if request.key.buster:
            request = honour_buster(request, self._view)
        # An issued token may have to go to the origin, whatever is stored.
        return None if request.not_before else request

    def _from_store(self, found: Found) -> Entry | None:
        body = self._tier.read_inline(found.stored)
        return None if body is None else self._lookup.remember(found, body)

    def _remember(
        self, peers: Peers, key: bytes, known: Known, head: bytes, answer: Answer
    ) -> None:
        # A token that was not issued may be at any time: copies of its own are looked up anew.
        if len(key) > _LONGEST_KEY or known.asked.key.buster:
            return
        primary = known.primary
        variants = self._memory.get(primary)
        if answer.entry not in variants:
            # Too long for memory, or gone again.
            return
        target = peers.targets.get(key)
        if target is None:
            if self._keys > 2 * len(self._memory) + _SPARE_KEYS:
                self._forget_all()
            self._keys += 1
            self._targets_of.setdefault(primary, []).append((peers, key))
            target = peers.targets[key] = _Target(variants, known)
        target.remember(head, answer)

    def _forget(self, primary: bytes) -> None:
        for peers, key in self._targets_of.pop(primary, ()):
            del peers.targets[key]
            self._keys -= 1

    def _forget_all(self) -> None:
        for peers in self._peers.values():
            peers.targets.clear()
        self._targets_of.clear()
        self._keys = 0

    # -- the account

    def _log_hit(
        self,
        transport: asyncio.Transport,
        peers: Peers,
        head: bytes,
        answer: Answer,
        conditions: Conditions | None,
        now: float,
    ) -> None:
        assert self._log is not None
        method, target, _ = head.split(b" ", 2)
        fields = some_fields(_LOGGED, values(head, 0, _LOGGED))
        unchanged = conditions is not None and answer.unmodified(conditions)
        site, host = answer.origin
        client = _address(transport)
        if peers.trusted:
            client, _ = client_address(fields, client, self._intake.trusted)
        self._log(
            AccessRecord(
                client=client,
                method=method,
                target=target,
                version="1.1",
                status=304 if unchanged else answer.status,
                bytes_sent=0 if unchanged or answer.head_only else len(answer.body),
                result="hit",
                cache_status=answer.cache_status,
                site=site,
                host=host,
                referer=fields.get(b"referer") or b"",
                user_agent=fields.get(b"user-agent") or b"",
                started=now,
                duration=self._clock() - now,
                first_byte=0.0,
                origin_seconds=None,
            )
        )


def _address(transport: asyncio.Transport) -> str:
    return address_of(transport.get_extra_info("peername"))
