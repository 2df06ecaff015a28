"""The fast path: fresh hits, answered from the bytes of their requests.

What the full path would do is found out once, by the same functions (`Intake`, `Deciding`), and
remembered under the bytes that it depends on: the request line, and the block of fields behind it.
From then on a request costs two look-ups of bytes, and a check of all that can have changed since:

- the worker's memory has the same entries under the key (`variants`);
- no invalidation has come since the entry was judged (`checked`, and the journal's head);
- it is still fresh, no purge's deadline has come, and its Age is what was rendered (`until`).

Whatever is unusual, or no fresh hit, is left to the full path, untouched.
"""

from __future__ import annotations

import math
import re
from sys import intern
from typing import TYPE_CHECKING, Final

from edgeproxy.config.addresses import within
from edgeproxy.proxy.access import AccessRecord
from edgeproxy.proxy.busters import honour_buster
from edgeproxy.proxy.decide import Hit
from edgeproxy.proxy.deciding import Unanswered
from edgeproxy.proxy.field_blocks import BlockReader, FieldBlock, Generations
from edgeproxy.proxy.framing import HEAD_END
from edgeproxy.proxy.intake import Misdirected, peer_address
from edgeproxy.proxy.rendering import answer_head, told, unchanged_head, visible_fields
from edgeproxy.proxy.wire import CLOSE, JOIN_UP_TO
from edgeproxy.semantics.cache_status import CacheStatus
from edgeproxy.semantics.conditional import not_modified
from edgeproxy.semantics.errors import BadRequest
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.forwarding import client_address

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from edgeproxy.cache.memory import Entry, MemoryTier
    from edgeproxy.cache.store import SharedTier
    from edgeproxy.config.server import Limits
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.access import AccessSink
    from edgeproxy.proxy.deciding import Deciding
    from edgeproxy.proxy.intake import Intake
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.serving import Serving

# RFC 9112 3: a request line in origin-form of which nothing needs a second look.
_REQUEST_LINE: Final = re.compile(rb"(GET|HEAD) (/[\x21\x22\x24-\x7e]*) HTTP/1\.1")

_LAST: Final = CLOSE + b"\r\n"
_BLOCKS: Final = 2048
"""Blocks that are remembered of each kind of peers, twice."""
_LONGEST_BLOCK: Final = 4096
_LONGEST_LINE: Final = 1024
_SPARE_LINES: Final = 1024
"""Request lines that are remembered beyond two for each entry in memory."""
_CHOICES: Final = 64
"""How many choices among variants, and conditions, are remembered of one request line."""
_MAX_SEEN: Final = 8192
_MOST_UNSENT: Final = 64 * 1024
"""Bytes that may wait to be sent when the next of several requests at once is answered."""


class _Answer:
    """An entry as an answer to one request line, rendered but for what changes by the second."""

    __slots__ = (
        "age", "body", "cache_status", "ends", "entry", "head", "head_only", "host", "policy",
        "site", "status", "unchanged", "unmodified", "until", "uses", "vercel",
    )  # fmt: skip

    def __init__(self, entry: Entry, policy: SitePolicy, *, head_only: bool) -> None:
        self.entry = entry
        self.policy = policy
        self.head_only = head_only
        self.body = entry.body
        freshness, stored = entry.freshness, entry.stored
        self.status, self.site, self.host = stored.status, intern(stored.site), intern(stored.host)
        stale_from = freshness.response_time + freshness.lifetime - max(0.0, freshness.initial_age)
        self.ends = min(stale_from, stored.deleted_from or math.inf)
        """When it is no fresh hit any more, in seconds since the epoch."""
        self.until = -math.inf
        """When `head` has to be rendered anew."""
        self.head = self.cache_status = b""
        self.age = 0
        self.vercel: bytes | None = None
        self.unchanged: bytes | None = None
        """The head of a 304, once one was sent; as long as `head` is good."""
        self.unmodified: dict[tuple[bytes | None, ...], bool] = {}
        """By what If-None-Match and If-Modified-Since say."""
        self.uses = 0
        """How often it was used since the store was told of it."""


class _Target:
    """The answers to one request line, all out of the entries that its key has in memory."""

    __slots__ = ("answer", "by_values", "names", "primary", "variants")

    def __init__(self, primary: bytes, variants: tuple[Entry, ...]) -> None:
        self.primary = primary
        self.variants = variants
        self.names = tuple(sorted({name for one in variants for name, _ in one.stored.selecting}))
        """The request fields that choose among them."""
        self.by_values: dict[tuple[bytes | None, ...], _Answer] = {}
        self.answer: _Answer | None = None
        """The only one there is."""

    def answer_to(self, block: FieldBlock) -> _Answer | None:
        """The answer to a request with these fields, if it is known."""
        return self.answer or self.by_values.get(block.values(self.names))

    def remember(self, block: FieldBlock, answer: _Answer) -> None:
        if not self.names and len(self.variants) == 1:
            self.answer = answer
        elif len(self.by_values) < _CHOICES:
            self.by_values[block.values(self.names)] = answer


