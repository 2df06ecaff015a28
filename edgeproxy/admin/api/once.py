"""Idempotency keys: a call that is made again with its key gets the first one's answer."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from edgeproxy.admin.problems import Problem
from edgeproxy.admin.refusals import Fault, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from edgeproxy.admin.api.endpoint import ApiCall

_KEY = re.compile(r"[!-~]{1,255}")


async def once(
    call: ApiCall, name: str, answer: Callable[[], Awaitable[bytes]]
) -> tuple[bytes, bool]:
    """The answer to a call of that endpoint, and whether it is an earlier one's.

    Raises `Problem` 409 while the first call is being worked on, 422 where that asked for something
    else, and JournalError.
    """
    key = call.incoming.headers.get("Idempotency-Key")
    if key is None:
        return await answer(), False
    if _KEY.fullmatch(key) is None:
        fault = Fault("Idempotency-Key", "must have 1 to 255 visible ASCII characters")
        raise Refused.bad_request(fault)
    ledger, token = call.edge.ledger, call.by.name
    key = f"{name} {key}"
    asked = f"{call.incoming.dry_run:d}{call.body.model_dump_json()}"
    digest = hashlib.blake2b(asked.encode(), digest_size=16).digest()
    kept = ledger.begin(token, key, digest, call.edge.now())
    if kept is not None:
        if kept.digest != digest:
            raise _problem(422, "another call was made with this key")
        if kept.answer is None:
            raise _problem(409, "the first call with this key is still being worked on")
        return kept.answer, True
    try:
        made = await answer()
    except BaseException:
        ledger.forget(token, key)
        raise
    ledger.finish(token, key, made)
    return made, False


def _problem(status: int, detail: str) -> Problem:
    headers = {"Retry-After": "1"} if status == 409 else {}
    errors = [{"field": "Idempotency-Key", "detail": detail}]
    return Problem(status, f"Idempotency-Key: {detail}", errors=errors, headers=headers)
