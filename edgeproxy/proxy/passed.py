"""What is learnt from requests that go to the origin for themselves alone."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.cache.disk import warn
from edgeproxy.cache.errors import StoreError
from edgeproxy.invalidation.journal import JournalError
from edgeproxy.invalidation.rules import Standing
from edgeproxy.proxy.decide import SAFE, classify
from edgeproxy.proxy.errors import InternalFailure
from edgeproxy.proxy.unsafe import represents_target, touched_targets
from edgeproxy.semantics.conditional import entity_tag, head_agrees
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.partial import strong_validator
from edgeproxy.semantics.storing import posted_for_get
from edgeproxy.semantics.tags import invalidated_groups
from edgeproxy.semantics.vary import matches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeproxy.cache.spool import Spool
    from edgeproxy.cache.store import SharedTier
    from edgeproxy.cache.stored import StoredResponse
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.invalidation.service import InvalidationService
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.decide import Pass
    from edgeproxy.proxy.in_flight import InFlight
    from edgeproxy.proxy.keeping import Keeping
    from edgeproxy.proxy.lookup import Lookup
    from edgeproxy.proxy.memo import UncacheableKeys
    from edgeproxy.proxy.pool import OriginAnswer
    from edgeproxy.proxy.request import EdgeRequest

log = logging.getLogger(__name__)


class Copy:
    """An answer's way into the store, beside that to its one reader."""

    def __init__(
        self,
        keeping: Keeping,
        policy: SitePolicy,
        response: StoredResponse,
        spool: Spool,
        room: int,
        in_flight: InFlight,
    ) -> None:
        """`room`: the longest body that is stored, in bytes. What is invalidated until it is in is
        made to be recorded."""
        self._keeping = keeping
        self._policy = policy
        self._response = response
        self._spool = spool
        self._room = room
        self._in_flight = in_flight
        self._open = True
        in_flight.began(response.target_id)

    async def append(self, chunk: bytes, *, last: bool) -> None:
        """Take a piece of the body in; the `last` one makes it whole, and stored."""
        self._open = self._open and self._spool.size + len(chunk) <= self._room
        if not self._open:
            return
        try:
            await self._spool.append(chunk)
        except StoreError as error:
            warn(log, error, "%s is not stored: %s", self._response.url, error)
            self._open = False
        if last:
            await self.finish()

    async def finish(self) -> None:
        """The body is whole: store it."""
        if not self._open:
            return
        self._open = False
        try:
            await self._keeping.put(self._spool, self._policy, self._response)
        except StoreError as error:
            warn(log, error, "%s is not stored: %s", self._response.url, error)

    async def close(self) -> None:
        """Give up what is not stored by now."""
        self._in_flight.ended(self._response.target_id)
        await self._spool.close()