class _Place(dict[bytes, _Target]):
    """What is remembered of one site by one scheme, by request line."""


class Peers:
    """What is remembered of those who come by one way: over TLS or by a trusted proxy, or not."""

    __slots__ = ("blocks", "places", "secure", "trusted")

    def __init__(self, *, secure: bool, trusted: bool) -> None:
        self.secure = secure
        self.trusted = trusted
        self.blocks: Generations[tuple[FieldBlock, _Place]] = Generations(_BLOCKS)
        self.places: dict[bytes, _Place] = {}


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
        self._variants = memory.variants
        self._tier = tier
        self._view = view
        self._head = view.head
        self._lookup = lookup
        self._deciding = deciding
        self._serving = serving
        self._reader = BlockReader()
        self._seen: set[int] = set()
        self._peers = {
            (secure, trusted): Peers(secure=secure, trusted=trusted)
            for secure in (False, True)
            for trusted in (False, True)
        }
        self._lines = 0
        self._log: AccessSink | None = None
        self.unanswered: Unanswered | None = None
        """The request that `answer` has left last, where it was read: the full path need not."""

    def configure(self, intake: Intake, limits: Limits, log: AccessSink | None) -> None:
        """Go by these from now on, and forget what was learnt by others. `log` is None where
        nobody reads it."""
        self._intake = intake
        self._head_bytes, self._max_fields = limits.head_bytes, limits.max_fields
        self._log = log
        self._forget_all()

    def peers_of(self, transport: asyncio.Transport) -> Peers:
        """What kind of peer is at the other end."""
        secure = transport.get_extra_info("sslcontext") is not None
        networks = self._intake.trusted
        return self._peers[secure, bool(networks) and within(_address(transport), networks)]

    def answer(self, transport: asyncio.Transport, peers: Peers, data: bytes) -> bytes | None:
        """Answer the requests that `data` begins with, up to the first that is no plain fresh hit;
        what is left of `data` begins with that one. None: the last answer was to be the last."""
        self.unanswered = None
        while True:
            line_end = data.find(b"\r\n")
            following, rest = data[line_end:], b""
            known = peers.blocks.young.get(following)
            if known is None:
                end = data.find(HEAD_END, line_end) + len(HEAD_END)
                if line_end < 0 or end < len(HEAD_END):
                    return data
                if end < len(data):
                    following, rest = data[line_end:end], data[end:]
                known = self._read_block(peers, following)
                if known is None:
                    return data
            if line_end + len(following) > self._head_bytes:
                return data
            block, place = known
            line, now, answer = data[:line_end], self._clock(), None
            target = place.get(line)
            if target is not None and self._variants.get(target.primary) is target.variants:
                answer = target.answer or target.answer_to(block)
            if answer is None or now >= answer.until or answer.entry.checked != self._head[0]:
                answer = self._renew(transport, peers, known, line, now, answer)
                if answer is None:
                    return data
            self._send(transport, block, answer)
            if self._log is not None:
                self._log_hit(transport, peers, line, block, answer, now)
            if block.closing:
                return None
            if not rest or transport.get_write_buffer_size() > _MOST_UNSENT:
                return rest
            data = rest

    # -- sending

    def _send(self, transport: asyncio.Transport, block: FieldBlock, answer: _Answer) -> None:
        answer.uses += 1
        self._memory.touch(answer.entry)
        head, body = answer.head, answer.body
        if block.conditional and self._unmodified(block, answer):
            head, body = answer.unchanged or self._render_unchanged(answer), b""
        elif answer.head_only:
            body = b""
        if block.closing:
            head = head[:-2] + _LAST
        if len(body) <= JOIN_UP_TO:
            transport.write(head + body)
        else:
            transport.writelines((head, body))

    def _unmodified(self, block: FieldBlock, answer: _Answer) -> bool:
        asked = block.values((b"if-none-match", b"if-modified-since"))
        known = answer.unmodified.get(asked)
        if known is None:
            stored = answer.entry.stored
            known = not_modified(
                block.fields, stored.status, Fields(stored.fields), stored.response_time
            )
            if len(answer.unmodified) < _CHOICES:
                answer.unmodified[asked] = known
        return known

    def _render(self, answer: _Answer, now: float) -> None:
        entry = answer.entry
        freshness = entry.freshness
        # The store is told of the uses since it was last told, and of this one.
        self._tier.touch(entry.id, now, answer.uses + 1)
        answer.uses = -1
        age, ttl = freshness.age(now), freshness.ttl(now)
        status, vercel = told(CacheStatus(hit=True, ttl=int(ttl)), answer.policy)
        answer.age, answer.cache_status, answer.vercel = int(age), status, vercel
        head = self._serving.rendered(entry, answer.policy)
        head = answer_head(head, answer.age, answer.status, len(answer.body), status, vercel)
        answer.head = head + b"\r\n"
        answer.unchanged = None
        # Until Age or the remaining freshness is another number of seconds.
        answer.until = min(now + 1 - age % 1, now + ttl % 1, answer.ends)

    def _render_unchanged(self, answer: _Answer) -> bytes:
        fields = visible_fields(answer.entry.fields, answer.policy)
        head = unchanged_head(fields, answer.age, answer.cache_status, answer.vercel)
        answer.unchanged = head
        return head

    # -- learning

    def _read_block(self, peers: Peers, block: bytes) -> tuple[FieldBlock, _Place] | None:
        known = peers.blocks.get(block)
        if known is not None:
            return known
        read = self._reader.read(block, self._max_fields)
        if read is None:
            return None
        place = peers.places.get(read.place)
        if place is None:
            place = peers.places[read.place] = _Place()
            self._count_line()
        known = read, place
        # A block that comes only once is not worth the room.
        mark = hash(block)
        if mark not in self._seen:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen.add(mark)
        elif len(block) <= _LONGEST_BLOCK:
            peers.blocks.put(block, known)
        return known

    def _renew(
        self,
        transport: asyncio.Transport,
        peers: Peers,
        known: tuple[FieldBlock, _Place],
        line: bytes,
        now: float,
        answer: _Answer | None,
    ) -> _Answer | None:
        """The answer as it is now: `answer`, if that is still good, or what the full path would
        give; None where that is not for here."""
        try:
            if answer is None or now >= answer.ends or not self._lookup.holds(answer.entry):
                block, place = known
                answer = self._find(transport, peers, block, place, line, now)
                if answer is None:
                    return None
            if now >= answer.until:
                self._render(answer, now)
        except Exception:
            # The full path comes to the same, and can tell the client and the log.
            return None
        return answer

    def _find(
        self,
        transport: asyncio.Transport,
        peers: Peers,
        block: FieldBlock,
        place: _Place,
        line: bytes,
        now: float,
    ) -> _Answer | None:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            return None
        request = self._read(transport, peers, match[1], match[2], block)
        if request is None:
            return None
        head = self._view.catch_up()
        decided = self._deciding.decide(request, now)
        self.unanswered = Unanswered(request, decided, head)
        found = decided.found
        if found is None or found.stored.incomplete or not isinstance(decided.decision, Hit):
            return None
        entry = found.entry or self._from_store(found)
        if entry is None:
            return None
        self.unanswered = None
        answer = _Answer(entry, request.policy, head_only=request.method == b"HEAD")
        # A token that was not issued may be at any time: copies of its own are looked up anew.
        if len(line) <= _LONGEST_LINE and not request.key.buster:
            self._remember(place, line, request.key.primary, block, answer)
        return answer

    def _read(
        self,
        transport: asyncio.Transport,
        peers: Peers,
        method: bytes,
        target: bytes,
        block: FieldBlock,
    ) -> EdgeRequest | None:
        try:
            request = self._intake.request(
                method,
                target,
                block.fields,
                version="1.1",
                secure=peers.secure,
                peer=_address(transport),
                has_body=False,
            )
        except (BadRequest, Misdirected):
            return None
        if request.key.buster:
            request = honour_buster(request, self._view)
        # An issued token may have to go to the origin, whatever is stored.
        return None if request.not_before else request

    def _from_store(self, found: Found) -> Entry | None:
        body = self._tier.read_inline(found.stored)
        return None if body is None else self._lookup.remember(found, body)

    def _remember(
        self, place: _Place, line: bytes, primary: bytes, block: FieldBlock, answer: _Answer
    ) -> None:
        variants = self._variants.get(primary, ())
        if answer.entry not in variants:
            # Too long for memory, or gone again.
            return
        target = place.get(line)
        if target is None or target.variants is not variants:
            if target is None:
                self._count_line()
            target = place[line] = _Target(primary, variants)
        target.remember(block, answer)

    def _count_line(self) -> None:
        self._lines += 1
        if self._lines > 2 * len(self._memory) + _SPARE_LINES:
            self._forget_all()

    def _forget_all(self) -> None:
        for peers in self._peers.values():
            peers.blocks.clear()
            for place in peers.places.values():
                place.clear()
            peers.places.clear()
        self._lines = 0

    # -- the account

    def _log_hit(
        self,
        transport: asyncio.Transport,
        peers: Peers,
        line: bytes,
        block: FieldBlock,
        answer: _Answer,
        now: float,
    ) -> None:
        assert self._log is not None
        method, target, _ = line.split(b" ")
        fields = block.fields
        unchanged = block.conditional and self._unmodified(block, answer)
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
                site=answer.site,
                host=answer.host,
                referer=fields.get(b"referer") or b"",
                user_agent=fields.get(b"user-agent") or b"",
                started=now,
                duration=self._clock() - now,
                first_byte=0.0,
                origin_seconds=None,
            )
        )


def _address(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    return peer_address(str(name[0]) if isinstance(name, tuple) else name or None)
