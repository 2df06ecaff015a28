"""Requests that go to the origin for themselves alone, and their answers' way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgeproxy.proxy.rendering import withheld_names
from edgeproxy.semantics.cache_status import CacheStatus
from edgeproxy.semantics.fields import Fields
from edgeproxy.semantics.forwarding import hops_left

if TYPE_CHECKING:
    from edgeproxy.proxy.decide import Pass
    from edgeproxy.proxy.exchange import Exchange
    from edgeproxy.proxy.passed import Copy, Passed
    from edgeproxy.proxy.pool import OriginAnswer, Pools
    from edgeproxy.proxy.request import EdgeRequest
    from edgeproxy.semantics.cache_status import Forwarded


class Passing:
    """Passes requests on."""

    def __init__(self, passed: Passed, pools: Pools) -> None:
        self._passed = passed
        self._pools = pools

    async def send(
        self, exchange: Exchange, request: EdgeRequest, why: Pass, *, upgrade: bool = False
    ) -> None:
        """Send this request to the origin for itself alone, and its answer back."""
        exchange.fwd = why.fwd
        hops = hops_left(request.method, request.fields)
        if hops == 0:
            await _answer_for_itself(exchange)
            return
        if hops is not None:
            fewer = request.fields.replacing(b"max-forwards", b"%d" % (hops - 1))
            request = replace(request, fields=fewer)
        with self._passed.watching(request, why) as position:
            pool = self._pools.of(request.policy)
            body = exchange.body() if request.has_body else None
            answer = await pool.send(
                request, request.fields, body, exchange.content_length, exchange.interim, upgrade
            )
            if answer.status == 101:
                exchange.result = "pass"
                idle = request.policy.timeouts.between_bytes
                await exchange.switch(answer, CacheStatus(fwd=why.fwd, fwd_status=101), idle)
                return
            await self.hand_on(exchange, request, answer, why, position)

    async def hand_on(
        self,
        exchange: Exchange,
        request: EdgeRequest,
        answer: OriginAnswer,
        why: Pass,
        position: int,
    ) -> None:
        """Do what the origin's answer asks of the cache, and send it to its one reader.

        `position`: the journal's before the request left.
        """
        try:
            copy = await self._passed.learn(request, answer, why, position)
        except BaseException:
            answer.response.abort()
            raise
        try:
            await self.relay(exchange, request, answer, why.fwd, why.detail, copy)
        finally:
            if copy is not None:
                await copy.close()

    async def relay(
        self,
        exchange: Exchange,
        request: EdgeRequest,
        answer: OriginAnswer,
        fwd: Forwarded,
        detail: str | None,
        copy: Copy | None = None,
    ) -> None:
        """Stream the origin's answer to its one reader, no faster than that reads."""
        exchange.result = "pass" if fwd in ("method", "bypass") else "miss"
        exchange.origin_took(answer.response_time - answer.request_time)
        response = answer.response
        status = CacheStatus(
            fwd=fwd, fwd_status=answer.status, stored=copy is not None, detail=detail
        )
        withheld = withheld_names(request.policy)
        alone = copy is None and not exchange.head_only and answer.status != 304
        if alone and (body := response.take_whole()) is not None:
            exchange.send_whole(
                answer.status, answer.fields, body, status, response.reason, but=withheld
            )
            return
        try:
            await exchange.start(
                answer.status,
                answer.fields.without(withheld),
                response.content_length,
                status,
                reason=response.reason,
                head_only=exchange.head_only,
            )
            while not exchange.head_only and (chunk := await response.read_chunk()):
                if copy is not None:
                    await copy.append(chunk, last=response.at_eof())
                await exchange.write(chunk)
            if copy is not None:
                await copy.finish()
            await exchange.finish()
        finally:
            response.release()


async def _answer_for_itself(exchange: Exchange) -> None:
    """RFC 9110 7.6.2, 9.3.7: answer an OPTIONS that may go no further."""
    exchange.result = "pass"
    await exchange.start(200, Fields(), 0, CacheStatus(detail="max-forwards"))
    await exchange.finish()
