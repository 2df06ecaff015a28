"""What the origin's answers leave in the store: responses, and news of those stored before."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.cache.disk import warn
from edgeproxy.cache.errors import StoreError
from edgeproxy.cache.stored import UNWRITTEN, StoredResponse, variant_id
from edgeproxy.proxy.decide import may_serve_on_error
from edgeproxy.proxy.incomplete import as_part
from edgeproxy.proxy.rendering import ready
from edgeproxy.proxy.validating import freshened, selected
from edgeproxy.semantics.conditional import freshen
from edgeproxy.semantics.errors import TagLimitExceeded
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.storing import may_store, storable_fields
from edgeproxy.semantics.tags import group_tags, response_tags
from edgeproxy.semantics.vary import selecting, vary_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.cache.spool import Spool
    from edgeproxy.cache.store import SharedTier
    from edgeproxy.config.sites import SitePolicy
    from edgeproxy.invalidation.view import JournalView
    from edgeproxy.proxy.incomplete import Incomplete
    from edgeproxy.proxy.lookup import Found, Lookup
    from edgeproxy.proxy.memo import RefreshBackoff, UncacheableKeys
    from edgeproxy.proxy.pool import OriginAnswer
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.proxy.tally import Tally

log = logging.getLogger(__name__)

# RFC 5861 4: an error is a 500, 502, 503 or 504.
ERROR_STATUS = frozenset({500, 502, 503, 504})
# What was wrong with one request: the page may be as good as ever for all others, and whoever can
# bring such an answer about must not be able to take it away from them.
ABOUT_THE_REQUEST = frozenset({400, 406, 408, 413, 415, 417, 421, 426, 431})
# A refresh that is answered so, or told "too many requests", has learnt nothing about the response.
REFRESH_FAILED = ERROR_STATUS | ABOUT_THE_REQUEST | {429}


class Keeping:
    """What one worker stores."""

    def __init__(
        self,
        tier: SharedTier,
        lookup: Lookup,
        incomplete: Incomplete,
        view: JournalView,
        uncacheable: UncacheableKeys,
        backoff: RefreshBackoff,
        tally: Tally,
    ) -> None:
        self._tier = tier
        self._lookup = lookup
        self._incomplete = incomplete
        self._view = view
        self._uncacheable = uncacheable
        self._backoff = backoff
        self._tally = tally

    def storable(
        self,
        request: EdgeRequest,
        answer: OriginAnswer,
        position: int,
        found: Found | None,
        *,
        part: bool = False,
    ) -> tuple[str, StoredResponse | None]:
        """The response as it would be stored, or why not; `part`: a range was asked for."""
        refusal, response = self._storable(request, answer, position, found, part=part)
        self._tally.note(refusal)
        return refusal, response

    def _storable(
        self,
        request: EdgeRequest,
        answer: OriginAnswer,
        position: int,
        found: Found | None,
        *,
        part: bool,
    ) -> tuple[str, StoredResponse | None]:
        policy, key = request.policy, request.key
        if (
            found is not None
            and answer.status in REFRESH_FAILED
            and may_serve_on_error(found.freshness, answer.response_time)
        ):
            # However long it calls itself fresh, an error does not replace what stands in for it.
            return "stale-if-error", None
        part = part and answer.status == 206
        # RFC 9111 3.3: a 206 may be stored as if it were an incomplete 200.
        status = 200 if part else answer.status
        if len(key.target) > policy.max_target_bytes:
            return "key-too-long", None
        refusal = _refusal(request, status, answer.fields)
        if refusal is not None:
            return refusal, None
        if not answer.response.framed and not policy.store_unframed:
            return "unframed", None
        length = answer.response.content_length
        if length is not None and length > self._tier.max_object_bytes:
            return "too-large", None
        names = vary_names(answer.fields)
        if names is None:
            return "vary-star", None
        try:
            tags = _tags(answer.fields, request)
        except TagLimitExceeded as error:
            log.warning("%s is not stored: %s", key.url, error)
            return "tag-limit", None
        chosen = selecting(names, request.fields)
        response = StoredResponse(
            primary=key.primary,
            variant=variant_id(chosen),
            target_id=key.target_id,
            site=key.site,
            environment=request.environment,
            scheme=key.scheme,
            host=key.host,
            target=key.target,
            buster=key.buster,
            status=answer.status,
            reason=answer.response.reason,
            fields=storable_fields(answer.fields, policy.storage.targets).raw,
            selecting=chosen,
            tags=tags,
            request_time=answer.request_time,
            response_time=answer.response_time,
            position=position,
            invalidated=0,
            body=UNWRITTEN,
        )
        if not part:
            return "", response
        ranged = as_part(response)
        return ("" if ranged else "content-range"), ranged

    def crowds_out(self, policy: SitePolicy, response: StoredResponse) -> str | None:
        """Which limit of a URL's copies takes another one's place away for this response."""
        if response.selecting:
            others = self._lookup.all_stored(response.primary)
            if sum(each.id != response.id for each in others) >= policy.max_variants:
                return "variant-limit"
        if response.buster and self._tier.copies(response) >= policy.max_busters:
            return "buster-limit"
        return None

    async def put(
        self,
        spool: Spool,
        policy: SitePolicy,
        response: StoredResponse,
        judged: Found | None = None,
        *,
        alone: bool = False,
    ) -> StoredResponse | None:
        """Store a response whose body is whole; `judged`: the same with its freshness, where that
        is known; `alone`: nothing else is stored under its key.

        None where it may not be stored any more. Raises `StoreError`.
        """
        body = spool.whole
        if body is None and spool.size <= spool.memory_limit:
            body = await spool.read(0, spool.size)
        if judged is None:
            judged = self._lookup.judge(response, policy, response.position)
        stored = await self._tier.put(
            response,
            spool,
            self._view.admit,
            max_variants=policy.max_variants,
            max_busters=policy.max_busters,
            ready=ready(response, policy, judged.freshness),
        )
        if stored is not None:
            self._backoff.succeeded(stored.id)
            if body is not None:
                self._lookup.remember_by(policy, judged.stored_as(stored), body)
            if not alone:
                await self._incomplete.superseded(stored)
        return stored

    async def validated(
        self,
        request: EdgeRequest,
        found: Found | None,
        others: Sequence[StoredResponse],
        answer: OriginAnswer,
        position: int,
    ) -> StoredResponse | None:
        """The stored response that a 304 says is the answer; None if it is none of them."""
        if found is not None and freshened(answer.fields, found, others):
            return await self.freshen(request, found, answer, position)
        chosen = selected(answer.fields, others)
        if chosen is None:
            return None
        adopted = await self.adopt(request, chosen, answer, position)
        if adopted is not None and found is not None and found.stored.id != adopted.id:
            await self.forget(found.stored)
        return adopted

    async def adopt(
        self, request: EdgeRequest, chosen: StoredResponse, answer: OriginAnswer, position: int
    ) -> StoredResponse | None:
        """Store a variant once more, as the response to this request too (RFC 9111 4.1, 4.3.3)."""
        policy = request.policy
        fields = freshen(Fields(chosen.fields), answer.fields)
        refusal = _refusal(request, chosen.status, fields)
        names = vary_names(fields)
        if refusal is not None or names is None:
            return None
        selects = selecting(names, request.fields)
        spool = self._tier.spool()
        try:
            response = msgspec.structs.replace(
                chosen,
                variant=variant_id(selects),
                selecting=selects,
                fields=storable_fields(fields, policy.storage.targets).raw,
                tags=_tags(fields, request),
                request_time=answer.request_time,
                response_time=answer.response_time,
                position=position,
                invalidated=0,
                deleted_from=0.0,
                stepped=0.0,
                body=UNWRITTEN,
            )
            read = await self._tier.open(chosen)
            async for chunk in read(0, None):
                await spool.append(chunk)
            stored = await self.put(spool, policy, response)
        except TagLimitExceeded as error:
            log.warning("%s is not stored: %s", chosen.url, error)
            return None
        except StoreError as error:
            warn(log, error, "%s is not stored: %s", chosen.url, error)
            return None
        finally:
            await spool.close()
        self._uncacheable.forget(request.key.primary)
        return stored

    async def freshen(
        self, request: EdgeRequest, found: Found, answer: OriginAnswer, position: int
    ) -> StoredResponse | None:
        """RFC 9111 4.3.4: the stored response with the 304's fields, times and position.

        None where it is gone, or where a response with such fields would not be stored for all who
        get this one now: a 304 may bear one reader's cookie, or call private what was not.
        """
        fields = freshen(found.fields, answer.fields)
        # RFC 9111 3.3: a 206 is stored as if it were an incomplete 200.
        status = 200 if found.stored.incomplete else found.stored.status
        refusal = _refusal(request, status, fields)
        if refusal is not None or vary_names(fields) != tuple(
            name for name, _ in found.stored.selecting
        ):
            return None
        try:
            tags = _tags(fields, request)
        except TagLimitExceeded as error:
            log.warning("%s is not kept: %s", request.key.url, error)
            await self.forget(found.stored)
            return None
        fresh = msgspec.structs.replace(
            found.stored,
            fields=storable_fields(fields, request.policy.storage.targets).raw,
            tags=tags,
            request_time=answer.request_time,
            response_time=answer.response_time,
            position=position,
            invalidated=0,
            deleted_from=0.0,
            stepped=0.0,
        )
        renewed = self._lookup.judge(fresh, request.policy, position)
        readied = ready(fresh, request.policy, renewed.freshness)
        try:
            updated = await self._tier.update(found.stored, fresh, self._view.admit, readied)
        except StoreError as error:
            warn(log, error, "%s is not updated: %s", request.key.url, error)
            return None
        if updated is not None:
            self._backoff.succeeded(updated.id)
            if found.entry is not None:
                judged = self._lookup.judge(updated, request.policy, updated.position)
                self._lookup.remember_by(request.policy, judged, found.entry.body)
        return updated

    async def forget(self, stored: StoredResponse) -> None:
        """Remove what is stored, where the store can: whoever is answered now need not wait for
        it, nor fail with it."""
        self._lookup.discard(stored.id)
        try:
            await self._tier.delete([stored.id])
        except StoreError as error:
            warn(log, error, "%s is not removed: %s", stored.url, error)


def _refusal(request: EdgeRequest, status: int, fields: Fields) -> str | None:
    """Why a response with that status and these fields may not be stored; None if it may."""
    policy = request.policy
    return may_store(
        b"GET",
        request.fields,
        status,
        fields,
        policy.storage,
        policy.freshness,
        request.key.target,
    )


def _tags(fields: Fields, request: EdgeRequest) -> tuple[str, ...]:
    policy, key = request.policy.tags, request.key
    return response_tags(fields, policy) + group_tags(fields, policy, key.scheme, key.host)
