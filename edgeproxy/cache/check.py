"""Looks into an index before anybody relies on it, and clears away bodies that were left over."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

import lmdb
from lmdb.verify import VerifyError, verify
from msgspec.structs import replace

from edgeproxy.cache.child import in_child
from edgeproxy.cache.disk import DAMAGE
from edgeproxy.cache.errors import StoreUnusable
from edgeproxy.cache.garbage import discard_body, garbage_before
from edgeproxy.cache.index import Index
from edgeproxy.cache.layout import ID_SIZE, body_path
from edgeproxy.cache.lists import keys_of
from edgeproxy.cache.rows import DamagedRow

if TYPE_CHECKING:
    from pathlib import Path

    from edgeproxy.cache.index import Txn
    from edgeproxy.cache.stored import StoredResponse

VERIFIED_BYTES = 16 * 2**20
"""Largest index whose every page is checked; of the rows of larger ones, as many as time allows."""
_SECONDS = 0.1
"""For a look at rows: readers wait for it. What it does not see is checked when it is read."""
_ALL = sys.maxsize
_ROWS = 1000
"""How many rows have their times set right in one transaction."""


class Finding(NamedTuple):
    """What became of a check."""

    verdict: Literal["sound", "damaged", "unusable"]
    reason: str


class Damaged(Exception):
    """The index is not what was written, or not this store's."""


def check_in_child(
    responses: Path, bodies: Path, max_bytes: int, journal_id: bytes, step: float = 0.0
) -> Finding:
    """`check_index` in a process of its own: a damaged file can kill the one that maps it.

    That process is forked, so the caller must have no other threads, nor that index open.
    """
    told = in_child(
        lambda: json.dumps(check_index(responses, bodies, max_bytes, journal_id, step)).encode()
    )
    if not told.in_time:
        return Finding("damaged", "it can't be read to its end")
    if not told.report:
        return Finding("damaged", f"reading it ends in signal {told.signal}")
    verdict, reason = json.loads(told.report)
    return Finding(verdict, reason)


def check_index(
    responses: Path, bodies: Path, max_bytes: int, journal_id: bytes, step: float = 0.0
) -> Finding:
    """Check the index in `responses`, made where there is none, and clear what was left over.

    The clock that its times are from has since been stepped by so many seconds.
    """
    try:
        _check_pages(responses / "data.mdb")
        index = Index(responses, max_bytes, journal_id)
        try:
            _check_rows(index)
            _clear_left_over(index, bodies)
            if step:
                _set_times_right(index, step)
        finally:
            index.close()
    except Damaged as error:
        return Finding("damaged", str(error))
    except StoreUnusable as error:
        # Without a cause it says that the index is another version's, or another journal's.
        damaged = error.__cause__ is None or isinstance(error.__cause__, DAMAGE)
        return Finding("damaged" if damaged else "unusable", str(error))
    except (lmdb.Error, OSError) as error:
        return Finding("damaged" if isinstance(error, DAMAGE) else "unusable", str(error))
    except Exception as error:
        # Whatever it is, it comes from what was read.
        return Finding("damaged", repr(error))
    return Finding("sound", "")


def _check_pages(data: Path) -> None:
    if not data.exists() or data.stat().st_size > VERIFIED_BYTES:
        return
    try:
        problems = verify(str(data), subdir=False)  # type: ignore[no-untyped-call]
    except VerifyError as error:
        raise Damaged(str(error)) from error
    if problems:
        raise Damaged(str(problems[0]))


def _check_rows(index: Index) -> None:
    give_up = time.monotonic() + _SECONDS
    with index.reading() as txn:
        rows = index.entries(txn)
        if txn.stat(index.usage)["entries"] != rows:
            raise Damaged(f"{rows} rows, but another number in use")
        with txn.cursor(index.rows) as cursor:
            # From anywhere, so that each time others are looked at where they are too many.
            more = cursor.set_range(os.urandom(ID_SIZE)) or cursor.first()
            for _ in range(rows):
                if not more or time.monotonic() > give_up:
                    break
                row_id = bytes(cursor.key())
                try:
                    stored = index.row(txn, row_id)
                except DamagedRow as error:
                    raise Damaged(f"row {row_id.hex()} is damaged") from error
                if stored is None or not _is_listed(index, txn, stored):
                    raise Damaged(f"row {row_id.hex()} is not listed where it should be")
                more = cursor.next() or cursor.first()


def _is_listed(index: Index, txn: Txn, stored: StoredResponse) -> bool:
    usage = index.usage_of(txn, stored.id)
    return (
        usage is not None
        and usage.body == stored.body
        and index.has_body(txn, stored)
        and all(txn.cursor(index.lists).set_key_dup(key, stored.id) for key in keys_of(stored))
    )


def _clear_left_over(index: Index, bodies: Path) -> None:
    """Remove what no row has: nobody is writing a body now."""
    for ref in garbage_before(index, float("inf"), _ALL):
        with index.writing() as txn:
            if ref.kind == "file":
                body_path(bodies, ref.id).unlink(missing_ok=True)
                txn.delete(ref.id, db=index.garbage)
            else:
                discard_body(index, txn, ref, 0.0)
    with index.reading() as txn:
        for path in bodies.glob("*/*"):
            if not _is_body(path.name, index, txn):
                path.unlink()


def _is_body(name: str, index: Index, txn: Txn) -> bool:
    try:
        body_id = bytes.fromhex(name)
    except ValueError:
        return False
    return txn.get(body_id, db=index.bodies) is not None if body_id else False


def _set_times_right(index: Index, step: float) -> None:
    following: bytes | None = b"\0"
    while following is not None:
        rows, following = index.walk(following, _ROWS)
        try:
            with index.writing() as txn:
                for stored in rows:
                    index.replace(txn, stored, _stepped(stored, step))
        except lmdb.Error as error:
            raise Damaged(f"its times can't be set right: {error}") from error


def _stepped(stored: StoredResponse, step: float) -> StoredResponse:
    due = stored.deleted_from
    return replace(
        stored,
        request_time=stored.request_time + step,
        response_time=stored.response_time + step,
        deleted_from=due + step if due else due,
    )