class Passed:
    """Looks at the answers to requests that were passed on, for what they say of the cache."""

    def __init__(
        self,
        tier: SharedTier,
        lookup: Lookup,
        keeping: Keeping,
        view: JournalView,
        service: InvalidationService,
        in_flight: InFlight,
        uncacheable: UncacheableKeys,
    ) -> None:
        self._tier = tier
        self._lookup = lookup
        self._keeping = keeping
        self._view = view
        self._service = service
        self._in_flight = in_flight
        self._uncacheable = uncacheable

    @contextmanager
    def watching(self, request: EdgeRequest, why: Pass) -> Iterator[int]:
        """From before the request leaves until its answer is sent; the journal's position then.

        The rules that follow are kept, if what the request brings may be stored.
        """
        if request.method == b"POST":
            with self._view.hold() as hold:
                yield hold.position
        elif _to_reconsider(request, why):
            target_id = request.key.target_id
            # What invalidates the target meanwhile has to be recorded, though nothing is stored.
            self._in_flight.began(target_id)
            try:
                with self._view.hold() as hold:
                    yield hold.position
            finally:
                self._in_flight.ended(target_id)
        else:
            yield self._view.catch_up()

    async def learn(
        self, request: EdgeRequest, answer: OriginAnswer, why: Pass, position: int
    ) -> Copy | None:
        """Do what an answer asks for, before the reader hears of it: what it asks for next must
        not be old. If the answer is to be stored, what takes it in."""
        if (
            request.method == b"HEAD"
            and classify(request.method, request.fields, request.has_body) is None
        ):
            # Others get past what is fresh, and could be anybody's means to change or remove that.
            await self._heard(request, answer, position)
        if _to_reconsider(request, why):
            return self._reconsidered(request, answer, position)
        if request.method in SAFE or not 200 <= answer.status < 400:
            return None
        key = request.key
        newer = self._overtaken(request, answer)
        try:
            removed_at = await self._service.invalidate_changed(
                request.policy.name,
                touched_targets(request, answer.fields),
                invalidated_groups(answer.fields, key.scheme, key.host),
            )
        except JournalError as error:
            # Who is told that it is done would be given what was there before.
            log.warning("what was changed by a request for %s stays stored: %s", key.url, error)
            raise InternalFailure("not-invalidated") from error
        if request.method != b"POST" or newer:
            return None
        return self._posted(request, answer, position, removed_at)

    def _overtaken(self, request: EdgeRequest, answer: OriginAnswer) -> bool:
        """Whether another request has brought something for the target since this one left."""
        if request.method != b"POST":
            return False
        stored = self._lookup.all_stored(request.key.primary)
        return any(each.response_time > answer.request_time for each in stored)

    async def _heard(self, request: EdgeRequest, answer: OriginAnswer, position: int) -> None:
        """RFC 9111 4.3.5: a 200 to HEAD freshens the stored responses that it describes, and ends
        the others that could have been used for it."""
        if answer.status != 200 or b"authorization" in request.fields:
            # RFC 9111 3.5: with credentials, it may describe what one reader alone is to get.
            return
        for stored in self._lookup.all_stored(request.key.primary):
            fields = Fields(stored.fields)
            if (
                not matches(stored.selecting, request.fields, fields)
                # It came meanwhile, so it says more than this answer.
                or stored.request_time > answer.request_time
            ):
                continue
            updated = None
            if stored.status == 200 and head_agrees(fields, stored.body.length, answer.fields):
                if not self._describes(answer.fields, stored, fields):
                    continue
                found = self._lookup.judge(stored, request.policy, stored.position)
                updated = await self._keeping.freshen(request, found, answer, position)
            if updated is None:
                await self._keeping.forget(stored)
            else:
                self._lookup.discard(stored.id)

    def _describes(self, head: Fields, stored: StoredResponse, fields: Fields) -> bool:
        """Whether a response to HEAD that does not contradict a stored one is known to describe it.

        Without a validator an equal length proves nothing: a page made anew each time would be kept
        for as long as somebody asks for its head. A strong one that the origin leaves out is let
        pass, but not where an invalidation has said that the content may be another.
        """
        if strong_validator(head) is not None:
            return True
        verdict = self._view.verdict(stored, stored.position)
        if stored.invalidated or verdict.standing is not Standing.VALID:
            return False
        return strong_validator(fields) is not None or entity_tag(head) is not None

    def _reconsidered(
        self, request: EdgeRequest, answer: OriginAnswer, position: int
    ) -> Copy | None:
        """Look at the answer for a key whose last one could not be stored.

        What one reader got says little about the others: if this one can be, it is, and who comes
        next is no longer passed on. One answer is enough of those that come side by side.
        """
        if self._uncacheable.reason(request.key.primary, answer.response_time) is None:
            return None
        _, response = self._keeping.storable(request, answer, position, None)
        if response is None:
            return None
        self._uncacheable.forget(request.key.primary)
        return self._copy(request, response)

    def _posted(
        self, request: EdgeRequest, answer: OriginAnswer, position: int, removed_at: int | None
    ) -> Copy | None:
        """RFC 9110 9.3.3: an answer to POST that is what a GET would bring, and says for how long.

        It is as good as the journal at `position`, before the request left; its own invalidation,
        at `removed_at`, is of what was stored before.
        """
        policy = request.policy
        if request.honour_directives and request.directives.no_store:
            return None  # RFC 9111 5.2.1.5
        if not represents_target(request, answer.fields):
            return None
        if not posted_for_get(answer.status, answer.fields, policy.storage):
            return None
        _, response = self._keeping.storable(request, answer, position, None)
        if response is None:
            return None
        if removed_at is not None:
            self._view.catch_up()
            verdict = self._view.verdict(response, position, removed_at - 1)
            if position < self._view.floor or verdict.standing is not Standing.VALID:
                return None
            response = msgspec.structs.replace(response, position=removed_at)
        return self._copy(request, response)

    def _copy(self, request: EdgeRequest, response: StoredResponse) -> Copy:
        return Copy(
            self._keeping,
            request.policy,
            response,
            self._tier.spool(),
            self._tier.max_object_bytes,
            self._in_flight,
        )


def _to_reconsider(request: EdgeRequest, why: Pass) -> bool:
    """Whether a request is passed on only because of what an earlier one brought."""
    return why.fwd == "bypass" and request.method == b"GET" and not request.upgrade
